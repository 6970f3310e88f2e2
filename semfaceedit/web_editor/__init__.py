"""The web editor in three layers: `session` (a face and its steps), `server` (messages), and the
page in `page/`."""

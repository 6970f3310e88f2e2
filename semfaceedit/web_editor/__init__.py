"""The web editor in three layers: `session` (a face and its revisions), `server` (messages),
and the page in `page/`."""

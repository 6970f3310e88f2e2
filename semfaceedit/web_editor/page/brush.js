// The face follows the brush where the weights have an encoder: while the map is painted the viewer shows
// the face as it follows, and when the pen lifts the stroke becomes a revision, which the editor sharpens.

import { page, send } from "./state.js";

const same = (a, b) => a.length === b.length && a.every((label, place) => label === b[place]);

export class Brush {
  constructor() {
    this.known = null; // the map of the revision at hand
    this.sent = null; // a stroke on its way to be a revision: its map, and how many of the painter's strokes it holds
    this.next = []; // what waits for that
    this.ahead = false; // the viewer shows a face that is no revision yet
  }

  get live() {
    return Boolean(page.about?.follows);
  }

  // The map has changed, or the pen was lifted.
  changed() {
    const { painter, viewer } = page;
    if (!this.live || !this.known) return;
    if (same(painter.labels, this.sent?.labels ?? this.known)) {
      if (this.ahead && !this.sent) viewer.show(); // a stroke was dropped
      this.ahead &&= Boolean(this.sent);
      return;
    }
    this.ahead = true;
    viewer.follow(painter.labels);
    if (painter.last || this.sent) return;
    const labels = painter.labels.slice();
    const name = painter.names.join(", ").slice(0, 200) || "reset";
    if (send({ type: "stroke", name, number: painter.revision }, labels)) this.sent = { labels, count: painter.strokes.length };
  }

  // The map of a revision, and that of the face before it was painted on; whether the stroke that was sent made it.
  arrived(labels, before, size, number) {
    const { painter } = page;
    const own = this.sent !== null && size === painter.size && same(labels, this.sent.labels);
    const moved = number !== painter.revision || size !== painter.size;
    this.known = labels;
    if (own) {
      painter.strokes.splice(0, this.sent.count);
      painter.original = before;
      painter.revision = number;
      this.sent = null;
    } else if (moved) {
      this.sent = null;
      this.ahead = false;
      painter.load(before, size, number, { labels, strokes: [], undone: [] });
    }
    this.changed();
    if (!this.sent) this.proceed();
    return own;
  }

  // Whether `act` is put off until the stroke is a revision.
  puts(act) {
    if (this.sent) this.next.push(act);
    return Boolean(this.sent);
  }

  proceed() {
    for (const act of this.next.splice(0)) act();
  }

  // A message that was refused, or lost with the socket.
  failed() {
    this.sent = null;
    this.next = [];
  }
}

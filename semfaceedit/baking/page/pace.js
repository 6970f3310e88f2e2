// How many rays a picture of a head that moves has: fewer while frames come late, more while there is time.

const SMOOTH = 1000 / 24;  // milliseconds for a frame
const LEAST = 128;  // rays along an edge

export class Pace {
  constructor() {
    this.share = 1;  // of the rays of a still picture, along an edge
    this.last = 0;
  }

  // Rays along an edge of the frame at `now`, where a still picture has `full`.
  size(full, moving, now) {
    if (moving && this.last) this.adapt(now - this.last);
    this.last = moving ? now : 0;
    return moving ? Math.max(Math.min(LEAST, full), Math.round((full * this.share) / 16) * 16) : full;
  }

  adapt(milliseconds) {
    if (milliseconds > SMOOTH) this.share = Math.max(0.2, this.share * Math.max(0.6, Math.sqrt(SMOOTH / milliseconds)));
    else if (milliseconds < 0.6 * SMOOTH) this.share = Math.min(1, this.share * 1.04);
  }
}

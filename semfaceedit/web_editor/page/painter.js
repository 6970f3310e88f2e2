// The label map as a canvas: class ids that are painted over a picture of the face.

const MOST_STROKES = 100;
const MOST_ZOOM = 16;
const WHEEL = 0.002; // of a wheel's step, in powers of e
const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

// Every cell of a size x size map whose centre is within `radius` of the line from a to b.
export function stroke(size, a, b, radius, paint) {
  const low = [0, 1].map((axis) => Math.max(0, Math.floor(Math.min(a[axis], b[axis]) - radius)));
  const high = [0, 1].map((axis) => Math.min(size - 1, Math.ceil(Math.max(a[axis], b[axis]) + radius)));
  const along = [b[0] - a[0], b[1] - a[1]];
  const length = along[0] ** 2 + along[1] ** 2;
  for (let y = low[1]; y <= high[1]; y++) {
    for (let x = low[0]; x <= high[0]; x++) {
      const from = [x + 0.5 - a[0], y + 0.5 - a[1]];
      const share = length ? Math.min(1, Math.max(0, (from[0] * along[0] + from[1] * along[1]) / length)) : 0;
      if (Math.hypot(from[0] - share * along[0], from[1] - share * along[1]) <= radius) paint(y * size + x);
    }
  }
}

// Every cell that is connected with the one at (x, y) and has its label.
export function area(labels, size, x, y, paint) {
  const label = labels[y * size + x];
  const seen = new Uint8Array(labels.length);
  const todo = [y * size + x];
  seen[todo[0]] = 1;
  while (todo.length) {
    const place = todo.pop();
    paint(place);
    const column = place % size;
    for (const [next, inside] of [
      [place - size, place >= size], [place + size, place + size < labels.length],
      [place - 1, column > 0], [place + 1, column < size - 1],
    ]) {
      if (inside && !seen[next] && labels[next] === label) {
        seen[next] = 1;
        todo.push(next);
      }
    }
  }
}

// Looking closer: `zoom` times as large, with the cell (x, y) in the upper left corner.
class View {
  constructor() {
    this.zoom = 1;
    this.x = this.y = 0;
  }

  // By a factor, so that the cell at `here` stays where it is.
  zoomAt(here, factor, size) {
    const zoom = Math.min(MOST_ZOOM, Math.max(1, this.zoom * factor));
    const kept = this.zoom / zoom;
    this.zoom = zoom;
    this.moveTo(here[0] - (here[0] - this.x) * kept, here[1] - (here[1] - this.y) * kept, size);
  }

  moveTo(x, y, size) {
    const most = size - size / this.zoom;
    this.x = Math.min(most, Math.max(0, x));
    this.y = Math.min(most, Math.max(0, y));
  }
}

export class Painter {
  // changed(): after every change of the map; picked(label): after a pick; under(label or null):
  // the label under the pointer. A stroke remembers the map before it, its name, and the revision of
  // the face that it was painted on.
  constructor(canvas, { changed, picked, under }) {
    Object.assign(this, { canvas, changed, picked, under });
    this.tool = "brush";
    this.label = 13;
    this.radius = 4;
    this.cover = 0.55;
    this.palette = [];
    this.labels = new Uint8Array(0);
    this.original = new Uint8Array(0);
    this.size = 0;
    this.revision = null;
    this.locked = false; // nothing is painted at all
    this.protected = new Set(); // labels that are not painted over
    this.picture = null;
    this.undone = [];
    this.strokes = [];
    this.pointer = null; // the cell under the mouse
    this.cursor = null; // the cell that arrow keys move
    this.view = new View();
    this.held = new Map(); // pointers that are down, by their numbers
    this.brushing = null; // the one that paints
    this.panning = false; // a drag moves the map
    this.layer = document.createElement("canvas");
    canvas.addEventListener("pointerdown", (event) => this.down(event));
    canvas.addEventListener("pointermove", (event) => this.move(event));
    canvas.addEventListener("pointerup", (event) => this.up(event));
    canvas.addEventListener("pointercancel", (event) => this.up(event));
    canvas.addEventListener("pointerleave", () => {
      this.pointer = null;
      this.under(null);
      this.draw();
    });
    canvas.addEventListener("wheel", (event) => {
      event.preventDefault();
      this.zoomAt(this.place(event), Math.exp(-WHEEL * event.deltaY));
    }, { passive: false });
    canvas.addEventListener("keydown", (event) => this.key(event));
    canvas.addEventListener("keyup", (event) => {
      if (event.key === " " && this.last) this.lift();
    });
    new ResizeObserver(() => this.draw()).observe(canvas);
  }

  // The map of a revision, with what was painted on it before, if anything was: from `kept`.
  load(labels, size, revision, kept) {
    this.original = labels.slice();
    this.labels = (kept?.labels ?? labels).slice();
    this.strokes = kept?.strokes ?? [];
    this.undone = kept?.undone ?? [];
    if (size !== this.size) this.view = new View();
    this.size = size;
    this.revision = revision;
    this.layer.width = this.layer.height = size;
    this.pixels = new ImageData(size, size);
    this.last = this.brushing = null;
    this.refresh();
  }

  // What `load` takes up again.
  kept() {
    return { labels: this.labels, strokes: this.strokes, undone: this.undone };
  }

  // What was painted since the last reset, without repetition.
  get names() {
    const names = this.strokes.map((stroke) => stroke.name);
    return [...new Set(names.slice(names.lastIndexOf("reset") + 1))];
  }

  // A map that an edit by code made of this one: one stroke.
  replace(labels, name) {
    this.remember(name);
    this.labels = labels.map((label, place) => (this.protected.has(this.labels[place]) ? this.labels[place] : label));
    this.refresh();
  }

  get painted() {
    return this.labels.some((label, place) => label !== this.original[place]);
  }

  undo() {
    this.exchange(this.strokes, this.undone);
  }

  redo() {
    this.exchange(this.undone, this.strokes);
  }

  // The map takes the place of the last one of `from`, and that of the map.
  exchange(from, to) {
    if (!from.length) return;
    const { labels, name, revision } = from.pop();
    to.push({ labels: this.labels, name, revision });
    this.labels = labels;
    this.refresh();
  }

  reset() {
    if (!this.painted) return;
    this.remember("reset");
    this.labels = this.original.slice();
    this.refresh();
  }

  remember(name) {
    this.strokes.push({ labels: this.labels.slice(), name, revision: this.revision });
    this.strokes.splice(0, this.strokes.length - MOST_STROKES);
    this.undone = [];
  }

  // The cell at a place of the screen, with its fraction.
  place(event) {
    const box = this.canvas.getBoundingClientRect();
    const cells = this.size / this.view.zoom;
    return [
      this.view.x + ((event.clientX - box.left) / box.width) * cells,
      this.view.y + ((event.clientY - box.top) / box.height) * cells,
    ];
  }

  at([x, y]) {
    const inside = x >= 0 && y >= 0 && x < this.size && y < this.size;
    return inside ? this.labels[Math.floor(y) * this.size + Math.floor(x)] : null;
  }

  zoomAt(here, factor) {
    this.view.zoomAt(here, factor, this.size);
    this.draw();
  }

  down(event) {
    this.held.set(event.pointerId, event);
    this.cursor = null;
    if (this.held.size > 1) {
      this.dropStroke(); // two fingers zoom
      return;
    }
    const here = this.place(event);
    if (this.panning || event.button === 1) {
      event.preventDefault();
      this.canvas.setPointerCapture(event.pointerId);
      this.grip = here;
    } else if (event.button === 0) {
      this.use(here, event);
    }
  }

  // The tool, at a cell.
  use(here, { altKey, shiftKey, pointerId }) {
    const label = this.at(here);
    if (this.locked || label === null) return;
    if (this.tool === "pick" || altKey) {
      this.picked(label);
      return;
    }
    this.remember("painted map");
    if (this.tool === "fill") {
      area(this.labels, this.size, Math.floor(here[0]), Math.floor(here[1]), (place) => this.set(place));
      this.refresh();
      return;
    }
    if (pointerId !== undefined) this.canvas.setPointerCapture(pointerId);
    this.brushing = pointerId;
    this.last = shiftKey && this.end ? this.end : here; // shift: a line from the last stroke's end
    this.brush(here);
  }

  move(event) {
    const before = this.held.get(event.pointerId);
    if (before) this.held.set(event.pointerId, event);
    if (this.held.size > 1) {
      this.pinch(event, before);
      return;
    }
    const here = this.place(event);
    if (this.grip) {
      this.view.moveTo(this.view.x + this.grip[0] - here[0], this.view.y + this.grip[1] - here[1], this.size);
      this.draw();
      return;
    }
    this.pointer = here;
    if (this.last && event.pointerId === this.brushing) this.brush(here);
    else this.draw();
    this.under(this.at(here));
  }

  // Two fingers: the middle between them moves the map, and their distance zooms it.
  pinch(event, before) {
    const other = [...this.held.values()].find(({ pointerId }) => pointerId !== event.pointerId);
    if (!before || !other) return;
    const middle = (a) => ({ clientX: (a.clientX + other.clientX) / 2, clientY: (a.clientY + other.clientY) / 2 });
    const apart = (a) => Math.hypot(a.clientX - other.clientX, a.clientY - other.clientY);
    const grip = this.place(middle(before));
    this.view.zoomAt(grip, apart(event) / Math.max(1, apart(before)), this.size);
    const now = this.place(middle(event));
    this.view.moveTo(this.view.x + grip[0] - now[0], this.view.y + grip[1] - now[1], this.size);
    this.draw();
  }

  up(event) {
    this.held.delete(event.pointerId);
    this.grip = null;
    if (event.pointerId === this.brushing) this.lift();
  }

  lift() {
    this.last = this.brushing = null;
    this.changed();
  }

  // What the first finger began before the second came.
  dropStroke() {
    this.grip = null;
    if (!this.last) return;
    this.last = this.brushing = null;
    this.labels = this.strokes.pop().labels;
    this.refresh();
  }

  // Arrow keys move a cursor (with shift: further), space paints where it is, and on while it is held.
  key(event) {
    const step = ARROWS[event.key];
    if (step && this.size) {
      event.preventDefault();
      const far = event.shiftKey ? 8 : Math.max(1, Math.round(this.radius / 2));
      const from = this.cursor ?? [this.size / 2, this.size / 2];
      this.cursor = from.map((value, axis) => Math.min(this.size - 0.5, Math.max(0.5, value + far * step[axis])));
      if (this.last) this.brush(this.cursor);
      else this.draw();
      this.under(this.at(this.cursor));
    } else if (event.key === " " && this.cursor) {
      event.preventDefault();
      if (!event.repeat) this.use(this.cursor, {});
    }
  }

  set(place) {
    if (this.protected.has(this.labels[place])) return;
    this.labels[place] = this.tool === "erase" ? this.original[place] : this.label;
  }

  brush(here) {
    const { last, radius, size } = this;
    stroke(size, last, here, radius, (place) => this.set(place));
    const low = [0, 1].map((axis) => Math.max(0, Math.floor(Math.min(last[axis], here[axis]) - radius)));
    const high = [0, 1].map((axis) => Math.min(size, Math.ceil(Math.max(last[axis], here[axis]) + radius) + 1));
    this.last = this.end = here;
    this.refresh(low, high);
  }

  // Draw the labels anew from the cell `low` up to `high`, and tell.
  refresh(low = [0, 0], high = [this.size, this.size]) {
    const words = new Uint32Array(this.pixels.data.buffer);
    for (let y = low[1]; y < high[1]; y++) {
      for (let x = low[0]; x < high[0]; x++) words[y * this.size + x] = this.table[this.labels[y * this.size + x]];
    }
    const [width, height] = [high[0] - low[0], high[1] - low[1]];
    if (width > 0 && height > 0) this.layer.getContext("2d").putImageData(this.pixels, 0, 0, low[0], low[1], width, height);
    this.draw();
    this.changed();
  }

  // (19, 3) colours of the labels.
  set palette(colors) {
    this.table = new Uint32Array(256);
    const bytes = new Uint8Array(this.table.buffer);
    colors.forEach((color, label) => bytes.set([...color, 255], 4 * label));
  }

  draw() {
    const edge = Math.round(this.canvas.clientWidth * devicePixelRatio);
    if (!edge || !this.size) return;
    if (this.canvas.width !== edge) this.canvas.width = this.canvas.height = edge;
    const context = this.canvas.getContext("2d");
    const scale = (edge / this.size) * this.view.zoom;
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.globalAlpha = 1;
    context.clearRect(0, 0, edge, edge);
    context.setTransform(scale, 0, 0, scale, -this.view.x * scale, -this.view.y * scale);
    context.imageSmoothingEnabled = true;
    context.imageSmoothingQuality = "high";
    if (this.picture) context.drawImage(this.picture, 0, 0, this.size, this.size);
    context.globalAlpha = this.cover;
    context.imageSmoothingEnabled = false;
    context.drawImage(this.layer, 0, 0, this.size, this.size);
    context.globalAlpha = 1;
    const here = this.cursor ?? this.pointer;
    if (here && (this.cursor || this.tool === "brush" || this.tool === "erase")) this.ring(context, here, scale);
  }

  ring(context, [x, y], scale) {
    for (const [color, width] of [["#000", 3], ["#fff", 1.5]]) {
      context.beginPath();
      context.arc(x, y, this.radius, 0, 2 * Math.PI);
      context.strokeStyle = color;
      context.lineWidth = (width * devicePixelRatio) / scale;
      context.stroke();
    }
  }
}

// The label map as a canvas: class ids that are painted over a picture of the face.

const MOST_STROKES = 100;

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

export class Painter {
  // changed(): after every change of the map; picked(label): after a pick; under(label or null):
  // the label under the pointer. A stroke remembers the map before it, its name, and the step of
  // the face that it was painted on.
  constructor(canvas, { changed, picked, under }) {
    Object.assign(this, { canvas, changed, picked, under });
    this.tool = "brush";
    this.label = 13;
    this.radius = 4;
    this.cover = 0.55;
    this.colors = [];
    this.labels = new Uint8Array(0);
    this.original = new Uint8Array(0);
    this.size = 0;
    this.step = null;
    this.locked = false;
    this.picture = null;
    this.undone = [];
    this.strokes = [];
    this.pointer = null;
    this.layer = document.createElement("canvas");
    canvas.addEventListener("pointerdown", (event) => this.down(event));
    canvas.addEventListener("pointermove", (event) => this.move(event));
    canvas.addEventListener("pointerup", () => this.up());
    canvas.addEventListener("pointercancel", () => this.up());
    canvas.addEventListener("pointerleave", () => {
      this.pointer = null;
      this.under(null);
      this.draw();
    });
    new ResizeObserver(() => this.draw()).observe(canvas);
  }

  // The map of a step, with what was painted on it before, if anything was: from `kept`.
  load(labels, size, step, kept) {
    this.original = labels.slice();
    this.labels = (kept?.labels ?? labels).slice();
    this.strokes = kept?.strokes ?? [];
    this.undone = kept?.undone ?? [];
    this.size = size;
    this.step = step;
    this.layer.width = this.layer.height = size;
    this.up();
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
    this.labels = labels.slice();
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
    const { labels, name, step } = from.pop();
    to.push({ labels: this.labels, name, step });
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
    this.strokes.push({ labels: this.labels.slice(), name, step: this.step });
    this.strokes.splice(0, this.strokes.length - MOST_STROKES);
    this.undone = [];
  }

  place(event) {
    const box = this.canvas.getBoundingClientRect();
    return [
      ((event.clientX - box.left) / box.width) * this.size,
      ((event.clientY - box.top) / box.height) * this.size,
    ];
  }

  at([x, y]) {
    const inside = x >= 0 && y >= 0 && x < this.size && y < this.size;
    return inside ? this.labels[Math.floor(y) * this.size + Math.floor(x)] : null;
  }

  down(event) {
    const here = this.place(event);
    if (this.locked || event.button !== 0 || this.at(here) === null) return;
    if (this.tool === "pick" || event.altKey) {
      const label = this.at(here);
      if (label !== null) this.picked(label);
      return;
    }
    this.remember("painted map");
    if (this.tool === "fill") {
      area(this.labels, this.size, Math.floor(here[0]), Math.floor(here[1]), (place) => {
        this.labels[place] = this.label;
      });
      this.refresh();
      return;
    }
    this.canvas.setPointerCapture(event.pointerId);
    this.last = here;
    this.brush(here);
  }

  move(event) {
    const here = this.place(event);
    this.pointer = here;
    if (this.last) this.brush(here);
    else this.draw();
    this.under(this.at(here));
  }

  up() {
    this.last = null;
  }

  brush(here) {
    stroke(this.size, this.last, here, this.radius, (place) => {
      this.labels[place] = this.label;
    });
    this.last = here;
    this.refresh();
  }

  // Draw the labels anew, and tell.
  refresh() {
    const context = this.layer.getContext("2d");
    const image = context.createImageData(this.size, this.size);
    this.labels.forEach((label, place) => {
      const [red, green, blue] = this.colors[label] ?? [0, 0, 0];
      image.data.set([red, green, blue, 255], 4 * place);
    });
    context.putImageData(image, 0, 0);
    this.draw();
    this.changed();
  }

  draw() {
    const edge = Math.round(this.canvas.clientWidth * devicePixelRatio);
    if (!edge || !this.size) return;
    if (this.canvas.width !== edge) this.canvas.width = this.canvas.height = edge;
    const context = this.canvas.getContext("2d");
    context.globalAlpha = 1;
    context.clearRect(0, 0, edge, edge);
    context.imageSmoothingEnabled = true;
    context.imageSmoothingQuality = "high";
    if (this.picture) context.drawImage(this.picture, 0, 0, edge, edge);
    context.globalAlpha = this.cover;
    context.imageSmoothingEnabled = false;
    context.drawImage(this.layer, 0, 0, edge, edge);
    context.globalAlpha = 1;
    if (this.pointer && this.tool === "brush") this.ring(context, edge / this.size);
  }

  ring(context, scale) {
    const [x, y] = this.pointer;
    for (const [color, width] of [["#000", 3], ["#fff", 1.5]]) {
      context.beginPath();
      context.arc(x * scale, y * scale, this.radius * scale, 0, 2 * Math.PI);
      context.strokeStyle = color;
      context.lineWidth = width * devicePixelRatio;
      context.stroke();
    }
  }
}

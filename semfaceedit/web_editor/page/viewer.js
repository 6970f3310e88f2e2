// The face from the side that was asked for. Once it is turned the browser draws it, where it can; else the
// editor does: one request at a time, the newest view only.

const SPEED = 1.6; // radians for a drag across the picture
const STEP = 0.08; // radians for an arrow key
const SLIP = 4; // pixels of a drag, up to which the photograph stays
const STILL = 180; // milliseconds without a turn before a still view is asked for
const MOST = { yaw: 0.9, pitch: 0.5 };
const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] };

function copied(picture) {
  const canvas = document.createElement("canvas");
  canvas.width = picture.width;
  canvas.height = picture.height;
  canvas.getContext("2d").drawImage(picture, 0, 0);
  return canvas;
}

export class Viewer {
  // head: what draws it here; photograph: what may be shown in its place; ask(view) sends a request and says whether it went out; turned(pose): after
  // every turn.
  constructor(canvas, { head, photograph, ask, turned }) {
    Object.assign(this, { canvas, head, photograph, ask, turned });
    this.own = false; // the picture is the head's, as the face was turned since it changed
    this.pose = { yaw: 0, pitch: 0 };
    this.kind = "image";
    this.revision = null; // an earlier revision to show
    this.picture = null;
    this.split = null; // the share of the width, from the left, that shows `before`; null: none
    this.before = null;
    this.wanted = null;
    this.asked = null; // what the newest answer is to
    this.waiting = false;
    canvas.addEventListener("pointerdown", (event) => {
      if (event.button !== 0 || this.last) return;
      canvas.setPointerCapture(event.pointerId);
      canvas.classList.add("held");
      this.pointer = event.pointerId;
      this.last = [event.clientX, event.clientY];
    });
    canvas.addEventListener("pointermove", (event) => {
      if (!this.last || event.pointerId !== this.pointer) return;
      const edge = canvas.clientWidth;
      if (this.photograph.on && Math.hypot(event.clientX - this.last[0], event.clientY - this.last[1]) < SLIP) return;
      this.turn(
        (SPEED * (event.clientX - this.last[0])) / edge,
        (-SPEED * (event.clientY - this.last[1])) / edge,
      );
      this.last = [event.clientX, event.clientY];
    });
    for (const name of ["pointerup", "pointercancel"]) {
      canvas.addEventListener(name, (event) => {
        if (event.pointerId !== this.pointer) return;
        this.last = null;
        canvas.classList.remove("held");
        this.show();
      });
    }
    canvas.addEventListener("keydown", (event) => {
      const turn = ARROWS[event.key];
      if (!turn) return;
      event.preventDefault();
      this.turn(STEP * turn[0], STEP * turn[1]);
    });
    new ResizeObserver(() => this.draw()).observe(canvas);
  }

  turn(yaw, pitch) {
    if (this.photograph.on) this.photograph.choose("image");
    this.look({ yaw: this.pose.yaw + yaw, pitch: this.pose.pitch + pitch });
  }

  // From another side: quickly now, and still when it stays.
  look({ yaw, pitch }) {
    const within = (value, most) => Math.min(most, Math.max(-most, value));
    this.pose = { yaw: within(yaw, MOST.yaw), pitch: within(pitch, MOST.pitch) };
    this.own = this.head.ready(this.pose);
    this.head.turned();
    this.turned(this.pose);
    this.show(true);
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.show(), STILL);
  }

  // Whether the next still picture is that of the face at hand from this side.
  faces([yaw, pitch]) {
    return this.kind === "image" && !this.photograph.on && !this.drawsItself() && this.pose.yaw === yaw && this.pose.pitch === pitch;
  }

  // Whether the next picture is drawn here.
  drawsItself() {
    return this.own && this.revision === null && this.head.ready(this.pose);
  }

  show(moving = false) {
    if (this.photograph.on) {
      this.wanted = null;
      this.photograph.show();
      if (!this.photograph.waiting) this.asked = {}; // a rendering that is still to come is outdated
      return;
    }
    if (this.drawsItself()) {
      this.wanted = null;
      this.moving = moving;
      this.frame ??= requestAnimationFrame((now) => this.drawHead(now));
      return;
    }
    this.wanted = { kind: this.kind, ...this.pose, moving, ...(this.revision === null ? {} : { revision: this.revision }) };
    this.request();
  }

  drawHead(now) {
    this.frame = null;
    if (this.photograph.on || !this.drawsItself()) return this.show(this.moving);
    const { kind, pose, moving } = this;
    this.picture = this.head.draw({ ...pose, kind, edge: this.edge, moving, now });
    this.compare({ kind, ...pose, moving });
    this.draw();
    if (!moving) this.picture = copied(this.picture); // the next frame of the head takes its place
  }

  // A face that has just come: the editor shows it, until it is turned.
  fresh() {
    this.own = false;
    this.show();
  }

  // The face as it follows a map that is being painted.
  follow(labels) {
    this.own = false;
    clearTimeout(this.timer);
    this.wanted = { kind: this.kind, ...this.pose, moving: true, labels };
    this.request();
  }

  // The face with sliders moved, while one is dragged.
  slide(changes) {
    this.own = false;
    clearTimeout(this.timer);
    this.wanted = { kind: this.kind, ...this.pose, moving: true, changes };
    this.request();
  }

  request() {
    if (this.waiting || !this.wanted) return;
    this.asked = this.wanted;
    this.waiting = this.ask({ target: "face", ...this.wanted });
    if (this.waiting) this.wanted = null;
  }

  // The answer to a request.
  answered(picture) {
    this.waiting = false;
    if (this.photograph.on) {
      if (this.asked.labels || this.asked.changes) this.photograph.change(picture);
    } else if (!this.drawsItself()) {
      this.picture = picture;
      this.compare(this.asked);
      this.draw();
    }
    this.request();
  }

  // The face as a fit has it just now.
  preview(picture) {
    if (this.photograph.on) return this.photograph.change(picture);
    if (this.last) return;
    this.picture = picture;
    this.draw();
  }

  // A request that was refused, or lost with the socket.
  failed() {
    this.waiting = false;
  }

  // Ask for the picture of `beforeRevision` that belongs to the one that has just come.
  compare({ moving, revision, ...view }) {
    if (this.split === null) return;
    if (moving || revision !== undefined || this.beforeRevision === null) this.before = null;
    else this.ask({ target: "before", ...view, revision: this.beforeRevision });
  }

  get edge() {
    return Math.round(this.canvas.clientWidth * devicePixelRatio);
  }

  draw() {
    const { edge } = this;
    if (!edge || !this.shown) return;
    if (this.canvas.width !== edge) this.canvas.width = this.canvas.height = edge;
    const context = this.canvas.getContext("2d");
    if (this.photograph.on) {
      context.clearRect(0, 0, edge, edge);
      context.imageSmoothingEnabled = true;
      context.imageSmoothingQuality = "high";
      this.line(context, this.photograph.paint(context, edge, this.split));
      return;
    }
    context.imageSmoothingEnabled = this.kind !== "semantics";
    context.imageSmoothingQuality = "high";
    context.drawImage(this.picture, 0, 0, edge, edge);
    if (this.split === null || !this.before) return;
    const place = Math.round(this.split * edge);
    context.save();
    context.beginPath();
    context.rect(0, 0, place, edge);
    context.clip();
    context.drawImage(this.before, 0, 0, edge, edge);
    context.restore();
    this.line(context, place);
  }

  // Between the face before and the face as it is, where there are two.
  line(context, place) {
    if (place === null) return;
    context.fillStyle = "#fff";
    context.fillRect(place - devicePixelRatio, 0, 2 * devicePixelRatio, this.edge);
  }

  // The picture that is shown, whole.
  get shown() {
    return this.photograph.on ? this.photograph.shown?.picture : this.picture;
  }
}

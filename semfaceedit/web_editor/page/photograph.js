// The face in its photograph, with all edits in it. The editor makes each picture after a change, a coarse one
// soon and then the fine one; until it comes the last one stays. While a stroke is painted, a slider dragged or
// a fit under way, the quick rendering of the face lies over its place in the photograph: what is done shows at
// once, and nothing around it jumps.

import { find, page, press, send } from "./state.js";

const MOST = 6; // pictures that are kept: going back and forth shows them at once
const SOFT = 0.1; // how far the rendering fades into the photograph, in sides of the crop
const ELSEWHERE = "This side of the head is not in the photograph.";

export class Photograph {
  // draw(): the picture has changed; choose(kind): show another view; settled(): all pictures are there.
  constructor({ draw, choose, settled }) {
    Object.assign(this, { draw, choose, settled });
    this.on = false; // it is shown
    this.wished = false; // it was chosen, and is shown where there is one
    this.forget();
  }

  // Another editor, or the same anew, counts its revisions anew.
  forget() {
    this.root = null; // of the face at hand
    this.kept = []; // the newest last: { number, version, fine, picture, crop }
    this.shown = null; // one of them
    this.asked = null; // a number
    this.over = null; // a rendering of the face as it changes
    this.tell("");
  }

  // How things stand: a face of another photograph begins with this view.
  follow(state, turned) {
    const begun = state.root !== this.root;
    if (begun) {
      this.root = state.root;
      this.wished = state.photograph;
      this.over = null;
      this.tell("");
    }
    const there = state.photograph && !this.problem && state.job !== "inversion";
    find("photograph").hidden = !state.photograph || Boolean(this.problem);
    if (this.on && !there) {
      this.choose("image", true);
      if (turned && !begun) this.tell(ELSEWHERE, false);
    } else if (!this.on && there && this.wished) {
      this.choose("photograph", true);
    }
    if (this.on) page.viewer.show();
  }

  // The person has chosen a view.
  chosen() {
    this.wished = this.on;
    this.over = null;
    if (!this.problem) this.tell("");
  }

  // Show what is at hand, and ask for what is missing. While Before is held: the revision before.
  show() {
    const found = this.find(this.number);
    if (found) this.shown = found;
    if (found?.fine && this.current(found)) this.over = null;
    this.ask();
    this.draw();
  }

  get number() {
    const { state, viewer } = page;
    return state.numbers[viewer.revision ?? state.at];
  }

  get before() {
    const { state, viewer } = page;
    const there = viewer.split !== null && viewer.revision === null && state.at > 0;
    return there ? state.numbers[state.at - 1] : undefined;
  }

  get waiting() {
    return this.on && this.asked !== null;
  }

  find(number) {
    return this.kept.find((known) => known.number === number);
  }

  // Whether a picture is of the face as it is now: a stroke is sharpened.
  current({ number, version }) {
    const { state } = page;
    return number !== state.numbers[state.at] || version >= state.version;
  }

  ask() {
    const missing = [this.number, this.before].find((number) => {
      const known = number === undefined || this.find(number);
      return !known || (known !== true && !(known.fine && this.current(known)));
    });
    const { version } = page.state;
    if (missing === undefined) this.asked = null;
    else if (this.asked !== missing || this.version !== version) {
      if (send({ type: "photograph", number: missing })) [this.asked, this.version] = [missing, version];
    }
    this.note();
    if (missing === undefined) this.settled();
  }

  // A picture has come, or why there is none.
  async answered({ number, version, fine, crop, problem, missing }, bytes) {
    if (problem) {
      if (this.asked !== number) return;
      this.asked = null;
      if (!this.on || number !== this.number) return;
      this.choose("image", true);
      find("photograph").hidden = true;
      this.tell(problem);
      find("find-photograph").hidden = !missing;
      return;
    }
    const picture = await createImageBitmap(new Blob([bytes]));
    this.kept = [...this.kept.filter((known) => known.number !== number), { number, version, fine, crop, picture }].slice(-MOST);
    if (this.asked === number && fine) this.asked = null;
    if (this.on) this.show();
  }

  // The face as it changes, from the side of the photograph.
  change(rendering) {
    this.over = rendering;
    this.draw();
  }

  failed() {
    this.asked = null;
  }

  // One line over the face; a lasting one takes the view away.
  tell(text, lasts = true) {
    this.problem = lasts ? text : "";
    find("photograph-problem").textContent = text;
    find("photograph-problem").hidden = !text;
    find("find-photograph").hidden = true;
  }

  // The file was missing, and a person has it.
  async supply(file) {
    if (file) send({ type: "supply", name: file.name }, new Uint8Array(await file.arrayBuffer()));
  }

  supplied() {
    this.tell("");
    find("photograph").hidden = false;
    this.choose("photograph");
  }

  note() {
    find("updating").hidden = !this.waiting;
  }

  // On a square canvas, whole; what is before on the left, up to a share of the width.
  paint(context, edge, split) {
    const { picture, crop: [left, top, side] } = this.shown;
    const scale = edge / Math.max(picture.width, picture.height);
    const [width, height] = [scale * picture.width, scale * picture.height];
    const [x, y] = [(edge - width) / 2, (edge - height) / 2];
    context.drawImage(picture, x, y, width, height);
    if (this.over) {
      context.save();
      context.beginPath();
      context.rect(x, y, width, height);
      context.clip();
      context.drawImage(faded(this.over, Math.ceil(scale * side)), x + scale * left, y + scale * top, scale * side, scale * side);
      context.restore();
    }
    const before = this.find(this.before);
    if (split === null || !before) return null;
    const place = Math.round(x + split * width);
    context.save();
    context.beginPath();
    context.rect(0, 0, place, edge);
    context.clip();
    context.drawImage(before.picture, x, y, width, height);
    context.restore();
    return place;
  }
}

// A picture on a canvas of that size, which fades towards its edges.
function faded(picture, size) {
  const canvas = new OffscreenCanvas(size, size);
  const context = canvas.getContext("2d");
  context.imageSmoothingQuality = "high";
  context.drawImage(picture, 0, 0, size, size);
  context.globalCompositeOperation = "destination-in";
  for (const [dx, dy] of [[size, 0], [0, size]]) {
    const ramp = context.createLinearGradient(0, 0, dx, dy);
    for (const [place, alpha] of [[0, 0], [SOFT, 1], [1 - SOFT, 1], [1, 0]]) ramp.addColorStop(place, `rgba(0,0,0,${alpha})`);
    context.fillStyle = ramp;
    context.fillRect(0, 0, size, size);
  }
  return canvas;
}

// Which view is pressed.
export function pressKind(kind) {
  for (const button of find("kinds").children) press(button, button.dataset.kind === kind);
}

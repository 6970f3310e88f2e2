// The head as the browser draws it: the editor bakes the face at hand into layers, coarse ones at once and
// finer ones when nothing else happens, and turning it then asks for nothing. Without WebGL 2 it is never ready.

import { Layers } from "./baked/layers.js";
import { Pace } from "./baked/pace.js";
import { FaceRenderer } from "./baked/renderer.js";

const STAGES = [{ texels: 96, quiet: 200 }, { texels: 224, quiet: 2500 }]; // and milliseconds without anything before
const STILL = 400; // milliseconds without a turn, until layers are taken up: that takes a moment
const FULL = 1024; // rays along an edge at most
const VIEWS = { image: "face", semantics: "labels", depth: "depth", normals: "normals" };

const pause = (milliseconds) => new Promise((done) => setTimeout(done, milliseconds));
const same = (a, b) => a?.number === b?.number && a?.version === b?.version;

export class Head {
  // ask(number, version, texels): sends a request; loaded(): layers are there, or were lost.
  constructor({ ask, loaded }) {
    Object.assign(this, { ask, loaded });
    this.face = null; // the one at hand: number and version of its revision
    this.baked = null; // the one that can be drawn, and its texels
    this.resting = true; // no fit is running and no pen is down
    this.turnedAt = 0;
    this.renderer = undefined; // null: there is none
    this.pace = new Pace();
    this.queue = Promise.resolve();
  }

  // How things stand: the face, and whether nothing else is under way.
  follow(number, version, resting) {
    if (!same(this.face, { number, version })) this.asked = 0;
    this.face = { number, version };
    this.resting = resting;
    this.plan();
  }

  // Another editor, or the same anew, counts its revisions anew.
  forget() {
    this.face = this.baked = null;
  }

  // Whether the face at hand can be drawn from a pose.
  ready({ yaw, pitch }) {
    if (!this.renderer || !same(this.face, this.baked)) return false;
    const { mostYaw, mostPitch } = this.renderer.layers.header;
    return Math.abs(yaw) <= mostYaw && Math.abs(pitch) <= mostPitch;
  }

  // The picture; `edge`: pixels of a still one.
  draw({ yaw, pitch, kind, edge, moving, now }) {
    const size = this.pace.size(Math.min(edge, FULL), moving, now);
    this.renderer.draw({ yaw, pitch, view: VIEWS[kind], size, coarse: moving });
    return this.renderer.canvas;
  }

  turned() {
    this.turnedAt = performance.now();
    this.plan();
  }

  // Ask for the next layers once all has been quiet for a while.
  plan() {
    clearTimeout(this.timer);
    if (!this.face || this.renderer === null || !this.resting) return;
    const stage = STAGES.find(({ texels }) => !same(this.face, this.baked) || texels > this.baked.texels);
    if (!stage || this.asked >= stage.texels) return;
    this.timer = setTimeout(() => {
      this.start();
      if (this.renderer && this.ask({ ...this.face, texels: stage.texels })) this.asked = stage.texels;
    }, stage.quiet);
  }

  // An answer; one without layers was interrupted, or there is a defect and none will come.
  answered({ number, version, texels, again }, bytes) {
    const face = { number, version };
    if (!same(face, this.face)) return;
    if (again) {
      this.asked = 0;
      this.plan();
    } else if (bytes.length) {
      this.queue = this.queue.then(() => this.take(face, texels, bytes.slice().buffer)).catch(() => this.lose());
    }
  }

  async take(face, texels, buffer) {
    while (performance.now() - this.turnedAt < STILL) await pause(STILL / 4);
    if (!this.renderer || !same(face, this.face)) return;
    await this.renderer.load(new Layers(buffer));
    this.baked = { ...face, texels };
    this.loaded();
    this.plan();
  }

  start() {
    if (this.renderer !== undefined) return;
    const canvas = document.createElement("canvas");
    canvas.addEventListener("webglcontextlost", () => this.lose());
    try {
      this.renderer = new FaceRenderer(canvas);
    } catch {
      this.renderer = null;
    }
  }

  lose() {
    this.renderer = null;
    this.loaded();
  }
}

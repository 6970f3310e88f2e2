// The page: turns the head, switches views and colours, saves pictures and turntables.

import { Layers } from "./layers.js";
import { Pace } from "./pace.js";
import { FaceRenderer, VIEWS } from "./renderer.js";

const FULL = 1024;  // rays along an edge of a saved picture, and the most on the screen
const FRAMES = 72, FPS = 24;  // of a turntable
const $ = (selector) => document.querySelector(selector);

const canvas = $("#picture");
const state = { yaw: 0, pitch: 0, view: "face", moving: false, recording: false };
const pace = new Pace();
let renderer;

const clamp = (value, most) => Math.max(-most, Math.min(most, value));
const pause = (milliseconds) => new Promise((done) => setTimeout(done, Math.max(0, milliseconds)));
const say = (text) => { $("#status").textContent = text; };
const fullSize = () => Math.min(FULL, Math.round(canvas.clientWidth * devicePixelRatio) || 512);

// --- drawing ---------------------------------------------------------------------------------

let wanted = 0, settled = 0;

function redraw() {
  if (!wanted) wanted = requestAnimationFrame(frame);
}

function frame(now) {
  wanted = 0;
  if (state.recording) return void setTimeout(redraw, 200);
  const size = pace.size(fullSize(), state.moving, now);
  renderer.draw({ ...state, size, coarse: state.moving });
  const side = state.yaw > 0.02 ? "right" : state.yaw < -0.02 ? "left" : "";
  const degrees = Math.round(Math.abs(state.yaw) * 57.3);
  canvas.setAttribute("aria-label", `A head, ${side ? `turned ${degrees} degrees to the ${side}` : "from the front"}`);
}

function turn(yaw, pitch) {
  const { mostYaw, mostPitch } = renderer.layers.header;  // radians, as far as the layers were baked
  state.yaw = clamp(yaw, mostYaw);
  state.pitch = clamp(pitch, mostPitch);
  state.moving = true;
  clearTimeout(settled);
  settled = setTimeout(settle, 180);
  redraw();
}

function settle() {
  state.moving = false;
  redraw();
}

// --- pointer and keys ------------------------------------------------------------------------

let held = null;

canvas.addEventListener("pointerdown", (event) => {
  held = { x: event.clientX, y: event.clientY, yaw: state.yaw, pitch: state.pitch };
  canvas.setPointerCapture(event.pointerId);
});
canvas.addEventListener("pointermove", (event) => {
  if (!held) return;
  const scale = 2 / canvas.clientWidth;  // half the picture's width turns by a radian
  turn(held.yaw + (event.clientX - held.x) * scale, held.pitch - (event.clientY - held.y) * scale);
});
for (const name of ["pointerup", "pointercancel"])
  canvas.addEventListener(name, () => { held = null; });

const STEPS = { ArrowLeft: [-0.05, 0], ArrowRight: [0.05, 0], ArrowUp: [0, 0.05], ArrowDown: [0, -0.05] };

addEventListener("keydown", (event) => {
  if (!renderer || event.ctrlKey || event.metaKey || event.altKey) return;
  const inGroup = event.target.closest?.("[role=radiogroup]");
  const step = STEPS[event.key];
  if (step && !inGroup) turn(state.yaw + step[0], state.pitch + step[1]);
  else if (event.key === "Home") turn(0, 0);
  else if (VIEWS[Number(event.key) - 1]) show(VIEWS[Number(event.key) - 1]);
  else if (event.key === "s") save();
  else if (event.key === "t") record();
  else return;
  event.preventDefault();
});

// --- controls --------------------------------------------------------------------------------

// Buttons of which one is chosen; the arrow keys move the choice, as in any group of radio buttons.
function choices(row, buttons, choose) {
  row.setAttribute("role", "radiogroup");
  const mark = (index) => buttons.forEach((button, i) => {
    button.setAttribute("aria-checked", i === index);
    button.tabIndex = i === index ? 0 : -1;
  });
  buttons.forEach((button, index) => {
    button.type = "button";
    button.setAttribute("role", "radio");
    button.addEventListener("click", () => { mark(index); choose(index); });
    button.addEventListener("keydown", (event) => {
      const way = { ArrowLeft: -1, ArrowUp: -1, ArrowRight: 1, ArrowDown: 1 }[event.key];
      if (!way) return;
      event.preventDefault();
      const next = buttons[(index + way + buttons.length) % buttons.length];
      next.focus();
      next.click();
    });
    row.append(button);
  });
  mark(0);
  return mark;
}

let markView;

function show(view) {
  state.view = view;
  markView(VIEWS.indexOf(view));
  $("#classes").hidden = view !== "labels";
  redraw();
}

function buildViews() {
  const buttons = VIEWS.map((view) => {
    const button = document.createElement("button");
    button.textContent = view[0].toUpperCase() + view.slice(1);
    return button;
  });
  markView = choices($("#views .row"), buttons, (index) => show(VIEWS[index]));
}

function buildLooks(header) {
  $("#looks").hidden = header.looks.length < 2;
  header.groups.forEach((name, group) => {
    const row = document.createElement("div");
    row.className = "look";
    row.innerHTML = "<span></span>";
    row.firstChild.textContent = name;
    row.setAttribute("aria-label", `Colours of ${name}`);
    const buttons = header.looks.map((look, index) => {
      const button = document.createElement("button");
      button.style.background = header.swatches[index][group];
      button.title = index ? `As ${look}` : "Its own";
      button.setAttribute("aria-label", button.title);
      return button;
    });
    choices(row, buttons, async (index) => {
      await renderer.wear(group, index);
      redraw();
    });
    $("#looks > div").append(row);
  });
}

const LEGEND = {
  eye_g: "glasses", l_eye: "left eye", r_eye: "right eye", l_brow: "left brow", r_brow: "right brow",
  l_ear: "left ear", r_ear: "right ear", u_lip: "upper lip", l_lip: "lower lip", ear_r: "earring",
  neck_l: "necklace",
};

function buildLegend(header) {
  for (const { name, color } of header.classes) {
    const item = document.createElement("li"), chip = document.createElement("i");
    chip.style.background = `rgb(${color})`;
    item.append(chip, LEGEND[name] ?? name);
    $("#classes").append(item);
  }
}

// --- saving ----------------------------------------------------------------------------------

function download(blob, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
  say(`Saved ${name}.`);
}

function save() {
  renderer.draw({ ...state, size: FULL });
  canvas.toBlob((blob) => download(blob, `${document.title} ${state.view}.png`), "image/png");
  redraw();
}

// One swing from the front to both sides and back. All frames are drawn first, so that the video
// runs smoothly however long a frame takes to draw.
async function record() {
  if (state.recording) return;
  const kinds = ["video/webm;codecs=vp9", "video/webm", "video/mp4"];
  const kind = kinds.find((type) => globalThis.MediaRecorder?.isTypeSupported(type));
  if (!kind) return say("This browser cannot record video.");
  state.recording = true;
  $("#record").disabled = true;
  const size = pace.share < 1 ? 256 : 512, frames = [];
  for (let index = 0; index < FRAMES; index++) {
    const yaw = 0.6 * Math.sin((2 * Math.PI * index) / FRAMES);
    renderer.draw({ yaw, pitch: state.pitch, view: state.view, size });
    frames.push(await createImageBitmap(canvas));
    say(`Turntable: frame ${index + 1} of ${FRAMES}`);
    await pause(0);
  }
  say("Turntable: recording …");
  const screen = document.createElement("canvas"), parts = [];
  screen.width = screen.height = size;
  const context = screen.getContext("2d");
  context.drawImage(frames[0], 0, 0);
  const recorder = new MediaRecorder(screen.captureStream(FPS), { mimeType: kind, videoBitsPerSecond: 6e6 });
  const stopped = new Promise((done) => { recorder.onstop = done; });
  recorder.ondataavailable = (event) => parts.push(event.data);
  recorder.start();
  const start = performance.now();
  for (const [index, frame] of frames.entries()) {
    context.drawImage(frame, 0, 0);
    frame.close();
    await pause(start + (1000 * (index + 1)) / FPS - performance.now());
  }
  recorder.stop();
  await stopped;
  state.recording = false;
  $("#record").disabled = false;
  redraw();
  download(new Blob(parts, { type: kind }), `${document.title}.${kind.includes("mp4") ? "mp4" : "webm"}`);
}

// --- start -----------------------------------------------------------------------------------

async function start() {
  const text = $("#layers").textContent;
  const bytes = Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
  const layers = new Layers(bytes.buffer);
  renderer = new FaceRenderer(canvas);
  await renderer.load(layers);
  buildViews();
  buildLooks(layers.header);
  buildLegend(layers.header);
  $("#front").addEventListener("click", () => turn(0, 0));
  $("#save").addEventListener("click", save);
  $("#record").addEventListener("click", record);
  new ResizeObserver(redraw).observe(canvas);
  canvas.addEventListener("webglcontextlost", () => location.reload());
  redraw();
  globalThis.face = { renderer, state, pace, turn, show };  // for scripts
}

start().catch((error) => {
  $("#message").textContent = error.message;
  $("#message").hidden = false;
  $("#controls").inert = true;
});

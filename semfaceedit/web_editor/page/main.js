// The page: what its parts say to the editor, and what the editor's answers do to them.

import { Brush } from "./brush.js";
import * as exports from "./exports.js";
import { Head } from "./head.js";
import { listen } from "./keys.js";
import { Looks, MOST_LOOK } from "./looks.js";
import { Painter } from "./painter.js";
import * as panels from "./panels.js";
import { Photograph, pressKind } from "./photograph.js";
import * as sliders from "./sliders.js";
import { Socket } from "./socket.js";
import { buildButtons, decoded, find, labelName, page, press, saveFile, say, send } from "./state.js";
import { keepNow, keepStrokes, keptStrokes } from "./strokes.js";
import { Viewer } from "./viewer.js";

const kept = new Map(); // what was painted on revisions that were left, by their numbers
let goal = null; // the revision that was asked for last, until it is at hand
const looks = new Looks();
const brush = new Brush();
const strip = { first: 0, under: false }; // of faces; and whether the viewer's picture is the map's too

page.painter = new Painter(find("map"), {
  changed: () => {
    panels.showPaint();
    brush.changed();
    if (!brush.live) keepStrokes(page.painter);
  },
  picked: panels.chooseLabel,
  under: (label) => {
    find("under").textContent = label === null ? "" : labelName(label);
  },
});
const head = new Head({
  ask: (face) => !page.painter.last && !photograph.waiting && send({ type: "layers", ...face }),
  loaded: () => {
    if (page.viewer.own) page.viewer.show();
  },
});
const photograph = new Photograph({ draw: () => page.viewer.draw(), choose: chooseKind, settled: () => head.plan() });
page.viewer = new Viewer(find("face"), {
  head,
  photograph,
  ask: ({ labels, ...view }) => send({ type: labels ? "follow" : "view", ...view }, labels),
  turned: (pose) => {
    panels.showPose(pose);
    if (strip.under && !page.viewer.faces(page.state.pose)) askUnder();
  },
});
const { painter, viewer } = page;

// The picture under the map: the viewer's own where that shows the same.
function askUnder() {
  const [yaw, pitch] = page.state.pose;
  strip.under = viewer.faces(page.state.pose);
  if (!strip.under) send({ type: "view", target: "map", kind: "image", yaw, pitch });
}

function putUnder(picture) {
  strip.under = false;
  painter.picture = picture;
  painter.draw();
}

// Answers.

const ANSWERS = {
  about: begin, state: follow, frame, layers: (...answer) => head.answered(...answer), faces,
  photograph: (...answer) => photograph.answered(...answer), supplied: () => photograph.supplied(),
  looks: (...answer) => looks.answered(...answer), map, progress, saved, error, thumbnail: panels.thumbnail,
  making: exports.making, made: exports.made,
};

function heard(header, payload) {
  try {
    ANSWERS[header.type]?.(header, payload);
  } catch (problem) {
    say(`This page has a defect: ${problem.message}`, true);
    throw problem;
  }
}

function begin(header) {
  page.about = header;
  kept.clear(); // another server counts its revisions anew
  head.forget();
  photograph.forget();
  painter.palette = header.colors;
  panels.buildPalette();
  buildButtons(find("quick"), header.edits, (edit) => {
    if (!send({ type: "paint", name: edit }, painter.labels)) return;
    page.code = edit;
    panels.lock();
  });
  buildButtons(find("groups"), header.groups, (group) => looks.choose(group));
  looks.begin();
  if (header.follows) {
    find("apply").textContent = "Refine";
    find("apply").title = "A longer fit, after which the face follows the map more closely (Enter)";
  }
  panels.buildRegions();
  exports.begin();
  sliders.begin();
  panels.offerRecovered();
  find("folder").textContent = `Face projects in ${header.folder}`;
  send({ type: "faces", first: strip.first });
}

function follow(header, labels) {
  const { state } = page;
  const number = header.numbers[header.at];
  const fresh = number !== state.numbers[state.at] || header.version !== state.version;
  const turned = header.pose.some((angle, axis) => angle !== state.pose[axis]);
  const ended = state.busy && !header.busy;
  page.state = header;
  if (goal === header.at) goal = null;
  const own = brush.live ? takeStroke(header, labels, number) : takeMap(header, labels, number, fresh);
  const shown = own || Boolean(brush.live && painter.last); // as it follows the brush
  head.follow(number, header.version, !header.busy);
  photograph.follow(header, turned);
  if (turned || !viewer.picture) viewer.look({ yaw: header.pose[0], pitch: header.pose[1] });
  else if (ended || (fresh && !shown)) viewer.fresh();
  if ((fresh && !shown) || turned || !painter.picture) askUnder();
  viewer.beforeStep = header.at > 0 ? header.at - 1 : null;
  looks.arrived();
  panels.showRevisions();
  sliders.arrived();
  exports.changed();
  panels.showBusy();
  panels.showPaint();
  find("sources").replaceChildren(...header.projects.map((project) => new Option(project)));
  if (fresh && !shown && !header.busy) say(told(header.metrics));
}

// The map of the revision at hand and, after it, that of the face before it was painted on.
function takeStroke({ size }, maps, number) {
  const labels = maps.slice(0, size * size);
  return brush.arrived(labels, maps.length > labels.length ? maps.slice(size * size) : labels, size, number);
}

// The map of the revision at hand; what is painted on another one is kept for it.
function takeMap(header, maps, number, fresh) {
  const labels = maps.subarray(0, header.size ** 2);
  const same = painter.size === header.size && labels.every((label, i) => label === painter.original[i]);
  if (!same || (fresh && !painter.painted)) {
    if (painter.painted) {
      kept.set(painter.revision, painter.kept());
      keepNow(painter);
    }
    painter.load(labels, header.size, number, kept.get(number) ?? keptStrokes(labels, header.size, number));
  }
  painter.revision = number;
  for (const old of kept.keys()) if (!header.numbers.includes(old)) kept.delete(old);
  return false;
}

async function frame(header, bytes) {
  const { asked } = viewer;
  const picture = await decoded(bytes);
  if (header.target === "map") {
    putUnder(picture);
  } else if (header.target === "before") {
    viewer.before = picture;
    viewer.draw();
  } else {
    const [yaw, pitch] = page.state.pose;
    if (strip.under && !header.moving && asked.yaw === yaw && asked.pitch === pitch && header.kind === "image") putUnder(picture);
    viewer.answered(picture);
  }
}

function faces(header, bytes) {
  const { seeds, at } = page.state;
  panels.fillStrip(find("faces"), header, bytes, (seed) => seeds[at] === seed, (seed) => send({ type: "choose", seed }));
}

function map(header, labels) {
  const name = page.code || "painted map";
  page.code = "";
  panels.lock();
  painter.replace(labels, name);
  say(brush.live ? "" : "Painted: press Apply, and the face follows.");
}

async function progress(header, bytes) {
  const bar = find("progress");
  bar.max = header.iterations;
  bar.value = header.iteration;
  const share = header.agreement === null ? "" : `, regions agree to ${Math.round(100 * header.agreement)} %`;
  say(`${header.name}: iteration ${header.iteration}${share}`);
  const picture = await decoded(bytes);
  if (page.state.busy) viewer.preview(picture);
}

function saved(header) {
  say(`Saved as ${header.path}`);
}

function error(header) {
  goal = null;
  viewer.failed();
  looks.failed();
  brush.failed();
  sliders.failed();
  page.code = "";
  panels.lock();
  say(header.message, true);
}

function told(metrics) {
  const parts = [];
  const known = (value) => value !== undefined && value !== null;
  if (known(metrics.labels_inside)) parts.push(`${Math.round(100 * metrics.labels_inside)} % of the labels in the region are as asked`);
  if (known(metrics.change_inside)) parts.push(`colours changed by ${Math.round(100 * metrics.change_inside)} % inside`);
  if (known(metrics.change_outside)) parts.push(`by ${(100 * metrics.change_outside).toFixed(1)} % elsewhere`);
  return parts.join(", ");
}

// What the person does.

function undo() {
  const { state, code } = page;
  if (state.busy || code || brush.puts(undo)) return;
  const last = painter.strokes.at(-1);
  if (goal === null && last && (last.revision === painter.revision || state.at === 0)) painter.undo();
  else go(-1);
}

// To an earlier or a later revision than the one that is at hand, or is on its way to be.
function go(by) {
  const { state } = page, from = goal ?? state.at, to = from + by;
  if (to < 0 || to >= state.revisions.length) return;
  if (send({ type: "go", revision: to })) goal = to;
}

function redo() {
  const { state, code } = page;
  if (state.busy || code || brush.puts(redo)) return;
  const next = painter.undone.at(-1);
  if (goal === null && next && (next.revision === painter.revision || state.at === state.revisions.length - 1)) painter.redo();
  else go(1);
}

function apply() {
  if (find("apply").disabled || brush.puts(apply)) return;
  send({
    type: "edit", name: painter.names.join(", ").slice(0, 200) || "refined", number: painter.revision, iterations: Number(find("iterations").value),
    appearance: find("appearance").checked,
  }, painter.labels);
}

function save() {
  send({ type: "save", name: find("name").value });
}

// The revision before, in place of the face, while it is held.
function compare(on) {
  const revision = on && page.state.at > 0 ? page.state.at - 1 : null;
  if (viewer.revision === revision) return;
  viewer.revision = revision;
  viewer.show();
}

// The revision before beside the face, up to a line that can be moved.
function split() {
  const on = viewer.split === null;
  press(find("split"), on);
  find("divide").hidden = !on;
  viewer.split = on ? Number(find("divide").value) / 100 : null;
  viewer.before = null;
  viewer.show();
}

function download() {
  const canvas = document.createElement("canvas");
  canvas.width = viewer.shown.width;
  canvas.height = viewer.shown.height;
  canvas.getContext("2d").drawImage(viewer.shown, 0, 0);
  canvas.toBlob((blob) => saveFile(blob, `${find("name").value || "face"}.png`));
}

// A photograph that was dropped on the page, or pasted.
function offerPhotograph(event, transfer) {
  const files = [...(transfer?.files ?? [])].filter((file) => file.type.startsWith("image/"));
  if (!files.length) return;
  event.preventDefault();
  const chosen = new DataTransfer();
  chosen.items.add(files[0]);
  find("photo").files = chosen.files;
  if (!find("photo-dialog").open) find("photo-dialog").showModal();
}

async function invert() {
  const [photo, mask] = [find("photo").files[0], find("mask").files[0]];
  if (!photo) {
    say("A photograph is needed.", true);
    return;
  }
  const parts = await Promise.all([photo, mask].map(async (file) => new Uint8Array(file ? await file.arrayBuffer() : 0)));
  const payload = new Uint8Array(parts[0].length + parts[1].length);
  payload.set(parts[0]);
  payload.set(parts[1], parts[0].length);
  send({ type: "invert", name: photo.name, split: parts[0].length }, payload);
}

function take(what) {
  const source = find("source").value.trim();
  if (!source || Number(source) >= MOST_LOOK) {
    say("From which face? Give the number of one below, or the name of a saved one.", true);
    return;
  }
  const giver = /^\d+$/.test(source) ? { seed: Number(source) } : { project: source };
  send({ type: "transfer", ...giver, what, region: find("region").value, iterations: Number(find("iterations").value) });
}

function moreFaces(by) {
  strip.first = Math.max(0, strip.first + by);
  send({ type: "faces", first: strip.first });
}

// own: the page chooses by itself, as where a photograph is opened or cannot be found.
function chooseKind(kind, own = false) {
  photograph.on = kind === "photograph";
  if (!own) photograph.chosen();
  photograph.note();
  viewer.kind = photograph.on ? "image" : kind;
  pressKind(kind);
  if (strip.under) askUnder();
  if (photograph.on) viewer.look({ yaw: page.state.pose[0], pitch: page.state.pose[1] });
  else viewer.show();
}

function chooseTab(tab) {
  document.body.dataset.tab = tab;
  for (const button of find("tabs").children) press(button, button.dataset.tab === tab);
}

// Wiring.

for (const button of find("tools").children) button.onclick = () => panels.chooseTool(button.dataset.tool);
for (const button of find("kinds").children) button.onclick = () => chooseKind(button.dataset.kind);
for (const button of find("tabs").children) button.onclick = () => chooseTab(button.dataset.tab);
for (const button of document.querySelectorAll("[data-what]")) {
  button.dataset.title = button.title;
  button.onclick = () => take(button.dataset.what);
}
find("region").onchange = panels.showRegion;
find("size").oninput = (event) => {
  painter.radius = Number(event.target.value) / 2;
  painter.draw();
};
find("cover").oninput = (event) => {
  painter.cover = Number(event.target.value) / 100;
  painter.draw();
};
find("undo").onclick = undo;
find("redo").onclick = redo;
find("apply").onclick = apply;
find("stop").onclick = () => send({ type: "stop" });
find("reset").onclick = () => painter.reset();
find("front").onclick = () => viewer.look({ yaw: page.state.pose[0], pitch: page.state.pose[1] });
find("turn").onclick = () => send({ type: "turn", ...viewer.pose });
find("amount").oninput = () => looks.want();
find("more-looks").onclick = () => looks.more();
find("more-faces").onclick = () => moreFaces(page.about.strip);
find("fewer-faces").onclick = () => moreFaces(-page.about.strip);
find("save").onclick = save;
find("picture").onclick = download;
find("open-faces").onclick = panels.openFaces;
find("projects").onclick = () => find("faces-dialog").close();
find("find-photograph").onclick = () => find("supplied").click();
find("supplied").onchange = ({ target }) => {
  photograph.supply(target.files[0]);
  target.value = ""; // so that the same file may be chosen again
};
find("open-photo").onclick = () => find("photo-dialog").showModal();
find("photo-dialog").onclose = () => {
  if (find("photo-dialog").returnValue === "go") invert();
  find("photo-dialog").returnValue = "";
};
find("open-recovered").onclick = () => panels.answerRecovered(true);
find("leave-recovered").onclick = () => panels.answerRecovered(false);
find("compare").onpointerdown = () => compare(true);
for (const event of ["pointerup", "pointerleave", "blur"]) find("compare").addEventListener(event, () => compare(false));
find("split").onclick = split;
find("divide").oninput = (event) => {
  viewer.split = Number(event.target.value) / 100;
  viewer.draw();
};
find("name").value = sessionStorage.getItem("name") ?? find("name").value;
find("name").oninput = () => sessionStorage.setItem("name", find("name").value);
addEventListener("dragover", (event) => event.preventDefault());
addEventListener("drop", (event) => offerPhotograph(event, event.dataTransfer));
addEventListener("paste", (event) => offerPhotograph(event, event.clipboardData));
addEventListener("pagehide", () => {
  if (!brush.live) keepNow(painter);
});
window.onbeforeunload = (event) => {
  if (brush.live ? brush.sent : painter.painted) event.preventDefault();
};

exports.listen();
sliders.listen();
listen({ apply, save, undo, redo, compare });
panels.chooseTool("brush");
chooseTab("map");
pressKind("image");
find("size").oninput({ target: find("size") });

page.socket = new Socket(`ws://${location.host}/socket${location.search}`, heard, (open, refused) => {
  find("lost").hidden = open || refused;
  find("refused").hidden = !refused;
  goal = null;
  if (!open) {
    viewer.failed();
    looks.failed();
    brush.failed();
    sliders.failed();
    exports.failed();
    photograph.failed();
    page.code = "";
  }
});

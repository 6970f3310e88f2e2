// The page: what its parts say to the editor, and what the editor's answers do to them.

import { Painter } from "./painter.js";
import { Socket } from "./socket.js";
import { Viewer } from "./viewer.js";

const find = (id) => document.getElementById(id);
const NAMES = {
  eye_g: "glasses", l_eye: "left eye", r_eye: "right eye", l_brow: "left brow", r_brow: "right brow",
  l_ear: "left ear", r_ear: "right ear", mouth: "inner mouth", u_lip: "upper lip", l_lip: "lower lip",
  ear_r: "earring", neck_l: "necklace", cloth: "garment",
};
const MOST_LOOK = 2 ** 30;

let about = null; // what does not change
let state = { steps: [], numbers: [], seeds: [], looks: [], at: 0, pose: [0, 0], projects: [], busy: "", metrics: {} };
let group = "hair";
let look = null; // the look that was chosen last: { group, seed, amount }
let firstFace = 0;
let firstLook = 0;
let painting = ""; // the edit by code that is under way
const kept = new Map(); // what was painted on steps that were left, by their numbers
let lookWanted = null; // the newest look that was not sent yet, and whether one is under way
let lookUnderWay = false;
let looksShown = ""; // what the strip of looks was made for

const socket = new Socket(`ws://${location.host}/socket${location.search}`, heard, (open, refused) => {
  find("lost").hidden = open || refused;
  find("refused").hidden = !refused;
  if (!open) {
    viewer.failed();
    lookUnderWay = false;
    painting = "";
  }
});

const painter = new Painter(find("map"), {
  changed: () => refreshPaint(),
  picked: chooseLabel,
  under: (label) => {
    find("under").textContent = label === null ? "" : name(label);
  },
});
const viewer = new Viewer(find("face"), {
  ask: (view) => socket.send({ type: "view", target: "face", ...view }),
  turned: showPose,
});
// The picture under the map.
function askUnder() {
  const [yaw, pitch] = state.pose;
  socket.send({ type: "view", target: "map", kind: "image", yaw, pitch });
}

function name(label) {
  const own = about.classes[label];
  return NAMES[own] ?? own;
}

function say(text, bad = false) {
  find("status").textContent = text;
  find("status").classList.toggle("bad", bad);
}

const ANSWERS = { about: begin, state: follow, frame, faces, looks, map, progress, saved, error };

function heard(header, payload) {
  try {
    ANSWERS[header.type]?.(header, payload);
  } catch (problem) {
    say(`This page has a defect: ${problem.message}`, true);
    throw problem;
  }
}

// Answers.

function begin(header) {
  about = header;
  looksShown = "";
  kept.clear(); // another server counts its steps anew
  group = about.groups.includes(group) ? group : about.groups[0];
  painter.colors = about.colors;
  buildPalette();
  buildButtons(find("quick"), about.edits, (edit) => {
    if (!socket.send({ type: "paint", name: edit }, painter.labels)) return;
    painting = edit;
    lock();
  });
  buildButtons(find("groups"), about.groups, chooseGroup);
  for (const button of find("groups").children) press(button, button.textContent === group);
  const options = [...about.groups, ...about.classes.slice(1).filter((c) => !about.groups.includes(c))];
  find("region").replaceChildren(...options.map((option) => new Option(NAMES[option] ?? option, option)));
  find("folder").textContent = `Face projects in ${about.folder}`;
  socket.send({ type: "faces", first: firstFace });
}

function follow(header, labels) {
  const fresh = header.numbers[header.at] !== state.numbers[state.at];
  const turned = header.pose.some((angle, axis) => angle !== state.pose[axis]);
  state = header;
  const number = header.numbers[header.at];
  const same = painter.size === header.size && labels.every((label, i) => label === painter.original[i]);
  if (!same || (fresh && !painter.painted)) {
    if (painter.painted) kept.set(painter.step, painter.kept());
    painter.load(labels, header.size, number, kept.get(number));
  }
  painter.step = number;
  for (const old of kept.keys()) if (!header.numbers.includes(old)) kept.delete(old);
  if (turned || !viewer.picture) viewer.look({ yaw: header.pose[0], pitch: header.pose[1] });
  else viewer.show();
  askUnder();
  lookUnderWay = false;
  sendLook();
  showLook();
  if (!header.busy) askLooks();
  showSteps();
  showBusy(header.busy);
  refreshPaint();
  find("sources").replaceChildren(...header.projects.map((project) => new Option(project)));
  if (fresh && !header.busy) say(told(header.metrics));
}

function frame(header, bytes) {
  decoded(bytes).then((picture) => {
    if (header.target === "map") {
      painter.picture = picture;
      painter.draw();
    } else {
      viewer.answered(picture);
    }
  });
}

function faces(header, bytes) {
  const chosen = (seed) => state.seeds[state.at] === seed;
  fillStrip(find("faces"), header, bytes, chosen, (seed) => socket.send({ type: "choose", seed }));
}

function looks(header, bytes) {
  if (header.group !== group) return;
  const chosen = (seed) => look?.group === group && look.seed === seed;
  fillStrip(find("looks"), header, bytes, chosen, (seed) => {
    look = { group, seed };
    find("amount").value = 1;
    wantLook();
    showLook();
  });
}

function map(header, labels) {
  painter.replace(labels, painting || "painted map");
  painting = "";
  lock();
  say("Painted: press Apply, and the face follows.");
}

function progress(header, bytes) {
  const bar = find("progress");
  bar.max = header.iterations;
  bar.value = header.iteration;
  const share = header.agreement === null ? "" : `, regions agree to ${Math.round(100 * header.agreement)} %`;
  say(`${header.name}: step ${header.iteration}${share}`);
  decoded(bytes).then((picture) => {
    if (!state.busy) return;
    painter.picture = picture;
    painter.draw();
  });
}

function saved(header) {
  say(`Saved as ${header.path}`);
}

function error(header) {
  viewer.failed();
  lookUnderWay = false;
  lookWanted = null;
  painting = "";
  lock();
  say(header.message, true);
}

function decoded(bytes) {
  return createImageBitmap(new Blob([bytes]));
}

function told(metrics) {
  const parts = [];
  const known = (value) => value !== undefined && value !== null;
  if (known(metrics.labels_inside)) parts.push(`${Math.round(100 * metrics.labels_inside)} % of the labels in the region are as asked`);
  if (known(metrics.change_inside)) parts.push(`colours changed by ${Math.round(100 * metrics.change_inside)} % inside`);
  if (known(metrics.change_outside)) parts.push(`by ${(100 * metrics.change_outside).toFixed(1)} % elsewhere`);
  return parts.join(", ");
}

// Looks: at most one is under way, so that the slider stays quick.

function wantLook() {
  lookWanted = { type: "look", ...look, amount: Number(find("amount").value) };
  sendLook();
}

// The look at hand, unless a newer one is on its way.
function showLook() {
  if (!lookWanted && !lookUnderWay) {
    look = state.looks[state.at] ?? null;
    if (look) find("amount").value = look.amount;
  }
  find("amount").disabled = Boolean(state.busy) || look?.group !== group;
  for (const button of find("looks").children) press(button, look?.group === group && Number(button.dataset.seed) === look.seed);
}

function sendLook() {
  if (!lookWanted || lookUnderWay) return;
  lookUnderWay = socket.send(lookWanted);
  lookWanted = null;
}

// A strip stays while nothing but the look of its own group changes.
function askLooks() {
  let since = state.at;
  while (since > 0 && state.looks[since]?.group === group) since -= 1;
  const wanted = `${state.numbers[since]} ${group} ${firstLook}`;
  if (wanted === looksShown) return;
  if (socket.send({ type: "looks", group, first: firstLook })) looksShown = wanted;
}

function chooseGroup(chosen) {
  group = chosen;
  for (const button of find("groups").children) press(button, button.textContent === group);
  showLook();
  askLooks();
}

// What is shown.

function press(button, on) {
  button.setAttribute("aria-pressed", on);
}

function buildButtons(parent, names, act) {
  parent.replaceChildren(...names.map((text) => {
    const button = document.createElement("button");
    button.textContent = text;
    button.onclick = () => act(text);
    return button;
  }));
}

function buildPalette() {
  const parts = [];
  about.groups.forEach((title, index) => {
    const heading = document.createElement("h2");
    heading.textContent = title;
    parts.push(heading);
    about.classes.forEach((own, label) => {
      if (about.group_of_class[label] !== index) return;
      const button = document.createElement("button");
      const swatch = document.createElement("i");
      swatch.style.background = `rgb(${about.colors[label]})`;
      button.append(swatch, name(label));
      button.dataset.label = label;
      button.onclick = () => chooseLabel(label);
      parts.push(button);
    });
  });
  find("palette").replaceChildren(...parts);
  chooseLabel(painter.label);
}

function chooseLabel(label) {
  painter.label = label;
  for (const button of find("palette").querySelectorAll("button")) press(button, Number(button.dataset.label) === label);
  if (painter.tool === "pick") chooseTool("brush");
}

function chooseTool(tool) {
  painter.tool = tool;
  for (const button of find("tools").children) press(button, button.dataset.tool === tool);
  painter.draw();
}

function fillStrip(parent, header, bytes, chosen, act) {
  const url = URL.createObjectURL(new Blob([bytes]));
  if (parent.dataset.url) URL.revokeObjectURL(parent.dataset.url);
  parent.dataset.url = url;
  parent.replaceChildren(...Array.from({ length: header.count }, (_, index) => {
    const seed = header.first + index;
    const button = document.createElement("button");
    button.title = `Face ${seed}`;
    button.dataset.seed = seed;
    button.setAttribute("aria-label", `face ${seed}`);
    button.style.backgroundImage = `url(${url})`;
    button.style.backgroundSize = `${100 * header.count}% 100%`;
    button.style.backgroundPosition = `${(100 * index) / (header.count - 1)}% 0`;
    const number = document.createElement("span");
    number.textContent = seed;
    button.append(number);
    press(button, chosen(seed));
    button.disabled = Boolean(state.busy);
    button.onclick = () => act(seed);
    return button;
  }));
}

function showSteps() {
  find("steps").replaceChildren(...state.steps.map((step, index) => {
    const item = document.createElement("li");
    const button = document.createElement("button");
    button.textContent = step;
    button.classList.toggle("later", index > state.at);
    if (index === state.at) button.setAttribute("aria-current", "step");
    button.onclick = () => socket.send({ type: "go", step: index });
    item.append(button);
    return item;
  }).reverse());
  for (const button of find("faces").children) press(button, state.seeds[state.at] === Number(button.dataset.seed));
}

function showBusy(busy) {
  find("progress").style.visibility = busy ? "visible" : "hidden";
  if (!busy) find("progress").value = 0;
  if (busy) say(`${busy} …`);
  find("stop").hidden = !busy;
  for (const button of document.querySelectorAll("#looks button, #faces button, #steps button, [data-what], #turn, #save")) button.disabled = Boolean(busy);
  lock();
}

// While the face changes, or code paints, the map is not to be painted on.
function lock() {
  painter.locked = Boolean(state.busy || painting);
  for (const button of find("quick").children) button.disabled = painter.locked;
}

function refreshPaint() {
  const busy = Boolean(state.busy);
  const ready = painter.painted;
  find("apply").disabled = busy || !ready;
  find("apply").hidden = busy;
  find("reset").disabled = busy || !ready;
  find("undo").disabled = busy || !(painter.strokes.length || state.at > 0);
  find("redo").disabled = busy || !(painter.undone.length || state.at < state.steps.length - 1);
  find("compare").disabled = state.at === 0;
}

function showPose({ yaw, pitch }) {
  const degrees = (angle) => `${Math.round((180 * angle) / Math.PI)}°`;
  find("pose").textContent = `yaw ${degrees(yaw)}, pitch ${degrees(pitch)}`;
}

// What the person does.

function undo() {
  if (state.busy || painting) return;
  const last = painter.strokes.at(-1);
  if (last && (last.step === painter.step || state.at === 0)) painter.undo();
  else if (state.at > 0) socket.send({ type: "go", step: state.at - 1 });
}

function redo() {
  if (state.busy || painting) return;
  const next = painter.undone.at(-1);
  if (next && (next.step === painter.step || state.at === state.steps.length - 1)) painter.redo();
  else if (state.at < state.steps.length - 1) socket.send({ type: "go", step: state.at + 1 });
}

function apply() {
  if (find("apply").disabled) return;
  socket.send({
    type: "edit", name: painter.names.join(", ").slice(0, 200), number: painter.step, iterations: Number(find("iterations").value),
    appearance: find("appearance").checked,
  }, painter.labels);
}

function save() {
  socket.send({ type: "save", name: find("name").value });
}

function compare(on) {
  const step = on && state.at > 0 ? state.at - 1 : null;
  if (viewer.step === step) return;
  viewer.step = step;
  viewer.show();
}

function download() {
  const canvas = document.createElement("canvas");
  canvas.width = viewer.picture.width;
  canvas.height = viewer.picture.height;
  canvas.getContext("2d").drawImage(viewer.picture, 0, 0);
  canvas.toBlob((blob) => {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(blob);
    link.download = `${find("name").value || "face"}.png`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  });
}

function openFaces() {
  const list = state.projects.map((project) => {
    const item = document.createElement("li");
    const button = document.createElement("button");
    button.textContent = project;
    button.onclick = () => socket.send({ type: "open", name: project });
    item.append(button);
    return item;
  });
  if (!list.length) list.push(document.createTextNode("There are none yet: Save writes them there."));
  find("projects").replaceChildren(...list);
  find("faces-dialog").showModal();
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
  socket.send({ type: "invert", name: photo.name, split: parts[0].length }, payload);
}

function take(what) {
  const source = find("source").value.trim();
  const region = find("region").value;
  if (!source || Number(source) >= MOST_LOOK) {
    say("From which face? Give the number of one below, or the name of a saved one.", true);
    return;
  }
  if (what !== "geometry" && !about.groups.includes(region)) {
    say(`A look belongs to a whole region: ${about.groups.join(", ")}. The shape of one part can be taken.`, true);
    return;
  }
  const giver = /^\d+$/.test(source) ? { seed: Number(source) } : { project: source };
  socket.send({
    type: "transfer", ...giver, what, region,
    iterations: Number(find("iterations").value),
  });
}

for (const button of find("tools").children) button.onclick = () => chooseTool(button.dataset.tool);
for (const button of find("kinds").children) {
  button.onclick = () => {
    viewer.kind = button.dataset.kind;
    for (const other of find("kinds").children) press(other, other === button);
    viewer.show();
  };
}
for (const button of document.querySelectorAll("[data-what]")) button.onclick = () => take(button.dataset.what);
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
find("stop").onclick = () => socket.send({ type: "stop" });
find("reset").onclick = () => painter.reset();
find("front").onclick = () => viewer.look({ yaw: state.pose[0], pitch: state.pose[1] });
find("turn").onclick = () => socket.send({ type: "turn", ...viewer.pose });
find("amount").oninput = wantLook;
find("more-looks").onclick = () => {
  firstLook = (firstLook + about.strip) % MOST_LOOK;
  askLooks();
};
find("more-faces").onclick = () => moreFaces(about.strip);
find("fewer-faces").onclick = () => moreFaces(-about.strip);
find("save").onclick = save;
find("picture").onclick = download;
find("open-faces").onclick = openFaces;
find("projects").onclick = () => find("faces-dialog").close();
find("open-photo").onclick = () => find("photo-dialog").showModal();
find("photo-dialog").onclose = () => {
  if (find("photo-dialog").returnValue === "go") invert();
  find("photo-dialog").returnValue = "";
};
find("compare").onpointerdown = () => compare(true);
for (const event of ["pointerup", "pointerleave", "blur"]) find("compare").addEventListener(event, () => compare(false));

function moreFaces(by) {
  firstFace = Math.max(0, firstFace + by);
  socket.send({ type: "faces", first: firstFace });
}

function resize(by) {
  const slider = find("size");
  slider.value = Number(slider.value) + by;
  slider.oninput({ target: slider });
}

const KEYS = {
  b: () => chooseTool("brush"), f: () => chooseTool("fill"), i: () => chooseTool("pick"),
  "[": () => resize(-1), "]": () => resize(1), c: () => compare(true), Enter: apply,
  Home: () => find("front").click(),
};
addEventListener("keydown", (event) => {
  const busy = event.target.closest("input:not([type=range]):not([type=checkbox]), select, dialog");
  if (event.ctrlKey || event.metaKey) {
    const key = event.key.toLowerCase();
    if (key === "s") save();
    else if (key === "z" && !busy) (event.shiftKey ? redo : undo)();
    else if (key === "y" && !busy) redo();
    else return;
    event.preventDefault();
  } else if (!busy && !event.altKey) {
    if (event.key === "Enter" && event.target.closest("button")) return;
    (KEYS[event.key] ?? KEYS[event.key.toLowerCase()])?.();
  }
});
addEventListener("keyup", (event) => {
  if (event.key.toLowerCase() === "c") compare(false);
});
addEventListener("blur", () => compare(false));

chooseTool("brush");
for (const button of find("kinds").children) press(button, button.dataset.kind === "image");
find("size").oninput({ target: find("size") });

// What is shown beside the two canvases: palette, strips, revisions, dialogs, and what may be pressed.

import { decoded, find, labelName, listButton, page, press, readable, say, send } from "./state.js";

// The palette and the tools.

export function buildPalette() {
  const { about, painter } = page;
  const parts = [];
  about.groups.forEach((title, index) => {
    const heading = document.createElement("h2");
    heading.textContent = title;
    parts.push(heading);
    about.classes.forEach((own, label) => {
      if (about.group_of_class[label] === index) parts.push(paletteRow(label));
    });
  });
  find("palette").replaceChildren(...parts);
  chooseLabel(painter.label);
}

function paletteRow(label) {
  const [row, button, swatch, lock] = ["div", "button", "i", "button"].map((tag) => document.createElement(tag));
  swatch.style.background = `rgb(${page.about.colors[label]})`;
  button.append(swatch, labelName(label));
  button.dataset.label = label;
  button.onclick = () => chooseLabel(label);
  lock.className = "lock";
  lock.title = "Lock: what has this label is not painted over (L)";
  lock.setAttribute("aria-label", `lock ${labelName(label)}`);
  lock.dataset.lock = label;
  lock.onclick = () => toggleLock(label);
  press(lock, page.painter.protected.has(label));
  row.append(button, lock);
  return row;
}

export function chooseLabel(label) {
  page.painter.label = label;
  for (const button of find("palette").querySelectorAll("[data-label]")) press(button, Number(button.dataset.label) === label);
  if (page.painter.tool === "pick" || page.painter.tool === "erase") chooseTool("brush");
}

export function toggleLock(label) {
  const locked = page.painter.protected;
  if (!locked.delete(label)) locked.add(label);
  press(find("palette").querySelector(`[data-lock="${label}"]`), locked.has(label));
  say(`${labelName(label)} is ${locked.has(label) ? "locked: it is not painted over" : "unlocked"}.`);
}

export function chooseTool(tool) {
  page.painter.tool = tool;
  for (const button of find("tools").children) press(button, button.dataset.tool === tool);
  page.painter.draw();
}

// Strips of small pictures.

export function fillStrip(parent, header, bytes, chosen, act) {
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
    button.disabled = Boolean(page.state.busy);
    button.onclick = () => act(seed);
    return button;
  }));
}

// Revisions, and what may be pressed while the face changes.

export function showRevisions() {
  const { state } = page;
  find("revisions").replaceChildren(...state.revisions.map((revision, index) => {
    const item = listButton(revision, () => send({ type: "go", revision: index }));
    const button = item.firstChild;
    button.classList.toggle("later", index > state.at);
    if (index === state.at) button.setAttribute("aria-current", "step");
    return item;
  }).reverse());
  for (const button of find("faces").children) press(button, state.seeds[state.at] === Number(button.dataset.seed));
}

const BUSY = "#looks button, #faces button, #revisions button, [data-what], #turn, #save";

export function showBusy() {
  const { busy, job } = page.state;
  document.body.classList.toggle("inverting", job === "inversion");
  find("progress").style.visibility = busy ? "visible" : "hidden";
  if (!busy) find("progress").value = 0;
  if (busy) say(`${busy} …`);
  find("fit").textContent = busy ? "The face as it is so far" : "drag to turn";
  find("stop").hidden = !busy;
  for (const button of document.querySelectorAll(BUSY)) button.disabled = Boolean(busy);
  showRegion();
  lock();
}

// While the face changes, or code paints, the map is not to be painted on.
export function lock() {
  page.painter.locked = Boolean(page.state.busy || page.code);
  for (const button of find("quick").children) button.disabled = page.painter.locked;
}

export function showPaint() {
  const { painter, state } = page;
  const busy = Boolean(state.busy);
  const ready = painter.painted;
  find("apply").disabled = busy || !ready;
  find("apply").hidden = busy;
  find("reset").disabled = busy || !ready;
  find("undo").disabled = busy || !(painter.strokes.length || state.at > 0);
  find("redo").disabled = busy || !(painter.undone.length || state.at < state.revisions.length - 1);
  find("compare").disabled = state.at === 0;
  find("split").disabled = state.at === 0;
}

export function showPose({ yaw, pitch }) {
  const degrees = (angle) => `${Math.round((180 * angle) / Math.PI)}°`;
  find("pose").textContent = `yaw ${degrees(yaw)}, pitch ${degrees(pitch)}`;
}

// Regions to take from another face: a look is that of a whole group.

export function buildRegions() {
  const { classes, groups } = page.about;
  const options = [...groups, ...classes.slice(1).filter((own) => !groups.includes(own))];
  find("region").replaceChildren(...options.map((option) => new Option(readable(option), option)));
}

export function showRegion() {
  const part = !page.about?.groups.includes(find("region").value);
  for (const button of document.querySelectorAll("[data-what]:not([data-what=geometry])")) {
    button.disabled = part || Boolean(page.state.busy);
    button.title = part ? `A look belongs to a whole region: ${page.about?.groups.join(", ")}` : button.dataset.title;
  }
}

// Faces that were saved, with their pictures.

export function openFaces() {
  const list = page.state.projects.map((project) => {
    const picture = document.createElement("canvas");
    picture.width = picture.height = 0;
    picture.dataset.project = project;
    const item = listButton(picture, () => send({ type: "open", name: project }));
    item.firstChild.append(project);
    return item;
  });
  if (!list.length) list.push(document.createTextNode("There are none yet: Save writes them there."));
  find("projects").replaceChildren(...list);
  askThumbnail();
  find("faces-dialog").showModal();
}

// One after another, as they are answered.
function askThumbnail() {
  const next = find("projects").querySelector("canvas:not([data-asked])");
  if (!next) return;
  next.dataset.asked = "";
  send({ type: "thumbnail", name: next.dataset.project });
}

export async function thumbnail(header, bytes) {
  const picture = await decoded(bytes);
  for (const canvas of find("projects").querySelectorAll("canvas")) {
    if (canvas.dataset.project !== header.name) continue;
    canvas.width = canvas.height = 48;
    canvas.getContext("2d").drawImage(picture, 0, 0, 48, 48);
  }
  askThumbnail();
}

// A face of an earlier session that nobody saved.

export function offerRecovered() {
  const { recovered } = page.about;
  find("recovered").hidden = !recovered || sessionStorage.getItem("recovered") === recovered;
}

export function answerRecovered(open) {
  const { recovered } = page.about;
  sessionStorage.setItem("recovered", recovered);
  find("recovered").hidden = true;
  if (open) send({ type: "open", name: recovered });
}

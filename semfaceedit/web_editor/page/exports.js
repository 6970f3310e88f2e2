// What can be taken along: the edit in the photograph, beside the photograph as it was; video; one page.

import { decoded, find, page, saveFile, say, send } from "./state.js";

const pair = { before: null, after: null }; // pictures of the photograph about the face
let kept = null; // the revision that they show
let under = ""; // what is being made

const dialog = () => find("export-dialog");
const name = () => find("name").value.trim() || "face";

// Another editor, or the same anew: the formats that it can write.
export function begin() {
  kept = null;
  failed();
  find("video-form").replaceChildren(...page.about.videos.map((form) => new Option(form === "mp4" ? "MP4" : "WebP", form)));
  find("video").hidden = !page.about.videos.length;
}

// The face has changed, perhaps.
export function changed() {
  find("in-photograph").hidden = !page.state.photograph;
  if (dialog().open) showPhotograph();
}

function make(what, fields = {}) {
  if (under || !send({ type: "export", what, name: name(), ...fields })) return;
  under = what;
  find("making").removeAttribute("value");
  show(what === "photograph" ? "Looking at the photograph …" : "");
}

function show(text) {
  const busy = Boolean(under);
  find("making").hidden = find("cancel").hidden = !busy;
  for (const button of dialog().querySelectorAll("[data-make]")) button.disabled = busy;
  find("making-text").textContent = text;
}

export function failed() {
  under = "";
  show("");
}

export function making({ done, total }) {
  if (!total || total === 1) return;
  find("making").max = total;
  find("making").value = done;
}

export async function made(header, bytes) {
  under = "";
  show(header.problem ?? "");
  if (header.what === "photograph") await arrived(header, bytes);
  else if (!header.problem) {
    saveFile(new Blob([bytes], { type: header.mime }), header.name);
    show(`Downloaded as ${header.name}`);
  }
  if (dialog().open) showPhotograph(); // of a face that has changed meanwhile
  else say(find("making-text").textContent, Boolean(header.problem));
}

// The photograph, and the edit in it.

function showPhotograph() {
  const { state } = page;
  const current = `${state.numbers[state.at]} ${state.version}`;
  if (!state.photograph || kept === current || under || state.busy) return;
  kept = current;
  pair.before = pair.after = null;
  drawPair();
  make("photograph");
}

async function arrived(header, bytes) {
  const there = !header.problem;
  find("paste-save").disabled = !there;
  if (there) {
    [pair.before, pair.after] = await Promise.all([bytes.slice(0, header.split), bytes.slice(header.split)].map(decoded));
    show(`The edit changes ${header.share} % of ${header.width} × ${header.height} pixels; all others stay as they are.`);
  }
  drawPair();
}

function drawPair() {
  const canvas = find("paste"), { before, after } = pair;
  find("paste-sheet").hidden = !after;
  if (!after) return;
  [canvas.width, canvas.height] = [after.width, after.height];
  const context = canvas.getContext("2d");
  const place = Math.round((Number(find("paste-divide").value) / 100) * after.width);
  context.drawImage(after, 0, 0);
  if (place) context.drawImage(before, 0, 0, place, after.height, 0, 0, place, after.height);
  context.fillStyle = "#fff";
  context.fillRect(place - 1, 0, 2, after.height);
}

// Video.

function makeVideo() {
  const { kind, pose } = page.viewer;
  const fields = { form: find("video-form").value, kind, ...pose };
  if (find("video-change").checked) {
    const from = find("video-from").value.trim();
    if (!from) return show("From which face? Give the number of one, or the name of a saved one.");
    Object.assign(fields, /^\d+$/.test(from) ? { seed: Number(from) } : { project: from });
  }
  make("video", fields);
}

export function listen() {
  find("export").onclick = () => {
    dialog().showModal();
    show("");
    showPhotograph();
  };
  find("paste-divide").oninput = drawPair;
  find("paste-save").onclick = () => make("pasted");
  find("video-save").onclick = makeVideo;
  find("page-save").onclick = () => make("page");
  find("cancel").onclick = () => send({ type: "cancel" });
  find("video-from").oninput = () => { find("video-change").checked = true; };
}

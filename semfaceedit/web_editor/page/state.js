// What the parts of the page share: what the editor said last, and small helpers.

export const find = (id) => document.getElementById(id);

const NAMES = {
  eye_g: "glasses", l_eye: "left eye", r_eye: "right eye", l_brow: "left brow", r_brow: "right brow",
  l_ear: "left ear", r_ear: "right ear", mouth: "inner mouth", u_lip: "upper lip", l_lip: "lower lip",
  ear_r: "earring", neck_l: "necklace", cloth: "garment",
};

// about: what does not change; state: how things stand (both from server.py); code: the edit by code
// that is under way. The socket, the painter and the viewer are put here by main.js.
export const page = {
  about: null,
  state: {
    revisions: [], numbers: [], seeds: [], looks: [], sliders: [], at: 0, pose: [0, 0], projects: [], busy: "", job: "", metrics: {},
  },
  code: "",
  socket: null,
  painter: null,
  viewer: null,
};

export const send = (header, payload) => page.socket.send(header, payload);
export const readable = (own) => NAMES[own] ?? own;
export const labelName = (label) => readable(page.about.classes[label]);

export function say(text, bad = false) {
  find("status").textContent = text;
  find("status").classList.toggle("bad", bad);
}

export function press(button, on) {
  button.setAttribute("aria-pressed", on);
}

export function buildButtons(parent, names, act) {
  parent.replaceChildren(...names.map((text) => {
    const button = document.createElement("button");
    button.textContent = text;
    button.onclick = () => act(text);
    return button;
  }));
}

export function listButton(text, act) {
  const item = document.createElement("li");
  const button = document.createElement("button");
  button.append(text);
  button.onclick = act;
  item.append(button);
  return item;
}

export function decoded(bytes) {
  return createImageBitmap(new Blob([bytes]));
}

// A download of what was made here.
export function saveFile(blob, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}

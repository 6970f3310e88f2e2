// Sliders of the weights: the face follows while one is dragged, and the place where it is left is a revision.

import { find, page, readable, send } from "./state.js";

const MOST = 3; // deviations

let inputs = new Map(); // by name
let wanted = null; // the newest places that were not sent yet ...
let underWay = false; // ... since others are under way
let held = false; // one is being dragged

const changes = () => Object.fromEntries([...inputs].map(([name, input]) => [name, Number(input.value)]).filter(([, steps]) => steps));

// Another editor, or the same anew.
export function begin() {
  const { sliders } = page.about;
  failed();
  inputs = new Map();
  find("sliders").hidden = !sliders.length;
  find("slider-list").replaceChildren(...sliders.map((slider) => {
    const row = document.createElement("label");
    const [name, input, value] = ["span", "input", "output"].map((tag) => document.createElement(tag));
    row.className = "slider";
    const title = slider.part === "shape" ? slider.name : `${slider.name} (${readable(slider.part)})`;
    name.textContent = slider.name;
    row.title = slider.weak ? `${title}: may change other things a little` : title;
    Object.assign(input, { type: "range", min: -MOST, max: MOST, step: 0.1, value: 0 });
    input.oninput = () => {
      held = true;
      told(input, value);
      page.viewer.slide(changes());
    };
    input.onchange = () => {
      held = false;
      wanted = changes();
      next();
    };
    row.append(name, input, value);
    told(input, value);
    inputs.set(slider.name, input);
    return row;
  }));
}

function told(input, value) {
  const steps = Number(input.value);
  value.textContent = steps ? `${steps > 0 ? "+" : "−"}${Math.abs(steps).toFixed(1)}` : "0";
}

function next() {
  if (!wanted || underWay) return;
  underWay = send({ type: "adjust", changes: wanted });
  wanted = null;
}

// The state has come, with the places of the revision at hand.
export function arrived() {
  underWay = false;
  next();
  const { state } = page;
  for (const [name, input] of inputs) {
    input.disabled = Boolean(state.busy);
    if (held || underWay) continue;
    input.value = state.sliders[state.at][name] ?? 0;
    told(input, input.nextSibling);
  }
  find("slider-reset").disabled = Boolean(state.busy) || !Object.keys(changes()).length;
}

export function failed() {
  wanted = null;
  underWay = held = false;
}

export function listen() {
  find("slider-reset").onclick = () => {
    wanted = {};
    next();
  };
}

// Keys: shortcuts of the page, and one stop of the tab key for each group of buttons.

import { find, page } from "./state.js";
import { chooseTool, toggleLock } from "./panels.js";

const WRITES = "input:not([type=range]):not([type=checkbox]), select, dialog";
const GROUPS = ["tools", "palette", "quick", "kinds", "groups", "looks", "revisions", "faces"];
const NEXT = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 };

export function resize(by) {
  const slider = find("size");
  slider.value = Number(slider.value) + by;
  slider.oninput({ target: slider });
}

// acts: what the page does for a key that is not the painter's own.
export function listen({ apply, save, undo, redo, compare }) {
  const keys = {
    b: () => chooseTool("brush"), g: () => chooseTool("fill"), f: () => chooseTool("fill"),
    i: () => chooseTool("pick"), e: () => chooseTool("erase"), l: () => toggleLock(page.painter.label),
    "[": () => resize(-1), "]": () => resize(1), c: () => compare(true), Enter: apply,
    Home: () => find("front").click(), 0: () => page.painter.zoomAt([0, 0], 0),
    "+": () => zoom(1.5), "-": () => zoom(1 / 1.5),
  };
  addEventListener("keydown", (event) => {
    const busy = event.target.closest(WRITES);
    if (event.ctrlKey || event.metaKey) {
      const key = event.key.toLowerCase();
      if (key === "s") save();
      else if (key === "z" && !busy) (event.shiftKey ? redo : undo)();
      else if (key === "y" && !busy) redo();
      else return;
      event.preventDefault();
    } else if (!busy && !event.altKey && !event.defaultPrevented) {
      if (event.target.closest("button, input") && (event.key === "Enter" || event.key === " ")) return;
      if (event.key === " ") {
        page.painter.panning = true;
        event.preventDefault();
      }
      (keys[event.key] ?? keys[event.key.toLowerCase()])?.();
    }
  });
  addEventListener("keyup", (event) => {
    if (event.key.toLowerCase() === "c") compare(false);
    if (event.key === " ") page.painter.panning = false;
  });
  addEventListener("blur", () => {
    compare(false);
    page.painter.panning = false;
  });
  for (const id of GROUPS) rove(find(id));
}

function zoom(factor) {
  const { cursor, pointer, size } = page.painter;
  page.painter.zoomAt(cursor ?? pointer ?? [size / 2, size / 2], factor);
}

// One button of a group can be reached with the tab key, the others from it with the arrow keys.
function rove(group) {
  const buttons = () => [...group.querySelectorAll("button:not([hidden])")];
  const settle = () => {
    const all = buttons();
    const stop = all.find((button) => button === document.activeElement)
      ?? all.find((button) => button.matches("[aria-pressed=true]:not(.lock), [aria-current]")) ?? all[0];
    for (const button of all) button.tabIndex = button === stop ? 0 : -1;
  };
  new MutationObserver(settle).observe(group, { childList: true, subtree: true, attributeFilter: ["aria-pressed", "aria-current", "hidden"] });
  group.addEventListener("focusin", settle);
  group.addEventListener("keydown", (event) => {
    const by = NEXT[event.key];
    if (!by) return;
    const all = buttons().filter((button) => !button.disabled && !button.classList.contains("lock"));
    const next = all[all.indexOf(event.target.closest("button")) + by];
    event.preventDefault();
    next?.focus();
  });
  settle();
}

// Looks of a region: their strip, and the one that is chosen. At most one is under way, so that the slider
// stays quick.

import { find, page, press, send } from "./state.js";
import { fillStrip } from "./panels.js";

export const MOST_LOOK = 2 ** 30;

export class Looks {
  constructor() {
    this.group = "hair";
    this.chosen = null; // the look that was chosen last: { group, seed, amount }
    this.first = 0; // seed of the strip
    this.wanted = null; // the newest look that was not sent yet ...
    this.underWay = false; // ... since one is under way
    this.shown = ""; // what the strip was made for
  }

  // Another editor, or the same anew.
  begin() {
    this.shown = "";
    const { groups } = page.about;
    if (!groups.includes(this.group)) this.group = groups[0];
    this.pressGroup();
  }

  failed() {
    this.underWay = false;
    this.wanted = null;
  }

  // The state has come: the look that was under way is there.
  arrived() {
    this.underWay = false;
    this.next();
    this.show();
    if (!page.state.busy) this.ask();
  }

  answered(header, bytes) {
    if (header.group !== this.group) return;
    const chosen = (seed) => this.chosen?.group === this.group && this.chosen.seed === seed;
    fillStrip(find("looks"), header, bytes, chosen, (seed) => {
      this.chosen = { group: this.group, seed };
      find("amount").value = 1;
      this.want();
      this.show();
    });
  }

  want() {
    this.wanted = { type: "look", ...this.chosen, amount: Number(find("amount").value) };
    this.next();
  }

  next() {
    if (!this.wanted || this.underWay) return;
    this.underWay = send(this.wanted);
    this.wanted = null;
  }

  // The look at hand, unless a newer one is on its way.
  show() {
    const { state } = page;
    if (!this.wanted && !this.underWay) {
      this.chosen = state.looks[state.at] ?? null;
      if (this.chosen) find("amount").value = this.chosen.amount;
    }
    const own = this.chosen?.group === this.group;
    find("amount").disabled = Boolean(state.busy) || !own;
    for (const button of find("looks").children) press(button, own && Number(button.dataset.seed) === this.chosen.seed);
  }

  // A strip stays while nothing but the look of its own group changes.
  ask() {
    const { state } = page;
    let since = state.at;
    while (since > 0 && state.looks[since]?.group === this.group) since -= 1;
    const wanted = `${state.numbers[since]} ${this.group} ${this.first}`;
    if (wanted === this.shown) return;
    if (send({ type: "looks", group: this.group, first: this.first })) this.shown = wanted;
  }

  more() {
    this.first = (this.first + page.about.strip) % MOST_LOOK;
    this.ask();
  }

  choose(group) {
    this.group = group;
    this.pressGroup();
    this.show();
    this.ask();
  }

  pressGroup() {
    for (const button of find("groups").children) press(button, button.textContent === this.group);
  }
}

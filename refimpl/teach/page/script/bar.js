/* The bar at the top: the tokens of each text, the layer, the head, what the head would say there,
   and the way from step to step. All of it is reached by Tab; arrow keys move within a part. */

import { el, inside, say } from "./dom.js";
import { sides } from "./data.js";
import { change, chooseToken, most, state, viewOf } from "./state.js";
import { lensLine } from "./answers.js";

const THEMES = ["as the system", "light", "dark"];

class Tokens {
  constructor(side, which) {
    this.side = side;
    this.which = which;
    this.chips = side.tokens.map((token, n) => el("button", {
      type: "button", role: "radio", "aria-checked": "false", tabindex: "-1",
      class: side.rowOf(n) < 0 ? "chip away" : "chip",
      "aria-label": n + " " + token + (side.rowOf(n) < 0 ? ", its vectors are not on this page" : ""),
      onclick: () => chooseToken(which, n),
    }, el("bdi", {}, token)));
    const name = (sides.length > 1 ? "AB"[which] + ": " : "") + side.model;
    this.group = el("div", { class: "chips", role: "radiogroup", "aria-label": "tokens of the text, " + name, onkeydown: event => this.key(event) }, this.chips);
    this.position = el("span", { class: "position" });
    this.lens = el("p", { class: "would-say" });
    this.element = el("div", { class: "tokens" },
      el("p", { class: "model" }, name, this.position), this.group, this.lens);
  }

  update(view) {
    const chosen = this.chips[view.token];
    if (this.chosen !== chosen) {
      for (const [chip, is] of [[this.chosen, false], [chosen, true]]) {
        if (!chip) continue;
        chip.setAttribute("aria-checked", String(is));
        chip.tabIndex = is ? 0 : -1;
      }
      this.chosen = chosen;
      const box = this.group, top = chosen.offsetTop - box.offsetTop;
      if (top < box.scrollTop || top + chosen.offsetHeight > box.scrollTop + box.clientHeight) box.scrollTop = top - box.clientHeight / 2;
    }
    this.position.textContent = ": token " + view.token + " of " + this.side.seq + ", " + this.side.tokens[view.token];
    this.lens.replaceChildren(...lensLine(view));
  }

  key(event) {
    const step = { ArrowLeft: -1, ArrowUp: -1, ArrowRight: 1, ArrowDown: 1, Home: -this.side.seq, End: this.side.seq, PageUp: -16, PageDown: 16 }[event.key];
    if (!step || event.altKey || event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    const token = inside(state.tokens[this.which] + step, 0, this.side.seq - 1);
    chooseToken(this.which, token);
    this.chips[token].focus({ preventScroll: true });
  }
}

export class Bar {
  constructor(parent) {
    this.tokens = sides.map((side, which) => new Tokens(side, which));
    this.layer = el("input", { type: "range", min: "0", max: String(most.layer), value: "0", oninput: () => change({ layer: Number(this.layer.value) }) });
    this.layerText = el("output", { class: "number" });
    this.head = el("input", { type: "range", min: "0", max: String(most.head), value: "0", oninput: () => change({ head: Number(this.head.value) }) });
    this.headText = el("output", { class: "number" });
    this.theme = el("select", { onchange: () => this.setTheme() }, THEMES.map(name => el("option", {}, name)));
    const turn = (text, by) => el("button", { type: "button", onclick: () => this.step(by) }, text);
    parent.append(
      el("div", { class: "texts" }, this.tokens.map(t => t.element)),
      el("div", { class: "controls" },
        el("label", {}, "layer ", this.layer, " ", this.layerText),
        el("label", {}, "head ", this.head, " ", this.headText),
        el("span", { class: "steps" }, turn("\u2190 step", -1), " ", turn("step \u2192", 1)),
        el("label", {}, "colours ", this.theme)));
  }

  update() {
    sides.forEach((side, which) => this.tokens[which].update(viewOf(which)));
    this.layer.value = String(state.layer);
    this.head.value = String(state.head);
    const kinds = [...new Set(sides.filter(s => state.layer < s.layers).map(s => s.kinds[state.layer] === "full" ? "full" : "local (sliding)"))];
    this.layerText.textContent = state.layer + " (of 0 to " + most.layer + "), " + kinds.join(" | ");
    this.headText.textContent = state.head + " (of 0 to " + most.head + ")";
    this.layer.setAttribute("aria-valuetext", "layer " + this.layerText.textContent);
  }

  setTheme() {
    const chosen = this.theme.selectedIndex;
    if (chosen) document.documentElement.dataset.theme = THEMES[chosen];
    else delete document.documentElement.dataset.theme;
    change({});
  }

  /* The step that is looked at: the last one gone to while it can be seen, else the topmost. */
  onScreen(steps) {
    const seen = section => {
      const box = section.getBoundingClientRect();
      return box.bottom > innerHeight * 0.25 && box.top < innerHeight * 0.9;
    };
    return this.here && seen(this.here) ? this.here : steps.find(seen) || steps[0];
  }

  /* To the next step, or the one before: from the last of a layer to the first of the next layer. */
  step(by) {
    const steps = [...document.querySelectorAll("main section")];
    const inLayer = steps.filter(section => section.dataset.layer);
    this.here = this.onScreen(steps);
    let next = inside(steps.indexOf(this.here) + by, 0, steps.length - 1);
    const last = inLayer[inLayer.length - 1], first = inLayer[0];
    if (by > 0 && this.here === last && state.layer < most.layer) {
      change({ layer: state.layer + 1 });
      next = steps.indexOf(first);
    } else if (by < 0 && this.here === first && state.layer > 0) {
      change({ layer: state.layer - 1 });
      next = steps.indexOf(last);
    }
    this.here = steps[next];
    const heading = this.here.querySelector("h2, h3");
    this.here.scrollIntoView({ block: "start" });
    say(heading.textContent + (this.here.dataset.layer ? ", layer " + state.layer : ""));
    for (const section of steps) section.classList.toggle("here", section === this.here);
  }
}

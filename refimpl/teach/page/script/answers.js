/* What the head says of the chosen token (or of the text) after each layer: after the last one the
   model's answer, before it the logit lens, the same head on the residual stream of that layer. */

import { el } from "./dom.js";
import { bar } from "./stream.js";
import { change } from "./state.js";

export const SHOWN = 3; // answers of a layer in the lens

/* The best answers after `line` layers: [{name, prob, logit, share}], or null where none is kept. */
export function answersOf(view, line) {
  const { side } = view, ids = side.get("answers.ids");
  const row = side.answers.of_the_text ? 0 : view.row;
  if (!ids || row < 0) return null;
  const [, rows, best] = ids.shape, probs = side.get("answers.probs"), logits = side.get("answers.logits");
  return [...Array(best).keys()].map(n => {
    const at = (line * rows + row) * best + n;
    return { name: side.answers.names[ids.integers[at]], prob: probs.text(at), logit: logits.text(at), share: probs.value(at) };
  });
}

/* The same of the chosen layer in a line, for the bar. */
export function lensLine(view) {
  const { side, layer } = view, found = answersOf(view, layer + 1);
  if (!found) return [side.answers.kind ? "The head's answers for this token are not on this page." : side.answers.why];
  const scored = side.answers.function === "none" ? "logit" : "prob";
  const said = found.slice(0, SHOWN).map(a =>
    el("span", { class: "said" }, el("bdi", {}, a.name), " ", el("span", { class: "number" }, a[scored])));
  return ["After layer " + layer + " the head " + (layer === side.layers - 1 ? "says " : "would say "), ...said];
}

export class Lens {
  constructor(side) {
    this.side = side;
    this.body = el("tbody");
    this.note = el("p");
    this.table = el("table", { class: "lens" },
      el("caption", {}, "The head on the residual stream after each layer"),
      el("thead", {}, el("tr", {}, el("th", { scope: "col" }, "after"), [...Array(SHOWN).keys()].map(n => el("th", { scope: "col" }, (n + 1) + ".")))),
      this.body);
    this.element = el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "logit lens" }, this.note, this.table);
  }

  update(view) {
    const { side } = this, final = answersOf(view, side.layers);
    this.table.hidden = !final;
    this.note.hidden = Boolean(final);
    this.note.textContent = side.answers.kind ? "The vectors of token " + view.token + " are not on this page." : side.answers.why;
    if (!final) return;
    const scored = side.answers.function === "none" ? "logit" : "prob";
    const rows = [];
    for (let line = side.layers; line >= 0; line--) {
      const cells = answersOf(view, line).slice(0, SHOWN).map(a =>
        el("td", { class: a.name === final[0].name ? "final" : null },
          el("bdi", {}, a.name), a.name === final[0].name ? " \u2713" : "", " ", el("span", { class: "number" }, a[scored]), bar(a.share)));
      const name = line ? el("button", { type: "button", onclick: () => change({ layer: line - 1 }) }, "layer " + (line - 1)) : "embedding";
      rows.push(el("tr", { class: line === view.layer + 1 ? "here" : null }, el("th", { scope: "row" }, name), cells));
    }
    this.body.replaceChildren(...rows);
  }
}

export class Answer {
  constructor(side) {
    this.side = side;
    this.body = el("tbody");
    this.table = el("table", { class: "bars" }, el("caption", {}, "The model's answer"),
      el("thead", {}, el("tr", {}, ["answer", "logit", side.answers.function === "none" ? "" : side.answers.function].map(name => el("th", { scope: "col" }, name)))),
      this.body);
    this.element = el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "the answer" }, this.table);
  }

  update(view) {
    const found = answersOf(view, this.side.layers) || [];
    this.element.hidden = !found.length;
    this.body.replaceChildren(...found.map(a => el("tr", {}, el("th", { scope: "row" }, el("bdi", {}, a.name)),
      el("td", {}, a.logit), el("td", {}, this.side.answers.function === "none" ? "" : a.prob, bar(a.share)))));
  }
}

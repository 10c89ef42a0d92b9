/* How long the residual stream of the chosen token is after each layer, and what each layer adds. */

import { el } from "./dom.js";

const LENGTHS = [["residual", "h"], ["attn_out", "attention adds"], ["mlp_out", "the MLP adds"]];

export class Stream {
  constructor(side) {
    this.side = side;
    this.body = el("tbody");
    this.element = el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "lengths by layer" },
      el("table", { class: "bars" },
        el("caption", {}, "Euclidean lengths of the chosen token's vectors"),
        el("thead", {}, el("tr", {}, el("th", { scope: "col" }, "after"), LENGTHS.map(([, name]) => el("th", { scope: "col" }, name)))),
        this.body));
  }

  update(view) {
    const { side } = this;
    const tensors = LENGTHS.map(([name]) => side.get("lengths." + name));
    const number = (tensor, line) => tensor.text(line * side.seq + view.token);
    const value = (tensor, line) => tensor.value(line * side.seq + view.token);
    let most = 0;
    tensors.forEach((tensor, n) => {
      for (let line = 0; line < tensor.shape[0]; line++) most = Math.max(most, value(tensor, line));
    });
    const rows = [];
    for (let line = 0; line <= side.layers; line++) {
      const cells = tensors.map((tensor, n) => {
        const at = n ? line - 1 : line; // nothing is added before the first layer
        return at < 0 ? el("td") : el("td", {}, number(tensor, at), bar(value(tensor, at) / most));
      });
      rows.push(el("tr", { class: line === view.layer + 1 ? "here" : null },
        el("th", { scope: "row" }, line ? "layer " + (line - 1) : "embedding"), cells));
    }
    this.body.replaceChildren(...rows);
  }
}

export function bar(part) {
  const inner = el("span", { class: "bar" });
  inner.style.width = (100 * part).toFixed(1) + "%";
  return el("span", { class: "track", "aria-hidden": "true" }, inner);
}

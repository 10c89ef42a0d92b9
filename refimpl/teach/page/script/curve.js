/* The activation, and where the chosen unit's number stands on it. */

import { el, inside, svg } from "./dom.js";

const FROM = -4, TO = 4; // as explained.py has the curve
const LOW = -1, HIGH = 4;

export class Curve {
  constructor(side) {
    this.side = side;
    this.dot = svg("circle", { r: 0.09, class: "dot" });
    this.stem = svg("line", { class: "after" });
    this.note = el("figcaption");
    this.line = svg("polyline", { class: "curve" });
    this.picture = svg("svg", { viewBox: FROM + " " + -HIGH + " " + (TO - FROM) + " " + (HIGH - LOW), role: "img" },
      svg("line", { x1: FROM, x2: TO, class: "axis" }), svg("line", { y1: -HIGH, y2: -LOW, class: "axis" }), this.line, this.stem, this.dot);
    this.element = el("figure", { class: "curve" }, this.picture, this.note);
  }

  update(view) {
    const { side } = this, curve = side.get("activation"), count = curve.integers.length;
    this.line.setAttribute("points", [...curve.integers].map((_, n) =>
      (FROM + (TO - FROM) * n / (count - 1)).toFixed(2) + "," + (-curve.value(n)).toFixed(3)).join(" "));
    const wi = side.get(view.at + "wi"), at = view.row * 2 * side.inter + view.unit, x = wi.value(at);
    const shown = inside(x, FROM, TO), n = Math.round((shown - FROM) / (TO - FROM) * (count - 1));
    for (const [name, value] of Object.entries({ cx: shown, cy: -curve.value(n) })) this.dot.setAttribute(name, value);
    for (const [name, value] of Object.entries({ x1: shown, x2: shown, y1: 0, y2: -curve.value(n) })) this.stem.setAttribute(name, value);
    this.note.textContent = side.activation + " at unit " + view.unit + "'s first number, " + wi.text(at) + (x === shown ? "" : ", beyond the picture");
    this.picture.setAttribute("aria-label", "the curve of " + this.note.textContent);
  }
}

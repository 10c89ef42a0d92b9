/* Rotary positions: a pair of columns of the query as a vector that is turned, by both thetas; and
   the hands of all pairs, of which the first turn fastest. Moving through the text, or the slider,
   turns them. Pictures alone are computed here; the numbers beside them are the page's. */

import { el, svg } from "./dom.js";
import { keyOf } from "./equation.js";

const KINDS = ["full", "sliding"];
const LAYERS = { full: "full", sliding: "local" };
const REACH = 46; // of a dial of 120 to a side
const FARTHEST = 255; // of the slider, unless the text is longer

const turned = (x, y, angle) =>
  [x * Math.cos(angle) - y * Math.sin(angle), y * Math.cos(angle) + x * Math.sin(angle)];

export class Rope {
  constructor(side) {
    this.dials = el("div", { class: "dials" });
    this.hands = el("div", { class: "hands" });
    this.slider = el("input", { type: "range", min: "0", max: String(Math.max(FARTHEST, side.seq - 1)), value: "0", oninput: () => this.drawHands(Number(this.slider.value)) });
    this.where = el("output");
    this.about = el("p", { class: "name" });
    this.element = el("figure", { class: "rope" }, this.about, this.dials,
      el("p", { class: "tools" }, el("label", {}, "the hands at another position: ", this.slider), " ", this.where),
      this.hands,
      el("figcaption", {}, "Solid: turned. Dashed, with a ring: as it was. Of the hands, dashed ones are those of the key that is "
        + "compared: what counts is the angle between both, which is that of their distance."));
  }

  update(view) {
    this.view = view;
    const { side } = view, pair = view.column % side.half, first = view.head * side.head_dim + pair;
    this.about.textContent = "Columns " + first + " and " + (first + side.half) + " of q (pair " + pair + " of head " + view.head + "), token " + view.token + ":";
    this.dials.replaceChildren(...KINDS.map(kind => this.dial(kind)));
    this.slider.value = String(view.token);
    this.drawHands(view.token);
  }

  frequency(kind, pair) {
    const { side } = this.view;
    return side.thetas[kind] ** (-2 * pair / side.head_dim);
  }

  /* The chosen pair of columns of the chosen token's query. */
  dial(kind) {
    const { view } = this, { side, row, at, column } = view;
    const pair = column % side.half, first = view.head * side.head_dim + pair;
    const q = side.get(at + "q"), x = q.value(row * side.hidden + first), y = q.value(row * side.hidden + first + side.half);
    const angle = view.token * this.frequency(kind, pair), scale = REACH / (Math.hypot(x, y) || 1);
    const [tx, ty] = turned(x, y, angle);
    const here = kind === view.kind;
    const caption = "theta " + side.thetas[kind] + ", " + LAYERS[kind] + " layers" + (here ? ": this one" : "");
    const picture = svg("svg", { viewBox: "-60 -60 120 120", role: "img", "aria-label": "Dial: pair " + pair + " of the query turned by " + angle.toFixed(2) + " radians, " + caption },
      svg("circle", { r: REACH, class: "rim" }), svg("line", { x1: -REACH, x2: REACH, y1: 0, y2: 0, class: "axis" }),
      svg("line", { y1: -REACH, y2: REACH, x1: 0, x2: 0, class: "axis" }),
      arc(Math.atan2(y, x), angle),
      arrow(x * scale, y * scale, "before"), arrow(tx * scale, ty * scale, "after"));
    return el("div", { class: here ? "dial here" : "dial" }, picture, el("p", {}, caption));
  }

  drawHands(position) {
    const { view } = this, { side } = view, key = keyOf(view);
    this.where.textContent = "position " + position + (position === view.token ? " (the chosen token's)" : "");
    this.hands.replaceChildren(...KINDS.map(kind => {
      const shown = [...Array(side.half).keys()].map(pair => {
        const at = position * this.frequency(kind, pair), other = key * this.frequency(kind, pair);
        return svg("g", { transform: "translate(" + (14 + 26 * (pair % 16)) + "," + (14 + 26 * Math.floor(pair / 16)) + ")", class: pair === view.column % side.half ? "chosen" : null },
          svg("circle", { r: 11, class: "rim" }),
          svg("line", { x2: 10 * Math.cos(other), y2: -10 * Math.sin(other), class: "before" }),
          svg("line", { x2: 10 * Math.cos(at), y2: -10 * Math.sin(at), class: "after" }));
      });
      const height = 28 + 26 * (Math.ceil(side.half / 16) - 1);
      return el("div", {}, el("p", {}, "theta " + side.thetas[kind] + " (" + LAYERS[kind] + " layers), pairs 0 to " + (side.half - 1)),
        svg("svg", { viewBox: "0 0 " + (28 + 26 * (Math.min(16, side.half) - 1)) + " " + height, role: "img", "aria-label": "The hands of all pairs at position " + position + ", theta " + side.thetas[kind] }, shown));
    }));
  }
}

/* y points up, as in a book. */
function arrow(x, y, name) {
  const tip = name === "before" ? svg("circle", { cx: x, cy: -y, r: 4, class: "ring" }) : svg("circle", { cx: x, cy: -y, r: 4, class: "dot" });
  return svg("g", { class: name }, svg("line", { x2: x, y2: -y }), tip);
}

function arc(from, angle) {
  const points = [], turn = angle % (2 * Math.PI), steps = 32;
  for (let n = 0; n <= steps; n++) {
    const at = from + turn * n / steps;
    points.push((18 * Math.cos(at)).toFixed(2) + "," + (-18 * Math.sin(at)).toFixed(2));
  }
  return svg("polyline", { points: points.join(" "), class: "arc" });
}

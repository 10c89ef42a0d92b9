/* Who sees whom, all layers at once: a row for each, the last on top. The frame is what the chosen
   token can see there, the ink within it where its heads do look (the mean of their shares), the
   line below it from where information can have come by then, through this layer and all below,
   and the short one from where the local layers alone would have brought it. */

import { el, svg } from "./dom.js";
import { css, share } from "./colours.js";
import { mapPlace } from "./equation.js";
import { change } from "./state.js";

export class Sight {
  constructor(side) {
    this.side = side;
    this.rows = side.kinds.map((kind, layer) => this.row(kind, layer));
    this.tokens = el("p", { class: "sight-token" });
    this.element = el("figure", { class: "sight" }, this.tokens,
      el("div", { class: "sight-rows" }, [...this.rows].reverse().map(row => row.element)),
      el("figcaption", {}, "Squares: which keys (across) each query (down) sees. Frames: what the chosen token sees; in them where it "
        + "looks, the mean of the heads, strongest where it looks most. Thin line: from where it can have heard by then, through this layer "
        + "and those below; thick line: from where by the local layers alone. "
        + (side.windows.every(window => window === null || window >= side.seq - 1) ? "This text is shorter than the window: every layer sees all of it. A longer text shows the difference." : "")));
  }

  row(kind, layer) {
    const button = el("button", { type: "button", onclick: () => change({ layer }) }, "layer " + layer);
    const strip = el("canvas", { height: "1", role: "img" });
    const sees = el("div", { class: "sees" }), reach = el("div", { class: "reach" }), slow = el("div", { class: "slow" }), here = el("div", { class: "at" });
    const told = el("span", { class: "told" });
    const window = this.side.windows[layer];
    const element = el("div", { class: "sight-row" }, button, maskOf(this.side, layer),
      el("span", { class: "kind" }, window === null ? "full" : "local, " + window + " a side"),
      el("div", { class: "line" }, strip, sees, reach, slow, here), told);
    return { element, button, strip, sees, reach, slow, here, told };
  }

  update(view) {
    const { side } = this, { token } = view;
    this.tokens.textContent = "from token " + token + ", " + side.tokens[token];
    // How far information has travelled, in tokens to each side: at all, and by local layers alone.
    let far = 0, step = 0;
    side.windows.forEach((window, layer) => {
      const row = this.rows[layer], wide = window === null ? side.seq : window;
      far = Math.min(side.seq, far + wide);
      step = Math.min(side.seq, step + (window === null ? 0 : window));
      const seen = over(row.sees, side.seq, token, wide), heard = over(row.reach, side.seq, token, far);
      const alone = over(row.slow, side.seq, token, step);
      over(row.here, side.seq, token, 0);
      row.told.textContent = "sees " + seen + ", heard from " + heard + " of " + side.seq + "; by local layers alone " + alone;
      row.button.setAttribute("aria-pressed", String(layer === view.layer));
      side.open("layers." + layer).then(() => this.paint({ ...view, layer, at: "layers." + layer + "." }));
    });
  }

  /* Where the chosen token looks in a layer. */
  paint(view) {
    const { side } = this, { strip } = this.rows[view.layer], probs = side.get(view.at + "probs");
    const row = side.mapRow(view.token);
    strip.width = side.seq;
    const context = strip.getContext("2d");
    const looks = new Float32Array(side.seq);
    for (let key = 0; key < side.seq; key++) {
      for (let head = 0; head < side.heads; head++) {
        const at = mapPlace(view, probs, row, view.token, key, head);
        if (at >= 0) looks[key] += probs.value(at);
      }
    }
    const most = looks.reduce((a, x) => Math.max(a, x), 0), best = looks.indexOf(most);
    context.clearRect(0, 0, side.seq, 1);
    for (let key = 0; key < side.seq; key++) {
      if (!side.sees(view.layer, view.token, key)) continue;
      context.fillStyle = css(share(looks[key] / (most || 1)));
      context.fillRect(key, 0, 1, 1);
    }
    strip.setAttribute("aria-label", row < 0 ? "the row of this token is not on the page"
      : "layer " + view.layer + ": it looks most at token " + best + ", " + side.tokens[best]);
  }
}

/* Put an element over the tokens within `wide` of one; how many they are. */
function over(element, seq, token, wide) {
  const first = Math.max(0, token - wide), last = Math.min(seq - 1, token + wide);
  element.style.left = 100 * first / seq + "%";
  element.style.width = 100 * (last + 1 - first) / seq + "%";
  return last + 1 - first;
}

/* The layer's window for all queries, as a small square. */
function maskOf(side, layer) {
  const window = side.windows[layer], w = window === null ? 1 : Math.min(1, (window + 0.5) / side.seq);
  const size = 24, a = w * size;
  const band = "0,0 " + a + ",0 " + size + "," + (size - a) + " " + size + "," + size + " " + (size - a) + "," + size + " 0," + a;
  return svg("svg", { viewBox: "0 0 24 24", class: "mask", "aria-hidden": "true" },
    svg("rect", { width: 24, height: 24, class: "unseen-part" }), svg("polygon", { points: band, class: "seen-part" }));
}

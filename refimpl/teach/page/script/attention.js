/* An attention map: who looks at whom in one head. Of a long text a part is drawn, around the chosen
   token, as far as the reader zooms; beside it the whole as an overview of the largest share of
   each block. Keys that the window hides are hatched, rows that the page does not have are dotted. */

import { el, inside, say } from "./dom.js";
import { css, ink, scheme, share, signed } from "./colours.js";
import { keyOf, mapPlace } from "./equation.js";
import { decimal } from "./data.js";
import { largestOf, swatch } from "./matrix.js";
import { Table } from "./table.js";

const ZOOMS = [8, 16, 32, 64, 128];
const BLOCKS = 64; // of an overview, to a side, as taken.py has them
const WIDEST = 760; // pixels of a map
const LABELS = 32, NUMBERS = 16; // so many tokens to a side have their names, and their numbers

export class AttentionMap {
  constructor(pick) {
    this.pick = pick;
    this.zoom = 64;
    this.what = "probs";
    this.canvas = el("canvas", { tabindex: "0", role: "img", class: "map" });
    this.small = el("canvas", { class: "overview", role: "img" });
    this.readout = el("figcaption");
    this.legend = el("p", { class: "legend" });
    this.table = new Table("probs of the rows on this page (27)");
    this.zoomText = el("span", { class: "zoom" });
    const closer = by => el("button", { type: "button", onclick: () => this.zoomBy(by) }, by < 0 ? "closer" : "further");
    this.closer = closer(-1);
    this.further = closer(1);
    this.choice = el("select", { onchange: () => { this.what = this.choice.value; this.draw(); } },
      el("option", { value: "probs" }, "probs (27)"), el("option", { value: "scores" }, "scores (26)"));
    this.tools = el("p", { class: "tools" },
      el("label", {}, "shown: ", this.choice), " ", this.closer, " ", this.further, " ", this.zoomText);
    this.element = el("figure", { class: "attention" }, this.tools,
      el("div", { class: "maps" }, this.canvas, this.small), this.readout, this.legend, this.table.details);
    this.canvas.addEventListener("keydown", event => this.key(event));
    this.canvas.addEventListener("pointerdown", event => this.point(event));
    this.small.addEventListener("pointerdown", event => this.jump(event));
  }

  zoomBy(by) {
    const place = inside(ZOOMS.indexOf(this.zoom) + by, 0, ZOOMS.length - 1);
    this.zoom = ZOOMS[place];
    this.draw();
  }

  update(view) {
    this.view = view;
    this.draw();
  }

  draw() {
    const { view } = this, { side } = view;
    const key = keyOf(view);
    this.at = [view.token, key];
    const size = Math.min(this.zoom, side.seq);
    this.size = size;
    this.rowStart = inside(view.token - (size >> 1), 0, side.seq - size);
    // The keys that are shown hold the chosen one, and the diagonal where there is room for it.
    const wish = Math.abs(key - view.token) < size ? this.rowStart : key - (size >> 1);
    this.keyStart = inside(key < wish ? key : key >= wish + size ? key - size + 1 : wish, 0, side.seq - size);
    this.closer.disabled = this.zoom === ZOOMS[0];
    this.further.disabled = this.zoom === ZOOMS[ZOOMS.length - 1] || this.zoom >= side.seq;
    this.zoomText.textContent = "queries " + this.rowStart + " to " + (this.rowStart + size - 1) + ", keys "
      + this.keyStart + " to " + (this.keyStart + size - 1) + " of " + side.seq;
    this.paint(key);
    this.tell(key);
    this.overview();
    this.table.update(this.tableSource(key));
  }

  /* The tensor that is shown, and the row of a query in it. */
  shown() {
    const { view } = this, { side } = view;
    return this.what === "probs"
      ? { tensor: side.get(view.at + "probs"), row: token => side.mapRow(token) }
      : { tensor: side.get(view.at + "scores"), row: token => side.rowOf(token) };
  }

  paint(key) {
    const { view, canvas, size } = this, { side } = view;
    const labels = size <= LABELS, numbers = size <= NUMBERS;
    const margin = labels ? 96 : 10, room = inside(this.element.clientWidth - margin - 8, 240, WIDEST);
    const cell = Math.max(1, Math.floor(Math.min(numbers ? 72 : 26, room / size)));
    const width = margin + size * cell + 2, ratio = Math.min(2, devicePixelRatio || 1);
    canvas.width = width * ratio;
    canvas.height = width * ratio;
    canvas.style.width = width + "px";
    const paper = getComputedStyle(canvas), context = canvas.getContext("2d");
    context.scale(ratio, ratio);
    context.font = inside(Math.round(cell / 4.2), 10, 16) + "px ui-monospace, monospace";
    const { tensor, row } = this.shown();
    const largest = this.what === "probs" ? this.largestHere(tensor, row) : largestOf(tensor);
    const hatch = hatching(context, paper.color);
    for (let i = 0; i < size; i++) {
      const query = this.rowStart + i, at = row(query), top = margin + i * cell;
      for (let j = 0; j < size; j++) {
        const other = this.keyStart + j, left = margin + j * cell;
        const place = mapPlace(view, tensor, at, query, other);
        if (place < 0) {
          if (side.sees(view.layer, query, other)) continue; // a row that the page does not have
          context.fillStyle = hatch;
          context.fillRect(left, top, cell, cell);
          continue;
        }
        const part = tensor.integers[place] / (largest || 1);
        const colour = this.what === "probs" ? share(part) : signed(part);
        context.fillStyle = css(colour);
        context.fillRect(left, top, cell - (cell > 6), cell - (cell > 6));
        if (numbers) {
          context.fillStyle = ink(colour);
          context.textAlign = "center";
          context.fillText(tensor.text(place), left + cell / 2, top + cell / 2 + 4, cell - 4);
        }
      }
      if (at < 0) dotted(context, paper.color, margin, top + cell / 2, size * cell);
    }
    if (labels) this.label(context, paper.color, margin, cell);
    context.lineWidth = 2;
    context.strokeStyle = paper.color;
    context.strokeRect(margin, margin + (view.token - this.rowStart) * cell, size * cell, cell);
    context.strokeRect(margin + (key - this.keyStart) * cell, margin, cell, size * cell);
    Object.assign(this, { cell, margin, end: decimal(largest, tensor.decimals) });
  }

  /* The largest number of the part that is drawn: its shade is the darkest. */
  largestHere(tensor, row) {
    let largest = 0;
    for (let i = this.rowStart; i < this.rowStart + this.size; i++) {
      for (let j = this.keyStart; j < this.keyStart + this.size; j++) {
        const place = mapPlace(this.view, tensor, row(i), i, j);
        if (place >= 0) largest = Math.max(largest, tensor.integers[place]);
      }
    }
    return largest;
  }

  label(context, colour, margin, cell) {
    const { side } = this.view;
    context.fillStyle = colour;
    for (let n = 0; n < this.size; n++) {
      const middle = margin + (n + 0.5) * cell;
      context.textAlign = "right";
      context.fillText(side.tokens[this.rowStart + n], margin - 6, middle + 4, margin - 8);
      context.save();
      context.translate(middle + 4, margin - 6);
      context.rotate(-Math.PI / 2);
      context.textAlign = "left";
      context.fillText(side.tokens[this.keyStart + n], 0, 0, margin - 8);
      context.restore();
    }
  }

  tell(key) {
    const { view } = this, { side } = view, { tensor, row } = this.shown();
    const place = mapPlace(view, tensor, row(view.token), view.token, key);
    const number = place < 0 ? "not on this page" : tensor.text(place);
    this.told = "head " + view.head + ", layer " + view.layer + ": " + view.token + " " + side.tokens[view.token] + " looks at "
      + key + " " + side.tokens[key] + ": " + this.what + " = " + number;
    this.readout.textContent = this.told;
    this.canvas.setAttribute("aria-label", "attention map, a row for each query, a column for each key. " + this.told + ". Arrow keys move.");
    const window = side.windows[view.layer];
    const scale = this.what === "probs" ? [swatch(share(0)), " 0  ", swatch(share(1)), " " + this.end]
      : [swatch(signed(-1)), " -" + this.end + "  ", swatch(signed(0)), " 0  ", swatch(signed(1)), " " + this.end];
    this.legend.replaceChildren(...scale, " (shades by the square root); ",
      window === null ? "this layer sees everything; " : "hatched: further away than " + window + " tokens, not seen; ",
      "frames: the chosen query's row and key's column", side.whole ? "" : "; dotted rows are not on this page");
  }

  overview() {
    const { view, small } = this, { side } = view;
    small.hidden = side.seq <= this.size;
    if (small.hidden) return;
    const per = Math.ceil(side.seq / BLOCKS), blocks = Math.ceil(side.seq / per);
    const map = this.blocksOf(per, blocks);
    small.width = small.height = 192;
    small.setAttribute("aria-label", "overview of the whole map, the largest share of each block; the frame is the part that is shown");
    const context = small.getContext("2d"), cell = 192 / blocks;
    const largest = map.reduce((most, x) => Math.max(most, x), 0) || 1;
    for (let n = 0; n < map.length; n++) {
      context.fillStyle = css(share(map[n] / largest));
      context.fillRect((n % blocks) * cell, Math.floor(n / blocks) * cell, cell + 0.5, cell + 0.5);
    }
    context.lineWidth = 2;
    context.strokeStyle = scheme() === "dark" ? "#fff" : "#000";
    const scale = cell / per;
    context.strokeRect(this.keyStart * scale, this.rowStart * scale, this.size * scale, this.size * scale);
  }

  /* The largest share of each block: the page's own overview, or, where it has the whole map, of
     that; kept until another head or layer is looked at. */
  blocksOf(per, blocks) {
    const { view } = this, { side } = view, which = view.at + view.head;
    if (this.blocksWhich === which) return this.blocks;
    const map = new Float32Array(blocks * blocks), stored = side.get(view.at + "overview");
    if (stored) {
      for (let n = 0; n < map.length; n++) map[n] = stored.value(view.head * map.length + n);
    } else {
      const probs = side.get(view.at + "probs");
      for (let i = 0; i < side.seq; i++) {
        for (let j = 0; j < side.seq; j++) {
          const place = mapPlace(view, probs, i, i, j);
          const block = Math.floor(i / per) * blocks + Math.floor(j / per);
          if (place >= 0) map[block] = Math.max(map[block], probs.value(place));
        }
      }
    }
    Object.assign(this, { blocksWhich: which, blocks: map });
    return map;
  }

  tableSource(key) {
    const { view } = this, { side } = view, probs = side.get(view.at + "probs");
    const tokens = side.whole ? [...Array(side.seq).keys()] : side.rows;
    const name = token => token + " " + side.tokens[token];
    return {
      rows: tokens.length, columns: side.seq, row: tokens.indexOf(view.token), column: key,
      rowName: r => name(tokens[r]), columnName: name,
      text: (r, c) => {
        const place = mapPlace(view, probs, r, tokens[r], c);
        return place < 0 ? "not seen" : probs.text(place);
      },
    };
  }

  key(event) {
    const step = {
      ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0],
      PageUp: [-this.size, 0], PageDown: [this.size, 0], Home: [0, -this.size], End: [0, this.size],
    }[event.key];
    if (!step || event.altKey || event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    const last = this.view.side.seq - 1, [token, key] = this.at; // moved on before all is drawn
    this.go(inside(token + step[0], 0, last), inside(key + step[1], 0, last));
  }

  point(event) {
    const box = this.canvas.getBoundingClientRect(), scale = (this.margin + this.size * this.cell + 2) / box.width;
    const place = (at, start) => start + inside(Math.floor((at * scale - this.margin) / this.cell), 0, this.size - 1);
    this.go(place(event.clientY - box.top, this.rowStart), place(event.clientX - box.left, this.keyStart));
  }

  jump(event) {
    const box = this.small.getBoundingClientRect(), { seq } = this.view.side;
    const place = (at, whole) => inside(Math.floor(at / whole * seq), 0, seq - 1);
    this.go(place(event.clientY - box.top, box.height), place(event.clientX - box.left, box.width));
  }

  go(token, key) {
    this.at = [token, key];
    this.pick(token, key);
    requestAnimationFrame(() => say(this.told));
  }
}

/* Lines across: what a window hides. */
function hatching(context, colour) {
  const tile = el("canvas", { width: "6", height: "6" }), lines = tile.getContext("2d");
  lines.strokeStyle = colour;
  lines.globalAlpha = 0.35;
  lines.beginPath();
  lines.moveTo(0, 6);
  lines.lineTo(6, 0);
  lines.stroke();
  return context.createPattern(tile, "repeat");
}

function dotted(context, colour, left, middle, width) {
  context.fillStyle = colour;
  context.globalAlpha = 0.4;
  for (let x = left + 3; x < left + width; x += 8) context.fillRect(x, middle - 0.5, 1.5, 1.5);
  context.globalAlpha = 1;
}

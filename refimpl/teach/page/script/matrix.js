/* A matrix as a picture: a row for each token whose vectors the page has, a cell for each number.
   Its cursor is moved by arrow keys or the pointer; what it stands on is told below, and picked. */

import { el, inside, say } from "./dom.js";
import { css, signed } from "./colours.js";
import { decimal } from "./data.js";
import { Table } from "./table.js";

const TALL = [3, 14], PICTURE = 320; // pixels of a row, at least and at most; of all rows
const NAMED = 10; // so many pixels hold a row's name

export class Matrix {
  /* pick(row, column) is called with what the reader chooses. */
  constructor(title, pick) {
    this.title = title;
    this.pick = pick;
    this.canvas = el("canvas", { tabindex: "0", role: "img" });
    this.rowMark = el("div", { class: "mark row" });
    this.cellMark = el("div", { class: "mark cell" });
    this.names = el("div", { class: "names", "aria-hidden": "true" });
    this.readout = el("figcaption");
    this.legend = el("p", { class: "legend" });
    this.table = new Table(title);
    const frame = el("div", { class: "frame" }, this.canvas, this.rowMark, this.cellMark);
    this.element = el("figure", { class: "matrix" }, el("p", { class: "name" }, title),
      el("div", { class: "named" }, this.names, frame), this.readout, this.legend, this.table.details);
    this.canvas.addEventListener("keydown", event => this.key(event));
    this.canvas.addEventListener("pointerdown", event => this.point(event));
  }

  /* source: as Table's, and integer(r, c), decimals, largest (an integer). */
  update(source) {
    this.source = source;
    this.at = [source.row, source.column];
    const { rows, columns, largest, decimals } = source;
    const { canvas } = this;
    canvas.width = columns;
    canvas.height = rows;
    const tall = inside(Math.round(PICTURE / rows), ...TALL);
    canvas.style.height = tall * rows + "px";
    const context = canvas.getContext("2d");
    const image = context.createImageData(columns, rows);
    const scale = largest ? 1 / largest : 0;
    for (let r = 0, at = 0; r < rows; r++) {
      for (let c = 0; c < columns; c++, at += 4) {
        const [red, green, blue] = signed(source.integer(r, c) * scale);
        image.data[at] = red;
        image.data[at + 1] = green;
        image.data[at + 2] = blue;
        image.data[at + 3] = 255;
      }
    }
    context.putImageData(image, 0, 0);
    this.name(tall);
    this.mark();
    const end = decimal(largest, decimals);
    this.legend.replaceChildren(
      swatch(signed(-1)), " -" + end + "  ", swatch(signed(0)), " 0  ", swatch(signed(1)), " " + end + "  (shades by the square root)");
    this.table.update(source);
  }

  /* Tokens beside their rows; where these are too narrow, the chosen one's. */
  name(tall) {
    const { rows, row, rowName } = this.source;
    const which = tall < NAMED ? [row] : [...Array(rows).keys()];
    this.names.replaceChildren(...which.map(r => {
      const name = el("span", { class: r === row ? "here" : null }, el("bdi", {}, rowName(r)));
      name.style.top = 100 * (r + 0.5) / rows + "%";
      return name;
    }));
  }

  mark() {
    const { rows, columns, row, column } = this.source;
    const place = (mark, left, top, width, height) => Object.assign(mark.style, {
      left: 100 * left + "%", top: 100 * top + "%", width: 100 * width + "%", height: 100 * height + "%",
    });
    place(this.rowMark, 0, row / rows, 1, 1 / rows);
    place(this.cellMark, column / columns, row / rows, 1 / columns, 1 / rows);
    const told = this.source.name(row, column) + " = " + this.source.text(row, column);
    this.readout.textContent = told;
    this.canvas.setAttribute("aria-label",
      this.title + ", a picture of " + rows + " tokens by " + columns + " columns, at " + told + ". Arrow keys move.");
  }

  key(event) {
    const { rows, columns } = this.source;
    const step = {
      ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0],
      Home: [0, -columns], End: [0, columns], PageUp: [-8, 0], PageDown: [8, 0],
    }[event.key];
    if (!step || event.altKey || event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    const [row, column] = this.at; // which a fast hand has moved on before all is drawn
    this.go(inside(row + step[0], 0, rows - 1), inside(column + step[1], 0, columns - 1));
  }

  point(event) {
    const box = this.canvas.getBoundingClientRect(), { rows, columns } = this.source;
    this.go(
      inside(Math.floor((event.clientY - box.top) / box.height * rows), 0, rows - 1),
      inside(Math.floor((event.clientX - box.left) / box.width * columns), 0, columns - 1));
  }

  go(row, column) {
    this.at = [row, column];
    say(this.source.name(row, column) + " is " + this.source.text(row, column));
    this.pick(row, column);
  }
}

export function swatch(colour) {
  const canvas = el("canvas", { class: "swatch", width: "1", height: "1", "aria-hidden": "true" });
  const context = canvas.getContext("2d");
  context.fillStyle = css(colour);
  context.fillRect(0, 0, 1, 1);
  return canvas;
}

/* The largest |integer| of a tensor, found once. */
export function largestOf(tensor) {
  if (tensor.largest === undefined) {
    tensor.largest = tensor.integers.reduce((most, x) => Math.max(most, Math.abs(x)), 0);
  }
  return tensor.largest;
}

/* A step [rows, columns], or the part of its columns from `first` on, as a source. Rows are the
   tokens whose vectors the page has, unless there is one row for the text. */
export function sourceOf(view, tensor, name, column, { first = 0, columns = null, ofText = false } = {}) {
  const { side } = view;
  const rows = tensor.shape[0], width = tensor.integers.length / rows;
  const at = (r, c) => r * width + first + c;
  return {
    rows,
    columns: columns === null ? width : columns,
    row: ofText ? 0 : Math.max(0, view.row),
    column: column - first,
    decimals: tensor.decimals,
    largest: largestOf(tensor),
    integer: (r, c) => tensor.integers[at(r, c)],
    text: (r, c) => tensor.text(at(r, c)),
    name: (r, c) => name + "[" + (ofText ? "" : side.rows[r] + ", ") + (first + c) + "]",
    rowName: r => ofText ? "the text" : side.rows[r] + " " + side.tokens[side.rows[r]],
    columnName: c => String(first + c),
  };
}

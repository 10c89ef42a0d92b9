/* A matrix as a table, made when it is opened, in parts of so many rows and columns. */

import { el } from "./dom.js";

const ROWS = 32, COLUMNS = 16;

export class Table {
  constructor(caption) {
    this.caption = caption;
    this.first = [0, 0];
    this.box = el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": caption });
    this.turn = el("p", { class: "turn" });
    this.details = el("details", { class: "table" },
      el("summary", {}, "as a table"), this.turn, this.box);
    this.details.addEventListener("toggle", () => this.draw());
  }

  /* source: rows, columns, text(r, c), rowName(r), columnName(c), row and column (chosen). */
  update(source) {
    const size = [source.rows, source.columns], part = [ROWS, COLUMNS];
    const chosen = [source.row, source.column];
    this.first = chosen.map((at, n) =>
      Math.floor(Math.max(0, Math.min(at, size[n] - 1)) / part[n]) * part[n]);
    this.source = source;
    if (this.details.open) this.draw();
  }

  draw() {
    if (!this.details.open || !this.source) return;
    const s = this.source, [top, left] = this.first;
    const rows = Math.min(s.rows, top + ROWS), columns = Math.min(s.columns, left + COLUMNS);
    const head = el("tr", {}, el("td"));
    for (let c = left; c < columns; c++) head.append(el("th", { scope: "col" }, s.columnName(c)));
    const body = el("tbody");
    for (let r = top; r < rows; r++) {
      const line = el("tr", {}, el("th", { scope: "row" }, s.rowName(r)));
      for (let c = left; c < columns; c++) {
        const here = r === s.row && c === s.column;
        line.append(el("td", { class: here ? "here" : null, "aria-current": here ? "true" : null }, s.text(r, c)));
      }
      body.append(line);
    }
    this.box.replaceChildren(el("table", {}, el("caption", {}, this.caption), el("thead", {}, head), body));
    this.turn.replaceChildren(
      ...this.pager("rows", 0, ROWS, s.rows), ...this.pager("columns", 1, COLUMNS, s.columns));
  }

  pager(what, axis, part, size) {
    if (size <= part) return [];
    const from = this.first[axis], to = Math.min(size, from + part);
    const go = by => () => { this.first[axis] = from + by; this.draw(); };
    return [
      el("button", { type: "button", disabled: from === 0, onclick: go(-part) }, "earlier " + what),
      el("span", {}, " " + what + " " + (from + 1) + " to " + to + " of " + size + " "),
      el("button", { type: "button", disabled: to === size, onclick: go(part) }, "further " + what),
      " ",
    ];
  }
}

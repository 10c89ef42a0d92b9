/* The steps of the page in the order of the pass: which pictures and which lines of numbers each
   has. A part is { title, step, build(which) }; build gives { elements, update(view) }. */

import { el } from "./dom.js";
import { sides } from "./data.js";
import { change, chooseToken } from "./state.js";
import { Matrix, sourceOf } from "./matrix.js";
import { AttentionMap } from "./attention.js";
import { Rope } from "./rope.js";
import { Sight } from "./sight.js";
import { Stream } from "./stream.js";
import { Answer, Lens } from "./answers.js";
import { Table } from "./table.js";
import { Curve } from "./curve.js";
import { angleLines, answerLines, attentionLines, gluLine, linearLine, normLine, residualLine, ropeLine } from "./equation.js";

/* A column that is picked is one of the hidden ones: its head, and its place in it. */
function pickWide(which) {
  return (row, column) => {
    const side = sides[which];
    chooseToken(which, side.rows[row]);
    change({ head: Math.floor(column / side.head_dim), column: column % side.head_dim });
  };
}

/* A picture of hidden columns. tensor(view): its full name; name: how a cell is called. */
function wide(title, name, tensor) {
  return which => {
    const matrix = new Matrix(title, pickWide(which));
    return { elements: [matrix.element], update: view => matrix.update(sourceOf(view, view.side.get(tensor(view)), name, view.wide)) };
  };
}

/* A picture of the chosen head's columns. */
function ofHead(name) {
  return which => {
    const side = sides[which];
    const matrix = new Matrix(name + ", the chosen head", (row, column) => {
      chooseToken(which, side.rows[row]);
      change({ column });
    });
    return {
      elements: [matrix.element],
      update: view => matrix.update(sourceOf(view, side.get(view.at + name), name, view.wide, { first: view.head * side.head_dim, columns: side.head_dim })),
    };
  };
}

/* A picture of the MLP's units: of wi one half. */
function units(title, name, half) {
  return which => {
    const side = sides[which];
    const matrix = new Matrix(title, (row, unit) => {
      chooseToken(which, side.rows[row]);
      change({ unit });
    });
    return {
      elements: [matrix.element],
      update: view => matrix.update(sourceOf(view, side.get(view.at + name), name, half * side.inter + view.unit, { first: half * side.inter, columns: side.inter })),
    };
  };
}

/* Lines with the numbers of the chosen token, made anew at each change. */
function lines(made) {
  return () => {
    const pre = el("pre", { class: "numbers", tabindex: "0", role: "region", "aria-label": "with the numbers of the chosen token" });
    return { elements: [pre], update: view => { pre.textContent = [made(view)].flat().join("\n"); } };
  };
}

/* A class of its own. needs: "nothing" where it does without the chosen token's vectors. */
function one(Kind, needs) {
  return which => {
    const made = new Kind(sides[which]);
    return { elements: [made.element], update: view => made.update(view), needs };
  };
}

const beside = (...builders) => which => {
  const built = builders.map(build => build(which));
  return { elements: [el("div", { class: "beside" }, built.flatMap(b => b.elements))], update: view => built.forEach(b => b.update(view)) };
};

function map(which) {
  const made = new AttentionMap((token, key) => chooseToken(which, token, key));
  return { elements: [made.element], update: view => made.update(view), needs: "map" };
}

const FEW = 64; // tokens are shown one beside the other, with their ids

function tokenTable(which) {
  const side = sides[which], few = side.seq <= FEW;
  const list = few ? el("ol", { class: "ids", start: "0" }, side.tokens.map((token, n) =>
    el("li", {}, el("bdi", {}, token), el("span", {}, String(side.ids[n]))))) : null;
  const table = new Table("tokens and their ids");
  const columns = ["token", "id"];
  return {
    needs: "nothing",
    elements: few ? [list, table.details] : [table.details],
    update: view => table.update({
      rows: side.seq, columns: 2, row: view.token, column: 0,
      text: (r, c) => c ? String(side.ids[r]) : side.tokens[r],
      rowName: r => String(r), columnName: c => columns[c],
    }),
  };
}

/* The input of layer i's first norm: the layer below, or the embedding. */
const below = view => view.layer ? "layers." + (view.layer - 1) + ".residual_2" : "embedding";
const index = view => "[" + view.token + ", " + view.wide + "]";
const place = (which, view) => which * view.side.hidden + view.wide;

const norm = (short, into) => lines(view =>
  normLine(view, view.at + short, short + index(view), into(view)));

/* The head's steps have a row for each token, or one for the text. */
const headRow = view => view.side.answers.of_the_text ? 0 : view.row;
const headIndex = view => view.side.answers.of_the_text ? "[" + view.wide + "]" : index(view);

function headPart(name, line) {
  const picture = which => {
    const ofText = sides[which].answers.of_the_text, pick = pickWide(which);
    const matrix = new Matrix(name, (row, column) => ofText
      ? change({ head: Math.floor(column / sides[which].head_dim), column: column % sides[which].head_dim }) : pick(row, column));
    return { elements: [matrix.element], update: view => matrix.update(sourceOf(view, view.side.get(name), name, view.wide, { ofText })) };
  };
  return { step: name, build: line ? [picture, lines(line)] : [picture], needsHead: true };
}

const headText = (view, name) => view.side.get(name).text(headRow(view) * view.side.hidden + view.wide);

/* As lines(), but a text's one answer is there whichever token is chosen. */
function answerNumbers(which) {
  const built = lines(view => answerLines(view, headRow(view)))(which);
  return { ...built, needs: sides[which].answers.of_the_text ? "nothing" : "row" };
}

export const parts = [
  { id: "text", title: "The text as tokens", says: "What the model is given: a number for each token.", build: [tokenTable] },
  { step: "embedding", build: [
    beside(wide("E[ids], the rows of the table", "E", () => "E"), wide("embedding, after the norm", "embedding", () => "embedding")),
    lines(view => normLine(view, "embedding", "embedding" + index(view), "E"))] },
  { id: "sight", title: "Who sees whom", functions: ["25", "3"],
    says: "Full layers see every token. In the others a token sees those within the window; what is further away comes through other tokens, a layer at a time.",
    build: [one(Sight, "nothing")] },
  { id: "stream", title: "The residual stream", says: "Every layer adds to it twice, and takes nothing away by itself.", build: [one(Stream, "nothing")] },
  { step: "layers.{i}.attn_norm", build: [wide("attn_norm", "attn_norm", view => view.at + "attn_norm"),
    lines(view => view.layer ? normLine(view, view.at + "attn_norm", "attn_norm" + index(view), below(view))
      : "attn_norm" + index(view) + " = h" + index(view) + " = " + view.side.get("layers.0.attn_norm").text(view.row * view.side.hidden + view.wide))] },
  ...["q", "k", "v"].map((name, n) => ({ step: "layers.{i}." + name, build: [ofHead(name),
    lines(view => linearLine(view, name, view.at + "attn_norm", "attn.Wqkv", place(n, view), view.wide))] })),
  { step: "layers.{i}.q_rot", build: [one(Rope), beside(ofHead("q_rot")), lines(view => [angleLines(view), ropeLine(view, "q")])] },
  { step: "layers.{i}.k_rot", build: [ofHead("k_rot"), lines(view => ropeLine(view, "k"))] },
  { step: "layers.{i}.attention", build: [map, lines(attentionLines), wide("attention, the heads joined", "attention", view => view.at + "attention")] },
  { step: "layers.{i}.attn_out", build: [wide("attn_out", "attn_out", view => view.at + "attn_out"),
    lines(view => linearLine(view, "attn_out", view.at + "attention", "attn.Wo", view.wide, view.wide))] },
  { step: "layers.{i}.residual_1", build: [wide("residual_1", "residual_1", view => view.at + "residual_1"),
    lines(view => residualLine(view, "residual_1", below(view), "attn_out"))] },
  { step: "layers.{i}.mlp_norm", build: [wide("mlp_norm", "mlp_norm", view => view.at + "mlp_norm"),
    norm("mlp_norm", view => view.at + "residual_1")] },
  { step: "layers.{i}.wi", build: [beside(units("wi, the first half: to be activated", "wi", 0), units("wi, the second half: the gate", "wi", 1)),
    lines(view => [0, 1].map(half => linearLine(view, "wi", view.at + "mlp_norm", "mlp.Wi", half * view.side.inter + view.unit, view.unit, half)))] },
  { step: "layers.{i}.glu", build: [one(Curve), units("glu", "glu", 0), lines(gluLine)] },
  { step: "layers.{i}.mlp_out", build: [wide("mlp_out", "mlp_out", view => view.at + "mlp_out"),
    lines(view => linearLine(view, "mlp_out", view.at + "glu", "mlp.Wo", view.wide, view.wide))] },
  { step: "layers.{i}.residual_2", build: [wide("residual_2", "residual_2", view => view.at + "residual_2"),
    lines(view => residualLine(view, "residual_2", view.at + "residual_1", "mlp_out"))] },
  { step: "final_norm", build: [wide("final_norm", "final_norm", () => "final_norm"),
    lines(view => normLine(view, "final_norm", "final_norm" + index(view), "layers." + (view.side.layers - 1) + ".residual_2"))] },
  headPart("head.dense", view => "head.dense" + headIndex(view) + " = " + headText(view, "head.dense")),
  headPart("head.act", view => "head.act" + headIndex(view) + " = " + view.side.classifier_activation + "(" + headText(view, "head.dense") + ") = " + headText(view, "head.act")),
  headPart("head.norm", view => normLine(view, "head.norm", "head.norm" + headIndex(view), "head.act", view.wide, headRow(view))),
  { id: "answer", title: "The answer", answer: true, says: "The decoder compares the vector with the row of every token; a classifier has a row for each label.", build: [one(Answer, "nothing"), answerNumbers] },
  { id: "lens", title: "The answer, layer by layer", says: "The logit lens: the last norm and the head, put on the residual stream of every layer. A tick marks what the model says in the end.",
    build: [one(Lens, "nothing")] },
];

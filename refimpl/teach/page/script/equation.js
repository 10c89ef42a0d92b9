/* The equations of MODEL.md with the numbers of the chosen token put in. Every number is one that
   the page holds, to all its digits; of a long sum the three largest terms stand, and how many
   more there are. Nothing is computed here but which terms are large. */

const TERMS = 3;

/* A number as a factor or a summand: a negative one in brackets. */
const held = text => text.startsWith("-") ? "(" + text + ")" : text;

const cell = (tensor, row, column) => row * (tensor.integers.length / tensor.shape[0]) + column;

function text(view, name, row, column) {
  const tensor = view.side.get(name);
  return tensor.text(cell(tensor, row, column));
}

/* left[n] * right[n] for the largest of `count` terms, as text. */
function sum(count, left, right) {
  const order = [...Array(count).keys()].sort((a, b) =>
    Math.abs(right.value(b) * left.value(b)) - Math.abs(right.value(a) * left.value(a)));
  const told = order.slice(0, TERMS).map(n => held(left.text(n)) + " * " + held(right.text(n)));
  const more = count - told.length;
  return told.join(" + ") + (more > 0 ? " + (" + more + " terms more)" : "");
}

/* Numbers of a tensor, by where they stand in it, as something with text(n) and value(n). */
function picked(tensor, where) {
  return { text: n => tensor.text(where(n)), value: n => tensor.value(where(n)) };
}

const run = (tensor, first) => picked(tensor, n => first + n);

/* (19): tap is the norm's full name, into the tensor that it norms, short its name in the line. */
export function normLine(view, tap, short, into, column = view.wide, row = view.row) {
  const { side } = view, moment = what => side.get(tap + "." + what).text(row);
  const bias = side.get(tap + ".bias");
  return short + " = (" + text(view, into, row, column) + " - " + held(moment("mean")) + ") / sqrt("
    + moment("variance") + " + " + side.norm_eps + ") * " + held(side.get(tap + ".weight").text(column))
    + (bias ? " + " + held(bias.text(column)) : "") + " = " + text(view, tap, row, column);
}

/* (18): one column of a linear map. name: the step; from: the full name of x; matrix: W's name and
   the row of it that gives the column; half: of wi, 0 or 1. */
export function linearLine(view, name, from, matrix, matrixRow, column, half = null) {
  const { side, row } = view;
  const weight = side.get(view.at + name + ".weight"), bias = side.get(view.at + name + ".bias");
  const x = side.get(from), width = x.integers.length / x.shape[0];
  const whole = half === null ? column : half * side.inter + column;
  const found = text(view, view.at + name, row, whole);
  const head = name + "[" + view.token + ", " + whole + "] = " + from.split(".").pop() + "[" + view.token + "] . " + matrix + "[" + matrixRow + "]";
  let place = side.columns.indexOf(column);
  if (place < 0) {
    return head + " = " + found + "\n  (the terms are shown for columns whose weights this page has: "
      + side.columns.join(", ") + ")";
  }
  const kept = weight.shape[weight.shape.length - 2]; // columns of this map
  if (half !== null) place += half * kept;
  const told = sum(width, run(x, row * width), run(weight, place * width));
  return head + "\n  = " + told + (bias ? " + " + held(bias.text(place)) : "") + " = " + found;
}

/* (24): one column of a turned query or key. */
export function ropeLine(view, which) {
  const { side, row, at, kind, wide, column } = view;
  const { half } = side, angle = column % half, low = column < half;
  const x = n => held(text(view, at + which, row, n));
  const cos = text(view, "rope." + kind + ".cos", row, angle), sin = text(view, "rope." + kind + ".sin", row, angle);
  const other = low ? wide + half : wide - half;
  return which + "_rot[" + view.token + ", " + wide + "] = " + x(wide) + " * " + held(cos)
    + (low ? " - " : " + ") + x(other) + " * " + held(sin) + " = " + text(view, at + which + "_rot", row, wide);
}

/* (22), (23): the angle of the chosen pair of columns. */
export function angleLines(view) {
  const { side, row, column } = view, k = column % side.half;
  return ["full", "sliding"].filter(kind => side.kinds.includes(kind)).map(kind =>
    "angle[" + view.token + ", " + k + "] = " + view.token + " * " + side.thetas[kind] + "^(-2 * " + k + " / " + side.head_dim + ") = "
    + view.token + " * " + side.get("rope." + kind + ".inv_freq").text(k) + " = "
    + text(view, "rope." + kind + ".angle", row, k) + "   (" + (kind === "full" ? "full" : "local") + " layers)").join("\n");
}

/* The key that the chosen query is compared with: the chosen one where it is seen, else the one
   that it looks at most. */
export function keyOf(view) {
  const { side, layer, token, key } = view;
  if (key !== null && side.sees(layer, token, key)) return key;
  const probs = side.get(view.at + "probs"), span = side.span(layer), rows = probs.shape[1];
  const start = (view.head * rows + side.mapRow(token)) * span;
  let best = 0;
  for (let n = 1; n < span; n++) if (probs.integers[start + n] > probs.integers[start + best]) best = n;
  return best + token - side.keyPlace(layer, token, token);
}

/* Where a pair of tokens stands in a map whose rows are those of `rowOf`; -1 where it does not. */
export function mapPlace(view, tensor, row, query, key, head = view.head) {
  const { side, layer } = view;
  if (row < 0 || !side.sees(layer, query, key)) return -1;
  return (head * tensor.shape[1] + row) * side.span(layer) + side.keyPlace(layer, query, key);
}

/* (26) and (27) of the chosen query and key, (28) of the chosen column. */
export function attentionLines(view) {
  const { side, token, row, at, head, wide } = view;
  const key = keyOf(view), keyRow = side.rowOf(key);
  const scores = side.get(at + "scores"), probs = side.get(at + "probs"), sums = side.get(at + "sums");
  const score = scores.text(mapPlace(view, scores, row, token, key));
  const prob = probs.text(mapPlace(view, probs, side.mapRow(token), token, key));
  const first = head * side.head_dim, width = side.hidden;
  const pair = "[" + token + ", " + key + "]";
  const q = side.get(at + "q_rot"), k = side.get(at + "k_rot");
  const product = keyRow < 0 ? "k_rot[" + key + "] is not on this page"
    : sum(side.head_dim, run(q, row * width + first), run(k, keyRow * width + first));
  let highest = null;
  const shares = [];
  for (let j = 0; j < side.seq; j++) {
    const place = mapPlace(view, scores, row, token, j);
    if (place < 0) continue;
    if (highest === null || scores.integers[place] > scores.integers[highest]) highest = place;
    if (side.rowOf(j) >= 0) shares.push(j);
  }
  const p = j => mapPlace(view, probs, side.mapRow(token), token, j);
  const v = side.get(at + "v");
  const seen = [...Array(side.seq).keys()].filter(j => side.sees(view.layer, token, j)).length;
  const value = j => side.rowOf(j) * width + wide;
  const values = sum(shares.length, picked(probs, n => p(shares[n])), picked(v, n => value(shares[n])));
  const elsewhere = seen - shares.length;
  return [
    "scores" + pair + " = (" + product + ") / sqrt(" + side.head_dim + ") = " + score,
    "probs" + pair + " = exp(" + held(score) + " - " + held(scores.text(highest)) + ") / " + sums.text(head * sums.shape[1] + row) + " = " + prob,
    "attention[" + token + ", " + wide + "] = " + values + (elsewhere ? " + (" + elsewhere + " whose v is not on this page)" : "") + " = "
      + text(view, at + "attention", row, wide),
  ];
}

/* (11) and (16): what was there, and what is added. */
export function residualLine(view, name, before, added) {
  const { token, row, wide, at } = view, index = "[" + token + ", " + wide + "]";
  return name + index + " = " + text(view, before, row, wide) + " + " + held(text(view, at + added, row, wide))
    + " = " + text(view, at + name, row, wide);
}

/* (21): one unit. */
export function gluLine(view) {
  const { side, token, row, unit, at } = view;
  const index = n => "[" + token + ", " + n + "]";
  return "glu" + index(unit) + " = " + side.activation + "(" + text(view, at + "wi", row, unit) + ") * "
    + held(text(view, at + "wi", row, side.inter + unit)) + " = " + text(view, at + "glu", row, unit);
}

/* (30) to (32): the model's best answer, and the share that it has among all. row: that of the
   token, or 0 where the text has one answer. */
export function answerLines(view, row) {
  const { side, token } = view, { kind, names, of_the_text: ofText, function: made } = side.answers;
  const logits = side.get("answers.logits"), probs = side.get("answers.probs"), sums = side.get("answers.sums");
  const [lines, rows, best] = logits.shape, last = (lines - 1) * rows + row, at = last * best;
  const id = side.get("answers.ids").integers[at], x = side.get("head.norm"), width = side.hidden;
  const bias = side.get("answers.bias"), matrix = kind === "masked_lm" ? "decoder" : "classifier";
  const place = (ofText ? "[" : "[" + token + ", ") + id + "]", logit = logits.text(at);
  const told = [names[id] + ":",
    "logits" + place + " = head.norm" + (ofText ? "" : "[" + token + "]") + " . " + matrix + "[" + id + "]"
      + "\n  = " + sum(width, run(x, row * width), run(side.get("answers.weight"), row * width))
      + (bias ? " + " + held(bias.text(row)) : "") + " = " + logit];
  if (made === "softmax") told.push("probs" + place + " = exp(" + held(logit) + " - " + held(logit) + ") / " + sums.text(last) + " = " + probs.text(at));
  if (made === "sigmoid") told.push("probs" + place + " = 1 / (1 + exp(-" + held(logit) + ")) = " + probs.text(at));
  return told;
}

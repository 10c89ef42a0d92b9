/* What is looked at: a layer, a head, a column of it, a unit of the MLP; for each side a token and
   the key that its query is compared with (null: the one it looks at most). Every change draws anew,
   at most once a frame. */

import { inside } from "./dom.js";
import { sides } from "./data.js";

export const state = {
  layer: 0,
  head: 0,
  column: 0,
  unit: 0,
  tokens: sides.map(side => side.centre),
  keys: sides.map(() => null),
};

export const most = {
  layer: Math.max(...sides.map(side => side.layers)) - 1,
  head: Math.max(...sides.map(side => side.heads)) - 1,
};

const listeners = [];
let waiting = false;

export function onChange(listener) {
  listeners.push(listener);
}

export function change(values) {
  Object.assign(state, values);
  state.layer = inside(state.layer, 0, most.layer);
  state.head = inside(state.head, 0, most.head);
  if (waiting) return;
  waiting = true;
  requestAnimationFrame(() => {
    waiting = false;
    listeners.forEach(listener => listener());
  });
}

const alike = sides.length > 1 && sides[0].ids.join() === sides[1].ids.join();

/* Choose a token of a side; where both sides have the same tokens, of both. */
export function chooseToken(which, token, key = null) {
  const tokens = [...state.tokens], keys = [...state.keys];
  sides.forEach((side, n) => {
    if (n !== which && !alike) return;
    tokens[n] = inside(token, 0, side.seq - 1);
    keys[n] = key;
  });
  change({ tokens, keys });
}

/* What the parts of the page draw from: the state within the limits of one side. */
export function viewOf(which) {
  const side = sides[which];
  const layer = Math.min(state.layer, side.layers - 1), head = Math.min(state.head, side.heads - 1);
  const token = state.tokens[which];
  const column = Math.min(state.column, side.head_dim - 1);
  return {
    which, side, layer, head, token, column,
    unit: Math.min(state.unit, side.inter - 1),
    wide: head * side.head_dim + column, // the column among all heads'
    row: side.rowOf(token),
    key: state.keys[which],
    at: "layers." + layer + ".",
    kind: side.kinds[layer],
  };
}

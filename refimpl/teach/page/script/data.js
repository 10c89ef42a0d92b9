/* The page's numbers. A tensor holds the integers of its digits: integers[n] / 10^decimals is the
   number, text(n) how it is shown. Blocks are unpacked when a layer is first looked at. */

export const facts = JSON.parse(document.getElementById("facts").textContent);

export function decimal(integer, decimals) {
  const digits = String(Math.abs(integer)).padStart(decimals + 1, "0");
  const cut = digits.length - decimals;
  const whole = digits.slice(0, cut) + (decimals ? "." + digits.slice(cut) : "");
  return (integer < 0 ? "-" : "") + whole;
}

export class Tensor {
  constructor(name, shape, decimals, integers) {
    Object.assign(this, { name, shape, decimals, integers });
    this.unit = 10 ** -decimals;
  }

  text(n) { return decimal(this.integers[n], this.decimals); }

  value(n) { return this.integers[n] * this.unit; }
}

/* Bytes of base64 text, inflated. The stream is the browser's own; nothing is asked of a network. */
async function inflated(text) {
  const binary = atob(text);
  const bytes = new Uint8Array(binary.length);
  for (let i = 0; i < binary.length; i++) bytes[i] = binary.charCodeAt(i);
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

/* The inverse of numbers.py: planes of bytes, the lowest first, of integers folded as 0, -1, 1, .. */
function integersOf(bytes, at, size, planes) {
  const out = new Int32Array(size);
  for (let i = 0; i < size; i++) {
    let folded = 0;
    for (let plane = planes - 1; plane >= 0; plane--) folded = (folded << 8) | bytes[at + plane * size + i];
    out[i] = (folded >>> 1) ^ -(folded & 1);
  }
  return out;
}

export class Side {
  constructor(about) {
    Object.assign(this, about);
    this.half = this.head_dim / 2;
    this.seq = this.ids.length;
    this.tensors = new Map();
    this.opened = new Map();
    this.place = new Map(this.rows.map((token, row) => [token, row]));
  }

  /* A promise: the block's tensors can be taken from then on. */
  open(block) {
    if (!this.opened.has(block)) this.opened.set(block, this.unpack(block));
    return this.opened.get(block);
  }

  async unpack(block) {
    const element = document.getElementById(this.label + "." + block);
    const bytes = await inflated(element.textContent);
    element.textContent = "";
    let at = 0;
    for (const [name, shape, decimals, planes] of this.blocks[block]) {
      const size = shape.reduce((a, b) => a * b, 1);
      this.tensors.set(name, new Tensor(name, shape, decimals, integersOf(bytes, at, size, planes)));
      at += size * planes;
    }
  }

  get(name) { return this.tensors.get(name); }

  /* The row of a token's vectors, -1 where the page has none. */
  rowOf(token) { return this.place.has(token) ? this.place.get(token) : -1; }

  /* The row of a token in the attention maps, -1 where there is none. */
  mapRow(token) { return this.whole ? token : this.rowOf(token); }

  sees(layer, query, key) {
    const window = this.windows[layer];
    return window === null || Math.abs(query - key) <= window;
  }

  /* Where key j of query i stands in a row of a map, which starts at i - window where banded. */
  keyPlace(layer, query, key) {
    const window = this.windows[layer];
    return window === null || 2 * window + 1 >= this.seq ? key : key - query + window;
  }

  span(layer) {
    const window = this.windows[layer];
    return window === null ? this.seq : Math.min(2 * window + 1, this.seq);
  }
}

export const sides = facts.sides.map(about => new Side(about));

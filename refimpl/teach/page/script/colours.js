/* Two scales whose lightness alone tells the number, so that they work in grey and for every eye:
   signed from dark blue through grey (0) to yellow, shares of attention from paper to ink. */

const SIGNED = [[0, 32, 77], [57, 72, 107], [124, 123, 120], [187, 173, 108], [255, 234, 70]];
const PAPER = { light: [[255, 255, 255], [8, 42, 96]], dark: [[24, 26, 30], [255, 226, 120]] };

function between(a, b, share) {
  return a.map((x, n) => Math.round(x + (b[n] - x) * share));
}

/* -1 .. 1 -> red, green, blue; by the square root, or one large number would leave all others grey. */
export function signed(value) {
  const place = (Math.sign(value) * Math.sqrt(Math.min(1, Math.abs(value))) + 1) * 2;
  const low = Math.min(3, Math.floor(place));
  return between(SIGNED[low], SIGNED[low + 1], place - low);
}

/* 0 .. 1 -> red, green, blue; by its square root, or small shares could not be told from none. */
export function share(value) {
  const [paper, ink] = PAPER[scheme()];
  return between(paper, ink, Math.sqrt(Math.max(0, Math.min(1, value))));
}

export function css([red, green, blue]) {
  return "rgb(" + red + "," + green + "," + blue + ")";
}

/* Black or white: what can be read on a colour. */
export function ink([red, green, blue]) {
  return 0.299 * red + 0.587 * green + 0.114 * blue > 140 ? "#000" : "#fff";
}

export function scheme() {
  const said = document.documentElement.dataset.theme;
  if (said) return said;
  return matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";
}

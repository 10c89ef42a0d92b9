/* Puts the page together, and draws it anew at every change: what is on the screen first. */

import { el } from "./dom.js";
import { facts, sides } from "./data.js";
import { change, onChange, state, viewOf } from "./state.js";
import { Bar } from "./bar.js";
import { parts } from "./parts.js";

const steps = new Map(facts.steps.map(step => [step.tap, step]));
const controls = new Bar(document.getElementById("bar"));
const main = document.getElementById("steps"), contents = document.getElementById("contents");

function codes(numbers) {
  return numbers.filter(n => facts.functions[n]).map(n =>
    el("div", {}, facts.functions[n].split("\n").map((line, at) => el("div", {}, (at ? "     " : ("(" + n + ")").padEnd(5)) + line))));
}

/* A step whose row of MODEL.md has no number belongs to the one above. */
const numbers = new Map();
facts.steps.reduce((above, step) => {
  const number = step.number || above;
  numbers.set(step.tap, number);
  return number;
}, "");

class Section {
  constructor(part) {
    const step = part.step ? steps.get(part.step) : null, short = part.step ? part.step.replace("layers.{i}.", "") : part.id;
    this.part = part;
    this.inLayer = Boolean(part.step && part.step.startsWith("layers."));
    this.title = part.title || "(" + numbers.get(part.step) + ") " + short;
    const [answerNumber, answerEquation] = facts.answers[sides[0].answers.kind] || [];
    const equation = step ? step.equation : part.answer && answerEquation ? "(" + answerNumber + ") " + answerEquation : "";
    const uses = step ? step.uses : part.functions || [];
    this.heading = el(this.inLayer ? "h3" : "h2", {}, this.title, this.inLayer ? el("span", { class: "of-layer" }) : null);
    this.panels = sides.map((side, which) => this.panel(side, which));
    this.element = el("section", { id: "step-" + short, "data-layer": this.inLayer ? "yes" : null, "aria-label": this.title },
      this.heading,
      el("p", { class: "says" }, step ? step.says : part.says),
      equation || uses.length ? el("div", { class: "equations" }, equation ? el("div", { class: "equation" }, equation) : null, codes(uses)) : null,
      el("div", { class: sides.length > 1 ? "sides two" : "sides" }, this.panels.map(panel => panel.element)));
    this.link = el("a", { href: "#step-" + short }, this.title);
    this.stale = true;
  }

  panel(side, which) {
    const built = this.part.build.map(build => build(which));
    const content = el("div", {}, built.flatMap(b => b.elements)), absent = el("p", { class: "absent", hidden: true });
    const name = sides.length > 1 ? el("p", { class: "side-name" }, "AB"[which] + ": " + side.model) : null;
    return { content, absent, built, element: el("div", { class: "side" }, name, absent, content) };
  }

  draw() {
    this.stale = false;
    this.panels.forEach((panel, which) => {
      const view = viewOf(which), { side } = view;
      const beyond = this.inLayer && state.layer >= side.layers;
      panel.content.hidden = beyond;
      panel.absent.textContent = beyond ? "This model has " + side.layers + " layers." : "";
      if (!beyond) for (const one of panel.built) this.update(one, view, panel.absent);
      panel.absent.hidden = !panel.absent.textContent;
    });
    const label = this.heading.querySelector(".of-layer");
    if (label) label.textContent = " layer " + state.layer;
  }

  /* One picture, or its absence where the page has not the numbers of the chosen token. */
  update(one, view, absent) {
    const { side, token } = view, needs = one.needs || "row";
    const there = needs === "nothing" || (needs === "row" ? view.row : side.mapRow(token)) >= 0;
    for (const element of one.elements) element.hidden = !there;
    if (there) one.update(view);
    else absent.textContent = "The vectors of token " + token + " are not on this page, whose size allows those of " + side.rows.length
      + " of " + side.seq + " tokens (the chips with a solid edge). modernbert explain --token " + token + " keeps them, --size gives room for more.";
  }
}

const hasHead = sides.every(side => side.answers.kind);
const sections = parts.filter(part => hasHead || !(part.needsHead || part.answer)).map(part => new Section(part));

/* A section is drawn when it comes near the screen; a change makes all of them stale. */
const near = new Set();
const watcher = new IntersectionObserver(entries => {
  for (const entry of entries) {
    const section = sections.find(one => one.element === entry.target);
    if (!entry.isIntersecting) { near.delete(section); continue; }
    near.add(section);
    ready().then(() => { if (section.stale && near.has(section)) section.draw(); });
  }
}, { rootMargin: "600px" });

/* What the sections draw from is there: the layer, the one below it, and the last. */
function ready() {
  return Promise.all(sides.flatMap(side => {
    const last = side.layers - 1, layer = Math.min(state.layer, last);
    return [side.open("start"), ...[layer, Math.max(0, layer - 1), last].map(n => side.open("layers." + n))];
  }));
}

/* What is on the screen at once, the rest one by one while nothing else is to be done. */
async function redraw() {
  controls.update();
  for (const section of sections) section.stale = true;
  await ready();
  controls.update();
  for (const section of near) if (section.stale) section.draw();
  later();
}

const idle = window.requestIdleCallback || (call => setTimeout(call, 16));
let drawing = false;
function later() {
  if (drawing) return;
  drawing = true;
  idle(async () => {
    drawing = false;
    await ready();
    const next = sections.find(section => section.stale);
    if (!next) return;
    next.draw();
    later();
  });
}

async function begin() {
  const inLayer = sections.filter(section => section.inLayer);
  for (const section of sections) {
    if (section === inLayer[0]) main.append(el("h2", { id: "layer" }, "In a layer"));
    if (section === sections[sections.indexOf(inLayer[inLayer.length - 1]) + 1]) main.append(el("h2", { class: "after-layers" }, "After the last layer"));
    main.append(section.element);
  }
  contents.append(el("ol", {}, sections.map(section => el("li", { class: section.inLayer ? "in-layer" : null }, section.link))));
  document.getElementById("about").append(
    el("p", {}, "Every number is float64's, rounded once, to the digits that are shown; equations and step names are those of MODEL.md. "
      + "Nothing here asks a network for anything."),
    el("p", {}, "Made by modernbert explain " + facts.version + ". ", sides.map((side, n) =>
      (sides.length > 1 ? "AB"[n] + ": " : "") + side.model + ", " + side.layers + " layers, " + side.heads + " heads of " + side.head_dim + ", "
      + side.seq + " tokens" + (side.rows.length < side.seq ? ", vectors of " + side.rows.length : "") + ". ")));
  onChange(redraw);
  const header = document.getElementById("top");
  new ResizeObserver(() => {
    const sticks = getComputedStyle(header).position === "sticky";
    document.documentElement.style.setProperty("--bar", (sticks ? header.offsetHeight : 0) + "px");
  }).observe(header);
  controls.update();
  await ready();
  controls.update();
  for (const section of sections) watcher.observe(section.element);
  later();
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => change({}));
  addEventListener("beforeprint", () => sections.forEach(section => section.draw()));
}

begin().catch(error => main.prepend(el("p", { class: "absent", role: "alert" },
  "DecompressionStream" in window ? "This page could not be drawn: " + error.message
    : "This page needs a browser of 2023 or later, which can unpack its numbers.")));

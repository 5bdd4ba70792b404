// Curves over the steps of a run, drawn as SVG: several measurements, each with a scale of its own, and the values under the pointer.

import { button, el } from "./dom.js";
import { numberText } from "./train-store.js";

const SVG = "http://www.w3.org/2000/svg";
const LEFT = 46;
const RIGHT = 10;
const TOP = 8;
const BOTTOM = 20;
const SMOOTHING = 0.88;

/** The lines there may be. Those with the same `axis` share a scale; the first axis with data labels the left side. */
const LINES = [
  { name: "loss", words: "loss", axis: "loss", kind: "raw" },
  { name: "smooth", words: "smoothed", axis: "loss", kind: "smooth" },
  { name: "epoch", words: "per epoch", axis: "loss", kind: "epoch" },
  { name: "validation", words: "validation (fixed noise)", axis: "loss", kind: "validation" },
  { name: "rate", words: "learning rate", axis: "rate", kind: "rate", off: true },
  { name: "norm", words: "gradient norm", axis: "norm", kind: "norm", off: true },
];
const OTHER = ["extra1", "extra2", "extra3"];

function svg(tag, props = {}, ...children) {
  const node = document.createElementNS(SVG, tag);
  for (const [key, value] of Object.entries(props)) node.setAttribute(key, String(value));
  node.append(...children);
  return node;
}

/** The running mean of [step, mean, low, high] points, without the pull of its start. */
function smoothed(points) {
  let sum = 0;
  let weight = 0;
  return points.map(([step, value]) => {
    sum = SMOOTHING * sum + (1 - SMOOTHING) * value;
    weight = SMOOTHING * weight + (1 - SMOOTHING);
    return [step, sum / weight];
  });
}

/** Means of whole passes over the data; each stands at its last step. */
function epochs(points, length) {
  const found = new Map();
  let before = 0;
  for (const [step, value] of points) {
    const epoch = Math.ceil(step / length);
    const [sum, count] = found.get(epoch) ?? [0, 0];
    found.set(epoch, [sum + value * (step - before), count + step - before]);
    before = step;
  }
  return [...found].filter(([epoch]) => epoch * length <= before + 0.5).map(([epoch, [sum, count]]) => [Math.round(epoch * length), sum / count]);
}

export class Chart {
  #off = new Set(LINES.filter((line) => line.off).map((line) => line.name));
  #lines = [];
  #log = false;
  #at = null;
  #total = 0;

  constructor() {
    this.svg = svg("svg", { class: "ls-chart", tabindex: "0", role: "img", "aria-label": "Curves of this run" });
    this.tip = el("div", { class: "ls-chart-tip", hidden: true, role: "status" });
    this.empty = el("p", { class: "ls-faint ls-chart-empty" }, "The curves begin with the first step.");
    this.legend = el("div", { class: "ls-chips ls-legend", "aria-label": "Curves" });
    this.scale = button("log scale", () => this.#toggleLog(), { kind: "chip", "aria-pressed": "false" });
    this.frame = el("div", { class: "ls-chart-frame" }, this.svg, this.empty, this.tip);
    this.root = el("div", { class: "ls-chart-box" }, this.frame, el("div", { class: "ls-legend-row" }, this.legend, this.scale));
    this.svg.addEventListener("pointermove", (event) => this.#point(event));
    this.svg.addEventListener("pointerleave", () => this.#leave());
    this.svg.addEventListener("blur", () => this.#leave());
    this.svg.addEventListener("keydown", (event) => this.#key(event));
    new ResizeObserver(() => this.#draw()).observe(this.frame);
  }

  /** Show `{curves, epoch_steps}` as the server tells them (null: nothing yet), over `total` steps. */
  show(told, total) {
    const by = Object.fromEntries((told?.curves ?? []).map((curve) => [curve.name, curve.points]));
    this.#total = total;
    const loss = by.loss ?? [];
    const own = { loss, smooth: smoothed(loss), validation: by.validation, rate: by.rate, norm: by.norm };
    if (told?.epoch_steps && loss.length) own.epoch = epochs(loss, told.epoch_steps);
    const known = ["loss", "validation", "rate", "norm", "memory"];
    const extras = Object.keys(by).filter((name) => !known.includes(name)).slice(0, OTHER.length);
    const lines = [...LINES, ...extras.map((name, index) => ({ name, words: name.replaceAll("_", " "), axis: name, kind: OTHER[index] }))];
    for (const line of lines) line.points = own[line.name] ?? by[line.name] ?? [];
    this.#lines = lines.filter((line) => line.points.length);
    this.#drawLegend();
    this.#draw();
  }

  #drawLegend() {
    const key = this.#lines.map((line) => line.name).join();
    if (this.legend.dataset.key === key) return;
    this.legend.dataset.key = key;
    this.legend.replaceChildren(
      ...this.#lines.map((line) => {
        const chip = el("button", { type: "button", class: `ls-btn chip ls-line-${line.kind}`, "aria-pressed": String(!this.#off.has(line.name)) }, el("i", { "aria-hidden": "true" }), line.words);
        chip.addEventListener("click", () => {
          if (!this.#off.delete(line.name)) this.#off.add(line.name);
          chip.setAttribute("aria-pressed", String(!this.#off.has(line.name)));
          this.#draw();
        });
        return chip;
      }),
    );
  }

  #toggleLog() {
    this.#log = !this.#log;
    this.scale.setAttribute("aria-pressed", String(this.#log));
    this.#draw();
  }

  get #shown() {
    return this.#lines.filter((line) => !this.#off.has(line.name));
  }

  #draw() {
    const { clientWidth: width, clientHeight: height } = this.frame;
    this.empty.hidden = this.#lines.length > 0;
    if (!width || !height) return;
    this.svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
    const last = Math.max(1, ...this.#lines.map((line) => line.points.at(-1)[0]));
    const end = Math.max(last, this.#total || 0);
    const x = (step) => LEFT + ((width - LEFT - RIGHT) * step) / end;
    const axes = new Map();
    for (const line of this.#shown) axes.set(line.axis, [...(axes.get(line.axis) ?? []), line]);
    const parts = [];
    let first = true;
    for (const lines of axes.values()) {
      const y = this.#scaleOf(lines, height);
      if (first && lines.length) parts.push(...this.#grid(y, width));
      first = false;
      for (const line of lines) parts.push(...this.#path(line, x, y));
    }
    parts.push(...this.#steps(x, end, height));
    this.cursor = svg("g", { class: "ls-cursor" });
    this.geometry = { x, end, width, height };
    this.svg.replaceChildren(...parts, this.cursor);
    if (this.#at !== null) this.#showAt(this.#at);
  }

  /** From values to heights. The scale leaves out the highest hundredth of a noisy line, so that one outlier does not flatten the rest. */
  #scaleOf(lines, height) {
    const values = lines.flatMap((line) => line.points.map((point) => point[1])).filter((value) => !this.#log || value > 0);
    const sorted = [...values].sort((a, b) => a - b);
    let low = sorted[0] ?? 0;
    let high = sorted[Math.floor((sorted.length - 1) * (sorted.length > 50 ? 0.99 : 1))] ?? 1;
    if (!this.#log && low > 0 && low < 0.4 * high) low = 0;
    if (low === high) [low, high] = low === 0 ? [0, 1] : [Math.min(low * 0.5, low * 1.5), Math.max(low * 0.5, low * 1.5)];
    const turn = this.#log ? (value) => Math.log(Math.max(value, low)) : (value) => value;
    const room = height - TOP - BOTTOM;
    const place = (value) => TOP + room * (1 - (turn(value) - turn(low)) / (turn(high) - turn(low) || 1));
    const scale = (value) => Math.min(height - BOTTOM, Math.max(TOP, place(value)));
    return Object.assign(scale, { low, high });
  }

  #grid(y, width) {
    const parts = [];
    for (let index = 0; index < 4; index += 1) {
      const share = index / 3;
      const value = this.#log ? y.low * (y.high / y.low) ** share : y.low + (y.high - y.low) * share;
      const at = y(value);
      parts.push(svg("line", { class: "ls-grid-line", x1: LEFT, x2: width - RIGHT, y1: at, y2: at }));
      parts.push(svg("text", { class: "ls-tick", x: LEFT - 6, y: at + 3.5, "text-anchor": "end" }, numberText(value)));
    }
    return parts;
  }

  #steps(x, end, height) {
    const count = this.frame.clientWidth < 480 ? 3 : 6;
    const rough = end / count;
    const unit = 10 ** Math.floor(Math.log10(Math.max(rough, 1)));
    const gap = [1, 2, 5, 10].map((factor) => factor * unit).find((each) => each >= rough) ?? unit;
    const parts = [];
    for (let step = gap; step <= end; step += gap) parts.push(svg("text", { class: "ls-tick", x: x(step), y: height - 5, "text-anchor": step + gap > end ? "end" : "middle" }, String(step)));
    return parts;
  }

  #path(line, x, y) {
    const d = line.points.map(([step, value], index) => `${index ? "L" : "M"}${x(step).toFixed(1)} ${y(value).toFixed(1)}`).join("");
    const parts = [svg("path", { class: `ls-path ls-line-${line.kind}`, d })];
    if (line.points.length === 1 || ["validation", "epoch"].includes(line.kind)) {
      const few = line.points.length <= 60 ? line.points : [];
      parts.push(...few.map(([step, value]) => svg("circle", { class: `ls-mark-${line.kind} ls-line-${line.kind}`, cx: x(step), cy: y(value), r: 2.5 })));
    }
    return parts;
  }

  #point(event) {
    if (!this.geometry) return;
    const { left, width } = this.svg.getBoundingClientRect();
    const across = ((event.clientX - left) * this.geometry.width) / width;
    const { end } = this.geometry;
    this.#showAt(((across - LEFT) / (this.geometry.width - LEFT - RIGHT)) * end);
  }

  #leave() {
    this.#at = null;
    this.tip.hidden = true;
    this.cursor?.replaceChildren();
  }

  #key(event) {
    const points = this.#shown[0]?.points;
    if (!points || !["ArrowLeft", "ArrowRight", "Home", "End"].includes(event.key)) return;
    event.preventDefault();
    const now = this.#at === null ? points.length - 1 : nearest(points, this.#at);
    const next = { ArrowLeft: now - 1, ArrowRight: now + 1, Home: 0, End: points.length - 1 }[event.key];
    this.#showAt(points[Math.max(0, Math.min(points.length - 1, next))][0]);
  }

  #showAt(step) {
    const main = this.#shown[0];
    if (!main) return;
    const { x, width, height } = this.geometry;
    const at = main.points[nearest(main.points, step)][0];
    this.#at = at;
    const rows = this.#shown.map((line) => [line, line.points[nearest(line.points, at)]]);
    this.cursor.replaceChildren(svg("line", { class: "ls-cursor-line", x1: x(at), x2: x(at), y1: TOP, y2: height - BOTTOM }));
    this.tip.replaceChildren(
      el("b", {}, `step ${at}`),
      ...rows.map(([line, point]) => el("span", { class: `ls-line-${line.kind}` }, el("i", { "aria-hidden": "true" }), `${line.words} ${numberText(point[1])}${Math.abs(point[0] - at) > 0.5 && line.kind !== "smooth" ? ` (step ${point[0]})` : ""}`)),
    );
    this.tip.hidden = false;
    const right = x(at) > width / 2;
    this.tip.style.left = right ? "auto" : `${x(at) + 10}px`;
    this.tip.style.right = right ? `${width - x(at) + 10}px` : "auto";
  }

  /** What the curves say, for those who do not see them. */
  describe(words) {
    if (this.svg.getAttribute("aria-label") !== words) this.svg.setAttribute("aria-label", words);
  }
}

/** Index of the point nearest to a step. */
function nearest(points, step) {
  let low = 0;
  let high = points.length - 1;
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (points[middle][0] < step) low = middle;
    else high = middle;
  }
  return Math.abs(points[low][0] - step) <= Math.abs(points[high][0] - step) ? low : high;
}

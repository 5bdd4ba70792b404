// A plot (X/Y/Z): how many pictures it comes to, in the server's words, and the lists that its axes choose from.

import * as api from "./api.js";
import { debounce, el, plural, setText, toast } from "./dom.js";

const AXES = ["x", "y", "z"];
const WAIT = 400; // ms after a change in which another one may come before the server is asked
const OFF = "Nothing";

/** A form as the server takes it: parts that are switched off are none, and so are fields that are being typed. */
function whole({ hires: { on, ...hires } = {}, seed, variation, styles, ...rest }) {
  const number = (value) => (typeof value === "number" ? value : -1);
  return { ...rest, seed: number(seed), variation: variation && { ...variation, seed: number(variation.seed) }, styles: styles ?? [], hires: on ? hires : null, sd_upscale: rest.source?.image ? rest.sd_upscale : null };
}

/** The axes of a plot that change something. */
const used = (plot) => AXES.filter((axis) => (plot?.[`${axis}_type`] ?? OFF) !== OFF);

/** "3 × 2 = 6 pictures"; `axes` are the numbers of values, X first. */
const sizeWords = (plot, axes, pictures) => {
  const factors = used(plot).map((axis) => axes[AXES.indexOf(axis)]);
  return factors.length > 1 ? `${factors.join(" × ")} = ${plural(pictures, "picture")}` : plural(pictures, "picture");
};

/** A plot in a few words: "X CFG Scale 5, 7; Y Sampler Euler, Heun". */
export const plotWords = (plot) => used(plot).map((axis) => `${axis.toUpperCase()} ${plot[`${axis}_type`]} ${plot[`${axis}_values`]}`).join("; ");

/** Names as one line of a CSV file. */
const line = (names) => names.map((name) => (/[",]/.test(name) ? `"${name.replaceAll('"', '""')}"` : name)).join(", ");

export class Plot {
  #asked = "";
  #number = 0;
  #said = ["", false];
  #choices = {};
  #soon = debounce(() => this.#ask(), WAIT);

  /** `request()` is what the form has. */
  constructor(request) {
    this.request = request;
    this.form = {};
  }

  mount(panel) {
    this.words = el("p", { class: "ls-plot-size", role: "status" });
    panel.replaceChildren(this.words);
    this.#draw();
    this.readChoices();
  }

  /** Read the lists again: there may be other files now. */
  async readChoices() {
    this.#choices = await api.plotChoices().catch(() => this.#choices);
    this.#draw();
  }

  /** All choices of an axis of this type as its values; `text` where it has no list. */
  all(kind, text) {
    const names = this.#choices[kind];
    if (!names?.length) toast(kind === OFF ? "Choose what the axis changes first." : `There is no list of values for ${kind}.`, "info");
    return names?.length ? line(names) : text;
  }

  /** The form has changed. */
  update(form) {
    this.form = form;
    this.#soon();
    this.#draw();
  }

  get #on() {
    return AXES.some((axis) => (this.form[`plot.${axis}_type`] ?? OFF) !== OFF);
  }

  /** Answers may come out of order: only that to the newest question counts. */
  async #ask() {
    const request = this.#on ? whole(this.request()) : null;
    const asked = JSON.stringify(request);
    if (asked === this.#asked) return;
    this.#asked = asked;
    const number = ++this.#number;
    let said = ["", false];
    if (request) {
      try {
        const { axes, pictures, problem } = await api.plotSize(request);
        said = problem ? [problem, true] : [sizeWords(request.plot, axes, pictures), false];
      } catch (error) {
        this.#asked = "";
        said = [error.message, true];
      }
    }
    if (number !== this.#number) return;
    this.#said = said;
    this.#draw();
  }

  #draw() {
    const [words, bad] = this.#on ? this.#said : ["", false];
    const head = document.querySelector("#script_txt2img_xyz_plot > button");
    if (head) head.dataset.said = this.#on ? (bad ? "not possible" : words || "on") : "";
    head?.classList.toggle("ls-bad-plot", bad);
    for (const axis of AXES) {
      const listed = this.#choices[this.form[`plot.${axis}_type`]]?.length;
      document.getElementById(`xyz_grid_fill_${axis}_tool_button`)?.classList.toggle("listed", Boolean(listed));
    }
    if (!this.words) return;
    setText(this.words, words);
    this.words.classList.toggle("bad", bad);
  }
}

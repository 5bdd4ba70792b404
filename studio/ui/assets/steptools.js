// What can be done with the step on the stage: open it, save it, decode it in full quality, branch from it.

import * as api from "./api.js";
import { button, download, el, show, toast } from "./dom.js";

const KEPT = 24;

export class StepTools {
  #decoded = new Map(); // where a step is decoded -> the picture's URL on this page, oldest first

  /**
   * `shown()` is the step on the stage: `{job, index, batch, within, step, preview, picture}`, with the URLs of its preview and
   * of what is shown now. `branch(job, index, step)` begins a branch, `save()` saves the finished picture, `changed()` draws anew.
   */
  constructor({ shown, branch, save, changed }) {
    Object.assign(this, { shown, save, changed });
    const tool = (words, action, picture, title) => button(words, action, { picture, kind: "small", title });
    this.full = tool("full quality", () => this.#decode(), "image", "Decode this step as a finished picture is decoded");
    this.branch = tool("branch from here", () => branch(shown().job, shown().index, shown().step), "branch", "Go on from this step with another prompt, CFG scale or sampler");
    this.root = el(
      "div",
      { class: "ls-steptools" },
      tool("open step", () => this.#open(), "open", "Open this step's picture in a new tab"),
      tool("save step", () => this.#save(), "save", "Download this step's picture"),
      this.full,
      this.branch,
    );
  }

  /** The URL on this page of a step that was decoded in full, or null. */
  decoded({ job, batch, within }, step) {
    return this.#decoded.get(api.stepUrl(job.id, batch, step, within)) ?? null;
  }

  /** `scrubbed`: a step is on the stage, not the finished picture. `kept`: it can be decoded. `left`: steps follow it. */
  draw({ scrubbed, kept, left }) {
    show(this.full, scrubbed && kept && !this.decoded(this.shown(), this.shown().step));
    show(this.branch, scrubbed && left);
  }

  #source() {
    const { job, batch, within, step } = this.shown();
    return api.stepUrl(job.id, batch, step, within);
  }

  async #decode() {
    const source = this.#source();
    this.full.disabled = true;
    this.full.classList.add("busy");
    try {
      this.#decoded.set(source, URL.createObjectURL(await api.picture(source)));
      while (this.#decoded.size > KEPT) {
        const [oldest, url] = this.#decoded.entries().next().value;
        this.#decoded.delete(oldest);
        URL.revokeObjectURL(url);
      }
    } catch (error) {
      toast(error.message, "bad");
    }
    this.full.disabled = false;
    this.full.classList.remove("busy");
    this.changed();
  }

  /** The step's own file: decoded in full if it was, else its preview; null when it has neither. */
  #file() {
    const { step, preview } = this.shown();
    return this.decoded(this.shown(), step) ? this.#source() : preview;
  }

  #open() {
    const url = this.#file() ?? this.shown().picture;
    if (url) window.open(url, "_blank", "noopener");
  }

  #save() {
    const url = this.#file();
    if (url) download(`${url}?download=1`);
    else this.save();
  }
}

// Captions for the pictures of a data set, written by a captioner on the server: which one, how far it is, and what came of it.

import * as api from "./api.js";
import { button, el, plural, setText, show, toast, turns } from "./dom.js";
import { labelled } from "./train-form.js";
import { lineList } from "./train-lines.js";

const POLL_MS = 700;
const TITLES = { "file-name": "words of the file name", blip: "BLIP, looks at the picture" };

export class CaptionerRow {
  #known = [];
  #path = "";
  #timer = 0;
  #watching = false;
  #watched = turns();

  /** `written()` is called when captions may have changed. */
  constructor({ written }) {
    this.actions = { written };
  }

  mount(panel) {
    this.choice = el("select", { id: "train_captioner" });
    this.replace = el("input", { type: "checkbox", id: "train_captioner_replace" });
    this.go = button("write captions", () => this.#start(), { kind: "small", id: "train_captioner_go", title: "Describe every picture that has no caption" });
    this.end = button("stop", () => this.#ask(api.captioningStop()), { kind: "small", title: "Captions written so far stay" });
    this.words = el("p", { class: "ls-faint ls-hintline", role: "status", id: "train_captioner_says" });
    this.problems = el("div", {});
    this.root = el("div", { class: "ls-captioner", hidden: true },
      el("div", { class: "ls-fields two" }, labelled("Captioner", this.choice, { help: "Writes captions to where the data set keeps them; they can be edited below afterwards" }),
        labelled("Replace captions that are there", this.replace, { kind: "switch" })),
      el("div", { class: "ls-actions" }, this.go, this.end), this.words, this.problems);
    this.choice.addEventListener("change", () => this.#draw(null));
    panel.append(this.root);
  }

  /** Offer the captioners for this data set; an empty path hides them. */
  async offer(path) {
    this.#path = path;
    show(this.root, Boolean(path));
    if (!path || this.#watching) return;
    try {
      this.#known = await api.captioners();
      const chosen = this.choice.value;
      this.choice.replaceChildren(...this.#known.map(({ name }) => el("option", { value: name }, TITLES[name] ?? name)));
      this.choice.value = chosen || "file-name";
      const task = await api.captioning();
      this.#draw(task);
      if (task?.state === "running") this.#watch();
    } catch (error) {
      toast(error.message, "bad");
    }
  }

  #start() {
    return this.#ask(api.captioningStart(this.#path, this.choice.value, this.replace.checked));
  }

  async #ask(answer) {
    try {
      this.#draw(await answer);
      this.#watch();
    } catch (error) {
      toast(error.message, "bad");
    }
  }

  /** Look again and again until it has ended, or a server that began anew knows nothing of it. */
  #watch() {
    clearTimeout(this.#timer);
    const newest = this.#watched();
    this.#watching = true;
    this.#timer = setTimeout(async () => {
      const task = await api.captioning().catch(() => undefined);
      if (!newest()) return;
      if (task !== undefined) this.#draw(task);
      if (task === undefined || task?.state === "running") return this.#watch(); // a server that is away comes back
      this.#watching = false;
      this.actions.written();
    }, POLL_MS);
  }

  #draw(task) {
    const running = task?.state === "running";
    const lacks = this.#known.find(({ name }) => name === this.choice.value)?.problem ?? "";
    show(this.end, running);
    this.go.disabled = running || Boolean(lacks);
    setText(this.words, running ? progress(task) : lacks || (task ? ending(task) : ""));
    this.words.classList.toggle("ls-bad", Boolean(lacks && !running) || task?.state === "failed");
    const problems = task?.problems ?? [];
    this.problems.replaceChildren(...(problems.length ? [lineList("what went wrong", problems, { more: task.problem_count - problems.length })] : []));
  }
}

function progress({ done, total }) {
  return total ? `${done} of ${total} pictures …` : "loading …";
}

function ending({ state, written, kept, done, problem_count: problems, message }) {
  if (state === "failed") return message;
  if (state === "stopped") return `Stopped after ${plural(done, "picture")}; what is written stays.`;
  return [`${plural(written, "caption")} written`, kept ? `${kept} kept` : "", problems ? plural(problems, "problem") : ""].filter(Boolean).join(" · ");
}

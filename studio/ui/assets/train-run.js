// The run that is looked at: how far it is, its curves, its samples over the steps, its log, and what can be asked of it.

import * as api from "./api.js";
import { button, download, duration, el, inFrame, setSource, setText, show, toast, turns } from "./dom.js";
import { Lightbox } from "./lightbox.js";
import { Chart } from "./train-chart.js";
import { METHODS } from "./train-form.js";
import { stateText } from "./train-list.js";
import { LIVING, numberText, RESUMABLE, whereText } from "./train-store.js";

const LEAST_MS = 1000;
const MOST_COLUMNS = 24;

export class RunView {
  #id = null;
  #seen = {};
  #busy = false;
  #stage = "";
  #later = 0;
  #logged = turns();
  #pictures = []; // [url, words] of the samples as they are laid out
  #large = 0;

  /** `act(id, action)`, `remove(run)`, `use(run)`, `duplicate(id)` as in the list. */
  constructor(store, actions) {
    this.store = store;
    this.actions = actions;
    this.chart = new Chart();
    this.draw = inFrame(() => this.#draw());
  }

  mount(panel) {
    this.name = el("b", { id: "train_run_name" });
    this.facts = el("span", { class: "ls-faint ls-run-facts", id: "train_run_facts" });
    this.about = el("p", { class: "ls-faint ls-hintline", id: "train_run_about" });
    this.bar = el("i", {});
    this.message = el("p", { class: "ls-warning", role: "alert", hidden: true });
    this.note = el("p", { class: "ls-faint", hidden: true });
    this.stages = el("div", { class: "ls-chips", hidden: true, "aria-label": "Stages" });
    this.buttons = el("div", { class: "ls-actions", id: "train_run_actions" });
    this.log = el("pre", { class: "ls-info", tabindex: "0", id: "train_log" });
    this.logBox = el("details", { class: "ls-fold" }, el("summary", {}, "log"), this.log);
    this.logBox.addEventListener("toggle", () => this.#readLog().catch((error) => toast(error.message, "bad")));
    this.card = el("section", { class: "ls-card ls-run-card", id: "train_run", "aria-label": "The run", hidden: true },
      el("header", {}, this.name, this.facts), this.about, el("div", { class: "ls-bar" }, this.bar), this.message, this.note, this.stages, this.chart.root, this.buttons, this.logBox);
    this.grid = el("div", { class: "ls-samples", role: "table", "aria-label": "Sample pictures: a row for each prompt, a column for each step" });
    this.samplesCard = el("section", { class: "ls-card", id: "train_samples", hidden: true }, el("header", {}, el("b", {}, "Samples"), el("span", { class: "ls-faint" }, "the same prompts and seeds as it learns")), this.grid);
    this.empty = el("section", { class: "ls-card ls-train-empty", id: "train_empty" }, el("span", { class: "ls-mark", "aria-hidden": "true" }), el("b", {}, "Nothing is trained yet"),
      el("p", {}, "Twenty pictures in one style, a word to call it by, and a few minutes: loss, validation and sample pictures appear here while it learns. You may go on painting meanwhile, close the page, even stop the server."));
    panel.append(this.empty, this.card, this.samplesCard);
  }

  get id() {
    return this.#id;
  }

  /** Look at another run (null: none). */
  show(id) {
    if (id === this.#id) return;
    this.#id = id;
    this.#seen = {};
    this.#stage = "";
    this.chart.show(null, 0);
    this.grid.replaceChildren();
    show(this.samplesCard, false);
    this.#logged(); // the answer about the former run's log is not awaited any more
    setText(this.log, "");
    this.logBox.open = false;
    this.draw();
  }

  #draw() {
    const run = this.store.runs.get(this.#id);
    show(this.card, Boolean(run));
    show(this.empty, this.store.known && !this.store.runs.size);
    if (!run) {
      show(this.samplesCard, false);
      return;
    }
    const { summary } = run;
    setText(this.name, run.name);
    setText(this.facts, headText(run));
    setText(this.about, aboutText(run));
    this.bar.style.width = summary.total ? `${(100 * summary.step) / summary.total}%` : "0";
    this.bar.parentElement.classList.toggle("busy", run.state === "running" && !summary.total);
    const trouble = run.problem || (run.state === "failed" ? summary.message || "It failed." : run.state === "interrupted" ? "The training process ended without a word: it was killed, or the machine went off. Resume goes on from the last checkpoint." : "");
    setText(this.message, trouble);
    show(this.message, Boolean(trouble));
    setText(this.note, summary.note);
    show(this.note, Boolean(summary.note));
    this.#drawButtons(run);
    this.chart.describe(`Curves of ${run.name}: ${headText(run)}`);
    this.#refresh(run);
  }

  #drawButtons(run) {
    const key = JSON.stringify([run.id, run.state, run.stopping, run.obeys, run.lora, run.paused_for_painting, Math.max(0, Math.ceil((run.force_at ?? 0) - Date.now() / 1000)) > 0]);
    if (this.buttons.dataset.key === key) return;
    this.buttons.dataset.key = key;
    const focused = this.buttons.contains(document.activeElement) ? document.activeElement.textContent : null;
    const ask = (words, action, title, more = {}) => button(words, () => this.actions.act(run.id, action), { kind: "small", title, ...more });
    const living = LIVING.includes(run.state);
    const parts = [];
    if (living && !run.stopping) parts.push(ask("stop and save", "stop", "Save and end after this step; it can be resumed"));
    if (run.state === "running" && run.obeys.includes("pause") && !run.stopping) parts.push(ask("pause", "pause", "Wait at the next step edge; frees the device"));
    if (run.state === "paused" && !run.stopping) parts.push(ask("resume", "resume", "Train on"));
    if (run.obeys.includes("save") && !run.stopping) parts.push(ask("save now", "save", "Write the state and the result so far"));
    if (run.obeys.includes("sample") && !run.stopping) parts.push(ask("sample now", "sample", "Paint the sample prompts as it is now"));
    if (run.stopping) parts.push(this.#force(run));
    if (run.state === "queued") parts.push(ask("take out of the queue", "stop", "Wait no longer"));
    if (RESUMABLE.includes(run.state)) parts.push(ask("resume", "resume", "Train on from what was saved", { kind: "small go" }));
    if (run.lora) parts.push(button("use in prompt", () => this.actions.use(run), { kind: "small go", picture: "send", title: `<lora:${run.lora}> and its trigger word` }));
    parts.push(el("span", { class: "ls-gap" }), button("duplicate", () => this.actions.duplicate(run.id), { kind: "small", picture: "copy", title: "Fill the form with this run's configuration" }));
    if (!living) parts.push(button("delete", () => this.actions.remove(run), { kind: "small", title: "Move its folder to outputs/runs/.trash" }));
    this.buttons.replaceChildren(...parts);
    if (focused) [...this.buttons.querySelectorAll("button")].find((each) => each.textContent === focused)?.focus();
  }

  /** Stopping by force is offered half a minute after it was asked to stop. */
  #force(run) {
    const wait = run.force_at - Date.now() / 1000;
    const node = button("stop by force", () => this.actions.act(run.id, "force-stop"), { kind: "small", title: "End its process at once; what was not saved since the last checkpoint is done again", disabled: wait > 0 });
    if (wait > 0) setTimeout(() => this.draw(), wait * 1000 + 100);
    return node;
  }

  /** Read what has changed since it was last read; at most once a second, and only while it can be seen. */
  async #refresh(run) {
    if (!this.card.offsetParent || this.#busy) return;
    const { offset, samples } = run.summary;
    const wait = (this.#seen.at ?? 0) + LEAST_MS - Date.now();
    if (offset === this.#seen.offset && this.#stage === this.#seen.stage) return;
    if (wait > 0) {
      clearTimeout(this.#later);
      this.#later = setTimeout(this.draw, wait);
      return;
    }
    this.#busy = true;
    const id = run.id;
    const stage = this.#stage;
    const wanted = () => id === this.#id && stage === this.#stage;
    try {
      const curves = await api.trainingCurves(id, stage);
      const pictures = samples && samples !== this.#seen.samples ? await api.trainingSamples(id) : null;
      if (wanted()) {
        this.#seen = { at: Date.now(), offset: curves.offset, samples, stage };
        this.#drawStages(curves);
        this.chart.show(curves, curves.stage === run.summary.stage ? run.summary.total : 0);
        if (pictures) this.#drawSamples(pictures);
        await this.#readLog();
      }
    } catch (error) {
      this.#seen = { ...this.#seen, at: Date.now() };
      if (error.status !== 404 && error.status !== 0) toast(error.message, "bad");
    } finally {
      this.#busy = false;
      if (!wanted() || (this.store.runs.get(id)?.summary.offset ?? 0) > (this.#seen.offset ?? 0)) this.draw();
    }
  }

  #drawStages({ stages, stage }) {
    show(this.stages, stages.length > 1);
    const key = `${this.#id}/${stages.join()}/${stage}`;
    if (this.stages.dataset.key === key) return;
    this.stages.dataset.key = key;
    this.stages.replaceChildren(...stages.map((name) => button(name.replaceAll("-", " "), () => {
      this.#stage = name === this.store.runs.get(this.#id)?.summary.stage ? "" : name;
      this.#seen = { ...this.#seen, at: 0 };
      this.draw();
    }, { kind: "chip", "aria-pressed": String(name === stage) })));
  }

  /** A table of prompts by steps; where there are very many steps, the base and the newest. */
  #drawSamples(samples) {
    show(this.samplesCard, samples.length > 0);
    const steps = [...new Set(samples.map((sample) => sample.step))].sort((a, b) => a - b);
    const columns = steps.length > MOST_COLUMNS ? [steps[0], ...steps.slice(1 - MOST_COLUMNS)] : steps;
    const rows = [...new Set(samples.map((sample) => sample.index))].sort((a, b) => a - b);
    const at = new Map(samples.map((sample) => [`${sample.step}/${sample.index}`, sample]));
    this.grid.style.setProperty("--columns", columns.length);
    this.#pictures = [];
    const head = el("div", { role: "row", class: "ls-sample-row" }, el("span", { role: "columnheader", class: "ls-sample-prompt" }), ...columns.map((step) => el("span", { role: "columnheader", class: "ls-sample-step" }, step === 0 ? "base" : String(step))));
    const body = rows.map((index) => {
      const prompt = samples.find((sample) => sample.index === index)?.prompt ?? "";
      const cells = columns.map((step) => this.#cell(at.get(`${step}/${index}`), prompt, step));
      return el("div", { role: "row", class: "ls-sample-row" }, el("span", { role: "rowheader", class: "ls-sample-prompt", title: prompt }, prompt), ...cells);
    });
    const atEnd = this.grid.scrollLeft + this.grid.clientWidth >= this.grid.scrollWidth - 4;
    this.grid.replaceChildren(head, ...body);
    if (atEnd) this.grid.scrollLeft = this.grid.scrollWidth;
  }

  #cell(sample, prompt, step) {
    if (!sample) return el("span", { role: "cell", class: "ls-sample empty" });
    const words = `${prompt}, ${step === 0 ? "base" : `step ${step}`}`;
    const place = this.#pictures.length;
    const picture = el("img", { alt: "", loading: "lazy" });
    const url = `${api.local(sample.url)}?t=${sample.time}`;
    setSource(picture, url);
    this.#pictures.push([url, words]);
    return el("span", { role: "cell" }, el("button", { type: "button", class: "ls-sample", "aria-label": words, title: words, on: { click: () => this.#enlarge(place) } }, picture));
  }

  #enlarge(place) {
    this.#large = (place + this.#pictures.length) % this.#pictures.length;
    this.lightbox ??= new Lightbox({ move: (by) => this.#enlarge(this.#large + by), save: () => download(this.#pictures[this.#large][0]) });
    this.lightbox.show(...this.#pictures[this.#large]);
  }

  async #readLog() {
    if (!this.logBox.open || !this.#id) return;
    const newest = this.#logged();
    const { text, size } = await api.trainingLog(this.#id);
    if (!newest()) return;
    const bottom = this.log.scrollTop + this.log.clientHeight >= this.log.scrollHeight - 8;
    setText(this.log, size ? text : "Nothing was printed.");
    if (bottom) this.log.scrollTop = this.log.scrollHeight;
  }
}

/** "LoRA on sprout-v1 · trigger word duotone · created 25 Nov, 14:02 · duo-c90aad3a": what a run is. */
function aboutText(run) {
  const method = METHODS[run.method] ?? run.method;
  const created = new Date(run.created * 1000).toLocaleString([], { day: "numeric", month: "short", hour: "2-digit", minute: "2-digit" });
  return [run.model ? `${method} on ${run.model}` : method, run.trigger && `trigger word ${run.trigger}`, `created ${created}`, run.id].filter(Boolean).join(" · ");
}

/** "step 212 / 300 · 5.8 it/s · loss 0.041 · validation 0.0367 · rate 1.3e-3 · 18 s left". */
function headText(run) {
  const { summary } = run;
  const { loss, rate } = summary.values;
  const living = LIVING.includes(run.state);
  const speed = summary.per_second;
  return [
    run.state === "running" && !run.stopping ? "" : stateText(run),
    whereText(run),
    living && speed ? (speed >= 1 ? `${speed.toFixed(1)} it/s` : `${(1 / speed).toFixed(1)} s/it`) : "",
    loss !== undefined ? `loss ${numberText(loss)}` : "",
    summary.validation !== null ? `validation ${numberText(summary.validation)}` : "",
    living && rate !== undefined ? `rate ${numberText(rate)}` : "",
    living && Number.isFinite(summary.eta_s ?? NaN) ? `${duration(summary.eta_s)} left` : "",
  ].filter(Boolean).join(" · ");
}

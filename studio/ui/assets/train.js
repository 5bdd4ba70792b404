// The Train tab: data and form of a new run on the left with the list of runs, the run that is looked at on the right.

import * as api from "./api.js";
import { bytes, debounce, el, toast, turns } from "./dom.js";
import { bring } from "./motion.js";
import { DataCard } from "./train-data.js";
import { TrainForm } from "./train-form.js";
import { RunList } from "./train-list.js";
import { RunView } from "./train-run.js";
import { LIVING } from "./train-store.js";

export class TrainTab {
  #chosen = false; // whether the user picked the run that is shown
  #loaded = false;
  #wanted = null; // the run to show once the tab is there
  #saved = "";
  #memory = "";
  #estimated = turns();
  #duplicated = turns();

  /** `use(run)` puts a finished LoRA into the prompt; `browser()` names this browser. */
  constructor(store, { use, browser }) {
    this.store = store;
    const actions = {
      select: (id) => this.#select(id),
      act: (id, action) => said(store.act(id, action)),
      remove: (run) => this.#remove(run),
      duplicate: (id) => this.#duplicate(id),
      use,
    };
    this.form = new TrainForm({ changed: () => this.#changed(), start: (config) => this.#start(config), browser });
    this.data = new DataCard({ settings: () => this.#dataSettings(), chosen: (path) => this.form.set("method.data.path", path), changed: () => this.#plan() });
    this.list = new RunList(store, actions);
    this.view = new RunView(store, actions);
    this.reestimate = debounce(() => this.#estimate(), 500);
    this.reinspect = debounce(() => this.data.report && this.data.inspect(), 800);
    store.subscribe(() => {
      this.form.back();
      this.#draw();
    });
  }

  mount(panel) {
    panel.classList.add("ls-train");
    const left = el("div", { class: "ls-train-left" });
    const right = el("div", { class: "ls-train-right" });
    this.data.mount(left);
    this.form.mount(left);
    this.list.mount(left);
    this.view.mount(right);
    panel.replaceChildren(left, right);
    this.mounted = true;
    this.#draw();
    if (this.#wanted) this.#select(this.#wanted);
    new IntersectionObserver((seen) => seen.some((each) => each.isIntersecting) && this.#opened()).observe(panel);
  }

  async #opened() {
    this.view.draw();
    if (this.#loaded) return;
    this.#loaded = true;
    try {
      await this.form.load();
      this.data.load();
      this.data.show(this.form.value("method.data.path") ?? "");
      this.form.form.dataset.ready = "yes";
      this.#plan();
    } catch (error) {
      this.#loaded = false;
      toast(error.message, "bad");
    }
  }

  #draw() {
    if (!this.mounted) return;
    const runs = this.store.newest;
    if (!this.store.runs.has(this.view.id) || !this.#chosen) {
      const best = runs.find((run) => LIVING.includes(run.state)) ?? (this.store.runs.has(this.view.id) ? this.store.runs.get(this.view.id) : runs[0]);
      this.view.show(best?.id ?? null);
    }
    this.list.draw(this.view.id);
    this.view.draw();
    this.#plan();
  }

  /** Show this run, also when the tab is not on the page yet. */
  open(id) {
    this.#wanted = id;
    if (this.mounted) this.#select(id);
  }

  #select(id) {
    this.#chosen = true;
    this.view.show(id);
    this.list.draw(id);
    this.view.draw();
    if (matchMedia("(width <= 980px)").matches) requestAnimationFrame(() => this.view.card.scrollIntoView({ block: "start" })); // there it is far below
  }

  async #start(config) {
    const record = await api.trainingCreate(config);
    this.store.merge(record);
    this.#select(record.id);
    toast(record.state === "queued" ? `${record.name} waits for its turn.` : `${record.name} begins.`, "good");
  }

  async #remove(run) {
    try {
      await this.store.remove(run.id);
      toast(`${run.name} is in the trash: outputs/runs/.trash`, "good");
    } catch (error) {
      toast(error.message, "bad");
    }
  }

  /** The form as this run was started; what is changed then makes another run. */
  async #duplicate(id) {
    const newest = this.#duplicated();
    try {
      const { config } = await api.trainingRun(id);
      if (!newest()) return;
      if (!config) throw new Error("The configuration of this run cannot be read.");
      this.form.fill(config);
      this.data.show(config.method.data?.path ?? "");
      bring(this.form.form, "start");
      toast("The form has this run's configuration now.", "good");
    } catch (error) {
      toast(error.message, "bad");
    }
  }

  /** The form changed: the data card is there only for methods that have a data set, and reads again what depends on the form. */
  #changed() {
    const path = this.form.value("method.data.path");
    this.data.root.hidden = path === undefined;
    const now = JSON.stringify(this.#dataSettings());
    if (this.#saved && now !== this.#saved) this.reinspect();
    this.#saved = now;
    this.reestimate();
    this.#plan();
  }

  #dataSettings() {
    const { data, batch } = this.form.config().method;
    const { pictures, captions, side, path, ...given } = data ?? {}; // a model from nothing says these of its own drawings; the path is the data card's
    return { ...given, ...(side ? { resolution: side } : {}), batch: batch ?? 1 };
  }

  /** Ask how much memory the run would take; a form that is not right yet says nothing of it. */
  async #estimate() {
    const newest = this.#estimated();
    const told = await api.trainingEstimate(this.form.config()).catch(() => null);
    if (!newest()) return;
    this.#memory = told ? `about ${bytes(told.training)} of memory, ${bytes(told.loading)} while loading` : "";
    this.#plan();
  }

  #plan() {
    if (!this.form.form?.dataset.ready) return;
    const config = this.form.config().method;
    const perStep = this.store.secondsPerStep(config.model);
    const samples = this.data.report?.expectation?.samples;
    const pictures = (config.steps ?? 0) * (config.batch ?? 1) * (config.optimizer?.accumulate ?? 1);
    const passes = samples ? pictures / samples : 0;
    const words = passes ? `${passes >= 10 ? Math.round(passes) : passes.toFixed(1)} passes over the data` : "";
    this.form.setPlan({ seconds: (config.steps ?? NaN) * perStep, data: words, memory: this.#memory });
  }
}

/** Wait for an answer; a failure is said aloud. */
async function said(answer) {
  try {
    return await answer;
  } catch (error) {
    toast(error.message, "bad");
    return null;
  }
}

// The list of training runs: what trains, what waits, what has ended; each with what can be done next.

import { arrange, button, duration, el, setText, show } from "./dom.js";
import { LIVING, numberText, RESUMABLE, whereText } from "./train-store.js";

const MARKS = { running: "●", paused: "◖", queued: "○", stopped: "■", interrupted: "◐", failed: "✕", finished: "✓" };
const WORDS = { running: "trains", paused: "pauses", queued: "waits", stopped: "stopped, can resume", interrupted: "interrupted, can resume", failed: "failed, can resume", finished: "finished" };

/** A run's state in words. */
export function stateText(run) {
  if (run.stopping) return "saves and stops";
  if (run.state === "paused" && run.paused_for_painting) return "pauses for a picture";
  if (run.state === "queued" && run.position) return run.position === 1 ? "waits, is next" : `waits, number ${run.position}`;
  return WORDS[run.state] ?? run.state;
}

export class RunList {
  /** `select(id)` shows a run, `act(id, action)` asks something of it, `remove(run)` puts it into the trash, `use(run)` uses its LoRA. */
  constructor(store, actions) {
    this.store = store;
    this.actions = actions;
  }

  mount(panel) {
    this.count = el("span", { class: "ls-faint" });
    this.rows = el("div", { class: "ls-runs", role: "list" });
    this.none = el("p", { class: "ls-faint" }, "No run yet. Name a data set and press Start training.");
    panel.append(el("section", { class: "ls-card", id: "train_runs", "aria-label": "Runs" }, el("header", {}, el("b", {}, "Runs"), this.count), this.none, this.rows));
  }

  draw(selected) {
    const runs = this.store.newest;
    const waiting = runs.filter((run) => run.state === "queued").length;
    setText(this.count, waiting ? `${waiting} waiting` : "");
    show(this.none, this.store.known && !runs.length);
    const kept = new Map([...this.rows.children].map((row) => [row.dataset.run, row]));
    const wanted = runs.map((run) => {
      const key = `${run.state}/${run.stopping}/${run.lora}`;
      let row = kept.get(run.id);
      if (!row || row.dataset.key !== key) {
        const focused = row?.contains(document.activeElement);
        row = this.#row(run);
        row.dataset.key = key;
        if (focused) queueMicrotask(() => row.querySelector("button")?.focus());
      }
      this.#update(row, run, run.id === selected);
      return row;
    });
    arrange(this.rows, wanted);
  }

  #row(run) {
    const mark = el("span", { class: `ls-run-mark ${run.state}`, "aria-hidden": "true" }, MARKS[run.state] ?? "·");
    const choose = el("button", { type: "button", class: "ls-run-open", on: { click: () => this.actions.select(run.id) } }, mark, el("span", { class: "ls-run-text" }, el("b", {}, run.name), el("small", { class: "ls-faint" })));
    return el("div", { class: `ls-run ${run.state}`, role: "listitem", data: { run: run.id } }, choose, ...this.#buttons(run), el("i", { class: "ls-thin" }));
  }

  #buttons(run) {
    const small = (words, action, title) => button(words, () => this.actions.act(run.id, action), { kind: "small", title });
    const found = [];
    if (run.state === "running" && run.obeys.includes("pause") && !run.stopping) found.push(small("pause", "pause", "Wait at the next step edge; frees the device"));
    if (run.state === "paused" && !run.stopping) found.push(small("resume", "resume", "Train on"));
    if (LIVING.includes(run.state) && !run.stopping) found.push(small("stop", "stop", "Save and end; it can be resumed"));
    if (run.state === "queued") found.push(small("take out", "stop", "Wait no longer"));
    if (RESUMABLE.includes(run.state)) found.push(small("resume", "resume", "Train on from what was saved"));
    if (run.lora) found.push(button("use", () => this.actions.use(run), { kind: "small", title: "Put this LoRA into the prompt" }));
    return found;
  }

  #update(row, run, selected) {
    const { summary } = run;
    row.classList.toggle("now", selected);
    row.firstChild.setAttribute("aria-pressed", String(selected));
    const left = LIVING.includes(run.state) && Number.isFinite(summary.eta_s ?? NaN) ? `${duration(summary.eta_s)} left` : "";
    const fell = summary.first_validation && summary.validation ? `validation ${fallen(summary.validation / summary.first_validation - 1)}` : "";
    const where = ["finished"].includes(run.state) ? `${summary.total} steps` : whereText(run);
    setText(row.querySelector("small"), [stateText(run), where, left, run.state === "finished" ? fell : ""].filter(Boolean).join(" · "));
    const thin = row.querySelector(".ls-thin");
    show(thin, LIVING.includes(run.state));
    thin.style.width = summary.total ? `${(100 * summary.step) / summary.total}%` : "0";
  }
}

const fallen = (share) => `${share > 0 ? "+" : "−"}${numberText(Math.abs(Math.round(share * 100)))} %`;

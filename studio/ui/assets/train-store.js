// What is known of the training runs: the server's records, newest first. It draws nothing.

import * as api from "./api.js";

export const LIVING = ["running", "paused"];
export const RESUMABLE = ["stopped", "interrupted", "failed"];
const REMEMBERED = 200;

export class RunStore {
  #listeners = new Set();
  #gone = new Set(); // ids of runs that are no more; an answer that tells of one of them is a late one

  constructor() {
    this.runs = new Map();
    this.known = false; // whether the server has told of its runs yet
  }

  /** Call `listener()` after every change. */
  subscribe(listener) {
    this.#listeners.add(listener);
  }

  /** One `training` message of the stream: all runs (`whole`), or those that changed and those that are gone. */
  apply({ whole, runs, gone }) {
    for (const id of whole ? [...this.runs.keys()] : gone) this.#forget(id);
    for (const record of runs) {
      this.#gone.delete(record.id);
      this.runs.set(record.id, record);
    }
    this.known = true;
    this.#tell();
  }

  /** A record that an order was answered with: the stream may have told of later changes before it arrived. */
  merge(record) {
    if (this.#gone.has(record.id) || record.revision < (this.runs.get(record.id)?.revision ?? 0)) return;
    this.runs.set(record.id, record);
    this.#tell();
  }

  get newest() {
    return [...this.runs.values()].sort((a, b) => b.created - a.created || (a.id < b.id ? -1 : 1));
  }

  get active() {
    return this.newest.some((run) => LIVING.includes(run.state));
  }

  /** Seconds a step took in the newest run like this one; NaN when there was none. */
  secondsPerStep(model) {
    const like = this.newest.find((run) => run.model === model && run.summary.per_second && run.summary.stage === "train");
    return like ? 1 / like.summary.per_second : NaN;
  }

  /** Ask something of a run; answers its record. Throws what the server says. */
  async act(id, action) {
    const record = await api.trainingAct(id, action);
    this.merge(record);
    return record;
  }

  async remove(id) {
    await api.trainingDelete(id);
    this.#forget(id);
    this.#tell();
  }

  #forget(id) {
    this.runs.delete(id);
    this.#gone.add(id);
    if (this.#gone.size > REMEMBERED) this.#gone.delete(this.#gone.values().next().value);
  }

  #tell() {
    for (const listener of this.#listeners) listener();
  }
}

/** "step 212 / 300": where a run is; the stage where it is not the training itself. */
export function whereText(run) {
  const { stage, step, total, starting } = run.summary;
  if (!total || starting) return run.state === "running" ? "starting…" : "";
  return `${stage && stage !== "train" ? `${stage.replaceAll("-", " ")} ` : "step "}${step} / ${total}`;
}

/** A measured number with the digits that matter. */
export function numberText(value) {
  if (value === 0) return "0";
  const size = Math.abs(value);
  if (size >= 1e6 || size < 1e-3) return value.toExponential(2).replace(/\.?0+e/, "e").replace("e+", "e");
  return String(Number(value.toPrecision(size >= 100 ? 4 : 3)));
}

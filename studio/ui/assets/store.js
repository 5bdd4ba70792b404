// What is known of the jobs, built from the server's events. It draws nothing: views ask it, and are told of changes.

import * as api from "./api.js";

const KEPT = 60;

/** A job as the views see it: the server's record and what its events told since. */
function view(record) {
  return {
    id: record.id,
    status: record.status,
    request: record.request,
    check: record.source === "reproduce", // a picture painted again to be compared: it is shown where that was asked for
    options: record.options ?? {},
    created: record.created,
    started: record.started,
    finished: record.finished,
    error: record.error ?? null,
    progress: record.progress ?? 0,
    message: "",
    images: new Map((record.images ?? []).map((image) => [image.index, image])),
    steps: new Map(), // batch -> Map(step -> {step, total, sigma, kept, urls})
    last: null, // the newest progress event
    rate: 0, // steps a second, smoothed
    seconds: 0,
    stepsKnown: false,
  };
}

const hasEnded = (job) => !["queued", "running"].includes(job.status);

export class Store {
  #listeners = new Set();
  #fetching = new Map();

  constructor() {
    this.jobs = new Map();
    this.engine = { state: "starting", message: "" };
    this.reach = "there"; // the server: "there", "away", or "locked" when it asks for a login
    this.boot = null;
  }

  /** Call `listener(what)` after every change; `what` is the job that changed, or null. */
  subscribe(listener) {
    this.#listeners.add(listener);
  }

  #tell(job = null, event = null) {
    for (const listener of this.#listeners) listener(job, event);
  }

  get running() {
    for (const job of this.jobs.values()) if (job.status === "running") return job;
    return null;
  }

  /** Waiting jobs, next first. */
  get waiting() {
    return [...this.jobs.values()].filter((job) => job.status === "queued").sort((a, b) => a.id - b.id);
  }

  /** All jobs, newest first. */
  get newest() {
    return [...this.jobs.values()].sort((a, b) => b.id - a.id);
  }

  /** Jobs with pictures that somebody wanted, newest first. */
  get pictured() {
    return this.newest.filter((job) => job.images.size && !job.check);
  }

  /** Read everything from the server: at start, and when events were missed. */
  async load() {
    const [state, recent, active] = await Promise.all([api.state(), api.jobs(), api.activeJobs()]);
    this.setEngine(state.engine ?? state);
    const kept = this.jobs;
    this.jobs = new Map();
    for (const record of [...recent, ...active]) {
      const known = kept.get(record.id);
      const fresh = view(record);
      if (known) Object.assign(fresh, { steps: known.steps, last: known.last, rate: known.rate, stepsKnown: false });
      this.jobs.set(record.id, fresh);
    }
    for (const [id, job] of kept) if (!this.jobs.has(id) && hasEnded(job)) this.jobs.set(id, job); // older ones that are still looked at
    this.#prune();
    const running = this.running;
    if (running) await this.loadSteps(running);
    this.#tell();
    return state;
  }

  /** Fetch the step previews of a job once, so that its strip can be shown. */
  async loadSteps(job) {
    if (job.stepsKnown) return;
    job.stepsKnown = true;
    try {
      const told = await api.jobSteps(job.id);
      for (const event of told.events ?? told) this.#step(job, event);
      this.#tell(job);
    } catch (error) {
      job.stepsKnown = error.status !== 0;
    }
  }

  setEngine(info) {
    this.engine = info;
    this.#tell();
  }

  setReach(reach) {
    if (this.reach === reach) return;
    this.reach = reach;
    this.#tell();
  }

  /** Put a record into the store, keeping what its events told. */
  merge(record) {
    const known = this.jobs.get(record.id);
    if (!known) {
      const fresh = view(record);
      this.jobs.set(record.id, fresh);
      this.#prune();
      return fresh;
    }
    const { images, steps, last, rate, stepsKnown } = known;
    Object.assign(known, view(record), { steps, last, rate, stepsKnown });
    for (const [index, image] of images) if (!known.images.has(index)) known.images.set(index, image);
    return known;
  }

  /** One event of the stream. */
  async apply(entry) {
    const { job_id: id, event } = entry;
    let job = this.jobs.get(id);
    if (!job) {
      job = await this.#fetch(id);
      if (!job) return;
    }
    this[`on_${event.type}`]?.(job, event, entry);
    this.#tell(job, event);
  }

  #fetch(id) {
    if (!this.#fetching.has(id)) {
      const read = api
        .job(id)
        .then((record) => this.merge(record))
        .catch(() => null)
        .finally(() => this.#fetching.delete(id));
      this.#fetching.set(id, read);
    }
    return this.#fetching.get(id);
  }

  #prune() {
    const ended = this.newest.filter(hasEnded);
    for (const job of ended.slice(KEPT)) this.jobs.delete(job.id);
  }

  on_queued(job) {
    if (job.status !== "running") job.status = "queued";
  }

  on_started(job, event, entry) {
    Object.assign(job, { status: "running", started: entry.at, message: "", progress: 0, error: null, stepsKnown: true });
  }

  on_status(job, event) {
    job.message = event.message;
  }

  on_progress(job, event) {
    job.message = "";
    this.#step(job, event);
  }

  on_image(job, event, entry) {
    job.images.set(event.index, {
      id: event.image_id,
      job_id: job.id,
      index: event.index,
      url: event.url,
      path: event.path,
      seed: event.seed,
      width: event.width,
      height: event.height,
      infotext: event.infotext,
      warning: event.warning,
      created: entry.at,
    });
  }

  on_finished(job, event, entry) {
    Object.assign(job, { status: event.interrupted ? "interrupted" : "done", finished: entry.at, message: "", seconds: event.seconds });
    if (!event.interrupted) job.progress = 1;
  }

  on_failed(job, event, entry) {
    Object.assign(job, { status: "failed", finished: entry.at, error: event.error, message: "" });
  }

  on_cancelled(job, event, entry) {
    Object.assign(job, { status: "cancelled", finished: entry.at, message: "" });
  }

  #step(job, event) {
    const { batch, batches, step, total, sigma, seconds } = event;
    if (!job.steps.has(batch)) job.steps.set(batch, new Map());
    job.steps.get(batch).set(step, { step, total, sigma, kept: Boolean(event.kept), urls: (event.preview_urls ?? []).map(api.local) });
    const before = job.last;
    const passed = seconds - (before?.seconds ?? 0);
    if (before && before.batch === batch && step > before.step && passed > 0) {
      const now = (step - before.step) / passed;
      job.rate = job.rate ? job.rate * 0.85 + now * 0.15 : now;
    }
    if (!before || batch > before.batch || (batch === before.batch && step >= before.step)) job.last = event;
    if (batches * total > 0) job.progress = Math.min(1, (batch * total + step) / (batches * total));
    job.seconds = Math.max(job.seconds, seconds);
  }
}

/** Seconds until a running job has all its steps; NaN while unknown. */
export function secondsLeft(job) {
  if (!job.last || !job.rate) return NaN;
  const { batch, batches, step, total } = job.last;
  return ((batches - batch - 1) * total + total - step) / job.rate;
}

/** How many pictures a batch makes: one where it is painted in tiles. */
export const picturesAtOnce = (request) => (request.sd_upscale ? 1 : (request.batch_size ?? 1));

/** How many pictures a job makes. That of a plot is known when it has begun. */
export function pictureCount({ request, last, images }) {
  const asked = (request.batch_count ?? 1) * picturesAtOnce(request);
  return request.plot ? Math.max(asked, last?.batches ?? 0, ...[...images.keys()].map((index) => index + 1)) : asked;
}

/** URL of the newest preview of one picture of a batch, or null. */
export function newestPreview(job, batch, within) {
  let newest = 0;
  for (const [step, told] of job?.steps.get(batch) ?? []) if (told.urls[within] && step > newest) newest = step;
  return newest ? job.steps.get(batch).get(newest).urls[within] : null;
}

// Live: the form, painted in few steps while one types. The newest change wins; nothing of it is kept.

import * as api from "./api.js";
import { LiveView } from "./liveview.js";
import { browser } from "./storage.js";

const LIVE = "latent-studio-live";
const STEPS = 6;
const QUIET = 120; // ms without a change after which the form is painted
const LONGEST = 600; // ms of changes without such a pause (a slider is dragged) after which it is painted all the same
const ROUGH = 1000; // ms after which the steps of a slow picture are shown
const WHOLE = ["batch_count", "batch_size", "hires", "sd_upscale", "plot"]; // what only the whole picture has
const DRAWN = -1;

export class Live {
  #asked = "";
  #number = 0;
  #reading = null;
  #over = ""; // the job that the page may still take for running, though this began to be painted, which waits for its end
  #timer = 0;
  #since = 0;
  #urls = [];

  /**
   * `client` is this browser's id, `request()` the form as a request; `seeds([seed, variation seed])` writes both into the form,
   * `generate()` presses Generate.
   */
  constructor(store, { client, request, seeds, generate }) {
    Object.assign(this, { store, client, request, seeds });
    const { on, steps } = kept();
    this.on = on;
    this.steps = steps;
    this.state = "idle"; // "idle", "waits" for the queue, "paints", "bad"
    this.message = ""; // what is waited for, or went wrong
    this.picture = null; // {url, rough, total, seconds, seed, width, height, infotext}
    this.covers = false; // whether the live picture is what the stage shows
    this.began = 0;
    this.last = null; // the newest step of what is painted
    this.view = new LiveView(this, generate);
    store.subscribe((job, event) => event?.type === "started" && !job.check && this.uncover());
  }

  toggle() {
    this.on = !this.on;
    this.#keep();
    this.drop();
    if (this.on) this.changed();
    else this.uncover();
  }

  setSteps(steps) {
    this.steps = steps;
    this.#keep();
    this.changed();
  }

  /** The form may have changed, or takes input from now on. */
  changed() {
    this.view.draw();
    if (this.on) this.#later();
  }

  /** Whatever is asked for or on its way is not wanted: Live is off, or Generate was pressed. */
  drop() {
    clearTimeout(this.#timer);
    this.#since = 0;
    this.#number += 1;
    this.#reading?.abort();
    if (!this.on) this.#asked = "";
    this.#say("idle");
  }

  /** The stage shows a job. */
  uncover() {
    this.covers = false;
    this.view.draw();
  }

  #keep() {
    browser.set(LIVE, JSON.stringify({ on: this.on, steps: this.steps }));
  }

  #say(state, message = "") {
    Object.assign(this, { state, message });
    this.view.draw();
  }

  #later() {
    const now = performance.now();
    this.#since ||= now;
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#ask(), Math.max(0, Math.min(QUIET, this.#since + LONGEST - now)));
  }

  async #ask() {
    this.#since = 0;
    const request = this.#wanted();
    if (!request || this.#drawSeeds(request)) return;
    const asked = JSON.stringify([request, this.steps]);
    if (asked === this.#asked) return;
    this.#asked = asked;
    // Numbers grow over reloads and from window to window, so that the server knows the newest of this browser.
    const number = (this.#number = Math.max(this.#number + 1, Date.now()));
    const reading = (this.#reading = new AbortController());
    const newest = () => number === this.#number;
    try {
      await api.sketch({ ...request, client: this.client, number, live_steps: this.steps }, (event) => newest() && this.#told(event), reading.signal);
    } catch (error) {
      if (newest()) this.#failed(error.message);
    }
  }

  /** What decides about a live picture; null while a seed is being typed. */
  #wanted() {
    const { variation, styles, ...request } = this.request();
    const unused = request.branch?.origin ? WHOLE : [...WHOLE, "steps", "schedule"];
    for (const name of unused) delete request[name];
    const varied = variation?.strength > 0 ? { variation } : {};
    const typing = [request.seed, ...(varied.variation ? [variation.seed] : [])].some((seed) => typeof seed !== "number");
    return typing ? null : { ...request, ...varied, styles: styles ?? [] };
  }

  /** Seeds that are open are drawn once and written into the form, which asks again: else each picture would be another. */
  #drawSeeds({ seed, variation }) {
    if (seed !== DRAWN && variation?.seed !== DRAWN) return false;
    const [fresh, other] = crypto.getRandomValues(new Uint32Array(2));
    const written = this.request().variation?.seed ?? DRAWN;
    this.seeds([seed === DRAWN ? fresh : seed, variation?.seed === DRAWN ? other : written]);
    return true;
  }

  #told(event) {
    switch (event.type) {
      case "queued":
        return this.#say("waits", "waits for the queue");
      case "started":
        this.began = performance.now();
        this.#over = this.store.running?.id ?? "";
        this.last = null;
        return this.#say("paints");
      case "status":
        if (!this.last) this.began = performance.now(); // loading a model is no painting
        return this.#say("paints", event.message);
      case "progress":
        return this.#step(event);
      case "image":
        return this.#show(event);
      case "failed":
        return this.#failed(event.error.message);
      case "cancelled":
        this.#asked = "";
        return this.#say("idle", "another window of this browser paints");
      default:
        return undefined;
    }
  }

  #failed(message) {
    this.#asked = "";
    this.#say("bad", message);
  }

  #step(event) {
    this.last = event;
    if (performance.now() - this.began < ROUGH) return;
    const [preview] = event.previews;
    if (preview && !this.#waits()) {
      this.picture = { url: this.#url("image/jpeg", preview), rough: true };
      this.covers = true;
    }
    this.#say("paints", `step ${event.step} / ${event.total}`);
  }

  #show({ png, seed, width, height, infotext }) {
    const seconds = (performance.now() - this.began) / 1000;
    this.picture = { url: this.#url("image/png", png), rough: false, total: this.last?.total ?? this.steps, seconds, seed, width, height, infotext };
    this.covers = !this.#waits();
    this.#say("idle");
  }

  /** Whether a job runs, as far as the page knows, that what is painted here did not wait for. */
  #waits() {
    return Boolean(this.store.running) && this.store.running.id !== this.#over;
  }

  /** A picture's URL on this page; the one before stays good while the next is being read. `text` is base64 with the letters that are safe in URLs. */
  #url(type, text) {
    const bytes = Uint8Array.from(atob(text.replaceAll("-", "+").replaceAll("_", "/")), (letter) => letter.charCodeAt(0));
    this.#urls.push(URL.createObjectURL(new Blob([bytes], { type })));
    if (this.#urls.length > 2) URL.revokeObjectURL(this.#urls.shift());
    return this.#urls.at(-1);
  }
}

/** How this browser left it. */
function kept() {
  const { on, steps } = browser.read(LIVE) ?? {};
  return { on: on === true, steps: [4, 5, 6, 7, 8].includes(steps) ? steps : STEPS };
}

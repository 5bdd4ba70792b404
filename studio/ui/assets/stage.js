// The stage: the picture, its progress, its steps, the pictures of the job, and what can be done with them.

import * as api from "./api.js";
import { lineageNodes } from "./branch.js";
import { canBranch, sizeOf } from "./hires.js";
import { Frame } from "./frame.js";
import { Lightbox } from "./lightbox.js";
import { button, copy, download, el, inFrame, setText, show, sigmaText, toast } from "./dom.js";
import { newestPreview, pictureCount, picturesAtOnce } from "./store.js";
import { StepTools } from "./steptools.js";
import { Strip } from "./strip.js";
import { Tiles } from "./tiles.js";
import { emptyText, endSpeed, endText, liveSpeed, liveText } from "./words.js";

const PLAY_SECONDS = 2.4;

export class Stage {
  #playing = 0;
  #forgive = () => {}; // takes the message of the last failure away

  /** `send(job, image)` fills the form from a picture; `inspect(image)` opens it in PNG Info; `branch(job, index, step)` fills it to go on from a step; `begin(image)` begins with it; `trained` knows the runs of LoRAs. */
  constructor(store, { send, inspect, branch, begin, folder, trained }) {
    this.store = store;
    this.actions = { send, inspect, branch, begin, folder, trained };
    this.job = null; // the job that is shown
    this.index = 0; // the picture of it
    this.step = null; // the step of it; null is the newest, or the finished picture
    this.follow = true; // go on to the next job when it starts, and to the next picture when it is ready
    this.draw = inFrame(() => this.#draw());
    this.lightbox = new Lightbox({ move: (by) => this.#moveTo(this.index + by), save: () => this.#save() });
    store.subscribe((job, event) => this.#heard(job, event));
  }

  mount(panel) {
    this.strip = new Strip((step) => this.#scrub(step));
    this.tiles = new Tiles((index) => this.#choose(index));
    this.frame = new Frame({ enlarge: () => this.#enlarge(), running: () => this.showRunning(), key: (event) => this.#key(event) });
    this.parts = {
      bar: el("div", { class: "ls-bar", role: "progressbar", "aria-label": "Progress", "aria-valuemin": "0", "aria-valuemax": "100" }, el("i")),
      said: el("span"),
      speed: el("span"),
      slider: el("input", { type: "range", min: "1", step: "1", "aria-label": "Step", class: "ls-range" }),
      scrub: el("div", { class: "ls-scrub" }),
      stepText: el("span", { class: "ls-steptext" }),
      lineage: el("ul", { class: "ls-lineage", "aria-label": "What this picture was branched from" }),
      runs: el("div", { class: "ls-actions", hidden: true }),
      info: el("pre", { class: "ls-info", tabindex: "0", "aria-label": "Generation parameters" }),
      warning: el("p", { class: "ls-warning" }),
    };
    const p = this.parts;
    p.play = button("play steps", () => this.#play(), { picture: "play", kind: "small", title: "Show all steps one after the other" });
    this.tools = new StepTools({ shown: () => this.#shown(), branch: this.actions.branch, save: () => this.#save(), changed: this.draw });
    p.scrub.append(p.play, p.slider, p.stepText, this.tools.root);
    p.buttons = this.#buttons();
    p.slider.addEventListener("input", () => this.#scrub(this.#drawnAt(Number(p.slider.value))));
    this.panel = panel;
    panel.classList.add("ls-card");
    panel.replaceChildren(
      this.frame.root,
      p.bar,
      el("div", { class: "ls-meta", "aria-live": "off" }, p.said, p.speed),
      this.strip.root,
      p.scrub,
      this.tiles.root,
      p.warning,
      p.buttons,
      p.lineage,
      p.runs,
      p.info,
    );
    this.draw();
  }

  #buttons() {
    const folder = button("", () => this.#openFolder(), { picture: "folder", kind: "small", title: "Open the pictures' folder" });
    show(folder, this.actions.folder);
    return el(
      "div",
      { class: "ls-actions" },
      folder,
      button("save", () => this.#save(), { picture: "save", kind: "small", title: "Download this picture" }),
      button("zip", () => this.#zip(), { picture: "zip", kind: "small", title: "Download all pictures of this job" }),
      button("to txt2img", () => this.#send(), { picture: "send", kind: "small", title: "Fill the form with this picture's parameters" }),
      button("to img2img", () => this.actions.begin(this.image), { picture: "image", kind: "small", title: "Begin with this picture (B on the stage)" }),
      button("to PNG Info", () => this.actions.inspect(this.image), { picture: "send", kind: "small", title: "Read this picture in PNG Info" }),
      button("copy", () => copy(this.image?.infotext ?? ""), { picture: "copy", kind: "small", title: "Copy the parameters below" }),
    );
  }

  /** The finished picture that is shown, or null while it is being painted. */
  get image() {
    return this.job?.images.get(this.index) ?? null;
  }

  get #batchSize() {
    return this.job ? picturesAtOnce(this.job.request) : 1;
  }

  get #batch() {
    return Math.floor(this.index / this.#batchSize);
  }

  get #within() {
    return this.index % this.#batchSize;
  }

  get #steps() {
    return this.job?.steps.get(this.#batch) ?? null;
  }

  get #isLive() {
    return this.job?.status === "running";
  }

  #heard(job, event) {
    if (!job) {
      // Everything was read anew: the shown job may be another object now.
      this.job = this.job ? (this.store.jobs.get(this.job.id) ?? null) : null;
      if (!this.job || this.follow) this.#showNewest();
      if (this.job) this.store.loadSteps(this.job); // what came while nobody listened
    } else if (event?.type === "started" && !job.check && (this.follow || !this.job)) {
      this.#show(job, 0);
    } else if (job === this.job && this.follow && this.step === null) {
      if (event?.type === "progress") this.index = Math.max(this.index, event.batch * this.#batchSize);
    }
    if (event?.type === "image" && event.warning) toast(event.warning, "warn");
    if (event?.type === "failed" && (this.follow || job === this.job)) this.#failed(job);
    if (event?.type === "image") this.#forgive();
    this.draw();
  }

  #showNewest() {
    const running = this.store.running;
    const job = running && !running.check ? running : this.store.pictured[0];
    if (!job || job === this.job) return;
    const pictures = [...job.images.keys()];
    this.#show(job, job.status === "running" ? (job.last?.batch ?? 0) * picturesAtOnce(job.request) : Math.min(...pictures));
  }

  #show(job, index, step = null) {
    this.#stop();
    Object.assign(this, { job, index, step });
    this.store.loadSteps(job);
    this.draw();
  }

  /** Show a job of the past, or the running one, because the user asked for it. */
  open(wanted, index = null) {
    const job = this.store.jobs.get(wanted.id) ?? wanted;
    this.follow = job.status === "running" || job === this.store.running;
    this.#show(job, index ?? Math.min(...job.images.keys(), pictureCount(job) - 1));
  }

  #failed(job) {
    this.#forgive = toast(job.error?.message, "bad");
  }

  /** Generate was pressed and made job `id`: show it when it starts, or now, with what went wrong, if its events came before that answer. */
  expect(id) {
    this.follow = true;
    const job = this.store.jobs.get(id);
    if (job && job !== this.job && job.status !== "queued") this.#show(job, 0);
    if (job?.status === "failed") this.#failed(job);
  }

  /** Follow what is painted now and next. */
  showRunning() {
    this.follow = true;
    this.step = null;
    this.#showNewest();
    this.draw();
  }

  #choose(index) {
    this.follow = this.#isLive && index >= (this.job.last?.batch ?? 0) * this.#batchSize;
    this.#show(this.job, index, this.step && this.#isLive ? null : this.step);
  }

  #moveTo(index) {
    if (!this.job || !this.job.images.has(index)) return;
    this.#choose(index);
  }

  /** Show one step; the last one of a finished picture is the picture itself. */
  #scrub(step) {
    this.#stop();
    this.#setStep(step);
  }

  #setStep(step) {
    const total = this.#total();
    this.step = step === null || (step >= total && this.image) ? null : step;
    if (this.step !== null) this.follow = false;
    this.draw();
  }

  #total() {
    const newest = [...(this.#steps?.values() ?? [])].at(-1);
    return newest?.total ?? this.job?.request.steps ?? 0;
  }

  #drawnAt(step) {
    const drawn = this.strip.drawn();
    return drawn.reduce((best, each) => (Math.abs(each - step) < Math.abs(best - step) ? each : best), drawn.at(-1) ?? step);
  }

  #play() {
    if (this.#playing) return this.#stop(true);
    const drawn = this.strip.drawn();
    if (drawn.length < 2) return;
    let at = 0;
    const next = () => {
      if (at >= drawn.length) return this.#stop(true);
      this.#setStep(drawn[at]);
      at += 1;
    };
    this.#playing = setInterval(next, Math.max(60, Math.min(300, (PLAY_SECONDS * 1000) / drawn.length)));
    next();
  }

  #stop(toEnd = false) {
    if (!this.#playing) return;
    clearInterval(this.#playing);
    this.#playing = 0;
    if (toEnd) this.#setStep(null);
    this.draw();
  }

  #stepUrl(step) {
    return this.#steps?.get(step)?.urls[this.#within] ?? null;
  }

  /** The step that is on the stage, as a number, also when the finished picture stands for the last one. */
  get #shownStep() {
    if (this.step !== null) return this.step;
    if (this.image) return this.#total();
    const told = [...(this.#steps?.keys() ?? [])];
    return told.length ? Math.max(...told) : 0;
  }

  get #place() {
    return { job: this.job, batch: this.#batch, within: this.#within };
  }

  /** The step on the stage, for its tools. */
  #shown() {
    const step = this.#shownStep;
    return { ...this.#place, index: this.index, step, preview: this.#stepUrl(step), picture: this.#shownUrl() };
  }

  #shownUrl() {
    if (this.step !== null) return this.tools.decoded(this.#place, this.step) ?? this.#stepUrl(this.step);
    if (this.image) return api.local(this.image.url);
    return newestPreview(this.job, this.#batch, this.#within);
  }

  #save() {
    if (this.image) download(api.imageDownloadUrl(this.image.id));
  }

  #zip() {
    const ids = [...(this.job?.images.values() ?? [])].map((image) => image.id);
    api.zipUrls(ids).forEach(download);
  }

  #send() {
    if (this.image) this.actions.send(this.job, this.image);
  }

  async #openFolder() {
    try {
      await api.openFolder(this.image?.id ?? 0);
    } catch (error) {
      toast(error.message, "bad");
    }
  }

  #enlarge() {
    const url = this.#shownUrl();
    if (url) this.lightbox.show(url, this.image?.infotext ?? "");
  }

  #key(event) {
    const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (by) this.#moveTo(this.index + by);
    else if (event.key === "Enter" || event.key === " ") this.#enlarge();
    else if (event.key === "b" && !event.ctrlKey && !event.metaKey && this.image) this.actions.begin(this.image);
    else return;
    event.preventDefault();
  }

  #draw() {
    if (!this.parts) return;
    const p = this.parts;
    const { job } = this;
    const url = job ? this.#shownUrl() : null;
    const request = job?.request;
    this.panel.dataset.job = job?.id ?? "";
    this.panel.dataset.status = job?.status ?? "";
    const stepShown = this.step !== null;
    const running = this.store.running;
    this.frame.draw({
      url,
      alt: request ? `${stepShown ? `Step ${this.step} of ` : ""}${request.prompt || "picture without prompt"}` : "",
      empty: emptyText(job),
      painted: this.#isLive,
      size: request ? sizeOf(request, this.image) : [16, 10],
      badge: stepShown ? `step ${this.step}${this.tools.decoded(this.#place, this.step) ? " · full quality" : ""}` : "",
      back: Boolean(running) && !(this.follow && job === running),
    });
    this.#drawProgress();
    this.#drawSteps();
    this.tiles.draw(job, this.index);
    const image = this.image;
    show(p.buttons, Boolean(image));
    show(p.info, Boolean(image));
    setText(p.info, image?.infotext ?? "");
    this.actions.trained.fill(p.runs, image?.infotext ?? "");
    this.#drawLineage();
    const warning = image?.warning ?? (job?.status === "failed" ? job.error?.message : "") ?? "";
    setText(p.warning, warning);
    show(p.warning, Boolean(warning));
    this.lightbox.update(url, image?.infotext ?? "");
  }

  #drawLineage() {
    const { lineage } = this.parts;
    const branch = this.job?.request.branch ?? null;
    show(lineage, Boolean(branch));
    if (this.lineageOf === branch) return;
    this.lineageOf = branch;
    lineage.replaceChildren(...(branch ? lineageNodes(this.store, this.job, (job, index) => this.open(job, index)) : []));
  }

  #drawProgress() {
    const p = this.parts;
    const { job } = this;
    const percent = job ? Math.round(job.progress * 1000) / 10 : 0;
    const live = this.#isLive;
    p.bar.firstChild.style.width = `${live ? percent : 0}%`;
    p.bar.setAttribute("aria-valuenow", String(Math.round(percent)));
    p.bar.classList.toggle("busy", live && !job.last);
    p.bar.classList.toggle("idle", !live);
    if (!job) {
      setText(p.said, "");
      setText(p.speed, "");
      return;
    }
    setText(p.said, live ? liveText(job) : endText(job, this.index));
    setText(p.speed, live ? liveSpeed(job) : endSpeed(job));
  }

  #drawSteps() {
    const p = this.parts;
    const { job } = this;
    const steps = this.#steps;
    const total = job ? this.#total() : 0;
    const live = this.#isLive && !this.image;
    const any = Boolean(steps?.size) || (live && job?.options.preview_every !== 0);
    show(this.strip.root, Boolean(job) && any);
    if (job && any) {
      this.strip.draw({
        key: `${job.id}/${this.#batch}/${this.#within}`,
        steps,
        within: this.#within,
        total,
        current: this.#shownStep,
        live,
        final: this.image ? api.local(this.image.url) : null,
      });
    }
    const drawn = job && any ? this.strip.drawn() : [];
    const scrubbable = drawn.length > 1;
    show(p.scrub, scrubbable);
    if (!scrubbable) return;
    p.slider.max = String(total);
    if (document.activeElement !== p.slider || Number(p.slider.value) !== this.#shownStep) p.slider.value = String(this.#shownStep);
    p.slider.style.setProperty("--fill", `${total > 1 ? ((this.#shownStep - 1) / (total - 1)) * 100 : 100}%`);
    const told = steps?.get(this.#shownStep);
    setText(p.stepText, `${this.#shownStep}/${total}${told ? ` · σ ${sigmaText(told.sigma)}` : ""}`);
    setText(p.play.lastChild, this.#playing ? "stop" : "play steps");
    p.play.firstChild.className = `ls-i ls-i-${this.#playing ? "pause" : "play"}`;
    p.play.disabled = live;
    this.tools.draw({ scrubbed: this.step !== null, kept: Boolean(told?.kept), left: canBranch(job?.request, this.#shownStep, total) });
  }
}

// The queue card (what runs, what waits, what went wrong) and the pictures of the last jobs.

import * as api from "./api.js";
import { arrange, button, duration, el, icon, inFrame, plural, setSource, setText, show, toast } from "./dom.js";
import { finalSize } from "./hires.js";
import { browser } from "./storage.js";
import { pictureCount, secondsLeft } from "./store.js";

const RECENT = 24;
const TROUBLES = 4;
const SEEN = "latent-studio-put-aside";
const KEPT_ASIDE = 100;

export class QueueCard {
  #aside = new Set(readAside());

  /** `open(job)` puts a job on the stage. */
  constructor(store, open) {
    this.store = store;
    this.open = open;
    this.draw = inFrame(() => this.#draw());
    store.subscribe(() => this.draw());
  }

  mount(panel) {
    this.count = el("span", { class: "ls-faint" });
    this.rows = el("div", { class: "ls-queue", role: "list" });
    this.recent = el("div", { class: "ls-recent", role: "list", "aria-label": "Last jobs" });
    this.queueCard = el(
      "section",
      { class: "ls-card", id: "ls-queue-card", "aria-label": "Queue" },
      el("header", {}, el("b", {}, "Queue"), this.count),
      this.rows,
    );
    this.recentCard = el("section", { class: "ls-card", "aria-label": "Recent" }, el("header", {}, el("b", {}, "Recent")), this.recent);
    panel.replaceChildren(this.queueCard, this.recentCard);
    this.draw();
  }

  #draw() {
    if (!this.rows) return;
    const { running, waiting } = this.store;
    const troubles = this.#troubles();
    setText(this.count, waiting.length ? `${waiting.length} waiting` : running ? "" : "nothing waiting");
    const wanted = [...(running ? [["run", running]] : []), ...waiting.map((job) => ["wait", job]), ...troubles.map((job) => ["bad", job])];
    keyed(this.rows, wanted, ([kind, job]) => `${kind}${job.id}`, ([kind, job]) => this.#row(kind, job));
    wanted.forEach(([kind, job], index) => this.#update(this.rows.children[index], kind, job, running ? index : index + 1));
    show(this.rows, wanted.length > 0);
    this.#drawRecent();
  }

  /** Failed jobs, and those a stopped server left, newest first, until the user has put them aside. */
  #troubles() {
    return this.store.newest.filter((job) => job.error && !job.check && !this.#aside.has(job.id) && ["failed", "interrupted"].includes(job.status)).slice(0, TROUBLES);
  }

  #row(kind, job) {
    const words = job.request.prompt || "without prompt";
    const named = { class: "ls-what", title: job.request.prompt };
    const what = kind === "wait" ? el("span", named, words) : el("button", { type: "button", ...named, on: { click: () => this.open(job) } }, words);
    const details = el("small", { class: "ls-faint" });
    const place = el("span", { class: "ls-place" });
    const row = el("div", { class: `ls-job ${kind}`, role: "listitem", data: { job: job.id } }, place, el("div", { class: "ls-jobtext" }, what, details));
    if (kind === "bad") {
      place.append(icon("warn"));
      row.append(
        button("retry", ({ currentTarget }) => this.#retry(job, currentTarget), { kind: "small", title: "Put it into the queue again" }),
        button("", () => this.#dismiss(job), { picture: "close", kind: "bare", title: "Put aside" }),
      );
    } else {
      const title = kind === "run" ? "Interrupt this job" : "Take it out of the queue";
      row.append(button("", () => this.#cancel(job), { picture: "close", kind: "bare", title }));
      if (kind === "run") row.append(el("i", { class: "ls-thin" }));
    }
    return row;
  }

  #update(row, kind, job, position) {
    const { request } = job;
    const count = request.plot && !job.last && !job.images.size ? "plot" : plural(pictureCount(job), "picture");
    const size = `${plural(request.steps, "step")} · ${count} · ${finalSize(request).join("×")}`;
    const details = row.querySelector(".ls-jobtext small");
    if (kind === "bad") {
      setText(details, job.error.message ?? "It failed.");
    } else if (kind === "run") {
      const left = duration(secondsLeft(job));
      setText(details, [job.message || size, left && `${left} left`].filter(Boolean).join(" · "));
      setText(row.querySelector(".ls-place"), `${Math.round(job.progress * 100)}%`);
      row.querySelector(".ls-thin").style.width = `${job.progress * 100}%`;
    } else {
      setText(details, size);
      setText(row.querySelector(".ls-place"), String(position));
    }
  }

  #drawRecent() {
    const jobs = this.store.pictured.filter((job) => job.status !== "running").slice(0, RECENT);
    show(this.recentCard, jobs.length > 0);
    keyed(this.recent, jobs, (job) => `${job.id}/${job.images.size}`, (job) => {
      const words = `${job.request.prompt || "without prompt"}, ${plural(job.images.size, "picture")}`;
      const more = job.images.size > 1 ? el("span", { class: "ls-more" }, String(job.images.size)) : null;
      const picture = el("img", { alt: "", loading: "lazy" });
      setSource(picture, api.smallUrl(job.images.get(Math.min(...job.images.keys()))));
      return el("button", { type: "button", class: "ls-tile", title: words, "aria-label": words, on: { click: () => this.open(job) } }, picture, more);
    });
  }

  async #cancel(job) {
    await told(api.cancelJob(job.id));
  }

  async #retry(job, pressed) {
    pressed.disabled = true; // pressed twice, it would be painted twice
    if (await told(api.retryJob(job.id))) this.#dismiss(job);
    else pressed.disabled = false;
  }

  #dismiss(job) {
    this.#aside = new Set([...readAside(), job.id]); // another tab may have put some aside meanwhile
    browser.set(SEEN, JSON.stringify([...this.#aside].slice(-KEPT_ASIDE)));
    this.draw();
  }
}

/** Ids of the failed jobs that were put aside in this browser. */
function readAside() {
  const ids = browser.read(SEEN);
  return Array.isArray(ids) ? ids : [];
}

/** Wait for an answer; a failure is said aloud. */
async function told(answer) {
  try {
    return (await answer) ?? true;
  } catch (error) {
    toast(error.message, "bad");
    return null;
  }
}

/** Make `parent` hold one child per item, in order, keeping the children whose key stays. */
function keyed(parent, items, keyOf, make) {
  const kept = new Map([...parent.children].map((child) => [child.dataset.key, child]));
  const wanted = items.map((item) => {
    const key = String(keyOf(item));
    let child = kept.get(key);
    if (!child) {
      child = make(item);
      child.dataset.key = key;
    }
    return child;
  });
  arrange(parent, wanted);
}

// The right end of the quick row: worker, queue, colours; and the window's title.

import { button, bytes, el, inFrame, setText, show } from "./dom.js";
import { bring } from "./motion.js";
import { browser } from "./storage.js";

const THEME = "latent-studio-theme";
const UNREACHED = { away: "server not reachable", locked: "logged out" };

export class Status {
  constructor(store) {
    this.store = store;
    this.draw = inFrame(() => this.#draw());
    store.subscribe(() => this.draw());
  }

  mount(panel) {
    this.dot = el("span", { class: "ls-dot", "aria-hidden": "true" });
    this.words = el("span", { class: "ls-worker", role: "status" });
    this.count = el("b", {}, "0");
    const queue = el("button", { type: "button", class: "ls-btn", id: "ls_queue_count", title: "To the queue", on: { click: () => toQueue() } }, el("span", {}, "Queue"), this.count);
    const theme = button("", () => toggleTheme(), { picture: "theme", title: "Light or dark", id: "ls_theme" });
    panel.classList.add("ls-status");
    this.login = el("a", { href: "login?next=/", class: "ls-btn small", id: "ls_login", hidden: true }, "log in");
    panel.replaceChildren(el("div", { class: "ls-workerline" }, this.dot, this.words, this.login), queue, theme);
    this.draw();
  }

  /** Draw the eye to the queue: a job went into it. */
  flash() {
    const node = this.count.parentElement;
    node.classList.remove("ls-flash");
    requestAnimationFrame(() => node.classList.add("ls-flash"));
  }

  #draw() {
    const { running, waiting, engine, reach } = this.store;
    if (this.words) {
      const [mood, words] = reach === "there" ? workerWords(engine, running) : ["bad", UNREACHED[reach]];
      this.dot.className = `ls-dot ${mood}`;
      setText(this.words, words);
      this.words.title = engine.message ?? "";
      setText(this.count, String(waiting.length + (running ? 1 : 0)));
      show(this.login, reach === "locked");
    }
    const title = running
      ? `[${Math.round(running.progress * 100)}%] ${waiting.length ? `+${waiting.length} ` : ""}Latent Studio`
      : "Latent Studio";
    if (document.title !== title) document.title = title;
  }
}

/** How the worker is, as [colour of the dot, words]. */
function workerWords(engine, running) {
  const where = [engine.device, engine.dtype].filter((part) => part && part !== "none").join(" ").replace("float", "fp").replace("bfp", "bf");
  const facts = [where, bytes(engine.memory)].filter(Boolean);
  const said = (words) => [words, ...facts].join(" · ");
  if (running || engine.state === "busy") return ["busy", said(running?.message || "painting")];
  switch (engine.state) {
    case "ready":
      return ["good", said("ready")];
    case "starting":
      return ["wait", engine.message ? `starting: ${engine.message}` : "starting…"];
    case "failed":
      return ["bad", engine.message ? `failed: ${engine.message}` : "failed"];
    default:
      return ["off", engine.message || "stopped"];
  }
}

/** Set the colours of the page; "dark", "light" or "system". */
export function setTheme(theme) {
  browser.set(THEME, theme);
  document.dispatchEvent(new CustomEvent("latent-studio-theme", { detail: theme }));
}

function toggleTheme() {
  setTheme(document.documentElement.dataset.theme === "dark" ? "light" : "dark");
}

function toQueue() {
  selectTab("txt2img");
  bring(document.getElementById("ls-queue-card"), "center");
}

/** Go to a tab by its id. */
export function selectTab(id) {
  document.getElementById(`tab_${id}-button`)?.click();
}

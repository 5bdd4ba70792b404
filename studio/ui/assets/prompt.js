// The two prompt fields: token counters, coloured weights, weight keys, dropping a picture, and the tool row.

import * as api from "./api.js";
import { button, debounce, el, inFrame, setText, toast, turns } from "./dom.js";
import { installDrops, ownPicture } from "./drops.js";
import { changeWeight, pieces } from "./weights.js";

const FIELDS = { prompt: "txt2img_prompt", negative_prompt: "txt2img_neg_prompt" };
const LOOKS_LIKE_INFOTEXT = /(^|\s)Steps:\s*\d+\s*,/; // in SD.Next's texts not at the beginning of a line

/** The textarea of a prompt field. */
export const area = (name = "prompt") => document.querySelector(`#${FIELDS[name]} textarea`);

let current = "prompt";
/** The prompt field that was in use last. */
export const currentArea = () => area(current);
/** The texts of both prompt fields. */
export const texts = () => Object.keys(FIELDS).map((name) => area(name)?.value ?? "");

/** Replace the text as if it had been typed, so that Gradio hears of it. */
export function type(node, text, start = text.length, end = start) {
  if (!node) return;
  node.value = text;
  node.dispatchEvent(new Event("input", { bubbles: true }));
  node.setSelectionRange(start, end);
}

export class Prompts {
  #asked = turns();

  /** `fill(parcel)` puts values into the form; `last()` is the newest finished picture or null. */
  constructor({ fill, last }) {
    this.fill = fill;
    this.last = last;
    this.counters = {};
    this.backs = {};
    this.counted = {};
  }

  /** The fields are on the page: dress them. */
  mount() {
    for (const [name, id] of Object.entries(FIELDS)) {
      const host = document.getElementById(id);
      const node = area(name);
      const counter = el("span", { class: "ls-counter", title: "Tokens used, and where the current part of 75 ends", "aria-live": "off" }, "0/75");
      const back = el("div", { class: "ls-back", "aria-hidden": "true" });
      node.parentElement.classList.add("ls-area");
      node.parentElement.prepend(back);
      host.append(counter);
      const paint = inFrame(() => this.#paint(name));
      node.addEventListener("input", paint);
      node.addEventListener("focus", () => (current = name));
      node.addEventListener("scroll", () => (back.scrollTop = node.scrollTop));
      new ResizeObserver(paint).observe(node);
      node.addEventListener("keydown", (event) => this.#weightKey(event, node));
      this.counters[name] = counter;
      this.backs[name] = { back, node, paint };
      this.#acceptDrops(host);
    }
    const open = () => Boolean(area().offsetParent) && !area().closest("[inert]");
    installDrops({ open, read: (file) => this.readFile(file) });
  }

  /** `more` are buttons of others for the tool row. */
  mountTools(panel, ...more) {
    panel.classList.add("ls-chips");
    panel.replaceChildren(
      button("read", () => this.#read(), { picture: "read", kind: "chip", id: "paste", title: "Read generation parameters from the prompt, or from the last picture when it is empty" }),
      button("clear", () => this.#clear(), { picture: "close", kind: "chip", id: "txt2img_clear_prompt", title: "Empty both prompts" }),
      ...more,
      el("span", { class: "ls-faint ls-hint" }, "Ctrl ↵ generates · Ctrl ↑↓ weighs words · drop a picture to read it"),
    );
  }

  /** The form has changed. */
  update(form) {
    for (const name of Object.keys(FIELDS)) {
      this.backs[name]?.paint();
      if (form[name] !== this.counted[name]) this.#count(name, form[name] ?? "");
    }
  }

  #timers = {};

  #count(name, text) {
    this.counted[name] = text;
    this.#timers[name] ??= debounce(async (latest) => {
      try {
        const { used, limit } = await api.tokens(latest);
        if (this.counted[name] === latest) this.#showCount(name, used, limit);
      } catch {
        setText(this.counters[name], "–/75");
      }
    }, 250);
    if (!text) this.#showCount(name, 0, 75);
    else this.#timers[name](text);
  }

  #showCount(name, used, limit) {
    setText(this.counters[name], `${used}/${limit}`);
    this.counters[name].classList.toggle("long", used > 75);
  }

  #paint(name) {
    const { back, node } = this.backs[name];
    const parts = pieces(node.value);
    const plain = parts.length === 1;
    back.replaceChildren(...(plain ? [] : parts.map(({ text, kind }) => (kind === "plain" ? text : el("mark", { class: kind }, text)))), plain ? "" : "\n");
    back.style.width = `${node.clientWidth}px`;
    back.scrollTop = node.scrollTop;
  }

  #weightKey(event, node) {
    const by = { ArrowUp: 1, ArrowDown: -1 }[event.key];
    if (!by || !(event.ctrlKey || event.metaKey) || event.altKey || event.shiftKey) return;
    event.preventDefault();
    const changed = changeWeight(node.value, node.selectionStart, node.selectionEnd, by);
    if (changed) type(node, changed.text, changed.start, changed.end);
  }

  #acceptDrops(host) {
    const over = (event) => {
      if (![...event.dataTransfer.types].includes("Files")) return;
      event.preventDefault();
      host.classList.add("ls-over");
    };
    host.addEventListener("dragenter", over);
    host.addEventListener("dragover", over);
    host.addEventListener("dragleave", (event) => host.contains(event.relatedTarget) || host.classList.remove("ls-over"));
    host.addEventListener("drop", (event) => {
      host.classList.remove("ls-over");
      const file = event.dataTransfer.files[0];
      const text = event.dataTransfer.getData("text/plain");
      const own = ownPicture(event.dataTransfer);
      if (own !== null) {
        event.preventDefault();
        event.stopPropagation();
        this.readOwn(own);
      } else if (file) {
        event.preventDefault();
        event.stopPropagation();
        this.readFile(file);
      } else if (LOOKS_LIKE_INFOTEXT.test(text)) {
        event.preventDefault();
        this.readText(text);
      }
    });
  }

  /** Fill the form from a picture of this page, of which a tile may have been dropped. */
  async readOwn(id) {
    const blob = await api.picture(api.imageDownloadUrl(id)).catch((error) => toast(error.message, "bad"));
    if (blob instanceof Blob) await this.readFile(new File([blob], `${id}.png`, { type: blob.type }));
  }

  /** Fill the form from a picture (or a text file) that was dropped. */
  async readFile(file) {
    const newest = this.#asked();
    try {
      if (file.type.startsWith("text/")) return await this.readText(await file.text());
      const info = await api.pictureInfo(file);
      if (!newest()) return undefined;
      if (!info.infotext) return toast(info.notes?.[0] ?? "This picture carries no generation parameters.", "warn");
      this.fill({ request: info.request, notes: info.notes, whole: true });
      return toast(`Read from ${file.name}.`, "good");
    } catch (error) {
      return newest() ? toast(error.message, "bad") : undefined;
    }
  }

  async readText(text) {
    const newest = this.#asked();
    try {
      const { request, notes } = await api.infotext(text);
      if (!newest()) return;
      this.fill({ request, notes, whole: true });
      toast("Parameters read.", "good");
    } catch (error) {
      if (newest()) toast(error.message, "bad");
    }
  }

  #read() {
    const text = area().value;
    if (LOOKS_LIKE_INFOTEXT.test(text)) return this.readText(text);
    const last = this.last();
    if (!text.trim() && last?.infotext) return this.readText(last.infotext);
    return toast(
      text.trim() ? "The prompt holds no generation parameters. Paste a picture's text there, or drop the picture." : "There is no picture yet to read from.",
      "warn",
    );
  }

  #clear() {
    const before = Object.keys(FIELDS).map((name) => [area(name), area(name).value]);
    if (before.every(([, text]) => !text)) return;
    for (const [node] of before) type(node, "");
    area().focus();
    const undo = () => before.forEach(([node, text]) => type(node, text));
    toast("Both prompts are empty now.", "info", { words: "undo", run: undo });
  }
}

// The prompt inspector: what the prompts come to, asked of the server while one types. Nothing is asked while it is closed.

import * as api from "./api.js";
import { chunkCards, weightText } from "./chunks.js";
import { button, debounce, el, icon, plural, setText, show } from "./dom.js";
import { area, type } from "./prompt.js";
import { choose, installArrows } from "./roving.js";
import { browser } from "./storage.js";
import { hasSchedule, stepsText, Wordings } from "./wordings.js";

const SIDES = { prompt: "Prompt", negative_prompt: "Negative prompt" };
const ASKED = [...Object.keys(SIDES), "styles", "steps", "sampler", "seed", "emphasis", "old_prompt_editing", "model"];
const WAIT = 250;
const CHOICES = 3;
const OPEN = "latent-studio-inspector";

export class Inspector {
  #form = {};
  #asked = "";
  #number = 0;
  #answer = null;
  #side = "prompt";

  constructor() {
    this.button = button("inspect", () => this.toggle(), {
      picture: "inspect",
      kind: "chip",
      id: "txt2img_inspect",
      title: "Chunks, tokens, weights and steps of the prompt (Alt I)",
      "aria-expanded": "false",
      "aria-controls": "ls_inspector",
    });
    this.wordings = new Wordings((branch, segment) => this.#showSegment(branch, segment));
    this.ask = debounce(() => this.#ask(), WAIT);
  }

  mount(panel) {
    this.panel = panel;
    panel.id = "ls_inspector";
    panel.classList.add("ls-inspector");
    this.tabs = Object.fromEntries(Object.entries(SIDES).map(([side, words]) => [side, this.#tab(side, words)]));
    this.status = el("span", { class: "ls-faint" });
    this.trouble = el("p", { class: "ls-inspector-trouble ls-bad", role: "status", hidden: true });
    this.mentions = el("ul", { class: "ls-mentions", "aria-label": "What the prompt names" });
    this.drawn = el("p", { class: "ls-drawn" });
    this.about = el("p", { class: "ls-dim ls-about" });
    this.chunks = el("div", { class: "ls-chunklist" });
    this.notes = el("ul", { class: "ls-notes" });
    this.body = el("div", { role: "tabpanel", class: "ls-inspector-body", id: "ls_inspector_body" }, this.mentions, this.drawn, this.wordings.root, this.about, this.chunks, this.notes);
    const list = el("div", { class: "ls-chips", role: "tablist", "aria-label": "Which prompt" }, Object.values(this.tabs));
    installArrows(list, "[role=tab]", (tab) => tab.click());
    panel.replaceChildren(el("header", {}, list, this.status), this.trouble, this.body);
    this.#open(browser.get(OPEN) === "yes");
  }

  #tab(side, words) {
    const tab = el("button", { type: "button", role: "tab", class: "ls-btn chip", "aria-selected": String(side === this.#side), "aria-controls": "ls_inspector_body", tabindex: side === this.#side ? "0" : "-1", data: { side } }, words, el("span", { class: "ls-wrongs", hidden: true }));
    tab.addEventListener("click", () => this.#turn(side));
    return tab;
  }

  get open() {
    return this.button.getAttribute("aria-expanded") === "true";
  }

  toggle() {
    if (!this.panel) return;
    const open = !this.open;
    browser.set(OPEN, open ? "yes" : "no");
    this.#open(open);
  }

  #open(open) {
    this.button.setAttribute("aria-expanded", String(open));
    show(this.panel, open);
    if (open) this.again();
  }

  /** Ask anew, as files may have changed. */
  again() {
    this.#asked = "";
    this.#ask();
  }

  /** The form has changed. */
  update(form) {
    this.#form = Object.fromEntries(ASKED.map((name) => [name, form[name]]).filter(([, value]) => value !== null && value !== undefined));
    if (this.open && JSON.stringify(this.#form) !== this.#asked) this.ask();
  }

  /** Answers may come out of order: only that to the newest question counts. */
  async #ask() {
    const asked = JSON.stringify(this.#form);
    if (!this.open || asked === this.#asked) return;
    this.#asked = asked;
    const number = ++this.#number;
    this.panel.setAttribute("aria-busy", "true");
    let trouble = "";
    try {
      const answer = await api.inspectPrompt(this.#form);
      if (number !== this.#number) return;
      this.#answer = answer;
    } catch (error) {
      if (number !== this.#number) return;
      trouble = error.message;
      this.#asked = "";
    }
    this.panel.removeAttribute("aria-busy");
    setText(this.trouble, trouble);
    show(this.trouble, Boolean(trouble));
    this.body.classList.toggle("stale", Boolean(trouble));
    if (!trouble) this.#draw();
  }

  #turn(side) {
    this.#side = side;
    choose(Object.values(this.tabs), this.tabs[side]);
    if (this.#answer) this.#draw();
  }

  #draw() {
    const { steps, calls } = this.#answer;
    for (const name of Object.keys(SIDES)) {
      const wrong = this.#answer[name].mentions.filter((mention) => mention.problem).length;
      const mark = this.tabs[name].querySelector(".ls-wrongs");
      setText(mark, String(wrong));
      mark.title = `${plural(wrong, "problem")} in it`;
      show(mark, wrong > 0);
    }
    setText(this.status, calls === steps ? plural(steps, "step") : `${plural(steps, "step")}, ${calls} model calls`);
    const side = this.#answer[this.#side];
    const more = side.more_mentions ? [el("li", { class: "ls-faint" }, `… and ${side.more_mentions} more, not looked up`)] : [];
    this.mentions.replaceChildren(...side.mentions.map((mention) => this.#mention(mention)), ...more);
    const lead = side.drawn === "seed" ? "Drawn by the seed: " : "Drawn by the seed, which is open; for example: ";
    this.drawn.replaceChildren(...(side.drawn === "no" ? [] : [el("span", { class: "ls-faint" }, lead), side.wording]));
    this.notes.replaceChildren(...side.notes.map((note) => el("li", {}, note)));
    for (const list of [this.mentions, this.drawn, this.notes]) show(list, list.childNodes.length > 0);
    show(this.wordings.root, hasSchedule(side.branches));
    this.wordings.draw(side, this.#answer);
  }

  #showSegment(index, place) {
    const side = this.#answer[this.#side];
    const branch = side.branches[index];
    const segment = branch.segments[place];
    const wording = branch.wordings[segment.wording];
    const where = hasSchedule(side.branches) ? [side.branches.length > 1 && `part ${index + 1}, weight ${weightText(branch.weight)}`, stepsText(segment, this.#answer)] : [];
    if (!wording) {
      setText(this.about, [...where, "too many wordings: this one was not looked into"].filter(Boolean).join(" · "));
      return this.chunks.replaceChildren();
    }
    if (branch.segments.length > 1) where.push(wording.own ? `“${wording.own}”` : "nothing");
    const count = wording.chunks.length + wording.more_chunks;
    const size = wording.tokens ? `${plural(wording.tokens, "token")} in ${plural(count, "chunk")}` : "no words: a chunk of padding";
    setText(this.about, [...where, size].filter(Boolean).join(" · "));
    return this.chunks.replaceChildren(chunkCards(wording));
  }

  #mention(mention) {
    const { kind, text, detail, problem, choices, place } = mention;
    const words = text || "prompt";
    const chip = place
      ? el("button", { type: "button", class: "ls-mention", title: "Select it in the prompt", on: { click: () => this.#select(mention) } }, el("span", {}, words))
      : el("span", { class: "ls-mention" }, el("span", {}, words));
    chip.classList.add(problem ? "wrong" : kind);
    if (!problem) {
      if (detail && !text.includes(detail)) chip.append(el("small", {}, detail));
      return el("li", {}, chip);
    }
    const fixes = place && ["lora", "hypernetwork", "wildcard"].includes(kind) ? choices.slice(0, CHOICES) : [];
    return el("li", { class: "wide" }, icon("warn"), chip, el("span", {}, problem), fixes.map((name) => button(`use ${name}`, () => this.#replace(mention, name), { kind: "chip", title: `Write ${name} instead` })));
  }

  /** Where a mention stands in the field now, in JavaScript's units; -1 when it is gone. */
  #find({ text, place }) {
    const value = area(this.#side).value;
    const start = [...value].slice(0, place.start).join("").length;
    return value.startsWith(text, start) ? start : value.indexOf(text);
  }

  #select(mention) {
    const start = this.#find(mention);
    if (start < 0) return;
    area(this.#side).focus();
    area(this.#side).setSelectionRange(start, start + mention.text.length);
  }

  #replace(mention, name) {
    const start = this.#find(mention);
    if (start < 0) return;
    const { kind, text } = mention;
    const fresh = kind === "wildcard" ? `__${name}__` : text.replace(/^<(\w+):[^:>]*/, (_, tag) => `<${tag}:${name}`);
    const node = area(this.#side);
    node.focus();
    type(node, node.value.slice(0, start) + fresh + node.value.slice(start + text.length), start, start + fresh.length);
  }
}

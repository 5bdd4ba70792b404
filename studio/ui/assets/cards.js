// Pickers of what a prompt can use, LoRAs and embeddings: cards with search; a click puts one into the prompt, another takes it out.

import * as api from "./api.js";
import { button, debounce, el, setText, show, toast } from "./dom.js";

const SHOWN = 120;

export class Cards {
  #all = null;
  #items = new Map();
  #failure = ""; // why the list could not be read

  /**
   * `kind` is part of class names and ids, `title` the heading, `folder` where the files lie; `list()` asks for them, `preview(name)` is the URL of
   * a picture, `facts(item)` a line of the tooltip; `uses(item)` says whether the prompts use it, `toggle(item)` is what a click does;
   * `origin(item)` is a node below the card that leads to where it comes from, or null.
   */
  constructor(spec) {
    this.spec = spec;
  }

  mount(panel) {
    const { kind, title } = this.spec;
    this.count = el("span", { class: "ls-faint" });
    this.search = el("input", { type: "search", class: "ls-search", placeholder: "search…", "aria-label": `Search: ${title}`, id: `txt2img_${kind}_search` });
    this.cards = el("div", { class: "ls-picks", role: "list" });
    this.hint = el("p", { class: "ls-faint ls-hintline" });
    const again = button("", () => this.refresh(), { picture: "refresh", kind: "bare", title: `Look for new files: ${title}` });
    this.search.addEventListener("input", debounce(() => this.draw(), 120));
    panel.classList.add("ls-card");
    panel.replaceChildren(el("header", {}, el("b", {}, title), this.search, this.count, again), this.cards, this.hint);
    this.load();
  }

  async load() {
    try {
      this.#all = await this.spec.list();
      this.#failure = "";
    } catch (error) {
      this.#all ??= [];
      this.#failure = error.message;
    }
    this.draw();
  }

  async refresh() {
    try {
      await api.refresh();
    } catch (error) {
      toast(error.message, "bad");
    }
    await this.load();
  }

  /** The prompts have changed: mark the cards that they use. */
  update() {
    for (const [card, item] of this.#items) {
      const used = this.spec.uses(item);
      if (card.classList.contains("used") !== used) {
        card.classList.toggle("used", used);
        card.setAttribute("aria-pressed", String(used));
      }
    }
  }

  draw() {
    if (!this.#all) return;
    const { title, folder } = this.spec;
    const words = this.search.value.trim().toLowerCase();
    const found = this.#all.filter((item) => `${item.name} ${item.alias} ${item.trigger}`.toLowerCase().includes(words));
    setText(this.count, this.#all.length ? `${found.length} of ${this.#all.length}` : "");
    this.#items = new Map(found.slice(0, SHOWN).map((item) => [this.#card(item), item]));
    this.cards.replaceChildren(...[...this.#items].map(([card, item]) => el("div", { class: "ls-pick-place", role: "listitem" }, card, this.spec.origin?.(item))));
    show(this.search, this.#all.length > 0);
    show(this.cards, found.length > 0);
    const none = this.#all.length ? `${title}: none has this name.` : `Put files (.safetensors) into the ${folder} folder, then press the arrows.`;
    setText(this.hint, this.#failure ? this.#failure : found.length > SHOWN ? `${found.length - SHOWN} more: search for them.` : found.length ? "" : none);
    show(this.hint, Boolean(this.hint.textContent));
    this.update();
  }

  #card(item) {
    const title = [item.name, this.spec.facts(item), item.problem].filter(Boolean).join("\n");
    const picture = el("span", { class: "ls-pick-picture", style: gradient(item.name) });
    if (item.preview) picture.append(el("img", { src: this.spec.preview(item.name), alt: "", loading: "lazy" }));
    return el(
      "button",
      {
        type: "button",
        class: `ls-pick ls-${this.spec.kind}${item.problem ? " broken" : ""}`,
        title,
        "aria-pressed": "false",
        "aria-disabled": Boolean(item.problem) && "true", // it can be reached, and says why it is of no use
        on: { click: () => (item.problem ? toast(`${item.name}: ${item.problem}`, "warn") : this.spec.toggle(item)) },
      },
      picture,
      el("span", { class: "ls-pick-name" }, item.name.split("/").at(-1)),
    );
  }
}

/** Colours of a card without a picture: always the same for the same name. */
function gradient(name) {
  let hash = 2166136261;
  for (const letter of name) hash = Math.imul(hash ^ letter.codePointAt(0), 16777619) >>> 0;
  const hue = hash % 360;
  return { "--from": `hsl(${hue} 55% 48%)`, "--to": `hsl(${(hue + 60 + (hash >> 9) % 120) % 360} 50% 34%)`, "--angle": `${(hash >> 17) % 180}deg` };
}

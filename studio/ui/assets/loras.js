// The LoRA picker: cards with search; a click puts the tag into the prompt, another takes it out.

import * as api from "./api.js";
import { button, debounce, el, setText, show, toast } from "./dom.js";
import { area, type } from "./prompt.js";
import { hasLora, toggleLora } from "./weights.js";

const SHOWN = 120;

export class Loras {
  #all = null;

  /** `weight()` is what a click inserts. */
  constructor(weight) {
    this.weight = weight;
  }

  mount(panel) {
    this.count = el("span", { class: "ls-faint" });
    this.search = el("input", { type: "search", class: "ls-search", placeholder: "search…", "aria-label": "Search LoRAs", id: "txt2img_lora_search" });
    this.cards = el("div", { class: "ls-loras", role: "list" });
    this.hint = el("p", { class: "ls-faint ls-hintline" });
    const again = button("", () => this.refresh(), { picture: "refresh", kind: "bare", title: "Look for new LoRAs" });
    this.search.addEventListener("input", debounce(() => this.draw(), 120));
    panel.classList.add("ls-card");
    panel.replaceChildren(el("header", {}, el("b", {}, "LoRA"), this.search, this.count, again), this.cards, this.hint);
    this.load();
  }

  async load() {
    try {
      this.#all = await api.loras();
    } catch (error) {
      this.#all ??= [];
      setText(this.hint, error.message);
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

  /** Mark the cards that the prompt uses. */
  update(prompt) {
    for (const card of this.cards?.children ?? []) {
      const used = hasLora(prompt, card.dataset.name);
      if (card.classList.contains("used") !== used) {
        card.classList.toggle("used", used);
        card.setAttribute("aria-pressed", String(used));
      }
    }
  }

  draw() {
    if (!this.#all) return;
    const words = this.search.value.trim().toLowerCase();
    const found = this.#all.filter((lora) => `${lora.name} ${lora.alias} ${lora.trigger}`.toLowerCase().includes(words));
    setText(this.count, this.#all.length ? `${found.length} of ${this.#all.length}` : "");
    this.cards.replaceChildren(...found.slice(0, SHOWN).map((lora) => this.#card(lora)));
    show(this.search, this.#all.length > 0);
    show(this.cards, found.length > 0);
    const none = this.#all.length ? "No LoRA has this name." : "Put LoRA files (.safetensors) into the loras folder, then press the arrows.";
    setText(this.hint, found.length > SHOWN ? `${found.length - SHOWN} more: search for them.` : found.length ? "" : none);
    show(this.hint, Boolean(this.hint.textContent));
    this.update(area()?.value ?? "");
  }

  #card(lora) {
    const title = [lora.name, lora.trigger && `trigger words: ${lora.trigger}`, lora.problem].filter(Boolean).join("\n");
    const picture = el("span", { class: "ls-lora-picture", style: gradient(lora.name) });
    if (lora.preview) picture.append(el("img", { src: api.loraPreviewUrl(lora.name), alt: "", loading: "lazy" }));
    return el(
      "button",
      {
        type: "button",
        class: `ls-lora${lora.problem ? " broken" : ""}`,
        title,
        "aria-pressed": "false",
        disabled: Boolean(lora.problem),
        data: { name: lora.name },
        on: { click: () => this.#toggle(lora) },
      },
      picture,
      el("span", { class: "ls-lora-name" }, lora.name.split("/").at(-1)),
    );
  }

  #toggle(lora) {
    const node = area();
    type(node, toggleLora(node.value, lora.name, this.weight()));
  }
}

/** Colours of a card without a picture: always the same for the same name. */
function gradient(name) {
  let hash = 2166136261;
  for (const letter of name) hash = Math.imul(hash ^ letter.codePointAt(0), 16777619) >>> 0;
  const hue = hash % 360;
  return { "--from": `hsl(${hue} 55% 48%)`, "--to": `hsl(${(hue + 60 + (hash >> 9) % 120) % 360} 50% 34%)`, "--angle": `${(hash >> 17) % 180}deg` };
}

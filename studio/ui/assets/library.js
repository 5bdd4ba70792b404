// The Library tab: checkpoints, LoRAs, embeddings, hypernetworks, upscalers, VAEs, text encoders as lists, and all pictures made so far.

import * as api from "./api.js";
import { button, bytes, copy, debounce, el, plural, setSource, setText, show, toast, turns } from "./dom.js";
import { choose, installArrows } from "./roving.js";

const PAGE = 48;
export const FAMILIES = { sd1: "SD 1", sd2: "SD 2", sdxl: "SDXL", sdxl_refiner: "SDXL refiner", unknown: "unknown" };
const KINDS = [
  ["pictures", "Pictures"],
  ["models", "Checkpoints"],
  ["loras", "LoRA"],
  ["embeddings", "Embeddings"],
  ["hypernetworks", "Hypernetworks"],
  ["upscalers", "Upscalers"],
  ["vaes", "VAE"],
  ["encoders", "Text encoders"],
];

export class Library {
  #shown = "pictures";
  #lists = {};
  #before = null;
  #loaded = false;
  #asked = turns();

  /** `use(name)` selects a checkpoint, `insert(model)` puts a LoRA or an embedding into the prompt, `send(image)` fills the form, `begin(image)` begins with it; `trained` knows the runs of LoRAs. */
  constructor(actions) {
    this.actions = actions;
  }

  mount(panel) {
    this.tabs = KINDS.map(([kind, words]) => button(words, () => this.#turn(kind), { kind: "chip", role: "tab", id: `library_${kind}`, "aria-controls": "library_body" }));
    this.search = el("input", { type: "search", class: "ls-search", placeholder: "search…", "aria-label": "Search the library" });
    this.count = el("span", { class: "ls-faint" });
    this.grid = el("div", { class: "ls-gallery", role: "list" });
    this.more = button("older pictures", () => this.#page(), { kind: "small" });
    this.detail = el("aside", { class: "ls-card ls-detail", tabindex: "-1", "aria-label": "The chosen picture", hidden: true });
    this.list = el("div", { class: "ls-models", role: "list" });
    this.search.addEventListener("input", debounce(() => this.#draw(), 120));
    const head = el(
      "header",
      { class: "ls-card ls-library-head" },
      el("div", { class: "ls-chips", role: "tablist", "aria-label": "What is listed" }, this.tabs),
      this.search,
      this.count,
      button("refresh", () => this.reload(true), { picture: "refresh", kind: "small", title: "Look for new files" }),
    );
    this.body = el("div", { class: "ls-library-body", role: "tabpanel", id: "library_body" }, el("div", { class: "ls-library-main" }, this.grid, this.more, this.list), this.detail);
    panel.replaceChildren(head, this.body);
    installArrows(head, "[role=tab]", (tab) => tab.click());
    // All of the panel: it leaves the window only when another tab of the page is opened, not when somebody scrolls.
    new IntersectionObserver((seen) => seen.some((each) => each.isIntersecting) && this.#opened()).observe(panel);
  }

  #opened() {
    if (!this.#loaded) this.reload();
    else if (this.#shown === "pictures") this.#newer();
  }

  #turn(kind) {
    this.#choose(kind);
    if (kind === "pictures") this.#newer();
  }

  async reload(look = false) {
    this.#loaded = true;
    try {
      if (look) await api.refresh();
      const asked = [api.models(), api.loras(), api.embeddings(), api.hypernetworks(), api.upscalers(), api.vaes(), api.textEncoders()];
      const [models, loras, embeddings, hypernetworks, upscalers, vaes, encoders] = await Promise.all(asked);
      this.#lists = { models, loras, embeddings, hypernetworks, upscalers, vaes, encoders };
    } catch (error) {
      toast(error.message, "bad");
    }
    await this.#fresh();
  }

  async #fresh() {
    this.#before = null;
    this.#choose(this.#shown);
    await this.#page();
  }

  #choose(kind) {
    this.#shown = kind;
    const tab = this.tabs[KINDS.findIndex(([name]) => name === kind)];
    choose(this.tabs, tab);
    this.body.setAttribute("aria-labelledby", tab.id);
    const pictures = kind === "pictures";
    show(this.grid, pictures);
    show(this.more, pictures && this.#before !== null);
    show(this.list, !pictures);
    show(this.detail, pictures && this.detail.childElementCount > 0);
    show(this.search, !pictures);
    this.#draw();
  }

  #draw() {
    if (this.#shown === "pictures") {
      const none = this.grid.childElementCount === 0;
      setText(this.count, none ? "no pictures yet" : `${this.grid.childElementCount} shown`);
      return;
    }
    const words = this.search.value.trim().toLowerCase();
    const all = this.#lists[this.#shown] ?? [];
    const found = all.filter((model) => JSON.stringify([model.name, model.alias, model.trigger, model.family, model.short_hash]).toLowerCase().includes(words));
    setText(this.count, `${found.length} of ${all.length}`);
    const none = el("p", { class: "ls-card ls-faint" }, all.length ? "Nothing has this name." : "There is none here yet.");
    this.list.replaceChildren(...(found.length ? found.map((model) => this.#model(model)) : [none]));
  }

  #model(model) {
    const facts = [
      model.kind === "upscaler" ? model.enlarges && `${model.enlarges}×` : (FAMILIES[model.family] ?? model.family),
      model.native_size && model.kind === "checkpoint" ? `${model.native_size} px` : "",
      model.vectors ? plural(model.vectors, "vector") : "",
      bytes(model.size),
      model.layout === "folder" ? "folder" : "",
      model.inpaint ? "inpainting" : "",
    ].filter(Boolean);
    const hash = model.short_hash ?? model.model_id;
    const actions = {
      checkpoint: () => button("use", () => this.actions.use(model.name), { kind: "small", title: "Select this checkpoint" }),
      lora: () => button("insert", () => this.actions.insert(model), { kind: "small", title: "Put it into the prompt" }),
      embedding: () => button("insert", () => this.actions.insert(model), { kind: "small", title: "Put its name into the prompt" }),
    };
    return el(
      "div",
      { class: `ls-card ls-model${model.problem ? " broken" : ""}`, role: "listitem" },
      el(
        "div",
        { class: "ls-model-text" },
        el("b", {}, model.name),
        el("small", { class: "ls-faint" }, facts.join(" · ")),
        model.trigger ? el("small", {}, `trigger words: ${model.trigger}`) : null,
        model.problem ? el("small", { class: "ls-bad" }, model.problem) : null,
        this.actions.trained.link(model),
      ),
      hash ? button(hash, () => copy(model.sha256 ?? hash), { kind: "small mono", title: "Copy the hash" }) : el("small", { class: "ls-faint" }, "hash pending"),
      model.problem ? null : actions[model.kind]?.(),
    );
  }

  /** The next older pictures; where nothing older is known, the newest instead of all that are shown. */
  async #page() {
    const newest = this.#asked();
    try {
      const images = await api.images(PAGE, this.#before);
      if (!newest()) return;
      const tiles = images.map((image) => this.#tile(image));
      if (this.#before === null) this.grid.replaceChildren(...tiles);
      else this.grid.append(...tiles);
      this.#before = images.length === PAGE ? images.at(-1).id : null;
    } catch (error) {
      toast(error.message, "bad");
    }
    show(this.more, this.#shown === "pictures" && this.#before !== null);
    this.#draw();
  }

  /** What was painted or deleted since the newest pictures were read; the older ones below them stay. */
  async #newer() {
    let images;
    try {
      images = await api.images(PAGE);
    } catch (error) {
      toast(error.message, "bad");
      return;
    }
    const known = new Map([...this.grid.children].map((place) => [Number(place.dataset.image), place]));
    const full = images.length === PAGE;
    if (full && !images.some((image) => known.has(image.id))) {
      await this.#fresh(); // more than a page: there may be others between those and the ones that are shown
      return;
    }
    const listed = new Set(images.map((image) => image.id));
    const [oldest, newest] = [full ? images.at(-1).id : 0, images[0]?.id ?? Infinity];
    for (const [id, place] of known) if (id >= oldest && id <= newest && !listed.has(id)) place.remove();
    const first = Math.max(0, ...known.keys());
    this.grid.prepend(...images.filter((image) => image.id > first).map((image) => this.#tile(image)));
    this.#draw();
  }

  #tile(image) {
    const picture = el("img", { alt: "", loading: "lazy" });
    setSource(picture, api.smallUrl(image));
    const words = image.infotext.split("\n")[0].slice(0, 200) || "picture without prompt";
    const tile = el("button", { type: "button", class: "ls-tile", title: words, "aria-label": words }, picture);
    tile.addEventListener("click", () => {
      this.#mark(tile);
      this.#detail(image);
    });
    return el("div", { role: "listitem", data: { image: image.id } }, tile);
  }

  /** Mark the tile of the picture that is looked at. */
  #mark(tile) {
    this.chosen?.classList.remove("now");
    this.chosen = tile;
    tile?.classList.add("now");
  }

  #detail(image) {
    const url = api.local(image.url);
    const runs = el("div", { class: "ls-actions", hidden: true });
    this.actions.trained.fill(runs, image.infotext);
    this.detail.replaceChildren(
      el("a", { href: url, target: "_blank", rel: "noopener", class: "ls-detail-picture" }, el("img", { src: url, alt: "", width: image.width, height: image.height })),
      el(
        "div",
        { class: "ls-actions" },
        button("Send to txt2img", () => this.actions.send(image), { picture: "send", kind: "go" }),
        button("to img2img", () => this.actions.begin(image), { picture: "image", kind: "small", title: "Begin with this picture" }),
        el("a", { href: api.imageDownloadUrl(image.id), download: "", class: "ls-btn small" }, "save"),
        button("copy", () => copy(image.infotext), { picture: "copy", kind: "small" }),
        button("", () => this.#closeDetail(), { picture: "close", kind: "bare", title: "Close" }),
      ),
      runs,
      el("pre", { class: "ls-info", tabindex: "0" }, image.infotext),
      image.path ? el("small", { class: "ls-faint ls-path" }, image.path) : null,
    );
    show(this.detail, true);
    this.detail.focus(); // which brings it into sight: in a narrow window it is above the pictures, and a screen below
  }

  #closeDetail() {
    const { chosen } = this;
    this.#mark(null);
    this.detail.replaceChildren();
    show(this.detail, false);
    chosen.focus();
  }
}

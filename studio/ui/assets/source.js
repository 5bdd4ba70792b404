// The picture to begin with (img2img) and its mask: a well to drop it into. What counts are the two names in the form, and the well
// follows them, whoever wrote them there.

import * as api from "./api.js";
import { button, debounce, el, setText, show, toast } from "./dom.js";
import { ownPicture } from "./drops.js";
import { MaskPaint } from "./maskpaint.js";
import { sizeFor } from "./sizes.js";
import { Tools } from "./sourcetools.js";

const KINDS = "image/png,image/jpeg,image/webp,image/avif,image/gif";
const QUIET = 350; // ms after a stroke in which another one may begin before the mask is sent
const LONGEST_WRITE = 3000; // ms that the form may take to show what is written into it
const NOTHING = { image: "", mask: "" };

const same = (one, other) => one.image === other.image && one.mask === other.mask;

export class Source {
  #shown = NOTHING; // the names of what the well shows
  #loaded = ""; // the picture that is in `this.picture`
  #writing = null; // names on their way into the form, and who waits for that
  #work = null; // a promise while something is sent to the server or into the form
  #unsent = false; // the mask was painted on since it was sent
  #sendSoon = debounce(() => this.#run(() => this.#send()), QUIET);

  /** `put([picture, mask])` writes names into the form, `size(width, height)` the size of what is painted; `native()` is the checkpoint's side. */
  constructor({ put, size, native }) {
    Object.assign(this, { put, size, native });
    this.open = false;
    this.form = {};
    this.paint = new MaskPaint({ changed: () => this.#painted(), drawn: () => this.#draw() });
    this.tools = new Tools(this);
    document.addEventListener("click", (event) => this.#holdGenerate(event), true);
  }

  mount(panel) {
    this.input = this.#file("img2img_file", "Choose a picture to begin with", (file) => this.choose(file));
    this.maskInput = this.#file("img2img_mask_file", "Choose a mask", (file) => this.#chooseMask(file));
    this.facts = el("span", { class: "ls-faint" });
    this.head = el("button", { type: "button", class: "ls-source-head", "aria-controls": "img2img_well", on: { click: () => this.toggle() } }, el("span", {}, "From a picture (img2img)"), this.facts, el("i", { "aria-hidden": "true" }, "▼"));
    this.said = el("p", { class: "ls-source-said", role: "alert", hidden: true });
    this.zone = el(
      "button",
      { type: "button", class: "ls-source-drop", on: { click: () => this.input.click() } },
      el("span", { class: "ls-drop-words" }, el("b", {}, "Drop a picture here"), el("span", {}, "or click to choose one, or paste it: the next picture begins with it. Mark a part of it, and only that is painted anew.")),
    );
    this.picture = el("img", { class: "ls-source-picture", alt: "The picture to begin with", draggable: "false" });
    this.frame = el("div", { class: "ls-source-frame", tabindex: "0", role: "group", "aria-label": "The picture and its mask" }, this.picture, this.paint.canvas, this.paint.ring);
    this.filled = el("div", { class: "ls-source-filled" }, this.frame, this.tools.root);
    this.leave = button("remove", () => this.remove(), { picture: "close", kind: "small", hidden: true });
    this.body = el("div", { class: "ls-source-well", id: "img2img_well" }, this.said, this.zone, this.leave, this.filled, this.input, this.maskInput);
    this.panel = panel;
    panel.replaceChildren(this.head, this.body);
    this.#listen();
    this.update(this.form);
    this.#draw();
  }

  #file(id, words, take) {
    const input = el("input", { type: "file", accept: KINDS, class: "ls-offscreen", id, "aria-label": words, tabindex: "-1" });
    input.addEventListener("change", () => {
      const [file] = input.files;
      if (file) take(file);
      input.value = "";
    });
    return input;
  }

  #listen() {
    const { panel } = this;
    this.frame.addEventListener("pointerdown", () => this.frame.focus({ preventScroll: true }));
    this.body.addEventListener("keydown", (event) => this.tools.key(event));
    for (const name of ["dragenter", "dragover"])
      panel.addEventListener(name, (event) => {
        event.preventDefault();
        panel.classList.add("ls-over");
      });
    panel.addEventListener("dragleave", (event) => panel.contains(event.relatedTarget) || panel.classList.remove("ls-over"));
    panel.addEventListener("drop", (event) => {
      event.preventDefault();
      panel.classList.remove("ls-over");
      const [file] = event.dataTransfer.files;
      const own = ownPicture(event.dataTransfer);
      if (own !== null) this.finished(own);
      else if (file) this.choose(file);
    });
    document.addEventListener("paste", (event) => {
      const file = [...(event.clipboardData?.files ?? [])].find((each) => each.type.startsWith("image/"));
      if (!file || !this.open || !panel.offsetParent) return;
      event.preventDefault();
      this.choose(file);
    });
  }

  // ---- what a person does

  toggle(open = !this.open) {
    this.open = open;
    this.#draw();
  }

  /** Begin with a picture from a file. */
  choose(file) {
    return this.#begin(() => api.keepPicture(file));
  }

  /** Begin with a picture that was painted here, by its id. */
  finished(id) {
    return this.#begin(() => api.keepFinished(id));
  }

  #begin(keep) {
    this.toggle(true);
    return this.#run(async () => {
      const { name } = await keep();
      this.#unsent = false;
      await this.#show({ image: name, mask: "" });
    });
  }

  remove() {
    this.#run(async () => {
      await this.#send().catch(() => {}); // so that "undo" has all of the mask
      const before = this.#shown;
      const back = () => this.#run(() => this.#show(before));
      await this.#show(NOTHING);
      this.#unsent = false;
      toast("The form begins with noise again.", "info", { words: "undo", run: back });
    });
  }

  chooseOther() {
    this.input.click();
  }

  chooseMask() {
    this.maskInput.click();
  }

  takeSize() {
    this.size(...formSize(this.paint.canvas.width, this.paint.canvas.height));
  }

  /** Its shape, with as many pixels as the checkpoint was made for. */
  takeShape() {
    this.size(...sizeFor(this.native(), this.paint.canvas.width / this.paint.canvas.height));
  }

  #chooseMask(file) {
    this.#run(async () => {
      const { name } = await api.keepPicture(file, true);
      this.paint.replace(await this.#layer(name));
    });
  }

  #painted() {
    this.#unsent = true;
    this.#sendSoon();
  }

  /** Send the mask, and write its name into the form. */
  async #send() {
    if (!this.#unsent) return;
    this.#unsent = false;
    if (!this.#loaded) return; // nothing that a mask could be of
    const { image } = this.#shown;
    try {
      const mask = await this.paint.png();
      const { name } = mask ? await api.keepPicture(mask, true) : { name: "" };
      if (image === this.#shown.image) await this.#write({ image, mask: name }); // else the form has been given another picture
    } catch (error) {
      this.#unsent = image === this.#shown.image;
      throw error;
    }
  }

  /** Do one thing after the other; what goes wrong is said in the well. Settles with whether it went well. */
  #run(task) {
    const work = (async () => {
      await this.#work;
      this.#say("");
      try {
        await task();
        return true;
      } catch (error) {
        this.#say(error.message);
        return false;
      }
    })();
    const ended = work.finally(() => {
      if (this.#work === ended) this.#work = null;
      this.#draw();
    });
    this.#work = ended;
    this.#draw();
    return ended;
  }

  /** Generate is pressed while the mask, or the picture, is still on its way: it waits for that. */
  async #holdGenerate(event) {
    const pressed = event.target.closest?.("#txt2img_generate");
    if (!pressed || !(this.#unsent || this.#work)) return;
    event.preventDefault();
    event.stopImmediatePropagation();
    let good = true;
    while (good && (this.#unsent || this.#work)) good = await (this.#work ?? this.#run(() => this.#send()));
    if (good) pressed.click();
    else toast(this.said.textContent, "bad");
  }

  // ---- the form

  /** Write names into the form, and wait until it has them. */
  #write(names) {
    this.#shown = names;
    if (same(this.#named(), names)) return undefined;
    return new Promise((written) => {
      const writing = { ...names, written };
      this.#writing = writing;
      setTimeout(() => this.#giveUp(writing), LONGEST_WRITE);
      this.put([names.image, names.mask]);
    });
  }

  #written() {
    const { written } = this.#writing;
    this.#writing = null;
    written();
  }

  /** The form has something else: somebody else filled it at that moment. */
  #giveUp(writing) {
    if (this.#writing !== writing) return;
    this.#written();
    this.update(this.form);
  }

  /** The names that the form has. */
  #named() {
    return { image: this.form["source.image"] ?? "", mask: this.form["mask.image"] ?? "" };
  }

  /** The form has changed. */
  update(form) {
    this.form = form;
    if (!this.panel) return;
    const named = this.#named();
    if (this.#writing && same(named, this.#writing)) this.#written();
    if (!this.#writing && !same(named, this.#shown)) {
      this.#unsent = false;
      this.#shown = named;
      this.#run(() => this.#follow(this.#named())); // what it has by then
      if (named.image) this.open = true;
    }
    this.#draw();
  }

  /** Write names into the form and show what they name. */
  async #show(names) {
    await this.#write(names);
    await this.#follow(names);
  }

  /** Show the picture and the mask of these names. */
  async #follow({ image, mask }) {
    if (!image) {
      this.#loaded = "";
      this.paint.reset(1, 1);
      return;
    }
    if (image !== this.#loaded) await this.#load(image);
    const { naturalWidth, naturalHeight } = this.picture;
    this.paint.reset(naturalWidth, naturalHeight);
    if (mask) this.paint.reset(naturalWidth, naturalHeight, await this.#layer(mask));
  }

  async #load(image) {
    this.#loaded = "";
    this.paint.reset(1, 1); // no stroke of the one before can be taken back into this one
    const url = URL.createObjectURL(await this.#kept(image, "picture to begin with"));
    if (this.url) URL.revokeObjectURL(this.url);
    this.url = url;
    this.picture.src = url;
    await this.picture.decode();
    this.#loaded = image;
  }

  async #layer(mask) {
    return this.paint.layer(await createImageBitmap(await this.#kept(mask, "mask")));
  }

  async #kept(name, what) {
    try {
      return await api.picture(api.initImageUrl(name));
    } catch (error) {
      throw error.status === 404 ? new Error(`The ${what} is not kept any more. Choose it again, or remove it.`) : error;
    }
  }

  // ---- what is seen

  #say(words) {
    if (!this.said) return;
    setText(this.said, words);
    show(this.said, Boolean(words));
  }

  #draw() {
    if (!this.panel) return;
    const { width, height } = this.paint.canvas;
    const loaded = Boolean(this.#loaded);
    const { image, mask } = this.#named();
    const classes = { open: this.open, on: Boolean(image), masked: Boolean(image && mask) };
    const host = document.getElementById("img2img_settings");
    for (const [name, has] of Object.entries(classes)) host?.classList.toggle(name, has);
    this.head.setAttribute("aria-expanded", String(this.open));
    show(this.body, this.open);
    show(this.zone, !loaded);
    show(this.leave, !loaded && Boolean(image));
    show(this.filled, loaded);
    this.body.setAttribute("aria-busy", String(Boolean(this.#work)));
    setText(this.facts, loaded ? `${width}×${height}${mask ? " · with a mask" : ""}` : "");
    this.frame.style.setProperty("--ratio", String(width / height));
    if (loaded) this.tools.draw(this.form);
  }
}

const SIDES = { smallest: 64, largest: 2048, by: 8 };

/** The size that the form can have for a picture of this size, in its shape as far as possible. */
export function formSize(width, height) {
  const scale = Math.min(1, SIDES.largest / Math.max(width, height));
  return [width, height].map((side) => Math.max(SIDES.smallest, Math.round((side * scale) / SIDES.by) * SIDES.by));
}

const short = (name) => `${String(name).slice(0, 8)}…`;

/** A picture to begin with, in a few words. */
export const sourceWords = ({ image, denoising_strength: strength, resize_mode: mode }) => [`picture ${short(image)}`, strength !== undefined && `strength ${strength}`, mode].filter(Boolean).join(", ");

/** A mask, in a few words. */
export const maskWords = ({ image, blur, inverted, content, area }) => [`mask ${short(image)}`, inverted && "not masked", blur !== undefined && `blur ${blur}`, content, area].filter(Boolean).join(", ");

// The PNG Info tab: a picture is dropped, pasted or chosen; what is written inside it is shown, and sent to txt2img.

import * as api from "./api.js";
import { button, bytes, copy, el, show, toast, turns } from "./dom.js";
import { lineageWords } from "./branch.js";
import { ownPicture } from "./drops.js";
import { hiresWords } from "./hires.js";
import { plotWords } from "./plot.js";
import { check } from "./reproduce.js";
import { maskWords, sourceWords } from "./source.js";

const LABELS = {
  prompt: "Prompt",
  negative_prompt: "Negative prompt",
  sampler: "Sampling method",
  schedule: "Schedule type",
  steps: "Steps",
  cfg_scale: "CFG scale",
  width: "Width",
  height: "Height",
  seed: "Seed",
  variation_seed: "Variation seed",
  variation_strength: "Variation strength",
  seed_resize: "Resize seed from",
  refiner: "Refiner",
  hires: "Hires. fix",
  sd_upscale: "SD upscale",
  plot: "X/Y/Z plot",
  model: "Checkpoint",
  vae: "VAE",
  text_encoders: "Text encoders",
  vae_encoder: "VAE type for encode",
  vae_decoder: "VAE type for decode",
  clip_skip: "Clip skip",
  emphasis: "Emphasis",
  old_prompt_editing: "Old prompt editing timelines",
  prediction_type: "Prediction type",
  noise_schedule: "Noise schedule",
  fp8_weight: "FP8 weight",
  cache_fp16_weight: "Cache FP16 weight for LoRA",
  deep_cache: "DeepCache interval",
  token_merging_ratio: "Token merging",
  face_restoration: "Faces restored with",
  rng: "Random numbers from",
  source: "Begun with",
  mask: "Painted anew",
  branch: "Branched from",
};

export class PngInfo {
  #asked = turns();

  /** `send(parcel)` fills the form and goes to txt2img, `begin(file)` begins with the picture itself; `trained` knows the runs of LoRAs. */
  constructor({ send, begin, trained }) {
    this.send = send;
    this.begin = begin;
    this.trained = trained;
    this.mounted = new Promise((resolve) => (this.isMounted = resolve));
  }

  mount(panel) {
    this.input = el("input", { type: "file", accept: "image/png,image/jpeg,image/webp,image/avif,image/gif", class: "ls-offscreen", id: "pnginfo_image", "aria-label": "Choose a picture", tabindex: "-1" });
    this.preview = el("img", { class: "ls-drop-picture", alt: "", hidden: true });
    this.words = el("div", { class: "ls-drop-words" }, el("span", { class: "ls-mark", "aria-hidden": "true" }), el("b", {}, "Drop a picture here"), el("p", {}, "or click to choose one, or paste it. PNG, JPEG and WebP; it does not leave this server."));
    this.zone = el("div", { class: "ls-drop", role: "button", tabindex: "0", "aria-label": "Drop or choose a picture" }, this.preview, this.words);
    this.result = el("div", { class: "ls-pnginfo-result", "aria-live": "polite" });
    this.#listen(panel);
    panel.classList.add("ls-two");
    panel.replaceChildren(el("section", { class: "ls-card" }, this.zone, this.input), this.result);
    this.#empty();
    this.isMounted();
  }

  #listen(panel) {
    this.zone.addEventListener("click", () => this.input.click());
    this.zone.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" && event.key !== " ") return;
      event.preventDefault();
      this.input.click();
    });
    this.input.addEventListener("change", () => this.input.files[0] && this.read(this.input.files[0]));
    for (const name of ["dragenter", "dragover"])
      panel.addEventListener(name, (event) => {
        event.preventDefault();
        this.zone.classList.add("ls-over");
      });
    panel.addEventListener("dragleave", (event) => panel.contains(event.relatedTarget) || this.zone.classList.remove("ls-over"));
    panel.addEventListener("drop", (event) => {
      event.preventDefault();
      this.zone.classList.remove("ls-over");
      const own = ownPicture(event.dataTransfer);
      if (own !== null) this.readUrl(api.imageDownloadUrl(own));
      else if (event.dataTransfer.files[0]) this.read(event.dataTransfer.files[0]);
    });
    document.addEventListener("paste", (event) => {
      const file = [...(event.clipboardData?.files ?? [])].find((each) => each.type.startsWith("image/"));
      if (file && this.zone.offsetParent) this.read(file);
    });
  }

  #empty() {
    this.result.replaceChildren(el("section", { class: "ls-card ls-faint" }, el("p", {}, "What the picture was made with appears here: prompt, sampler, seed, model. One click then paints it again.")));
  }

  /** Show what is written inside `file`, a File or Blob. */
  async read(file) {
    const newest = this.#asked();
    if (this.url) URL.revokeObjectURL(this.url);
    this.url = URL.createObjectURL(file);
    this.preview.src = this.url;
    show(this.preview, true);
    show(this.words, false);
    this.input.value = "";
    try {
      const info = await api.pictureInfo(file);
      await this.preview.decode().catch(() => {});
      if (newest()) this.#show(info, file);
    } catch (error) {
      if (newest()) this.result.replaceChildren(el("section", { class: "ls-card" }, el("p", { class: "ls-warning", role: "alert" }, error.message)));
    }
  }

  /** The same for a picture that this server has. */
  async readUrl(url) {
    await this.mounted;
    const newest = this.#asked();
    try {
      const response = await fetch(url);
      if (!response.ok) throw new Error("The picture is not there any more.");
      const file = await response.blob();
      if (newest()) await this.read(file);
    } catch (error) {
      if (newest()) toast(error.message, "bad");
    }
  }

  #show(info, file) {
    const { infotext = "", items = {}, request = {}, notes = [] } = info;
    const parts = [];
    if (notes.length) parts.push(el("section", { class: "ls-card" }, el("ul", { class: "ls-notes" }, notes.map((note) => el("li", {}, note)))));
    if (infotext) parts.push(this.#textCard(infotext, request, notes, file));
    const rows = tableRows(request);
    if (rows.length) parts.push(el("section", { class: "ls-card" }, el("header", {}, el("b", {}, "Parameters")), table(rows)));
    const { naturalWidth: width, naturalHeight: height } = this.preview;
    const facts = [["File", file.name], ["Kind", file.type], ["Size", width ? `${width}×${height}, ${bytes(file.size)}` : bytes(file.size)]];
    const begin = button("to img2img", () => this.begin(file), { picture: "image", kind: "small", id: "pnginfo_begin", title: "Begin with this picture" });
    const others = Object.entries(items).filter(([key]) => key !== "parameters");
    const everything = [...facts, ...others].filter(([, value]) => value !== undefined && value !== null && value !== "");
    if (everything.length) parts.push(el("section", { class: "ls-card" }, el("header", {}, el("b", {}, "In the file")), table(everything), el("div", { class: "ls-actions" }, begin)));
    if (!infotext && !notes.length) parts.unshift(el("section", { class: "ls-card" }, el("p", {}, "This picture carries no generation parameters.")));
    this.result.replaceChildren(...parts);
  }

  #textCard(infotext, request, notes, file) {
    const outcome = el("div", { class: "ls-check", id: "pnginfo_check", "aria-live": "polite", hidden: true });
    const again = button("Paint again and compare", () => check(file, this.url, outcome, again), {
      picture: "play", id: "pnginfo_reproduce", title: "Reproduce check: is every pixel the same, and if not, why?",
    });
    const runs = el("div", { class: "ls-actions", id: "pnginfo_runs", hidden: true });
    this.trained.fill(runs, infotext);
    return el(
      "section",
      { class: "ls-card" },
      el("pre", { class: "ls-info", id: "pnginfo_text", tabindex: "0" }, infotext),
      el(
        "div",
        { class: "ls-actions" },
        button("Send to txt2img", () => this.send({ request, notes, whole: true }), { picture: "send", kind: "go", id: "pnginfo_send" }),
        again,
        button("copy", () => copy(infotext), { picture: "copy", kind: "small" }),
      ),
      runs,
      outcome,
    );
  }
}

function tableRows(request) {
  const { sampler_options: options = {}, variation, seed_resize: resize, refiner, hires, source, mask, sd_upscale: upscale, plot, branch, ...own } = request ?? {};
  if (branch) own.branch = lineageWords(branch);
  if (variation) Object.assign(own, { variation_seed: variation.seed, variation_strength: variation.strength });
  if (refiner) own.refiner = `${refiner.checkpoint} from ${refiner.switch_at}${refiner.by_steps ? " of the steps" : ""}`;
  if (source) own.source = sourceWords(source);
  if (mask) own.mask = maskWords(mask);
  if (upscale) own.sd_upscale = `× ${upscale.scale_factor}, ${upscale.upscaler}, overlap ${upscale.overlap}`;
  if (plot) own.plot = plotWords(plot);
  if (hires) own.hires = hiresWords(hires);
  if (resize) own.seed_resize = `${resize.width}x${resize.height}`;
  const order = Object.keys(LABELS);
  const place = ([key]) => (order.indexOf(key) + order.length) % order.length;
  const rows = Object.entries(own).filter(([, value]) => value !== null && value !== "" && value !== undefined);
  rows.sort((a, b) => place(a) - place(b));
  return [...rows, ...Object.entries(options)].map(([key, value]) => [LABELS[key] ?? key.replaceAll("_", " "), value]);
}

/** A two-column table of texts. */
export function table(rows) {
  const cells = ([key, value]) => el("tr", {}, el("th", { scope: "row" }, String(key)), el("td", {}, typeof value === "object" ? JSON.stringify(value) : String(value)));
  return el("table", { class: "ls-table" }, el("tbody", {}, rows.map(cells)));
}

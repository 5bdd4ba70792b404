// The second pass (hires. fix): the size it comes to, beside its switch. `studio/hires.py` is the rule that counts.

import { el, setText } from "./dom.js";

const down = (pixels) => Math.floor(pixels / 8) * 8;

/** Width and height of the finished picture of a request. */
export function finalSize({ width, height, hires }) {
  const [across, tall] = [down(width), down(height)];
  if (!hires) return [across, tall];
  const [w, h] = [down(hires.width ?? 0), down(hires.height ?? 0)];
  if (w && h) return [w, h];
  if (w) return [w, down((w * tall) / across)];
  if (h) return [down((h * across) / tall), h];
  return [down(Math.trunc(across * hires.scale)), down(Math.trunc(tall * hires.scale))];
}

/** The same of a finished picture, which may have the size of what it began with. */
export const sizeOf = (request, image) => (image ? [image.width, image.height] : finalSize(request));

/** A second pass in a few words: "× 2, Latent, strength 0.7, 15 steps". */
export function hiresWords(hires) {
  const size = hires.width || hires.height ? `to ${hires.width || "…"}×${hires.height || "…"}` : `× ${hires.scale}`;
  const more = [hires.steps && `${hires.steps} steps`, hires.checkpoint, hires.sampler, hires.schedule, hires.cfg_scale && `CFG ${hires.cfg_scale}`];
  const prompts = [hires.prompt && `prompt “${hires.prompt}”`, hires.negative_prompt && `negative prompt “${hires.negative_prompt}”`];
  return [size, hires.upscaler, `strength ${hires.denoising_strength}`, ...more, ...prompts].filter(Boolean).join(", ");
}

/** Whether the step is one of the first pass with steps after it, and not of a tile, so that a branch can begin there. */
export const canBranch = (request, step, total) => !request?.sd_upscale && step < (request?.hires ? request.steps : total);

/** The words beside the switch; the options below show while it is on. */
export class Hires {
  mount(panel) {
    this.words = el("span", { class: "ls-faint", "aria-live": "polite" });
    panel.replaceChildren(this.words);
    if (this.form) this.update(this.form);
  }

  /** The form has changed. */
  update(form) {
    this.form = form;
    const on = Boolean(form["hires.on"]);
    const other = Boolean(form["source.image"]);
    const box = document.querySelector("#txt2img_hr_enable input");
    if (box) box.disabled = other && !on;
    document.getElementById("txt2img_hr")?.classList.toggle("on", on);
    if (!this.words) return;
    const { width, height } = form;
    const sides = { width: form["hires.width"], height: form["hires.height"], scale: form["hires.scale"] };
    const size = finalSize({ width, height, hires: sides });
    if (other) setText(this.words, "not with a picture to begin with");
    else setText(this.words, on && size.every(Number.isFinite) ? `from ${down(width)}×${down(height)} to ${size.join("×")}` : "");
  }
}

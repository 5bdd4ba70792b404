// Chips that set the size: the checkpoint's own number of pixels in usual shapes.

import { el } from "./dom.js";

const RATIOS = [[1, 1], [4, 3], [3, 4], [3, 2], [2, 3], [16, 9], [9, 16]];

export class Sizes {
  /** `native()` is the checkpoint's native side, `current()` the form's [width, height]; `set(width, height)` writes it. */
  constructor({ native, current, set }) {
    Object.assign(this, { native, current, set });
  }

  mount(panel) {
    this.panel = panel;
    panel.classList.add("ls-chips", "ls-sizes");
    this.draw();
  }

  /** The form has changed, or other models are known. */
  draw() {
    const native = this.native();
    if (!this.panel) return;
    if (native !== this.drawn) this.panel.replaceChildren(...RATIOS.map((ratio) => this.#chip(native, ratio)));
    this.drawn = native;
    const now = this.current().join(" × ");
    for (const chip of this.panel.children) chip.setAttribute("aria-pressed", String(chip.dataset.size === now));
  }

  #chip(native, [across, down]) {
    const size = sizeFor(native, across / down);
    return el("button", { type: "button", class: "ls-btn chip", title: size.join(" × "), data: { size: size.join(" × ") }, on: { click: () => this.set(...size) } }, `${across}:${down}`);
  }
}

/** Width and height with about native² pixels, multiples of 64 (of 8 for small models). */
export function sizeFor(native, ratio) {
  const by = native >= 512 ? 64 : 8;
  const side = (length) => Math.max(64, Math.round(length / by) * by);
  return [side(native * Math.sqrt(ratio)), side(native / Math.sqrt(ratio))];
}

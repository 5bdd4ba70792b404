// A mask painted over a picture: a canvas of the picture's own size, a brush, and a history that is painted again to undo.

import { el, show } from "./dom.js";

export const BRUSH = { smallest: 0.5, largest: 60, first: 8, by: 1.2 }; // percent of the picture's longer side
const ERASERS = [2, 5]; // the right button, and the other end of a pen

export class MaskPaint {
  #base = null; // what the mask began as: a canvas, or null
  #done = []; // what was painted since, oldest first
  #undone = [];
  #stroke = null;

  /** `changed()` is called when the mask is another one, `drawn()` when brush or history are. */
  constructor({ changed, drawn }) {
    Object.assign(this, { changed, drawn });
    this.brush = BRUSH.first;
    this.erasing = false;
    this.canvas = el("canvas", { class: "ls-mask", role: "img", "aria-label": "The mask: paint where the picture is to be painted anew" });
    this.ring = el("span", { class: "ls-mask-ring", "aria-hidden": "true", hidden: true });
    this.context = this.canvas.getContext("2d");
    this.#listen();
  }

  #listen() {
    const { canvas } = this;
    canvas.addEventListener("pointerdown", (event) => this.#begin(event));
    canvas.addEventListener("pointermove", (event) => this.#move(event));
    for (const name of ["pointerup", "pointercancel"]) canvas.addEventListener(name, () => this.#end());
    canvas.addEventListener("pointerleave", () => show(this.ring, false));
    canvas.addEventListener("contextmenu", (event) => event.preventDefault());
  }

  /** A mask for another picture, `width` × `height` pixels; `base` is a canvas with the mask's colour where it is painted, or null. */
  reset(width, height, base = null) {
    Object.assign(this.canvas, { width, height });
    this.#base = base;
    this.#done = [];
    this.#undone = [];
    this.#stroke = null;
    this.#paintAgain();
    this.drawn();
  }

  get canUndo() {
    return this.#done.length > 0;
  }

  get canRedo() {
    return this.#undone.length > 0;
  }

  /** The brush's width in pixels of the picture. */
  get width() {
    return Math.max(1, Math.round((Math.max(this.canvas.width, this.canvas.height) * this.brush) / 100));
  }

  setBrush(percent) {
    this.brush = Math.min(BRUSH.largest, Math.max(BRUSH.smallest, percent));
    this.drawn();
  }

  grow(steps) {
    this.setBrush(this.brush * BRUSH.by ** steps);
  }

  toggleEraser() {
    this.erasing = !this.erasing;
    this.drawn();
  }

  undo() {
    this.#step(this.#done, this.#undone);
  }

  redo() {
    this.#step(this.#undone, this.#done);
  }

  #step(from, to) {
    if (!from.length) return;
    to.push(from.pop());
    this.#paintAgain();
    this.#tell();
  }

  clear() {
    this.#add({ kind: "clear" });
  }

  /** What is painted and what is not change places; of an empty mask that makes a full one. */
  invert() {
    this.#add({ kind: "invert" });
  }

  /** Another mask, a canvas as for `reset`, in the place of this one. */
  replace(layer) {
    this.#add({ kind: "layer", layer });
  }

  #add(act) {
    this.#done.push(act);
    this.#undone = [];
    this.#paint(act);
    this.#tell();
  }

  #tell() {
    this.drawn();
    this.changed();
  }

  // ---- the brush

  /** Where a pointer is, in pixels of the picture. */
  #place(event) {
    const box = this.canvas.getBoundingClientRect();
    return [((event.clientX - box.left) * this.canvas.width) / box.width, ((event.clientY - box.top) * this.canvas.height) / box.height];
  }

  #begin(event) {
    if (!event.isPrimary || this.#stroke || ![0, ...ERASERS].includes(event.button)) return;
    event.preventDefault();
    this.canvas.setPointerCapture(event.pointerId);
    const erase = this.erasing || ERASERS.includes(event.button);
    const place = this.#place(event);
    this.#stroke = { kind: "stroke", points: [place, place], width: this.width, erase };
    this.#paint(this.#stroke);
    this.#showRing(event);
  }

  #move(event) {
    if (!event.isPrimary) return;
    this.#showRing(event);
    if (!this.#stroke) return;
    const all = event.getCoalescedEvents?.() ?? [];
    for (const each of all.length ? all : [event]) {
      this.#stroke.points.push(this.#place(each));
      this.#paint({ ...this.#stroke, points: this.#stroke.points.slice(-2) });
    }
  }

  #end() {
    const stroke = this.#stroke;
    if (!stroke) return;
    this.#stroke = null;
    this.#done.push(stroke);
    this.#undone = [];
    this.#tell();
  }

  /** The circle under a mouse or a pen that says what one dab would cover. */
  #showRing(event) {
    show(this.ring, event.pointerType !== "touch");
    const box = this.canvas.getBoundingClientRect();
    const across = (this.width * box.width) / this.canvas.width;
    const place = { left: `${event.clientX - box.left}px`, top: `${event.clientY - box.top}px`, width: `${across}px`, height: `${across}px` };
    Object.assign(this.ring.style, place);
    this.ring.classList.toggle("erase", this.#stroke?.erase ?? this.erasing);
  }

  // ---- the canvas

  #paintAgain() {
    this.#paint({ kind: "layer", layer: this.#base });
    for (const act of this.#done) this.#paint(act);
  }

  #paint(act) {
    const { context, canvas } = this;
    context.save();
    context.fillStyle = context.strokeStyle = getComputedStyle(canvas).color;
    if (act.kind === "stroke") this.#line(act);
    else if (act.kind === "invert") {
      context.globalCompositeOperation = "source-out"; // the colour where there is none now, and nowhere else
      context.fillRect(0, 0, canvas.width, canvas.height);
    } else {
      context.clearRect(0, 0, canvas.width, canvas.height);
      if (act.layer) context.drawImage(act.layer, 0, 0, canvas.width, canvas.height);
    }
    context.restore();
  }

  #line({ points, width, erase }) {
    const { context } = this;
    if (erase) context.globalCompositeOperation = "destination-out";
    Object.assign(context, { lineWidth: width, lineCap: "round" });
    // Piece by piece, as it was painted: a line drawn at once has other edges, and undoing would not bring back the same mask.
    for (const [index, [x, y]] of points.entries()) {
      if (index === 0) continue;
      context.beginPath();
      context.moveTo(...points[index - 1]);
      context.lineTo(x, y);
      context.stroke();
    }
  }

  /** A kept mask (an ImageBitmap, light where it is painted, which is closed) as a canvas with the mask's colour there, for `reset` and `replace`. */
  layer(bitmap) {
    const layer = el("canvas", { width: bitmap.width, height: bitmap.height });
    const context = layer.getContext("2d", { willReadFrequently: true });
    context.drawImage(bitmap, 0, 0);
    bitmap.close();
    const pixels = context.getImageData(0, 0, layer.width, layer.height);
    for (let at = 0; at < pixels.data.length; at += 4) pixels.data[at + 3] = pixels.data[at];
    context.putImageData(pixels, 0, 0);
    context.globalCompositeOperation = "source-in";
    context.fillStyle = getComputedStyle(this.canvas).color;
    context.fillRect(0, 0, layer.width, layer.height);
    return layer;
  }

  /** The mask as a PNG, white where it is painted and black elsewhere; null when nothing is. */
  async png() {
    const { width, height } = this.canvas;
    const copy = el("canvas", { width, height });
    const context = copy.getContext("2d", { willReadFrequently: true });
    context.drawImage(this.canvas, 0, 0);
    const painted = new Uint32Array(context.getImageData(0, 0, width, height).data.buffer).some(Boolean);
    if (!painted) return null;
    context.globalCompositeOperation = "source-in";
    context.fillStyle = "#fff";
    context.fillRect(0, 0, width, height);
    context.globalCompositeOperation = "destination-over";
    context.fillStyle = "#000";
    context.fillRect(0, 0, width, height);
    return new Promise((resolve) => copy.toBlob(resolve, "image/png"));
  }
}

// What can be done with the picture in the well and its mask: buttons, brush and keys.

import { button, el, setText } from "./dom.js";
import { BRUSH } from "./maskpaint.js";

/** What becomes of a picture that has another shape than what is painted. */
const FITTED = { "Just resize": "stretched", "Crop and resize": "cut to shape", "Resize and fill": "filled up at its edges", "Just resize (latent upscale)": "stretched" };
const ALIKE = 0.01; // shapes that differ by less look the same

export class Tools {
  /** `source` is the well. */
  constructor(source) {
    this.source = source;
    const { paint } = source;
    const tool = (picture, title, action) => button("", action, { picture, title, kind: "small" });
    this.count = el("output", {});
    this.range = el("input", { type: "range", class: "ls-range", id: "img2img_brush", min: "0", max: "100", step: "1", on: { input: () => paint.setBrush(percent(this.range.value)) } });
    this.eraser = tool("eraser", "Erase (E, or the right button)", () => paint.toggleEraser());
    this.undo = tool("undo", "Undo (Ctrl Z)", () => paint.undo());
    this.redo = tool("redo", "Redo (Ctrl Shift Z)", () => paint.redo());
    this.fitted = el("span", { class: "ls-faint" });
    this.root = el(
      "div",
      { class: "ls-source-tools" },
      el(
        "div",
        { class: "ls-actions" },
        el("label", { class: "ls-brush", title: "How wide the brush is, in pixels of the picture ([ and ])" }, "Brush", this.range, this.count),
        this.eraser,
        this.undo,
        this.redo,
        tool("invert", "Swap what is painted and what is not; of an empty mask: all", () => paint.invert()),
        button("clear", () => paint.clear(), { kind: "small", title: "Take the mask away" }),
        button("mask file", () => source.chooseMask(), { picture: "open", kind: "small", title: "Take a mask from a file: light, or opaque, is painted anew" }),
      ),
      el(
        "div",
        { class: "ls-actions" },
        button("take its size", () => source.takeSize(), { kind: "small", id: "img2img_take_size", title: "Paint at the size of this picture" }),
        button("its shape", () => source.takeShape(), { kind: "small", id: "img2img_take_shape", title: "Paint in the shape of this picture, with about as many pixels as the checkpoint was made for" }),
        button("other picture", () => source.chooseOther(), { picture: "image", kind: "small", title: "Choose another picture; it can be dropped here or pasted too" }),
        button("remove", () => source.remove(), { picture: "close", kind: "small", id: "img2img_remove", title: "Begin with noise again" }),
        this.fitted,
      ),
    );
  }

  /** The form, the brush or the mask have changed. */
  draw(form) {
    const { paint } = this.source;
    this.range.value = String(place(paint.brush));
    this.range.style.setProperty("--fill", `${place(paint.brush)}%`);
    setText(this.count, `${paint.width} px`);
    this.eraser.setAttribute("aria-pressed", String(paint.erasing));
    this.undo.disabled = !paint.canUndo;
    this.redo.disabled = !paint.canRedo;
    setText(this.fitted, fittedWords(paint.canvas, form));
  }

  /** Keys that work while the well has the focus. */
  key(event) {
    const { paint } = this.source;
    const held = event.ctrlKey || event.metaKey;
    const letter = event.key.toLowerCase();
    if (event.key === "[" || event.key === "]") paint.grow(event.key === "]" ? 1 : -1);
    else if (held && letter === "z") event.shiftKey ? paint.redo() : paint.undo();
    else if (held && letter === "y") paint.redo();
    else if (letter === "e" && !held && !event.altKey) paint.toggleEraser();
    else return;
    event.preventDefault();
  }
}

// The slider goes by factors: small brushes differ by little, large ones by much.
const percent = (place) => BRUSH.smallest * (BRUSH.largest / BRUSH.smallest) ** (Number(place) / 100);
const place = (brush) => (100 * Math.log(brush / BRUSH.smallest)) / Math.log(BRUSH.largest / BRUSH.smallest);

/** What becomes of the picture: "painted at 128×128, stretched", where that is another size. */
function fittedWords({ width, height }, form) {
  const { width: across, height: down } = form;
  if (form["mask.image"] && form["mask.area"] === "Only masked") return `the part around the mask is painted at ${across}×${down}`;
  if (!across || !down || (width === across && height === down)) return "";
  const apart = Math.abs((width * down) / (height * across) - 1) > ALIKE;
  return `painted at ${across}×${down}${apart ? `, ${FITTED[form["source.resize_mode"]] ?? "stretched"}` : ""}`;
}

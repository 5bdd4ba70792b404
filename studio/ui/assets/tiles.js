// The pictures of a job, small, beside each other: finished ones, those that are being painted, and those to come.

import { gridUrl, smallUrl } from "./api.js";
import { el, setSource, show } from "./dom.js";
import { choose as mark, installArrows } from "./roving.js";
import { newestPreview, pictureCount, picturesAtOnce } from "./store.js";

export class Tiles {
  #key = "";

  /** `choose(index)` is called when the user picks a picture. */
  constructor(choose) {
    this.list = el("div", { class: "ls-tiles", role: "listbox", "aria-label": "Pictures of this job" });
    this.sheet = el("a", { class: "ls-sheet", target: "_blank", title: "The sheet of this plot; opens in full size" }, el("img", { alt: "The sheet of this plot" }));
    this.root = el("div", { class: "ls-tilebox" }, this.list, this.sheet);
    this.list.addEventListener("click", (event) => {
      const tile = event.target.closest("[data-index]");
      if (tile) choose(Number(tile.dataset.index));
    });
    installArrows(this.list, "[data-index]", (tile) => tile.click());
  }

  /** Draw the tiles of `job` (null: none) and mark picture `current`. A single picture needs no tile. */
  draw(job, current) {
    const count = job ? pictureCount(job) : 0;
    show(this.root, count > 1);
    if (count <= 1) return;
    this.#drawSheet(job);
    this.#build(`${job.id}/${count}`, count);
    const size = picturesAtOnce(job.request);
    const painting = job.status === "running" ? (job.last?.batch ?? 0) : -1;
    for (const [index, node] of [...this.list.children].entries()) {
      const image = job.images.get(index);
      const batch = Math.floor(index / size);
      const preview = image || batch !== painting ? null : newestPreview(job, batch, index % size);
      setSource(node.firstChild, image ? smallUrl(image) : preview);
      node.classList.toggle("empty", !image && !preview);
      node.classList.toggle("live", !image && batch === painting);
      node.classList.toggle("now", index === current);
    }
    mark(this.list.children, this.list.children[current]);
  }

  /** That of a plot, when nothing more comes. */
  #drawSheet(job) {
    const there = Boolean(job.request.plot) && ["done", "interrupted"].includes(job.status) && job.images.size > 0;
    show(this.sheet, there);
    if (!there) return;
    this.sheet.href = gridUrl(job.id);
    setSource(this.sheet.firstChild, gridUrl(job.id));
  }

  #build(key, count) {
    if (key === this.#key) return;
    this.#key = key;
    this.list.replaceChildren(...Array.from({ length: count }, (_, index) => tile(index)));
  }
}

const tile = (index) =>
  el(
    "button",
    { type: "button", class: "ls-tile", role: "option", data: { index }, "aria-label": `Picture ${index + 1}` },
    el("img", { alt: "", loading: "lazy" }),
  );

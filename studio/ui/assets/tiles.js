// The pictures of a job, small, beside each other: finished ones, those that are being painted, and those to come.

import { local } from "./api.js";
import { el, setSource, show } from "./dom.js";
import { newestPreview, pictureCount } from "./store.js";

export class Tiles {
  #key = "";

  /** `choose(index)` is called when the user picks a picture. */
  constructor(choose) {
    this.root = el("div", { class: "ls-tiles", role: "listbox", "aria-label": "Pictures of this job" });
    this.root.addEventListener("click", (event) => {
      const tile = event.target.closest("[data-index]");
      if (tile) choose(Number(tile.dataset.index));
    });
  }

  /** Draw the tiles of `job` (null: none) and mark picture `current`. A single picture needs no tile. */
  draw(job, current) {
    const count = job ? pictureCount(job.request) : 0;
    show(this.root, count > 1);
    if (count <= 1) return;
    this.#build(`${job.id}/${count}`, count);
    const size = job.request.batch_size;
    const painting = job.status === "running" ? (job.last?.batch ?? 0) : -1;
    for (const [index, node] of [...this.root.children].entries()) {
      const image = job.images.get(index);
      const batch = Math.floor(index / size);
      const preview = image || batch !== painting ? null : newestPreview(job, batch, index % size);
      setSource(node.firstChild, image ? local(image.url) : preview);
      node.classList.toggle("empty", !image && !preview);
      node.classList.toggle("live", !image && batch === painting);
      node.classList.toggle("now", index === current);
      node.setAttribute("aria-selected", String(index === current));
    }
  }

  #build(key, count) {
    if (key === this.#key) return;
    this.#key = key;
    this.root.replaceChildren(...Array.from({ length: count }, (_, index) => tile(index)));
  }
}

const tile = (index) =>
  el(
    "button",
    { type: "button", class: "ls-tile", role: "option", data: { index }, "aria-label": `Picture ${index + 1}` },
    el("img", { alt: "", loading: "lazy" }),
  );

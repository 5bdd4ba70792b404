// The step strip: what the model believed the picture to be after every step, with step number and sigma.

import { el, setSource, setText, show, sigmaText } from "./dom.js";

/** A row of cells, one a step. `choose(step)` is called when the user picks one. */
export class Strip {
  #cells = [];
  #key = "";
  #followed = 0;

  constructor(choose) {
    this.root = el("div", { class: "ls-strip", role: "listbox", "aria-label": "Steps", tabindex: "0", "aria-orientation": "horizontal" });
    this.root.addEventListener("click", (event) => {
      const cell = event.target.closest("[data-step]");
      if (cell?.dataset.url !== undefined && cell.querySelector("img").dataset.url) choose(Number(cell.dataset.step));
    });
    this.root.addEventListener("keydown", (event) => {
      const drawn = this.drawn();
      const last = drawn.length - 1;
      const at = drawn.includes(this.current) ? drawn.indexOf(this.current) : last;
      const wanted = { ArrowLeft: at - 1, ArrowRight: at + 1, Home: 0, End: last }[event.key];
      if (wanted === undefined) return;
      event.preventDefault();
      const next = drawn[Math.max(0, Math.min(last, wanted))];
      if (next !== undefined) choose(next);
    });
  }

  /** Steps that have a preview. */
  drawn() {
    return this.#cells.filter((cell) => cell.image.dataset.url).map((cell) => cell.step);
  }

  /**
   * Draw the steps of one picture. `steps` is Map(step -> {sigma, urls}), `within` the picture's place in its batch,
   * `total` how many steps there will be, `current` the step to mark.
   */
  draw({ key, steps, within, total, current, live, final }) {
    if (key !== this.#key || total !== this.#cells.length) this.#build(key, total);
    this.current = current;
    const newest = steps ? Math.max(0, ...steps.keys()) : 0;
    for (const cell of this.#cells) {
      const told = steps?.get(cell.step);
      const url = told?.urls[within] ?? null;
      const last = cell.step === total;
      setSource(cell.image, url ?? (last ? (final ?? null) : null));
      const empty = !cell.image.dataset.url;
      show(cell.root, !empty || (live && cell.step > newest));
      cell.root.classList.toggle("empty", empty);
      setText(cell.sigma, told ? `σ ${sigmaText(told.sigma)}` : "");
      const marked = cell.step === current;
      if (cell.marked !== marked) {
        cell.marked = marked;
        cell.root.classList.toggle("now", marked);
        cell.root.setAttribute("aria-selected", String(marked));
        if (marked) this.root.setAttribute("aria-activedescendant", cell.root.id);
      }
    }
    if (current && current !== this.#followed) this.#follow(current);
    this.#followed = current;
  }

  #build(key, total) {
    this.#key = key;
    this.#followed = 0;
    this.#cells = Array.from({ length: total }, (_, index) => {
      const image = el("img", { alt: "", draggable: "false" });
      const sigma = el("small");
      const root = el(
        "div",
        { class: "ls-cell empty", id: `ls_step_${index + 1}`, role: "option", "aria-selected": "false", "aria-label": `Step ${index + 1}`, data: { step: index + 1, url: "" } },
        el("span", { class: "ls-cell-picture" }, image),
        el("b", {}, String(index + 1)),
        sigma,
      );
      return { step: index + 1, root, image, sigma, marked: false };
    });
    this.root.replaceChildren(...this.#cells.map((cell) => cell.root));
  }

  /** Bring the marked cell into sight without moving the page. */
  #follow(step) {
    const cell = this.#cells[step - 1]?.root;
    if (!cell) return;
    const { scrollLeft, clientWidth } = this.root;
    const left = cell.offsetLeft - this.root.offsetLeft;
    if (left < scrollLeft || left + cell.offsetWidth > scrollLeft + clientWidth) {
      this.root.scrollLeft = Math.max(0, left - clientWidth / 2 + cell.offsetWidth / 2);
    }
  }
}

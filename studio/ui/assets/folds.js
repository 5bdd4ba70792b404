// The heads of the form's sections that fold up: whether they are open, which Gradio says by a class alone, and how much in them is not
// as it is at first, as a closed one hides what changes the picture.

const { folded } = window.latentStudioConfig;
const EMPTY = new Set(["null", '""', "[]", undefined]);

const same = (one, other) => {
  const [a, b] = [one, other].map((value) => JSON.stringify(value));
  return a === b || (EMPTY.has(a) && EMPTY.has(b));
};

export class Folds {
  #changed = {};

  /** The form is on the page. */
  mount(form) {
    this.form = form;
    new MutationObserver(() => this.#draw()).observe(form, { childList: true, subtree: true, attributeFilter: ["class"] });
    this.#draw();
  }

  /** The form has changed: its values by name. */
  update(values) {
    for (const [id, defaults] of Object.entries(folded)) {
      this.#changed[id] = Object.entries(defaults).filter(([name, value]) => name in values && !same(values[name], value)).length;
    }
    if (this.form) this.#draw();
  }

  #draw() {
    for (const head of this.form.querySelectorAll("button.label-wrap")) {
      const open = String(head.classList.contains("open"));
      if (head.getAttribute("aria-expanded") !== open) head.setAttribute("aria-expanded", open);
      const id = head.parentElement.id;
      const said = this.#changed[id] ? `${this.#changed[id]} changed` : "";
      if (id in folded && head.dataset.said !== said) head.dataset.said = said;
    }
  }
}

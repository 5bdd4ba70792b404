// The form of a page that was just opened takes no input until it shows what this browser left: what was typed earlier would be overwritten.

import { toast } from "./dom.js";

const LATE_SECONDS = 6;

export class Opening {
  #said = () => {}; // takes away what was said about the waiting
  #late = 0;

  /** `ids` are the parts of the form; `opened()` is called when it takes input. */
  constructor(ids, opened) {
    Object.assign(this, { ids, opened });
    this.answered = false; // whether the form is what this browser left; before that it is nothing to be kept
  }

  /** The parts are on the page. */
  hold() {
    if (this.answered) return;
    for (const id of this.ids) document.getElementById(id).inert = true;
    this.#late = setTimeout(() => this.#say("The form is still being fetched…", "wait"), LATE_SECONDS * 1000);
  }

  /** The server has filled the form. */
  answer() {
    if (this.answered) return;
    this.answered = true;
    clearTimeout(this.#late);
    this.#said();
    for (const id of this.ids) document.getElementById(id).inert = false;
    document.documentElement.dataset.ready = "yes";
    this.opened();
  }

  /** It could not: the form stays as it is, since what would be kept of it is not what this browser left. */
  fail(words) {
    clearTimeout(this.#late);
    this.#say(words, "bad", { words: "load the page again", run: () => location.reload() });
  }

  #say(...told) {
    this.#said();
    this.#said = toast(...told);
  }
}

// What the browser keeps from visit to visit, and what only the tab keeps. A browser may refuse both: then it lasts as long as the page.

class Place {
  #memory = new Map();

  /** `open()` gives the browser's storage, or throws. */
  constructor(open) {
    this.open = open;
  }

  /** The text under `name`, or null. */
  get(name) {
    if (this.#memory.has(name)) return this.#memory.get(name);
    try {
      return this.open().getItem(name);
    } catch {
      return null;
    }
  }

  /** What was stored as JSON; null when there is nothing, or something else. */
  read(name) {
    try {
      return JSON.parse(this.get(name));
    } catch {
      return null;
    }
  }

  set(name, text) {
    try {
      this.open().setItem(name, text);
      this.#memory.delete(name);
    } catch {
      this.#memory.set(name, text);
    }
  }

  remove(name) {
    this.#memory.delete(name);
    try {
      this.open().removeItem(name);
    } catch {
      // it was never there
    }
  }
}

export const browser = new Place(() => localStorage);
export const tab = new Place(() => sessionStorage);

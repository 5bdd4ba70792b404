// A form that the server keeps for this browser. What it does not take, since it is away or asks for a login, waits in this tab.

import * as api from "./api.js";
import { debounce } from "./dom.js";
import { tab } from "./storage.js";

const QUIET_MS = 500;

export class KeptForm {
  #next = null; // what is to be sent as soon as the server has answered
  #sending = null; // a promise while it is asked: forms arrive in the order in which they were

  /** `name()` is the name that the server keeps it under, `read()` gives what it holds now. */
  constructor(name, read) {
    Object.assign(this, { name, read });
    /** The form has changed. */
    this.changed = debounce(() => this.#send(this.read()), QUIET_MS);
    window.addEventListener("pagehide", () => this.changed.flush());
  }

  /** A page has been opened: what waits here from before goes to the server, which is then asked for the form. */
  async recover() {
    const waiting = tab.read(this.#key);
    if (waiting !== null) await this.#send(waiting);
  }

  /** The server is back. */
  retry() {
    if (tab.get(this.#key) !== null) this.#send(this.read());
  }

  get #key() {
    return `latent-studio-unsent/${this.name()}`;
  }

  #send(form) {
    this.#next = form;
    this.#sending ??= this.#drain().finally(() => (this.#sending = null));
    return this.#sending;
  }

  async #drain() {
    while (this.#next !== null) {
      const form = this.#next;
      this.#next = null;
      try {
        await api.saveForm(this.name(), form);
        tab.remove(this.#key);
      } catch ({ status }) {
        // What it refuses would be refused again; only what did not arrive is worth another try.
        if (!status || status === 401 || status >= 500) tab.set(this.#key, JSON.stringify(this.#next ?? form));
      }
    }
  }
}

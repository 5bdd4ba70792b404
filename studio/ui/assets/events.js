// The server's event stream, held open. After a break it goes on where it stopped; after a restart everything is read anew.

import { eventsUrl, state } from "./api.js";

const SLEEP_AFTER = 60_000;
const AGAIN_AFTER = 2000;

/**
 * Follow the stream: `runs.apply` gets what changes about training runs; `store.apply` gets every job event in order, `store.load` is called at the start and after every
 * break, so that nothing depends on how much the server still remembers. A tab that has been hidden for a minute lets go of its connection (browsers allow a
 * server only six) unless a job or a training runs, and reads up when it is looked at again.
 */
export class Stream {
  #source = null;
  #chain = Promise.resolve();
  #sleep = 0;

  constructor(store, runs) {
    this.store = store;
    this.runs = runs;
    document.addEventListener("visibilitychange", () => this.#visibility());
    window.addEventListener("pagehide", () => this.close());
    window.addEventListener("pageshow", (event) => event.persisted && this.open());
  }

  open() {
    if (this.#source) return;
    const source = (this.#source = new EventSource(eventsUrl));
    source.addEventListener("hello", (message) => this.#hello(JSON.parse(message.data)));
    source.addEventListener("job", (message) => this.#queue(() => this.store.apply(JSON.parse(message.data))));
    source.addEventListener("engine", (message) => this.#queue(() => this.store.setEngine(JSON.parse(message.data)))); // after what is being read anew
    source.addEventListener("training", (message) => this.runs.apply(JSON.parse(message.data)));
    source.addEventListener("open", () => this.store.setReach("there"));
    source.addEventListener("error", () => {
      if (source.readyState === EventSource.CLOSED && this.#source === source) this.#refused();
      else this.store.setReach("away");
    });
  }

  /** The server answers, but with no stream: it may have forgotten who is logged in. A stream does not tell, so it is asked. */
  async #refused() {
    this.#source = null;
    const locked = await state().then(() => false, ({ status }) => status === 401);
    this.store.setReach(locked ? "locked" : "away");
    setTimeout(() => this.open(), AGAIN_AFTER);
  }

  close() {
    this.#source?.close();
    this.#source = null;
  }

  #queue(work) {
    this.#chain = this.#chain.then(work).catch((error) => console.error(error));
  }

  #hello({ boot }) {
    this.store.boot = boot;
    this.#queue(() => this.store.load());
  }

  #visibility() {
    clearTimeout(this.#sleep);
    if (!document.hidden) {
      this.open();
      return;
    }
    const sleep = () => {
      if (this.store.running || this.runs.active) this.#sleep = setTimeout(sleep, SLEEP_AFTER);
      else this.close();
    };
    this.#sleep = setTimeout(sleep, SLEEP_AFTER);
  }
}

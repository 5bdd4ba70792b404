// From a LoRA, or from a picture that was made with it, to the run that trained it: the file's metadata names the run.

import * as api from "./api.js";
import { button, setText, show, toast } from "./dom.js";

const RUN = "studio.run";
const HASHES = /(?:^|, )Lora hashes: ("(?:\\.|[^\\"])*"|[^,]+)/;
const HASH = /: ([0-9a-f]{12})[0-9a-f]*(?=,|"|$)/gi;

export class Trained {
  #loras = [];
  #missed = new Set(); // hashes that no LoRA has: the list is not asked again for them

  /** `open(id)` shows a run of `runs`; `made()` is called when one of them has just made a LoRA. */
  constructor(runs, { open, made }) {
    this.runs = runs;
    this.open = open;
    let before = null;
    runs.subscribe(() => {
      const now = runs.newest.filter((run) => run.lora).map((run) => run.id);
      if (before && now.some((id) => !before.includes(id))) made();
      before = now;
    });
    runs.subscribe(() => document.querySelectorAll(".ls-trained").forEach((node) => this.#update(node)));
  }

  /** The LoRAs as the server lists them now; links are made from the newest list. */
  async list() {
    this.#loras = await api.loras();
    this.#missed.clear();
    return this.#loras;
  }

  /** A button that leads to the run that made this LoRA; null where its file names none. */
  link(lora) {
    const id = lora.metadata?.[RUN];
    if (!id) return null;
    const node = button("trained", () => (this.runs.runs.has(id) ? this.open(id) : toast(node.title, "warn")), { kind: "small ls-trained", picture: "send" });
    node.dataset.trained = id;
    this.#update(node);
    return node;
  }

  /** Put into `box` a link for each LoRA that the infotext has the hash of; `box` is hidden where there is none. */
  async fill(box, infotext) {
    if (box.dataset.text === infotext) return;
    box.dataset.text = infotext;
    const draw = (loras) => {
      const links = loras.map((lora) => this.link(lora)).filter(Boolean);
      box.replaceChildren(...links);
      show(box, links.length > 0);
    };
    const hashes = loraHashes(infotext);
    const unknown = hashes.filter((hash) => !this.#missed.has(hash) && !this.#find(hash));
    draw(hashes.map((hash) => this.#find(hash)).filter(Boolean));
    if (!unknown.length) return;
    await this.list().catch(() => {}); // made after the list was read
    unknown.filter((hash) => !this.#find(hash)).forEach((hash) => this.#missed.add(hash));
    if (box.dataset.text === infotext) draw(hashes.map((hash) => this.#find(hash)).filter(Boolean));
  }

  #find(hash) {
    return this.#loras.find((lora) => [lora.short_hash, lora.sha256].some((own) => own?.toLowerCase().startsWith(hash)));
  }

  #update(node) {
    const id = node.dataset.trained;
    const run = this.runs.runs.get(id);
    setText(node.lastChild, `trained in ${run?.name ?? id}`);
    node.setAttribute("aria-disabled", String(!run));
    const missing = this.runs.known ? `The run ${id} is not in outputs/runs any more: it was deleted, or the LoRA was trained elsewhere.` : "The runs are not read yet.";
    node.title = run ? `Show the run ${id} in the Train tab` : missing;
  }
}

/** The hashes of LoRAs in an infotext, 12 digits each. */
function loraHashes(infotext) {
  const last = infotext.slice(infotext.lastIndexOf("\n") + 1);
  return [...(HASHES.exec(last)?.[1] ?? "").matchAll(HASH)].map(([, hash]) => hash.toLowerCase());
}

// Branches: what a picture was branched from, the chip that says so beside Generate, and the words for both.

import { button, el, show } from "./dom.js";

const DEEPEST = 9;
const SHOWN = 48;
const BRANCH = /(?:^|, )Branch step: (\d+), Branch origin: ("(?:\\.|[^\\"])+")/;

/** Everything a branch comes from, nearest first: `[{step, text}]`. `branch` is that part of a request, or null. */
export function lineage(branch) {
  const found = [];
  let next = branch?.origin ? { step: branch.step, text: branch.origin } : null;
  while (next && found.length < DEEPEST) {
    found.push(next);
    next = inner(next.text);
  }
  return found;
}

/** The branch that a picture's text tells of; null when it is none. */
function inner(text) {
  const match = BRANCH.exec(parameters(text));
  if (!match) return null;
  try {
    return { step: Number(match[1]), text: JSON.parse(match[2]) };
  } catch {
    return null;
  }
}

const parameters = (text) => text.slice(text.lastIndexOf("\n") + 1);

/** A picture in a few words, out of its text: “a red fox” · Euler · 20 steps · CFG 7. */
export function pictureWords(text) {
  const last = parameters(text);
  const [first] = text.split("\n");
  const prompt = first === last || first.startsWith("Negative prompt:") ? "no prompt" : `“${first.length > SHOWN ? `${first.slice(0, SHOWN - 1)}…` : first}”`;
  const value = (key) => last.match(new RegExp(`(?:^|, )${key}: ([^,]+)`))?.[1];
  return [prompt, value("Sampler"), `${value("Steps")} steps`, `CFG ${value("CFG scale") ?? "7"}`].filter(Boolean).join(" · ");
}

/** A whole lineage as one line. */
export const lineageWords = (branch) => lineage(branch).map(({ step, text }) => `step ${step} of ${pictureWords(text)}`).join(" ← ");

/** The job and picture with this text, of those the page knows; null when there is none. */
export function pictureWithText(store, text) {
  for (const job of store.jobs.values()) for (const image of job.images.values()) if (image.infotext === text) return { job, image };
  return null;
}

/** Nodes that tell where the pictures of `job` come from; a known picture is a button that opens it with `open(job, index)`. */
export function lineageNodes(store, job, open) {
  return lineage(job.request.branch).map(({ step, text }) => {
    const known = pictureWithText(store, text);
    const words = pictureWords(text);
    const picture = known
      ? button(`#${known.image.id}`, () => open(known.job, known.image.index), { kind: "small", title: "Show the picture that was branched from" })
      : null;
    return el("li", {}, el("b", {}, `step ${step}`), " of ", picture, picture && " ", el("span", {}, words));
  });
}

/** The chip near Generate. `leave()` takes the branch out of the form. */
export class BranchChip {
  constructor(store, leave) {
    this.store = store;
    this.leave = leave;
    this.shown = null;
    this.form = {};
    store.subscribe(() => this.update(this.form));
  }

  mount(panel) {
    this.panel = panel;
    this.panel.classList.add("ls-chips", "ls-branch");
    show(this.panel, false);
    this.update({});
  }

  /** The form has changed, or more pictures are known. */
  update(form) {
    this.form = form;
    const origin = form["branch.origin"] ?? "";
    const step = form["branch.step"];
    const known = origin ? pictureWithText(this.store, origin) : null;
    const key = origin ? `${step}/${known?.image.id}/${origin}` : "";
    if (!this.panel || key === this.shown) return;
    this.shown = key;
    show(this.panel, Boolean(origin));
    if (!origin) return this.panel.replaceChildren();
    const of = known ? `picture #${known.image.id}` : pictureWords(origin);
    const away = button("", () => this.leave(), { picture: "close", kind: "bare", title: "Leave the branch: begin with noise again" });
    this.panel.replaceChildren(
      el("span", { class: "ls-branch-chip", role: "status", title: pictureWords(origin) }, el("span", {}, `Branch from step ${step} of ${of}`), away),
    );
  }
}

// The reproduce check: a picture is painted again from its own text, and both are laid side by side.

import * as api from "./api.js";
import { button, el, show } from "./dom.js";

const POLL = 400;
const ENDED = new Set(["done", "failed", "cancelled", "interrupted"]);

/**
 * Check `file`, shown under `url`; progress and outcome go into `panel`. `again` is the button that was pressed.
 *
 * The job lives in the queue: leaving the tab does not end it, only its outcome is then not shown here.
 */
export async function check(file, url, panel, again) {
  show(panel, true);
  again.disabled = true;
  try {
    let { job, outcome } = await api.reproduce(file);
    while (!outcome && panel.isConnected) {
      panel.replaceChildren(running(job));
      if (ENDED.has(job.status)) throw new Error(job.error?.message ?? "The check was stopped.");
      await new Promise((wake) => setTimeout(wake, POLL));
      ({ job, outcome } = await api.reproduction(job.id));
    }
    if (outcome) panel.replaceChildren(...verdict(outcome, url, api.local(job.images[0].url)));
  } catch (error) {
    panel.replaceChildren(el("p", { class: "ls-warning", role: "alert" }, error.message));
  } finally {
    again.disabled = false;
  }
}

function running(job) {
  const words = job.status === "running" ? `Painting: step ${job.step} of ${job.steps}` : `In the queue, place ${job.position ?? 1}`;
  const stop = button("stop", () => api.cancelJob(job.id), { picture: "close", kind: "small" });
  return el("div", { class: "ls-check-run" }, el("progress", { max: 1, value: job.progress, "aria-label": "Progress of the check" }), el("span", {}, words), stop);
}

function verdict(outcome, before, after) {
  const mark = el("p", { class: `ls-check-words ${outcome.equal ? "good" : "bad"}` }, outcome.words);
  const causes = outcome.causes.length ? [el("ul", { class: "ls-notes" }, outcome.causes.map((cause) => el("li", {}, cause)))] : [];
  const figures = [figure("in the file", before), figure("painted again", after)];
  if (outcome.largest_difference) figures.push(difference(before, after));
  return [mark, ...causes, el("div", { class: "ls-check-pictures" }, figures)];
}

const figure = (words, url) => el("figure", {}, el("img", { src: url, alt: words }), el("figcaption", {}, words));

/** Where the two differ: one over the other, light where they are unlike, made eight times stronger. */
function difference(before, after) {
  const layers = el("div", { class: "ls-difference" }, el("img", { src: before, alt: "" }), el("img", { src: after, alt: "difference" }));
  return el("figure", {}, layers, el("figcaption", {}, "difference, ×8"));
}

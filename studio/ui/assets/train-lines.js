// A list that folds up: what a tooltip would tell only to those who can point at it.

import { el } from "./dom.js";

/** `words` is its head; `more` lines are known of beyond those that are given. */
export function lineList(words, lines, { more = 0, open = false } = {}) {
  const items = [...lines, ...(more > 0 ? [`and ${more} more`] : [])];
  return el("details", { class: "ls-fold", open }, el("summary", {}, words), el("ul", { class: "ls-notes" }, items.map((line) => el("li", {}, line))));
}

// The schedule of a prompt as a strip over the steps: a row for each part of it, a coloured segment for each wording.

import { el, plural } from "./dom.js";
import { weightText } from "./chunks.js";

const COLOURS = 6;

/** Whether there is a schedule to show: something changes, or there are parts. */
export const hasSchedule = (branches) => branches.length > 1 || branches.some((branch) => branch.segments.length > 1 || branch.weight !== 1);

/** "steps 1–11 of 20"; with two calls a step "steps 1–6 of 20, calls 1–11": the wording may change within a step. */
export function stepsText({ first, last }, { steps, calls }) {
  const each = calls / steps;
  const [from, to] = [Math.ceil(first / each), Math.ceil(last / each)];
  const counted = from === to ? `step ${to} of ${steps}` : `steps ${from}–${to} of ${steps}`;
  return each === 1 ? counted : `${counted}, ${first === last ? `call ${last}` : `calls ${first}–${last}`}`;
}

export class Wordings {
  #rows = [];
  #at = [0, 0];

  /** `show(branch, segment)` is called when a segment is looked at. */
  constructor(show) {
    this.show = show;
    this.root = el("div", { class: "ls-wordings", role: "group", "aria-label": "Wordings over the steps" });
    this.root.addEventListener("keydown", (event) => this.#key(event));
    this.root.addEventListener("mouseleave", () => this.show(...this.#at));
  }

  /** Draw the branches of `side`; what was chosen stays chosen as far as it is still there. */
  draw(side, clock) {
    const [row, place] = this.#at;
    this.#rows = side.branches.map((branch, index) => this.#row(branch, index, clock));
    const marks = [...new Set([1, Math.ceil(clock.steps / 2), clock.steps])];
    this.root.replaceChildren(
      ...side.branches.map((branch, index) => el("div", { class: "ls-wording-row" }, el("span", { class: "ls-wording-weight", title: "Weight of this part" }, `×${weightText(branch.weight)}`), el("div", { class: "ls-track" }, this.#rows[index]))),
      el("div", { class: "ls-wording-row ls-scale", "aria-hidden": "true" }, el("span", { class: "ls-wording-weight" }, "step"), el("div", { class: "ls-track" }, marks.map((step) => el("span", {}, String(step))))),
      ...(side.more_branches ? [el("p", { class: "ls-faint" }, `… and ${plural(side.more_branches, "part")} more`)] : []),
    );
    this.#choose(this.#rows[row]?.[place] ? row : 0, this.#rows[row]?.[place] ? place : 0);
  }

  #row(branch, row, clock) {
    return branch.segments.map((segment, place) => {
      const wording = branch.wordings[segment.wording];
      const several = branch.segments.length > 1;
      const words = several ? wording?.own || (wording ? "nothing" : "…") : wording?.text || "empty";
      const said = `${stepsText(segment, clock)}: ${words}`;
      const node = el(
        "button",
        { type: "button", class: `ls-segment w${segment.wording % COLOURS}`, title: said, "aria-label": said, "aria-pressed": "false", tabindex: "-1", style: { "--share": String(segment.last - segment.first + 1) } },
        el("span", {}, words),
      );
      node.addEventListener("mouseenter", () => this.show(row, place));
      node.addEventListener("click", () => this.#choose(row, place));
      node.addEventListener("focus", () => this.#choose(row, place));
      return node;
    });
  }

  #choose(row, place) {
    this.#at = [row, place];
    this.#rows.flat().forEach((node) => {
      const chosen = node === this.#rows[row][place];
      node.setAttribute("aria-pressed", String(chosen));
      node.tabIndex = chosen ? 0 : -1;
    });
    this.show(row, place);
  }

  #key(event) {
    const [down, right] = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key] ?? [0, 0];
    if (!down && !right) return;
    event.preventDefault();
    const within = (at, length) => Math.max(0, Math.min(length - 1, at));
    const row = within(this.#at[0] + down, this.#rows.length);
    this.#rows[row][within(this.#at[1] + right, this.#rows[row].length)].focus();
  }
}

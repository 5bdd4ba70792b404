// Numbers of the form that may be empty. They are text fields, as Gradio's number field takes an empty one for 0.

import { type } from "./prompt.js";

const DECIMAL = /^[+-]?([0-9]+[.,]?[0-9]*|[.,][0-9]+)$/;
const STEPS = { ArrowUp: 1, ArrowDown: -1 };
const DIGITS = 6; // after the point, so that three steps of 0.05 are 0.15

/** null for nothing, a number with point or comma, other text as it is; `typed_number` of `ui/fields.py` does the same. */
export function typedNumber(text) {
  if (typeof text !== "string") return text;
  const bare = text.trim();
  if (!bare) return null;
  const number = DECIMAL.test(bare) ? Number(bare.replace(",", ".")) : NaN;
  return Number.isFinite(number) ? number : bare;
}

/** A slider's number is pulled between the slider's ends when it is left: one that the field allows, or that is refused in words, stays as it was typed. */
function keepOutside(event) {
  const { target } = event;
  if (!target.matches?.("input[type=number]") || !target.closest(".block")?.querySelector("input[type=range]")) return;
  const { value, min, max } = target;
  if (value === "" || Number(value) < Number(min) || Number(value) > Number(max)) event.stopImmediatePropagation();
}

/** What else a number field does: telephones show digits, the arrow keys go one step. `fields` are `{id, minimum, maximum, step}`. */
export function installNumbers(fields) {
  document.addEventListener("blur", keepOutside, true);
  const fieldOf = (node) => node.matches?.("input") && fields.find(({ id }) => node.closest(`#${id}`));
  for (const kind of ["pointerover", "focusin"]) {
    document.addEventListener(kind, ({ target }) => fieldOf(target) && (target.inputMode = "decimal"));
  }
  document.addEventListener("keydown", (event) => {
    const field = event.key in STEPS && fieldOf(event.target);
    if (!field || event.ctrlKey || event.altKey || event.metaKey) return;
    event.preventDefault();
    const number = typedNumber(event.target.value) ?? field.minimum ?? 0;
    if (typeof number === "number") type(event.target, String(stepped(number, STEPS[event.key], field)));
  });
}

function stepped(number, direction, { minimum, maximum, step }) {
  const wanted = Number((number + direction * step).toFixed(DIGITS));
  return Math.min(maximum ?? Infinity, Math.max(minimum ?? -Infinity, wanted));
}

// What hangs on the fields of the form: their help, and the mark of what is wrong.

import { el, turns } from "./dom.js";

const { fields, folds } = window.latentStudioConfig;
/** Fields that are hidden, and what stands for them. */
const INSTEAD = { "branch.step": "txt2img_branch", "branch.origin": "txt2img_branch", "source.image": "img2img_image", "mask.image": "img2img_image", source: "img2img_image", mask: "img2img_image" };
const INPUTS = "textarea, input:not([type=range], [disabled]), button";
const FRAMES = 60; // within which an accordion has drawn what is in it
const GAP = 4;

const wanted = turns();
const why = el("span", { id: "ls_why", hidden: true }); // what is wrong with the marked field, for readers of the screen
let unmark = () => {};

/** A field's help text is its tooltip, and the words that an icon stands for are its own. Who comes to a field by keyboard sees its help too. */
export function installHelp() {
  document.addEventListener("pointerover", (event) => {
    const icon = event.target.closest?.(".ls-icon");
    if (icon) icon.title ||= icon.textContent.trim();
    const block = event.target.closest?.(".block.padded");
    if (!block || block.title) return;
    const help = block.querySelector(".info-text")?.textContent.trim();
    if (help) block.title = help;
  });
  const bubble = el("div", { class: "ls-help", "aria-hidden": "true", hidden: true });
  document.body.append(bubble);
  const hide = () => (bubble.hidden = true);
  let place = () => {};
  let keys = false; // whether the keyboard was used last
  document.addEventListener("keydown", () => (keys = true), true);
  document.addEventListener("pointerdown", () => (keys = false), true);
  for (const kind of ["focusout", "pointerdown"]) document.addEventListener(kind, hide, true);
  document.addEventListener("scroll", () => bubble.hidden || place(), true); // a field that is come to may have to be scrolled to
  let known = 0;
  document.addEventListener("focusin", ({ target }) => {
    const block = target.closest(".block.padded");
    const info = block?.querySelector(".info-text");
    if (!info?.textContent.trim()) return;
    info.id ||= `ls_help_${(known += 1)}`;
    describe(target, info.id, true);
    if (!keys) return;
    bubble.textContent = info.textContent.trim();
    bubble.hidden = false;
    place = () => putBelow(bubble, block);
    place();
  });
}

function putBelow(bubble, block) {
  const { left, top, bottom } = block.getBoundingClientRect();
  const { offsetWidth, offsetHeight } = bubble;
  bubble.style.left = `${Math.max(0, Math.min(left, document.documentElement.clientWidth - offsetWidth))}px`;
  bubble.style.top = `${bottom + GAP + offsetHeight < window.innerHeight ? bottom + GAP : top - GAP - offsetHeight}px`;
}

/** Let the element `id` be one of those that describe `node`, or no longer. */
function describe(node, id, on) {
  const others = (node.getAttribute("aria-describedby") ?? "").split(" ").filter((each) => each && each !== id);
  node.setAttribute("aria-describedby", [...others, ...(on ? [id] : [])].join(" "));
}

/** Take the mark away, and mark the field that an error is about, if it names one: `reason` is what is wrong. It is unfolded, and gets the focus. */
export async function markField(name, reason) {
  const newest = wanted();
  unmark();
  if (!name) return;
  const setting = name.startsWith("setting:");
  const bare = name.split(".").at(-1);
  const node = await unfolded(setting ? `setting_page_${name.slice(8)}` : (INSTEAD[name] ?? fields[name] ?? fields[bare] ?? `txt2img_${bare}`));
  if (!node || !newest()) return;
  const input = node.matches(INPUTS) ? node : node.querySelector(INPUTS);
  mark(node, input, reason);
  const { top, bottom } = node.getBoundingClientRect();
  if (top < 0 || bottom > window.innerHeight) node.scrollIntoView({ block: "center" });
  if (!setting) input?.focus({ preventScroll: true }); // a setting is stored when its field is left, and then it may be left
}

function mark(node, input, reason) {
  unmark = () => {
    node.classList.remove("ls-wrong");
    node.removeEventListener("input", unmark);
    why.remove();
    input?.removeAttribute("aria-invalid");
    if (input) describe(input, why.id, false);
    unmark = () => {};
  };
  node.classList.add("ls-wrong");
  node.addEventListener("input", unmark);
  why.textContent = reason;
  node.append(why);
  input?.setAttribute("aria-invalid", "true");
  if (input) describe(input, why.id, true);
}

/** The element, once the accordion around it is open and has drawn it; null when there is none. */
async function unfolded(id) {
  const head = document.querySelector(`#${folds[id] ?? "ls_none"} > button`);
  if (head && !head.classList.contains("open")) head.click();
  const drawn = () => document.getElementById(id)?.offsetParent;
  for (let left = head ? FRAMES : 0; left > 0 && !drawn(); left -= 1) await new Promise(requestAnimationFrame);
  return document.getElementById(id);
}

// Building elements and telling the user. Text goes in as text: there is no way here to turn a string into markup.

/**
 * Make an element. `props`: `class`, `data` (dataset), `on` (listeners), `style` (custom properties and styles), and
 * attributes; `true` sets an empty attribute, `false`, `null` and `undefined` leave it out. Strings become text nodes.
 */
export function el(tag, props = {}, ...children) {
  const node = document.createElement(tag);
  for (const [key, value] of Object.entries(props)) {
    if (value === null || value === undefined || value === false) continue;
    if (key === "class") node.className = value;
    else if (key === "data") Object.assign(node.dataset, value);
    else if (key === "on") for (const [name, listener] of Object.entries(value)) node.addEventListener(name, listener);
    else if (key === "style") for (const [name, v] of Object.entries(value)) node.style.setProperty(name, v);
    else node.setAttribute(key, value === true ? "" : String(value));
  }
  node.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return node;
}

/** A drawn icon; the shapes are in page.css. */
export const icon = (name) => el("span", { class: `ls-i ls-i-${name}`, "aria-hidden": "true" });

/** A small button: icon, words, or both. `title` is the tooltip and, without words, the accessible name. */
export function button(words, action, { picture, title, kind = "", ...attributes } = {}) {
  return el(
    "button",
    {
      type: "button",
      class: `ls-btn ${kind}`.trim(),
      title,
      "aria-label": words ? null : title,
      on: { click: action },
      ...attributes,
    },
    picture && icon(picture),
    words && el("span", {}, words),
  );
}

/** Set text only when it differs, so that an idle page does no layout. */
export function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

/** Show or hide. */
export function show(node, visible) {
  if (node.hidden === visible) node.hidden = !visible;
}

/** Set `src` only when it differs. */
export function setSource(image, url) {
  if (image.dataset.url === (url ?? "")) return;
  image.dataset.url = url ?? "";
  if (url) image.src = url;
  else image.removeAttribute("src");
}

/**
 * Make `nodes` the children of `parent`, in this order. What stays is not touched, and keeps the focus; where the focused child goes, the one that
 * is of the same job gets it, else the next.
 */
export function arrange(parent, nodes) {
  const focused = document.activeElement;
  const before = [...parent.children];
  const place = before.findIndex((child) => child.contains(focused));
  for (const child of before) if (!nodes.includes(child)) child.remove();
  nodes.forEach((node, index) => parent.children[index] === node || parent.insertBefore(node, parent.children[index] ?? null));
  if (place < 0 || document.activeElement === focused) return;
  const { job } = before[place].dataset;
  const heir = nodes.find((node) => job && node.dataset.job === job) ?? before.slice(place).find((child) => nodes.includes(child)) ?? nodes.at(-1);
  if (parent.contains(focused)) focused.focus();
  else (heir?.matches("button") ? heir : heir?.querySelector("button"))?.focus();
}

const MOST_TOASTS = 4;
const TOAST_SECONDS = { info: 4.5, good: 4.5, warn: 9, bad: Infinity, wait: Infinity };
const ACTION_SECONDS = 15;
const LINE_SECONDS = 2;
const LOOK_AGAIN_SECONDS = 3;

// It is on the page before anything is said: readers of the screen tell only what changes in a region that they know.
const shelf = el("div", { class: "ls-toasts", role: "status", "aria-live": "polite" });
const placeShelf = () => {
  const home = [...document.querySelectorAll("dialog[open]")].at(-1) ?? document.body; // an open dialog covers all else
  if (shelf.parentElement !== home) home.append(shelf);
};
placeShelf();
document.addEventListener("close", placeShelf, true);
shelf.addEventListener("click", (event) => event.stopPropagation()); // it is no click on the dialog

/**
 * A message at the foot of the page; several lines become a list. `kind`: "info", "good" and "warn" go by themselves, unless they are pointed at or have the focus; "bad" stays
 * until it is closed or the next "good", "wait" until it is taken away. `action`: `{words, run}` adds a button. Returns a function that takes the message away.
 */
export function toast(text, kind = "info", action = null) {
  const lines = [text].flat().filter(Boolean);
  if (!lines.length) return () => {};
  placeShelf();
  if (kind === "good") forgive();
  const key = lines.join("\n");
  [...shelf.children].find((child) => child.dataset.text === key)?.remove();
  const note = el("div", { class: `ls-toast ${kind}`, data: { text: key }, role: kind === "bad" ? "alert" : null });
  const close = () => note.remove();
  note.append(icon(kind === "bad" || kind === "warn" ? "warn" : "info"), lines.length > 1 ? el("ul", {}, lines.map((line) => el("li", {}, line))) : el("p", {}, lines[0]));
  if (action) {
    const run = () => {
      close();
      action.run();
    };
    note.append(button(action.words, run, { kind: "small" }));
  }
  note.append(button("", close, { picture: "close", title: "Close", kind: "bare" }));
  const others = [...shelf.children];
  shelf.append(note);
  if (others.length >= MOST_TOASTS) (others.find((other) => !other.matches(".bad, .wait")) ?? others[0]).remove();
  const later = (seconds) => Number.isFinite(seconds) && setTimeout(() => (note.matches(":hover, :focus-within") ? later(LOOK_AGAIN_SECONDS) : close()), seconds * 1000);
  later(Math.max(TOAST_SECONDS[kind] + LINE_SECONDS * (lines.length - 1), action ? ACTION_SECONDS : 0));
  return close;
}

/** Something went well: what was wrong before is no longer said. */
export function forgive() {
  shelf.querySelectorAll(".bad").forEach((note) => note.remove());
}

/** Put text on the clipboard, also where the page is not served securely. */
export async function copy(text) {
  const copied = await navigator.clipboard?.writeText(text).then(() => true, () => false);
  if (copied || copySelected(text)) toast("Copied.", "good");
  else toast("Could not copy; select the text and copy it yourself.", "warn");
}

/** Copy by way of a field that is selected for a moment. Whether that worked. */
function copySelected(text) {
  const focused = document.activeElement;
  const area = el("textarea", { class: "ls-offscreen", "aria-hidden": "true" });
  area.value = text;
  (focused?.closest("dialog") ?? document.body).append(area); // outside of an open dialog nothing can be selected
  area.select();
  const copied = document.execCommand("copy");
  area.remove();
  focused?.focus({ preventScroll: true });
  return copied;
}

/** Start a download without leaving the page. */
export function download(url) {
  const link = el("a", { href: url, download: "" });
  document.body.append(link);
  link.click();
  link.remove();
}

/** Call `run` once things have been quiet for `wait` milliseconds. `.flush()` calls it now if it is due. */
export function debounce(run, wait) {
  let timer = 0;
  let latest = null;
  const fire = () => {
    clearTimeout(timer);
    timer = 0;
    run(...latest);
  };
  const later = (...values) => {
    latest = values;
    clearTimeout(timer);
    timer = setTimeout(fire, wait);
  };
  later.flush = () => timer && fire();
  return later;
}

/** Call `draw` once in the next frame, however often it is asked for. */
export function inFrame(draw) {
  let asked = false;
  return () => {
    if (asked) return;
    asked = true;
    const run = () => {
      if (!asked) return;
      asked = false;
      draw();
    };
    requestAnimationFrame(run);
    setTimeout(run, 250); // hidden tabs get no frames, but their title must go on
  };
}

/** 1536 -> "1.5 kB", with decimal units as file managers show them. */
export function bytes(count) {
  if (!count) return "";
  const units = ["B", "kB", "MB", "GB", "TB"];
  let step = 0;
  let value = count;
  while (value >= 1000 && step < units.length - 1) {
    value /= 1000;
    step += 1;
  }
  return `${value >= 100 || step === 0 ? Math.round(value) : value.toFixed(1)} ${units[step]}`;
}

/** Seconds as a person says them: "0.8 s", "12 s", "3 min 20 s". */
export function duration(seconds) {
  if (!Number.isFinite(seconds) || seconds < 0) return "";
  if (seconds < 10) return `${seconds.toFixed(1)} s`;
  if (seconds < 60) return `${Math.round(seconds)} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ${Math.round(seconds % 60)} s`;
  return `${Math.floor(seconds / 3600)} h ${Math.round((seconds % 3600) / 60)} min`;
}

/** A noise level with the digits that matter. */
export const sigmaText = (sigma) => (sigma >= 100 ? sigma.toFixed(0) : sigma >= 10 ? sigma.toFixed(1) : sigma.toFixed(2));

/** "1 picture", "4 pictures". */
export const plural = (count, word) => `${count} ${word}${count === 1 ? "" : "s"}`;

/** Of questions asked one after another only the newest one's answer counts: `const newest = this.asked()` before asking, `newest()` after. */
export function turns() {
  let last = 0;
  return () => {
    const mine = ++last;
    return () => mine === last;
  };
}

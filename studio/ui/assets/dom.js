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

let shelf = null;

/**
 * A message at the foot of the page. `kind`: "info", "good", "warn" or "bad"; errors stay longer.
 * `action`: `{words, run}` adds a button. Returns a function that takes the message away.
 */
export function toast(text, kind = "info", action = null) {
  if (!text) return () => {};
  if (!shelf) {
    shelf = el("div", { class: "ls-toasts", role: "status", "aria-live": "polite" });
    document.body.append(shelf);
  }
  const same = [...shelf.children].find((child) => child.dataset.text === text);
  same?.remove();
  const note = el("div", { class: `ls-toast ${kind}`, data: { text }, role: kind === "bad" ? "alert" : null });
  const close = () => note.remove();
  note.append(icon(kind === "bad" || kind === "warn" ? "warn" : "info"), el("p", {}, text));
  if (action) {
    const run = () => {
      close();
      action.run();
    };
    note.append(button(action.words, run, { kind: "small" }));
  }
  note.append(button("", close, { picture: "close", title: "Close", kind: "bare" }));
  shelf.append(note);
  while (shelf.children.length > 4) shelf.firstChild.remove();
  let left = setTimeout(close, kind === "bad" ? 12000 : kind === "warn" ? 9000 : 4500);
  note.addEventListener("mouseenter", () => clearTimeout(left));
  note.addEventListener("mouseleave", () => (left = setTimeout(close, 3000)));
  return close;
}

/** Put text on the clipboard, also where the page is not served securely. */
export async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    const area = el("textarea", { class: "ls-offscreen", "aria-hidden": "true" });
    area.value = text;
    document.body.append(area);
    area.select();
    document.execCommand("copy");
    area.remove();
  }
  toast("Copied.", "good");
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

// The Settings tab. What is typed there is stored when its field is left, but only what was typed: a window that has been open for long shows old values.

const FIELD = "setting_page_";
const TYPED = "textarea, input[type=text]:not([role]), input[type=number]";

const changed = new Set();

const nameOf = (node) => node.matches?.(TYPED) && node.closest(`[id^=${FIELD}]`)?.id.slice(FIELD.length);

export function installSettings() {
  document.addEventListener("input", ({ target }) => nameOf(target) && changed.add(nameOf(target)));
  const quiet = (event) => nameOf(event.target) && !changed.has(nameOf(event.target)) && event.stopImmediatePropagation();
  document.addEventListener("blur", quiet, true);
  document.addEventListener("keypress", (event) => event.key === "Enter" && quiet(event), true);
}

/** A setting is stored as its field shows it. */
export const settingStored = (name) => changed.delete(name);

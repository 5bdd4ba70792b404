// Keys that work anywhere on the page, as in A1111.

import * as api from "./api.js";
import { toast } from "./dom.js";

/** Ctrl/Cmd+Enter generates (in the Train tab: starts training), Alt+Enter skips, Alt+I opens and closes the prompt inspector, Alt+L switches Live on and off, Escape interrupts (unless something is open that Escape closes). */
export function installKeys(store, inspector, live) {
  document.addEventListener("keydown", (event) => {
    if (event.isComposing) return; // keys that write a word of another script
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
      event.preventDefault();
      event.stopPropagation();
      const go = document.getElementById(event.target.closest?.("[data-panel=train]") ? "train_start" : "txt2img_generate");
      if (go && !event.repeat && !go.closest("[inert]")) go.click(); // a form held still would not hold a script's click
    } else if (event.key === "Enter" && event.altKey) {
      event.preventDefault();
      ask(api.skip, store);
    } else if (event.code === "KeyI" && event.altKey && !event.ctrlKey && !event.metaKey) {
      event.preventDefault(); // the place of the key, not its letter: with Option a Mac writes another
      inspector.toggle();
    } else if (event.code === "KeyL" && event.altKey && !event.ctrlKey && !event.metaKey) {
      event.preventDefault();
      live.toggle();
    } else if (event.key === "Escape" && !event.defaultPrevented && !somethingOpen(event.target)) {
      ask(api.interrupt, store);
    }
  }, true);
}

/** Ask the server to skip or interrupt, if something runs. */
export async function ask(what, store) {
  if (!store.running) return;
  try {
    await what();
  } catch (error) {
    toast(error.message, "bad");
  }
}

function somethingOpen(target) {
  return Boolean(
    document.querySelector('dialog[open], input[role="combobox"][aria-expanded="true"]') || target.closest?.('input[type="search"]'),
  );
}

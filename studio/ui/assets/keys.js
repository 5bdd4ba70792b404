// Keys that work anywhere on the page, as in A1111.

import * as api from "./api.js";
import { toast } from "./dom.js";

/** A letter that an Alt or Option key writes, such as ł, or @ on a German Mac. */
const WRITTEN = /^(?![a-z])[@\p{Script=Latin}]$/iu;

/** Ctrl/Cmd+Enter generates (in the Train tab: starts training), Alt+Enter skips, Alt+I opens and closes the prompt inspector, Alt+L switches Live on and off, Escape interrupts (unless something is open that Escape closes). */
export function installKeys(store, inspector, live) {
  document.addEventListener("keydown", (event) => {
    if (event.isComposing) return; // keys that write a word of another script
    const alone = !event.repeat; // a key that is held down acts once
    const place = event.altKey && !event.ctrlKey && !event.metaKey && !WRITTEN.test(event.key) && event.code; // of the key, not its letter: with Option a Mac writes another
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
      event.preventDefault();
      event.stopPropagation();
      const go = document.getElementById(event.target.closest?.("[data-panel=train]") ? "train_start" : "txt2img_generate");
      if (go && alone && !go.closest("[inert]")) go.click(); // a form held still would not hold a script's click
    } else if (event.key === "Enter" && event.altKey) {
      event.preventDefault();
      if (alone) skip(store);
    } else if (place === "KeyI") {
      event.preventDefault();
      if (alone) inspector.toggle();
    } else if (place === "KeyL") {
      event.preventDefault();
      if (alone) live.toggle();
    } else if (event.key === "Escape" && alone && !event.defaultPrevented && !somethingOpen(event.target)) {
      interrupt(store);
    }
  }, true);
}

/** End the job that runs. It is named, so that a wish that comes late does not hit the next one. */
export const interrupt = (store) => ask(api.cancelJob, store);

/** Let the job that runs go on with its next batch. */
export const skip = (store) => ask(api.skipJob, store);

async function ask(what, store) {
  if (!store.running) return;
  try {
    await what(store.running.id);
  } catch (error) {
    toast(error.message, "bad");
  }
}

function somethingOpen(target) {
  return Boolean(
    document.querySelector('dialog[open], input[role="combobox"][aria-expanded="true"]') || target.closest?.('input[type="search"]'),
  );
}

// What this server is.

import { el } from "./dom.js";
import { table } from "./pnginfo.js";

/** Facts about this server, beside the settings. */
export function mountFacts(panel, store) {
  const { version, folder } = window.latentStudioConfig;
  panel.classList.add("ls-card");
  const draw = () => {
    const { device, dtype, attention, torch, model } = store.engine;
    const rows = [["Version", version], ["Data folder", folder], ["Device", device], ["Precision", dtype], ["Attention", attention], ["torch", torch], ["Loaded model", model]];
    panel.replaceChildren(el("header", {}, el("b", {}, "This server")), table(rows.filter(([, value]) => value)), el("p", { class: "ls-faint" }, "Address, device and password are set when the server starts: on its command line, as STUDIO_… variables or in its settings file."));
  };
  let told = "";
  store.subscribe(() => {
    const now = JSON.stringify(store.engine);
    if (now !== told) draw();
    told = now;
  });
  draw();
}

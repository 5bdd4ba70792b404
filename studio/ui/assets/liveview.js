// How Live is seen: the switch beside Generate, the line below it, and the picture over the stage.

import { button, download, duration, el, plural, setSource, setText, show } from "./dom.js";
import { Lightbox } from "./lightbox.js";

const DOTS = { idle: "good", waits: "wait", paints: "busy", bad: "bad" };

export class LiveView {
  /** `live` is what is drawn; `generate()` presses Generate. */
  constructor(live, generate) {
    this.live = live;
    this.generate = generate;
  }

  mountSwitch(panel) {
    const title = "Paint while you type, in few steps (Alt L)";
    this.button = button("Live", () => this.live.toggle(), { kind: "ls-switch", id: "txt2img_live_switch", title, "aria-pressed": "false", "aria-controls": "ls_live" });
    this.button.prepend(el("i", { "aria-hidden": "true" }));
    panel.replaceChildren(this.button);
    this.draw();
  }

  mountLine(panel) {
    this.line = panel;
    panel.id = "ls_live";
    panel.classList.add("ls-liveline");
    this.dot = el("span", { class: "ls-dot", "aria-hidden": "true" });
    this.words = el("span", { class: "ls-livewords" });
    this.count = el("output", {});
    this.range = el("input", { type: "range", class: "ls-range", id: "txt2img_live_steps", min: "4", max: "8", step: "1", on: { input: () => this.live.setSteps(Number(this.range.value)) } });
    const help = "How many steps a live picture has, by the schedule SGM Uniform. Steps and Schedule type are for Generate";
    panel.replaceChildren(this.dot, this.words, el("label", { title: help }, "Live steps", this.range, this.count));
    this.draw();
  }

  /** Over the stage, which knows nothing of it. */
  mountStage(panel) {
    this.stage = panel;
    this.frame = panel.querySelector(".ls-stage");
    this.image = el("img", { class: "ls-livepicture", alt: "" });
    this.caption = el("span", { class: "ls-livecaption" });
    const enlarge = button("enlarge", () => {}, { picture: "open", kind: "small ls-enlarge", title: "Enlarge the live picture (Enter)" }); // as a click anywhere here
    this.cover = el("div", { class: "ls-livecover" }, this.image, this.caption, enlarge);
    this.facts = el("span");
    this.meta = el("div", { class: "ls-livemeta" }, this.facts, button("keep", this.generate, { picture: "save", kind: "small", title: "Generate: paint it with all steps, and save it (Ctrl ↵)" }));
    this.lightbox = new Lightbox({ save: () => this.live.picture && download(this.live.picture.url) });
    this.frame.append(this.cover);
    this.frame.after(this.meta);
    this.frame.addEventListener("click", (event) => this.#enlarge(event), true);
    this.frame.addEventListener("keydown", (event) => ["Enter", " "].includes(event.key) && !event.target.closest("button") && this.#enlarge(event), true);
    this.draw();
  }

  #enlarge(event) {
    if (!this.#covers) return;
    event.preventDefault();
    event.stopImmediatePropagation();
    this.lightbox.show(this.live.picture.url, this.live.picture.infotext ?? "");
  }

  get #covers() {
    return this.live.covers && this.live.picture !== null;
  }

  draw() {
    if (this.button) this.button.setAttribute("aria-pressed", String(this.live.on));
    if (this.line) this.#drawLine();
    if (this.stage) this.#drawStage();
  }

  #drawLine() {
    const { on, state, message, steps, picture } = this.live;
    show(this.line, on);
    this.dot.className = `ls-dot ${DOTS[state]}`;
    // A quick picture changes nothing here but the dot: words that come and go with every letter tire the eye.
    setText(this.words, message || (picture && !picture.rough ? caption(picture) : "Change anything in the form"));
    this.words.classList.toggle("ls-bad", state === "bad");
    this.words.setAttribute("aria-live", state === "bad" ? "polite" : "off");
    this.range.value = String(steps);
    this.range.style.setProperty("--fill", `${(steps - 4) * 25}%`);
    setText(this.count, String(steps));
  }

  #drawStage() {
    const { picture, state } = this.live;
    const covers = this.#covers;
    this.stage.toggleAttribute("data-live", covers);
    show(this.cover, covers);
    show(this.meta, covers);
    setSource(this.image, covers ? picture.url : null);
    if (!covers) return;
    this.cover.classList.toggle("stale", state === "bad");
    this.cover.classList.toggle("rough", picture.rough);
    this.image.alt = `live: ${this.live.request().prompt || "picture without prompt"}`;
    setText(this.caption, picture.rough ? "live" : `live · ${caption(picture)}`);
    setText(this.facts, picture.rough ? "" : facts(picture));
    this.lightbox.update(picture.url, picture.infotext ?? "");
  }
}

const caption = ({ total, seconds }) => `${plural(total, "step")} · ${duration(seconds)}`;

/** seed 7 · 128×128 · DPM++ 2M · SGM Uniform */
function facts({ seed, width, height, infotext }) {
  const parameters = infotext.slice(infotext.lastIndexOf("\n") + 1);
  const value = (key) => parameters.match(new RegExp(`(?:^|, )${key}: ([^,]+)`))?.[1];
  return [`seed ${seed}`, `${width}×${height}`, value("Sampler"), value("Schedule type")].filter(Boolean).join(" · ");
}

// The frame of the stage: the picture, words where there is none, and what can be pressed on it.

import { button, el, setSource, setText, show } from "./dom.js";

export class Frame {
  /** `enlarge()` shows the picture large, `running()` goes back to the job that runs, `key(event)` is told of keys that no button takes. */
  constructor({ enlarge, running, key }) {
    this.picture = el("img", { class: "ls-picture", alt: "" });
    this.title = el("b");
    this.words = el("p");
    this.empty = el("div", { class: "ls-empty" }, el("span", { class: "ls-mark", "aria-hidden": "true" }), this.title, this.words);
    this.badge = el("span", { class: "ls-badge" });
    this.back = button("Back to the running job", running, { kind: "small ls-live" });
    this.enlarge = button("enlarge", enlarge, { picture: "open", kind: "small ls-enlarge", title: "Enlarge the picture (Enter)" });
    // No button itself: what is inside of one is hidden from screen readers.
    this.root = el("div", { class: "ls-stage", tabindex: "0", role: "group", "aria-label": "The picture" }, this.picture, this.empty, this.badge, this.back, this.enlarge);
    this.root.addEventListener("click", (event) => event.target.closest("button") || enlarge());
    this.root.addEventListener("keydown", (event) => event.target.closest("button") || key(event));
  }

  /**
   * Draw the picture at `url` (null: none) with its words `alt`; `empty` is title and words where there is none and none is `painted`,
   * `size` its width and height, `badge` the words in the corner, `back` whether another job runs.
   */
  draw({ url, alt, empty, painted, size, badge, back }) {
    const there = Boolean(url);
    this.root.style.setProperty("--ratio", size.join(" / "));
    this.root.classList.toggle("waiting", painted && !there);
    setSource(this.picture, url);
    this.picture.alt = alt;
    show(this.picture, there);
    show(this.enlarge, there);
    const [title, words] = empty;
    setText(this.title, title);
    setText(this.words, words);
    show(this.empty, !there && !painted);
    setText(this.badge, badge);
    show(this.badge, Boolean(badge));
    show(this.back, back);
  }
}

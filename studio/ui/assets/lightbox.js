// The enlarged picture: arrows browse, S saves, Escape or a click closes.

import { button, el, setSource, setText } from "./dom.js";

export class Lightbox {
  /** `move(by)` browses; without it there is only this picture. */
  constructor({ move = null, save }) {
    this.picture = el("img", { alt: "" });
    this.text = el("p", { class: "ls-lightbox-text" });
    this.root = el(
      "dialog",
      { class: "ls-lightbox", "aria-label": "Enlarged picture" },
      this.picture,
      this.text,
      el(
        "div",
        { class: "ls-lightbox-buttons" },
        move && button("", () => move(-1), { picture: "left", title: "Previous (←)" }),
        move && button("", () => move(1), { picture: "right", title: "Next (→)" }),
        button("", save, { picture: "save", title: "Download (S)" }),
        button("", () => this.root.close(), { picture: "close", title: "Close (Esc)" }),
      ),
    );
    this.root.addEventListener("click", (event) => event.target.closest("button") || this.root.close());
    this.root.addEventListener("keydown", (event) => {
      if (event.key === "ArrowLeft") move?.(-1);
      else if (event.key === "ArrowRight") move?.(1);
      else if (event.key === "s" || event.key === "S") save();
      else return;
      event.preventDefault();
    });
    this.root.addEventListener("close", () => this.root.remove());
  }

  show(url, text) {
    this.#set(url, text);
    if (this.root.open) return;
    document.body.append(this.root);
    this.root.showModal();
  }

  /** The stage shows something else now. */
  update(url, text) {
    if (this.root.open && url) this.#set(url, text);
  }

  #set(url, text) {
    setSource(this.picture, url);
    setText(this.text, text.split("\n")[0]);
  }
}

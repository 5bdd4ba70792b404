// The data set of a new run: a folder's path or an uploaded ZIP, what is in it, and its captions, edited in place.

import * as api from "./api.js";
import { button, bytes, el, plural, setText, show, toast, turns } from "./dom.js";
import { CaptionerRow } from "./train-captioner.js";
import { labelled } from "./train-form.js";
import { lineList } from "./train-lines.js";

const FIRST = 6;
const PAGE = 24;

export class DataCard {
  #report = null;
  #path = "";
  #offset = 0;
  #due = false; // whether captions were asked for that are not drawn yet
  #looked = turns();
  #tiled = turns();
  #paged = turns();

  /** `settings()` gives the data part of the form with `batch`, or null where the method has none; `chosen(path)` takes a path. */
  constructor({ settings, chosen, changed }) {
    this.actions = { settings, chosen, changed };
    this.captioner = new CaptionerRow({ written: () => this.#report && this.inspect() });
  }

  /** The report on the data set that is named now; null while there is none. */
  get report() {
    return this.#report;
  }

  mount(panel) {
    this.path = el("input", { type: "text", id: "train_data_path", list: "train_uploads", placeholder: "folder or .parquet file", autocomplete: "off", spellcheck: "false" });
    this.uploads = el("datalist", { id: "train_uploads" });
    this.file = el("input", { type: "file", accept: ".zip,application/zip", class: "ls-offscreen", id: "train_zip", tabindex: "-1", "aria-label": "Upload a ZIP" });
    this.look = button("look", () => this.inspect(), { id: "train_look", title: "Read the data set and show what is in it" });
    this.send = button("upload ZIP", () => this.file.click(), { picture: "zip", title: "Upload a data set as a ZIP; it is unpacked into datasets/" });
    this.facts = el("p", { class: "ls-data-facts", role: "status" });
    this.tiles = el("div", { class: "ls-data-tiles", role: "list", "aria-label": "First pictures" });
    this.chips = el("div", { class: "ls-chips" });
    this.problems = el("div", {});
    this.captions = el("div", { class: "ls-captions" });
    this.captionsBox = el("details", { class: "ls-fold", id: "train_captions", hidden: true }, el("summary", {}, "edit captions"), this.captions);
    this.captionsBox.addEventListener("toggle", () => this.captionsBox.open && this.#page(0));
    this.root = el("section", { class: "ls-card ls-data", id: "train_data", "aria-label": "Data" },
      el("header", {}, el("b", {}, "Data")),
      el("div", { class: "ls-data-row" }, labelled("Data set", this.path, { kind: "wide", help: "A folder of pictures with captions beside them, or any other form a data set may have" }), this.look, this.send),
      this.uploads, this.file, this.facts, this.problems, this.tiles, this.chips);
    this.captioner.mount(this.root);
    this.root.append(this.captionsBox);
    this.path.addEventListener("change", () => this.inspect());
    this.path.addEventListener("keydown", (event) => {
      if (event.key !== "Enter") return;
      event.preventDefault();
      this.inspect();
    });
    this.file.addEventListener("change", () => this.file.files[0] && this.upload(this.file.files[0]));
    this.#listenDrops();
    panel.append(this.root);
    this.#draw();
  }

  #listenDrops() {
    for (const name of ["dragenter", "dragover"])
      this.root.addEventListener(name, (event) => {
        event.preventDefault();
        this.root.classList.add("ls-over");
      });
    this.root.addEventListener("dragleave", () => this.root.classList.remove("ls-over"));
    this.root.addEventListener("drop", (event) => {
      event.preventDefault();
      this.root.classList.remove("ls-over");
      const file = event.dataTransfer.files[0];
      if (file) this.upload(file);
    });
  }

  /** Names of uploads, to choose from. A server that has none of these routes offers none. */
  async load() {
    const names = await api.datasets().catch(() => []);
    this.uploads.replaceChildren(...names.map((name) => el("option", { value: `datasets/${name}` })));
  }

  /** Show another path; it is read when it is not the one that was. */
  show(path) {
    if (path === this.path.value && path === this.#path) return;
    this.path.value = path;
    if (path) this.inspect();
    else this.#forget("");
  }

  async upload(file) {
    if (!/\.zip$/i.test(file.name)) {
      toast(`${file.name} is no ZIP file. Put the pictures of a data set into one, or name its folder.`, "bad");
      return;
    }
    const newest = this.#looked();
    this.#say(`uploading ${file.name}, ${bytes(file.size)} …`, "busy");
    try {
      const { upload, left_out: names, left_out_count: count } = await api.datasetUpload(file);
      if (count) toast(`${plural(count, "file")} of ${file.name} stayed out, as no data set is made of ${count === 1 ? "its" : "their"} kind: ${names.slice(0, 5).join(", ")}${count > 5 ? ", …" : ""}`);
      this.path.value = `datasets/${upload}`;
      await this.load();
      await this.inspect();
    } catch (error) {
      if (newest()) this.#fail(error);
      else toast(error.message, "bad"); // what was named meanwhile stays
    }
    this.file.value = "";
  }

  /** Ask the server what is in the data set. */
  async inspect() {
    const path = this.path.value.trim();
    if (path !== this.#path) this.#forget(path);
    this.actions.chosen(path);
    const newest = this.#looked();
    if (!path) return;
    const settings = this.actions.settings();
    this.#say("reading …", "busy");
    try {
      const report = await api.datasetInspect({ ...settings, path });
      if (!newest()) return;
      this.#report = report;
      this.#draw();
      this.#thumbnails();
      this.captioner.offer(path);
      if (this.captionsBox.open) this.#page(0);
      this.actions.changed();
    } catch (error) {
      if (newest()) this.#fail(error);
    }
  }

  /** Another data set is meant from now on: nothing that was asked about the former one is drawn any more. */
  #forget(path) {
    this.#path = path;
    this.#report = null;
    this.#tiled();
    this.#paged();
    this.captioner.offer("");
    this.captionsBox.open = false;
    this.captions.replaceChildren();
    this.#draw();
    this.actions.changed();
  }

  #say(words, mood = "") {
    setText(this.facts, words);
    this.facts.className = `ls-data-facts ${mood}`;
  }

  #fail(error) {
    this.#report = null;
    this.#draw();
    this.#say(""); // not what is to be done with an empty card
    this.problems.replaceChildren(el("p", { class: "ls-warning", role: "alert" }, error.message));
    this.actions.changed();
  }

  #draw() {
    const report = this.#report;
    show(this.captionsBox, Boolean(report));
    this.tiles.replaceChildren();
    this.problems.replaceChildren();
    if (!report) {
      this.#say("Name a folder of pictures, or drop a ZIP here. A caption is a .txt file beside its picture; other forms are understood too.", "empty");
      this.chips.replaceChildren();
      return;
    }
    const problems = report.problem_count ? `${plural(report.problem_count, "problem")}` : "no problems";
    this.#say(`${plural(report.pictures, "picture")} · ${plural(report.captions, "caption")} · ${problems}`, report.problem_count ? "bad" : "good");
    this.chips.replaceChildren(...facts(report).map(([words, title]) => el("span", { class: "ls-fact", title }, words)));
    const said = [...report.problems, ...report.notes];
    const { problem_count: count, without_caption: bare, duplicates } = report;
    if (said.length) this.problems.append(lineList(count ? "files that cannot be used" : "notes", said, { more: count - report.problems.length, open: count > 0 }));
    if (bare.length) this.problems.append(lineList("pictures without a caption", bare, { more: report.without_caption_count - bare.length }));
    if (duplicates.length) this.problems.append(lineList("doubles", duplicates.map(({ names }) => names.join(" = ")), { more: report.duplicate_count - duplicates.length }));
  }

  async #thumbnails() {
    const path = this.#path;
    const newest = this.#tiled();
    try {
      const { entries } = await api.datasetCaptions(path, 0, FIRST);
      if (!newest()) return;
      this.tiles.replaceChildren(...entries.map((entry) => el("figure", { role: "listitem", title: entry.name },
        el("img", { alt: "", loading: "lazy", src: api.datasetThumbnailUrl(path, entry.name) }),
        el("figcaption", {}, entry.captions[0] || "no caption"))));
    } catch (error) {
      if (newest()) toast(error.message, "bad");
    }
  }

  async #page(offset) {
    const path = this.#path;
    const newest = this.#paged();
    this.#offset = offset;
    this.#due = true;
    try {
      const page = await api.datasetCaptions(path, offset, PAGE);
      if (!newest() || this.#typing) return; // what is being typed is saved first, and then read with the others
      this.#due = false;
      const move = (words, to) => button(words, () => this.#page(to), { kind: "small" });
      this.captions.replaceChildren(
        ...page.entries.map((entry) => this.#caption(path, entry)),
        el("div", { class: "ls-actions" }, offset > 0 ? move("back", Math.max(0, offset - PAGE)) : null,
          el("span", { class: "ls-faint" }, `${offset + 1}–${offset + page.entries.length} of ${page.total}`),
          offset + PAGE < page.total ? move("on", offset + PAGE) : null));
    } catch (error) {
      if (newest()) this.captions.replaceChildren(el("p", { class: "ls-warning", role: "alert" }, error.message));
    }
  }

  /** Whether a caption has been changed and not been left. */
  get #typing() {
    const area = document.activeElement;
    return this.captions.contains(area) && area.matches("textarea") && area.value !== area.defaultValue;
  }

  #caption(path, entry) {
    const area = el("textarea", { rows: "2", "aria-label": `Captions of ${entry.name}, one a line`, title: "One caption a line; saved when you leave the field" });
    area.defaultValue = entry.captions.join("\n");
    const tokens = el("small", { class: entry.tokens > 75 ? "ls-bad" : "ls-faint" }, plural(entry.tokens, "token"));
    area.addEventListener("change", () => this.#save(path, entry, area));
    return el("div", { class: "ls-caption" },
      el("img", { alt: "", loading: "lazy", src: api.datasetThumbnailUrl(path, entry.name) }),
      el("div", {}, el("small", { class: "ls-faint" }, `${entry.name} · ${entry.width}×${entry.height} · `), tokens, area));
  }

  async #save(path, entry, area) {
    const typed = area.value;
    const captions = typed.split("\n").map((line) => line.trim()).filter(Boolean);
    try {
      const { former } = await api.datasetEdit(path, entry.name, captions);
      area.defaultValue = typed;
      const again = () => path === this.#path && this.#page(this.#offset);
      if (this.#due || !area.isConnected) again(); // captions that were read before it was saved
      const undo = async () => {
        await api.datasetEdit(path, entry.name, former).catch((error) => toast(error.message, "bad"));
        again();
      };
      toast(`The caption of ${entry.name} is saved.`, "good", { words: "undo", run: undo });
    } catch (error) {
      toast(error.message, "bad");
    }
  }
}

/** [words, tooltip] about sizes, shapes, lengths and doubles. */
function facts(report) {
  const size = ({ width, height, count }) => `${width}×${height}${count > 1 ? ` (${count})` : ""}`;
  const found = [
    [`sizes ${report.sizes.slice(0, 3).map(size).join(", ")}${report.size_count > 3 ? " …" : ""}`, report.sizes.map(size).join(", ")],
    [`shapes ${report.buckets.slice(0, 3).map(size).join(", ")}`, `What they are brought to: ${report.buckets.map(size).join(", ")}`],
    [`tokens ${report.tokens.shortest}–${report.tokens.longest}`, `${report.tokens.median} in the middle; a text encoder takes 75 at once`],
  ];
  if (report.tokens.over_75) found.push([`${report.tokens.over_75} longer than 75 tokens`, "What is behind the 75th token has a part of its own"]);
  if (report.enlarged) found.push([`${report.enlarged} enlarged`, "Pictures smaller than what they are brought to"]);
  if (report.without_caption_count) found.push([`${report.without_caption_count} without caption`, "Their names are in the list above"]);
  if (report.duplicate_count) found.push([`${report.duplicate_count} doubles`, "Their names are in the list above"]);
  return found;
}

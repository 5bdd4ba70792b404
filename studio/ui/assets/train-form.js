// The form of a new run, built from the schema of its configuration: bounds, defaults and help texts come from the server.

import * as api from "./api.js";
import { button, duration, el, setText, show, toast } from "./dom.js";
import { KeptForm } from "./kept.js";

/** What is seen at once, of those methods that have it; the rest is under "more". The data set has a card of its own. */
const BASIC = [
  "name", "method.model", "method.data.trigger", "method.network.rank", "method.network.alpha",
  "method.optimizer.learning_rate", "method.steps", "method.batch", "method.data.resolution",
  "method.samples.prompts", "method.samples.every",
];
const ELSEWHERE = ["method.kind", "method.data.path", "export_to"];
const LABELS = { name: "Name", "method.model": "Base checkpoint", "method.data.trigger": "Trigger word", "method.samples.prompts": "Sample prompts, one a line", "method.samples.every": "Steps per sample", "method.network.kind": "Network" };
export const METHODS = { lora: "LoRA", text_encoder: "Text encoder", full: "Whole U-Net", scratch: "From nothing", clip: "CLIP pair, on drawn scenes", judge: "Judge, on drawn scenes" };
const GROUPS = { "": "The run", method: "Training", "method.data": "Pictures and captions", "method.rate": "Learning rate over the run", "method.output": "The file" };

export class TrainForm {
  #schema = null;
  #presets = [];
  #fields = new Map();
  #touched = new Set();
  #models = [];

  /** `changed()` is called after every change, `start(config)` when the form is sent; `browser()` names this browser. */
  constructor({ changed, start, browser }) {
    this.actions = { changed, start };
    this.kept = new KeptForm(() => `${browser()}-train`, () => ({ values: this.#entered(), touched: [...this.#touched] }));
    this.browser = browser;
  }

  mount(panel) {
    this.preset = el("select", { id: "train_preset" });
    this.method = el("select", { id: "train_kind" });
    this.hint = el("p", { class: "ls-faint ls-hintline" });
    this.basic = el("div", { class: "ls-fields" });
    this.more = el("div", { class: "ls-more-fields" });
    this.moreBox = el("details", { class: "ls-fold", id: "train_more" }, el("summary", {}, "more"), this.more);
    this.plan = el("div", { class: "ls-plan", role: "status" });
    this.go = button("Start training", () => {}, { kind: "go wide", id: "train_start", type: "submit" });
    this.form = el("form", { class: "ls-card ls-train-form", novalidate: true, "aria-label": "What learns" },
      el("header", {}, el("b", {}, "What learns")),
      el("div", { class: "ls-fields two" }, labelled("Preset", this.preset), labelled("Method", this.method)),
      this.hint, this.basic, this.moreBox, this.plan, this.go);
    this.form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.#send();
    });
    this.form.addEventListener("input", (event) => this.#input(event));
    this.preset.addEventListener("change", () => this.#usePreset());
    this.method.addEventListener("change", () => this.#build(this.config()));
    panel.append(this.form);
  }

  /** Read schema, presets, models and what this browser had entered. Throws what the server says. */
  async load() {
    await this.kept.recover();
    const [told, models, kept] = await Promise.all([api.trainingForm(), api.models(), api.loadForm(`${this.browser()}-train`)]);
    this.#schema = told.config;
    this.#presets = told.presets;
    this.#models = models.filter((model) => !model.problem);
    const kinds = Object.keys(this.#schema.properties.method.discriminator.mapping);
    const order = Object.keys(METHODS);
    kinds.sort((a, b) => (order.indexOf(a) + 99) % 99 - ((order.indexOf(b) + 99) % 99));
    this.method.replaceChildren(...kinds.map((kind) => el("option", { value: kind }, METHODS[kind] ?? kind)));
    this.preset.replaceChildren(el("option", { value: "" }, "none"), ...this.#presets.map((preset) => el("option", { value: preset.name }, preset.title)));
    if (kept?.values) {
      this.#touched = new Set(kept.touched ?? []);
      this.fill(kept.values);
    } else {
      this.fill({ name: "my-lora", ...(this.#presets[0]?.config ?? {}) });
      this.preset.value = this.#presets[0]?.name ?? "";
      setText(this.hint, this.#presets[0]?.description ?? "");
    }
  }

  /** The server is there: what could not be kept while it was away is kept now. */
  back() {
    if (this.#schema) this.kept.retry(); // before that the form holds nothing
  }

  /** Show a configuration; what it does not name gets its default. */
  fill(config) {
    const kind = config.method?.kind ?? "lora";
    if ([...this.method.options].some((option) => option.value === kind)) this.method.value = kind;
    this.#build(config);
  }

  get kind() {
    return this.method.value;
  }

  /** The value of one field; undefined when the method has none of this name. */
  value(path) {
    const field = this.#fields.get(path);
    return field ? read(field) : undefined;
  }

  set(path, value) {
    const field = this.#fields.get(path);
    if (!field) return;
    write(field, value);
    this.#changed();
  }

  /** The configuration as entered. */
  config() {
    return { ...this.#entered() };
  }

  /** Say how long it would take (`seconds` of all steps, NaN while unknown), how much memory, and words about the data set. */
  setPlan({ data, seconds, memory }) {
    const steps = this.value("method.steps");
    const time = Number.isFinite(seconds) ? `about ${duration(seconds)}` : "";
    setText(this.plan, [steps ? `${steps} steps` : "", time, memory, data].filter(Boolean).join(" · "));
  }

  #entered() {
    const config = { method: { kind: this.kind } };
    for (const [path, field] of this.#fields) {
      const value = read(field);
      if (value === undefined) continue;
      const parts = path.split(".");
      let place = config;
      for (const part of parts.slice(0, -1)) place = place[part] ??= {};
      place[parts.at(-1)] = value;
    }
    return config;
  }

  #usePreset() {
    const preset = this.#presets.find((each) => each.name === this.preset.value);
    setText(this.hint, preset?.description ?? "");
    const kept = {};
    for (const path of ["name", "method.model", "method.data.path", "method.data.trigger", "method.samples.prompts", "method.data.resolution"]) {
      const value = this.value(path);
      if (value === undefined) continue;
      const parts = path.split(".");
      let place = kept;
      for (const part of parts.slice(0, -1)) place = place[part] ??= {};
      place[parts.at(-1)] = value;
    }
    this.fill(merged(merged({ method: { kind: "lora" } }, kept), preset?.config ?? {}));
    this.#changed();
  }

  #build(config) {
    this.#fields = new Map();
    const groups = new Map();
    const method = this.#deref(this.#schema.properties.method.discriminator.mapping[this.kind]);
    for (const leaf of [...this.#leaves(this.#schema, "", ["method"]), ...this.#leaves(method, "method", [])]) {
      if (ELSEWHERE.includes(leaf.path) && leaf.path !== "method.data.path") continue;
      const given = leaf.path.split(".").reduce((place, part) => place?.[part], config);
      const field = this.#field(leaf, given === undefined ? leaf.default : given);
      this.#fields.set(leaf.path, field);
      const group = leaf.path.split(".").slice(0, -1).join(".");
      if (leaf.path !== "method.data.path" && !BASIC.includes(leaf.path)) groups.set(group, [...(groups.get(group) ?? []), field.root]);
    }
    this.basic.replaceChildren(...BASIC.filter((path) => this.#fields.has(path)).map((path) => this.#fields.get(path).root));
    this.more.replaceChildren(...[...groups].map(([group, roots]) => el("fieldset", {}, el("legend", {}, GROUPS[group] ?? sentence(group.split(".").at(-1))), el("div", { class: "ls-fields" }, roots))));
    this.#followModel();
    this.#changed();
  }

  #deref(reference) {
    return this.#schema.$defs[reference.split("/").at(-1)];
  }

  /** All fields of an object that hold plain values: {path, schema, default, help}. */
  *#leaves(schema, prefix, skip, outer = {}) {
    for (const [name, property] of Object.entries(schema.properties)) {
      if (skip.includes(name)) continue;
      const path = prefix ? `${prefix}.${name}` : name;
      const given = outer[name] ?? property.default;
      const reference = property.$ref ?? property.allOf?.[0]?.$ref;
      const inner = reference && this.#deref(reference);
      if (inner?.properties) yield* this.#leaves(inner, path, [], given ?? {});
      else yield { path, schema: inner ?? property, default: given, help: property.description ?? "" };
    }
  }

  #field(leaf, value) {
    const { path, help } = leaf;
    const options = leaf.schema.anyOf?.filter((each) => each.type !== "null");
    const schema = { ...leaf.schema, ...(options?.[0] ?? {}) };
    const label = LABELS[path] ?? sentence(path.split(".").at(-1));
    const id = `train_${path.replaceAll(".", "_")}`;
    const field = { path, schema, optional: Boolean(options), id };
    if (path === "method.model") field.input = this.#modelList(value);
    else if (schema.enum) field.input = el("select", { id }, schema.enum.map((each) => el("option", { value: each }, each)));
    else if (schema.type === "boolean") field.input = el("input", { type: "checkbox", id });
    else if (schema.type === "integer" || schema.type === "number") field.input = numberInput(id, schema, field.optional);
    else if (schema.type === "array" && schema.items?.type === "string") field.input = el("textarea", { id, rows: "3" });
    else field.input = el("input", { type: "text", id, autocomplete: "off", maxlength: schema.maxLength, spellcheck: "false" });
    field.input.id = id;
    field.input.dataset.path = path;
    field.error = el("small", { class: "ls-bad", id: `${id}_error`, hidden: true });
    const wide = ["name", "method.model", "method.data.trigger"].includes(path) || field.input.tagName === "TEXTAREA";
    field.root = labelled(label, field.input, { help, extra: field.error, kind: [wide && "wide", schema.type === "boolean" && "switch"].filter(Boolean).join(" ") });
    field.input.setAttribute("aria-describedby", field.error.id);
    write(field, value);
    return field;
  }

  #modelList(value) {
    const names = this.#models.map((model) => model.name);
    if (value && !names.includes(value)) names.push(value);
    return el("select", {}, names.map((name) => el("option", { value: name }, name)));
  }

  #input(event) {
    const path = event.target.dataset.path;
    if (!path) return;
    this.#touched.add(path);
    this.#mark(path, "");
    if (path === "method.model") this.#followModel();
    this.#changed();
  }

  /** The native size of the base, unless a resolution was typed. */
  #followModel() {
    const model = this.#models.find((each) => each.name === this.value("method.model"));
    const field = this.#fields.get("method.data.resolution");
    if (model && field && !this.#touched.has("method.data.resolution")) write(field, model.native_size);
  }

  #changed() {
    this.kept.changed();
    this.actions.changed();
  }

  /** Show what is wrong with one field (empty: nothing), where it can be seen. */
  #mark(path, words) {
    const field = this.#fields.get(path);
    if (!field) return false;
    field.root.classList.toggle("ls-wrong", Boolean(words));
    field.input.setAttribute("aria-invalid", String(Boolean(words)));
    setText(field.error, words);
    show(field.error, Boolean(words));
    if (words && this.more.contains(field.root)) this.moreBox.open = true;
    return true;
  }

  async #send() {
    for (const path of this.#fields.keys()) this.#mark(path, "");
    const bad = [...this.#fields.values()].find((field) => !field.input.validity.valid);
    if (bad) {
      this.#mark(bad.path, bad.input.validationMessage);
      bad.input.focus();
      return;
    }
    this.go.disabled = true;
    try {
      await this.actions.start(this.config());
    } catch (error) {
      this.#refused(error);
    } finally {
      this.go.disabled = false;
    }
  }

  /** The server named a field: `method.lora.network.rank` is ours without the method's name. It may be an item of a list in one, or a group of them. */
  #refused(error) {
    toast(error.message, "bad");
    const named = (error.detail?.field ?? "").replace(`method.${this.kind}`, "method").replace(/^model$/, "method.model");
    const inside = named.includes(".") ? `${named}.` : null; // "method" alone is about all of them
    const path = [...this.#fields.keys()].find((each) => each === named || named.startsWith(`${each}.`) || (inside && each.startsWith(inside)));
    if (this.#mark(path, error.message)) this.#fields.get(path).input.focus();
  }
}

/** A label around its control. `help` is the tooltip, `extra` what follows. */
export function labelled(words, control, { help = "", extra = null, kind = "" } = {}) {
  return el("label", { class: `ls-field ${kind}`.trim(), title: help || null }, el("span", {}, words), control, extra);
}

function numberInput(id, schema, optional) {
  const low = schema.minimum ?? schema.exclusiveMinimum;
  const high = schema.maximum ?? schema.exclusiveMaximum;
  return el("input", { type: "number", id, min: low, max: high, step: schema.type === "integer" ? schema.multipleOf ?? 1 : "any", required: !optional, inputmode: schema.type === "integer" ? "numeric" : "decimal", placeholder: optional ? "automatic" : null });
}

function read({ schema, input, optional }) {
  if (schema.type === "boolean") return input.checked;
  if (schema.type === "integer" || schema.type === "number") {
    if (input.value === "") return optional ? null : undefined;
    return Number(input.value);
  }
  if (schema.type === "array" && schema.items?.type === "string") return input.value.split("\n").map((line) => line.trim()).filter(Boolean);
  if (schema.type === "array") return input.value.split(",").map((part) => parsed(part.trim()));
  return input.value;
}

/** A number, a truth or null; anything else stays the words it is, for the server to say what is wrong with them. */
function parsed(text) {
  try {
    return JSON.parse(text || "null");
  } catch {
    return text;
  }
}

function write({ schema, input }, value) {
  if (schema.type === "boolean") input.checked = Boolean(value);
  else if (schema.type === "array") input.value = (value ?? []).join(schema.items?.type === "string" ? "\n" : ", ");
  else input.value = value ?? "";
}

const sentence = (name) => (name[0].toUpperCase() + name.slice(1)).replaceAll("_", " ");

/** `over` laid onto `base`, part by part. */
function merged(base, over) {
  const result = { ...base };
  for (const [key, value] of Object.entries(over)) {
    const both = value && typeof value === "object" && !Array.isArray(value) && typeof result[key] === "object";
    result[key] = both ? merged(result[key], value) : value;
  }
  return result;
}

// The page's script: finds the panels that the server left empty, fills them, and answers the calls of the form.

import * as api from "./api.js";
import { BranchChip } from "./branch.js";
import { Cards } from "./cards.js";
import { el, forgive, plural, toast } from "./dom.js";
import { Stream } from "./events.js";
import { mountFacts } from "./facts.js";
import { Folds } from "./folds.js";
import { watchGradio } from "./gradio.js";
import { Hires } from "./hires.js";
import { Inspector } from "./inspector.js";
import { KeptForm } from "./kept.js";
import { installKeys, interrupt, skip } from "./keys.js";
import { FAMILIES, Library } from "./library.js";
import { Live } from "./live.js";
import { installHelp, markField } from "./marks.js";
import { installNumbers, typedNumber } from "./numbers.js";
import { Opening } from "./opening.js";
import { mountPanels } from "./panels.js";
import { Plot } from "./plot.js";
import { PngInfo } from "./pnginfo.js";
import { area, currentArea, Prompts, texts, type } from "./prompt.js";
import { QueueCard } from "./queue.js";
import { installSettings, settingStored } from "./settings.js";
import { Sizes } from "./sizes.js";
import { Source } from "./source.js";
import { Stage } from "./stage.js";
import { selectTab, setTheme, Status } from "./status.js";
import { browser } from "./storage.js";
import { Store } from "./store.js";
import { RunStore } from "./train-store.js";
import { TrainTab } from "./train.js";
import { Trained } from "./trained.js";
import { hasLora, hasWord, toggleLora, toggleWord } from "./weights.js";

const BROWSER = "latent-studio-browser";
const FORM = ["txt2img_settings", "quicksettings"];
const NEEDED = [...FORM, "txt2img_generate", "txt2img_interrupt", "txt2img_skip", "ls_fill"];
const { settings, exposed, numbers } = window.latentStudioConfig;

const form = {};
const pending = { parcel: {}, size: [512, 512], seeds: [-1, -1], model: "", source: ["", ""] }; // what the form's hidden buttons take from here
let models = [];

const store = new Store();
const runs = new RunStore();
const newestPicture = () => {
  const [job] = store.pictured;
  return job ? job.images.get(Math.max(...job.images.keys())) : null;
};
const train = new TrainTab(runs, { use: useTrained, browser: browserId });
const trained = new Trained(runs, { open: openRun, made: () => readLoras() });
const stage = new Stage(store, { send: sendPicture, inspect: inspectPicture, branch: branchFrom, begin: beginWith, folder: !exposed, trained });
const branchChip = new BranchChip(store, () => document.getElementById("ls_unbranch").click());
const live = new Live(store, { client: browserId(), request: () => nested(form), seeds: (seeds) => put("seeds", seeds), generate: () => press("txt2img_generate") });
const queue = new QueueCard(store, (job) => {
  live.uncover();
  stage.open(job);
});
const status = new Status(store);
const native = () => models.find((model) => model.name === form.model)?.native_size ?? 512;
const sizes = new Sizes({
  native,
  current: () => [form.width, form.height],
  set: (...size) => put("size", size),
});
const prompts = new Prompts({ fill: fillForm, last: newestPicture });
const inspector = new Inspector();
const folds = new Folds();
const hires = new Hires();
const plot = new Plot(() => nested(form));
const source = new Source({ put: (names) => put("source", names), size: (...size) => put("size", size), native });
const loras = new Cards({
  kind: "lora",
  title: "LoRA",
  folder: "loras",
  list: () => trained.list(),
  preview: api.loraPreviewUrl,
  facts: (lora) => lora.trigger && `trigger words: ${lora.trigger}`,
  uses: (lora) => hasLora(texts()[0], lora.name),
  toggle: toggleLoraTag,
  origin: (lora) => trained.link(lora),
});
const embeddings = new Cards({
  kind: "embedding",
  title: "Embeddings",
  folder: "embeddings",
  list: api.embeddings,
  preview: api.embeddingPreviewUrl,
  facts: (embedding) => embedding.vectors && `${FAMILIES[embedding.family]}, ${plural(embedding.vectors, "vector")}`,
  uses: (embedding) => fits(embedding) && texts().some((text) => hasWord(text, wordOf(embedding))),
  toggle: toggleEmbedding,
});
const pngInfo = new PngInfo({ send: sendParcel, begin: beginWithFile, trained });
const library = new Library({ use: useModel, insert, begin: beginWith, send: (image) => sendText(image.infotext), trained });

/** An id that only this browser knows; its form is kept under it on the server. */
function browserId() {
  let id = browser.get(BROWSER);
  if (!/^[0-9a-f]{32}$/.test(id ?? "")) {
    id = [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, "0")).join("");
    browser.set(BROWSER, id);
  }
  return id;
}

const opening = new Opening(FORM, () => live.changed());
const kept = new KeptForm(browserId, () => nested(form));
store.subscribe(() => store.reach === "there" && opening.answered && kept.retry());

/** `{"sampler_options.eta": 1}` as `{sampler_options: {eta: 1}}`. */
function nested(flat) {
  const result = {};
  for (const [name, value] of Object.entries(flat)) {
    const [first, second] = name.split(".");
    if (second) (result[first] ??= {})[second] = value;
    else result[first] = value;
  }
  return result;
}

const press = (id) => document.getElementById(id).click();

/** Write values into the form by way of the hidden button `ls_…` that takes them. */
function put(name, value) {
  pending[name] = value;
  press(`ls_${name}`);
}

/** Put values into the form: `{request, notes, whole}`; the server checks them. */
function fillForm(sent) {
  pending.parcel = sent;
  document.getElementById("ls_fill").click();
}

/** Fill the form so that Generate paints this one picture again. */
function sendPicture(job, image) {
  if (job.request.plot) {
    sendText(image.infotext); // the values of its cell stand there alone
    return;
  }
  const { variation } = job.request;
  const own = variation && { ...variation, seed: (variation.seed + image.index) % 2 ** 32 };
  fillForm({ request: { ...job.request, seed: image.seed, variation: own }, whole: true });
  toast("The form has this picture's parameters now.", "good");
  selectTab("txt2img");
}

/** Fill the form so that Generate goes on from `step` of picture `index` of a job. */
async function branchFrom(job, index, step) {
  try {
    const { text, request } = await api.origin(job.id, index);
    fillForm({ request: { ...request, branch: { step, origin: text } }, whole: true });
    toast("Change the prompt, the CFG scale or the sampler, then press Generate.", "good");
    selectTab("txt2img");
    area().focus();
  } catch (error) {
    toast(error.message, "bad");
  }
}

function sendParcel(sent) {
  fillForm(sent);
  selectTab("txt2img");
}

/** Begin the next picture with a finished one (img2img). */
function beginWith(image) {
  selectTab("txt2img");
  source.finished(image.id);
}

function beginWithFile(file) {
  selectTab("txt2img");
  source.choose(file);
}

async function sendText(text) {
  await prompts.readText(text);
  selectTab("txt2img");
}

function inspectPicture(image) {
  if (!image) return;
  selectTab("pnginfo");
  pngInfo.readUrl(api.local(image.url));
}

/** Choose a checkpoint in the quick row, as if it had been picked there. */
function useModel(name) {
  put("model", name);
  toast(`Checkpoint: ${name}`, "good");
}

function toggleLoraTag(lora) {
  type(area(), toggleLora(area().value, lora.name, settings.lora_weight));
}

/** Whether the selected checkpoint takes the embedding; the server decides by the same rule. */
function fits(embedding) {
  const model = models.find((each) => each.name === form.model);
  if (!model) return true;
  return model.text_widths.length ? String(model.text_widths) === String(embedding.text_widths) : model.family === embedding.family;
}

const wordOf = (embedding) => embedding.name.split("/").at(-1);

/** Out of the prompt field that has it, or into the one that was in use last. */
function toggleEmbedding(embedding) {
  const word = wordOf(embedding);
  const fields = [currentArea(), area(), area("negative_prompt")];
  const node = fields.find((field) => hasWord(field.value, word)) ?? fields[0];
  type(node, toggleWord(node.value, word));
}

/** A LoRA or an embedding of the Library, into the prompt. */
function insert(model) {
  (model.kind === "lora" ? toggleLoraTag : toggleEmbedding)(model);
  selectTab("txt2img");
}

function openRun(id) {
  selectTab("train");
  train.open(id);
}

/** Let the server look for new LoRAs, and show them. */
async function readLoras() {
  await api.refresh().catch(() => {});
  loras.load();
}

/** Put the LoRA that a run made into the prompt, with the word that calls it. */
function useTrained(run) {
  const tagged = area().value.includes(`<lora:${run.lora}:`) ? area().value : toggleLora(area().value, run.lora, settings.lora_weight);
  const called = run.trigger && !tagged.includes(run.trigger) ? [run.trigger, tagged.trim()].filter(Boolean).join(", ") : tagged;
  type(area(), called);
  selectTab("txt2img");
}

async function readModels() {
  models = await api.models().catch(() => models);
  sizes.draw();
  embeddings.update();
}

/** Interrupt and Skip can be pressed only while something runs. */
function watchButtons() {
  const draw = () => {
    for (const id of ["txt2img_interrupt", "txt2img_skip"]) {
      const node = document.getElementById(id);
      if (node && node.disabled === Boolean(store.running)) node.disabled = !store.running;
    }
  };
  store.subscribe(draw);
  draw();
}

const panels = {
  brand: (panel) => panel.replaceChildren(el("span", { class: "ls-logo", "aria-hidden": "true" }), el("h1", { class: "ls-brand" }, "Latent Studio")),
  status: (panel) => status.mount(panel),
  tools: (panel) => prompts.mountTools(panel, inspector.button),
  inspector: (panel) => inspector.mount(panel),
  sizes: (panel) => sizes.mount(panel),
  hires: (panel) => hires.mount(panel),
  plot: (panel) => plot.mount(panel),
  source: (panel) => source.mount(panel),
  branch: (panel) => branchChip.mount(panel),
  loras: (panel) => loras.mount(panel),
  embeddings: (panel) => embeddings.mount(panel),
  live: (panel) => live.view.mountSwitch(panel),
  liveline: (panel) => live.view.mountLine(panel),
  stage: (panel) => void (stage.mount(panel), live.view.mountStage(panel)),
  queue: (panel) => queue.mount(panel),
  pnginfo: (panel) => pngInfo.mount(panel),
  library: (panel) => library.mount(panel),
  train: (panel) => train.mount(panel),
  facts: (panel) => mountFacts(panel, store),
};

/** What the form's listeners call; see `studio/ui/wiring.py`. */
const calls = {
  async browserId() {
    await kept.recover();
    return browserId();
  },
  /** The form shows what this browser left; all its values. */
  opened(names, told, ...values) {
    calls.formChanged(names, ...values);
    calls.outcome(told);
    opening.answer();
  },
  /** Fields of the form that have changed, and their values. */
  formChanged(names, ...values) {
    names.forEach((name, index) => (form[name] = name in numbers ? typedNumber(values[index]) : values[index]));
    prompts.update(form);
    loras.update();
    embeddings.update();
    inspector.update(form);
    branchChip.update(form);
    folds.update(form);
    hires.update(form);
    plot.update(form);
    source.update(form);
    sizes.draw();
    if (!opening.answered) return;
    kept.changed();
    live.changed();
  },
  takeParcel: () => JSON.stringify(pending.parcel),
  takeSize: () => pending.size,
  takeSeeds: () => pending.seeds,
  takeModel: () => pending.model,
  allChoices: (kind, text) => plot.all(kind, text),
  takeSource: (hires) => [...pending.source, hires && !pending.source[0]], // a picture to begin with and a second pass exclude each other
  lastSeed: (current) => stage.image?.seed ?? newestPicture()?.seed ?? current,
  /** Its infotext tells it; a picture without a variation leaves the field as it is. */
  lastVariationSeed(current) {
    const parameters = (stage.image ?? newestPicture())?.infotext?.split("\n").at(-1);
    return Number(parameters?.match(/, Variation seed: (\d+)/)?.[1] ?? current);
  },
  interrupt: () => interrupt(store),
  skip: () => skip(store),
  /** What a handler on the server answered. */
  outcome(told) {
    if (!told) return;
    if (told.error) {
      toast(told.error.message, "bad");
      markField(told.error.field, told.error.message);
    }
    if (told.job) {
      markField(null);
      forgive();
      stage.expect(told.job);
      status.flash();
    }
    toast(told.notes ?? [], "info");
    if (told.refreshed) {
      readModels();
      loras.load();
      embeddings.load();
      plot.readChoices();
      inspector.again();
    }
    if (told.settings) {
      Object.assign(settings, told.settings);
      document.dispatchEvent(new Event("latent-studio-theme"));
    }
    if (told.setting) settingStored(told.setting);
    if (told.setting && told.settings) {
      if (told.setting === "theme") setTheme(settings.theme);
      toast("Saved.", "good");
    }
  },
};

/** The form is on the page. */
function ready() {
  opening.hold();
  prompts.mount();
  prompts.update({ prompt: area().value, negative_prompt: area("negative_prompt").value });
  watchButtons();
  installHelp();
  folds.mount(document.getElementById("txt2img_settings"));
  installNumbers(Object.values(numbers));
  installSettings();
  document.getElementById("txt2img_generate").addEventListener("click", () => live.drop());
  installKeys(store, inspector, live);
}

watchGradio((words) => (opening.answered ? toast(words, "bad") : opening.fail(words)));
mountPanels(panels, { first: ["stage", "status"], drawn: () => area() && area("negative_prompt") && NEEDED.every((id) => document.getElementById(id)), ready });
window.latentStudioReady(calls);
readModels();
new Stream(store, runs).open();

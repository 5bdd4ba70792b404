// The server, as this page sees it: one function a route. Every failure is a `StudioError` with a sentence to show.

const ROOT = "studio/v1";
const LONGEST_KEPT = 20_000;
const MOST_ZIPPED = 500;
const LAST = ["finished", "failed", "cancelled"]; // one of these ends what is told of a live picture

/** What went wrong, in the server's words. `detail` is `{code, message, field, choices}`. */
class StudioError extends Error {
  constructor(detail, status) {
    super(detail.message);
    this.detail = detail;
    this.status = status;
  }
}

const offline = () => new StudioError({ code: "offline", message: "The server does not answer. Is it still running?" }, 0);

/** Wait for an answer, or for a part of one. A connection that is not there, or breaks, is a `StudioError` of status 0. */
async function arrived(promise) {
  try {
    return await promise;
  } catch {
    throw offline();
  }
}

/** What an answer without words of the server's own says. */
const bare = (status) => (status >= 500 ? `The server, or a proxy before it, answered ${status}. Try again; its log says more.` : `The server answered ${status}.`);

/** The error that `data`, the JSON of an answer or null, stands for. */
export function refusal(data, status) {
  const said = typeof data?.detail === "string" ? data.detail : "";
  return new StudioError(data?.error?.message ? data.error : { code: "http", message: said || bare(status) }, status);
}

/** The server's answer, if it is a good one. */
async function reach(url, options = {}) {
  const response = await arrived(fetch(url, { credentials: "same-origin", ...options }));
  if (response.ok) return response;
  throw refusal(await response.json().catch(() => null), response.status);
}

/** `keepalive` lets a request outlive its page; browsers allow that for short bodies only. */
async function request(method, path, { json, body, type, keepalive = false } = {}) {
  const headers = {};
  if (json !== undefined) {
    headers["Content-Type"] = "application/json";
    body = JSON.stringify(json);
  } else if (type) {
    headers["Content-Type"] = type;
  }
  const response = await reach(`${ROOT}/${path}`, { method, headers, body, keepalive: keepalive && body.length < LONGEST_KEPT });
  const text = await arrived(response.text());
  try {
    return text ? JSON.parse(text) : null;
  } catch {
    return null;
  }
}

/** A picture as a Blob. Raises like `request`. */
export const picture = async (url) => arrived((await reach(url)).blob());

/** Paint a live picture: `told(event)` hears every event until the last one, or until `signal` aborts. Raises like `request`. */
export async function sketch(asked, told, signal) {
  const headers = { "Content-Type": "application/json" };
  const response = await reach(`${ROOT}/sketch`, { method: "POST", headers, body: JSON.stringify(asked), signal });
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let begun = ""; // a line that has not come to its end
  for (;;) {
    const { value, done } = await arrived(reader.read());
    if (done) throw offline(); // before the last event: the server, or something before it, gave up
    const lines = (begun + value).split("\n");
    begun = lines.pop();
    for (const line of lines) {
      const event = JSON.parse(line);
      told(event);
      if (LAST.includes(event.type)) return;
    }
  }
}

const get = (path) => request("GET", path);
const post = (path, json) => request("POST", path, { json: json ?? {} });

export const eventsUrl = `${ROOT}/events`;
export const state = () => get("state");
export const jobs = (limit = 40) => get(`jobs?limit=${limit}`);
export const activeJobs = () => get("jobs?active=true&limit=1000");
export const job = (id) => get(`jobs/${id}`);
export const jobSteps = (id) => get(`jobs/${id}/progress`);
export const origin = (id, index) => get(`jobs/${id}/origin/${index}`);
export const cancelJob = (id) => post(`jobs/${id}/cancel`);
export const retryJob = (id) => post(`jobs/${id}/retry`);
export const skipJob = (id) => post(`jobs/${id}/skip`);
export const images = (limit, before) => get(`images?limit=${limit}${before ? `&before=${before}` : ""}`);
export const openFolder = (id) => post("open-folder", id > 0 ? { image: id } : {});
export const pictureInfo = (file) => request("POST", "picture-info", { body: file, type: file.type || "application/octet-stream" });
export const keepPicture = (file, mask = false) => request("POST", `init-images${mask ? "?mask=true" : ""}`, { body: file, type: file.type.startsWith("image/") ? file.type : "application/octet-stream" });
export const keepFinished = (id) => post(`init-images/from-image/${id}`);
export const reproduce = (file) => request("POST", "reproduce", { body: file, type: file.type || "application/octet-stream" });
export const reproduction = (id) => get(`reproduce/${id}`);
export const infotext = (text) => post("infotext", { text });
export const tokens = (text) => post("tokens", { text });
export const inspectPrompt = (form) => post("prompt/inspect", form);
export const plotSize = (form) => post("plot/size", form);
export const plotChoices = () => get("plot/choices");
export const models = () => get("models");
export const loras = () => get("loras");
export const embeddings = () => get("embeddings");
export const hypernetworks = () => get("hypernetworks");
export const upscalers = () => get("upscalers");
export const vaes = () => get("vaes");
export const textEncoders = () => get("text-encoders");
export const refresh = () => post("refresh");
export const saveForm = (browser, form) => request("PUT", `form/${encodeURIComponent(browser)}`, { json: form, keepalive: true });

export const stepUrl = (id, batch, step, index) => `${ROOT}/jobs/${id}/steps/${batch}/${step}/${index}.png`;
export const trainingForm = () => get("training/form");
export const trainingCreate = (config) => post("training/runs", config);
export const trainingEstimate = (config) => post("training/estimate", config);
export const trainingRun = (id) => get(`training/runs/${encodeURIComponent(id)}`);
export const trainingAct = (id, action) => post(`training/runs/${encodeURIComponent(id)}/${action}`);
export const trainingDelete = (id) => request("DELETE", `training/runs/${encodeURIComponent(id)}`);
export const trainingCurves = (id, stage) => get(`training/runs/${encodeURIComponent(id)}/curves${stage ? `?stage=${encodeURIComponent(stage)}` : ""}`);
export const trainingSamples = (id) => get(`training/runs/${encodeURIComponent(id)}/samples`);
export const trainingLog = (id) => get(`training/runs/${encodeURIComponent(id)}/log`);
export const datasets = () => get("training/datasets");
export const datasetUpload = (file) => request("POST", `training/datasets/upload?name=${encodeURIComponent(file.name)}`, { body: file, type: "application/zip" });
export const datasetInspect = (settings) => post("training/datasets/inspect", settings);
export const datasetCaptions = (path, offset, limit) => get(`training/datasets/captions?path=${encodeURIComponent(path)}&offset=${offset}&limit=${limit}`);
export const datasetEdit = (path, name, captions) => request("PUT", "training/datasets/captions", { json: { path, name, captions } });
export const captioners = () => get("training/datasets/captioners");
export const captioning = () => get("training/datasets/captioning");
export const captioningStart = (path, captioner, replace) => post("training/datasets/captioning", { path, captioner, replace });
export const captioningStop = () => request("DELETE", "training/datasets/captioning");
export const loadForm = (browser) => get(`form/${encodeURIComponent(browser)}`);

export const datasetThumbnailUrl = (path, name) => `${ROOT}/training/datasets/thumbnail?path=${encodeURIComponent(path)}&name=${encodeURIComponent(name)}`;
export const gridUrl = (job) => `${ROOT}/jobs/${job}/grid`;
export const imageDownloadUrl = (id) => `${ROOT}/images/${id}.png?download=1`;
export const initImageUrl = (name) => `${ROOT}/init-images/${name}.png`;
/** One ZIP file for each `MOST_ZIPPED` pictures: the server packs no more at once. */
export const zipUrls = (ids) => Array.from({ length: Math.ceil(ids.length / MOST_ZIPPED) }, (_, part) => `${ROOT}/images.zip?ids=${ids.slice(part * MOST_ZIPPED, (part + 1) * MOST_ZIPPED).join(",")}`);
export const loraPreviewUrl = (name) => `${ROOT}/loras/preview?name=${encodeURIComponent(name)}`;
export const embeddingPreviewUrl = (name) => `${ROOT}/embeddings/preview?name=${encodeURIComponent(name)}`;
/** URLs come from the server as absolute paths; behind a prefix they must stay relative to the page. */
export const local = (url) => (url ? url.replace(/^\//, "") : url);
/** Where a small version of a picture is, for a tile. */
export const smallUrl = (image) => local(image.url).replace(/\.png$/, "/small");

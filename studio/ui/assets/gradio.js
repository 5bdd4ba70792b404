// Gradio's own requests, which carry the form's buttons to the server. Where one finds no server, Gradio gives the page up: it tells of
// nothing more that is typed, and reloads the page as soon as there is a server. So it hears that the request failed, and the user why.

import { refusal } from "./api.js";

const RUN = "/gradio_api/run/";
const KEPT = "What stands in the form is kept.";

/** From now on `told(words)` hears why a request of Gradio came to nothing. */
export function watchGradio(told) {
  const ask = window.fetch.bind(window);
  window.fetch = (target, options) => (String(target.url ?? target).includes(RUN) ? answer(ask(target, options), told) : ask(target, options));
}

async function answer(asked, told) {
  const [status, body] = await asked.then(async (response) => [response.status, await response.text()]).catch(() => [0, ""]);
  if (status !== 200) told(reason(status, body));
  return new Response(body || "{}", { status: status || 503, headers: { "Content-Type": "application/json" } });
}

function reason(status, body) {
  if (status === 0) return `The server does not answer. ${KEPT}`;
  if (status === 401) return `The server asks for a login. ${KEPT}`;
  return refusal(parsed(body), status).message;
}

function parsed(body) {
  try {
    return JSON.parse(body);
  } catch {
    return null;
  }
}

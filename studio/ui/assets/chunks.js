// The chunks of a prompt as cards: every token with its weight, the padding, and why a chunk ends.

import { el, plural } from "./dom.js";

const LENGTH = 75;
const ENDINGS = {
  BREAK: ["BREAK", "break", "BREAK ends this chunk"],
  comma: ["cut after the comma", "", "The chunk was full: what follows its last comma moved on to the next"],
  embedding: ["no room", "", "The embedding that follows does not fit and is never split: it moved on to the next"],
  full: ["full", "", "The chunk is full: the text goes on in the next"],
};

/** 1.2100000000000002 -> "1.21". */
export const weightText = (weight) => String(Math.abs(weight) < 1e5 ? Number(weight.toFixed(2)) : weight.toPrecision(3));

/** The cards of one wording, `{chunks, more_chunks}`. */
export function chunkCards({ chunks, more_chunks: more }) {
  const cards = chunks.map((chunk, index) => card(chunk, index));
  if (more) cards.push(el("li", { class: "ls-faint" }, `… and ${plural(more, "chunk")} more`));
  return el("ol", { class: "ls-chunks" }, cards);
}

function card({ tokens, padding, ended, in_padding: strayed }, index) {
  const used = LENGTH - padding;
  const [ending, kind, title] = ENDINGS[ended] ?? [];
  return el(
    "li",
    { class: "ls-chunk", "aria-label": `Chunk ${index + 1}, ${used} of ${LENGTH} tokens` },
    el("header", {}, el("b", {}, `Chunk ${index + 1}`), el("span", { class: "ls-fill", style: { "--fill": `${(used / LENGTH) * 100}%` }, "aria-hidden": "true" }), el("span", { class: "ls-dim" }, `${used}/${LENGTH}`)),
    el(
      "div",
      { class: "ls-tokens" },
      words(tokens.map((token, place) => chip(tokens, token, place, used))),
      ending && el("span", { class: `ls-token mark ${kind}`, title }, ending),
      padding > 0 && el("span", { class: "ls-token mark", title: "End tokens that fill the chunk up" }, `${padding} padding`),
      strayed.map((token) => el("span", { class: "ls-token mark embedding", title: "The chunk was cut at a comma before this embedding. Its tokens moved on as “!”, its vectors stand in the padding here; AUTOMATIC1111 does the same" }, `${token.text} in the padding`, count(token))),
    ),
  );
}

/** The chips in groups, one a word, so that lines break between words. */
function words(chips) {
  const groups = [];
  for (const node of chips) {
    if (!node.classList.contains("glued")) groups.push(el("span", { class: "ls-word" }));
    groups.at(-1).append(node);
  }
  return groups;
}

/** How many tokens it takes: an embedding as many as it has vectors. */
const size = ({ vectors }) => vectors || 1;

const count = ({ vectors }) => el("small", { class: "ls-vectors" }, `×${vectors}`);

function chip(tokens, token, place, used) {
  const { text, weight, joined, vectors } = token;
  const shown = weightText(weight);
  const before = tokens.slice(0, place).reduce((sum, each) => sum + size(each), 0);
  const where = vectors > 1 ? `tokens ${before + 1}–${before + vectors}` : `token ${before + 1}`;
  const said = vectors ? `embedding ${text} · ${plural(vectors, "vector")}` : text || "the rest of the character before";
  const next = tokens[place + 1];
  const lone = shown !== "1" && weightText(next?.weight ?? 1) !== shown;
  const glued = place > 0 && tokens[place - 1].joined;
  return el(
    "span",
    {
      class: ["ls-token", weight > 1 ? "up" : weight < 1 ? "down" : "", vectors ? "embedding" : "", joined ? "joined" : "", glued ? "glued" : ""].filter(Boolean).join(" "),
      style: shown === "1" ? {} : { "--heat": heat(weight).toFixed(2) },
      title: `${said} · weight ${shown} · ${where} of ${used}`,
      data: { weight: shown },
    },
    text || "·",
    vectors > 0 && count(token),
    lone && el("small", {}, shown),
  );
}

/** How far a weight is from 1, between 0 and 1: a little shows, double or nothing is all. */
const heat = (weight) => Math.min(1, 0.25 + 0.75 * Math.abs(weight - 1));

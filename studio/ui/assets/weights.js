// Editing the text of a prompt: attention weights, LoRA tags and words of embeddings. Pure functions on strings, no page in them.

const STEP = 0.1;
const TAG_STEP = 0.05;
const BREAKS = " \t\r\n.,;:!?/\\(){}[]<>|*^%~=`\"";

const shown = (weight) => String(Number(weight.toFixed(2)));

/**
 * Raise (`by` = 1) or lower (-1) the weight of what is selected in `text` between `start` and `end`.
 *
 * Inside `<lora:name:0.8>` the tag's number moves by 0.05, in `<lora:name:0@0,1@0.5>` the weights of all points. Else the selection, the brackets around the cursor or the
 * word under it get `(words:1.1)`, in steps of 0.1; at 1 the brackets go away. Returns `{text, start, end}` with what
 * is selected afterwards, or null when there is nothing to weigh.
 */
export function changeWeight(text, start, end, by) {
  return changeTag(text, start, end, by) ?? changeAttention(text, start, end, by);
}

function changeTag(text, start, end, by) {
  const open = text.lastIndexOf("<", start);
  const close = text.indexOf(">", Math.max(start - 1, open));
  if (open < 0 || close < 0 || close + 1 < end || text.slice(open + 1, close).includes("<")) return null;
  const tag = /^(<[^<>:]+:[^<>:]+)(?::(-?[\d.]+))?([^<>]*>)$/.exec(text.slice(open, close + 1));
  if (!tag) return null;
  const moved = (weight) => shown(Number(weight) + by * TAG_STEP);
  const rest = `${tag[2] === undefined ? "" : `:${tag[2]}`}${tag[3]}`;
  const points = /(-?[\d.]+)(?=\s*@)/g;
  const fresh = points.test(rest) ? tag[1] + rest.replace(points, moved) : `${tag[1]}:${moved(tag[2] ?? 1)}${tag[3]}`;
  return { text: text.slice(0, open) + fresh + text.slice(close + 1), start: open, end: open + fresh.length };
}

function changeAttention(text, start, end, by) {
  const found = weighted(text, start, end) ?? plain(text, start, end);
  if (!found) return null;
  const { from, to, words, weight } = found;
  const next = Math.max(0, Number((weight + by * STEP).toFixed(2)));
  const fresh = next === 1 ? words : `(${words}:${shown(next)})`;
  const inner = from + (next === 1 ? 0 : 1);
  return { text: text.slice(0, from) + fresh + text.slice(to), start: inner, end: inner + words.length };
}

/** The innermost `(words:1.2)` around the selection. */
function weighted(text, start, end) {
  let depth = 0;
  let open = -1;
  for (let at = start - 1; at >= 0; at -= 1) {
    if (escaped(text, at)) continue;
    if (text[at] === ")") depth += 1;
    else if (text[at] === "(" && depth-- === 0) {
      open = at;
      break;
    }
  }
  if (open < 0) return null;
  let close = -1;
  depth = 0;
  for (let at = open + 1; at < text.length; at += 1) {
    if (escaped(text, at)) continue;
    if (text[at] === "(") depth += 1;
    else if (text[at] === ")" && depth-- === 0) {
      close = at;
      break;
    }
  }
  if (close < end) return null;
  const inside = /^([\s\S]*):\s*(-?[\d.]+)\s*$/.exec(text.slice(open + 1, close));
  return inside ? { from: open, to: close + 1, words: inside[1], weight: Number(inside[2]) } : null;
}

/** The selection without blanks at its ends, or the word under the cursor. */
function plain(text, start, end) {
  let [from, to] = [start, end];
  if (from === to) {
    while (from > 0 && !BREAKS.includes(text[from - 1])) from -= 1;
    while (to < text.length && !BREAKS.includes(text[to])) to += 1;
  }
  while (from < to && /\s/.test(text[from])) from += 1;
  while (to > from && /\s/.test(text[to - 1])) to -= 1;
  return from < to ? { from, to, words: text.slice(from, to), weight: 1 } : null;
}

function escaped(text, at) {
  let slashes = 0;
  while (text[at - 1 - slashes] === "\\") slashes += 1;
  return slashes % 2 === 1;
}

/** Whether `text` uses the LoRA. */
export const hasLora = (text, name) => loraPattern(name).test(text);

/** `text` with `<lora:name:weight>` at its end, or without it when it was there. */
export function toggleLora(text, name, weight) {
  if (hasLora(text, name)) return text.replace(loraPattern(name, "g"), "").replace(/ {2,}/g, " ").trim();
  return `${text.trimEnd()}${text.trim() ? " " : ""}<lora:${name}:${shown(weight)}>`;
}

const loraPattern = (name, flags = "") => new RegExp(`\\s?<lora:${name.replace(/[.*+?^${}()|[\]\\]/g, "\\$&")}(?::[^<>]*)?>`, flags);

/** Whether `text` names the embedding, in whatever case. */
export const hasWord = (text, word) => !wordsIn(text, word).next().done;

/** `text` with the word of an embedding at its end, its brackets escaped; or without it, and the weight it had, when it was there. */
export function toggleWord(text, word) {
  const left = [];
  let at = 0;
  for (const [start, end] of wordsIn(text, word)) {
    const [from, to] = withWeight(text, start, end);
    left.push(text.slice(at, from).trimEnd().replace(/,$/, "").trimEnd());
    at = to;
  }
  if (at) return [...left, text.slice(at)].join("").replace(/^[\s,]+/, "");
  const before = text.trimEnd();
  return `${before}${!before ? "" : before.endsWith(",") ? " " : ", "}${word.replace(/[\\()[\]]/g, "\\$&")}`;
}

/** Where a word stands outside of tags, as [start, end]. Together with the rest it takes time that grows as the text does: a text may be of blanks, or of the word alone. */
function* wordsIn(text, word) {
  const angles = /[<>]/g;
  let angle = -1; // where the next one stands
  for (const { index, 0: found } of text.matchAll(new RegExp(wordSource(word), "giu"))) {
    const end = index + found.length;
    if (angle < end) {
      angles.lastIndex = end;
      angle = angles.exec(text)?.index ?? text.length;
    }
    if (text[angle] !== ">") yield [index, end];
  }
}

/** What stands between `start` and `end`, with the brackets and the number that weigh it alone. */
function withWeight(text, start, end) {
  let inner = start;
  while (/\s/.test(text[inner - 1] ?? "")) inner -= 1;
  let open = 0;
  while (text[inner - 1 - open] === "(" && !escaped(text, inner - 1 - open)) open += 1;
  const rest = /\s*(?::\s*-?[\d.]+\s*)?(\)+)/y;
  rest.lastIndex = end;
  const closed = rest.exec(text)?.[1].length ?? 0;
  const pairs = Math.min(open, closed);
  return pairs ? [inner - pairs, rest.lastIndex - closed + pairs] : [start, end];
}

/** A whole word or words; brackets must be escaped, else they weigh, and blanks may be any. */
function wordSource(word) {
  const literal = (sign) => (/[\\()[\]]/.test(sign) ? `\\\\\\${sign}` : sign.replace(/[.*+?^${}|/]/, "\\$&"));
  const inner = word.trim().split(/\s+/).map((part) => [...part].map(literal).join("")).join("\\s+");
  const edge = String.raw`[\p{L}\p{N}_]`;
  const starts = new RegExp(`^${edge}`, "u").test(word.trim());
  const ends = new RegExp(`${edge}$`, "u").test(word.trim());
  return `${starts ? `(?<!${edge})` : ""}${inner}${ends ? `(?!${edge})` : ""}`;
}

const KINDS = {
  tag: String.raw`<[a-zA-Z]+:[^<>\n]+>`,
  weight: String.raw`\((?:[^()\\]|\\.)*:\s*-?[\d.]+\s*\)`,
  edit: String.raw`(?<!\\)\[(?:[^\[\]\\]|\\.)*\]`,
  word: String.raw`\b(?:AND|BREAK)\b`,
};

const EDITS = /\||:\s*[-+]?[\d.]+\s*\]$/;

/**
 * Cut a prompt into pieces to be coloured: `{text, kind}` with kind "plain", "weight", "tag", "edit" (`[a:b:0.5]`, `[a|b]`) or
 * "word" (AND, BREAK). Joined they give `text`.
 */
export function pieces(text) {
  const result = [];
  const pattern = new RegExp(Object.entries(KINDS).map(([kind, source]) => `(?<${kind}>${source})`).join("|"), "g");
  let at = 0;
  for (const match of text.matchAll(pattern)) {
    const kind = Object.keys(KINDS).find((each) => match.groups[each] !== undefined);
    if (kind === "edit" && !EDITS.test(match[0])) continue;
    if (match.index > at) result.push({ text: text.slice(at, match.index), kind: "plain" });
    result.push({ text: match[0], kind });
    at = match.index + match[0].length;
  }
  result.push({ text: text.slice(at), kind: "plain" });
  return result;
}

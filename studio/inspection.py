"""The prompt inspector: what the prompts of a request come to, and what they name that is not there, before anything runs.

Goes the way of `studio.resolve`, with its very functions, but does not stop at the first mistake: what is unknown stays text, and
is told.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal, TypeVar

from studio.errors import StudioError
from studio.hypernetworks import find_hypernetwork
from studio.library.embeddings import EmbeddingWords, embedding_words
from studio.prompt.comments import strip_comments
from studio.prompt.composition import split_composition
from studio.prompt.inspect import BranchView, PromptView, inspect_prompt, shortened
from studio.prompt.networks import HYPERNETWORK, NetworkTag, extract_networks
from studio.prompt.styles import Style
from studio.prompt.weights import BadWeight
from studio.prompt.wildcards import literal
from studio.samplers.table import SamplerSpec, find_sampler
from studio.schema.models import ModelInfo
from studio.schema.request import GenerationRequest
from studio.schema.resolved import LoraUse
from studio.wording import ModelLookup, draw, find_lora, model_calls, with_styles

SHOWN_NAMES = 40
"""LoRAs, wildcards and mistakes that are told of one prompt."""
SHOWN_WORDING = 2000
"""Characters of a drawn prompt that are told."""
EXAMPLE_SEED = 0
"""Draws the example where the request leaves the seed open."""

Drawn = Literal["no", "seed", "example"]
_T = TypeVar("_T")
MentionKind = Literal["lora", "hypernetwork", "embedding", "network", "wildcard", "style", "weight", "prompt"]


@dataclass(frozen=True)
class Place:
    """Where in the prompt as it was sent: character `start` from 0, `line` and `column` from 1."""

    start: int
    line: int
    column: int


@dataclass(frozen=True)
class Mention:
    """Something that a prompt names, or a mistake in it.

    `text` is as written, `detail` a word about it such as a weight, `problem` the sentence why it cannot be used (empty: it
    can), `choices` near names. `place` is where it is first written, None for what came with a style or wildcard.
    """

    kind: MentionKind
    text: str
    detail: str = ""
    problem: str = ""
    choices: tuple[str, ...] = ()
    place: Place | None = None


@dataclass(frozen=True)
class PromptInspection:
    """One of the two prompts. `wording` is what wildcards and choices made of it: by the seed, or as an example where that is open."""

    drawn: Drawn
    wording: str
    branches: list[BranchView]
    more_branches: int
    mentions: list[Mention]
    more_mentions: int
    notes: list[str]


@dataclass(frozen=True)
class Inspection:
    """Both prompts of a request. Segments count in `calls`: as many as there are `steps`, or twice as many."""

    steps: int
    calls: int
    prompt: PromptInspection
    negative_prompt: PromptInspection


def inspect_request(request: GenerationRequest, library: ModelLookup, *, selected_checkpoint: str = "") -> Inspection:
    """Look into the prompts of `request`; the arguments are those of `resolve`.

    What is wrong in the prompts is told. Raises `UnknownName` for an unknown sampler only.
    """
    sampler = find_sampler(request.sampler)
    model = _checkpoint(request.model or selected_checkpoint, library)
    words = embedding_words(library.embeddings(), model) if model else EmbeddingWords({}, {})
    sides = [_Side(field, request, library, sampler, model, words).inspect() for field in ("prompt", "negative_prompt")]
    return Inspection(request.steps, model_calls(sampler, request.steps), *sides)


class _Side:
    """One prompt on its way from the request to the chunks."""

    def __init__(
        self,
        field: str,
        request: GenerationRequest,
        library: ModelLookup,
        sampler: SamplerSpec,
        model: ModelInfo | None,
        words: EmbeddingWords,
    ) -> None:
        self._field = field
        self._positive = field == "prompt"
        self._request = request
        self._library = library
        self._sampler = sampler
        self._model = model
        self._words = words
        self._source: str = getattr(request, field)
        self._mentions: dict[tuple[str, str], Mention] = {}
        self._notes: list[str] = []
        self._more = 0
        self._unknown: list[str] = []

    def inspect(self) -> PromptInspection:
        merged = self._merged()
        wording = self._drawn(merged)
        clean, tags = extract_networks(wording)
        self._networks(tags)
        request = self._request
        view = inspect_prompt(
            clean,
            model_calls(self._sampler, request.steps),
            emphasis=request.emphasis,
            old=request.old_prompt_editing,
            composed=self._positive,
            embeddings=self._words.names,
            names=self._words.all_names,
        )
        self._embeddings(view.named)
        for written in view.bad_weights:
            self._refused("weight", written, BadWeight(written))
        self._remark(view, clean)
        mentions = sorted(self._mentions.values(), key=lambda mention: not mention.problem)
        drawn: Drawn = "no" if wording == merged else "seed" if request.seed >= 0 else "example"
        return PromptInspection(
            drawn=drawn,
            wording="" if drawn == "no" else shortened(wording, SHOWN_WORDING),
            branches=view.branches,
            more_branches=view.more_branches,
            mentions=mentions,
            more_mentions=self._more,
            notes=self._notes,
        )

    def _merged(self) -> str:
        """With its styles, as far as they are known."""
        styles: list[Style] = []
        for name in self._request.styles:
            style = self._attempt("style", name, partial(self._library.style, name))
            styles += [style] if style is not None else []
        merged = self._attempt("prompt", "", lambda: with_styles(self._field, self._request, styles))
        return with_styles(self._field, self._request, []) if merged is None else merged

    def _drawn(self, merged: str) -> str:
        """With its wildcards and choices drawn; those that are unknown stay as they are written."""
        seed = self._request.seed if self._request.seed >= 0 else EXAMPLE_SEED
        wording = self._attempt("prompt", "", lambda: draw(self._field, merged, self._lines, seed))
        if wording is None:
            return merged
        for written in self._unknown:
            wording = wording.replace(literal(written), written)
        return wording

    def _lines(self, name: str) -> Sequence[str]:
        written = f"__{name}__"
        lines = self._attempt("wildcard", written, partial(self._library.wildcard, name), _line_count)
        if lines is not None:
            return lines
        self._unknown.append(written)
        return [literal(written)]

    def _networks(self, tags: Sequence[NetworkTag]) -> None:
        for tag in tags:
            if tag.kind == "lora" and self._positive:
                self._attempt("lora", str(tag), partial(find_lora, tag, self._model, self._library), _weights)
            elif tag.kind == HYPERNETWORK and self._positive:
                self._attempt(
                    "hypernetwork",
                    str(tag),
                    partial(find_hypernetwork, tag, self._library),
                    lambda use: f"{use.multiplier:g}",
                )
            else:
                self._mention(Mention("network", str(tag), detail="ignored", place=self._place(str(tag))))
        kinds = sorted({tag.kind for tag in tags} - {"lora", HYPERNETWORK})
        if kinds:
            self._notes.append(
                f"Tags of the kind {', '.join(kinds)[:80]} are taken out and do nothing; LoRAs are <lora:name>, hypernetworks <hypernet:name>."
            )
        if not self._positive and any(tag.kind in ("lora", HYPERNETWORK) for tag in tags):
            self._notes.append("Tags in the negative prompt are taken out and do nothing: write them in the prompt.")

    def _embeddings(self, named: Iterable[str]) -> None:
        """Those of the wordings that were read. A name is also found in other letters than its own, and told as it is written."""
        for name in named:
            letters = (r"\\?" * (letter in "()[]\\") + re.escape(letter) for letter in name)
            found = re.search(rf"(?<!\w){''.join(letters)}(?!\w)", self._source, re.IGNORECASE)
            written, place = (found[0], self._place_at(found.start())) if found else (name, None)
            problem, info = self._words.refused.get(name, ""), self._words.usable.get(name)
            detail = _vector_count(info.vectors) if info else ""
            self._mention(Mention("embedding", written, detail, problem, place=place))

    def _remark(self, view: PromptView, clean: str) -> None:
        request, notes = self._request, self._notes
        if strip_comments(self._source) != self._source:
            notes.append("Comments, from # to the end of the line, are taken out.")
        if not self._positive and len(split_composition(clean)) > 1:
            notes.append("AND is a word in the negative prompt: only the prompt can be put together of parts.")
        if view.breaks_in_weights:
            notes.append("BREAK inside of a weight is a word and ends no chunk.")
        if request.emphasis == "None":
            notes.append("Emphasis is None: brackets and BREAK are ordinary characters.")
        elif request.emphasis == "Ignore":
            notes.append("Emphasis is Ignore: weights in brackets change nothing.")
        if self._sampler.own_range and any(len(branch.segments) > 1 for branch in view.branches):
            notes.append(
                f"{self._sampler.name} chooses its own steps: past those asked for, the first wording is used again."
            )

    def _attempt(
        self, kind: MentionKind, text: str, ask: Callable[[], _T], detail: Callable[[_T], str] = lambda found: ""
    ) -> _T | None:
        """What `ask` answers, told as a mention; None when it is refused, which is told with the reason. Asks for so many names only."""
        if kind != "prompt" and len(self._mentions) >= SHOWN_NAMES and (kind, text) not in self._mentions:
            self._more += 1
            return None
        try:
            found = ask()
        except StudioError as error:
            self._refused(kind, text, error)
            return None
        if kind != "prompt":
            self._mention(Mention(kind, text, detail=detail(found), place=self._place(text)))
        return found

    def _refused(self, kind: MentionKind, text: str, error: StudioError) -> None:
        self._mention(Mention(kind, text, problem=error.message, choices=error.choices, place=self._place(text)))

    def _mention(self, mention: Mention) -> None:
        if len(self._mentions) < SHOWN_NAMES or mention.problem:
            self._mentions.setdefault((mention.kind, mention.text), mention)
        else:
            self._more += 1

    def _place(self, text: str) -> Place | None:
        start = self._source.find(text) if text else -1
        return self._place_at(start) if start >= 0 else None

    def _place_at(self, start: int) -> Place:
        before = self._source[:start]
        return Place(start, before.count("\n") + 1, start - before.rfind("\n"))


def _checkpoint(name: str, library: ModelLookup) -> ModelInfo | None:
    """The checkpoint that LoRAs and embeddings must fit; None where there is none."""
    try:
        return library.checkpoint(name or None)
    except StudioError:
        return None


def _weights(use: LoraUse) -> str:
    """One number where both are the same, and the points of one that changes."""
    if use.unet_course:
        points = ", ".join(f"{weight:g}@{step:g}" for weight, step in use.unet_course)
        return f"text {use.te_weight:g}, U-Net {points}"
    if use.te_weight == use.unet_weight:
        return f"{use.te_weight:g}"
    return f"text {use.te_weight:g}, U-Net {use.unet_weight:g}"


def _line_count(lines: Sequence[str]) -> str:
    return "1 line" if len(lines) == 1 else f"{len(lines):,} lines"


def _vector_count(vectors: int) -> str:
    return "1 vector" if vectors == 1 else f"{vectors} vectors"

"""What a prompt comes to before anything runs: its parts, their wordings over the steps, their chunks, every token's weight.

Nothing is parsed here. Composition, schedule, weights, tokenizer and chunks are those that paint; this only writes down what
they make of a text. Long prompts are cut in what is told, never in what is counted: `more_…` says how much was left out.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby, islice, takewhile
from typing import Literal

from studio.prompt.chunks import CHUNK_LENGTH, Chunk, chunk_prompt
from studio.prompt.composition import split_composition
from studio.prompt.schedule import active_stretch, parse_schedule
from studio.prompt.tokenizer import ClipTokenizer, Piece, shipped_tokenizer
from studio.prompt.weights import BREAK, BREAK_WEIGHT, BadWeight, weigh
from studio.schema.request import Emphasis

SHOWN_BRANCHES = 16
SHOWN_WORDINGS = 24
"""Wordings of a prompt whose chunks are told, those of all its branches together."""
SHOWN_CHUNKS = 8
"""Chunks of a wording whose tokens are told."""
LOOKED_THROUGH = 200_000
"""Characters of wordings that are read for one prompt. The first wording of a prompt is always read."""
SHOWN_TEXT, SHOWN_OWN = 160, 60
"""Characters of a wording that are told, and of what differs in it."""

Ending = Literal["BREAK", "comma", "full", "end"]
_BREAK = re.compile(rf"\b{BREAK}\b")
_WORD = re.compile(r"\w+|\W")
_BREAK_MARK = (BREAK, BREAK_WEIGHT)


@dataclass(frozen=True)
class TokenView:
    """A token: its letters, the weight that its vector is multiplied by, and whether the next token goes on with its word."""

    text: str
    weight: float
    joined: bool


@dataclass(frozen=True)
class ChunkView:
    """A chunk of up to 75 tokens, the `padding` that fills it up, and why it ends: at BREAK, at a comma, full, or with the text."""

    tokens: tuple[TokenView, ...]
    padding: int
    ended: Ending


@dataclass(frozen=True)
class WordingView:
    """One way a branch reads. `text` is its beginning, `own` what differs in it from the branch's other wordings (empty where
    nothing is written in that place, or there are no others). `tokens` counts all, `chunks` are the first of them."""

    text: str
    own: str
    tokens: int
    chunks: tuple[ChunkView, ...]
    more_chunks: int


@dataclass(frozen=True)
class Segment:
    """Model calls `first` to `last`, counted from 1, read as wording number `wording`, counted from 0."""

    first: int
    last: int
    wording: int


@dataclass(frozen=True)
class BranchView:
    """One part of a prompt put together with AND. `segments` may name wordings beyond those in `wordings`."""

    weight: float
    segments: tuple[Segment, ...]
    wordings: list[WordingView]
    more_wordings: int


@dataclass
class PromptView:
    """What a prompt comes to. `bad_weights` are written where a number should be: such a prompt is refused when it is to be painted."""

    branches: list[BranchView] = field(default_factory=list)
    more_branches: int = 0
    bad_weights: list[str] = field(default_factory=list)
    breaks_in_weights: bool = False
    """Somewhere BREAK stands in a weight and is a word."""


def inspect_prompt(
    text: str, calls: int, *, emphasis: Emphasis, old: bool, composed: bool, tokenizer: ClipTokenizer | None = None
) -> PromptView:
    """Look into `text`, which has no LoRA tags, comments and wildcards any more.

    Args:
        text: the prompt.
        calls: model calls that its editing counts in; see `studio.resolve.model_calls`.
        emphasis: with "Ignore" all weights are told as 1, with "None" brackets are text.
        old: editing as before A1111 1.6.0.
        composed: whether AND parts it, as in the prompt; in the negative prompt it is a word.
        tokenizer: the shipped one by default.
    """
    parts = split_composition(text) if composed else [(text, 1.0)]
    reader = _Reader(tokenizer or shipped_tokenizer(), emphasis)
    for part, weight in parts[:SHOWN_BRANCHES]:
        stretches = parse_schedule(part, calls, old=old)
        places = {text: place for place, text in enumerate(dict.fromkeys(stretch.text for stretch in stretches))}
        wordings = reader.read(list(places))
        segments = _segments([(stretch.until, places[stretch.text]) for stretch in stretches], calls)
        reader.view.branches.append(BranchView(weight, segments, wordings, len(places) - len(wordings)))
    reader.view.more_branches = len(parts) - len(reader.view.branches)
    return reader.view


def _segments(stretches: Sequence[tuple[int, int]], calls: int) -> tuple[Segment, ...]:
    """Runs of model calls that use the same wording."""
    ends = [end for end, _ in stretches]
    used = (stretches[active_stretch(ends, call)][1] for call in range(calls))
    segments: list[Segment] = []
    for wording, run in groupby(used):
        first = segments[-1].last + 1 if segments else 1
        segments.append(Segment(first, first + len(list(run)) - 1, wording))
    return tuple(segments)


class _Counted(int):
    """The id of a token of the text, its number in the wording being `place`; those of start, end and padding are plain."""

    place: int


class _Recorder:
    """A tokenizer whose tokens are known again in the chunks. Counts them, and knows what they stand for."""

    def __init__(self, tokenizer: ClipTokenizer) -> None:
        self._tokenizer = tokenizer
        self._texts: list[str] = []
        self._left = (piece for text in self._texts for piece in tokenizer.pieces(text))
        self._pieces: list[Piece] = []
        self.count = 0

    def encode(self, text: str) -> list[int]:
        counted = [_Counted(token) for token in self._tokenizer.encode(text)]
        for token in counted:
            token.place = self.count
            self.count += 1
        self._texts.append(text)
        return list(counted)

    def piece(self, token: _Counted) -> Piece:
        """What `token` stands for; read only as far as it is asked for. Ask when all is encoded."""
        self._pieces.extend(islice(self._left, max(0, token.place + 1 - len(self._pieces))))
        return self._pieces[token.place]


class _Reader:
    """Reads the wordings of a prompt until enough is told."""

    def __init__(self, tokenizer: ClipTokenizer, emphasis: Emphasis) -> None:
        self._tokenizer = tokenizer
        self._emphasis = emphasis
        self._wordings = SHOWN_WORDINGS
        self._characters = LOOKED_THROUGH
        self.view = PromptView()

    def read(self, texts: Sequence[str]) -> list[WordingView]:
        """The wordings of one branch, as many as there is room for."""
        taken: list[str] = []
        for text in texts:
            first = self._wordings == SHOWN_WORDINGS
            if not first and (self._wordings == 0 or self._characters < len(text)):
                break
            self._wordings -= 1
            self._characters -= len(text)
            taken.append(text)
        return [self._wording(text, own) for text, own in zip(taken, _differences(taken), strict=True)]

    def _wording(self, text: str, own: str) -> WordingView:
        recorder = _Recorder(self._tokenizer)
        breaks: list[int] = []  # before which token each BREAK stands
        chunks = chunk_prompt(_watched(self._parts(text), recorder, breaks), recorder)
        lengths = [sum(isinstance(token, _Counted) for token in chunk.tokens) for chunk in chunks]
        views = [
            self._chunk(*each, recorder) for each in zip(chunks[:SHOWN_CHUNKS], _endings(breaks, lengths), strict=False)
        ]
        return WordingView(
            text=shortened(text.strip(), SHOWN_TEXT),
            own=shortened(own, SHOWN_OWN),
            tokens=recorder.count,
            chunks=tuple(views),
            more_chunks=len(chunks) - len(views),
        )

    def _parts(self, text: str) -> list[tuple[str, float]]:
        try:
            parts = weigh(text, self._emphasis)
        except BadWeight as error:
            if error.written not in self.view.bad_weights:
                self.view.bad_weights.append(error.written)
            return [(text, 1.0)]
        if self._emphasis != "None" and any(_BREAK.search(part[0]) for part in parts if part != _BREAK_MARK):
            self.view.breaks_in_weights = True
        return parts

    def _chunk(self, chunk: Chunk, ended: Ending, recorder: _Recorder) -> ChunkView:
        plain = self._emphasis == "Ignore"
        tokens: list[TokenView] = []
        for token, weight in zip(chunk.tokens, chunk.weights, strict=True):
            if isinstance(token, _Counted):
                text, ends_word = recorder.piece(token)
                tokens.append(TokenView(text, 1.0 if plain else weight, not ends_word))
        return ChunkView(tuple(tokens), CHUNK_LENGTH - len(tokens), ended)


def _watched(parts: Iterable[tuple[str, float]], recorder: _Recorder, breaks: list[int]) -> Iterator[tuple[str, float]]:
    """`parts`, one by one; notes how many tokens there were at each BREAK."""
    for part in parts:
        if part == _BREAK_MARK:
            breaks.append(recorder.count)
        yield part


def _endings(breaks: Sequence[int], lengths: Sequence[int]) -> list[Ending]:
    """Why each chunk of `lengths` tokens ends, where BREAK stands before the tokens `breaks`."""
    left = list(reversed(breaks))
    endings: list[Ending] = []
    end = 0
    for number, length in enumerate(lengths, 1):
        end += length
        if left and left[-1] == end:
            left.pop()
            endings.append("BREAK")
        elif number == len(lengths):
            endings.append("end")
        else:
            endings.append("full" if length == CHUNK_LENGTH else "comma")
    return endings


def _differences(texts: Sequence[str]) -> list[str]:
    """What is left of each text without the words at both ends that all have in common."""
    if len(texts) < 2:
        return ["" for _ in texts]
    words = [_WORD.findall(text) for text in texts]
    before = _alike(zip(*words, strict=False))
    rests = [each[before:] for each in words]
    after = _alike(zip(*(reversed(rest) for rest in rests), strict=False))
    return ["".join(rest[: len(rest) - after]).strip() for rest in rests]


def _alike(columns: Iterable[tuple[str, ...]]) -> int:
    """How many columns from the first on are of one word each."""
    return sum(1 for _ in takewhile(lambda column: len(set(column)) == 1, columns))


def shortened(text: str, length: int) -> str:
    """The beginning of `text`, at most `length` characters."""
    return text if len(text) <= length else f"{text[: length - 1]}…"

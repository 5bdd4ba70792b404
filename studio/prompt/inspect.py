"""What a prompt comes to before anything runs: its parts, their wordings over the steps, their chunks, every token's weight.

Nothing is parsed here. Composition, schedule, weights, tokenizer and chunks are those that paint; this only writes down what
they make of a text. Long prompts are cut in what is told, never in what is counted: `more_…` says how much was left out.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby, islice, takewhile, zip_longest
from typing import Literal

from studio.prompt.chunks import CHUNK_LENGTH, PLACE, Chunk, PlacedEmbedding, chunk_prompt
from studio.prompt.composition import split_composition
from studio.prompt.embeddings import NO_EMBEDDINGS, EmbeddingNames
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

Ending = Literal["BREAK", "comma", "embedding", "full", "end"]
_BREAK = re.compile(rf"\b{BREAK}\b")
_WORD = re.compile(r"\w+|\W")
_BREAK_MARK = (BREAK, BREAK_WEIGHT)
_PLACE_TEXT = "!"
"""What the token `PLACE` reads."""


@dataclass(frozen=True)
class TokenView:
    """A token: its letters, the weight that its vector is multiplied by, and whether the next token goes on with its word.

    With `vectors` it is an embedding of that name, which stands for so many tokens.
    """

    text: str
    weight: float
    joined: bool
    vectors: int = 0


@dataclass(frozen=True)
class ChunkView:
    """A chunk of up to 75 tokens, an embedding counting as many as it has vectors, the `padding` that fills it up, and why it ends:
    at BREAK, at a comma, before an embedding that does not fit, full, or with the text.

    `in_padding` are embeddings that stand among the padding: where a chunk is cut at a comma their tokens ("!") move on, their
    vectors do not, as in AUTOMATIC1111.
    """

    tokens: tuple[TokenView, ...]
    padding: int
    ended: Ending
    in_padding: tuple[TokenView, ...] = ()


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
    named: dict[str, int] = field(default_factory=dict)
    """How often each name of `names` stands in the wordings that were read."""


def inspect_prompt(
    text: str,
    calls: int,
    *,
    emphasis: Emphasis,
    old: bool,
    composed: bool,
    tokenizer: ClipTokenizer | None = None,
    embeddings: EmbeddingNames = NO_EMBEDDINGS,
    names: EmbeddingNames = NO_EMBEDDINGS,
) -> PromptView:
    """Look into `text`, which has no LoRA tags, comments and wildcards any more.

    Args:
        text: the prompt.
        calls: model calls that its editing counts in; see `studio.wording.model_calls`.
        emphasis: with "Ignore" all weights are told as 1, with "None" brackets are text.
        old: editing as before A1111 1.6.0.
        composed: whether AND parts it, as in the prompt; in the negative prompt it is a word.
        tokenizer: the shipped one by default.
        embeddings: those that may stand in the prompt.
        names: names to look out for, whether or not there is an embedding for them.
    """
    parts = split_composition(text) if composed else [(text, 1.0)]
    reader = _Reader(tokenizer or shipped_tokenizer(), emphasis, embeddings, names)
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

    def __init__(
        self, tokenizer: ClipTokenizer, emphasis: Emphasis, embeddings: EmbeddingNames, names: EmbeddingNames
    ) -> None:
        self._tokenizer = tokenizer
        self._emphasis = emphasis
        self._embeddings = embeddings
        self._names = names
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
        parts = self._parts(text)
        for found in self._names.found_in(parts):
            self.view.named[found.name] = self.view.named.get(found.name, 0) + 1
        chunks = chunk_prompt(_watched(parts, recorder, breaks), recorder, embeddings=self._embeddings)
        endings = _endings(breaks, chunks, self._name_length)
        views = [self._chunk(*each, recorder) for each in zip(chunks[:SHOWN_CHUNKS], endings, strict=False)]
        return WordingView(
            text=shortened(text.strip(), SHOWN_TEXT),
            own=shortened(own, SHOWN_OWN),
            tokens=sum(map(_used, chunks)),
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
        used, at = _used(chunk), {placed.offset: placed for placed in chunk.embeddings}
        tokens: list[TokenView] = []
        place = 0
        while place < used:
            token, placed = chunk.tokens[place + 1], at.get(place)
            text, ends_word = recorder.piece(token) if isinstance(token, _Counted) else (_PLACE_TEXT, True)
            tokens.append(self._embedding(placed, chunk) if placed else self._token(text, chunk, place, not ends_word))
            place += placed.vectors if placed else 1
        strayed = tuple(self._embedding(placed, chunk) for place, placed in at.items() if place >= used)
        return ChunkView(tuple(tokens), CHUNK_LENGTH - used, ended, strayed)

    def _token(self, text: str, chunk: Chunk, place: int, joined: bool, vectors: int = 0) -> TokenView:
        weight = 1.0 if self._emphasis == "Ignore" else chunk.weights[place + 1]
        return TokenView(text, weight, joined, vectors)

    def _embedding(self, placed: PlacedEmbedding, chunk: Chunk) -> TokenView:
        return self._token(placed.name, chunk, placed.offset, False, placed.vectors)

    def _name_length(self, name: str) -> int:
        return len(self._embeddings.encode(name))


def _watched(parts: Iterable[tuple[str, float]], recorder: _Recorder, breaks: list[int]) -> Iterator[tuple[str, float]]:
    """`parts`, one by one; notes how many tokens there were at each BREAK."""
    for part in parts:
        if part == _BREAK_MARK:
            breaks.append(recorder.count)
        yield part


def _used(chunk: Chunk) -> int:
    """The tokens of a chunk that are no padding; those that an embedding stands in for count."""
    return sum(isinstance(token, _Counted) or token == PLACE for token in chunk.tokens)


def _endings(breaks: Sequence[int], chunks: Sequence[Chunk], name_length: Callable[[str], int]) -> list[Ending]:
    """Why each chunk ends, where BREAK stands before the tokens `breaks` of the text; the name of an embedding is `name_length` of them."""
    left = list(reversed(breaks))
    endings: list[Ending] = []
    end = 0
    moved = 0  # tokens of names whose vectors stayed in the chunk before
    for chunk, following in zip_longest(chunks, chunks[1:]):
        used = _used(chunk)
        names = {placed.offset: name_length(placed.name) for placed in chunk.embeddings}
        end += moved + sum(isinstance(token, _Counted) for token in chunk.tokens)
        end += sum(length for offset, length in names.items() if offset < used)
        moved = sum(length for offset, length in names.items() if offset >= used)
        if left and left[-1] == end:
            left.pop()
            endings.append("BREAK")
        elif following is None:
            endings.append("end")
        elif used == CHUNK_LENGTH:
            endings.append("full")
        else:  # an embedding that comes after a comma's cut leaves its place in the chunk before
            begins = [placed for placed in following.embeddings if placed.offset == 0]
            endings.append("embedding" if begins else "comma")
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

r"""Prompt editing over the steps: `[from:to:when]`, `[to:when]`, `[from::when]` and `[a|b]`. AUTOMATIC1111's language and results.

    [cat:dog:0.5]     "cat" in the first half of the steps, "dog" after it
    [cat:dog:8]       "cat" up to step 8, "dog" after it
    [dog:0.5]         nothing, then "dog"          [cat::0.5]   "cat", then nothing
    [cat|dog|]        "cat", "dog", nothing, "cat", ... a step each

Forms nest, in each other and in weights. Text that is no such form stays as it is, its brackets for `parse_weights`: a round bracket
may hold one colon of its own, a square one none, and where that is broken the bracket and all around it are plain text. A `|` outside
of square brackets makes the whole prompt plain text.

The text is read once and without recursion.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field

_PIECE = re.compile(r"(?: [^\\()\[\]:|] | \\. )+ | [()\[\]:|]", re.VERBOSE)
_NUMBER = re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_CLOSES = {")": "(", "]": "["}


@dataclass(frozen=True)
class Stretch:
    """`text` is the prompt from the end of the stretch before up to step `until`, counted from 1."""

    until: int
    text: str


@dataclass(frozen=True)
class _Edit:
    """`before` up to step `when`, then `after`."""

    before: _Sequence
    after: _Sequence
    when: int

    def at(self, step: int) -> _Sequence:
        return self.before if step <= self.when else self.after


@dataclass(frozen=True)
class _Turns:
    """One option a step, in turns."""

    options: list[_Sequence]

    def at(self, step: int) -> _Sequence:
        return self.options[(step - 1) % len(self.options)]


_Sequence = list["str | _Edit | _Turns | _Sequence"]


@dataclass
class _Bracket:
    """An open bracket: what stands between its separators so far. The outermost, "", is the whole text."""

    opener: str
    segments: list[_Sequence] = field(default_factory=lambda: [[]])
    separators: str = ""

    def literal(self) -> _Sequence:
        """The bracket as it was written, without its end."""
        nodes: _Sequence = [self.opener, self.segments[0]]
        for separator, segment in zip(self.separators, self.segments[1:], strict=True):
            nodes += [separator, segment]
        return nodes


class _NotEditable(Exception):
    """A `|` stands where none may."""


class _Parser:
    """Reads a prompt into a sequence; collects the steps at which it may change."""

    def __init__(self, clock: _Clock) -> None:
        self._clock = clock
        self._open = [_Bracket("")]
        self.changes: set[int] = set()

    def parse(self, text: str) -> _Sequence:
        position = 0
        for match in _PIECE.finditer(text):
            if match.start() != position:  # a backslash that escapes nothing
                raise _NotEditable
            self._take(match[0])
            position = match.end()
        if position != len(text):
            raise _NotEditable
        self._flatten()
        return self._open[0].segments[0]

    def _take(self, piece: str) -> None:
        top = self._open[-1]
        if piece in ("(", "["):
            self._open.append(_Bracket(piece))
        elif piece in _CLOSES:
            self._close(piece)
        elif piece == "|" and not top.opener:
            raise _NotEditable
        elif piece in (":", "|") and top.opener:
            top.separators += piece
            top.segments.append([])
        else:
            top.segments[-1].append(piece)

    def _close(self, closer: str) -> None:
        top = self._open[-1]
        node = self._node(top) if top.opener == _CLOSES[closer] else None
        if node is None:
            self._flatten()
            self._open[0].segments[0].append(closer)
            return
        self._open.pop()
        self._open[-1].segments[-1].append(node)

    def _node(self, bracket: _Bracket) -> _Sequence | _Edit | _Turns | None:
        """What a complete bracket is; None for one that breaks the rules."""
        separators, segments = bracket.separators, bracket.segments
        if bracket.opener == "(":
            return [*bracket.literal(), ")"] if separators in ("", ":") else None
        if not separators:
            return [*bracket.literal(), "]"]
        if set(separators) == {"|"}:
            self.changes.update(range(1, self._clock.steps + 1))
            return _Turns(segments)
        if separators not in (":", "::") or (when := self._clock.step_of(segments[-1])) is None:
            return None
        if when >= 1:
            self.changes.add(when)
        return _Edit(segments[0] if separators == "::" else [], segments[-2], when)

    def _flatten(self) -> None:
        """Every open bracket becomes plain text."""
        root = self._open[0].segments[0]
        for bracket in self._open[1:]:
            if "|" in bracket.separators:
                raise _NotEditable
            root.append(bracket.literal())
        del self._open[1:]


@dataclass(frozen=True)
class _Clock:
    """What a `when` means: in a pass of `steps`, after a pass of `before` steps if there was one."""

    steps: int
    before: int | None
    old: bool

    def step_of(self, segment: _Sequence) -> int | None:
        """The step that a segment names, at most the last one; None when it is no number."""
        if len(segment) != 1 or not isinstance(segment[0], str):
            return None
        text = segment[0].strip()
        if not _NUMBER.fullmatch(text):
            return None
        value = float(text)
        if self.old:
            value = value * self.steps if value < 1 else value
        elif "." in text:
            value = (value - (self.before is not None)) * self.steps
        else:
            value -= self.before or 0
        return min(self.steps, math.trunc(max(min(value, self.steps), -1)))


def parse_schedule(text: str, steps: int, *, before: int | None = None, old: bool = False) -> list[Stretch]:
    """`text` as it reads over `steps` steps; at least one stretch, the last until `steps`.

    A `when` with a dot is a share of the steps, one without a step. In a second pass, after one of `before` steps, steps are counted
    on and shares by one (1.5 is the middle of it). `old` reads as versions before 1.6.0 did: numbers below 1 are shares, others
    steps, in every pass.
    """
    if "[" not in text:
        return [Stretch(steps, text)]
    parser = _Parser(_Clock(steps, before, old))
    try:
        root = parser.parse(text)
    except _NotEditable:
        return [Stretch(steps, text)]
    return [Stretch(step, _text_at(root, step)) for step in sorted(parser.changes | {steps})]


def active_stretch(ends: Sequence[int], call: int) -> int:
    """Index of the stretch that model call `call`, counted from 0, uses; `ends` are the stretches' last steps.

    The first one whose end is not before `call`, so that the first stretch lasts a call longer than it says; past the end, where
    samplers that choose their own steps come to, the first. That is what AUTOMATIC1111 does.
    """
    return next((index for index, end in enumerate(ends) if call <= end), 0)


def _text_at(root: _Sequence, step: int) -> str:
    texts: list[str] = []
    left: _Sequence = [root]
    while left:
        node = left.pop()
        if isinstance(node, str):
            texts.append(node)
        elif isinstance(node, list):
            left.extend(reversed(node))
        else:
            left.append(node.at(step))
    return "".join(texts)

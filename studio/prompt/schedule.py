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
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

_MARK = re.compile(r"\\.?|[()\[\]:|]")
_NUMBER = re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_CLOSES = {")": "(", "]": "["}
_PLAIN = frozenset({"()", "(:)", "[]"})
_EDITS = frozenset({"[:]", "[::]"})
_TURNS = re.compile(r"\[\|+\]")


@dataclass(frozen=True)
class Stretch:
    """`text` is the prompt from the end of the stretch before up to step `until`, counted from 1."""

    until: int
    text: str


class _Form(NamedTuple):
    """A bracket that reads differently over the steps. `marks` are the places of its opener, its separators and its end."""

    marks: list[int]
    when: int | None
    """The last step before the change; None takes the parts in turns."""

    def start(self, step: int) -> int:
        """Where the part begins that is read at `step`; it ends at the next mark."""
        if self.when is None:
            return self.marks[(step - 1) % (len(self.marks) - 1)] + 1
        if step > self.when:
            return self.marks[-3] + 1
        return self.marks[0] + 1 if len(self.marks) == 4 else self.marks[-1]


class _NotEditable(Exception):
    """A `|` stands where none may, or a backslash escapes nothing."""


class _Schedule:
    """A prompt and its forms."""

    def __init__(self, text: str, clock: _Clock) -> None:
        self._text = text
        self._clock = clock
        self._forms: dict[int, _Form] = {}  # by the places of their marks
        self._read()
        self._marks = sorted(self._forms)

    def _read(self) -> None:
        text = self._text
        opened: list[int] = []  # the brackets that are open, each with its separators so far
        for match in _MARK.finditer(text):
            piece = match[0]
            if piece in "([" or (piece in ":|" and opened):
                opened.append(match.start())
            elif piece in _CLOSES:
                if opened:
                    self._close(opened, match.start())
            elif piece in ("|", "\\"):
                raise _NotEditable
        self._flatten(opened)

    def _close(self, opened: list[int], end: int) -> None:
        """A bracket ends: it is kept if it follows the rules; else it and all around it are plain text."""
        text = self._text
        first = len(opened) - 1
        while text[opened[first]] not in "([":
            first -= 1
        marks = [*opened[first:], end]
        kind = "".join([text[mark] for mark in marks])
        if kind not in _PLAIN:
            when = self._clock.step_of(text[marks[-2] + 1 : end]) if kind in _EDITS else None
            if when is None and not _TURNS.fullmatch(kind):
                self._flatten(opened)
                return
            self._forms.update(dict.fromkeys(marks, _Form(marks, when)))
        del opened[first:]

    def _flatten(self, opened: list[int]) -> None:
        """Every open bracket becomes plain text."""
        if any(self._text[mark] == "|" for mark in opened):
            raise _NotEditable
        opened.clear()

    def stretches(self) -> list[Stretch]:
        """The text over the steps."""
        steps, forms = self._clock.steps, self._forms.values()
        whens = sorted({form.when for form in forms if form.when is not None})
        period = math.lcm(*{len(form.marks) - 1 for form in forms if form.when is None})
        ends = range(1, steps) if period > 1 else [when for when in whens if 0 < when < steps]
        texts: dict[tuple[int, int], str] = {}
        found: list[Stretch] = []
        for end in (*ends, steps):
            state = (end % period, bisect_left(whens, end))
            if state not in texts:
                texts[state] = self._at(end)
            found.append(Stretch(end, texts[state]))
        return found

    def _at(self, step: int) -> str:
        texts: list[str] = []
        place = 0
        for mark in self._marks:
            if mark >= place:
                texts.append(self._text[place:mark])
                form = self._forms[mark]
                place = form.start(step) if mark == form.marks[0] else form.marks[-1] + 1
        return "".join([*texts, self._text[place:]])


@dataclass(frozen=True)
class _Clock:
    """What a `when` means: in a pass of `steps`, after a pass of `before` steps if there was one."""

    steps: int
    before: int | None
    old: bool

    def step_of(self, text: str) -> int | None:
        """The step that `text` names, at most the last one; None when it is no number."""
        text = text.strip()
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
    try:
        return _Schedule(text, _Clock(steps, before, old)).stretches()
    except _NotEditable:
        return [Stretch(steps, text)]


def active_stretch(ends: Sequence[int], call: int) -> int:
    """Index of the stretch that model call `call`, counted from 0, uses; `ends` are the stretches' last steps.

    The first one whose end is not before `call`, so that the first stretch lasts a call longer than it says; past the end, where
    samplers that choose their own steps come to, the first. That is what AUTOMATIC1111 does.
    """
    return next((index for index, end in enumerate(ends) if call <= end), 0)

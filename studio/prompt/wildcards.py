r"""Prompts that draw lots: wildcards and choices. The language of sd-dynamic-prompts.

    __colour__              a line of the wildcard "colour"; `__animals/cats__` and `__animals/*__` reach into folders
    {red|blue}              one of the options
    {3::red|blue}           red three times as often
    {2$$red|blue|green}     two different ones, "blue, red"; {1-2$$...} one or two; {2$$ and $$...} with another separator
    {2$$__colour__}         two different lines of a wildcard
    \{ \_                   the character itself

Options and lines may hold all of this again. What is no such form stays text: `{prompt}`, `{a}`, `snake__case__name`, a brace that
is never closed. A `|` inside of square brackets belongs to them, so `{[a|b]|c}` chooses between `[a|b]` and `c`.

What is drawn depends on the seed alone. The result holds no form any more: where luck puts one together it is escaped. A text
can therefore be drawn again and stays as it is, which is how a picture's prompt paints the same picture.

A text is read once and without recursion.
"""

from __future__ import annotations

import math
import random
import re
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from itertools import accumulate, pairwise
from operator import itemgetter
from typing import Generic, NamedTuple, TypeVar

from studio.errors import InvalidRequest
from studio.schema.parts import MAX_PROMPT

MAX_DEPTH = 50
"""Forms inside of forms, the lines of wildcards included."""
MAX_DRAWS = 10_000
"""Options drawn for one prompt."""
LOOKED_AT = 1000
"""Options that may be looked at for the price of one draw, where several are drawn at once."""
DEFAULT_SEPARATOR = ", "

_NAME = r"(?<![^\W_])__(?P<name>(?!_)(?:(?!__)[\w\-./*+\ ]){1,200})(?<!\ )__(?![^\W_])"
_TOKEN = re.compile(rf"\\. | {_NAME} | [{{}}\[\]|] | [^\\{{}}\[\]|_]+ | .", re.VERBOSE | re.DOTALL)
_WILDCARD = re.compile(_NAME, re.VERBOSE)
_QUANTITY = re.compile(
    r"\s*(?:(?P<count>\d{1,3})|(?P<low>\d{0,3})-(?P<high>\d{0,3}))\$\$(?:(?P<separator>[^${}\[\]|]*)\$\$)?"
)
_WEIGHT = re.compile(r"\s*(?P<weight>\d{1,6}(?:\.\d{0,6})?|\.\d{1,6})::")
_ESCAPABLE = re.compile(r"\\.|\{|_(?=_)", re.DOTALL)

Lookup = Callable[[str], Sequence[str]]
"""Name of a wildcard -> its lines, at least one. May raise `UnknownName` and others for the user."""
_T = TypeVar("_T")


class _Wildcard(NamedTuple):
    """`__name__` at text[start:end]."""

    start: int
    end: int
    name: str


class _Choice(NamedTuple):
    """Braces at text[start:end]; the options begin at `first` and are parted at `bars`. `quantity` says how many, if anything does."""

    start: int
    end: int
    first: int
    bars: list[int]
    quantity: re.Match[str] | None

    def bounds(self, text: str) -> list[tuple[tuple[int, int], float]]:
        """Where the options stand in `text`, with their weights."""
        edges = [self.first - 1, *self.bars, self.end - 1]
        found: list[tuple[tuple[int, int], float]] = []
        for left, right in pairwise(edges):
            weight = _WEIGHT.match(text, left + 1, right)
            found.append(((weight.end(), right), float(weight["weight"])) if weight else ((left + 1, right), 1.0))
        return found

    def amount(self) -> tuple[int, int | None]:
        """The fewest and the most options to take; None is as many as there are."""
        if self.quantity is None:
            return 1, 1
        count, low, high = self.quantity.group("count", "low", "high")
        if count:
            return int(count), int(count)
        fewest, most = int(low or 1), int(high) if high else None
        return (fewest, most) if most is None or fewest <= most else (most, fewest)

    def separator(self) -> str:
        """What stands between several options."""
        given = self.quantity["separator"] if self.quantity else None
        return DEFAULT_SEPARATOR if given is None else given


_Form = _Wildcard | _Choice


class _Template:
    """A text and its forms in the order of their beginnings, nested ones among them."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.forms: list[_Form] = []
        if "{" in text or "__" in text:
            self._read()
        self.forms.sort(key=itemgetter(0))
        self.starts = [form.start for form in self.forms]

    def _read(self) -> None:
        text = self.text
        opened: list[int] = []  # where the brackets begin that are open
        earlier: list[int] = []  # how many of `bars` stand before each
        bars: list[int] = []
        braces = 0
        for match in _TOKEN.finditer(text):
            piece, start = match[0], match.start()
            if piece in ("{", "["):
                braces += piece == "{"
                opened.append(start)
                earlier.append(len(bars))
            elif piece == "|":
                if opened:
                    bars.append(start)
            elif piece == "]":
                if opened and text[opened[-1]] == "[":
                    opened.pop()
                    del bars[earlier.pop() :]
            elif piece == "}":
                if braces:
                    braces -= 1
                    while text[opened[-1]] == "[":  # left open in the brace: text, and its `|` the brace's own
                        opened.pop()
                        earlier.pop()
                    own = earlier.pop()
                    self._close(opened.pop(), start, bars[own:])
                    del bars[own:]
            elif match["name"]:
                self.forms.append(_Wildcard(start, match.end(), match["name"]))

    def _close(self, start: int, end: int, bars: list[int]) -> None:
        """A brace ends: a form, unless it is text."""
        quantity = None if self.text[start + 1] in "{}" else _QUANTITY.match(self.text, start + 1, end)
        if bars or quantity:
            first = quantity.end() if quantity else start + 1
            self.forms.append(_Choice(start, end + 1, first, bars, quantity))


class _Lot(Generic[_T]):
    """Options with weights to draw from. `possible` of them have a weight above 0: at least one, or `InvalidRequest`."""

    def __init__(self, name: str, options: list[tuple[_T, float]]) -> None:
        self.name = name if len(name) <= 60 else f"{name[:57]}…"
        self.options = options
        self.possible = sum(weight > 0 for _, weight in options)
        self._ends = list(accumulate(weight for _, weight in options))
        if not self.possible:
            raise InvalidRequest(f"{self.name} has no option with a weight above 0.", field="prompt")

    def at(self, share: float) -> _T:
        """The option that lies at `share` (0 to 1) of all the weights."""
        last = bisect_left(self._ends, self._ends[-1])
        return self.options[min(bisect_right(self._ends, share * self._ends[-1]), last)][0]


class _Drawing:
    """One prompt being drawn: its luck, and what was looked up and spent so far."""

    def __init__(self, lookup: Lookup, luck: str) -> None:
        self._lookup = lookup
        self._luck = random.Random(luck)
        self._lines: dict[str, _Lot[str]] = {}
        self._draws = 0

    def draw(self, template: _Template, start: int, end: int, depth: int) -> str:
        """template.text[start:end] with its forms drawn."""
        if depth > MAX_DEPTH:
            message = f"Wildcards and braces are nested more than {MAX_DEPTH} deep: a wildcard may be naming itself."
            raise InvalidRequest(message, field="prompt")
        parts: list[str] = []
        place = bisect_left(template.starts, start)
        while place < len(template.forms) and template.starts[place] < end:
            form = template.forms[place]
            parts += [template.text[start : form.start], self._drawn(template, form, depth)]
            start = form.end
            place = bisect_left(template.starts, start)
        parts.append(template.text[start:end])
        return _checked("".join(parts))

    def _drawn(self, template: _Template, form: _Form, depth: int) -> str:
        if isinstance(form, _Wildcard):
            return self._line(self._pick(self._lines_of(form.name), 1)[0], depth)
        low, high = form.amount()
        if (name := _only_wildcard(template, form)) is not None:
            lines = self._lines_of(name)
            drawn = [self._line(line, depth) for line in self._pick(lines, self._count(low, high, lines))]
        else:
            lot = _Lot(template.text[form.start : form.end], form.bounds(template.text))
            drawn = [self.draw(template, *bounds, depth + 1) for bounds in self._pick(lot, self._count(low, high, lot))]
        return drawn[0] if (low, high) == (1, 1) else form.separator().join(text.strip() for text in drawn)

    def _line(self, line: str, depth: int) -> str:
        return self.draw(_Template(line), 0, len(line), depth + 1)

    def _lines_of(self, name: str) -> _Lot[str]:
        """The lines of a wildcard, looked up once."""
        if name not in self._lines:
            self._lines[name] = _Lot(f"__{name}__", [_weighted_line(line) for line in self._lookup(name)])
        return self._lines[name]

    def _count(self, fewest: int, most: int | None, lot: _Lot[_T]) -> int:
        """How many options to take, by chance, as far as there are so many."""
        low, high = min(fewest, lot.possible), lot.possible if most is None else min(most, lot.possible)
        return low if low >= high else low + int(self._luck.random() * (high - low + 1))

    def _pick(self, lot: _Lot[_T], count: int) -> list[_T]:
        """`count` different options by weight, in the order in which they were drawn."""
        self._draws += count + (len(lot.options) // LOOKED_AT if count > 1 else 0)
        if self._draws > MAX_DRAWS:
            message = f"More than {MAX_DRAWS:,} options would have to be drawn for this prompt."
            raise InvalidRequest(f"{message} It was too much at {lot.name}.", field="prompt")
        if count == 1:
            return [lot.at(self._luck.random())]
        # Efraimidis and Spirakis 2006: exponential waiting times with the weights as rates; who comes first is drawn first.
        waits = [
            (-math.log(1 - self._luck.random()) / weight, place)
            for place, (_, weight) in enumerate(lot.options)
            if weight > 0
        ]
        return [lot.options[place][0] for _, place in sorted(waits)[:count]]


def expand(text: str, lookup: Lookup, luck: str) -> str:
    """`text` with all its forms drawn; the same for the same `luck`, which may be any text. Drawing the result again changes nothing.

    Raises what `lookup` raises, and `InvalidRequest` for forms nested deeper than `MAX_DEPTH`, more than `MAX_DRAWS`
    draws, a result of more than `MAX_PROMPT` characters, and options that all have the weight 0.
    """
    template = _Template(text)
    if not template.forms:
        return text
    return _checked(literal(_Drawing(lookup, luck).draw(template, 0, len(text), 0).strip()))


def literal(text: str) -> str:
    """`text` so that it draws nothing: unchanged when it has no form, else with what could begin one escaped."""
    if not _Template(text).forms:
        return text
    return _ESCAPABLE.sub(lambda match: match[0] if len(match[0]) > 1 else f"\\{match[0]}", text)


def _only_wildcard(template: _Template, form: _Choice) -> str | None:
    """The name of the wildcard that is the form's only option; its lines then are the options."""
    if form.bars:
        return None
    match = _WILDCARD.fullmatch(template.text[form.first : form.end - 1].strip())
    return match["name"] if match else None


def _weighted_line(line: str) -> tuple[str, float]:
    weight = _WEIGHT.match(line)
    return (line[weight.end() :], float(weight["weight"])) if weight else (line, 1.0)


def _checked(text: str) -> str:
    if len(text) > MAX_PROMPT:
        message = f"With its wildcards drawn the prompt has more than the {MAX_PROMPT:,} characters that are possible."
        raise InvalidRequest(message, field="prompt")
    return text

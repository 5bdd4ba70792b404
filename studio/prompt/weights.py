r"""Emphasis: `(word)`, `((word))`, `(word:1.2)`, `[word]`, and BREAK. AUTOMATIC1111's language and results.

    (x)       x times 1.1               [x]       x divided by 1.1
    (x:1.3)   x times 1.3               \( \) \[ \] \\   the character itself
    BREAK     ends the current chunk of 75 tokens

Brackets nest and multiply, an unclosed one reaches to the end of the text, a closing one without its opening is text.
Round and square brackets are matched independently of each other, so `(a [b) c]` weighs "b" by both.

The text is read once and without recursion: a megabyte of brackets takes well under a second.
"""

from __future__ import annotations

import math
import re
import sys

from studio.errors import InvalidRequest
from studio.schema.request import Emphasis

BREAK = "BREAK"
BREAK_WEIGHT = -1.0
ROUND, SQUARE = 1.1, 1 / 1.1

_NUMBER = r"\s* [+-]? [.\d]+ \s* \)"
_PIECE = re.compile(
    rf"""
      (?P<text> (?: [^\\()\[\]:]+ | : (?! {_NUMBER}) )+ )
    | (?P<bracket> [(\[\])])
    | : (?P<number> {_NUMBER})                         # the end of (text:1.2)
    | \\ (?P<escaped> [()\[\]\\]?)                     # a backslash alone is dropped
    """,
    re.VERBOSE,
)
_LARGEST = sys.float_info.max
_BREAK = re.compile(r"\bBREAK\b")


class BadWeight(InvalidRequest):
    """A weight that is no number. `written` is what stands in its place, in the text after a colon."""

    def __init__(self, written: str) -> None:
        message = (
            f"{written[:40]!r} in the prompt is not a weight: write a number such as (word:1.2), or \\( for a bracket."
        )
        super().__init__(message, field="prompt")
        self.written = written


class _Brackets:
    """The nesting of one kind of bracket: per bracket its factor and the bracket around it. Entry 0 is "no bracket"."""

    def __init__(self, default: float) -> None:
        self.default = default
        self.factors = [1.0]
        self.outer = [0]
        self.current = 0

    def open(self) -> None:
        """Enter a bracket; its factor is the default until `close` says otherwise."""
        self.outer.append(self.current)
        self.factors.append(self.default)
        self.current = len(self.factors) - 1

    def close(self, factor: float) -> None:
        """Leave the innermost bracket."""
        self.factors[self.current] = factor
        self.current = self.outer[self.current]

    def products(self) -> list[float]:
        """Per bracket its factor times those of all brackets around it."""
        products = self.factors.copy()
        for index in range(1, len(products)):
            products[index] = _times(products[self.outer[index]], products[index])
        return products


def parse_weights(text: str) -> list[tuple[str, float]]:
    """Split `text` into (text, weight) pairs; neighbours of equal weight are joined. Never empty.

    The pair ("BREAK", -1.0) starts a new chunk. Inside a weighted bracket that -1 is multiplied like any weight and
    BREAK becomes an ordinary word, as in AUTOMATIC1111, so that pictures made there come out the same. Weights are
    finite: they stop at the largest float. Raises `BadWeight` for a weight that is no number, as in `(x:1.2.3)`.
    """
    rounds, squares = _Brackets(ROUND), _Brackets(SQUARE)
    pieces: list[tuple[str, float, int, int]] = []  # text, own weight, round bracket, square bracket
    for match in _PIECE.finditer(text):
        kind, value = match.lastgroup, match[0]
        if kind == "escaped":
            value = match["escaped"]
        elif value == "(":
            rounds.open()
            continue
        elif value == "[":
            squares.open()
            continue
        elif value == ")" and rounds.current:
            rounds.close(ROUND)
            continue
        elif value == "]" and squares.current:
            squares.close(SQUARE)
            continue
        elif kind == "number" and rounds.current:
            rounds.close(_number(match["number"]))
            continue
        inside = (rounds.current, squares.current)
        if kind == "text" and BREAK in value:
            pieces.extend((part, weight, *inside) for part, weight in _split_breaks(value))
        else:
            pieces.append((value, 1.0, *inside))
    return _weighted(pieces, rounds.products(), squares.products())


def weigh(text: str, emphasis: Emphasis) -> list[tuple[str, float]]:
    """`parse_weights` under an emphasis mode: with "None" brackets and BREAK are ordinary characters, as in A1111."""
    return [(text, 1.0)] if emphasis == "None" else parse_weights(text)


def _weighted(
    pieces: list[tuple[str, float, int, int]], rounds: list[float], squares: list[float]
) -> list[tuple[str, float]]:
    """Give every piece its weight and join neighbours of equal weight."""
    result: list[tuple[list[str], float]] = []
    for text, own, round_bracket, square_bracket in pieces:
        weight = _times(_times(own, rounds[round_bracket]), squares[square_bracket])
        if result and result[-1][1] == weight:
            result[-1][0].append(text)
        else:
            result.append(([text], weight))
    return [("".join(texts), weight) for texts, weight in result] or [("", 1.0)]


def _split_breaks(text: str) -> list[tuple[str, float]]:
    """`text` around the word BREAK, without the white space beside it."""
    first, *others = _BREAK.split(text)
    if not others:
        return [(text, 1.0)]
    parts = [(first.rstrip(), 1.0)]
    for index, part in enumerate(others):
        kept = part.strip() if index < len(others) - 1 else part.lstrip()
        parts += [(BREAK, BREAK_WEIGHT), (kept, 1.0)]
    return parts


def _number(text: str) -> float:
    text = text.rstrip(")").strip()
    try:
        return _times(float(text), 1.0)
    except ValueError:
        raise BadWeight(text) from None


def _times(left: float, right: float) -> float:
    """The product, kept finite."""
    product = left * right
    return product if -_LARGEST <= product <= _LARGEST else math.copysign(_LARGEST, product)

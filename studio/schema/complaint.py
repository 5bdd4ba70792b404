"""What a person is told of a value that a schema refuses."""

from __future__ import annotations

import re
from typing import NamedTuple

from pydantic import AfterValidator, ValidationError

LONGEST = 80
"""Characters of a refused value that are repeated."""


class Complaint(NamedTuple):
    """`field` is the path of the refused value, with dots; empty for the whole."""

    field: str
    value: str
    reason: str

    def sentence(self, whole: str) -> str:
        """`steps = 0 is not possible: should be greater than or equal to 1.`; `whole` stands for an empty field."""
        return f"{self.field or whole} = {self.value} is not possible: {self.reason}."


def first_complaint(error: ValidationError) -> Complaint:
    """The first of what pydantic found."""
    first = error.errors(include_url=False)[0]
    value = repr(first.get("input"))
    reason = first["msg"].removeprefix("Value error, ").removeprefix("Input ")
    reason = re.sub(r", unable to parse string as an? (number|integer)$", "", reason)
    return Complaint(
        ".".join(str(part) for part in first["loc"]),
        value if len(value) <= LONGEST else value[: LONGEST - 3] + "…",
        f"{reason[:1].lower()}{reason[1:]}",
    )


def matching(pattern: str, words: str) -> AfterValidator:
    """Text that is `pattern` from end to end; `words` say it to a person, as pydantic would show the expression."""

    def check(text: str) -> str:
        if not re.fullmatch(pattern, text):
            raise ValueError(words)
        return text

    return AfterValidator(check)

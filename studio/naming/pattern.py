"""Patterns: text with tags such as `[seed]` and `[datetime<%H-%M><Asia/Tokyo>]`, read as AUTOMATIC1111 reads them.

Names of tags are read in any case. A tag that is not known stays as it is, without its arguments. Some tags may have nothing to say
(`[batch_number]` of a single picture): they vanish together with the text between them and the tag before.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from studio.errors import StudioError
from studio.naming.facts import PictureFacts
from studio.naming.tags import TAGS, Absent, Filled

_TAG = re.compile(r"\[([^\[\]]+)\]")
_ARGUMENT = re.compile(r"(.*)<([^>]*)>")


class Expanded(NamedTuple):
    """`problems` are complaints about tags that could not be filled in and stayed; one sentence each."""

    text: str
    problems: list[str]


def expand(pattern: str, facts: PictureFacts) -> Expanded:
    """Fill in the tags of `pattern`. The text is not yet a legal name: it may hold separators, and anything a prompt may hold."""
    result, problems, end = "", [], 0
    for match in _TAG.finditer(pattern):
        before, end = _last_line(pattern[end : match.start()]), match.end()
        name, arguments = _take_apart(match[1])
        try:
            value = _fill(name, arguments, facts)
        except (ValueError, StudioError) as error:
            problems.append(f"[{match[1]}] in a file name cannot be filled in: {error}")
            value = Absent.TAG_STAYS
        if value is Absent.VANISHES:
            continue
        result += before + (value if isinstance(value, str) else f"[{name}]")
    return Expanded(result + _last_line(pattern[end:].removesuffix("\n")), problems)


def _fill(name: str, arguments: list[str], facts: PictureFacts) -> Filled:
    tag = TAGS.get(name.lower())
    if tag is None:
        return Absent.TAG_STAYS
    if tag.arguments is not None and len(arguments) > tag.arguments:
        raise ValueError(f"it takes {tag.arguments or 'no'} arguments, {len(arguments)} are given.")
    return tag.fill(facts, arguments)


def _take_apart(tag: str) -> tuple[str, list[str]]:
    """`datetime<a><b>` -> ("datetime", ["a", "b"])."""
    arguments: list[str] = []
    while match := _ARGUMENT.fullmatch(tag):
        tag = match[1]
        arguments.insert(0, match[2])
    return tag, arguments


def _last_line(text: str) -> str:
    """Text before a tag counts from the last line break on."""
    return text.rpartition("\n")[2]

"""The quoting rule for values of the last infotext line."""

from __future__ import annotations

import json


def quote(value: object) -> str:
    """`value` as text; as a JSON string (non-ASCII kept) when it holds a comma, colon or line break, or looks like one."""
    text = str(value)
    if not any(character in text for character in ",:\n") and not text.startswith('"'):
        return text
    return json.dumps(text, ensure_ascii=False)


def unquote(text: str) -> str:
    """The inverse of `quote`. Text that is no JSON string comes back as it is."""
    if len(text) < 2 or not (text[0] == text[-1] == '"'):
        return text
    try:
        return str(json.loads(text))
    except ValueError:
        return text

"""Comments in prompts: `# ...` to the end of the line. AUTOMATIC1111's results, line breaks included."""

from __future__ import annotations

import re

_WHOLE_LINE = re.compile(r"(?:\A|\n)#[^\n]*(?:\n|\Z)")
_END_OF_LINE = re.compile(r"#[^\n]*(?:\n|\Z)")


def strip_comments(text: str) -> str:
    """`text` without its comments.

    A line that is nothing but a comment goes with one of its two line breaks; what stands before a comment keeps its line
    break, and gets one at the end of the text. There is no escape: a `#` always begins a comment.
    """
    if "#" not in text:
        return text
    return _END_OF_LINE.sub("\n", _WHOLE_LINE.sub("\n", text))

"""From any text to a part of a name as AUTOMATIC1111 writes it, and from that to a name that every system takes.

`sanitise` equals A1111's rule, which lets control characters and the names that Windows reserves pass; so a name goes
through `legal_name` before it reaches the disk.
"""

from __future__ import annotations

import re

from studio.paths import is_reserved

MAX_PART = 128
"""Characters of one tag's text."""
NAME_BYTES = 240
"""UTF-8 bytes of a whole name: file systems take 255, and what is copied elsewhere gets longer."""

_FORBIDDEN = str.maketrans(dict.fromkeys('#<>:"/\\|?*\n\r\t', "_"))
_ILLEGAL = re.compile(r'[\x00-\x1f\x7f<>:"/\\|?*\ud800-\udfff]')


def sanitise(text: str, *, keep_spaces: bool = True) -> str:
    """`text` as one part of a name: separators and the like become `_`, at most 128 characters, no spaces at the start, no
    spaces and dots at the end. Without `keep_spaces` spaces become `_` first."""
    if not keep_spaces:
        text = text.replace(" ", "_")
    return text.translate(_FORBIDDEN).lstrip(" ")[:MAX_PART].rstrip(" .")


def legal_name(stem: str, ending: str = "") -> str:
    """`stem` + `ending` as one name that Linux, macOS and Windows take, of at most 240 bytes.

    The stem is cut, the ending (such as `.png`) never. Without an ending the result is a folder's name; it is empty when
    nothing is left of the stem, as for `..`.
    """
    name = _ILLEGAL.sub("_", stem)
    if not ending:
        name = name.strip(" ")
    name = name.encode()[: NAME_BYTES - len(ending.encode()) - 1].decode(errors="ignore")
    if not ending:
        name = name.rstrip(" .")
    name += ending
    return f"_{name}" if is_reserved(name) else name  # after the cut, which may leave just such a name

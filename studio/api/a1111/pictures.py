"""Pictures in bodies: base64 text, with or without `data:image/…;base64,` in front."""

from __future__ import annotations

import base64
import binascii

from studio.errors import InvalidRequest

_ADDRESSES = ("http://", "https://", "ftp://", "file:")


def decoded(text: str, field: str) -> bytes:
    """The bytes of a picture. An address is not fetched. Raises `InvalidRequest` naming `field`."""
    if text[:8].lower().startswith(_ADDRESSES):
        raise InvalidRequest(f"{field}: addresses are not fetched; send the picture itself as base64.", field=field)
    bare = text.partition(",")[2] if text.startswith("data:") else text
    try:
        return base64.b64decode("".join(bare.split()), validate=True)
    except (binascii.Error, ValueError):
        raise InvalidRequest(f"{field} is not base64.", field=field) from None

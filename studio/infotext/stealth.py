"""Text hidden in a picture's lowest bits, as Forge writes it by default. Read only.

Column by column, the lowest bit of alpha, or of red, green, blue: a signature of 15 letters, the length of the text in
bits (32 bits, most significant first), the text; gzip-compressed where the signature ends in "comp".
"""

from __future__ import annotations

import zlib

from PIL import Image

from studio.infotext.read import MAX_INFOTEXT

MAX_PIXELS = 16 * 1024 * 1024
"""Larger pictures are not searched."""
SIGNATURES = {"stealth_pnginfo": False, "stealth_pngcomp": True, "stealth_rgbinfo": False, "stealth_rgbcomp": True}
HEADER = len("stealth_pnginfo") + 4
MAX_BYTES = 4 * MAX_INFOTEXT
_GZIP = 16 + zlib.MAX_WBITS


def hidden_text(image: Image.Image) -> str | None:
    """The hidden text of a loaded picture, or None."""
    if image.width * image.height > MAX_PIXELS:
        return None
    for channels in _layers(image):
        header = _bytes(image, channels, 0, HEADER)
        compressed = SIGNATURES.get(header[:-4].decode("latin-1"))
        length = int.from_bytes(header[-4:], "big") // 8
        if compressed is None or not 0 < length <= MAX_BYTES:
            continue
        text = _decoded(_bytes(image, channels, HEADER, length), compressed=compressed)
        if text is not None:
            return text
    return None


def _layers(image: Image.Image) -> list[str]:
    """The bands that may hold bits."""
    return {"RGBA": ["A", "RGB"], "RGB": ["RGB"]}.get(image.mode, [])


def _bytes(image: Image.Image, channels: str, start: int, count: int) -> bytes:
    """`count` bytes from byte `start` of the hidden stream; fewer where the picture ends."""
    import numpy as np

    per_column = image.height * len(channels)
    first, last = 8 * start // per_column, -(-8 * (start + count) // per_column)
    columns = image.crop((first, 0, min(last, image.width), image.height))
    bands = [np.asarray(columns.getchannel(channel)) for channel in channels]
    bits = np.stack(bands, axis=-1).transpose(1, 0, 2).reshape(-1) & 1  # columns, rows, channels
    offset = 8 * start - first * per_column
    return bytes(np.packbits(bits[offset : offset + 8 * count]).tobytes())


def _decoded(data: bytes, *, compressed: bool) -> str | None:
    try:
        if compressed:
            data = zlib.decompressobj(_GZIP).decompress(data, MAX_BYTES)
        return data.decode("utf-8")
    except (zlib.error, ValueError):
        return None

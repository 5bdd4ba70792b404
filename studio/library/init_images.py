"""Pictures that other pictures begin with (img2img) and their masks, kept so that a request can name them and be repeated.

    outputs/init-images/0f3c…e1.png        RGB for a picture, grey for a mask; the name is made of mode, size and pixels

The same pixels are kept once, whatever file they came in. Nothing here is ever deleted or overwritten: a picture painted from one
can be painted again as long as it lies there.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from studio.errors import DamagedFile, UnknownName
from studio.infotext import encode_png, guarded, open_picture
from studio.paths import atomic_write, safe_join
from studio.schema.resolved import InitImage
from studio.schema.source import NAME_DIGITS

BACKGROUND = "#ffffff"
"""What transparent parts of a picture lie on; A1111's default."""


class InitImages:
    """The folder of kept pictures. Thread-safe."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def keep(self, data: bytes) -> InitImage:
        """Keep the picture in a file's bytes: turned upright, on white where it is transparent.

        Raises `DamagedFile` for what is no picture or too large, `StorageError` when it cannot be written.
        """
        return self._kept(_upright(data, _on_white))

    def keep_mask(self, data: bytes) -> InitImage:
        """Keep a mask: its transparency where it has any (opaque is masked), else its brightness. Raises as `keep`."""
        return self._kept(_upright(data, _as_mask))

    def find(self, name: str) -> InitImage:
        """The kept picture of this name. Raises `UnknownName` when it is not there any more, `DamagedFile`."""
        path = safe_join(self._folder, f"{name}.png")
        try:
            changed = path.stat().st_mtime_ns
        except OSError:
            raise UnknownName(
                f"The picture {name} to begin with is not in {self._folder}: give it again.", field="source.image"
            ) from None
        return _read(path, changed)

    def _kept(self, image: Image.Image) -> InitImage:
        pixels = image.tobytes()
        shape = f"{image.mode} {image.width}x{image.height}\n".encode()
        name = hashlib.sha256(shape + pixels).hexdigest()[:NAME_DIGITS]
        path = self._folder / f"{name}.png"
        if not path.exists():
            atomic_write(path, encode_png(image, ""))
        return _facts(path, image, pixels)


def open_init_image(image: InitImage) -> Image.Image:
    """Its pixels. Raises `DamagedFile` when the file is gone or broken."""
    return _loaded(Path(image.path))


@lru_cache(maxsize=64)
def _read(path: Path, changed: int) -> InitImage:
    """`changed`, the time of the last change, is part of what is remembered."""
    image = _loaded(path)
    return _facts(path, image, image.tobytes())


def _loaded(path: Path) -> Image.Image:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DamagedFile(f"The picture {path.name} to begin with cannot be read: {error.strerror}.") from error
    with open_picture(data) as image:
        guarded(image.load)
        return image.copy()


def _facts(path: Path, image: Image.Image, pixels: bytes) -> InitImage:
    digest = hashlib.md5(pixels, usedforsecurity=False).hexdigest()
    return InitImage(name=path.stem, path=str(path.absolute()), width=image.width, height=image.height, md5=digest)


def _upright(data: bytes, plain: Callable[[Image.Image], Image.Image]) -> Image.Image:
    """The first picture of a file as a viewer shows it, made `plain`."""
    with open_picture(data) as image:
        return guarded(lambda: plain(_eight_bits(ImageOps.exif_transpose(image))))


def _eight_bits(image: Image.Image) -> Image.Image:
    """A grey picture of 16 bits with the upper eight of them: Pillow's own conversion would make nearly all of it white."""
    if not image.mode.startswith("I;16"):
        return image
    return Image.fromarray((np.asarray(image).astype(np.uint16) >> 8).astype(np.uint8))


def _on_white(image: Image.Image) -> Image.Image:
    if not image.has_transparency_data:
        return image.convert("RGB")
    layer = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", image.size, BACKGROUND), layer).convert("RGB")


def _as_mask(image: Image.Image) -> Image.Image:
    if image.has_transparency_data:
        alpha = image.convert("RGBA").getchannel("A")
        if alpha.getextrema() != (255, 255):
            return alpha
    return image.convert("L")

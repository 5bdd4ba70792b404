"""Pictures that other pictures begin with (img2img) and their masks, kept so that a request can name them and be repeated.

    outputs/.studio/init-images/0f3c…e1.png    what was given, until a picture is painted from it and saved; the newest `MAX_WAITING`
    outputs/init-images/0f3c…e1.png            from then on, for good

RGB for a picture, grey for a mask; the name is made of mode, size and pixels, so the same pixels are kept once, whatever file they came
in. A mask gets another name with every stroke, hence the first folder. Nothing in the second one is ever deleted or overwritten: a
picture painted from one can be painted again as long as it lies there.
"""

from __future__ import annotations

import contextlib
import hashlib
import time
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

MAX_WAITING = 500
"""Files that may wait; those go first that were not asked for longest."""
STALE_SECONDS = 60
"""A file is noted as asked for at most this often: what is remembered of it is read again then."""
BACKGROUND = "#ffffff"
"""What transparent parts of a picture lie on; A1111's default."""


class InitImages:
    """The kept pictures. Thread-safe.

    Args:
        folder: those that a saved picture began with.
        waiting: the others.
    """

    def __init__(self, folder: Path, waiting: Path) -> None:
        self._folder = folder
        self._waiting = waiting

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
        for folder in (self._folder, self._waiting):
            path = safe_join(folder, f"{name}.png")
            with contextlib.suppress(OSError):
                _wanted(path)
                return _read(path, path.stat().st_mtime_ns)
        raise UnknownName(
            f"The picture {name} to begin with is not kept any more: give it again.", field="source.image"
        )

    def hold(self, name: str) -> None:
        """From now on the picture of this name stays, if it is there at all. Raises `StorageError` when it cannot be written."""
        there = safe_join(self._folder, f"{name}.png")
        if not there.exists():
            with contextlib.suppress(OSError):  # where it is gone, whoever looks for it will say so
                atomic_write(there, safe_join(self._waiting, f"{name}.png").read_bytes())

    def _kept(self, image: Image.Image) -> InitImage:
        pixels = image.tobytes()
        shape = f"{image.mode} {image.width}x{image.height}\n".encode()
        name = hashlib.sha256(shape + pixels).hexdigest()[:NAME_DIGITS]
        held, path = self._folder / f"{name}.png", self._waiting / f"{name}.png"
        if held.exists():
            return _facts(held, image, pixels)
        if path.exists():
            with contextlib.suppress(OSError):
                path.touch()  # it is wanted again: not the oldest any more
        else:
            atomic_write(path, encode_png(image, ""))
            self._make_room()
        return _facts(path, image, pixels)

    def _make_room(self) -> None:
        with contextlib.suppress(OSError):
            files = sorted(self._waiting.glob("*.png"), key=lambda file: file.stat().st_mtime_ns, reverse=True)
            for file in files[MAX_WAITING:]:
                file.unlink()


def open_init_image(image: InitImage) -> Image.Image:
    """Its pixels. Raises `DamagedFile` when the file is gone or broken."""
    return _loaded(Path(image.path))


def _wanted(path: Path) -> None:
    """It is not the oldest any more. A folder that cannot be written to forgets nothing either."""
    if time.time() - path.stat().st_mtime > STALE_SECONDS:
        with contextlib.suppress(OSError):
            path.touch()


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

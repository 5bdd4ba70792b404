"""idx files, the format of the MNIST family: one array of grey pictures, one of labels, plain or as ``.gz``.

    train-images-idx3-ubyte.gz      2051, count, rows, columns as big-endian 32-bit numbers, then the bytes
    train-labels-idx1-ubyte.gz      2049, count, then the bytes
    classes.txt                     the name of each label, one a line, from 0 on; without it Fashion-MNIST's

The name of a picture's class is its caption. 0 is black. Format: LeCun, Cortes, Burges, "The MNIST database".
"""

from __future__ import annotations

import gzip
import math
import re
import struct
import zlib
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from studio.errors import DatasetError
from studio.training.data.captions import MAX_FILE, lines_in
from studio.training.data.formats.base import MAX_FILES, Format, Found, Reading
from studio.training.data.pictures import MIN_SIDE, Facts, Unusable, key_of
from studio.training.data.sources import Source

CLASSES = "classes.txt"
FASHION = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)
"""Labels 0 to 9 of Fashion-MNIST (Xiao, Rasul, Vollgraf 2017, arXiv:1708.07747)."""
UNSIGNED_BYTE = 0x08
MAX_DATA = 1 << 30
"""Bytes of one unpacked file."""
_IMAGES = re.compile(r"(.*)images([-.])idx3-ubyte(\.gz)?", re.IGNORECASE)

Bytes = npt.NDArray[np.uint8]


def read_idx(path: Path, dimensions: int) -> Bytes:
    """The array in an idx file of unsigned bytes, of ``dimensions`` axes. Raises ``DatasetError`` naming the file and what is wrong."""
    length = 4 + 4 * dimensions
    try:
        with gzip.open(path) if path.suffix.lower() == ".gz" else path.open("rb") as stream:
            head = stream.read(length)
            shape = _shape(head, dimensions, path.name)
            count = math.prod(shape)
            if count > MAX_DATA or shape[0] > MAX_FILES:
                shown = "x".join(map(str, shape))
                raise DatasetError(f"{path.name} holds {shown} values, which are too many.", field="path")
            data = stream.read(count + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise DatasetError(f"{path.name} cannot be read: {error}.", field="path") from error
    if len(data) != count:
        more = "more" if len(data) > count else f"{len(data):,}"
        raise DatasetError(
            f"{path.name} is damaged: its head tells of {count:,} bytes, there are {more}.", field="path"
        )
    return np.frombuffer(data, np.uint8).reshape(shape)


def _shape(head: bytes, dimensions: int, name: str) -> tuple[int, ...]:
    if len(head) < 4 + 4 * dimensions or head[:2] != b"\0\0" or head[2] != UNSIGNED_BYTE or head[3] != dimensions:
        raise DatasetError(f"{name} is no idx file of unsigned bytes with {dimensions} dimensions.", field="path")
    return struct.unpack(f">{dimensions}I", head[4:])


@dataclass(frozen=True)
class RasterSource(Source):
    """One grey picture, uint8 ``[rows, columns]``. Its key is the hash of its size and bytes."""

    pixels: Bytes = field(repr=False, compare=False)

    def facts(self) -> Facts:
        """As ``Source.facts``."""
        height, width = self.pixels.shape
        if min(height, width) < MIN_SIDE:
            raise Unusable(f"is {width}x{height} pixels; each side must have {MIN_SIDE}")
        return Facts(key_of(struct.pack(">2I", height, width) + self.pixels.tobytes()), (width, height))

    def picture(self, key: str) -> Image.Image:
        """As ``Source.picture``; the array is in memory and cannot have changed."""
        return Image.fromarray(self.pixels, "L").convert("RGB")


def images_file(root: Path) -> tuple[Path, Path] | None:
    """The files of pictures and of labels; those of a training set before others. The second may be absent."""
    if not root.is_dir():
        return None
    matches = [match for entry in root.iterdir() if (match := _IMAGES.fullmatch(entry.name))]
    if not matches:
        return None
    best = min(matches, key=lambda match: ("train" not in match[1].lower(), match[0]))
    endings = (best[3] or "", "" if best[3] else ".gz")
    names = [f"{best[1]}labels{best[2]}idx1-ubyte{ending}" for ending in endings]
    labels = next((root / name for name in names if (root / name).is_file()), root / names[0])
    return root / best[0], labels


def read(root: Path) -> Reading:
    """All pictures of the training file."""
    files, reading = images_file(root), Reading()
    assert files is not None, "the format was recognised by it"
    pictures, labels = read_idx(files[0], 3), read_idx(files[1], 1)
    if len(pictures) != len(labels):
        message = f"{files[0].name} has {len(pictures):,} pictures, {files[1].name} {len(labels):,} labels."
        raise DatasetError(message, field="path")
    names = _classes(root, reading)
    for row, (pixels, label) in enumerate(zip(pictures, labels.tolist(), strict=True)):
        title = f"{files[0].name} row {row}"
        if label < len(names):
            reading.add(Found(title, RasterSource(pixels), (names[label],)))
        else:
            reading.problem(title, f"has the label {label}, and there are {len(names)} classes")
    return reading


def _classes(root: Path, reading: Reading) -> tuple[str, ...]:
    file = root / CLASSES
    if not file.is_file():
        reading.notes.append(
            f"There is no {CLASSES}: the labels are taken for Fashion-MNIST's ({FASHION[0]}, {FASHION[1]}, …)."
        )
        return FASHION
    try:
        with file.open("rb") as stream:
            lines = lines_in(stream.read(MAX_FILE + 1))
    except (Unusable, OSError) as error:
        raise DatasetError(f"{CLASSES} {error}.", field="path") from error
    while lines and not lines[-1]:
        lines = lines[:-1]
    return lines


FORMAT = Format(
    looks_for="train-images-idx3-ubyte and train-labels-idx1-ubyte, plain or .gz",
    recognises=lambda root: images_file(root) is not None,
    read=read,
    named=False,
)

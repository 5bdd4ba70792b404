"""Small data sets of every format, drawn: pictures are a function of their number, captions say what is on them."""

from __future__ import annotations

import csv
import gzip
import io
import json
import struct
import zipfile
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

COLOURS = ("red", "green", "blue", "yellow", "purple", "orange")
SHAPES = ("circle", "square", "triangle")


def caption(number: int) -> str:
    return f"a {COLOURS[number % 6]} {SHAPES[number % 3]} number {number}"


def picture(number: int, size: tuple[int, int] = (48, 48)) -> Image.Image:
    """A shape on white, its place by its number."""
    width, height = size
    image = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(image)
    x, y, r = 4 + number * 3 % (width // 2), 4 + number * 5 % (height // 2), 6 + number % 5
    box = (x, y, x + 2 * r, y + 2 * r)
    colour = COLOURS[number % 6]
    if number % 3 == 0:
        draw.ellipse(box, fill=colour)
    elif number % 3 == 1:
        draw.rectangle(box, fill=colour)
    else:
        draw.polygon([(x, y + 2 * r), (x + r, y), (x + 2 * r, y + 2 * r)], fill=colour)
    image.putpixel((0, 0), (number % 256, number // 256, 7))  # no two are equal
    return image


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def save(path: Path, number: int, size: tuple[int, int] = (48, 48), kind: str = "PNG") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encoded(picture(number, size), kind))
    return path


def folder(root: Path, count: int = 4, ending: str = ".txt") -> Path:
    """`sub/` holds every second picture."""
    for number in range(count):
        path = save(root / ("sub" if number % 2 else "") / f"{number:03}.png", number)
        path.with_suffix(ending).write_text(caption(number), encoding="utf-8")
    return root


def jsonl(root: Path, count: int = 4, column: str = "text") -> Path:
    rows = []
    for number in range(count):
        save(root / "images" / f"{number:03}.png", number)
        rows.append({"file_name": f"images/{number:03}.png", column: caption(number), "extra": number})
    (root / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return root


def table(root: Path, count: int = 4, column: str = "text") -> Path:
    root.mkdir(parents=True, exist_ok=True)
    with (root / "metadata.csv").open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["file_name", column, "artist"])
        for number in range(count):
            save(root / f"{number:03}.png", number)
            writer.writerow([f"{number:03}.png", f"{caption(number)}, flat", "ann"])
    return root


def kohya(root: Path) -> Path:
    """Ten times two dogs, of which one has a caption, and once a cat."""
    save(root / "10_sks dog" / "a.png", 1).with_suffix(".caption").write_text("a sks dog", encoding="utf-8")
    save(root / "10_sks dog" / "b.png", 2)
    save(root / "1_cat" / "c.png", 3).with_suffix(".txt").write_text("a cat", encoding="utf-8")
    return root


def parquet(root: Path, count: int = 6, shards: int = 2, group: int = 2, size: tuple[int, int] = (48, 48)) -> Path:
    """As naruto-blip-captions is stored: `data/train-00000-of-00002.parquet`, `image` struct<bytes, path> and `text`."""
    import pyarrow as pa
    from pyarrow import parquet as pq

    (root / "data").mkdir(parents=True, exist_ok=True)
    share = -(-count // shards)
    for shard in range(shards):
        numbers = range(shard * share, min(count, (shard + 1) * share))
        cells = [{"bytes": encoded(picture(n, size), "JPEG", quality=95), "path": None} for n in numbers]
        kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
        columns = {"image": pa.array(cells, kind), "text": pa.array([caption(n) for n in numbers])}
        name = f"train-{shard:05}-of-{shards:05}.parquet"
        pq.write_table(pa.table(columns), root / "data" / name, row_group_size=group)
    return root


def flickr8k(root: Path, count: int = 3, tokens: bool = False) -> Path:
    folder = root / ("Flicker8k_Dataset" if tokens else "Images")
    lines = [] if tokens else ["image,caption"]
    for number in range(count):
        save(folder / f"{number}_ab.jpg", number, kind="JPEG")
        for version in range(5):
            text = f"{caption(number)} , version {version}"
            lines.append(f"{number}_ab.jpg#{version}\t{text}" if tokens else f'{number}_ab.jpg,"{text}"')
    (root / ("Flickr8k.token.txt" if tokens else "captions.txt")).write_text("\n".join(lines) + "\n", encoding="utf-8")
    return root


def idx_bytes(array: npt.NDArray[np.uint8]) -> bytes:
    return bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def idx(root: Path, count: int = 20, side: int = 28, packed: bool = True) -> Path:
    """Picture `n` has the label `n % 10` and a block of as many bright rows."""
    images = np.zeros((count, side, side), np.uint8)
    labels = (np.arange(count) % 10).astype(np.uint8)
    for number in range(count):
        images[number, : 1 + number % 10] = 200
        images[number, -1, -2:] = number % 256, number // 256
    root.mkdir(parents=True, exist_ok=True)
    for name, array in (("train-images-idx3-ubyte", images), ("train-labels-idx1-ubyte", labels)):
        data = idx_bytes(array)
        (root / (name + (".gz" if packed else ""))).write_bytes(gzip.compress(data) if packed else data)
    return root


def zipped(root: Path, target: Path, inside: str = "") -> Path:
    """Everything below `root` as a ZIP, in the folder `inside` of it."""
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as pack:
        for path in sorted(root.rglob("*")):
            if path.is_file():
                pack.write(path, inside + path.relative_to(root).as_posix())
    return target

"""A captioned parquet file of drawn pictures, in the shape that the Hugging Face hub stores naruto-blip-captions in, for the recipe that trains on such.

`python -m bench.tuning.parquet FILE [--count 1221] [--side 256]`

Columns `image` (a struct of `bytes`, a JPEG file, and `path`) and `text`. Drawing needs the Debian package `fonts-noto-color-emoji`.
"""

from __future__ import annotations

import argparse
import io
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

SEED, COUNT, SIDE, GROUP = 1221, 1221, 256, 200
QUALITY = 92


def main(argv: Sequence[str] | None = None) -> int:
    """Draw and write."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.tuning.parquet", description="Draw a captioned parquet file."
    )
    parser.add_argument("file", type=Path)
    parser.add_argument("--count", type=int, default=COUNT, help="pictures (default: %(default)s)")
    parser.add_argument("--side", type=int, default=SIDE, help="their side in pixels (default: %(default)s)")
    options = parser.parse_args(argv)
    options.file.parent.mkdir(parents=True, exist_ok=True)
    write(options.file, options.count, options.side)
    return 0


def write(file: Path, count: int, side: int) -> None:
    """`count` drawn scenes of `side` x `side` pixels with their captions, 200 a row group."""
    cell = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    schema = pa.schema([("image", cell), ("text", pa.string())])
    with pq.ParquetWriter(file, schema) as writer:
        rows = list(_drawn(count, side))
        for start in range(0, count, GROUP):
            part = rows[start : start + GROUP]
            cells = [{"bytes": data, "path": None} for data, _ in part]
            writer.write_table(pa.table({"image": pa.array(cells, cell), "text": [text for _, text in part]}, schema))


def _drawn(count: int, side: int) -> Iterator[tuple[bytes, str]]:
    from studio.training.data.scenes.captions import plain_caption
    from studio.training.data.scenes.glyphs import GlyphAtlas
    from studio.training.data.scenes.paint import paint_scene
    from studio.training.data.scenes.scene import draw_scene

    atlas = GlyphAtlas()
    for index in range(count):
        scene, out = draw_scene(SEED, index), io.BytesIO()
        Image.fromarray(paint_scene(scene, atlas, SEED, index, side)).save(out, "JPEG", quality=QUALITY)
        yield out.getvalue(), plain_caption(scene)


if __name__ == "__main__":
    sys.exit(main())

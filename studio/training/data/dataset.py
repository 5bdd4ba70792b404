"""A data set as training sees it: pictures with captions, wherever they lie."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageOps

from studio.errors import TrainingError
from studio.schema.training_data import DatasetSettings

PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")


@dataclass(frozen=True)
class Item:
    """One picture. `key` is the sha256 of its file, `captions` has one at least, `size` is (width, height), EXIF orientation applied."""

    key: str
    name: str
    captions: tuple[str, ...]
    repeats: int
    size: tuple[int, int]
    path: Path

    def picture(self) -> Image.Image:
        """RGB, EXIF orientation applied, alpha over white. Raises `TrainingError` naming the file."""
        try:
            with Image.open(self.path) as opened:
                picture = ImageOps.exif_transpose(opened).convert("RGBA")
        except (OSError, ValueError, SyntaxError) as error:
            raise TrainingError(f"{self.name} cannot be read: {error}.") from error
        white = Image.new("RGBA", picture.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, picture).convert("RGB")


@dataclass(frozen=True)
class Dataset:
    """`problems` has a sentence for every file that cannot be used; `digest` is over keys, captions and repeats."""

    items: tuple[Item, ...]
    problems: tuple[str, ...]
    digest: str


def read_dataset(settings: DatasetSettings) -> Dataset:
    """The data set at `settings.path`. Raises `TrainingError` when nothing is usable, saying what was looked for."""
    folder = Path(settings.path)
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in PICTURES) if folder.is_dir() else []
    items: list[Item] = []
    problems: list[str] = []
    for path in files:
        try:
            items.append(_item(path, folder, settings.repeats))
        except (OSError, ValueError, SyntaxError) as error:
            problems.append(f"{path.relative_to(folder)} cannot be used: {error}.")
    if not items:
        raise TrainingError(
            f"There are no pictures ({', '.join(PICTURES)}) in {folder}. {' '.join(problems[:3])}".strip()
        )
    facts = [[item.key, list(item.captions), item.repeats] for item in items]
    return Dataset(tuple(items), tuple(problems), hashlib.sha256(json.dumps(facts).encode()).hexdigest())


def _item(path: Path, folder: Path, repeats: int) -> Item:
    with Image.open(path) as opened:
        size = ImageOps.exif_transpose(opened).size
    text = path.with_suffix(".txt")
    caption = text.read_text("utf-8").strip() if text.is_file() else ""
    key = hashlib.sha256(path.read_bytes()).hexdigest()
    return Item(key, path.relative_to(folder).as_posix(), (caption,), repeats, size, path)

"""Where a picture goes below its root: folders, running number, name. AUTOMATIC1111's settings and results.

    txt2img-images / 2026-01-31 / 00012-1234567.png         numbers count in each folder by itself
    txt2img-grids  / 2026-01-31 / grid-0003.png

Unlike A1111, a folder's name is always legal and never leads out of the root, and no file is ever written over.
"""

from __future__ import annotations

import os.path
import re
from collections.abc import Iterable

from studio.naming.facts import PictureFacts
from studio.naming.pattern import expand
from studio.naming.sanitise import legal_name
from studio.settings import Settings

ZIP_PATTERN = "[datetime]_[[model_name]]_[seed]-[seed_last]"
GRID = "grid"
"""What grids have in front of their number."""


def folder_names(settings: Settings, facts: PictureFacts) -> list[str]:
    """The sub-folders, outermost first. Either slash separates; what is no name, such as `..`, is left out."""
    if not settings.save_to_dirs:
        return []
    text = expand(settings.directories_filename_pattern or "[prompt_words]", facts).text
    return [name for part in re.split(r"[\\/]", text) if (name := legal_name(part))]


def picture_decoration(settings: Settings) -> str:
    """The pattern of what follows the number, A1111's where the setting is empty."""
    return settings.samples_filename_pattern or ("[seed]" if settings.save_to_dirs else "[seed]-[prompt_spaces]")


def file_name(
    decoration: str,
    taken: Iterable[str],
    *,
    basename: str = "",
    numbered: bool = True,
    extension: str = "png",
    beside: tuple[str, ...] = (),
) -> str:
    """A legal name that no file in the folder has, whose names are `taken` (in any case: some systems know only one).

    `decoration` is expanded text. The number stands in front when `numbered`, or when there is nothing else. A name without number
    that is taken gets `-1`, `-2` ... at its end. `beside` are extensions that must be free for the same stem too.
    """
    names = list(taken)
    stem = decoration
    if numbered or not decoration.strip(" ."):
        number = next_number(names, basename)
        stem = f"{basename}-{number:04d}" if basename else f"{number:05d}"
        stem += f"-{decoration}" if decoration else ""
    known, turn = {name.casefold() for name in names}, 0
    while True:
        tail = f"-{turn}" if turn else ""
        wanted = [legal_name(stem, f"{tail}.{ending}") for ending in (extension, *beside)]
        if known.isdisjoint(name.casefold() for name in wanted):
            return wanted[0]
        turn += 1


def next_number(names: Iterable[str], basename: str = "") -> int:
    """One more than the highest number in front of a name (behind `basename-`, if there is one); 0 when there is none."""
    prefix = f"{basename}-" if basename else ""
    found = (_number(name.removeprefix(prefix)) for name in names if name.startswith(prefix))
    return 1 + max((number for number in found if number is not None), default=-1)


def _number(name: str) -> int | None:
    """What stands before the first dash, or before the extension, as a number."""
    try:
        return int(os.path.splitext(name)[0].split("-")[0])
    except ValueError:
        return None

"""Captions for pictures that have none: one file a captioner, and the loop that writes what it says."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from studio.errors import DatasetError
from studio.registry import Registry
from studio.schema.training_data import DatasetSettings
from studio.training.captioning.base import Captioner
from studio.training.data.captions import checked_edit
from studio.training.data.dataset import Progress, locate
from studio.training.data.pictures import Unusable

if TYPE_CHECKING:
    from studio.engine.hardware import DeviceName


def _file_name(folder: Path, device: DeviceName) -> Captioner:
    from studio.training.captioning.file_name import FileNameCaptioner

    return FileNameCaptioner()


def _blip(folder: Path, device: DeviceName) -> Captioner:
    from studio.engine.hardware import choose_hardware
    from studio.training.captioning.blip import BlipCaptioner

    return BlipCaptioner(folder / "blip", choose_hardware(device).device)


CAPTIONERS: Registry[Callable[[Path, DeviceName], Captioner]] = Registry("captioner")
"""Name -> what makes one, given the folder that captioners' models lie in and the device."""
CAPTIONERS.add("file-name", _file_name)
CAPTIONERS.add("blip", _blip)


@dataclass(frozen=True)
class Captioned:
    """What came of it: pictures that got a caption, that kept theirs, and a sentence for each that got none."""

    written: int
    kept: int
    problems: tuple[str, ...]


def caption_dataset(
    settings: DatasetSettings,
    captioner: Captioner,
    *,
    replace: bool = False,
    progress: Progress = lambda done, total: None,
) -> Captioned:
    """Write a caption for every picture without one, to where its data set keeps captions; with ``replace`` for all pictures.

    Each is written when it is made, so what is done before a stop stays. Raises as ``read_dataset``, and ``StorageError``.
    """
    place = locate(settings)
    if not place.format.named and captioner.needs_names:
        message = f"Pictures of a {place.name} data set have no file names to take captions from."
        raise DatasetError(message, field="caption_source")
    reading, overlay = place.read()
    written, kept, problems = 0, 0, list(reading.problems)
    for number, found in enumerate(reading.found, 1):
        try:
            facts = found.source.facts()
            held = overlay.captions(found.name, facts.key, found.captions) if overlay is not None else found.captions
            if held and not replace:
                kept += 1
            elif captions := checked_edit([captioner.caption(found.source.picture(facts.key), found.name)]):
                if place.format.write is not None:
                    place.format.write(place.root, found, captions)
                elif overlay is not None:
                    overlay.edit(found.name, facts.key, found.captions, captions)
                written += 1
            else:
                problems.append(f"{found.name} gave no words.")
        except Unusable as error:
            problems.append(f"{found.name} {error}.")
        progress(number, len(reading.found))
    return Captioned(written, kept, tuple(problems))

"""Where the networks for face restoration lie, and what to say when they do not."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from studio.errors import DamagedFile, IncompatibleFile, UnknownModel
from studio.families.faces import DETECTOR, PUBLISHED, RESTORERS, face_network
from studio.library.header import METADATA, read_header
from studio.library.scan import PICKLES, SAFE
from studio.schema.faces import DEFAULT_WEIGHT, FacePlan

FIELD = "face_restoration"
CONVERT = "python launch.py convert FILE"
_DIGITS = re.compile(r"(\d+)")


@dataclass(frozen=True)
class FaceFile:
    """A file of a network that is known: one of `RESTORERS`, or `DETECTOR`."""

    path: Path
    network: str

    @property
    def name(self) -> str:
        """The file's without its ending."""
        return self.path.stem


def face_files(folder: Path) -> list[FaceFile]:
    """The known networks in `folder`, later versions of a name first. Files that are damaged, or hold something else, are left out."""
    found = []
    for path in sorted(_files(folder, (SAFE,)), key=_version, reverse=True):
        try:
            network = face_network(read_header(path).keys() - {METADATA})
        except (DamagedFile, OSError):
            continue
        found += [FaceFile(path, network)] if network else []
    return found


def restorer_names(folder: Path) -> list[str]:
    """What a request may name: the architectures that there are files of, and the older files of each."""
    files = face_files(folder)
    names: list[str] = []
    for architecture in RESTORERS:
        own = [file.name for file in files if file.network == architecture]
        names += [architecture, *own[1:]] if own else []
    return names


def face_plan(folder: Path, name: str, weight: float) -> FacePlan:
    """The files in `folder` that restore faces for the restorer called `name`: an architecture, whose latest file is meant, or a file.

    Raises `UnknownModel` where one is missing, `IncompatibleFile` where it is there as a pickle only; both say what to put where.
    """
    files = face_files(folder)
    latest = {one: next((file for file in files if file.network == one), None) for one in RESTORERS}
    asked = next((one for one in RESTORERS if _same(one, name)), None)
    if asked:
        chosen = latest[asked]
        if chosen is None:
            raise _missing(folder, asked, files)
    else:
        stem = name[: -len(SAFE)] if name.lower().endswith(SAFE) else name
        chosen = next((file for file in files if _same(file.name, stem) and file.network != DETECTOR), None)
        if chosen is None:
            known = [*RESTORERS, *(file.name for file in files if file.network != DETECTOR)]
            raise UnknownModel.of("face restorer", name, known, field=FIELD)
    detector = next((file for file in files if file.network == DETECTOR), None)
    if detector is None:
        raise _missing(folder, DETECTOR, files)
    architecture = next(one for one in RESTORERS if one == chosen.network)
    return FacePlan(
        name=architecture if chosen is latest[architecture] else chosen.name,
        architecture=architecture,
        file=str(chosen.path),
        detector=str(detector.path),
        weight=weight if architecture == "CodeFormer" else DEFAULT_WEIGHT,
    )


def _missing(folder: Path, network: str, files: Iterable[FaceFile]) -> UnknownModel | IncompatibleFile:
    """What to put where, told of a network that no file holds."""
    stem, address = PUBLISHED[network]
    what = f"{stem}{SAFE}"
    beginning = stem.casefold().split("v1")[0]
    pickle = next((path for path in _files(folder, PICKLES) if path.name.casefold().startswith(beginning)), None)
    if pickle is not None:
        return IncompatibleFile(
            f"{pickle.name} in {folder} is a pickle file, which can run code when it is opened. Convert it to .safetensors: {CONVERT}",
            field=FIELD,
        )
    wanted = "the network that finds the faces" if network == DETECTOR else network
    others = [one for one in RESTORERS if one != network and any(file.network == one for file in files)]
    instead = f" Or choose {others[0]}, which is there." if others and network != DETECTOR else ""
    return UnknownModel(
        f"Face restoration lacks {wanted}: put {what} into {folder}. It is published as {stem}.pth at {address}; "
        f"{CONVERT} makes a .safetensors file of it.{instead}",
        field=FIELD,
        choices=others,
    )


def _files(folder: Path, endings: tuple[str, ...]) -> list[Path]:
    try:
        return sorted(path for path in folder.iterdir() if path.suffix.lower() in endings and path.is_file())
    except OSError:
        return []


def _version(path: Path) -> list[tuple[int, str]]:
    """Orders names so that v1.10 comes after v1.9."""
    return [(int(part) if part.isdigit() else -1, part.casefold()) for part in _DIGITS.split(path.stem)]


def _same(one: str, other: str) -> bool:
    return one.casefold() == other.strip().casefold()

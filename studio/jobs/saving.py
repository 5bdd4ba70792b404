"""Writing finished pictures and grids where the settings say.

    outputs/txt2img-images/2026-01-31/00012-1234567.png      A1111's layout: day, running number, seed
    outputs/txt2img-grids/2026-01-31/grid-0003.png
    outputs/img2img-images/…, outputs/img2img-grids/…        of jobs that begin with a picture

Names come from `studio.naming`; this is where they meet the disk. Numbers are unique over threads and processes.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from studio.errors import NotFound, StorageError, StudioError
from studio.infotext import DEFAULT_QUALITY, encode_image, encode_saved, with_plot
from studio.jobs.grids import draw_grid, rgb_bytes
from studio.jobs.lock import waiting_lock
from studio.jobs.sheets import draw_sheet
from studio.naming import expand, file_name, folder_names, picture_decoration, picture_facts
from studio.naming.place import GRID
from studio.paths import Paths, atomic_write, safe_join, storage_error
from studio.schema.events import ImageReady
from studio.schema.resolved import ResolvedRequest
from studio.settings import Settings

log = logging.getLogger(__name__)

PICTURES = {"txt2img": "txt2img-images", "img2img": "img2img-images"}
GRIDS = {"txt2img": "txt2img-grids", "img2img": "img2img-grids"}
"""Folders below the outputs, by the kind of the job."""


def save_picture(
    picture: ImageReady, resolved: ResolvedRequest, started: float, paths: Paths, settings: Settings
) -> ImageReady:
    """Write a picture of the job `resolved`, which began at `started` (seconds since the epoch).

    Returns the event with its `path`, without the bytes. When it cannot be written the bytes stay and `warning` says why;
    a format that cannot hold the picture is replaced by PNG, with a `warning` too. Never raises `StudioError`. A folder that the run names itself (`output_dir`) gets no sub-folders.
    """
    options, (own, number) = resolved.options, resolved.picture(picture.index)
    file = encode_saved(picture.png, picture.infotext, options.file_format or "png", options.quality or DEFAULT_QUALITY)
    facts = picture_facts(own, number, started, lambda: rgb_bytes(picture.png))
    beside = ("txt",) if options.text_file else ()
    decoration, problems = expand(picture_decoration(settings), facts)
    for problem in problems:
        log.warning(problem)

    def name(taken: list[str]) -> str:
        numbered, extension = settings.save_images_add_number, file.suffix.removeprefix(".")
        return file_name(decoration, taken, numbered=numbered, extension=extension, beside=beside)

    given = options.output_dir
    root = Path(given).absolute() if given else paths.outputs / PICTURES[resolved.kind]
    try:
        path = _write(root, [] if given else folder_names(settings, facts), name, file.data, paths)
    except StudioError as error:
        return picture.model_copy(update={"path": None, "warning": error.message})
    warning = file.warning
    if options.text_file:
        try:
            atomic_write(path.with_suffix(".txt"), f"{picture.infotext}\n".encode())
        except StorageError as error:
            warning = f"The picture was saved, but its text was not: {error.message}"
    return picture.model_copy(update={"path": str(path), "png": b"", "warning": warning})


def save_grid(
    pictures: Sequence[ImageReady],
    read: Callable[[ImageReady], bytes],
    resolved: ResolvedRequest,
    started: float,
    paths: Paths,
    settings: Settings,
) -> str | None:
    """Write the grid of a job's finished `pictures`, or the sheet of its plot, whose files `read` gives, with the infotext of the first.

    Returns its path, or None when none is wanted (a single picture, a folder of the run's own) or it could not be made:
    the log then says why, and the job is none the worse.
    """
    options = resolved.options
    wanted = options.save if options.grid is None else options.grid
    if not (wanted and settings.grid_save and len(pictures) > 1) or options.output_dir:
        return None
    try:
        return str(_grid(pictures, read, resolved, started, paths, settings))
    except StudioError as error:
        log.warning("no grid was saved: %s", error.message)
    except Exception:  # a picture that was changed on disk meanwhile can do anything to the image library
        log.exception("no grid was saved")
    return None


def file_names(folder: Path) -> list[str]:
    """The names in a folder; none when it is missing. Raises `StorageError`."""
    try:
        return os.listdir(folder)
    except FileNotFoundError:
        return []
    except OSError as error:
        raise storage_error(folder, error) from error


def read_file(path: Path, what: str) -> bytes:
    """The file's content. Raises `NotFound` saying that the file of `what` is gone, or `StorageError`."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise NotFound(f"The file of {what} is gone: {path}") from None
    except OSError as error:
        raise storage_error(path.parent, error) from error


def _grid(
    pictures: Sequence[ImageReady],
    read: Callable[[ImageReady], bytes],
    resolved: ResolvedRequest,
    started: float,
    paths: Paths,
    settings: Settings,
) -> Path:
    first = pictures[0]
    facts = picture_facts(*resolved.picture(first.index), started)
    if resolved.plot:
        sheet = draw_sheet(
            {picture.index: (picture.width, picture.height) for picture in pictures},
            lambda index: read(next(picture for picture in pictures if picture.index == index)),
            resolved.plot,
        )
        text = with_plot(first.infotext, resolved.plot)
        file = encode_image(sheet, text, settings.grid_format, settings.jpeg_quality)
    else:
        cell, files = (first.width, first.height), (read(picture) for picture in pictures)
        file = draw_grid(files, len(pictures), cell, first.infotext, settings.grid_format, settings.jpeg_quality)
    if file.warning:
        log.warning(file.warning)

    def name(taken: list[str]) -> str:
        return file_name("", taken, basename=GRID, extension=file.suffix.removeprefix("."))

    folders = folder_names(settings, replace(facts, basename=GRID, pixels=lambda: rgb_bytes(file.data)))
    return _write(paths.outputs / GRIDS[resolved.kind], folders, name, file.data, paths)


def _write(root: Path, folders: list[str], name: Callable[[list[str]], str], data: bytes, paths: Paths) -> Path:
    """Write `data` into a sub-folder of `root` under the name that `name` makes of those taken there.

    Raises `StorageError`, and `NotAllowed` where a link leads out of `root`.
    """
    folder = root.joinpath(*folders)
    with waiting_lock(paths.state / "numbering.lock"):
        chosen = name(file_names(folder))
        safe_join(root, *folders, chosen)
        atomic_write(folder / chosen, data)
    return folder / chosen

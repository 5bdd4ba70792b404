"""`generate PROMPT`: paint from the command line, without a server."""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from studio.app import Studio
from studio.cli.options import add_common, add_fields, given, say
from studio.cli.painting import opened_studio
from studio.errors import DamagedFile, InvalidRequest, NotFound, StorageError
from studio.library.init_images import InitImages
from studio.schema.engine import CancelToken
from studio.schema.events import Event, ImageReady, Progress, Status
from studio.schema.parts import BranchPoint, HiresPass, Refiner, SamplerOptions, SeedResize, Variation
from studio.schema.plot import Plot
from studio.schema.request import GenerationRequest, RunOptions, make_request
from studio.schema.resolved import InitImage, ResolvedRequest
from studio.schema.source import NAME_DIGITS, Mask, Source
from studio.schema.upscale import SdUpscale

PARTS: dict[str, tuple[type[BaseModel], str]] = {
    "sampler_options": (SamplerOptions, ""),
    "variation": (Variation, "variation_"),
    "seed_resize": (SeedResize, "seed_resize_"),
    "refiner": (Refiner, "refiner_"),
    "hires": (HiresPass, "hires_"),
    "source": (Source, "source_"),
    "mask": (Mask, "mask_"),
    "sd_upscale": (SdUpscale, "sd_upscale_"),
    "plot": (Plot, "plot_"),
}
"""Fields of a request that are models themselves, and what stands before the names of their flags."""
DECISIVE = {
    "variation": ("strength",),
    "seed_resize": ("width", "height"),
    "refiner": ("checkpoint",),
    "sd_upscale": ("upscaler",),
    "plot": ("x_type",),
}
"""Flags of a part without which there is none of it."""
PICTURES = {
    "source_image": "Picture to begin with (img2img); a file, or the name of a kept picture",
    "mask_image": "Paint only where this picture is light, or opaque (inpainting); a file, or the name of a kept picture",
}
"""Flags that name a picture: a request holds the name that it is kept under."""
REQUEST_FIELDS = tuple(name for name in GenerationRequest.model_fields if name not in ("prompt", "branch", *PARTS))


def add(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> argparse.ArgumentParser:
    """The parser of `generate`: a flag for every field of a request."""
    parser = subparsers.add_parser("generate", help="paint pictures from the command line")
    parser.add_argument("prompt", help="what to paint")
    add_fields(parser, GenerationRequest, REQUEST_FIELDS, show_default=False)
    for model, prefix in PARTS.values():
        picture = f"{prefix}image"
        if picture in PICTURES:
            parser.add_argument(_flag(picture), metavar="FILE", default=argparse.SUPPRESS, help=PICTURES[picture])
        add_fields(parser, model, [name for name in model.model_fields if prefix + name != picture], prefix=prefix)
    parser.add_argument("--hires", action="store_true", help="enlarge and paint again; any --hires-… flag says so too")
    parser.add_argument(
        "--branch-origin",
        metavar="FILE",
        help="go on from a step of this picture; what no flag says is as it was there",
    )
    add_fields(parser, BranchPoint, ["step"], prefix="branch_")
    parser.add_argument(
        "--output-dir",
        metavar="DIR",
        help="folder for the pictures (default: outputs/txt2img-images/DATE, or img2img-images)",
    )
    parser.add_argument(
        "--json",
        action="store_true",
        help="print one JSON object with paths, seeds and infotexts instead of a progress bar",
    )
    add_common(parser)
    parser.set_defaults(run=run)
    return parser


def request_from(
    arguments: argparse.Namespace, defaults: GenerationRequest, init_images: InitImages
) -> GenerationRequest:
    """The request a command line asks for: its flags over `defaults`. Pictures that it names by their files are kept.

    Raises `InvalidRequest`, and `NotFound`, `DamagedFile` or `StorageError` for a picture.
    """
    data: dict[str, Any] = {**defaults.model_dump(), **given(arguments, REQUEST_FIELDS), "prompt": arguments.prompt}
    for name, (model, prefix) in PARTS.items():
        flags = given(arguments, model.model_fields, prefix)
        if flags or (name == "hires" and arguments.hires):
            data[name] = {**(data[name] or {}), **flags}
    for flag, keep in (("source_image", init_images.keep), ("mask_image", init_images.keep_mask)):
        part = data[flag.removesuffix("_image")]
        if part is not None and not part.get("image"):
            raise InvalidRequest(
                f"The {_flag(flag).removesuffix('image')}… flags need {_flag(flag)}.", field=_field(flag)
            )
        if hasattr(arguments, flag):
            part["image"] = _picture(getattr(arguments, flag), flag, keep)
    request = make_request(data)
    for name, wanted in DECISIVE.items():
        model, prefix = PARTS[name]
        flags = given(arguments, model.model_fields, prefix)
        missing = [flag for flag in wanted if flag not in flags]
        if flags and missing and getattr(request, name) is None:
            said, needed = (" and ".join(_flag(prefix + flag) for flag in names) for names in (flags, missing))
            raise InvalidRequest(f"Without {needed} there is no use for {said}.", field=f"{name}.{missing[0]}")
    return request


def _picture(named: str, flag: str, keep: Callable[[bytes], InitImage]) -> str:
    """The name of a kept picture: `named` itself where it is one, else that of the file, which is kept now."""
    if re.fullmatch(rf"[0-9a-f]{{{NAME_DIGITS}}}", named):
        return named
    file = Path(named).expanduser()
    if not file.is_file():
        raise NotFound(f"{_flag(flag)}: there is no file {str(file)!r}.", field=_field(flag))
    try:
        data = file.read_bytes()
    except OSError as error:
        raise NotFound(f"{_flag(flag)}: {str(file)!r} cannot be read: {error.strerror}.", field=_field(flag)) from error
    try:
        return keep(data).name
    except DamagedFile as error:
        raise DamagedFile(f"{_flag(flag)} = {str(file)!r}: {error.message}", field=_field(flag)) from error


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _field(flag: str) -> str:
    return flag.replace("_", ".")


def branch_from(arguments: argparse.Namespace, studio: Studio) -> BranchPoint | None:
    """The branch that a command line asks for; its origin is read out of a picture, or is a file of text.

    Raises `NotFound` for a file that is not there, `InvalidRequest` for one without parameters or half of the two flags.
    """
    step = given(arguments, ["step"], "branch_")
    if not arguments.branch_origin:
        if step:
            raise InvalidRequest("--branch-step needs --branch-origin.", field="branch.origin")
        return None
    file = Path(arguments.branch_origin).expanduser()
    if not file.is_file():
        raise NotFound(f"There is no file {str(file)!r}.", field="branch.origin")
    if not step:
        raise InvalidRequest("--branch-origin needs --branch-step.", field="branch.step")
    data = file.read_bytes()
    text = data.decode("utf-8", "replace") if file.suffix == ".txt" else studio.read_picture(data).infotext
    if not (text or "").strip():
        raise InvalidRequest(f"{file.name} carries no generation parameters.", field="branch.origin")
    return make_request({"branch": {**step, "origin": text}}).branch


def run(arguments: argparse.Namespace) -> int:
    """Paint and print where the pictures are. Ctrl-C keeps what is finished."""
    with opened_studio(arguments) as (studio, cancel):
        wanted = getattr(arguments, "model", None)
        model = studio.library.checkpoint(wanted) if wanted else None
        defaults = studio.default_request(model, branch_from(arguments, studio))
        options = RunOptions(preview_every=0, output_dir=_absolute(arguments.output_dir))
        resolved = studio.resolve(request_from(arguments, defaults, studio.library.init_images), options)
        for note in resolved.notes:
            say(note)
        images, grid = _paint(studio, resolved, cancel, quiet=arguments.json)
    if grid and resolved.plot:
        say(f"sheet of the plot: {grid}")
    return _report(images, grid, as_json=arguments.json)


def _paint(
    studio: Studio, resolved: ResolvedRequest, cancel: CancelToken, *, quiet: bool
) -> tuple[list[ImageReady], str | None]:
    """Run the job under a progress bar and collect its pictures, and the path of their grid."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[rate]}"),
    )
    images: list[ImageReady] = []
    grid = None

    def events() -> Iterator[Event]:
        nonlocal grid
        grid = yield from studio.paint(resolved, cancel)

    with Bar(*columns, console=Console(stderr=True), disable=quiet) as bar:
        task = bar.add_task("starting", total=resolved.steps * resolved.picture_count // resolved.batch_size, rate="")
        for event in events():
            if isinstance(event, ImageReady):
                images.append(event)
            elif shown := _bar_update(event):
                bar.update(task, **shown)
    return images, grid


def _bar_update(event: Event) -> dict[str, Any] | None:
    """What an event changes on the progress bar."""
    if isinstance(event, Status):
        return {"description": event.message}
    if isinstance(event, Progress):
        done = event.batch * event.total + event.step
        rate = f"{done / event.seconds:.1f} it/s" if event.seconds > 0 else ""
        return {"description": "painting", "completed": done, "total": event.batches * event.total, "rate": rate}
    return None


def _report(images: list[ImageReady], grid: str | None, *, as_json: bool) -> int:
    """Print the result. Raises `StorageError` when a picture could not be written."""
    failed = next((image.warning for image in images if image.warning and image.path is None), None)
    if as_json:
        rows = [
            {"path": i.path, "seed": i.seed, "width": i.width, "height": i.height, "infotext": i.infotext}
            for i in images
        ]
        first = rows[0] if rows else {"seed": None, "infotext": None}
        print(
            json.dumps(
                {
                    "paths": [i.path for i in images],
                    "seed": first["seed"],
                    "infotext": first["infotext"],
                    "images": rows,
                    "grid": grid,
                },
                ensure_ascii=False,
            )
        )
    else:
        for image in images:
            if image.path:
                print(image.path)
                if image.warning:
                    print(image.warning, file=sys.stderr)
    if failed:
        raise StorageError(failed)
    return 0 if images else 1


def _absolute(folder: str | None) -> str | None:
    return str(Path(folder).expanduser().resolve()) if folder else None

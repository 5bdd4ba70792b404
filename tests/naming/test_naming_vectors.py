"""File names against AUTOMATIC1111's results: tests/vectors/filenames.json, every case.

Where its names are unsafe ours differ by rule, and so does what is expected here: a user's name is sanitised, a file's name
is legal, and no file is written over.
"""

from __future__ import annotations

from datetime import datetime, timezone
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from studio.infotext.encode import ENCODINGS
from studio.naming import (
    PictureFacts,
    expand,
    file_name,
    folder_names,
    legal_name,
    next_number,
    picture_decoration,
    sanitise,
)
from studio.paths import safe_join
from studio.settings import Settings
from tests.vector_files import load_json

SAME_NAMES = {
    "prompt", "negative_prompt", "seed", "steps", "cfg_scale", "width", "height", "batch_size", "iteration",
    "batch_index", "denoising_strength", "user", "job_timestamp", "model_name", "vae_file", "clip_skip", "zip", "basename",
}  # fmt: skip
OUR_NAMES = {"n_iter": "batch_count", "sampler_name": "sampler", "scheduler": "schedule", "sd_model_hash": "model_hash"}
LEFT_OVER = {"styles", "all_seeds", "image_rgb"}
OUR_OPTIONS = {"save_to_dirs", "samples_filename_pattern", "directories_filename_pattern", "save_images_add_number"}


@cache
def vectors() -> dict[str, Any]:
    found = load_json("filenames.json")
    assert isinstance(found, dict)
    return found


def cases(kind: str) -> list[Any]:
    return list(vectors()[kind])


def facts(given: dict[str, Any]) -> PictureFacts:
    """A1111's parameters as our facts; a parameter that nobody knows fails the test."""
    values = {**vectors()["base"], **given}
    assert values.keys() <= SAME_NAMES | OUR_NAMES.keys() | LEFT_OVER
    styles = {style["name"]: style["prompt"] for style in vectors()["styles"]}
    pixels = bytes(values["image_rgb"]) * values["width"] * values["height"]
    return PictureFacts(
        **{name: values[name] for name in SAME_NAMES},
        **{ours: values[theirs] for theirs, ours in OUR_NAMES.items()},
        seeds=tuple(values["all_seeds"]),
        styles=tuple(values["styles"]),
        style_prompts=tuple(styles.get(name, "") for name in values["styles"]),
        now=datetime.fromisoformat(vectors()["now"].split()[0]).replace(tzinfo=timezone.utc),
        pixels=lambda: pixels,
    )


@pytest.mark.parametrize("case", cases("patterns"), ids=lambda case: case["pattern"][:40])
def test_patterns(case: dict[str, Any]) -> None:
    text, problems = expand(case["pattern"], facts(case["given"]))
    expected, user = case["result"], case["given"].get("user")
    if user and "[user]" in case["pattern"].lower():
        expected = expected.replace(user, sanitise(user))
    assert text == expected
    assert bool(problems) == bool(case.get("errors"))


@pytest.mark.parametrize("case", cases("sanitise"), ids=lambda case: case["text"][:20])
def test_sanitised_parts(case: dict[str, Any]) -> None:
    assert sanitise(case["text"], keep_spaces=False) == case["spaces_replaced"]
    assert sanitise(case["text"]) == case["spaces_kept"]


@pytest.mark.parametrize("case", cases("next_number"), ids=lambda case: " ".join(case["files"])[:40])
def test_the_next_number(case: dict[str, Any]) -> None:
    assert next_number(case["files"], case["basename"]) == case["number"]


def fitting(extension: str, width: int, height: int) -> str:
    """The extension of the file that such a picture really becomes."""
    known = ENCODINGS.get(extension)  # type: ignore[call-overload]
    return "png" if known and max(width, height) > known.longest else extension


def saved(case: dict[str, Any]) -> tuple[str, str | None]:
    """Where we put the picture (and its text) of a case; grids have no decoration, a forced name stands alone."""
    options, call = case["options"], {"seed": 1, **case["call"]}
    about = facts(case["given"])
    into_folders = options.get("grid_save_to_dirs" if call.get("grid") else "save_to_dirs", True)
    chosen = {name: value for name, value in options.items() if name in OUR_OPTIONS}
    folders = folder_names(Settings(**{**chosen, "save_to_dirs": into_folders}), about)
    settings = Settings(**chosen)
    decorated = call["seed"] is not None and not call.get("short_filename")
    decoration = expand(picture_decoration(settings), about).text if decorated else ""
    below = "/".join([*folders, ""])
    name = file_name(
        call.get("forced_filename") or decoration + call.get("suffix", ""),
        [path.removeprefix(below) for path in case["existing"] if path.startswith(below)],
        basename=call.get("basename", ""),
        numbered=settings.save_images_add_number and "forced_filename" not in call,
        extension=fitting(call.get("extension", "png"), about.width, about.height),
    )
    text = name.rpartition(".")[0] + ".txt" if options.get("save_txt") else None
    return below + name, text and below + text


@pytest.mark.parametrize("case", cases("save"), ids=lambda case: str(case.get("path"))[-40:])
def test_where_a_picture_goes(case: dict[str, Any]) -> None:
    path, text = saved(case)
    assert safe_join(Path("/pictures"), path).name == path.rpartition("/")[2]
    assert path not in case["existing"]
    stem, dot, extension = str(case.get("path")).rpartition(".")
    theirs_is_legal = all(legal_name(part) == part for part in str(case.get("path")).split("/"))
    if "path" in case and theirs_is_legal and case["path"] not in case["existing"]:
        assert path == case["path"]
        assert text == case["txt"]
    elif "path" in case and theirs_is_legal:
        assert path == f"{stem}-1{dot}{extension}"

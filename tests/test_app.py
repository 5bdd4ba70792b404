"""The composition root: what the command line asks for without a queue."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest

from studio.building import _worker_engine
from studio.infotext import parse_infotext, read_picture
from studio.paths import Paths
from studio.schema.engine import CancelToken
from studio.schema.events import ImageReady
from studio.schema.request import GenerationRequest, RunOptions
from studio.settings import Settings
from tests.api.stand_in import make_studio

REQUEST = GenerationRequest(prompt="a fox", width=64, height=64, steps=1, seed=5, batch_size=2)


def painted(folder: Path, options: RunOptions) -> list[ImageReady]:
    studio = make_studio(folder, save_to_dirs=False, samples_filename_pattern="[prompt_hash]-[seed]")
    try:
        return [
            event
            for event in studio.paint(studio.resolve(REQUEST, options), CancelToken())
            if isinstance(event, ImageReady)
        ]
    finally:
        studio.close()


def below(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*.png") if ".studio" not in path.parts}


def test_painting_without_a_queue_obeys_the_settings_of_files(tmp_path: Path) -> None:
    pictures = painted(tmp_path, RunOptions())
    assert below(tmp_path / "outputs") == {
        "txt2img-images/00000-5ebbe2a2-5.png",
        "txt2img-images/00001-5ebbe2a2-6.png",
        "txt2img-grids/grid-0000.png",
    }
    grid = read_picture((tmp_path / "outputs/txt2img-grids/grid-0000.png").read_bytes())
    assert (grid.width, grid.height, grid.infotext) == (128, 64, pictures[0].infotext)


@pytest.mark.parametrize("save", [True, False])
def test_a_folder_of_its_own_gets_pictures_only(tmp_path: Path, save: bool) -> None:
    painted(tmp_path / "data", RunOptions(save=save, output_dir=str(tmp_path / "out")))
    assert below(tmp_path / "data") == set()
    assert len(below(tmp_path / "out")) == (2 if save else 0)


@pytest.mark.parametrize(
    "options, files",
    [
        (RunOptions(), {"00000-5.jpg", "00000-5.txt"}),
        (RunOptions(file_format="webp", text_file=False), {"00000-5.webp"}),
    ],
    ids=["as the settings say", "as the job says"],
)
def test_the_settings_decide_on_files_where_the_job_does_not(
    tmp_path: Path, options: RunOptions, files: set[str]
) -> None:
    studio = make_studio(tmp_path, samples_format="jpg", save_txt=True)
    try:
        resolved = studio.resolve(REQUEST.model_copy(update={"batch_size": 1}), options)
        events = list(studio.paint(resolved, CancelToken()))
    finally:
        studio.close()
    (picture,) = (event for event in events if isinstance(event, ImageReady))
    folder = Path(picture.path or "").parent
    assert {path.name for path in folder.iterdir()} == files
    info = read_picture(Path(picture.path or "").read_bytes())
    assert info.infotext == picture.infotext


@pytest.mark.parametrize(
    "settings, options, user",
    [
        ({"add_user_name_to_info": True}, RunOptions(), "ada"),
        ({}, RunOptions(), None),
        ({}, RunOptions(user="Bo"), "Bo"),
        ({"add_user_name_to_info": True, "auth": ""}, RunOptions(), None),
    ],
    ids=["as the settings say", "off", "as the job says", "without a login"],
)
def test_the_login_stands_in_the_infotext_where_it_is_asked_for(
    tmp_path: Path, settings: dict[str, object], options: RunOptions, user: str | None
) -> None:
    studio = make_studio(tmp_path, **{"auth": "ada:a long password", **settings})
    try:
        events = list(studio.paint(studio.resolve(REQUEST, options), CancelToken()))
    finally:
        studio.close()
    texts = [event.infotext for event in events if isinstance(event, ImageReady)]
    assert texts and all(parse_infotext(text).pairs.get("User") == user for text in texts)
    assert not any("password" in text for text in texts)


def test_copies_of_checkpoints_lie_in_the_data_folder_and_are_bounded_by_the_setting(tmp_path: Path) -> None:
    engine = _worker_engine(Settings(converted_checkpoints_gb=2.5), Paths(tmp_path))
    command: list[str] = engine._command  # type: ignore[attr-defined]
    given = dict(pairwise(command))
    assert given["--copies"] == str(tmp_path / "outputs" / ".studio" / "converted")
    assert given["--copies-bytes"] == "2500000000"


def test_what_the_settings_leave_out_reaches_the_worker(tmp_path: Path) -> None:
    engine = _worker_engine(Settings(without="packing, one-pass"), Paths(tmp_path))
    assert dict(pairwise(engine._command))["--without"] == "packing, one-pass"  # type: ignore[attr-defined]

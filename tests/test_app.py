"""The composition root: what the settings decide about a job."""

from __future__ import annotations

from pathlib import Path

from studio.app import build
from studio.engine.fake import FakeEngine
from studio.infotext import read_picture
from studio.paths import Paths
from studio.schema.engine import CancelToken
from studio.schema.events import ImageReady
from studio.schema.request import GenerationRequest, RunOptions
from studio.settings import Settings

SMALL = GenerationRequest(prompt="a fox", width=64, height=64, steps=1, seed=3)


def saved(folder: Path, options: RunOptions, **settings: object) -> list[Path]:
    """The files of one picture."""
    studio = build(Settings.model_validate(settings), Paths(folder), engine=FakeEngine(), queue=False)
    try:
        events = list(studio.paint(SMALL, options, CancelToken()))
    finally:
        studio.close()
    (picture,) = (event for event in events if isinstance(event, ImageReady))
    assert picture.path is not None
    return sorted(Path(picture.path).parent.iterdir())


def test_files_are_written_as_the_settings_say(tmp_path: Path) -> None:
    picture, text = saved(tmp_path, RunOptions(), samples_format="jpg", save_txt=True)
    assert (picture.suffix, text.suffix) == (".jpg", ".txt")
    info = read_picture(picture.read_bytes())
    assert (info.format, info.infotext) == ("JPEG", text.read_text("utf-8"))


def test_a_job_may_say_otherwise(tmp_path: Path) -> None:
    options = RunOptions(file_format="webp", text_file=False)
    (picture,) = saved(tmp_path, options, samples_format="jpg", save_txt=True)
    assert picture.suffix == ".webp"


def test_png_is_what_nobody_chose(tmp_path: Path) -> None:
    (picture,) = saved(tmp_path, RunOptions())
    assert picture.suffix == ".png"

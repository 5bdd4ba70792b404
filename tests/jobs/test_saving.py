"""Pictures, texts and grids on disk."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path
from typing import Any, get_args

import pytest

from studio.engine.fake import FakeEngine
from studio.errors import StorageError
from studio.infotext import read_picture
from studio.jobs.saving import file_names, save_grid, save_picture
from studio.paths import REPOSITORY, Paths, atomic_write
from studio.schema.engine import CancelToken
from studio.schema.events import ImageReady
from studio.schema.request import GenerationRequest, PictureFormat, RunOptions
from studio.schema.resolved import InitImage, ResolvedRequest, SourcePlan
from studio.schema.source import Source
from studio.settings import Settings
from tests.jobs.conftest import prepare


def resolved(options: RunOptions | None = None, **fields: Any) -> ResolvedRequest:
    request = {"prompt": "a fox", "seed": 7, "width": 64, "height": 64, "steps": 1, **fields}
    return prepare(GenerationRequest.model_validate(request), options or RunOptions())


def painted(order: ResolvedRequest) -> list[ImageReady]:
    return [event for event in FakeEngine().run(order, CancelToken()) if isinstance(event, ImageReady)]


def save(paths: Paths, order: ResolvedRequest, **settings: Any) -> list[str]:
    """The paths of a job's pictures below the outputs folder."""
    chosen = Settings.model_validate(settings)
    done = [save_picture(picture, order, 0.0, paths, chosen) for picture in painted(order)]
    assert [picture.warning for picture in done] == [None] * len(done)
    return [Path(picture.path or "").relative_to(paths.outputs).as_posix() for picture in done]


def grid(paths: Paths, order: ResolvedRequest, pictures: list[ImageReady] | None = None, **settings: Any) -> str | None:
    """The path of a job's grid below the outputs folder."""
    chosen = pictures if pictures is not None else painted(order)
    path = save_grid(chosen, lambda picture: picture.png, order, 0.0, paths, Settings.model_validate(settings))
    return path and Path(path).relative_to(paths.outputs).as_posix()


@pytest.mark.parametrize(
    "settings, names",
    [
        ({"directories_filename_pattern": "[model_name]/[width]"}, ["tiny/64/00000-7.png", "tiny/64/00001-8.png"]),
        ({"save_to_dirs": False}, ["00000-7-a fox.png", "00001-8-a fox.png"]),
        (
            {"save_to_dirs": False, "samples_filename_pattern": "[steps]", "save_images_add_number": False},
            ["1.png", "1-1.png"],
        ),
        (
            {"directories_filename_pattern": "../../[batch_number]", "samples_filename_pattern": "../[seed]"},
            ["1/00000-.._7.png", "2/00000-.._8.png"],
        ),
    ],
)
def test_settings_say_where_pictures_go(paths: Paths, settings: dict[str, Any], names: list[str]) -> None:
    assert save(paths, resolved(batch_size=2), **settings) == [f"txt2img-images/{name}" for name in names]


def test_what_began_with_a_picture_has_folders_of_its_own(paths: Paths) -> None:
    image = InitImage(name="0" * 32, path="/m/0.png", width=64, height=64, md5="1")
    part = Source(denoising_strength=0.4).model_dump(exclude={"image", "extra_noise"})
    order = resolved(batch_size=2).model_copy(update={"source": SourcePlan(image=image, **part)})
    names = save(paths, order, save_to_dirs=False, samples_filename_pattern="[denoising]")
    assert names == ["img2img-images/00000-0.4.png", "img2img-images/00001-0.4.png"]
    assert grid(paths, order, save_to_dirs=False) == "img2img-grids/grid-0000.png"


def test_a_pattern_may_ask_for_the_pixels(paths: Paths) -> None:
    names = save(paths, resolved(batch_size=2), save_to_dirs=False, samples_filename_pattern="[image_hash<8>]")
    assert len({name.partition("-images/")[2].split("-")[1] for name in names}) == 2


def test_a_tag_that_cannot_be_filled_in_stays_and_is_logged(paths: Paths, caplog: pytest.LogCaptureFixture) -> None:
    names = save(paths, resolved(), save_to_dirs=False, samples_filename_pattern="[seed<3>]")
    assert names == ["txt2img-images/00000-[seed].png"]
    assert "[seed<3>] in a file name cannot be filled in" in caplog.text


def test_numbers_are_unique_with_many_threads_and_processes(tmp_path: Path) -> None:
    paths, order = Paths(tmp_path), resolved(RunOptions(output_dir=str(tmp_path / "out")))
    script = (
        "import sys\nfrom pathlib import Path\nfrom studio.jobs.saving import save_picture\nfrom studio.paths import Paths\n"
        "from studio.schema.events import ImageReady\nfrom studio.schema.resolved import ResolvedRequest\n"
        "from studio.settings import Settings\n"
        "order = ResolvedRequest.model_validate_json(sys.argv[2])\n"
        "p = ImageReady(index=0, seed=7, width=8, height=8, infotext='', png=b'x')\n"
        "for _ in range(25): save_picture(p, order, 0.0, Paths(Path(sys.argv[1])), Settings())\n"
    )
    command = [sys.executable, "-c", script, str(tmp_path), order.model_dump_json()]
    others = [subprocess.Popen(command, cwd=REPOSITORY) for _ in range(2)]
    picture = ImageReady(index=0, seed=7, width=8, height=8, infotext="x", png=b"\x89PNG")

    def write() -> None:
        for _ in range(10):
            save_picture(picture, order, 0.0, paths, Settings())

    threads = [threading.Thread(target=write) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [other.wait(60) for other in others] == [0, 0]
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == [f"{n:05d}-7.png" for n in range(90)]


def test_a_folder_that_is_a_file_gives_a_warning_and_keeps_the_bytes(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    order = resolved(RunOptions(output_dir=str(tmp_path / "file" / "sub")))
    saved = save_picture(painted(order)[0], order, 0.0, Paths(tmp_path), Settings())
    assert saved.path is None
    assert saved.png[:4] == b"\x89PNG"
    assert "cannot be written" in (saved.warning or "")


def test_a_link_that_leads_out_is_not_followed(paths: Paths, tmp_path: Path) -> None:
    root, elsewhere = paths.outputs / "txt2img-images", tmp_path / "elsewhere"
    root.mkdir(parents=True)
    elsewhere.mkdir()
    (root / "away").symlink_to(elsewhere)
    order = resolved()
    settings = Settings(directories_filename_pattern="away")
    saved = save_picture(painted(order)[0], order, 0.0, paths, settings)
    assert "is not inside 'txt2img-images'" in (saved.warning or "")
    assert list(elsewhere.iterdir()) == []


def test_the_text_lies_beside_the_picture_when_asked_for(paths: Paths) -> None:
    name = save(paths, resolved(RunOptions(text_file=True)), save_to_dirs=False)[0]
    assert (paths.outputs / name).with_suffix(".txt").read_text() == "a fox\nSeed: 7\n"


def test_a_text_that_cannot_be_written_is_told(paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_text(path: Path, data: bytes) -> None:
        if path.suffix == ".txt":
            raise StorageError("The disk is full.")
        atomic_write(path, data)

    monkeypatch.setattr("studio.jobs.saving.atomic_write", no_text)
    order = resolved(RunOptions(text_file=True))
    saved = save_picture(painted(order)[0], order, 0.0, paths, Settings())
    assert Path(saved.path or "").is_file()
    assert saved.warning == "The picture was saved, but its text was not: The disk is full."


@pytest.mark.parametrize(
    "count, size", [(2, (128, 64)), (3, (128, 128)), (4, (128, 128)), (5, (192, 128)), (7, (192, 192))]
)
def test_a_grid_has_the_rounded_root_of_its_pictures_as_rows(paths: Paths, count: int, size: tuple[int, int]) -> None:
    name = grid(paths, resolved(batch_size=count), save_to_dirs=False)
    info = read_picture((paths.outputs / (name or "")).read_bytes())
    assert name == "txt2img-grids/grid-0000.png"
    assert (info.width, info.height) == size
    assert info.infotext == "a fox\nSeed: 7"


def test_grids_are_numbered_by_themselves_and_lie_in_folders(paths: Paths) -> None:
    order = resolved(batch_count=2)
    pattern = {"directories_filename_pattern": "[basename]-[seed]"}
    assert grid(paths, order, **pattern) == "txt2img-grids/grid-7/grid-0000.png"
    assert grid(paths, order, **pattern) == "txt2img-grids/grid-7/grid-0001.png"


@pytest.mark.parametrize("extension, form", [("png", "PNG"), ("jpg", "JPEG"), ("webp", "WEBP"), ("avif", "AVIF")])
def test_grids_have_their_own_format(paths: Paths, extension: str, form: str) -> None:
    name = grid(paths, resolved(batch_size=2, prompt="a fox, 日本語 🦊"), grid_format=extension, save_to_dirs=False)
    assert name == f"txt2img-grids/grid-0000.{extension}"
    info = read_picture((paths.outputs / name).read_bytes())
    assert (info.format, info.infotext) == (form, "a fox, 日本語 🦊\nSeed: 7")


def test_a_text_that_a_jpeg_cannot_hold_makes_a_png(paths: Paths) -> None:
    order = resolved(batch_size=2, prompt="x" * 40_000)
    assert grid(paths, order, grid_format="jpg", save_to_dirs=False) == "txt2img-grids/grid-0000.png"


@pytest.mark.parametrize(
    "options, fields, settings",
    [
        (RunOptions(), {"batch_size": 1}, {}),
        (RunOptions(), {}, {"grid_save": False}),
        (RunOptions(save=False), {}, {}),
        (RunOptions(grid=False), {}, {}),
        (RunOptions(output_dir="/elsewhere"), {}, {}),
    ],
)
def test_when_there_is_no_grid(
    paths: Paths, options: RunOptions, fields: dict[str, Any], settings: dict[str, Any]
) -> None:
    assert grid(paths, resolved(options, **{"batch_size": 2, **fields}), **settings) is None
    assert not (paths.outputs / "txt2img-grids").exists()


def test_a_grid_can_be_saved_without_its_pictures(paths: Paths) -> None:
    assert grid(paths, resolved(RunOptions(save=False, grid=True), batch_size=2)) is not None


def test_a_grid_that_cannot_be_made_is_logged(paths: Paths, caplog: pytest.LogCaptureFixture) -> None:
    order = resolved(batch_size=16, batch_count=20, width=2048, height=2048)
    huge = [ImageReady(index=i, seed=i, width=2048, height=2048, infotext="", png=b"") for i in range(320)]
    assert grid(paths, order, huge) is None
    assert "at most 200,000,000 are possible" in caplog.text
    damaged = [picture.model_copy(update={"png": b"no picture"}) for picture in painted(resolved(batch_size=2))]
    assert grid(paths, resolved(batch_size=2), damaged) is None
    assert "UnidentifiedImageError" in caplog.text
    paths.outputs.mkdir(exist_ok=True)
    (paths.outputs / "txt2img-grids").touch()
    assert grid(paths, resolved(batch_size=2)) is None
    assert "cannot be written" in caplog.text


def test_a_missing_folder_has_no_names(tmp_path: Path) -> None:
    assert file_names(tmp_path / "not yet") == []


@pytest.mark.parametrize("kind", get_args(PictureFormat))
def test_a_picture_is_saved_in_the_format_asked_for(paths: Paths, kind: PictureFormat) -> None:
    order = resolved(RunOptions(file_format=kind, quality=70, text_file=True))
    assert save(paths, order, save_to_dirs=False, samples_filename_pattern="[seed]") == [
        f"txt2img-images/00000-7.{kind}"
    ]
    saved = paths.outputs / f"txt2img-images/00000-7.{kind}"
    info = read_picture(saved.read_bytes())
    assert info.infotext == "a fox\nSeed: 7"
    assert saved.with_suffix(".txt").read_text("utf-8") == "a fox\nSeed: 7\n"
    assert len(list(saved.parent.iterdir())) == 2


def test_pictures_saved_as_jpeg_make_a_grid_too(paths: Paths) -> None:
    order = resolved(RunOptions(file_format="jpg"), batch_size=2)
    kept = [save_picture(picture, order, 0.0, paths, Settings()) for picture in painted(order)]
    name = save_grid(kept, lambda picture: Path(picture.path or "").read_bytes(), order, 0.0, paths, Settings())
    assert read_picture(Path(name or "").read_bytes()).width == 2 * 64

"""Painting in tiles on tiny random models: against plain img2img, tile by tile and seed by seed; previews, progress, stopping."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from studio.engine.faces.restore import FaceKeeper
from studio.engine.runner import DiffusersEngine
from studio.engine.source import SourceLatents, together
from studio.errors import InvalidRequest
from studio.infotext import encode_png
from studio.library.init_images import InitImages
from studio.resolve import resolve
from studio.schema.engine import CancelToken
from studio.schema.events import Event, Finished, ImageReady, Progress
from studio.schema.faces import FacePlan
from studio.schema.parts import BranchPoint
from studio.schema.request import RunOptions, make_request
from studio.schema.resolved import InitImage, ResolvedRequest
from tests.engine.test_hires import Library
from tests.engine.test_tiles import noise

PLAIN: dict[str, Any] = {
    "prompt": "a fox", "sampler": "Euler", "schedule": "Uniform", "steps": 4, "cfg_scale": 2, "seed": 7, "width": 64, "height": 64,
}  # fmt: skip


class Desk(Library):
    """The tiny checkpoints, and a folder of pictures to begin with."""

    def __init__(self, folder: Path, family: str = "sd1") -> None:
        super().__init__(family)
        self.images = InitImages(folder, folder)

    def init_image(self, name: str) -> InitImage:
        return self.images.find(name)


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


def asked(desk: Desk, picture: Image.Image, keep: bool = False, **changes: Any) -> ResolvedRequest:
    name = desk.images.keep(encode_png(picture, "")).name
    source = {"image": name, "denoising_strength": 0.5}
    request = make_request({**PLAIN, "source": source, **changes})
    return resolve(request, desk, lambda: 1, options=RunOptions(preview_every=1, keep_latents=keep))


def paint(engine: DiffusersEngine, resolved: ResolvedRequest) -> list[Event]:
    return list(engine.run(resolved, CancelToken()))


def pictures(events: list[Event]) -> list[np.ndarray[Any, Any]]:
    found = [event for event in events if isinstance(event, ImageReady)]
    return [np.asarray(Image.open(io.BytesIO(picture.png))).astype(int) for picture in found]


def test_one_tile_is_plain_img2img_of_the_enlarged_picture(engine: DiffusersEngine, desk: Desk) -> None:
    small = noise(48, 32)
    part = {"upscaler": "Lanczos", "scale_factor": 2, "overlap": 0}
    tiled = asked(desk, small, width=128, height=64, sd_upscale=part)
    assert (tiled.width, tiled.height, tiled.final_size) == (96, 64, (96, 64)), "a tile is no larger than the picture"
    large = small.resize((96, 64), Image.Resampling.LANCZOS)
    plain = asked(desk, large, width=96, height=64)
    assert np.array_equal(pictures(paint(engine, tiled))[0], pictures(paint(engine, plain))[0])


def test_faces_are_restored_in_the_whole_picture(
    engine: DiffusersEngine, desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    part = {"upscaler": "Lanczos", "scale_factor": 2, "overlap": 16}
    plain = asked(desk, noise(48, 32), sd_upscale=part)
    faces = FacePlan(name="GFPGAN", architecture="GFPGAN", file="/gone", detector="/gone")
    monkeypatch.setattr(FaceKeeper, "restore", lambda self, plan: ImageOps.invert)
    (wanted,) = pictures(paint(engine, plain))
    (found,) = pictures(paint(engine, plain.model_copy(update={"faces": faces})))
    assert np.array_equal(found, 255 - wanted)


@pytest.mark.parametrize("size", [1, 3])
def test_tiles_are_painted_by_seeds_that_count_on(engine: DiffusersEngine, desk: Desk, size: int) -> None:
    """Without an overlap each is img2img of its part, however many are painted at once. Two pictures, the second by the next seed."""
    whole = noise(128, 128)
    part = {"upscaler": "None", "overlap": 0}
    resolved = asked(desk, whole, batch_size=size, batch_count=2, sd_upscale=part)
    assert resolved.seeds == (7, 8)
    found = pictures(paint(engine, resolved))
    assert [picture.shape for picture in found] == [(128, 128, 3)] * 2
    boxes = [(0, 0), (64, 0), (0, 64), (64, 64)]
    for number, picture in enumerate(found):
        for place, (left, top) in enumerate(boxes):
            box = (left, top, left + 64, top + 64)
            seed = 7 + number + place
            alone = pictures(paint(engine, asked(desk, whole.crop(box), seed=seed)))[0]
            part_of_it = picture[top : top + 64, left : left + 64]
            assert np.abs(part_of_it - alone).max() <= (0 if size == 1 else 8), "batches round otherwise"
            assert np.abs(part_of_it - alone).mean() < 0.5


def test_the_variation_is_the_same_in_every_tile(engine: DiffusersEngine, desk: Desk) -> None:
    whole = noise(128, 64)
    variation = {"seed": 20, "strength": 0.4}
    part = {"upscaler": "None", "overlap": 0}
    resolved = asked(desk, whole, batch_size=2, variation=variation, sd_upscale=part)
    found = pictures(paint(engine, resolved))[0]
    for place in (0, 1):
        alone = asked(desk, whole.crop((64 * place, 0, 64 * place + 64, 64)), seed=7 + place, variation=variation)
        assert np.abs(found[:, 64 * place : 64 * place + 64] - pictures(paint(engine, alone))[0]).mean() < 0.5


def test_tiles_go_over_into_each_other(engine: DiffusersEngine, desk: Desk) -> None:
    whole = noise(96, 64)
    resolved = asked(desk, whole, sd_upscale={"upscaler": "None", "overlap": 16})
    found = pictures(paint(engine, resolved))[0]
    left = pictures(paint(engine, asked(desk, whole.crop((0, 0, 64, 64)))))[0]
    right = pictures(paint(engine, asked(desk, whole.crop((32, 0, 96, 64)), seed=8)))[0]
    ramp = (np.arange(16) * 255 // 16 / 255)[None, :, None]
    soft = left[:, 32:48] * (1 - ramp) + right[:, :16] * ramp
    assert np.array_equal(found[:, :32], left[:, :32])
    assert np.abs(found[:, 32:48] - soft).max() <= 0.5
    assert np.array_equal(found[:, 48:], right[:, 16:])


def test_progress_counts_over_all_tiles_and_shows_the_whole(engine: DiffusersEngine, desk: Desk) -> None:
    whole = noise(8, 8).resize((128, 128), Image.Resampling.BICUBIC)
    part = {"upscaler": "None", "overlap": 0}
    events = paint(engine, asked(desk, whole, keep=True, batch_size=2, batch_count=2, sd_upscale=part))
    steps = [event for event in events if isinstance(event, Progress)]
    assert [(event.batch, event.step) for event in steps] == [(batch, step) for batch in (0, 1) for step in range(1, 7)]
    assert {(event.batches, event.total) for event in steps} == {(2, 6)}
    assert not any(event.latents for event in steps), "nothing goes on from a tile"
    shown = [np.asarray(Image.open(io.BytesIO(event.previews[0]))).astype(int) for event in steps]
    assert {(len(event.previews), picture.shape) for event, picture in zip(steps, shown, strict=True)} == {
        (1, (128, 128, 3))
    }
    below = np.asarray(whole).astype(int)[70:]
    assert np.abs(shown[0][70:] - below).mean() < 30, "what is not painted yet is the picture to begin with"
    assert np.abs(shown[3][:58] - pictures(events)[0][:58]).mean() < 30, "then the finished tiles"
    finished = next(event for event in events if isinstance(event, Finished))
    assert finished.images == 2
    assert [event.seed for event in events if isinstance(event, ImageReady)] == [7, 8]


def test_each_tile_of_a_batch_has_its_own_latents_and_channels() -> None:
    """The channels are what checkpoints for inpainting and for instructions are told."""
    one, two = (SourceLatents(torch.randn(1, 4, 8, 8), None, torch.randn(1, 5, 8, 8), "original", 1.0) for _ in "ab")
    both = together([one, two])
    assert torch.equal(both.latents, torch.cat((one.latents, two.latents)))
    assert both.channels is not None and one.channels is not None and two.channels is not None
    assert torch.equal(both.channels, torch.cat((one.channels, two.channels)))
    assert together([one]) is one
    assert together([replace(one, channels=None), replace(two, channels=None)]).channels is None


@pytest.mark.parametrize("kind", ["interrupt", "skip"])
def test_it_can_be_stopped_in_any_tile(engine: DiffusersEngine, desk: Desk, kind: str) -> None:
    cancel, steps, images = CancelToken(), 0, 0
    resolved = asked(desk, noise(96, 64), batch_count=2, sd_upscale={"upscaler": "None", "overlap": 0})
    for event in engine.run(resolved, cancel):
        if isinstance(event, Progress):
            steps += 1
            if steps == 4:
                getattr(cancel, kind)()
        images += isinstance(event, ImageReady)
    assert (steps, images) == ((4, 0) if kind == "interrupt" else (10, 1))


def test_a_model_enlarges_once_for_all_pictures(
    engine: DiffusersEngine, desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    from studio.engine.enlarging import UpscalerModel

    runs, whole = [], UpscalerModel.run

    def counted(self: UpscalerModel, picture: Image.Image) -> Any:
        runs.append(picture.size)
        return whole(self, picture)

    monkeypatch.setattr(UpscalerModel, "run", counted)
    part = {"upscaler": "compact-2x", "scale_factor": 2, "overlap": 16}
    (one, two) = pictures(paint(engine, asked(desk, noise(48, 40), batch_count=2, sd_upscale=part)))
    assert one.shape == two.shape == (80, 96, 3)
    assert runs == [(48, 40)]
    paint(engine, asked(desk, noise(64, 64), sd_upscale=part | {"scale_factor": 1}))
    assert len(runs) == 2, "at its own size a model is applied once"


def test_it_neither_is_a_branch_nor_has_one(engine: DiffusersEngine, desk: Desk) -> None:
    part = {"upscaler": "None"}
    (image,) = [
        event for event in paint(engine, asked(desk, noise(64, 64), sd_upscale=part)) if isinstance(event, ImageReady)
    ]
    with pytest.raises(InvalidRequest, match="neither be branched from") as caught:
        asked(desk, noise(64, 64), branch=BranchPoint(step=1, origin=image.infotext))
    assert caught.value.field == "branch.origin"
    (plain,) = [event for event in paint(engine, asked(desk, noise(64, 64))) if isinstance(event, ImageReady)]
    with pytest.raises(InvalidRequest, match="neither be branched from") as caught:
        asked(desk, noise(64, 64), branch=BranchPoint(step=1, origin=plain.infotext), sd_upscale=part)
    assert caught.value.field == "sd_upscale"

"""Faces of finished pictures: found, painted anew, put back; in a job, a second pass and a masked part."""

from __future__ import annotations

import io
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from studio.engine.faces import restore
from studio.engine.faces.detector import Face
from studio.engine.faces.geometry import template
from studio.engine.faces.gfpgan import Gfpgan
from studio.engine.faces.restore import FaceKeeper, load_network, restored
from studio.engine.hardware import choose_hardware
from studio.engine.runner import DiffusersEngine
from studio.errors import EngineError, IncompatibleFile, NotFound
from studio.infotext import encode_png
from studio.library.init_images import InitImages
from studio.schema.engine import CancelToken
from studio.schema.events import Event, ImageReady, Progress
from studio.schema.faces import FacePlan
from studio.schema.resolved import MaskPlan, SourcePlan
from studio.schema.source import Mask, Source
from tests.engine.faces.made import blind_detector, made_file
from tests.engine.samples import resolved_request
from tests.engine.test_upscale import plan_of
from tests.tiny_models import tiny_file, tiny_info

HARDWARE = choose_hardware("cpu", precision="fp32")
FACE = Face((10, 10, 50, 50), 0.99, template(64) * 0.6 + 14)
"""In a square of 38 pixels at (14, 14)."""
SQUARE = (slice(14, 53), slice(14, 53))
Pixels = np.ndarray[Any, Any]


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> FacePlan:
    folder = tmp_path_factory.mktemp("face_restoration")
    file, detector = made_file(folder, "GFPGAN", "GFPGAN"), blind_detector(folder)
    return FacePlan(name="GFPGAN", architecture="GFPGAN", file=str(file), detector=str(detector))


@pytest.fixture
def one_face(monkeypatch: pytest.MonkeyPatch) -> list[Image.Image]:
    """The pictures that are searched; one face is found in each."""
    seen: list[Image.Image] = []
    monkeypatch.setattr(restore, "find_faces", lambda picture, *_: seen.append(picture) or [FACE])
    return seen


def painted(engine: DiffusersEngine, **changes: Any) -> tuple[list[Pixels], list[str]]:
    request = resolved_request(tiny_info("sd1"), **{"steps": 2, "cfg_scale": 1.0, **changes})
    pictures = [event for event in engine.run(request, CancelToken()) if isinstance(event, ImageReady)]
    return [np.asarray(Image.open(io.BytesIO(one.png))).astype(int) for one in pictures], [
        one.infotext for one in pictures
    ]


def test_a_picture_without_a_face_stays_as_it_is(engine: DiffusersEngine, plan: FacePlan) -> None:
    (plain,), _ = painted(engine)
    (searched,), (text,) = painted(engine, faces=plan)
    assert np.array_equal(searched, plain)
    assert "Seed: 7, Face restoration: GFPGAN, Size: 64x64" in text


def test_every_picture_is_restored_where_its_face_is(
    engine: DiffusersEngine, plan: FacePlan, one_face: list[Image.Image]
) -> None:
    plain, _ = painted(engine, batch_size=2, batch_count=2)
    found, _ = painted(engine, batch_size=2, batch_count=2, faces=plan)
    assert len(one_face) == 4
    for before, after in zip(plain, found, strict=True):
        outside = np.ones(before.shape[:2], bool)
        outside[SQUARE] = False
        assert np.array_equal(before[outside], after[outside])
        assert np.abs(before - after)[20:46, 20:46].mean() > 10


def test_after_the_second_pass(engine: DiffusersEngine, plan: FacePlan, one_face: list[Image.Image]) -> None:
    hires = plan_of("Lanczos", (96, 96))
    (found,), _ = painted(engine, hires=hires, faces=plan)
    (plain,), _ = painted(engine, hires=hires)
    assert [picture.size for picture in one_face] == [(96, 96)]
    assert np.array_equal(found[60:], plain[60:]) and not np.array_equal(found, plain)


def test_a_masked_part_is_restored_before_it_goes_back(
    engine: DiffusersEngine, plan: FacePlan, one_face: list[Image.Image], tmp_path: Path
) -> None:
    kept = InitImages(tmp_path / "kept", tmp_path / "waiting")
    picture, mask = Image.new("RGB", (64, 64), (90, 120, 30)), Image.new("L", (64, 64), 0)
    mask.paste(255, (0, 0, 32, 64))
    named = kept.keep(encode_png(picture, "")), kept.keep_mask(encode_png(mask, ""))
    facts = {"source": SourcePlan(**{**Source().model_dump(exclude={"extra_noise"}), "image": named[0]}),
             "mask": MaskPlan(**{**Mask().model_dump(), "image": named[1], "blur": 0})}  # fmt: skip
    (plain,), _ = painted(engine, **facts)
    (found,), _ = painted(engine, **facts, faces=plan)
    assert (found[:, 32:] == (90, 120, 30)).all()
    assert np.abs(found - plain)[20:46, 20:32].mean() > 10


def test_networks_are_loaded_once_and_anew_when_a_file_changes(plan: FacePlan, tmp_path: Path) -> None:
    file = made_file(tmp_path, "GFPGAN", "mine")
    keeper, own = FaceKeeper(HARDWARE), plan.model_copy(update={"file": str(file)})
    parts = [keeper.restore(own).keywords for _ in range(2)]  # type: ignore[attr-defined]
    assert parts[0]["network"] is parts[1]["network"] and parts[0]["detector"] is parts[1]["detector"]
    os.utime(file, ns=(1, 1))
    third = keeper.restore(own).keywords  # type: ignore[attr-defined]
    assert third["network"] is not parts[0]["network"] and third["detector"] is parts[0]["detector"]
    keeper.release()
    assert keeper.restore(own).keywords["network"] is not third["network"]  # type: ignore[attr-defined]


def test_a_job_that_loads_a_checkpoint_and_restores_no_faces_releases_them(
    plan: FacePlan, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    painter = DiffusersEngine("cpu", precision="fp32")
    released: list[int] = []
    monkeypatch.setattr(FaceKeeper, "release", lambda self: released.append(1))
    painted(painter, faces=plan)
    painted(painter)
    assert released == []
    other = Path(shutil.copy(tiny_file("sd1"), tmp_path / "other.safetensors"))
    assert list(painter.run(resolved_request(tiny_info(other), steps=1), CancelToken()))
    assert released == [1]
    painter.close()
    assert released == [1, 1]


def test_a_checkpoint_that_is_held_in_eight_bits_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    painter = DiffusersEngine("cpu", precision="fp32")
    painted(painter, fp8_weight="Enable")
    released: list[int] = []
    monkeypatch.setattr(FaceKeeper, "release", lambda self: released.append(1))
    painted(painter, fp8_weight="Enable")
    assert released == []
    painted(painter)
    assert released == [1], "stored otherwise it is loaded anew"
    painter.close()


def test_what_cannot_be_used_is_told_before_a_step_is_painted(
    engine: DiffusersEngine, plan: FacePlan, tmp_path: Path
) -> None:
    for kind, change in ((NotFound, {"file": str(tmp_path / "gone")}), (IncompatibleFile, {"file": plan.detector})):
        seen: list[Event] = []
        request = resolved_request(tiny_info("sd1"), steps=2, faces=plan.model_copy(update=change))
        with pytest.raises(kind):
            seen.extend(engine.run(request, CancelToken()))
        assert not any(isinstance(event, Progress) for event in seen)


def test_no_numbers_are_an_error(plan: FacePlan, one_face: list[Image.Image]) -> None:
    network = load_network(Gfpgan, "GFPGAN", Path(plan.file), HARDWARE.device)
    network.final_linear.bias[:] = torch.nan
    with pytest.raises(EngineError, match="Face restoration gave no numbers"):
        restored(Image.new("RGB", (64, 64)), detector=None, network=network, weight=0.5, device=HARDWARE.device)  # type: ignore[arg-type]

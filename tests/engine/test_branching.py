"""Branches on tiny random models: kept latents and painted ones agree to the byte, and a branch that changes nothing changes nothing."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from studio.engine.latents import pack_step, rounded, start_point, unpack_step
from studio.engine.runner import DiffusersEngine
from studio.errors import EngineError, InvalidRequest
from studio.infotext import read_picture
from studio.resolve import resolve
from studio.samplers.table import SAMPLERS
from studio.samplers.types import Step
from studio.schema.engine import CancelToken
from studio.schema.events import ImageReady, Progress
from studio.schema.models import ModelInfo
from studio.schema.request import BranchPoint, GenerationRequest, RunOptions, make_request
from tests.tiny_models import tiny_info, tiny_lora

LEAST = 8
"""8-bit levels that rounding the latents to half precision may move a pixel by."""
SINGLE_STEP = ("Euler", "Euler a", "Heun", "DPM2", "DPM2 a", "DPM++ 2S a", "DPM++ SDE", "DDIM", "DDIM CFG++", "LCM")
"""Samplers that look at nothing but the latents: their rest is the same with and without a history."""
BASE = GenerationRequest(
    prompt="a [red:blue:0.6] fox", sampler="Euler", schedule="Uniform", steps=8, width=64, height=64, seed=3
)


@pytest.fixture(scope="module")
def engine() -> Iterator[DiffusersEngine]:
    painter = DiffusersEngine("cpu")
    yield painter
    painter.close()


class Library:
    """One tiny checkpoint and one LoRA."""

    def __init__(self, family: str = "sd1") -> None:
        self.info = tiny_info(family)

    def checkpoint(self, name: str | None) -> ModelInfo:
        return self.info

    def vae(self, name: str) -> None:
        return None

    def lora(self, name: str) -> ModelInfo:
        return tiny_info(tiny_lora("sd1"), "lora")

    def lora_hashes(self) -> dict[str, str]:
        return {}

    def embeddings(self) -> list[ModelInfo]:
        return []

    def embedding(self, name: str) -> ModelInfo:
        raise AssertionError(name)

    def embedding_hashes(self) -> dict[str, str]:
        return {}

    def style(self, name: str) -> Any:
        raise AssertionError(name)

    def wildcard(self, name: str) -> list[str]:
        raise AssertionError(name)


LORA = "sd1-kohya-4-2.0-unet-te-0"
"""Stem of the tiny LoRA's file."""


class Painted:
    """What one run gave."""

    def __init__(
        self, engine: DiffusersEngine, request: GenerationRequest, kept: bytes = b"", library: Library | None = None
    ) -> None:
        options = RunOptions(preview_every=0, keep_latents=True)
        resolved = resolve(request, library or Library(), lambda: 1, options=options)
        events = list(engine.run(resolved, CancelToken(), kept))
        self.steps = [event for event in events if isinstance(event, Progress)]
        (self.picture,) = [event for event in events if isinstance(event, ImageReady)]

    @property
    def pixels(self) -> np.ndarray[Any, Any]:
        return np.asarray(Image.open(io.BytesIO(self.picture.png))).astype(int)

    def branch(self, step: int, **changes: Any) -> GenerationRequest:
        """A branch of this picture that is like `BASE`, but for `changes`."""
        point = BranchPoint(step=step, origin=self.picture.infotext)
        return BASE.model_copy(update={"branch": point, **changes})

    def kept(self, step: int) -> bytes:
        return next(event.latents for event in self.steps if event.step == step)


def distance(one: Painted, other: Painted) -> int:
    return int(np.abs(one.pixels - other.pixels).max())


def far(one: Painted, other: Painted, step: int) -> float:
    """The largest difference of latents after a step."""
    return float((unpack_step(one.kept(step)).x.float() - unpack_step(other.kept(step)).x.float()).abs().max())


@pytest.mark.parametrize("sampler", SINGLE_STEP)
def test_a_branch_that_changes_nothing_is_the_same_picture(engine: DiffusersEngine, sampler: str) -> None:
    """Also the same noise is drawn and the prompt changes at the same step."""
    base = Painted(engine, BASE.model_copy(update={"sampler": sampler}))
    for step in (1, 5):
        branch = Painted(engine, base.branch(step, sampler=sampler))
        assert distance(branch, base) <= LEAST
        assert far(branch, base, step + 1) < 0.5  # with other noise it is 1.4 at the least
        assert [(e.step, e.sigma) for e in branch.steps] == [(e.step, e.sigma) for e in base.steps]
        assert [e.total for e in branch.steps][-1] == len(base.steps)


@pytest.mark.parametrize("sampler", [spec.name for spec in SAMPLERS if spec.can_branch])
def test_kept_latents_and_painted_ones_give_the_same_bytes(engine: DiffusersEngine, sampler: str) -> None:
    base = Painted(engine, BASE)
    asked = base.branch(3, sampler=sampler, schedule="Automatic", prompt="a house", cfg_scale=4, steps=10)
    anew, at_once = Painted(engine, asked), Painted(engine, asked, base.kept(3))
    assert at_once.picture.png == anew.picture.png
    assert [event.step for event in anew.steps][:3] == [1, 2, 3]
    assert [event.step for event in at_once.steps] == [event.step for event in anew.steps][3:]
    assert at_once.steps[0].step == 4
    assert (anew.pixels != base.pixels).any()
    assert [event.sigma for event in anew.steps[:3]] == [event.sigma for event in base.steps[:3]]


@pytest.mark.parametrize("sampler", ["DPM adaptive", "DPM fast", "Restart", "UniPC"])
def test_any_sampler_can_be_branched_from(engine: DiffusersEngine, sampler: str) -> None:
    base = Painted(engine, BASE.model_copy(update={"sampler": sampler, "steps": 20}))
    asked = base.branch(2, prompt="a house")
    assert Painted(engine, asked).picture.png == Painted(engine, asked, base.kept(2)).picture.png


def test_a_branch_is_painted_again_from_its_own_text(engine: DiffusersEngine) -> None:
    """Two branches deep, with LoRAs that come and go."""
    base = Painted(engine, BASE.model_copy(update={"prompt": f"a fox <lora:{LORA}:0.9>"}))
    first = Painted(engine, base.branch(2, prompt="a house", sampler="Euler a"), base.kept(2))
    second = Painted(engine, first.branch(5, cfg_scale=3, prompt=f"x <lora:{LORA}:0.5>"), first.kept(5))
    told = read_picture(second.picture.png)
    assert told.notes == []
    again = Painted(engine, make_request(told.request))
    assert again.picture.png == second.picture.png
    assert [event.step for event in again.steps] == list(range(1, 9))


def test_the_step_before_a_branch_is_its_origins(engine: DiffusersEngine) -> None:
    base = Painted(engine, BASE)
    late = Painted(engine, base.branch(6, prompt="a house"))
    early = Painted(engine, late.branch(2, prompt="a cat"))
    assert (early.pixels == Painted(engine, base.branch(2, prompt="a cat")).pixels).all()
    assert early.picture.infotext.count("Branch step") == 2


def test_kept_latents_that_do_not_fit_are_painted_anew(engine: DiffusersEngine) -> None:
    base = Painted(engine, BASE)
    asked = base.branch(3, prompt="a house")
    wanted = Painted(engine, asked)
    backend = unpack_step(base.kept(3)).backend
    other = base.kept(3).replace(backend.encode(), b"x" * len(backend))
    for kept in (base.kept(4), b"no latents", other):
        again = Painted(engine, asked, kept)
        assert again.picture.png == wanted.picture.png
        assert len(again.steps) == len(wanted.steps)


def test_a_branch_needs_steps_on_both_sides(engine: DiffusersEngine) -> None:
    base = Painted(engine, BASE.model_copy(update={"sampler": "DDIM"}))
    with pytest.raises(InvalidRequest, match=r"finished by then|none left"):
        Painted(engine, base.branch(150))
    with pytest.raises(InvalidRequest, match="none left below sigma"):
        Painted(engine, Painted(engine, BASE).branch(7, sampler="DDIM"))


def test_every_step_can_be_decoded(engine: DiffusersEngine) -> None:
    """What the last step predicts is the picture, for a sampler that goes down to sigma 0."""
    library = Library()
    base = Painted(engine, BASE)
    last = engine.decode(library.info, None, base.kept(8), 0)
    decoded = np.asarray(Image.open(io.BytesIO(last))).astype(int)
    assert np.abs(decoded - base.pixels).max() <= LEAST
    assert read_picture(last).infotext is None
    first = engine.decode(library.info, None, base.kept(1), 0)
    assert (np.asarray(Image.open(io.BytesIO(first))) != base.pixels).any()
    with pytest.raises(InvalidRequest, match="no picture 1"):
        engine.decode(library.info, None, base.kept(1), 1)
    with pytest.raises(EngineError, match="damaged"):
        engine.decode(library.info, None, b"nothing", 0)


def test_a_step_can_be_decoded_while_the_job_runs(engine: DiffusersEngine) -> None:
    resolved = resolve(BASE, Library(), lambda: 1, options=RunOptions(preview_every=0, keep_latents=True))
    latents, decoded, ended = b"", b"", ""
    for event in engine.run(resolved, CancelToken()):
        ended = event.type
        if isinstance(event, Progress) and event.step == 2:
            latents = event.latents
            decoded = engine.decode(resolved.model, None, latents, 0)
    assert ended == "finished"
    assert decoded == engine.decode(resolved.model, None, latents, 0)


def test_latents_come_back_as_they_were_rounded() -> None:
    x, denoised = torch.randn(1, 4, 8, 6) * 14.6, torch.randn(1, 4, 8, 6)
    data = pack_step(Step(4, 2.0, 0.1 + 0.2, x, denoised), "torch 9, cpu")
    kept = unpack_step(data)
    assert torch.equal(kept.x.float(), rounded(x)) and torch.equal(kept.denoised.float(), rounded(denoised))
    assert (kept.step, kept.sigma, kept.backend) == (5, 0.1 + 0.2, "torch 9, cpu")
    assert len(data) < 2 * x.numel() * 2 + 400
    start = start_point(data, 5, (1, 4, 8, 6), "torch 9, cpu", torch.device("cpu"))
    assert start is not None and start.x.dtype == torch.float32 and torch.equal(start.x, rounded(x))
    assert start_point(data, 5, (1, 4, 6, 8), "torch 9, cpu", torch.device("cpu")) is None
    assert start_point(b"", 5, (1, 4, 8, 6), "torch 9, cpu", torch.device("cpu")) is None

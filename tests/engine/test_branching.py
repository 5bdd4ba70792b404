"""Branches on tiny random models: kept latents and painted ones agree to the byte, and a branch that changes nothing changes nothing."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from studio.engine.latents import pack_step, rounded, start_point, unpack_step
from studio.engine.runner import DiffusersEngine
from studio.errors import EngineError, InvalidRequest
from studio.infotext import read_picture
from studio.jobs.latents import painter_of
from studio.resolve import resolve
from studio.samplers.table import SAMPLERS
from studio.samplers.types import Step
from studio.schema.engine import CancelToken
from studio.schema.events import ImageReady, Progress, Status
from studio.schema.models import ModelInfo
from studio.schema.parts import BranchPoint, Refiner
from studio.schema.request import GenerationRequest, RunOptions, make_request
from tests.tiny_models import tiny_info, tiny_lora

LEAST = 8
"""8-bit levels that rounding the latents to half precision may move a pixel by."""
SINGLE_STEP = ("Euler", "Euler a", "Heun", "DPM2", "DPM2 a", "DPM++ 2S a", "DPM++ SDE", "DDIM", "DDIM CFG++", "LCM")
"""Samplers that look at nothing but the latents: their rest is the same with and without a history."""
BASE = GenerationRequest(
    prompt="a [red:blue:0.6] fox", sampler="Euler", schedule="Uniform", steps=8, width=64, height=64, seed=3
)


class Library:
    """One tiny checkpoint, one LoRA, and a refiner if it is asked for."""

    def __init__(self, family: str = "sd1", refiner: str = "") -> None:
        self.info = tiny_info(family)
        self.refiner = tiny_info(refiner) if refiner else self.info

    def checkpoint(self, name: str | None) -> ModelInfo:
        return self.refiner if name == self.refiner.name else self.info

    def vae(self, name: str) -> None:
        return None

    def lora(self, name: str) -> ModelInfo:
        return tiny_info(tiny_lora("sd1"), "lora")

    def hypernetwork(self, name: str) -> ModelInfo:
        raise AssertionError(name)

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
        self.said = [event.message for event in events if isinstance(event, Status)]
        self.steps = [event for event in events if isinstance(event, Progress)]
        (self.picture,) = [event for event in events if isinstance(event, ImageReady)]

    @property
    def pixels(self) -> np.ndarray[Any, Any]:
        return np.asarray(Image.open(io.BytesIO(self.picture.png))).astype(int)

    def branch(self, step: int, **changes: Any) -> GenerationRequest:
        """A branch of this picture that is like `BASE`, but for `changes`."""
        return self.branch_of(BASE, step, **changes)

    def branch_of(self, base: GenerationRequest, step: int, **changes: Any) -> GenerationRequest:
        """A branch of this picture that is like `base`, but for `changes`."""
        point = BranchPoint(step=step, origin=self.picture.infotext)
        return base.model_copy(update={"branch": point, **changes})

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


# -- with a refiner ---------------------------------------------------------------------------------------------------

PLAIN = BASE.model_copy(update={"cfg_scale": 2.0})
"""Random weights amplify rounding; at a small scale the same picture stays the same."""
SWITCH = 4
"""Steps of the first checkpoint, by noise and by steps; Heun looks ahead, so by noise its last call in them is the refiner's."""


@pytest.fixture(scope="module")
def pair() -> Library:
    return Library("sdxl", "sdxl_refiner")


@pytest.fixture(params=["both in memory", "one in memory"])
def memory(request: pytest.FixtureRequest, engine: DiffusersEngine, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether there is room for two checkpoints."""
    room = request.param == "both in memory"
    monkeypatch.setattr(type(engine._hardware), "free_memory", lambda self: 2**50 if room else 2**30)
    engine.close()
    return room


def refined(pair: Library, by_steps: bool, **changes: Any) -> GenerationRequest:
    part = Refiner(checkpoint=pair.refiner.name, switch_at=SWITCH / 8, by_steps=by_steps)
    return PLAIN.model_copy(update={"refiner": part, **changes})


def painters(painted: Painted) -> list[str]:
    return [words for words in painted.said if words.startswith(("Refining", "Painting"))]


@pytest.mark.parametrize("by_steps, sampler", [(False, "Heun"), (True, "Euler")])
def test_a_branch_of_a_refined_picture_that_changes_nothing_is_the_same_picture(
    engine: DiffusersEngine, pair: Library, memory: bool, by_steps: bool, sampler: str
) -> None:
    """Left before the switch and after it; from kept latents and painted anew."""
    asked = refined(pair, by_steps, sampler=sampler)
    base = Painted(engine, asked, library=pair)
    plain = Painted(engine, PLAIN.model_copy(update={"sampler": sampler}), library=pair)
    assert distance(base, plain) > 4 * LEAST
    assert [far(base, plain, step) == 0 for step in (SWITCH - 1, SWITCH + 1)] == [True, False]
    for step in (2, 6):
        request = base.branch_of(asked, step)
        anew, at_once = Painted(engine, request, library=pair), Painted(engine, request, base.kept(step), pair)
        assert distance(anew, base) <= LEAST
        assert at_once.picture.png == anew.picture.png
        assert [(e.step, e.sigma) for e in anew.steps] == [(e.step, e.sigma) for e in base.steps]
        assert painters(at_once) == [f"Refining with {pair.refiner.name}"]


def test_a_branch_has_its_own_refiner(engine: DiffusersEngine, pair: Library, memory: bool) -> None:
    """Before the switch it makes no difference which picture it leaves; after it the branch's refiner begins at once."""
    by_steps = memory  # both kinds of switch, not each with either
    with_one, without = (Painted(engine, asked, library=pair) for asked in (refined(pair, by_steps), PLAIN))
    gained = Painted(engine, without.branch_of(refined(pair, by_steps), 2), library=pair)
    lost = Painted(engine, with_one.branch_of(PLAIN, 2), library=pair)
    assert distance(gained, with_one) <= LEAST and distance(lost, without) <= LEAST
    late = without.branch_of(refined(pair, by_steps), 6)
    anew, at_once = Painted(engine, late, library=pair), Painted(engine, late, without.kept(6), pair)
    assert anew.picture.png == at_once.picture.png
    assert far(anew, without, 7) > 0 and len(anew.steps) == 8
    back = with_one.branch_of(PLAIN, 6)
    anew, at_once = Painted(engine, back, library=pair), Painted(engine, back, with_one.kept(6), pair)
    assert anew.picture.png == at_once.picture.png
    assert painters(anew) == [f"Refining with {pair.refiner.name}", f"Painting with {pair.info.name}"]
    assert painters(at_once) == []


def test_a_branch_of_a_branch_with_refiners(engine: DiffusersEngine, pair: Library, memory: bool) -> None:
    asked = refined(pair, by_steps=True)
    base = Painted(engine, asked, library=pair)
    first = Painted(engine, base.branch_of(PLAIN, 6, prompt="a house"), base.kept(6), pair)
    second = Painted(engine, first.branch_of(asked, 7, prompt="a cat"), first.kept(7), pair)
    again = Painted(engine, make_request(read_picture(second.picture.png).request), library=pair)
    assert again.picture.png == second.picture.png
    assert len(painters(again)) == 3


def test_steps_of_a_refined_picture_are_decoded_by_whoever_painted_last(
    engine: DiffusersEngine, pair: Library, memory: bool
) -> None:
    base = Painted(engine, refined(pair, by_steps=True), library=pair)
    assert [painter_of(base.kept(step)) for step in (SWITCH, SWITCH + 1)] == [pair.info.path, pair.refiner.path]
    decoded, other = (
        np.asarray(Image.open(io.BytesIO(engine.decode(model, None, base.kept(8), 0)))).astype(int)
        for model in (pair.refiner, pair.info)
    )
    assert np.abs(decoded - base.pixels).max() <= LEAST
    assert np.abs(other - base.pixels).max() > LEAST


def test_decoding_between_the_steps_of_a_refined_picture_takes_nothing_away(
    engine: DiffusersEngine, pair: Library, memory: bool
) -> None:
    """What is in memory is used; what is not is not loaded in place of what paints."""
    asked = refined(pair, by_steps=True)
    base = Painted(engine, asked, library=pair)
    options = RunOptions(preview_every=0, keep_latents=True)
    refused: list[tuple[int, str, str]] = []
    for event in engine.run(resolve(asked, pair, lambda: 1, options=options), CancelToken()):
        if isinstance(event, Progress):
            for model in (pair.info, pair.refiner):
                try:
                    assert engine.decode(model, None, event.latents, 0)
                except EngineError as error:
                    refused.append((event.step, model.name, error.message))
        elif isinstance(event, ImageReady):
            assert event.png == base.picture.png
    missing = [(step, (pair.refiner if step <= SWITCH else pair.info).name) for step in range(1, 9)]
    assert [(step, name) for step, name, _ in refused] == ([] if memory else missing)
    assert all("not in memory" in message for _, _, message in refused)


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
    data = pack_step(Step(4, 2.0, 0.1 + 0.2, x, denoised), "torch 9, cpu", "/models/née.safetensors")
    assert painter_of(data) == "/models/née.safetensors"
    kept = unpack_step(data)
    assert torch.equal(kept.x.float(), rounded(x)) and torch.equal(kept.denoised.float(), rounded(denoised))
    assert (kept.step, kept.sigma, kept.backend) == (5, 0.1 + 0.2, "torch 9, cpu")
    assert len(data) < 2 * x.numel() * 2 + 400
    start = start_point(data, 5, (1, 4, 8, 6), "torch 9, cpu", torch.device("cpu"))
    assert start is not None and start.x.dtype == torch.float32 and torch.equal(start.x, rounded(x))
    assert start_point(data, 5, (1, 4, 6, 8), "torch 9, cpu", torch.device("cpu")) is None
    assert start_point(b"", 5, (1, 4, 8, 6), "torch 9, cpu", torch.device("cpu")) is None

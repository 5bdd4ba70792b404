"""The hand-over from one checkpoint to another: who paints which model call, with what, and what is in memory meanwhile."""

from __future__ import annotations

import gc
import io
import weakref
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from studio.engine.hardware import choose_hardware
from studio.engine.keeper import ModelKeeper
from studio.engine.loaded import LoadedCheckpoint
from studio.engine.passes import DenoisingPass
from studio.engine.refiner import HandOver, RefinerPass, gone
from studio.engine.runner import DiffusersEngine
from studio.engine.saving import Saving
from studio.errors import IncompatibleFile
from studio.samplers.noise_table import NoiseTable
from studio.schema.engine import CancelToken
from studio.schema.events import Event, ImageReady, Status
from studio.schema.models import ModelInfo
from studio.schema.resolved import LoraUse, PromptBranch, PromptPlan, RefinerPlan, ResolvedRequest
from tests.engine.by_hand import noise_prediction
from tests.engine.samples import resolved_request
from tests.plans import prompt_plan
from tests.tiny_models import tiny_file, tiny_folder, tiny_info, tiny_lora, tiny_vae_file

HARDWARE = choose_hardware("cpu", precision="fp32")
CALM = {"cfg_scale": 2.0}
"""Random weights amplify rounding; at a small scale the same picture stays the same."""


@pytest.fixture(scope="module")
def engine() -> Iterator[DiffusersEngine]:
    painter = DiffusersEngine("cpu", precision="fp32", checkpoints=1)
    yield painter
    painter.close()


def refined(
    base: ModelInfo, refiner: ModelInfo, switch_at: float = 0.5, from_call: int | None = None, **changes: Any
) -> ResolvedRequest:
    plan = RefinerPlan(model=refiner, switch_at=switch_at, from_call=from_call)
    return resolved_request(base, refiner=plan, **{**CALM, **changes})


def paint(engine: DiffusersEngine, request: ResolvedRequest) -> list[Event]:
    return list(engine.run(request, CancelToken()))


def pictures(events: list[Event]) -> list[np.ndarray[Any, Any]]:
    found = [event for event in events if isinstance(event, ImageReady)]
    return [np.asarray(Image.open(io.BytesIO(picture.png))).astype(int) for picture in found]


def said(events: list[Event]) -> list[str]:
    return [event.message for event in events if isinstance(event, Status)]


# -- who paints which call --------------------------------------------------------------------------------------------


class Counted:
    """Stands for a `GuidedUNet`: writes down the calls it gets."""

    def __init__(self, name: str, log: list[tuple[str, float]]) -> None:
        self.name, self.log = name, log

    def __call__(self, x: Tensor, sigma: float) -> Tensor:
        self.log.append((self.name, sigma))
        return x

    def guided_and_uncond(self, x: Tensor, sigma: float) -> tuple[Tensor, Tensor]:
        self.log.append((f"{self.name} both", sigma))
        return x, x


def handed(switch: Any, sigmas: list[float]) -> list[tuple[str, float]]:
    log: list[tuple[str, float]] = []
    calls: list[int] = []

    def take_over(call: int) -> Any:
        calls.append(call)
        return Counted("second", log)

    both = HandOver(Counted("first", log), switch, take_over)  # type: ignore[arg-type]
    for place, sigma in enumerate(sigmas):
        both(torch.zeros(1), sigma) if place % 2 else both.guided_and_uncond(torch.zeros(1), sigma)
    assert calls in ([], [sum(name.startswith("first") for name, _ in log)])
    return log


def test_the_second_one_goes_on_and_stays_also_where_the_noise_rises_again() -> None:
    log = handed(lambda call, sigma: sigma < 2, [9, 3, 1, 5, 0.5])
    assert log == [("first both", 9), ("first", 3), ("second both", 1), ("second", 5), ("second both", 0.5)]
    assert {name for name, _ in handed(lambda call, sigma: False, [3, 2])} == {"first both", "first"}
    assert [name[:6] for name, _ in handed(lambda call, sigma: call >= 1, [3, 2, 1])] == ["first ", "second", "second"]


def test_the_way_is_counted_in_timesteps_of_the_first_table() -> None:
    table = NoiseTable.scaled_linear()
    assert gone(table.sigma_max, table) == 0
    assert gone(table.sigma(199), table) == pytest.approx(0.8)
    assert gone(table.sigma(199.4), table) == pytest.approx(0.8)
    assert gone(table.sigma_min, table) == gone(1e-6, table) == pytest.approx(0.999)
    assert gone(table.sigma_max * 9, table) == 0


# -- against two U-Nets by hand ---------------------------------------------------------------------------------------


@torch.no_grad()
def by_hand(
    seed: int, steps: int, switch_at: float, texts: tuple[str, str], negative: str, width: int, height: int
) -> tuple[Tensor, list[str]]:
    """Euler (Karras et al. 2022, algorithm 2 without churn) on evenly spaced timesteps; SDXL, then its refiner."""
    alphas = torch.cumprod(1 - torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2, dim=0)
    log_sigma = 0.5 * ((1 - alphas) / alphas).log()
    times = np.linspace(999, 0, steps)
    sigmas = [*np.exp(np.interp(times, np.arange(1000), log_sigma.numpy())), 0.0]
    x = torch.randn(1, 4, height // 8, width // 8, generator=torch.Generator().manual_seed(seed)) * float(sigmas[0])
    base_ids = [float(n) for n in (height, width, 0, 0, height, width)]
    scores = ([float(height), float(width), 0.0, 0.0, 6.0], [float(height), float(width), 0.0, 0.0, 2.5])
    who = []
    for step, (t, sigma, following) in enumerate(zip(times, sigmas[:-1], sigmas[1:], strict=True)):
        late = (999 - round(t)) / 1000 >= switch_at
        who.append("refiner" if late else "base")
        scaled, words = (x / (sigma**2 + 1) ** 0.5).float(), texts[step >= steps // 2]
        if late:
            noise = noise_prediction("sdxl_refiner", scaled, t, words, negative, 2.0, scores)
        else:
            noise = noise_prediction("sdxl", scaled, t, words, negative, 2.0, (base_ids, base_ids))
        x = x + noise * float(following - sigma)
    return x, who


def edited(first: str, second: str, until: int, calls: int) -> PromptPlan:
    """`[first:second:until]` over `calls` model calls; the first wording is used up to and with call `until`."""
    texts = (((first, 1.0),), ((second, 1.0),))
    return PromptPlan(text="x", branches=(PromptBranch(texts=texts, stretches=((until, 0), (calls, 1))),))


def final_latents(request: ResolvedRequest, seeds: list[int]) -> Tensor:
    assert request.refiner is not None
    keeper = ModelKeeper(HARDWARE)
    first, model = keeper.checkpoint(request.model), request.refiner.model

    def open_pass() -> tuple[LoadedCheckpoint, DenoisingPass]:
        second = keeper.checkpoint(model, beside=[request.model])
        return second, DenoisingPass(second, request.model_copy(update={"model": model}), HARDWARE, Saving())

    *_, last = DenoisingPass(first, request, HARDWARE, Saving(), RefinerPass(request.refiner, open_pass)).steps(seeds)
    return last.x


@pytest.mark.parametrize("negative", ["", "blurry"])
@pytest.mark.parametrize("switch_at", [0.3, 0.8])
def test_it_is_two_u_nets_by_hand(switch_at: float, negative: str) -> None:
    """Two pictures of one batch; the prompt changes half way, before one switch and after the other."""
    request = refined(
        tiny_info("sdxl"),
        tiny_info("sdxl_refiner"),
        switch_at,
        steps=10,
        width=96,
        height=64,
        positive=edited("a fox", "a house", until=4, calls=10),
        negative=prompt_plan(negative),
    )
    got = final_latents(request, [7, 8])
    for image, seed in zip(got, (7, 8), strict=True):
        expected, who = by_hand(seed, 10, switch_at, ("a fox", "a house"), negative, 96, 64)
        assert {"base", "refiner"} == set(who)
        torch.testing.assert_close(image[None], expected, rtol=0, atol=6e-5)


# -- through the engine -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sampler", ["Euler", "Heun", "DPM++ 2M SDE", "DDIM CFG++", "Restart"])
def test_a_refiner_that_is_the_checkpoint_changes_nothing(engine: DiffusersEngine, sampler: str) -> None:
    """The same weights in a file and in a folder are two checkpoints."""
    base, twin = tiny_info("sd1"), tiny_info(tiny_file("sd1"))
    common: dict[str, Any] = {
        "sampler": sampler,
        "positive": edited("a fox", "a house", until=3, calls=12),
        "steps": 6,
        **CALM,
    }
    alone, both = (
        pictures(paint(engine, request))
        for request in (resolved_request(base, **common), refined(base, twin, **common))
    )
    assert np.array_equal(alone[0], both[0])


def test_it_begins_as_the_one_and_ends_as_neither(engine: DiffusersEngine) -> None:
    base, other = tiny_info("sdxl"), tiny_info("sdxl_refiner")
    alone, late, soon = (
        pictures(paint(engine, request))[0]
        for request in (
            resolved_request(base, **CALM),
            refined(base, other, 0.9, steps=4),
            refined(base, other, 0.2, steps=4),
        )
    )
    assert not np.array_equal(alone, late)
    assert not np.array_equal(late, soon)
    (at_once,) = pictures(paint(engine, refined(base, other, 0.0)))
    (second,) = pictures(paint(engine, resolved_request(other, **CALM)))
    assert np.array_equal(at_once, second), "a switch at 0 leaves nothing to the first"
    (never,) = pictures(paint(engine, refined(base, other, from_call=99)))
    assert np.array_equal(never, alone)


def test_counted_in_steps(engine: DiffusersEngine) -> None:
    base, other = tiny_info("sdxl"), tiny_info("sdxl_refiner")
    events = paint(engine, refined(base, other, from_call=3, steps=4))
    types = [event.type if event.type != "status" else said([event])[0] for event in events]
    assert types[types.index("Refining with sdxl_refiner-folder") - 3 :][:5] == [
        "progress", "progress", "progress", "Refining with sdxl_refiner-folder", "progress"]  # fmt: skip


@pytest.mark.parametrize("room", [True, False])
def test_a_batch_equals_its_pictures_alone_whether_or_not_both_fit(
    engine: DiffusersEngine, monkeypatch: pytest.MonkeyPatch, room: bool
) -> None:
    base, other = tiny_info("sdxl"), tiny_info("sdxl_refiner")
    monkeypatch.setattr(type(engine._hardware), "free_memory", lambda self: 2**50 if room else 2**30)
    engine.close()
    events = paint(engine, refined(base, other, batch_count=2, batch_size=2))
    alone = [pictures(paint(engine, refined(base, other, seed=seed)))[0] for seed in (7, 8, 9, 10)]
    together = pictures(events)
    assert max(np.abs(one - two).max() for one, two in zip(together, alone, strict=True)) <= 2
    assert min(np.abs(together[0] - two).max() for two in together[1:]) > 20
    loads = [message for message in said(events) if message.startswith("Loading")]
    both = ["Loading sdxl-folder", "Loading sdxl_refiner-folder"]
    assert loads == (both if room else ["Loading sdxl-folder", "Loading sdxl-folder"])
    assert said(events).count("Refining with sdxl_refiner-folder") == 2


def test_without_room_the_first_is_gone_before_the_second_is_loaded(
    engine: DiffusersEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    import studio.engine.keeper as module

    monkeypatch.setattr(type(engine._hardware), "free_memory", lambda self: 2**30)
    engine.close()
    base, other = tiny_info("sdxl"), tiny_info("sdxl_refiner")
    load, alive = module.load_checkpoint, []
    seen: list[weakref.ref[Any]] = []

    def watched(info: ModelInfo, *rest: Any, **more: Any) -> Any:
        gc.collect()
        alive.append([unet() is not None for unet in seen])
        model = load(info, *rest, **more)
        seen.append(weakref.ref(model.unet))
        return model

    monkeypatch.setattr(module, "load_checkpoint", watched)
    assert len(pictures(paint(engine, refined(base, other, batch_count=2)))) == 2
    assert alive == [[], [False], [False] * 2, [False] * 3]


def test_both_stay_for_the_next_job_and_go_with_another_checkpoint(
    engine: DiffusersEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(type(engine._hardware), "free_memory", lambda self: 2**50)
    engine.close()
    base, other = tiny_info("sdxl"), tiny_info("sdxl_refiner")
    paint(engine, refined(base, other))
    assert not any(message.startswith("Loading") for message in said(paint(engine, refined(base, other))))
    assert engine.info().model == base.name
    paint(engine, resolved_request(tiny_info("sd1")))
    assert said(paint(engine, refined(base, other)))[:2] == [f"Loading {base.name}", f"Loading {other.name}"]


def test_loras_go_into_a_refiner_of_their_family_only(engine: DiffusersEngine) -> None:
    base, twin = tiny_info("sd1"), tiny_info(tiny_file("sd1"))
    lora = (LoraUse(name="l", model=tiny_info(tiny_lora("sd1"), "lora"), te_weight=1.0, unet_weight=1.0),)
    (alone,) = pictures(paint(engine, resolved_request(base, loras=lora, **CALM)))
    (both,) = pictures(paint(engine, refined(base, twin, loras=lora)))
    assert np.array_equal(alone, both)
    (plain,) = pictures(paint(engine, refined(base, twin)))
    assert not np.array_equal(plain, both)
    large = (LoraUse(name="l", model=tiny_info(tiny_lora("sdxl"), "lora"), te_weight=1.0, unet_weight=1.0),)
    events = paint(engine, refined(tiny_info("sdxl"), tiny_info("sdxl_refiner"), loras=large))
    assert any("goes on without them" in message for message in said(events))
    assert pictures(events)


def test_the_autoencoder_is_that_of_the_last_painter_unless_one_is_chosen(engine: DiffusersEngine) -> None:
    """The two tiny models have different ones, and a U-Net that never paints leaves its own unused."""
    base, other, vae = tiny_info("sdxl"), tiny_info("sdxl_refiner"), tiny_info(tiny_vae_file("sdxl"), "vae")
    own, chosen = (pictures(paint(engine, refined(base, other, 0.0, vae=one)))[0] for one in (None, vae))
    assert not np.array_equal(own, chosen)
    (alone,) = pictures(paint(engine, resolved_request(other, vae=vae, **CALM)))
    assert np.array_equal(chosen, alone)


def test_inpainting_checkpoints_refine_too(engine: DiffusersEngine) -> None:
    assert pictures(paint(engine, refined(tiny_info("sd1"), tiny_info("sd1-inpaint"))))
    assert pictures(paint(engine, refined(tiny_info("sd1-inpaint"), tiny_info("sd1"))))


@pytest.mark.parametrize("room", [True, False])
def test_latents_of_another_kind_are_refused(
    engine: DiffusersEngine, monkeypatch: pytest.MonkeyPatch, room: bool
) -> None:
    monkeypatch.setattr(type(engine._hardware), "free_memory", lambda self: 2**50 if room else 2**30)
    engine.close()
    with pytest.raises(IncompatibleFile, match="1/4 of the size") as caught:
        paint(engine, refined(tiny_info("sd1"), tiny_info("sprout")))
    assert caught.value.field == "refiner.checkpoint"
    assert pictures(paint(engine, resolved_request(tiny_info("sd1"))))


def test_what_is_loaded_at_the_switch_can_be_changed_later(
    engine: DiffusersEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Weights made under inference mode could not take a LoRA."""
    monkeypatch.setattr(type(engine._hardware), "free_memory", lambda self: 2**30)
    engine.close()
    base, twin = tiny_info("sd1"), tiny_info(tiny_file("sd1"))
    lora = (LoraUse(name="l", model=tiny_info(tiny_lora("sd1"), "lora"), te_weight=1.0, unet_weight=1.0),)
    paint(engine, refined(base, twin))
    assert not np.array_equal(*(pictures(paint(engine, resolved_request(twin, loras=use)))[0] for use in (lora, ())))


def test_a_folder_and_a_file_refine_alike(engine: DiffusersEngine) -> None:
    base = tiny_info("sdxl")
    folder, file = (
        pictures(paint(engine, refined(base, tiny_info(source("sdxl_refiner")))))[0]
        for source in (tiny_folder, tiny_file)
    )
    assert np.array_equal(folder, file)

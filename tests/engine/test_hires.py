"""The second pass on tiny random models: against the same thing done by hand, and what may change it and what may not."""

from __future__ import annotations

import gc
import io
import math
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

import studio.engine.keeper as keeper_module
import studio.engine.passes
from studio.engine import enlarging, upscale
from studio.engine.decode import Decoder
from studio.engine.enlarging import UpscalerModel
from studio.engine.hardware import choose_hardware
from studio.engine.hires import TwoPasses, second_pass
from studio.engine.keeper import ModelKeeper
from studio.engine.latents import rounded, unpack_step
from studio.engine.loaded import LoadedCheckpoint
from studio.engine.loading import LoadedVae
from studio.engine.lora import LoraWeights
from studio.engine.passes import DenoisingPass, Lift
from studio.engine.runner import DiffusersEngine
from studio.engine.saving import Saving
from studio.engine.upscale import begun, enlarged
from studio.errors import DamagedFile, IncompatibleFile, InvalidRequest
from studio.jobs.latents import painter_of
from studio.resolve import resolve
from studio.samplers.planning import SamplingPlan
from studio.samplers.table import SAMPLERS
from studio.schema.engine import CancelToken
from studio.schema.events import Cancelled, Event, ImageReady, Progress, Status
from studio.schema.models import ModelInfo
from studio.schema.parts import BranchPoint
from studio.schema.request import RunOptions, make_request
from studio.schema.resolved import ResolvedRequest
from tests.engine.by_hand import noise_prediction
from tests.engine.test_enlarging import done
from tests.engine.test_enlarging import info as upscaler_info
from tests.tiny_models import FAMILIES, tiny_file, tiny_info, tiny_lora

HARDWARE = choose_hardware("cpu", precision="fp32")
LORA = "<lora:sd1-kohya-4-2.0-unet-te-0:1>"
PLAIN: dict[str, Any] = {
    "prompt": "a fox",
    "sampler": "Euler",
    "schedule": "Uniform",
    "steps": 3,
    "cfg_scale": 2,
    "seed": 7,
}
"""Random weights amplify rounding; at a small scale the same picture stays the same."""


class Library:
    """The tiny checkpoints and LoRAs by family; `twin` are SD 1's weights in a file, any other name is the checkpoint of `family`."""

    def __init__(self, family: str = "sd1") -> None:
        self.info = tiny_info(family)

    def checkpoint(self, name: str | None) -> ModelInfo:
        if name in FAMILIES:
            return tiny_info(name)
        return tiny_info(tiny_file("sd1")) if name == "twin" else self.info

    def vae(self, name: str) -> None:
        return None

    def upscaler(self, name: str) -> ModelInfo:
        return upscaler_info(name)

    def lora(self, name: str) -> ModelInfo:
        return tiny_info(tiny_lora("sdxl" if name.startswith("sdxl") else "sd1"), "lora")

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


def asked(family: str = "sd1", keep: bool = False, **changes: Any) -> ResolvedRequest:
    """64x64, enlarged twice, unless `changes` say otherwise."""
    request = make_request({**PLAIN, "width": 64, "height": 64, "hires": {}, **changes})
    return resolve(request, Library(family), lambda: 1, options=RunOptions(preview_every=1, keep_latents=keep))


def paint(engine: DiffusersEngine, resolved: ResolvedRequest) -> list[Event]:
    return list(engine.run(resolved, CancelToken()))


def pictures(events: list[Event]) -> list[np.ndarray[Any, Any]]:
    found = [event for event in events if isinstance(event, ImageReady)]
    return [np.asarray(Image.open(io.BytesIO(picture.png))).astype(int) for picture in found]


def one(engine: DiffusersEngine, **changes: Any) -> np.ndarray[Any, Any]:
    (picture,) = pictures(paint(engine, asked(**changes)))
    return picture


# -- by hand ----------------------------------------------------------------------------------------------------------


@torch.no_grad()
def walked(x: Tensor, times: np.ndarray[Any, Any], sigmas: list[float], texts: list[str], scale: float) -> Tensor:
    """Euler (Karras et al. 2022, algorithm 2 without churn) over SDXL; `texts` are what is read at each step."""
    height, width = x.shape[2] * 8, x.shape[3] * 8
    ids = [float(n) for n in (height, width, 0, 0, height, width)]
    for t, sigma, following, text in zip(times, sigmas[:-1], sigmas[1:], texts, strict=True):
        scaled = (x / (sigma**2 + 1) ** 0.5).float()
        x = x + noise_prediction("sdxl", scaled, t, text, "", scale, (ids, ids)) * float(following - sigma)
    return x


def levels(steps: int) -> tuple[np.ndarray[Any, Any], list[float]]:
    """Evenly spaced timesteps and their levels, with the 0 at the end."""
    alphas = torch.cumprod(1 - torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2, dim=0)
    log_sigma = 0.5 * ((1 - alphas) / alphas).log()
    times = np.linspace(999, 0, steps)
    return times, [*np.exp(np.interp(times, np.arange(1000), log_sigma.numpy())), 0.0]


def drawn(seed: int, height: int, width: int) -> Tensor:
    return torch.randn(1, 4, height, width, generator=torch.Generator().manual_seed(seed))


def no_upscaler(info: ModelInfo) -> UpscalerModel:
    raise AssertionError(info.name)


def own_vae(loaded: LoadedCheckpoint) -> LoadedVae:
    return LoadedVae(loaded.model.vae, loaded.model.latent)


def final_latents(resolved: ResolvedRequest, seeds: list[int]) -> Tensor:
    loaded = ModelKeeper(HARDWARE).checkpoint(resolved.model)
    plan = resolved.hires
    assert plan is not None

    both = TwoPasses(
        lambda: DenoisingPass(loaded, resolved, HARDWARE, Saving()),
        lambda: DenoisingPass(loaded, second_pass(resolved), HARDWARE, Saving(), lift=Lift(plan.denoising_strength)),
        lambda x, painter: enlarged(x, plan, own_vae(painter), no_upscaler),
        lambda large, painter: begun(large, plan, own_vae(painter)),
        plan.steps,
    )
    *_, last = both.steps(seeds)
    assert both.total == last.index + 1
    return last.x


def test_it_is_two_passes_by_hand() -> None:
    """Each with its size in SDXL's ids and its own noise; a change of the prompt in the middle of the second; other steps and scale."""
    resolved = asked(
        "sdxl",
        prompt="a [fox:house:1.5]",
        width=96,
        hires={"upscaler": "Latent (nearest)", "steps": 4, "denoising_strength": 0.5, "cfg_scale": 1.5, "scale": 2},
    )
    got = final_latents(resolved, [7, 8])
    times, sigmas = levels(8)  # 4 steps of strength 0.5
    for latents, seed in zip(got, (7, 8), strict=True):
        first_times, first_sigmas = levels(3)
        first = walked(drawn(seed, 8, 12) * first_sigmas[0], first_times, first_sigmas, ["a fox"] * 3, 2.0)
        large = first.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
        noisy = large + drawn(seed, 16, 24) * sigmas[4]
        texts = ["a fox"] * 3 + ["a house"]  # the first wording lasts a call longer, as in every pass
        second = walked(noisy, times[4:], sigmas[4:], texts, 1.5)
        torch.testing.assert_close(latents[None], second, rtol=0, atol=2e-4)


def test_a_step_of_the_whole_picture_counts_on_in_prompts() -> None:
    plan = asked(prompt="a [fox:house:5]", steps=3, hires={"steps": 4}).hires
    assert plan is not None
    (branch,) = plan.positive.branches
    assert branch.stretches[0] == (2, 0), "step 5 of both passes is step 2 of the second"


@pytest.mark.parametrize("own, second", [(0.6, 0.6), (0, 0.2)])
def test_each_pass_merges_its_own_part_of_the_tokens(
    monkeypatch: pytest.MonkeyPatch, own: float, second: float
) -> None:
    said: list[tuple[float, int, int]] = []
    monkeypatch.setattr(studio.engine.passes, "set_merging", lambda unet, *what: said.append(what))
    hires = {"scale": 1.5, "steps": 1, "token_merging_ratio": own}
    final_latents(asked(steps=1, token_merging_ratio=0.2, hires=hires), [1])
    assert said == [(0.2, 8, 8), (second, 12, 12)]


@pytest.mark.parametrize("sampler", ["Euler", "DDIM"])
def test_extra_noise_is_more_of_the_same_noise(monkeypatch: pytest.MonkeyPatch, sampler: str) -> None:
    """A1111 adds it to what a k-diffusion sampler starts from, and times the root of alpha to what a timestep sampler does: the same here."""
    begun: list[tuple[float, torch.Tensor, torch.Tensor]] = []
    start = SamplingPlan.start

    def seen(plan: SamplingPlan, noise: torch.Tensor, init: torch.Tensor | None = None, *more: float) -> torch.Tensor:
        found = start(plan, noise, init, *more)
        if init is not None:
            unit = math.sqrt((1 + plan.start_sigma**2) / (1 + plan.sigmas[0] ** 2)) if plan.sampler.timesteps else 1.0
            begun.append((plan.start_sigma, noise, found * unit - init))
        return found

    monkeypatch.setattr(SamplingPlan, "start", seen)
    for extra in (0.0, 0.3):
        final_latents(asked(steps=2, sampler=sampler, hires={"scale": 1.5, "steps": 4, "extra_noise": extra}), [1])
    (sigma, noise, plain), (_, _, more) = begun
    assert torch.allclose(plain, noise * sigma, atol=1e-4)
    assert torch.allclose(more, noise * (sigma + 0.3), atol=1e-4)


# -- through the engine -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("upscaler", ["Latent", "Lanczos"])
def test_the_picture_is_as_large_as_asked_for_and_the_same_each_time(engine: DiffusersEngine, upscaler: str) -> None:
    hires = {"width": 112, "height": 88, "upscaler": upscaler}
    first, again = one(engine, hires=hires), one(engine, hires=hires)
    assert first.shape == (88, 112, 3)
    assert np.array_equal(first, again)
    assert not np.array_equal(first, one(engine, hires={**hires, "denoising_strength": 0.4}))
    assert not np.array_equal(first, one(engine, hires={**hires, "upscaler": "Latent (nearest)"}))


@pytest.mark.parametrize("upscaler", ["Latent (bicubic)", "None"])
@pytest.mark.parametrize("sampler", ["Euler a", "DPM++ 2M SDE"])
def test_a_batch_equals_its_pictures_alone(engine: DiffusersEngine, sampler: str, upscaler: str) -> None:
    """With a variation, whose noise is drawn anew at the new size too."""
    common: dict[str, Any] = {
        "sampler": sampler,
        "hires": {"scale": 1.5, "upscaler": upscaler},
        "sampler_options": {"ensd": 31337},
    }
    variation = {"seed": 20, "strength": 0.5}
    together = pictures(paint(engine, asked(batch_size=2, batch_count=2, variation=variation, **common)))
    alone = [one(engine, variation={**variation, "seed": 20 + index}, **common) for index in range(4)]
    assert max(np.abs(a - b).max() for a, b in zip(together, alone, strict=True)) <= 3
    assert min(np.abs(together[0] - other).max() for other in together[1:]) > 20


@pytest.mark.parametrize("sampler", [spec.name for spec in SAMPLERS])
def test_every_sampler_can_paint_it(engine: DiffusersEngine, sampler: str) -> None:
    changes = {"hires": {"sampler": sampler, "schedule": "Automatic", "scale": 1.25, "denoising_strength": 0.6}}
    events = paint(engine, asked(steps=6, **changes))
    progress = [event for event in events if isinstance(event, Progress)]
    assert [event.step for event in progress] == list(range(1, len(progress) + 1))
    if sampler not in ("DPM adaptive", "Restart"):
        assert {event.total for event in progress} == {len(progress)}
    assert len(progress) > 6
    (picture,) = pictures(events)
    assert picture.shape == (80, 80, 3)


def test_steps_previews_and_latents_go_on_at_the_new_size(engine: DiffusersEngine) -> None:
    events = paint(engine, asked(keep=True, hires={"steps": 2, "scale": 1.5}))
    progress = [event for event in events if isinstance(event, Progress)]
    assert [(event.step, event.total) for event in progress] == [(1, 5), (2, 5), (3, 5), (4, 5), (5, 5)]
    sizes = [Image.open(io.BytesIO(event.previews[0])).size for event in progress]
    assert sizes == [(64, 64)] * 3 + [(96, 96)] * 2
    assert [unpack_step(event.latents).x.shape[2] for event in progress] == [8, 8, 8, 12, 12]
    assert [unpack_step(event.latents).step for event in progress] == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("batches", [1, 2])
def test_loras_are_those_of_the_pass(engine: DiffusersEngine, batches: int) -> None:
    """A prompt of its own brings its own tags, and only these; every batch begins with those of the first again."""

    def painted(first: str, second: str) -> list[np.ndarray[Any, Any]]:
        hires = {"prompt": f"a fox {second}" if second != first else ""}
        return pictures(paint(engine, asked(prompt=f"a fox {first}", hires=hires, batch_count=batches)))

    found = {(a, b): painted(a, b)[-1] for a in ("", LORA) for b in ("", LORA)}
    for key, picture in found.items():
        others = [other for name, other in found.items() if name != key]
        assert not any(np.array_equal(picture, other) for other in others), key
        assert np.array_equal(picture, painted(*key)[-1])
    if batches == 2:
        alone = pictures(paint(engine, asked(prompt=f"a fox {LORA}", hires={"prompt": "a fox "}, seed=8)))
        assert np.array_equal(found[LORA, ""], alone[0])


@pytest.mark.parametrize("room", [True, False])
@pytest.mark.parametrize("which", ["first pass", "second pass", "both passes"])
def test_a_refiner_with_the_same_weights_changes_nothing(
    engine: DiffusersEngine, monkeypatch: pytest.MonkeyPatch, which: str, room: bool
) -> None:
    monkeypatch.setattr(type(engine._hardware), "free_memory", lambda self: 2**50 if room else 2**30)
    alone = pictures(paint(engine, asked(batch_count=2)))
    refiner = {"checkpoint": "twin", "switch_at": 0.5}
    events = paint(engine, asked(batch_count=2, refiner=refiner, hires={"refiner": which}))
    assert all(np.array_equal(a, b) for a, b in zip(alone, pictures(events), strict=True))
    switches = [event.message for event in events if event.type == "status" and event.message.startswith("Refining")]
    assert len(switches) == (4 if which == "both passes" else 2)


# -- another checkpoint -----------------------------------------------------------------------------------------------


@torch.inference_mode()
def carried_over(x: Tensor, first: LoadedCheckpoint, second: LoadedCheckpoint, upscaler: str) -> Tensor:
    """Latents of one checkpoint as latents of another, at twice the size, by the two autoencoders themselves."""
    if upscaler == "Latent (nearest)":
        return x.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
    vae, latent = first.model.vae, first.model.latent
    sample = vae.decode(x / latent.scaling_factor).sample[0]
    pixels = ((sample * 0.5 + 0.5).clamp(0, 1) * 255).to(torch.uint8).permute(1, 2, 0)
    large = Image.fromarray(pixels.numpy()).resize((128, 128), Image.Resampling.LANCZOS)
    vae, latent = second.model.vae, second.model.latent
    encoded = vae.encode(torch.tensor(np.asarray(large)).permute(2, 0, 1)[None] / 127.5 - 1).latent_dist.mode()
    return encoded * latent.scaling_factor


def painted_apart(first: str, second: str, upscaler: str, **own: Any) -> tuple[np.ndarray[Any, Any], list[Tensor]]:
    """Two jobs of one pass each, one checkpoint after the other, that know nothing of each other; and the steps of the first."""
    one, two = (ModelKeeper(HARDWARE).checkpoint(tiny_info(family)) for family in (first, second))
    alone = DenoisingPass(one, asked(first, hires=None, steps=2, prediction_type="epsilon"), HARDWARE, Saving())
    small = [step.x for step in alone.steps([7])]
    request = asked(second, hires=None, width=128, height=128, steps=2, **own)
    two.loras.apply([LoraWeights.of(use) for use in request.loras])
    going_on = DenoisingPass(two, request, HARDWARE, Saving(), lift=Lift(0.5))
    *_, last = going_on.steps([7], init=carried_over(small[-1], one, two, upscaler))
    with torch.inference_mode():
        return np.asarray(Decoder(own_vae(two)).picture(last.x[0])).astype(int), small


@pytest.mark.parametrize(
    "first, second, upscaler, prompt",
    [
        ("sd1", "sd2", "Latent (nearest)", ""),
        ("sprout", "sd1", "None", f"an owl {LORA}"),
        ("sd1", "sdxl", "Lanczos", "an owl <lora:sdxl:1>"),
    ],
)
def test_another_checkpoint_paints_as_it_would_by_itself(
    engine: DiffusersEngine, first: str, second: str, upscaler: str, prompt: str
) -> None:
    """Its prediction (SD 2's is v), noise levels, text encoders, LoRAs and autoencoder; the first pass is as without it, bit for bit."""
    hires = {"upscaler": upscaler, "checkpoint": second, "denoising_strength": 0.5, "prompt": prompt}
    events = paint(engine, asked(first, hires=hires, steps=2, keep=True, prediction_type="epsilon"))
    expected, small = painted_apart(first, second, upscaler, **({"prompt": prompt} if prompt else {}))
    assert np.array_equal(pictures(events)[0], expected)
    steps = [event for event in events if isinstance(event, Progress)]
    kept = [unpack_step(event.latents) for event in steps]
    assert all(torch.equal(step.x, rounded(x)) for step, x in zip(kept[:2], small, strict=True))
    assert [painter_of(event.latents) for event in steps] == [
        tiny_info(name).path for name in (first, first, second, second)
    ]
    sizes = [Image.open(io.BytesIO(event.previews[0])).size for event in steps]
    assert sizes == [(64, 64)] * 2 + [(128, 128)] * 2
    words = [event.message for event in events if event.type == "status"]
    assert f"Painting with {tiny_info(second).name}" in words


def test_both_checkpoints_stay_where_there_is_room_and_take_turns_where_there_is_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Without room the first is gone before the second is loaded, and is loaded again for the next batch."""
    engine, seen, alive = DiffusersEngine("cpu", precision="fp32", checkpoints=1), list[weakref.ref[Any]](), list[int]()
    load = keeper_module.load_checkpoint

    def watched(*rest: Any, **more: Any) -> Any:
        if engine._hardware.free_memory() < 2**50:
            gc.collect()
        alive.append(sum(unet() is not None for unet in seen))
        model = load(*rest, **more)
        seen.append(weakref.ref(model.unet))
        return model

    monkeypatch.setattr(keeper_module, "load_checkpoint", watched)
    hires = {"checkpoint": "sd2", "scale": 1}
    resolved = asked("sd1", batch_count=2, steps=1, hires=hires)
    found = []
    for room, loads in ((2**50, [0, 1]), (2**30, [0, 0, 0, 0])):
        monkeypatch.setattr(type(engine._hardware), "free_memory", lambda self, room=room: room)
        found.append(pictures(paint(engine, resolved)))
        assert alive == loads
        assert all(engine._keeper.has(model) for model in resolved.checkpoints) == (room == 2**50)
        engine.close()
        alive.clear()
    assert all(np.array_equal(one, two) for one, two in zip(*found, strict=True))


def test_a_refiner_finishes_what_the_second_checkpoint_began(engine: DiffusersEngine) -> None:
    """Here it is the first checkpoint and takes over at once: the second pass is then painted as without another one."""
    refiner = {"checkpoint": "sd1", "switch_at": 0.0}
    hires = {"checkpoint": "sd2", "scale": 1.25}
    without, at_once, late = (
        one(engine, **parts)
        for parts in (
            {"hires": {"scale": 1.25}},
            {"hires": hires, "refiner": refiner},
            {"hires": hires, "refiner": {**refiner, "switch_at": 0.7}},
        )
    )
    assert np.array_equal(without, at_once)
    assert not np.array_equal(without, late)


@pytest.mark.parametrize("room", [True, False])
def test_latents_that_mean_nothing_to_it_are_refused(
    engine: DiffusersEngine, monkeypatch: pytest.MonkeyPatch, room: bool
) -> None:
    """Of one family, so it shows only when both are read; where there is room before the first step."""
    monkeypatch.setattr(type(engine._hardware), "free_memory", lambda self: 2**50 if room else 2**30)
    engine.close()
    told: list[Event] = []
    events = engine.run(asked("sprout", hires={"checkpoint": "sd1"}), CancelToken())
    with pytest.raises(
        IncompatibleFile, match=r"1/8 of the size.* Choose an upscaler .*: None, Lanczos, Nearest, or a model"
    ) as caught:
        told.extend(events)
    assert caught.value.field == "hires.checkpoint"
    assert sum(isinstance(event, Progress) for event in told) == (0 if room else 3)


def test_a_model_enlarges_between_the_passes_and_at_the_end(engine: DiffusersEngine) -> None:
    painted = one(engine, hires={"upscaler": "compact-4x", "denoising_strength": 0.3})
    assert painted.shape == (128, 128, 3)
    assert np.abs(painted - one(engine, hires={"upscaler": "Lanczos", "denoising_strength": 0.3})).max() > 8
    small = Image.fromarray(one(engine, hires=None).astype(np.uint8))
    large, _ = done(UpscalerModel(upscaler_info("compact-4x"), HARDWARE.device).run(small))
    only = one(engine, hires={"upscaler": "compact-4x", "denoising_strength": 0})
    assert np.array_equal(only, np.asarray(large.resize((128, 128), Image.Resampling.LANCZOS)))


@pytest.mark.parametrize("most", [128 * 192 - 1, 64 * 64 - 1, 128 * 192])
def test_what_would_not_fit_between_the_passes_is_done_in_tiles(
    engine: DiffusersEngine, monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    """What covers the final size is encoded, which is larger than what is decoded at the end."""
    done: list[tuple[str, bool]] = []
    encode, decode = upscale.encoded, upscale.Decoder

    def encoded(picture: Any, vae: LoadedVae, *, tiled: bool, wraps: bool) -> Tensor:
        done.append((f"encoded {picture.size}", tiled))
        return encode(picture, vae, wraps=wraps)

    def decoder(vae: LoadedVae, *, tiled: bool, wraps: bool) -> Decoder:
        done.append(("decoded", tiled))
        return decode(vae, wraps=wraps)

    monkeypatch.setattr(Saving, "decodes_in_tiles", lambda self, hardware, width, height: width * height > most)
    monkeypatch.setattr(upscale, "encoded", encoded)
    monkeypatch.setattr(upscale, "Decoder", decoder)
    paint(
        engine, asked(width=64, height=96, steps=1, hires={"upscaler": "None", "width": 128, "height": 128, "steps": 1})
    )
    sizes = (64 * 96, 128 * 192, 128 * 128)
    assert [tiled for _, tiled in done] == [size > most for size in sizes]
    assert [name for name, _ in done] == ["decoded", "encoded (128, 192)", "decoded"]


@pytest.mark.parametrize("strength", [0.5, 0])
def test_enlarging_can_be_stopped_between_two_tiles(
    engine: DiffusersEngine, monkeypatch: pytest.MonkeyPatch, strength: float
) -> None:
    """The picture is no job of one tile: 64 pixels wide with tiles of 32."""
    monkeypatch.setattr(enlarging, "TILE", 32)
    cancel, tiles = CancelToken(), 0
    whole = UpscalerModel._tile

    def counted(self: UpscalerModel, values: Any) -> Any:
        nonlocal tiles
        tiles += 1
        cancel.interrupt() if tiles == 2 else None
        return whole(self, values)

    monkeypatch.setattr(UpscalerModel, "_tile", counted)
    said = list(engine.run(asked(hires={"upscaler": "compact-2x", "denoising_strength": strength}), cancel))
    assert tiles == 2
    assert isinstance(said[-1], Cancelled)
    words = [event.message for event in said if isinstance(event, Status)]
    assert "Enlarging with compact-2x: 1 of 9" in words


def test_a_model_that_is_damaged_is_told_before_the_first_step(engine: DiffusersEngine, tmp_path: Path) -> None:
    resolved = asked(hires={"upscaler": "compact-2x"})
    assert resolved.hires is not None
    (tmp_path / "bad.safetensors").write_bytes(b"nothing")
    bad = upscaler_info("bad", tmp_path)
    resolved = resolved.model_copy(update={"hires": resolved.hires.model_copy(update={"upscaler_model": bad})})
    events = engine.run(resolved, CancelToken())
    with pytest.raises(DamagedFile, match=r"bad\.safetensors"):
        next(event for event in events if isinstance(event, Progress))


def test_without_strength_it_only_enlarges(engine: DiffusersEngine) -> None:
    small = one(engine, hires=None)
    for upscaler, kind in (("Lanczos", Image.Resampling.LANCZOS), ("Nearest", Image.Resampling.NEAREST)):
        hires = {"upscaler": upscaler, "denoising_strength": 0, "width": 96, "height": 128}
        events = paint(engine, asked(hires=hires))
        large = Image.fromarray(small.astype(np.uint8)).resize((128, 128), kind).crop((16, 0, 112, 128))
        assert np.array_equal(pictures(events)[0], np.asarray(large))
        assert [event.total for event in events if isinstance(event, Progress)] == [3] * 3
    blurred = one(engine, hires={"upscaler": "Latent", "denoising_strength": 0})
    assert blurred.shape == (128, 128, 3)


def test_without_strength_a_refiner_finishes_what_is_enlarged(engine: DiffusersEngine) -> None:
    refiner = {"checkpoint": "sd2", "switch_at": 0.5}
    small = one(engine, hires=None, refiner=refiner)
    assert not np.array_equal(small, one(engine, hires=None))
    found = one(engine, hires={"upscaler": "Nearest", "denoising_strength": 0}, refiner=refiner)
    assert np.array_equal(found, small.repeat(2, axis=0).repeat(2, axis=1))


@pytest.mark.parametrize("family", ["sd1-inpaint", "sprout", "sd2"])
def test_other_checkpoints(engine: DiffusersEngine, family: str) -> None:
    assert one(engine, family=family, hires={"upscaler": "Lanczos", "scale": 1.5}).shape == (96, 96, 3)


def test_a_branch_of_its_first_pass_ends_in_a_second_too(engine: DiffusersEngine) -> None:
    (origin,) = [event for event in paint(engine, asked(steps=6)) if isinstance(event, ImageReady)]
    branch = {"step": 3, "origin": origin.infotext}
    same = paint(engine, asked(steps=6, branch=branch))
    assert np.abs(pictures(same)[0] - pictures([origin])[0]).max() <= 8
    assert [event.step for event in same if isinstance(event, Progress)] == list(range(1, 13))
    other = pictures(paint(engine, asked(steps=6, sampler="Euler a", branch=branch)))[0]
    assert np.abs(other - pictures([origin])[0]).max() > 8
    with pytest.raises(InvalidRequest, match="first pass, the only one that can be branched from, has 6 steps"):
        asked(steps=6, branch=BranchPoint(step=9, origin=origin.infotext))


def test_what_cannot_run_is_refused_before_the_first_step(engine: DiffusersEngine) -> None:
    events = engine.run(asked(hires={"sampler": "PLMS", "steps": 1}), CancelToken())
    with pytest.raises(InvalidRequest, match="PLMS has no step to run"):
        next(event for event in events if isinstance(event, Progress))


def test_it_can_be_stopped_in_either_pass(engine: DiffusersEngine) -> None:
    for stop in (2, 5):
        cancel, seen = CancelToken(), []
        for event in engine.run(asked(), cancel):
            seen.append(event)
            if isinstance(event, Progress) and event.step == stop:
                cancel.interrupt()
        assert seen[-1].type == "cancelled"
        assert sum(isinstance(event, Progress) for event in seen) == stop

"""What a pass tells beside its latents."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
import torch

from studio.engine import passes
from studio.engine.hardware import choose_hardware
from studio.engine.keeper import ModelKeeper
from studio.engine.loaded import LoadedCheckpoint
from studio.engine.loading import LoadedVae
from studio.engine.passes import DenoisingPass, batch_noise, blank_inpaint_channels
from studio.engine.saving import Saving
from studio.errors import EngineError, InvalidRequest
from studio.schema.parts import SamplerOptions, SeedResize
from studio.schema.resolved import PromptBranch, PromptPlan, VariationPlan
from tests.engine.samples import resolved_request
from tests.tiny_models import tiny_info

HARDWARE = choose_hardware("cpu", precision="fp32")


@pytest.fixture(scope="module")
def keeper() -> Iterator[ModelKeeper]:
    found = ModelKeeper(HARDWARE)
    yield found
    found.drop()


def test_sigmas_fall_to_zero_and_latents_have_the_models_shape(keeper: ModelKeeper) -> None:
    info = tiny_info("sprout")
    request = resolved_request(info, steps=3, width=96, height=64)
    painting = DenoisingPass(keeper.checkpoint(info), request, HARDWARE, Saving())
    steps = list(painting.steps([1, 2]))
    assert painting.total == len(steps) == 3
    assert steps[0].sigma == pytest.approx(float(keeper.checkpoint(info).table.sigma_max), rel=1e-5)
    assert [step.sigma_next for step in steps[:-1]] == [step.sigma for step in steps[1:]]
    assert steps[-1].sigma_next == 0
    assert steps[-1].x.shape == (2, 4, 16, 24)  # 4 pixels a latent
    assert steps[-1].x.dtype == torch.float32


def test_inpainting_models_see_an_empty_grey_canvas(keeper: ModelKeeper) -> None:
    model = keeper.checkpoint(tiny_info("sd1-inpaint")).model
    with torch.no_grad():
        channels = blank_inpaint_channels(LoadedVae(model.vae, model.latent), (4, 8, 12))
        grey = model.vae.encode(torch.zeros(1, 3, 64, 96)).latent_dist.mean
    assert channels.shape == (1, 5, 8, 12)
    assert (channels[:, 0] == 1).all()
    torch.testing.assert_close(channels[:, 1:], grey * model.latent.scaling_factor)


@pytest.mark.parametrize("lag, last_seen", [(0, None), (1, 0)])
def test_numbers_are_looked_for_when_they_have_arrived(
    keeper: ModelKeeper, monkeypatch: pytest.MonkeyPatch, lag: int, last_seen: int | None
) -> None:
    """On a card after the next step has been handed to it, which waiting would hold up; what is told is the same."""
    asked: list[int] = []

    def soon(*tensors: torch.Tensor) -> Callable[[], tuple[torch.Tensor, ...]]:
        def arrived() -> tuple[torch.Tensor, ...]:
            asked.append(len(seen))
            return tensors

        return arrived

    def nan(sample: torch.Tensor, *arguments: Any, **more: Any) -> tuple[torch.Tensor]:
        return (sample * torch.nan,)

    monkeypatch.setattr(passes, "soon", soon)
    monkeypatch.setattr(passes, "lag", lambda device: lag)
    info = tiny_info("sd1")
    loaded, request = keeper.checkpoint(info), resolved_request(info, steps=3)
    seen: list[int] = []
    seen.extend(step.index for step in DenoisingPass(loaded, request, HARDWARE, Saving()).steps([7]))
    assert asked == [lag, 3], "for the first step and the last"
    monkeypatch.setattr(loaded.model.unet, "forward", nan)
    for steps, dtype in ((3, torch.float32), (1, torch.float16)):
        hardware = replace(HARDWARE, dtype=dtype)
        painting, seen = DenoisingPass(loaded, resolved_request(info, steps=steps), hardware, Saving()), []
        with pytest.raises(EngineError, match=f"NaN.* at step 1 of {steps} for seed 7") as raised:
            seen.extend(step.index for step in painting.steps([7]))
        assert seen[-1:] == ([] if last_seen is None else [last_seen])
        assert ("float16" in raised.value.message) == ("--precision fp32" in raised.value.message) == (steps == 1)


def test_too_deep_a_clip_skip_is_refused(keeper: ModelKeeper) -> None:
    info = tiny_info("sd1")
    with pytest.raises(InvalidRequest, match="clip_skip = 12"):
        DenoisingPass(keeper.checkpoint(info), resolved_request(info, clip_skip=12), HARDWARE, Saving())


def test_a_variation_leads_from_one_seeds_latents_to_the_others(keeper: ModelKeeper) -> None:
    info = tiny_info("sprout")

    def latents(seed: int, subseed: int | None = None, strength: float = 1.0) -> torch.Tensor:
        variation = None if subseed is None else VariationPlan(seeds=(subseed,), strength=strength)
        request = resolved_request(info, variation=variation)
        subseeds = [] if subseed is None else [subseed]
        return list(DenoisingPass(keeper.checkpoint(info), request, HARDWARE, Saving()).steps([seed], subseeds))[-1].x

    one, other = latents(1), latents(5)
    torch.testing.assert_close(latents(1, 5), other, rtol=1e-3, atol=1e-3)
    near, far = latents(1, 5, 0.1), latents(1, 5, 0.9)
    assert (near - one).norm() < (near - other).norm()
    assert (far - other).norm() < (far - one).norm()


def test_a_resized_seed_has_the_old_noise_in_its_middle() -> None:
    """Pixels are counted in the model's own latents: 4 pixels each here."""
    request = resolved_request(width=96, height=64, seed_resize=SeedResize(width=64, height=128))
    noise = batch_noise(request, [3], [], (4, 16, 24), 4, torch.device("cpu"))
    old = torch.randn((4, 32, 16), generator=torch.Generator().manual_seed(3))
    assert torch.equal(noise.start()[0, :, :, 4:20], old[:, 8:24])
    plain = torch.randn((4, 16, 24), generator=torch.Generator().manual_seed(3))
    assert torch.equal(noise.start()[0, :, :, :4], plain[:, :, :4])


def test_a_request_may_end_the_schedule_in_pure_noise(keeper: ModelKeeper) -> None:
    """Sigma stays finite: the last alpha is a stand-in for zero."""
    info = tiny_info("sd1")
    loaded = keeper.checkpoint(info)
    request = resolved_request(info, noise_schedule="Zero Terminal SNR", prediction_type="v_prediction", steps=2)
    first, last = DenoisingPass(loaded, request, HARDWARE, Saving()).steps([1])
    assert first.sigma == pytest.approx(4518.7, rel=1e-3)
    assert torch.isfinite(last.x).all()
    assert loaded.table_for("Default") is loaded.table
    both = loaded.table_for("Zero Terminal SNR", downcast=True)
    assert 4000 < both.sigma_max < 4600 and torch.isfinite(both.log_sigmas).all()
    assert loaded.table.sigma_max == pytest.approx(14.6146, rel=1e-4)


def test_a_request_may_have_its_noise_levels_in_half_precision(keeper: ModelKeeper) -> None:
    info = tiny_info("sd1")
    loaded = keeper.checkpoint(info)
    request = resolved_request(info, downcast_alphas=True)
    steps = list(DenoisingPass(loaded, request, HARDWARE, Saving()).steps([1]))
    plain = list(DenoisingPass(loaded, resolved_request(info), HARDWARE, Saving()).steps([1]))
    assert steps[0].sigma == pytest.approx(plain[0].sigma, rel=1e-3) and steps[0].sigma != plain[0].sigma
    assert not torch.equal(steps[-1].x, plain[-1].x)
    torch.testing.assert_close(steps[-1].x, plain[-1].x, rtol=0.05, atol=0.05)


def test_what_is_asked_for_overrules_what_a_checkpoint_says_it_predicts(keeper: ModelKeeper) -> None:
    says_v, says_epsilon = tiny_info("sd2"), tiny_info("sd1")
    assert keeper.checkpoint(says_v).prediction("Automatic") == "v_prediction"
    assert keeper.checkpoint(says_v).prediction("epsilon") == "epsilon"
    assert keeper.checkpoint(says_epsilon).prediction("Automatic") == "epsilon"
    assert keeper.checkpoint(says_epsilon).prediction("v_prediction") == "v_prediction"


@contextmanager
def counted_rows(loaded: LoadedCheckpoint) -> Iterator[list[int]]:
    """How many rows the U-Net is given in each call."""
    rows: list[int] = []
    hook = loaded.model.unet.register_forward_pre_hook(lambda module, given: rows.append(len(given[0])))
    try:
        yield rows
    finally:
        hook.remove()


def rows_of(keeper: ModelKeeper, **changes: Any) -> list[int]:
    """The same for a run over one picture."""
    info = tiny_info("sd1")
    with counted_rows(keeper.checkpoint(info)) as rows:
        list(DenoisingPass(keeper.checkpoint(info), resolved_request(info, **changes), HARDWARE, Saving()).steps([1]))
    return rows


@pytest.mark.parametrize(
    "options, rows",
    [
        ({}, [2] * 6),
        ({"s_min_uncond": 1.5}, [2, 2, 2, 1, 2, 1]),  # sigmas 14.6, 6.0, 2.9, 1.4, 0.7, 0.03
        ({"s_min_uncond": 1.5, "s_min_uncond_all": True}, [2, 2, 2, 1, 1, 1]),
        ({"skip_early_cond": 0.4}, [1, 1, 1, 2, 2, 2]),
        ({"skip_early_cond": 0.1, "s_min_uncond": 1.5}, [1, 2, 2, 1, 2, 1]),
    ],
)
def test_a_call_without_the_negative_prompt_costs_a_row_less(
    keeper: ModelKeeper, options: dict[str, Any], rows: list[int]
) -> None:
    assert rows_of(keeper, steps=6, sampler_options=SamplerOptions(**options)) == rows


def test_the_two_calls_of_a_step_count_each(keeper: ModelKeeper) -> None:
    options = SamplerOptions(skip_early_cond=0.5)
    assert rows_of(keeper, sampler="Heun", steps=4, sampler_options=options) == [1, 1, 1, 1, 1, 2, 2]


def rows_at(keeper: ModelKeeper, calls: int, timesteps: list[int], **changes: Any) -> list[int]:
    """Rows of model calls at these timesteps, after `calls` others."""
    info = tiny_info("sd1")
    loaded = keeper.checkpoint(info)
    with counted_rows(loaded) as rows, torch.inference_mode():
        denoiser = DenoisingPass(loaded, resolved_request(info, **changes), HARDWARE, Saving()).denoiser(calls)
        for timestep in timesteps:
            denoiser(torch.zeros(1, 4, 8, 8), loaded.table.sigma(timestep))
    return rows


@pytest.mark.parametrize("sampler, rows", [("DDIM", [2, 2, 1]), ("PLMS", [2, 2, 1]), ("Euler", [1, 1, 1])])
def test_samplers_on_timesteps_compare_those(keeper: ModelKeeper, sampler: str, rows: list[int]) -> None:
    """As A1111 does, where the others compare the sigma."""
    options = SamplerOptions(s_min_uncond=9.0, s_min_uncond_all=True)
    assert rows_at(keeper, 0, [17, 9, 1], sampler=sampler, sampler_options=options) == rows


def test_a_refiner_goes_on_counting(keeper: ModelKeeper) -> None:
    """It is told how many calls were made before it took over."""
    options = SamplerOptions(skip_early_cond=0.5)
    assert rows_at(keeper, 2, [400, 200], sampler_options=options) == [1, 2]


LONG = "fox " * 100


@pytest.mark.parametrize(
    "padding, rows, tokens", [("off", [1, 1], [154, 77]), ("chunks", [2], [154]), ("v0", [2], [154])]
)
def test_padded_prompts_go_through_the_model_at_once(
    keeper: ModelKeeper, padding: str, rows: list[int], tokens: list[int]
) -> None:
    info = tiny_info("sd1")
    loaded = keeper.checkpoint(info)
    seen: list[tuple[int, int]] = []

    def look(module: torch.nn.Module, given: tuple[torch.Tensor, ...]) -> None:
        seen.append((len(given[0]), given[2].shape[1]))

    hook = loaded.model.unet.register_forward_pre_hook(look)
    try:
        request = resolved_request(info, prompt=LONG, padding=padding)
        with torch.inference_mode():
            DenoisingPass(loaded, request, HARDWARE, Saving()).denoiser()(torch.zeros(1, 4, 8, 8), 1.0)
    finally:
        hook.remove()
    assert seen == list(zip(rows, tokens, strict=True))


def test_each_way_of_padding_is_another_picture(keeper: ModelKeeper) -> None:
    info = tiny_info("sd1")

    def latents(**changes: Any) -> torch.Tensor:
        request = resolved_request(info, **{"prompt": LONG, **changes})
        return list(DenoisingPass(keeper.checkpoint(info), request, HARDWARE, Saving()).steps([1]))[-1].x

    plain, chunks, old = latents(), latents(padding="chunks"), latents(padding="v0")
    assert not torch.allclose(plain, chunks) and not torch.allclose(plain, old) and not torch.allclose(chunks, old)
    by_hand = PromptPlan(text="", branches=(PromptBranch(texts=((("", 1.0), ("BREAK", -1.0), ("BREAK", -1.0)),)),))
    torch.testing.assert_close(latents(negative=by_hand), chunks, rtol=1e-4, atol=1e-4)


def test_a_prompt_without_guidance_is_filled_up_too(keeper: ModelKeeper) -> None:
    """As in A1111, where the negative prompt is encoded all the same."""
    info = tiny_info("sd1")

    def rows(padding: str) -> list[int]:
        loaded = keeper.checkpoint(info)
        seen: list[int] = []
        hook = loaded.model.unet.register_forward_pre_hook(lambda module, given: seen.append(given[2].shape[1]))
        try:
            request = resolved_request(info, negative_prompt=LONG, cfg_scale=1.0, padding=padding, steps=1)
            list(DenoisingPass(loaded, request, HARDWARE, Saving()).steps([1]))
        finally:
            hook.remove()
        return seen

    assert (rows("off"), rows("v0"), rows("chunks")) == ([77], [77], [154])


@pytest.mark.parametrize("family, size", [("sdxl", [96, 64, 8, 16, 96, 64]), ("sdxl_refiner", [96, 64, 8, 16, 6.0])])
def test_sdxl_is_told_what_was_cut_off(keeper: ModelKeeper, family: str, size: list[float]) -> None:
    info = tiny_info(family)
    loaded = keeper.checkpoint(info)
    told: list[list[float]] = []

    def look(module: torch.nn.Module, given: Any, named: dict[str, Any]) -> None:
        told.extend(named["added_cond_kwargs"]["time_ids"][:1].tolist())

    hook = loaded.model.unet.register_forward_pre_hook(look, with_kwargs=True)
    try:
        request = resolved_request(info, width=64, height=96, sdxl_crop_top=8, sdxl_crop_left=16, steps=1)
        list(DenoisingPass(loaded, request, HARDWARE, Saving()).steps([1]))
    finally:
        hook.remove()
    assert told == [size]

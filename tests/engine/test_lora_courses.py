"""LoRAs whose weight changes while a picture is painted: what the weight is at each step, and that adapters do what merging does."""

from __future__ import annotations

import copy
import gc
import weakref
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers.models.attention import BasicTransformerBlock
from safetensors.torch import save_file
from torch import nn

from studio.engine import passes
from studio.engine.denoise import Condition, GuidedUNet
from studio.engine.hardware import Hardware, choose_hardware
from studio.engine.keeper import ModelKeeper
from studio.engine.loaded import LoadedCheckpoint
from studio.engine.lora import LoraStack, LoraWeights
from studio.engine.lora_courses import Courses, progress, weight_at
from studio.engine.lora_files import Factors
from studio.engine.lora_targets import Change, Target
from studio.engine.passes import DenoisingPass, StartPoint
from studio.engine.refiner import RefinerPass
from studio.engine.runner import DiffusersEngine
from studio.engine.saving import Saving
from studio.engine.wrapping import set_wrapping
from studio.errors import IncompatibleFile
from studio.prompt.networks import Course
from studio.schema.engine import CancelToken
from studio.schema.events import ImageReady
from studio.schema.resolved import LoraUse, RefinerPlan
from tests.engine.samples import resolved_request
from tests.tiny_models import tiny_components, tiny_file, tiny_info, tiny_lora

HARDWARE = replace(choose_hardware("cpu", precision="fp32"), dtype=torch.float64)
"""A model of random weights makes rounding a thousandfold larger: with twice the digits only what is wrong is left over."""
RISES: Course = ((0.0, 0.0), (1.0, 0.5), (0.4, 1.0))
LEVEL: Course = ((0.7, 0.0), (0.7, 1.0))
KINDS = ("plain", "core", "dora")
NEAR = 2e-4
"""How far adapters may be from merged weights; the LoRAs here change pictures by 0.2."""


@pytest.fixture(scope="module")
def keeper() -> Iterator[ModelKeeper]:
    found = ModelKeeper(HARDWARE, 2)
    yield found
    found.drop()


@pytest.fixture(scope="module", params=KINDS)
def wide(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """On linear layers and convolutions of every size; `core`: with a third factor in the large ones, `dora`: with lengths."""
    return wide_file(tmp_path_factory.mktemp("wide") / f"{request.param}.safetensors", request.param)


def wide_file(path: Path, kind: str) -> Path:
    ends = (
        "to_q",
        "to_k",
        "to_out.0",
        "ff.net.2",
        "proj_in",
        "conv1",
        "time_emb_proj",
        "downsamplers.0.conv",
        "conv_shortcut",
    )
    seeded, tensors = torch.Generator().manual_seed(3), {}
    for name, layer in tiny_components("sd1")["unet"].named_modules():
        if not (name.endswith(ends) and isinstance(layer, nn.Linear | nn.Conv2d)):
            continue
        out, inside, *places = layer.weight.shape
        key, has_core = f"lora_unet_{name.replace('.', '_')}", kind == "core" and places == [3, 3]
        ones = [1] * len(places)
        tensors[f"{key}.lora_down.weight"] = (
            torch.randn(4, inside, *(ones if has_core else places), generator=seeded) / inside
        )
        tensors[f"{key}.lora_up.weight"] = torch.randn(out, 4, *ones, generator=seeded)
        tensors[f"{key}.alpha"] = torch.tensor(2.0)
        if has_core:
            tensors[f"{key}.lora_mid.weight"] = torch.randn(4, 4, *places, generator=seeded)
        if kind == "dora":
            lengths = layer.weight.detach().flatten(1).norm(dim=1)
            tensors[f"{key}.dora_scale"] = (lengths * (1 + 0.2 * torch.rand(out, generator=seeded))).reshape(
                -1, 1, *ones
            )
    save_file(tensors, path)
    return path


def use(path: Path, course: Course = (), weight: float = 0.7) -> LoraUse:
    return LoraUse(name=path.stem, model=tiny_info(path, "lora"), te_weight=0.0, unet_weight=weight, unet_course=course)


def latents(
    loaded: LoadedCheckpoint, *uses: LoraUse, hardware: Hardware = HARDWARE, **changes: Any
) -> list[torch.Tensor]:
    """After each step; the seed is always the same."""
    request = resolved_request(loaded.model.info, loras=uses, steps=6, **changes)
    loaded.read_with((), [LoraWeights.of(each) for each in uses])
    return [step.x.clone() for step in DenoisingPass(loaded, request, hardware, Saving()).steps([1])]


def apart(one: torch.Tensor, other: torch.Tensor) -> float:
    """Relative L2 difference."""
    return float((one - other).norm() / other.norm())


# -- the weight at a step ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "course, done, steps, weight",
    [
        (RISES, 0, 12, 0.0),
        (RISES, 2, 12, 0.4),
        (RISES, 5, 12, 1.0),
        (RISES, 10, 12, 0.4),  # while the last step is computed
        (((0.25, 0.5), (1.0, 1.0)), 3, 12, 0.25),  # level before the first point
        (((0.0, 5.0), (1.0, 6.0)), 5, 20, 0.0),  # whole steps
        (((0.0, 5.0), (1.0, 6.0)), 6, 20, 1.0),
        (((0.0, 5.0), (1.0, 10.0)), 7, 9, 0.4),
        (((0.0, 0.0), (1.0, 1.0)), 1, 3, 1.0),
        (((0.3, 0.0), (1.0, 1.0)), 0, 2, 0.3),
        (((0.3, 0.0), (1.0, 1.0)), 0, 1, 0.3),
        (((0.2, 0.5), (0.8, 0.5)), 2, 12, 0.2),  # a leap
        (((0.2, 0.5), (0.8, 0.5)), 6, 12, 0.8),
    ],
)
def test_the_weight_lies_straight_between_its_points(course: Course, done: int, steps: int, weight: float) -> None:
    assert weight_at(course, done, steps) == pytest.approx(weight)


@pytest.mark.parametrize("second_order, told", [(False, [0, 0, 1, 2, 3, 4]), (True, [0, 0, 0, 1, 1, 2])])
def test_progress_is_that_of_a1111(second_order: bool, told: list[int]) -> None:
    """Its callback comes after the first call of each step."""
    assert [progress(call, second_order=second_order) for call in range(6)] == told


# -- adapters and merging ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wraps", [False, True])
def test_a_level_course_is_a_merged_lora(keeper: ModelKeeper, wide: Path, wraps: bool) -> None:
    loaded = keeper.checkpoint(tiny_info("sd1"))
    plain = latents(loaded, tiling=wraps)
    merged, beside = (latents(loaded, use(wide, course), tiling=wraps) for course in ((), LEVEL))
    assert apart(plain[-1], merged[-1]) > 0.02
    assert max(apart(one, other) for one, other in zip(beside, merged, strict=True)) < NEAR
    assert all(torch.equal(one, other) for one, other in zip(latents(loaded, tiling=wraps), plain, strict=True))
    set_wrapping(loaded.model.unet, False)


@pytest.mark.parametrize(
    "sampler, strengths",
    [("Euler", (0, 0, 0.5, 1, 0.7, 0.4)), ("Heun", (0, 0, 0, 0.5, 0.5, 1, 1, 0.7, 0.7, 0.4, 0.4))],
)
def test_every_call_has_the_weights_that_merging_would_give_it(
    keeper: ModelKeeper, wide: Path, sampler: str, strengths: tuple[float, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Merged anew before every call of a model that keeps no keys and values."""
    loaded = keeper.checkpoint(tiny_info("sd1"))
    changing = latents(loaded, use(wide, RISES), sampler=sampler)
    left = list(strengths)

    class Merging(GuidedUNet):
        def _next_call(self) -> list[Condition]:
            with torch.inference_mode(False):
                loaded.loras.apply([LoraWeights(wide, 0.0, left.pop(0))])
            return super()._next_call()

    monkeypatch.setattr(passes, "TextProjections", lambda: None)
    monkeypatch.setattr(passes, "GuidedUNet", Merging)
    merged = latents(loaded, sampler=sampler)
    assert not left
    assert all(apart(found, wanted) < NEAR for found, wanted in zip(changing, merged, strict=True))
    loaded.loras.apply(())


def test_in_a_short_format_it_is_as_near_to_the_exact_picture_as_merged_weights_are(
    keeper: ModelKeeper, wide: Path
) -> None:
    """Both round, each in its own place, so they are as far from each other as from what is exact: here a tenth of what the LoRA does."""
    level: Course = ((3.0, 0.0), (3.0, 1.0))
    strong, plain = use(wide, weight=3.0), keeper.checkpoint(tiny_info("sd1"))
    exact, bare = latents(plain, strong)[-1], latents(plain)[-1]
    short = choose_hardware("cpu", precision="bf16")
    loaded = ModelKeeper(short).checkpoint(tiny_info("sd1"))
    merged, beside = (latents(loaded, one, hardware=short)[-1] for one in (strong, use(wide, level)))
    bound = apart(bare, exact) / 8
    assert apart(merged, exact) < bound and apart(beside, exact) < bound and apart(beside, merged) < bound
    assert apart(beside, exact) < 2 * apart(merged, exact)


def test_one_that_changes_and_one_that_is_merged_add_up(keeper: ModelKeeper, wide: Path) -> None:
    """A DoRA's lengths are those of the weight as loaded, whatever else is merged in."""
    loaded = keeper.checkpoint(tiny_info("sd1"))
    other = use(tiny_lora("sd1", parts=("unet",), seed=5), weight=0.5)
    merged, beside = latents(loaded, other, use(wide)), latents(loaded, other, use(wide, LEVEL))
    assert apart(beside[-1], merged[-1]) < NEAR


def test_the_text_encoder_keeps_the_first_weight(keeper: ModelKeeper) -> None:
    loaded = keeper.checkpoint(tiny_info("sd1"))
    both = LoraUse(name="l", model=tiny_info(tiny_lora("sd1"), "lora"), te_weight=0.7, unet_weight=0.7)
    changing = both.model_copy(update={"unet_course": LEVEL})
    assert apart(latents(loaded, changing)[-1], latents(loaded, both)[-1]) < NEAR
    unread = changing.model_copy(update={"te_weight": 0.0})
    assert apart(latents(loaded, unread)[-1], latents(loaded, both)[-1]) > 1e-3


@pytest.mark.parametrize("steps, skipped", [(6, 3), (12, 6)])
def test_going_on_from_a_step_takes_the_weights_that_the_plan_has_there(
    keeper: ModelKeeper, steps: int, skipped: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the branch has another number of steps than what it goes on from."""
    loaded, lora = keeper.checkpoint(tiny_info("sd1")), use(tiny_lora("sd1", parts=("unet",)), RISES)
    request = resolved_request(loaded.model.info, loras=(lora,), steps=6)
    first = list(DenoisingPass(loaded, request, HARDWARE, Saving()).steps([1]))
    start = StartPoint(first[2].x, first[2].sigma_next, 3)
    told: list[int] = []
    at = Courses.at

    def tells(self: Courses, done: int, of: int) -> None:
        told.append(done)
        at(self, done, of)

    monkeypatch.setattr(Courses, "at", tells)
    again = DenoisingPass(loaded, request.model_copy(update={"steps": steps}), HARDWARE, Saving())
    rest = [step.x for step in again.steps([1], start=start)]
    assert told == list(range(skipped - 1, steps - 1))
    if steps == 6:
        for one, other in zip(rest, first[3:], strict=True):
            torch.testing.assert_close(one, other.x)


def test_in_a_refiner_of_the_same_family_the_course_goes_on(keeper: ModelKeeper) -> None:
    loaded, twin = keeper.checkpoint(tiny_info("sd1")), keeper.checkpoint(tiny_info(tiny_file("sd1")))
    lora = use(tiny_lora("sd1", parts=("unet",)), RISES)
    alone = latents(loaded, lora)
    request = resolved_request(loaded.model.info, loras=(lora,), steps=6)
    plan = RefinerPlan(model=twin.model.info, switch_at=0.4, from_call=None)
    refiner = RefinerPass(plan, lambda: (twin, DenoisingPass(twin, request, HARDWARE, Saving())))
    for _ in range(2):  # two batches
        steps = list(DenoisingPass(loaded, request, HARDWARE, Saving(), refiner).steps([1]))
        assert refiner.painter is twin
        for one, other in zip([step.x for step in steps], alone, strict=True):
            torch.testing.assert_close(one, other)


# -- in the engine -----------------------------------------------------------------------------------------------------


def picture(engine: DiffusersEngine, **changes: Any) -> np.ndarray[Any, Any]:
    import io

    from PIL import Image

    events = engine.run(resolved_request(tiny_info("sd1"), steps=6, **changes), CancelToken())
    (ready,) = [event for event in events if isinstance(event, ImageReady)]
    return np.asarray(Image.open(io.BytesIO(ready.png))).astype(int)


@pytest.mark.parametrize("more", [{}, {"deep_cache": 2}, {"fp8_weight": "Enable"}])
def test_it_leaves_no_trace_in_later_pictures(engine: DiffusersEngine, tmp_path: Path, more: dict[str, Any]) -> None:
    lora = use(wide_file(tmp_path / "wide.safetensors", "plain"), RISES)
    plain = picture(engine, **more)
    changed, again = picture(engine, loras=(lora,), **more), picture(engine, loras=(lora,), **more)
    assert np.array_equal(changed, again) and np.abs(changed - plain).max() > 1
    assert np.array_equal(picture(engine, **more), plain)


def test_packed_convolutions_feel_it_too(engine: DiffusersEngine, tmp_path: Path) -> None:
    file = wide_file(tmp_path / "wide.safetensors", "plain")
    merged, beside = picture(engine, loras=(use(file),)), picture(engine, loras=(use(file, LEVEL),))
    assert np.abs(merged - beside).max() <= 1


def test_applying_others_takes_it_off(keeper: ModelKeeper) -> None:
    """Also where no pass says what it wants, such as when the text encoders change."""
    loaded = keeper.checkpoint(tiny_info("sd1"))
    layer = loaded.model.unet.mid_block.attentions[0].transformer_blocks[0].attn1.to_q
    x = torch.ones(1, 3, 64, dtype=HARDWARE.dtype)
    plain = layer(x)
    latents(loaded, use(tiny_lora("sd1", parts=("unet",)), RISES))
    assert not torch.equal(layer(x), plain)
    loaded.loras.apply(())
    assert torch.equal(layer(x), plain)


def test_who_holds_a_pass_does_not_hold_its_unet() -> None:
    """The memory of a checkpoint that has painted may be needed for the next one, while its pass still waits."""
    keeper = ModelKeeper(HARDWARE)
    loaded, lora = keeper.checkpoint(tiny_info("sd1")), use(tiny_lora("sd1", parts=("unet",)), RISES)
    layer = weakref.ref(loaded.model.unet.mid_block.attentions[0].transformer_blocks[0].attn1.to_q)
    request = resolved_request(loaded.model.info, loras=(lora,), steps=3)
    painting = DenoisingPass(loaded, request, HARDWARE, Saving())
    assert len(list(painting.steps([1]))) == 3
    keeper.drop()
    gc.collect()
    assert layer() is None and painting.total == 3


def test_nothing_is_attached_after_a_job(engine: DiffusersEngine) -> None:
    picture(engine, loras=(use(tiny_lora("sd1", parts=("unet",)), RISES),))
    unet = engine.load(tiny_info("sd1")).model.unet
    assert not [layer for layer in unet.modules() if layer._forward_hooks]


def test_compiled_blocks_notice_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """PyTorch takes layers for what they were when they were compiled, unless it is told to look."""
    with torch._dynamo.config.patch(skip_nnmodule_hook_guards=True, recompile_limit=8):
        with monkeypatch.context() as patched:
            patched.setattr(nn.Module, "compile", lambda self, **_: None)
            unet = copy.deepcopy(tiny_components("sd1")["unet"])
            Hardware(torch.device("cpu"), torch.float32, torch.float32, "sdpa", compiled="blocks").prepare(unet)
        _compare_compiled()


def _compare_compiled() -> None:
    block = BasicTransformerBlock(8, 1, 8, cross_attention_dim=4).eval().requires_grad_(False)
    factors = Factors(torch.randn(2, 8), torch.randn(8, 2), None, 2.0, "key")
    change = Change(Target("unet", "attn1.to_q", block.attn1.to_q), factors, 1.0)
    courses = Courses([([change], RISES)], lambda *_: change.target.weight, torch.device("cpu"), torch.float32)
    x, states = torch.randn(1, 16, 8), torch.randn(1, 3, 4)

    def said() -> list[torch.Tensor]:
        found = []
        for attached in (False, True, False):
            if attached:
                courses.attach()
            for done in (1, 2):
                courses.at(done, 6)
                with torch.inference_mode():
                    found.append(block(x, encoder_hidden_states=states))
            courses.detach()
        return found

    expected = said()
    block.compile(backend="eager", dynamic=True, fullgraph=True)
    assert all(torch.equal(one, other) for one, other in zip(said(), expected, strict=True))
    assert len({one.sum().item() for one in expected}) == 3


def test_one_that_does_not_fit_is_refused_by_name(keeper: ModelKeeper) -> None:
    stack = LoraStack(keeper.checkpoint(tiny_info("sd1")).model)
    with pytest.raises(IncompatibleFile, match="it was made for"):
        stack.courses([use(tiny_lora("sdxl", parts=("unet",)), RISES)], torch.float32)

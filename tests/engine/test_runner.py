"""`DiffusersEngine` on tiny random models: same bytes again, batches, cancelling, failures, and diffusers as the oracle."""

from __future__ import annotations

import gc
import io
import shutil
import time
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from studio.engine import encode
from studio.engine.decode import Decoder
from studio.engine.runner import DiffusersEngine
from studio.errors import DamagedFile, EngineError, IncompatibleFile, NotFound, OutOfMemory, StudioError, UnknownName
from studio.infotext import read_picture
from studio.samplers import SAMPLERS
from studio.schema.engine import CancelToken
from studio.schema.events import Cancelled, Event, Finished, ImageReady, Progress, Status
from studio.schema.models import ModelInfo
from studio.schema.request import RunOptions
from studio.schema.resolved import EmbeddingUse, LoraUse, PromptBranch, PromptPlan, ResolvedRequest, VariationPlan
from tests.engine.samples import resolved_request
from tests.plans import prompt_plan
from tests.tiny_models import tiny_embedding, tiny_file, tiny_info, tiny_lora, tiny_vae_file

ACCEPTED = 2
"""8-bit levels between a picture of a batch and the same one alone: kernels sum in another order for another batch size."""


@pytest.fixture(scope="module")
def sd1() -> ModelInfo:
    return tiny_info("sd1")


def paint(engine: DiffusersEngine, request: ResolvedRequest, cancel: CancelToken | None = None) -> list[Event]:
    return list(engine.run(request, cancel or CancelToken()))


def pictures(events: list[Event]) -> list[ImageReady]:
    return [event for event in events if isinstance(event, ImageReady)]


def pixels(picture: ImageReady) -> np.ndarray[Any, Any]:
    return np.asarray(Image.open(io.BytesIO(picture.png))).astype(int)


def distance(one: ImageReady, other: ImageReady) -> int:
    return int(np.abs(pixels(one) - pixels(other)).max())


def images_of(engine: DiffusersEngine, model: ModelInfo, **changes: Any) -> list[ImageReady]:
    return pictures(paint(engine, resolved_request(model, **changes)))


def test_events_come_in_order(engine: DiffusersEngine) -> None:
    engine.close()
    events = paint(engine, resolved_request(tiny_info("sd1"), steps=3, batch_size=2, batch_count=2, preview_every=2))
    types = [event.type for event in events]
    batch = ["progress"] * 3 + ["status"] + ["image"] * 2
    assert types == ["started", "status", *batch, *batch, "finished"]
    progress = [event for event in events if isinstance(event, Progress)]
    assert [(event.batch, event.batches, event.step, event.total) for event in progress] == [
        (b, 2, s, 3) for b in (0, 1) for s in (1, 2, 3)
    ]
    assert [len(event.previews) for event in progress] == [0, 2, 0] * 2
    sigmas = [event.sigma for event in progress[:3]]
    assert sigmas == sorted(sigmas, reverse=True)
    assert sigmas[-1] == 0
    assert [event.seconds for event in progress] == sorted(event.seconds for event in progress)
    assert [(event.index, event.seed) for event in pictures(events)] == [(0, 7), (1, 8), (2, 9), (3, 10)]
    assert isinstance(events[-1], Finished)
    assert (events[-1].images, events[-1].interrupted) == (4, False)


def test_pictures_know_how_they_were_made(engine: DiffusersEngine, sd1: ModelInfo) -> None:
    (picture,) = images_of(engine, sd1, prompt="größer, 一只狐狸", negative_prompt="blurry", width=96, height=64)
    assert (picture.width, picture.height) == (96, 64)
    found = read_picture(picture.png)
    assert found.infotext == picture.infotext
    assert found.request["seed"] == 7
    assert found.request["prompt"] == "größer, 一只狐狸"


def test_the_same_request_gives_the_same_bytes_also_after_other_work(engine: DiffusersEngine, sd1: ModelInfo) -> None:
    request = resolved_request(sd1, sampler="Euler a", prompt="a red fox")
    (first,) = pictures(paint(engine, request))
    images_of(engine, sd1, prompt="another thing", seed=99, sampler="DPM++ SDE", schedule="Karras")
    images_of(engine, tiny_info("sprout"))
    (again,) = pictures(paint(engine, request))
    assert first.png == again.png


def test_every_picture_of_a_variation_has_its_own_variation_seed(engine: DiffusersEngine, sd1: ModelInfo) -> None:
    def varied(*seeds: int, **changes: Any) -> list[ImageReady]:
        request = resolved_request(sd1, variation=VariationPlan(seeds=seeds, strength=0.5), **changes)
        return pictures(paint(engine, request.model_copy(update={"seeds": (7,) * len(seeds)})))

    batches = varied(20, 21, 22, 23, batch_count=2, batch_size=2)
    assert [picture.seed for picture in batches] == [7, 7, 7, 7]
    assert [f"Variation seed: {20 + i}," in picture.infotext for i, picture in enumerate(batches)] == [True] * 4
    assert distance(batches[3], varied(23)[0]) <= ACCEPTED
    assert min(distance(batches[0], other) for other in batches[1:]) > 10 * ACCEPTED


@pytest.mark.parametrize("sampler", [spec.name for spec in SAMPLERS if spec.name != "DPM adaptive"])
def test_a_batch_equals_its_pictures_alone(engine: DiffusersEngine, sd1: ModelInfo, sampler: str) -> None:
    """The steps of DPM adaptive depend on all pictures of the batch."""
    batch = images_of(engine, sd1, sampler=sampler, schedule="Uniform", batch_size=4)
    again = images_of(engine, sd1, sampler=sampler, schedule="Uniform", batch_size=4)
    assert [picture.png for picture in batch] == [picture.png for picture in again]
    singles = [images_of(engine, sd1, sampler=sampler, schedule="Uniform", seed=seed)[0] for seed in range(7, 11)]
    assert [picture.seed for picture in batch] == [picture.seed for picture in singles]
    assert max(distance(one, other) for one, other in zip(batch, singles, strict=True)) <= ACCEPTED
    assert min(distance(batch[0], other) for other in batch[1:]) > 10 * ACCEPTED


def test_batches_one_after_the_other_are_the_pictures_alone(engine: DiffusersEngine, sd1: ModelInfo) -> None:
    counted = images_of(engine, sd1, sampler="DPM++ 2M SDE", batch_count=3)
    singles = [images_of(engine, sd1, sampler="DPM++ 2M SDE", seed=seed)[0] for seed in range(7, 10)]
    assert [picture.png for picture in counted] == [picture.png for picture in singles]


@pytest.mark.parametrize("family", ["sd1", "sd2", "sdxl", "sd1-inpaint", "sprout", "sdxl_refiner"])
def test_every_family_paints_and_follows_the_prompt(engine: DiffusersEngine, family: str) -> None:
    info = tiny_info(family)
    (one,) = images_of(engine, info, prompt="a red fox", negative_prompt="bad")
    (other,) = images_of(engine, info, prompt="a house", negative_prompt="bad")
    (without,) = images_of(engine, info, prompt="a red fox")
    assert one.png != other.png
    assert one.png != without.png
    assert (one.width, one.height) == (64, 64)


def test_a_single_file_gives_the_same_picture_as_the_folder(engine: DiffusersEngine, sd1: ModelInfo) -> None:
    (from_folder,) = images_of(engine, sd1)
    (from_file,) = images_of(engine, tiny_info(tiny_file("sd1")))
    assert distance(from_folder, from_file) == 0


def test_guidance_of_one_ignores_the_negative_prompt(engine: DiffusersEngine, sd1: ModelInfo) -> None:
    one, other = (images_of(engine, sd1, cfg_scale=1.0, negative_prompt=negative)[0] for negative in ("a", "b"))
    assert np.array_equal(pixels(one), pixels(other))


@pytest.mark.parametrize(
    "changes",
    [
        {"clip_skip": 2},
        {"cfg_scale": 3.0},
        {"steps": 5},
        {"sampler": "Heun"},
        {"schedule": "Karras"},
        {"rng": "NV"},
        {"emphasis": "No norm"},
        {"positive": prompt_plan("fox")},
    ],
    ids=str,
)
def test_what_the_request_says_changes_the_picture(
    engine: DiffusersEngine, sd1: ModelInfo, changes: dict[str, Any]
) -> None:
    base = {"positive": prompt_plan("(fox:9)", ("fox", 9.0))}
    assert not np.array_equal(
        pixels(images_of(engine, sd1, **base)[0]), pixels(images_of(engine, sd1, **base | changes)[0])
    )


def edited(*stretches: tuple[int, str], weight: float = 1.0) -> PromptBranch:
    """A branch that reads otherwise from stretch to stretch: (last call, words)."""
    wordings = tuple(((words, 1.0),) for _, words in stretches)
    ends = tuple((end, place) for place, (end, _) in enumerate(stretches))
    return PromptBranch(texts=wordings, stretches=ends, weight=weight)


FOX_THEN_HOUSE = PromptPlan(text="[fox:house:1]", branches=(edited((1, "fox"), (4, "house")),))


def previews(engine: DiffusersEngine, model: ModelInfo, plan: PromptPlan) -> list[bytes]:
    events = paint(engine, resolved_request(model, positive=plan))
    return [preview for event in events if isinstance(event, Progress) for preview in event.previews]


def test_a_prompt_that_changes_half_way_begins_as_the_one_and_ends_as_neither(
    engine: DiffusersEngine, sd1: ModelInfo
) -> None:
    fox, house, both = (
        previews(engine, sd1, plan) for plan in (prompt_plan("fox"), prompt_plan("house"), FOX_THEN_HOUSE)
    )
    assert [one == other for one, other in zip(both, fox, strict=True)] == [True, True, False, False]
    assert not set(both) & set(house)


def test_every_batch_begins_the_timeline_anew(engine: DiffusersEngine, sd1: ModelInfo) -> None:
    first, second = images_of(engine, sd1, positive=FOX_THEN_HOUSE, batch_count=2)
    (alone,) = images_of(engine, sd1, positive=FOX_THEN_HOUSE, seed=second.seed)
    assert distance(second, alone) == 0 < distance(first, second)


def test_prompts_put_together_are_more_than_their_first(engine: DiffusersEngine, sd1: ModelInfo) -> None:
    fox, house = edited((4, "fox")), edited((4, "house"))
    (alone,) = images_of(engine, sd1, positive=PromptPlan(text="fox", branches=(fox,)))
    (both,) = images_of(engine, sd1, positive=PromptPlan(text="fox AND house", branches=(fox, house)))
    idle = house.model_copy(update={"weight": 0.0})
    (same,) = images_of(engine, sd1, positive=PromptPlan(text="fox AND house:0", branches=(fox, idle)))
    assert distance(alone, both) > ACCEPTED >= distance(alone, same)


def test_long_prompts_and_breaks_run(engine: DiffusersEngine, sd1: ModelInfo) -> None:
    long = prompt_plan("x", ("fox " * 100, 1.0), ("BREAK", -1.0), ("house", 1.2))
    (picture,) = images_of(engine, sd1, positive=long)
    (other,) = images_of(engine, sd1, positive=long, negative=prompt_plan("dog " * 100))
    assert not np.array_equal(pixels(picture), pixels(other))


@pytest.mark.parametrize("family", ["sd1", "sdxl"])
def test_embeddings_paint_from_either_prompt_and_come_and_go(engine: DiffusersEngine, family: str) -> None:
    info = tiny_info(family)
    file = tiny_info(tiny_embedding(family), "embedding").model_copy(update={"short_hash": "0123456789ab"})
    used = (EmbeddingUse(name="fox", model=file),)
    plain = images_of(engine, info)[0]
    named = images_of(engine, info, embeddings=used)[0]
    against = [images_of(engine, info, negative_prompt="a fox", embeddings=each)[0] for each in ((), used)]
    assert distance(plain, named) > 0
    assert distance(*against) > 0
    assert 'TI hashes: "fox: 0123456789ab"' in named.infotext
    assert pixels(images_of(engine, info)[0]).tolist() == pixels(plain).tolist()


@pytest.mark.parametrize("family", ["sd1", "sdxl"])
def test_loras_come_and_go(engine: DiffusersEngine, family: str) -> None:
    info, file = tiny_info(family), tiny_info(tiny_lora(family), "lora")
    (plain,) = images_of(engine, info)
    strong, weak = (
        images_of(engine, info, loras=(LoraUse(name="l", model=file, te_weight=weight, unet_weight=weight),))[0]
        for weight in (1.0, 0.5)
    )
    assert not np.array_equal(pixels(plain), pixels(strong))
    assert not np.array_equal(pixels(weak), pixels(strong))
    assert images_of(engine, info)[0].png == plain.png


def test_the_grey_picture_of_inpainting_checkpoints_goes_through_the_chosen_vae(
    engine: DiffusersEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[Any] = []
    codes = encode._codes
    monkeypatch.setattr(encode, "_codes", lambda module, sample: (shown.append(module), codes(module, sample))[1])
    info, chosen = tiny_info("sd1-inpaint"), tiny_info(tiny_vae_file("sd1"), "vae")
    images_of(engine, info, vae=chosen)
    images_of(engine, info)
    (separate,) = (each.module for each in engine._keeper._vaes.values())
    assert shown == [separate, engine.load(info).model.vae]


def test_a_separate_vae_changes_the_picture_only_while_it_is_chosen(engine: DiffusersEngine, sd1: ModelInfo) -> None:
    (own,) = images_of(engine, sd1)
    (separate,) = images_of(engine, sd1, vae=tiny_info(tiny_vae_file("sd1"), "vae"))
    assert not np.array_equal(pixels(own), pixels(separate))
    assert images_of(engine, sd1)[0].png == own.png


# -- cancelling -------------------------------------------------------------------------------------------------------


def test_a_deep_cache_is_near_and_of_an_interval_of_1_is_not_there(engine: DiffusersEngine, sd1: ModelInfo) -> None:
    calm = {"cfg_scale": 2.0, "steps": 12}
    exact, cached = (pictures(paint(engine, resolved_request(sd1, deep_cache=n, **calm)))[0] for n in (1, 2))
    assert "DeepCache" not in exact.infotext
    assert "DeepCache interval: 2" in cached.infotext
    assert 0 < np.abs(pixels(exact) - pixels(cached)).mean() < np.abs(pixels(exact) - pixels(exact)[::-1]).mean() / 2


def test_checkpoints_stay_loaded_as_far_as_number_and_memory_go(monkeypatch: pytest.MonkeyPatch) -> None:
    infos = [tiny_info("sd1"), tiny_info("sd2"), tiny_info("sprout")]

    def loads(engine: DiffusersEngine, order: list[int]) -> list[bool]:
        return [
            any(isinstance(event, Status) and event.message.startswith("Loading") for event in paint(engine, request))
            for request in (resolved_request(infos[index], steps=1) for index in order)
        ]

    order, free = [0, 1, 0, 2, 0, 1], [2**50]
    two, one = (DiffusersEngine("cpu", precision="fp32", checkpoints=count) for count in (2, 1))
    monkeypatch.setattr(type(two._hardware), "free_memory", lambda self: free[0])
    assert loads(two, order) == [True, True, False, True, False, True]
    assert loads(one, order) == [True] * 6
    free[0] = 0
    assert loads(two, [2, 2, 0, 2]) == [True, False, True, True]
    for engine in (two, one):
        engine.close()
        assert engine.info().model is None


@pytest.mark.parametrize("at_step", [1, 3, 6])
def test_interrupt_ends_within_a_step_and_leaves_no_trace(
    engine: DiffusersEngine, sd1: ModelInfo, at_step: int
) -> None:
    cancel, seen = CancelToken(), []
    for event in engine.run(resolved_request(sd1, steps=6), cancel):
        seen.append(event)
        if isinstance(event, Progress) and event.step == at_step:
            cancel.interrupt()
    assert isinstance(seen[-1], Cancelled)
    assert max(event.step for event in seen if isinstance(event, Progress)) == at_step
    assert images_of(engine, sd1)[0].png == images_of(DiffusersEngine("cpu", precision="fp32"), sd1)[0].png


def test_interrupt_keeps_finished_pictures(engine: DiffusersEngine, sd1: ModelInfo) -> None:
    cancel, seen = CancelToken(), []
    for event in engine.run(resolved_request(sd1, batch_count=3), cancel):
        seen.append(event)
        if isinstance(event, ImageReady):
            cancel.interrupt()
    assert isinstance(seen[-1], Finished)
    assert (seen[-1].images, seen[-1].interrupted, len(pictures(seen))) == (1, True, 1)


def test_interrupt_before_the_first_step(engine: DiffusersEngine, sd1: ModelInfo) -> None:
    cancel = CancelToken()
    cancel.interrupt()
    assert [event.type for event in paint(engine, resolved_request(sd1), cancel) if not isinstance(event, Status)] == [
        "started",
        "cancelled",
    ]


def test_skip_leaves_the_batch_and_paints_the_next(engine: DiffusersEngine, sd1: ModelInfo) -> None:
    cancel, seen = CancelToken(), []
    for event in engine.run(resolved_request(sd1, batch_count=3), cancel):
        seen.append(event)
        if isinstance(event, Progress) and (event.batch, event.step) == (1, 2):
            cancel.skip()
    assert [picture.index for picture in pictures(seen)] == [0, 2]
    assert max(event.step for event in seen if isinstance(event, Progress) and event.batch == 1) == 2
    assert cancel.mode == "none"
    assert isinstance(seen[-1], Finished)
    assert not seen[-1].interrupted


def test_closing_the_iterator_frees_the_engine(engine: DiffusersEngine, sd1: ModelInfo) -> None:
    events = engine.run(resolved_request(sd1), CancelToken())
    assert any(isinstance(event, Progress) for event in events)
    events.close()  # type: ignore[attr-defined]
    assert engine.info().state == "ready"
    assert images_of(engine, sd1)


def test_inference_mode_does_not_leak_to_the_caller(engine: DiffusersEngine, sd1: ModelInfo) -> None:
    assert not any(torch.is_inference_mode_enabled() for _ in engine.run(resolved_request(sd1), CancelToken()))


# -- failures ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def own_copy(tmp_path: Path) -> Path:
    return Path(shutil.copy(tiny_file("sd1"), tmp_path / "own.safetensors"))


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def poison(path: Path) -> None:
    from safetensors.torch import load_file, save_file

    tensors = load_file(path)
    key = "model.diffusion_model.out.2.weight"
    save_file({**tensors, key: torch.full_like(tensors[key], torch.nan)}, path)


def other_kind(path: Path) -> None:
    shutil.copy(tiny_lora("sd1"), path)


@pytest.mark.parametrize(
    "damage, error",
    [(truncate, DamagedFile), (poison, DamagedFile), (other_kind, IncompatibleFile), (Path.unlink, NotFound)],
)
def test_a_model_that_went_bad_is_named_and_the_next_one_paints(
    engine: DiffusersEngine, sd1: ModelInfo, own_copy: Path, damage: Callable[[Path], None], error: type[Exception]
) -> None:
    info = tiny_info(own_copy)
    assert images_of(engine, info)
    damage(own_copy)
    with pytest.raises(error, match="own"):
        images_of(engine, info)
    assert images_of(engine, sd1)


def test_a_replaced_model_is_loaded_anew(engine: DiffusersEngine, own_copy: Path) -> None:
    from safetensors.torch import load_file, save_file

    info = tiny_info(own_copy)
    (before,) = images_of(engine, info)
    save_file({key: value * 1.05 for key, value in load_file(own_copy).items()}, own_copy)
    (after,) = images_of(engine, info)
    assert not np.array_equal(pixels(before), pixels(after))


def test_wrong_names_are_reported(engine: DiffusersEngine, sd1: ModelInfo) -> None:
    with pytest.raises(UnknownName, match="Euler b"):
        images_of(engine, sd1, sampler="Euler b")


def break_unet(
    engine: DiffusersEngine, monkeypatch: pytest.MonkeyPatch, model: ModelInfo, forward: Callable[..., Any]
) -> None:
    monkeypatch.setattr(engine.load(model).model.unet, "forward", forward)


def test_nan_from_the_model_fails_the_job_at_the_first_step(
    engine: DiffusersEngine, sd1: ModelInfo, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nan(sample: torch.Tensor, *arguments: Any, **more: Any) -> tuple[torch.Tensor]:
        return (sample * torch.nan,)

    break_unet(engine, monkeypatch, sd1, nan)
    seen = []
    with pytest.raises(EngineError, match=r"NaN.* step 1 of 4 for seed 7, 8"):
        seen.extend(engine.run(resolved_request(sd1, batch_size=2), CancelToken()))
    assert not pictures(seen)
    monkeypatch.undo()
    assert images_of(engine, sd1)


@pytest.mark.parametrize(
    "error, expected, text",
    [
        (torch.OutOfMemoryError("CUDA out of memory."), OutOfMemory, "1 x 64x64"),
        (ZeroDivisionError("surprise"), EngineError, "ZeroDivisionError: surprise"),
    ],
)
def test_failures_in_the_model_are_explained_and_the_next_job_runs(
    engine: DiffusersEngine,
    sd1: ModelInfo,
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
    expected: type[Exception],
    text: str,
) -> None:
    def fail(*arguments: Any, **more: Any) -> Any:
        raise error

    break_unet(engine, monkeypatch, sd1, fail)
    with pytest.raises(expected, match=text):
        images_of(engine, sd1)
    monkeypatch.undo()
    assert images_of(engine, sd1)
    assert engine.info().state == "ready"


def test_a_lost_device_is_told_and_remembered(sd1: ModelInfo, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: Any, **more: Any) -> Any:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    engine = DiffusersEngine("cpu", precision="fp32")
    break_unet(engine, monkeypatch, sd1, fail)
    with pytest.raises(EngineError, match="device cpu failed"):
        images_of(engine, sd1)
    assert engine.info().state == "failed"


def test_failures_while_a_step_is_decoded_are_told_as_those_of_painting_are(
    sd1: ModelInfo, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The worker ends for a device that is lost: the next job on it would be lost as well."""
    engine = DiffusersEngine("cpu", precision="fp32")
    options = RunOptions(preview_every=0, keep_latents=True)
    steps = paint(engine, resolved_request(sd1, options=options))
    latents = next(event.latents for event in steps if isinstance(event, Progress))

    def after(error: Exception) -> tuple[StudioError, str]:
        def fail(*arguments: Any, **more: Any) -> Any:
            raise error

        monkeypatch.setattr(Decoder, "picture", fail)
        with pytest.raises(StudioError) as raised:
            engine.decode(sd1, None, latents, 0)
        return raised.value, engine.info().state

    memory, state = after(torch.OutOfMemoryError("CUDA out of memory."))
    assert (type(memory), state) == (OutOfMemory, "ready")
    assert f"decoding a step of {sd1.name}. Wait until no job runs" in memory.message
    bug, state = after(ZeroDivisionError("surprise"))
    assert ("Decoding failed (ZeroDivisionError: surprise)" in bug.message, state) == (True, "ready")
    lost, state = after(RuntimeError("CUDA error: an illegal memory access was encountered"))
    assert ("the step can be decoded again" in lost.message, state) == (True, "failed")


# -- state ------------------------------------------------------------------------------------------------------------


def test_warming_up_loads_the_model(sd1: ModelInfo) -> None:
    engine = DiffusersEngine("cpu", precision="fp32")
    assert engine.info().model is None
    engine.start(sd1)
    end = time.monotonic() + 30
    while engine.info().model is None:
        assert time.monotonic() < end
        time.sleep(0.01)
    events = paint(engine, resolved_request(sd1))
    assert [event.type for event in events][:2] == ["started", "progress"]
    info = engine.info()
    assert (info.state, info.model, info.device, info.dtype, info.attention) == (
        "ready",
        sd1.name,
        "cpu",
        "float32",
        "sdpa",
    )
    assert info.memory > 0
    engine.close()
    assert engine.info().model is None


def test_another_model_frees_the_memory_of_the_first(sd1: ModelInfo) -> None:
    engine = DiffusersEngine("cpu", precision="fp32")
    file = tiny_info(tiny_lora("sd1"), "lora")
    assert images_of(engine, sd1, loras=(LoraUse(name="l", model=file, te_weight=1.0, unet_weight=1.0),))
    kept = weakref.ref(engine.load(sd1).model.unet.conv_in.weight)
    gc.disable()  # it must not take the collector, which may come late
    try:
        engine.close()
        assert kept() is None
    finally:
        gc.enable()


def test_a_model_that_cannot_be_warmed_up_is_no_disaster(
    engine: DiffusersEngine, sd1: ModelInfo, tmp_path: Path
) -> None:
    engine.start(sd1.model_copy(update={"path": str(tmp_path / "gone")}))
    assert images_of(engine, sd1)

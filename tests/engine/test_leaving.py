"""Leaving a batch in the middle of something long: autoencoders, upscaler models, loading, reading prompts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from diffusers import AutoencoderTiny
from PIL import Image
from torch import nn

from studio.engine import decode, enlarging
from studio.engine.decode import Decoder
from studio.engine.encode import encoded
from studio.engine.faces import restore
from studio.engine.hardware import Hardware
from studio.engine.keeper import ModelKeeper
from studio.engine.leaving import Left, between, unwanted
from studio.engine.loaded import LoadedCheckpoint
from studio.engine.loading import LoadedVae
from studio.engine.offload import Stage
from studio.engine.runner import DiffusersEngine
from studio.engine.saving import Saving
from studio.infotext import encode_png
from studio.library.init_images import InitImages
from studio.schema.engine import CancelToken
from studio.schema.events import Cancelled, Event, Finished, ImageReady, Progress, Status
from studio.schema.faces import FacePlan
from studio.schema.resolved import LoraUse, MaskPlan, RefinerPlan, ResolvedRequest, SourcePlan
from studio.schema.source import Mask, Source
from tests.engine.faces.made import blind_detector, made_file
from tests.engine.faces.test_restore import FACE
from tests.engine.samples import resolved_request
from tests.engine.test_decode import FACTS, FakeVae
from tests.engine.test_enlarging import info as upscaler_info
from tests.engine.test_finishing import WatchedVae, fail_at, failing_unet, is_at
from tests.engine.test_sd_upscale import Desk
from tests.engine.test_sd_upscale import asked as asked_in_tiles
from tests.engine.test_tiles import noise
from tests.engine.test_upscale import plan_of
from tests.tiny_models import tiny_file, tiny_info, tiny_lora

How = Literal["skip", "interrupt"]
HOWS: tuple[How, ...] = ("skip", "interrupt")


class Stopper:
    """Stops a job the way `how` says, once: at the time number `time`, from 1, that it is called."""

    def __init__(self, how: How = "interrupt", time: int = 1) -> None:
        self.cancel = CancelToken()
        self._how, self._time = how, time

    def __call__(self) -> None:
        self._time -= 1
        if self._time == 0:
            getattr(self.cancel, self._how)()


def request(family: str = "sd1", **changes: Any) -> ResolvedRequest:
    return resolved_request(tiny_info(family), **{"steps": 2, "preview_every": 0, **changes})


def paint(engine: DiffusersEngine, resolved: ResolvedRequest, cancel: CancelToken | None = None) -> list[Event]:
    return list(engine.run(resolved, cancel or CancelToken()))


def pictures(events: Sequence[Event]) -> list[ImageReady]:
    return [event for event in events if isinstance(event, ImageReady)]


def steps(events: Sequence[Event]) -> int:
    return sum(isinstance(event, Progress) for event in events)


def ends_as(events: Sequence[Event], how: How, images: int) -> None:
    """As a job that was stopped just before: skipped it goes on; interrupted it is cancelled, unless there are pictures."""
    last = events[-1]
    if how == "interrupt" and not images:
        assert isinstance(last, Cancelled)
    else:
        assert isinstance(last, Finished) and (last.images, last.interrupted) == (images, how == "interrupt")
    assert sum(isinstance(event, Cancelled | Finished) for event in events) == 1


def hooks(*modules: nn.Module) -> int:
    """How many hooks there are on all layers."""
    layers = [layer for module in modules for layer in module.modules()]
    return sum(len(layer._forward_pre_hooks) + len(layer._forward_hooks) for layer in layers)


def parts(module: Any) -> dict[str, nn.Module]:
    """The blocks of an encoder or a decoder, in the order in which they run."""
    if hasattr(module, "layers"):
        return {str(number): layer for number, layer in enumerate(module.layers)}
    up, down = (dict(getattr(module, name, nn.ModuleList()).named_children()) for name in ("up_blocks", "down_blocks"))
    ups, downs = ({f"{name} {n}": each for n, each in found.items()} for name, found in (("up", up), ("down", down)))
    return {"in": module.conv_in, **downs, "mid": module.mid_block, **ups, "out": module.conv_out}


@contextmanager
def watched(module: Any, at: str = "", act: Callable[[], None] = lambda: None) -> Iterator[list[str]]:
    """The blocks that are begun, in order; before that which is called `at` something is done."""
    begun: list[str] = []

    def before(name: str) -> None:
        begun.append(name)
        if name == at:
            act()

    kept = [
        block.register_forward_pre_hook(lambda *_, name=name: before(name)) for name, block in parts(module).items()
    ]
    try:
        yield begun
    finally:
        for hook in kept:
            hook.remove()


def vae_of(engine: DiffusersEngine, family: str = "sd1") -> Any:
    return engine.load(tiny_info(family)).model.vae


def begins(folder: Path, mask: bool = False) -> dict[str, Any]:
    """A picture to begin with; with a `mask` one half of it is painted."""
    kept = InitImages(folder / "kept", folder / "waiting")
    picture = kept.keep(encode_png(noise(64, 64), ""))
    source = SourcePlan(**{**Source().model_dump(exclude={"extra_noise"}), "image": picture})
    if not mask:
        return {"source": source}
    area = Image.new("L", (64, 64), 0)
    area.paste(255, (0, 0, 32, 64))
    image = kept.keep_mask(encode_png(area, ""))
    return {"source": source, "mask": MaskPlan(**{**Mask().model_dump(), "image": image})}


@pytest.fixture
def tiny(tmp_path: Path) -> str:
    """A tiny autoencoder, both halves in a file."""
    with torch.random.fork_rng():
        torch.manual_seed(4)
        AutoencoderTiny().save_pretrained(tmp_path / "taesd")
    return str(tmp_path / "taesd" / "diffusion_pytorch_model.safetensors")


# -- decoding ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", HOWS)
@pytest.mark.parametrize("at", ["in", "mid", "up 1"])
def test_a_picture_that_is_being_decoded_is_left(engine: DiffusersEngine, how: How, at: str) -> None:
    """Nothing after the block in which the job was stopped is begun; the next job is what it would have been."""
    resolved, vae, stop = request(), vae_of(engine), Stopper(how)
    plain, before = paint(engine, resolved), hooks(vae)
    with watched(vae.decoder, at, stop) as begun:
        events = paint(engine, resolved, stop.cancel)
    order = list(parts(vae.decoder))
    assert begun == order[: order.index(at) + 1]
    assert steps(events) == 2 and not pictures(events)
    ends_as(events, how, 0)
    assert hooks(vae) == before and not decode._turn.locked()
    assert pictures(paint(engine, resolved)) == pictures(plain)


@pytest.mark.parametrize("how", HOWS)
def test_pictures_before_it_stay_and_a_skipped_job_goes_on(engine: DiffusersEngine, how: How) -> None:
    """It is stopped in the second picture of the first of two batches, whose first picture is finished."""
    resolved, stop = request(batch_size=2, batch_count=2), Stopper(how, 2)
    plain = pictures(paint(engine, resolved))
    with watched(vae_of(engine).decoder, "mid", stop) as begun:
        events = paint(engine, resolved, stop.cancel)
    kept = [0, 2, 3] if how == "skip" else [0]
    assert pictures(events) == [plain[index] for index in kept]
    assert begun.count("mid") == len(kept) + 1 and begun.count("out") == len(kept)
    ends_as(events, how, len(kept))


def test_a_tile_that_is_being_decoded_is_left(engine: DiffusersEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the second tile; the VAE then works without tiles again."""
    resolved, vae, stop = request(), vae_of(engine), Stopper("interrupt", 2)
    plain, side = pictures(paint(engine, resolved)), vae.tile_sample_min_size
    with monkeypatch.context() as patched:
        patched.setattr(Saving, "of", lambda _: Saving(tiled=True))
        with watched(vae.decoder) as begun:
            assert len(pictures(paint(engine, resolved))) == 1
        assert begun.count("out") > 2, "there are more tiles"
        with watched(vae.decoder, "mid", stop) as begun:
            events = paint(engine, resolved, stop.cancel)
    assert (begun.count("mid"), begun.count("out"), begun[-1]) == (2, 1, "mid")
    ends_as(events, "interrupt", 0)
    assert (vae.use_tiling, vae.tile_sample_min_size) == (False, side)
    assert pictures(paint(engine, resolved)) == plain


def test_the_tiny_autoencoder_is_left_too(engine: DiffusersEngine, tiny: str, tmp_path: Path) -> None:
    resolved = request(tiny_decoder=tiny, tiny_encoder=tiny, **begins(tmp_path))
    plain = pictures(paint(engine, resolved))
    loaded = engine.load(resolved.model)
    halves = {half: engine._keeper.tiny_vae(tiny, half, loaded).module for half in ("encoder", "decoder")}
    for half, module in halves.items():
        stop = Stopper()
        with watched(getattr(module, half), "3", stop) as begun:
            events = paint(engine, resolved, stop.cancel)
        assert begun == ["0", "1", "2", "3"]
        ends_as(events, "interrupt", 0)
    assert pictures(paint(engine, resolved)) == plain


@pytest.mark.parametrize("how", HOWS)
def test_a_picture_between_two_passes_is_left(engine: DiffusersEngine, how: How) -> None:
    """While it is decoded to be enlarged, and while it is encoded then."""
    resolved, vae = request(hires=plan_of("Lanczos", (96, 96)), batch_count=2), vae_of(engine)
    plain = pictures(paint(engine, resolved))
    for half in ("decoder", "encoder"):
        stop = Stopper(how)
        with watched(getattr(vae, half), "mid", stop) as begun:
            events = paint(engine, resolved, stop.cancel)
        rest = list(parts(getattr(vae, half))) if how == "skip" else []  # those of the second batch
        assert begun[begun.index("mid") + 1 :][: len(rest) or None] == rest
        assert pictures(events) == (plain[1:] if how == "skip" else [])
        assert steps(events) == (2 + 2 + 4 if how == "skip" else 2), (
            "no second pass was begun of the batch that was left"
        )
        ends_as(events, how, len(pictures(events)))
    assert pictures(paint(engine, resolved)) == plain


@pytest.mark.parametrize("half", ["encoder", "decoder"])
@pytest.mark.parametrize("how", HOWS)
def test_a_tile_of_sd_upscale_is_left(engine: DiffusersEngine, tmp_path: Path, half: str, how: How) -> None:
    part = {"upscaler": "None", "overlap": 0}
    resolved = asked_in_tiles(Desk(tmp_path), noise(128, 64), batch_count=2, sd_upscale=part)
    vae, stop = vae_of(engine), Stopper(how, 2)
    plain = pictures(paint(engine, resolved))
    with watched(getattr(vae, half), "mid", stop) as begun:
        events = paint(engine, resolved, stop.cancel)
    assert pictures(events) == (plain[1:] if how == "skip" else [])
    whole = 3 if how == "skip" else 1
    assert (begun.count("mid"), begun.count("out")) == (whole + 1, whole)
    ends_as(events, how, len(pictures(events)))
    assert pictures(paint(engine, resolved)) == plain


@pytest.mark.parametrize("kind", ["between passes", "in the end", "before tiles"])
def test_a_tile_of_an_upscaler_model_is_left(
    engine: DiffusersEngine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, kind: str
) -> None:
    monkeypatch.setattr(enlarging, "TILE", 32)
    model, strength = upscaler_info("compact-2x"), 0.5 if kind == "between passes" else 0
    plan = plan_of("None", (128, 128)).model_copy(update={"upscaler_model": model, "denoising_strength": strength})
    resolved, stop, begun = request(hires=plan), Stopper("interrupt", 2), 0
    if kind == "before tiles":
        part = {"upscaler": "compact-2x", "overlap": 0}
        resolved = asked_in_tiles(Desk(tmp_path), noise(64, 64), sd_upscale=part)
    plain = pictures(paint(engine, resolved))
    layers = [layer for layer in engine._keeper.upscaler(model)._module.modules() if isinstance(layer, nn.Conv2d)]

    def count(*_: Any) -> None:
        nonlocal begun
        begun += 1

    kept = [layers[0].register_forward_pre_hook(lambda *_: stop()), layers[-1].register_forward_pre_hook(count)]
    events = paint(engine, resolved, stop.cancel)
    for hook in kept:
        hook.remove()
    assert begun == 1, "the second tile was left"
    ends_as(events, "interrupt", 0)
    assert pictures(paint(engine, resolved)) == plain


def test_the_attempt_after_memory_ran_out_can_be_left_too(engine: DiffusersEngine) -> None:
    resolved, stop = request(), Stopper()
    with failing_unet(engine, {0}), watched(vae_of(engine).decoder, "mid", stop) as begun:
        events = paint(engine, resolved, stop.cancel)
    assert any(isinstance(event, Status) and "Too little memory" in event.message for event in events)
    assert begun[-1] == "mid"
    ends_as(events, "interrupt", 0)


# -- pictures of batches before ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", HOWS)
def test_a_picture_of_the_batch_before_is_decoded_to_the_end(
    engine: DiffusersEngine, monkeypatch: pytest.MonkeyPatch, how: How
) -> None:
    """The thread beside had too little memory for it, so that it is decoded again after the job was stopped."""
    resolved = request(batch_count=3)
    plain = pictures(paint(engine, resolved))
    monkeypatch.setattr(Hardware, "overlaps", True)
    vae = WatchedVae(engine, monkeypatch)
    vae.before, stop, events = fail_at(0), Stopper(how), []
    for event in engine.run(resolved, stop.cancel):
        events.append(event)
        if is_at(event, 1, 1):
            stop()
    assert vae.apart[:2] == [True, False]
    kept = [0, 2] if how == "skip" else [0]
    assert pictures(events) == [plain[index] for index in kept]
    ends_as(events, how, len(kept))


def test_a_step_is_decoded_in_a_job_that_was_stopped(engine: DiffusersEngine) -> None:
    """Who looks at it waits for it, whatever becomes of the job."""
    resolved = request()
    resolved = resolved.model_copy(update={"options": resolved.options.model_copy(update={"keep_latents": True})})
    cancel, found = CancelToken(), b""
    for event in engine.run(resolved, cancel):
        if isinstance(event, Progress) and not found:
            cancel.interrupt()
            found = engine.decode(resolved.model, None, event.latents, 0)
    assert found.startswith(b"\x89PNG")


# -- encoding ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", HOWS)
@pytest.mark.parametrize("at", ["in", "mid", "down 1"])
def test_a_source_that_is_being_encoded_is_left(engine: DiffusersEngine, tmp_path: Path, how: How, at: str) -> None:
    resolved, vae, stop = request(**begins(tmp_path), batch_count=2), vae_of(engine), Stopper(how)
    plain, before = pictures(paint(engine, resolved)), hooks(vae)
    with watched(vae.encoder, at, stop) as begun:
        events = paint(engine, resolved, stop.cancel)
    order = list(parts(vae.encoder))
    left = order[: order.index(at) + 1]
    assert begun == (left + order if how == "skip" else left)
    assert pictures(events) == (plain[1:] if how == "skip" else [])
    assert (steps(events) == 0) == (how == "interrupt")
    ends_as(events, how, len(pictures(events)))
    assert hooks(vae) == before
    assert pictures(paint(engine, resolved)) == plain


@pytest.mark.parametrize("kind", ["grey", "masked"])
def test_what_an_inpainting_model_is_told_is_left_too(engine: DiffusersEngine, tmp_path: Path, kind: str) -> None:
    """With a masked picture the second that is encoded."""
    changes = {} if kind == "grey" else begins(tmp_path, mask=True)
    resolved, stop = request("sd1-inpaint", **changes), Stopper("interrupt", 1 if kind == "grey" else 2)
    with watched(vae_of(engine, "sd1-inpaint").encoder, "mid", stop) as begun:
        events = paint(engine, resolved, stop.cancel)
    assert begun[-1] == "mid" and steps(events) == 0
    ends_as(events, "interrupt", 0)


# -- before the first step ---------------------------------------------------------------------------------------------


@pytest.fixture
def calls(engine: DiffusersEngine, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, int]]:
    """How often text encoders read and the U-Net works, of the tiny SD 1 checkpoint."""
    model, made = engine.load(tiny_info("sd1")).model, {"text": 0, "unet": 0}

    def count(name: str) -> None:
        made[name] += 1

    watched = {"text": model.text_encoders[0], "unet": model.unet}
    kept = [each.register_forward_pre_hook(lambda *_, name=name: count(name)) for name, each in watched.items()]
    yield made
    for hook in kept:
        hook.remove()


def after(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, act: Callable[[], None]) -> None:
    """Do something whenever this method has done its work."""
    work = getattr(owner, name)

    def and_then(*arguments: Any, **more: Any) -> Any:
        found = work(*arguments, **more)
        act()
        return found

    monkeypatch.setattr(owner, name, and_then)


def test_a_job_interrupted_while_its_checkpoint_is_loaded_ends_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """The checkpoint stays: the next job does not load it again. A second one is not begun with."""
    engine, stop, loads = DiffusersEngine("cpu", precision="fp32"), Stopper(), []
    after(monkeypatch, ModelKeeper, "checkpoint", lambda: (loads.append(1), stop())[1])
    after(monkeypatch, LoadedCheckpoint, "read_with", lambda: loads.append(0))
    resolved = request(refiner=RefinerPlan(model=tiny_info(tiny_file("sd1")), switch_at=0.5, from_call=1))
    events = paint(engine, resolved, stop.cancel)
    assert loads == [1]
    ends_as(events, "interrupt", 0)
    assert engine.info().state == "ready" and engine.info().message == ""
    again = paint(engine, request())
    assert not any(isinstance(event, Status) and "Loading" in event.message for event in again)
    assert len(pictures(again)) == 1
    engine.close()


@pytest.mark.parametrize("name", ["checkpoint", "read_with", "vae", "upscaler"])
@pytest.mark.parametrize("how", HOWS)
def test_a_job_stopped_before_it_reads_prompts_does_nothing_more(
    engine: DiffusersEngine, calls: dict[str, int], monkeypatch: pytest.MonkeyPatch, how: How, name: str
) -> None:
    """Skipped, it goes on with the second batch, for which all of that is needed."""
    plan = plan_of("None", (96, 96)).model_copy(update={"upscaler_model": upscaler_info("compact-2x")})
    lora = LoraUse(name="l", model=tiny_info(tiny_lora("sd1"), "lora"), te_weight=1.0, unet_weight=1.0)
    resolved = request(prompt=f"stopped after {name} by {how}", batch_count=2, hires=plan, loras=(lora,))
    stop, done = Stopper(how), []
    order = {"checkpoint": ModelKeeper, "read_with": LoadedCheckpoint, "vae": ModelKeeper, "upscaler": ModelKeeper}

    def note(name: str, act: Callable[[], None]) -> None:
        done.append(name)
        act()

    with monkeypatch.context() as patched:
        for each, owner in order.items():
            act = stop if each == name else lambda: None
            after(patched, owner, each, lambda each=each, act=act: note(each, act))  # type: ignore[misc]
        events = paint(engine, resolved, stop.cancel)
    if how == "interrupt":
        assert done[-1] == name and done.count(name) == 1
        assert calls == {"text": 0, "unet": 0}
        assert not pictures(events)
    else:
        assert pictures(events) == pictures(paint(engine, resolved))[1:]
    ends_as(events, how, len(pictures(events)))


@pytest.mark.parametrize("how", HOWS)
def test_a_job_stopped_while_it_reads_prompts_takes_no_step(
    engine: DiffusersEngine, calls: dict[str, int], how: How
) -> None:
    resolved, stop = request(prompt=f"stopped while read by {how}"), Stopper(how)
    (text,) = engine.load(resolved.model).model.text_encoders
    hook = text.register_forward_hook(lambda *_: stop())
    events = paint(engine, resolved, stop.cancel)
    hook.remove()
    assert calls["text"] > 0 and calls["unet"] == 0
    ends_as(events, how, 0)
    assert pictures(paint(engine, resolved))


@pytest.mark.parametrize("when", ["loaded", "LoRAs", "prompts"])
@pytest.mark.parametrize("kind", ["second pass", "refiner"])
def test_a_second_checkpoint_does_not_begin_in_a_job_stopped_meanwhile(
    engine: DiffusersEngine, monkeypatch: pytest.MonkeyPatch, kind: str, when: str
) -> None:
    """While it is loaded, its LoRAs are merged or it reads the prompts."""
    other, lora = tiny_info(tiny_file("sd1")), tiny_info(tiny_lora("sd1"), "lora")
    second = {"hires": plan_of("Latent", (96, 96)).model_copy(update={"model": other})}
    takes_over = {"refiner": RefinerPlan(model=other, switch_at=0.5, from_call=1)}
    loras = (LoraUse(name="l", model=lora, te_weight=1.0, unet_weight=1.0),)
    parts = second if kind == "second pass" else takes_over
    resolved = request(prompt=f"{kind} {when}", loras=loras, **parts)  # type: ignore[arg-type]
    loaded, stop, events, done = engine.load(other), Stopper(), [], []

    def note(what: str) -> None:
        if steps(events):
            done.append(what)
            if what == when:
                stop()

    (text,) = loaded.model.text_encoders
    kept = [
        text.register_forward_hook(lambda *_: note("prompts")),
        loaded.model.unet.register_forward_pre_hook(lambda *_: note("painted")),
    ]
    after(monkeypatch, ModelKeeper, "checkpoint", lambda: note("loaded"))
    after(monkeypatch, LoadedCheckpoint, "read_with", lambda: note("LoRAs"))
    events.extend(engine.run(resolved, stop.cancel))
    for hook in kept:
        hook.remove()
    assert done[-1] == when and "painted" not in done
    ends_as(events, "interrupt", 0)


@pytest.mark.parametrize("how", HOWS)
def test_a_checkpoint_loaded_again_for_a_later_batch(
    engine: DiffusersEngine, monkeypatch: pytest.MonkeyPatch, how: How
) -> None:
    """Another one needed the room. What was painted before stays."""
    resolved, stop, events, done = request(batch_count=3), Stopper(how), [], []
    plain = pictures(paint(engine, resolved))

    def note(what: str) -> None:
        if pictures(events):
            done.append(what)
            if what == "loaded":
                stop()

    monkeypatch.setattr(ModelKeeper, "holds", lambda self, loaded: not pictures(events) or "loaded" in done)
    after(monkeypatch, ModelKeeper, "checkpoint", lambda: note("loaded"))
    after(monkeypatch, LoadedCheckpoint, "read_with", lambda: note("LoRAs"))
    events.extend(engine.run(resolved, stop.cancel))
    kept = [0, 2] if how == "skip" else [0]
    assert pictures(events) == [plain[index] for index in kept]
    assert ("LoRAs" in done) == (how == "skip")
    ends_as(events, how, len(kept))


# -- the parts ---------------------------------------------------------------------------------------------------------


def test_nobody_asks_where_nobody_can_stop() -> None:
    with between(None):
        assert torch.ones(2).sum() == 2


def test_it_is_asked_before_every_operation_and_no_more_afterwards() -> None:
    stop = Stopper()
    with between(unwanted(stop.cancel)):
        assert torch.ones(2).sum() == 2
        stop()
        with pytest.raises(Left):
            torch.ones(2)
    assert torch.ones(2).sum() == 2


class Counted(Stage):
    """A stage that knows whether it is somebody's turn."""

    def __init__(self) -> None:
        super().__init__(torch.device("cpu"))
        self.on = 0

    @contextmanager
    def of(self, *networks: nn.Module, streamed: bool = False) -> Iterator[None]:
        with super().of(*networks, streamed=streamed):
            self.on += 1
            try:
                yield
            finally:
                self.on -= 1


def test_a_picture_that_is_left_gives_everything_back(engine: DiffusersEngine) -> None:
    """Its turn on the stage and that among threads; whoever decodes next needs no word."""
    model, stage, stop = engine.load(tiny_info("sd1")).model, Counted(), Stopper()
    vae = LoadedVae(model.vae, model.latent, stage, ask=unwanted(stop.cancel))
    stop()
    with torch.inference_mode():
        for tiled in (False, True):
            with pytest.raises(Left):
                Decoder(vae, tiled=tiled).picture(torch.zeros(4, 8, 8))
            with pytest.raises(Left):
                encoded(noise(64, 64), vae, tiled=tiled)
            assert (stage.on, decode._turn.locked(), model.vae.use_tiling) == (0, False, False)
        Decoder(vae, beside=True).picture(torch.zeros(4, 8, 8))


@pytest.mark.parametrize("how", HOWS)
def test_faces_that_are_being_painted_anew_are_left(
    how: How, engine: DiffusersEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second of the picture's."""
    file, detector = made_file(tmp_path, "GFPGAN", "GFPGAN"), blind_detector(tmp_path)
    plan = FacePlan(name="GFPGAN", architecture="GFPGAN", file=str(file), detector=str(detector))
    stop, painted = Stopper(how, 2), list[int]()
    monkeypatch.setattr(restore, "find_faces", lambda *_: [FACE] * 3)
    forward = restore.Gfpgan.forward

    def watched_forward(self: Any, *given: Any) -> Any:
        stop()
        found = forward(self, *given)
        painted.append(1)
        return found

    monkeypatch.setattr(restore.Gfpgan, "forward", watched_forward)
    events = paint(engine, request(faces=plan), stop.cancel)
    assert len(painted) == 1
    ends_as(events, how, 0)
    assert len(pictures(paint(engine, request(faces=plan)))) == 1


def test_a_vae_that_was_left_in_the_middle_of_its_second_try_is_in_its_own_format_again() -> None:
    """Whether that was for black, which is what was painted, or for NaN, nobody knows yet."""
    vae, stop = FakeVae(torch.float16, good=0.5, bad={torch.float16: float("nan")}), Stopper()
    loaded = LoadedVae(vae, FACTS, dtype=torch.float16, ask=unwanted(stop.cancel))  # type: ignore[arg-type]
    good = vae.decode

    def stopped(latents: torch.Tensor) -> Any:
        stop() if vae.dtype == torch.float32 else None
        return good(latents)

    vae.decode = stopped  # type: ignore[method-assign]
    with pytest.raises(Left):
        Decoder(loaded).picture(torch.zeros(4, 2, 2))
    assert (vae.dtype, loaded.marks) == (torch.float16, set())

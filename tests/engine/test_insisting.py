"""Memory that runs out before a job paints: what is given up then, that the picture stays the same, and that nothing half done is left."""

from __future__ import annotations

import contextlib
import io
import shutil
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from diffusers import AutoencoderTiny
from PIL import Image
from safetensors.torch import save_file

from studio.engine import enlarging, text_files
from studio.engine import keeper as keeper_module
from studio.engine import offload as offload_module
from studio.engine.faces import restore
from studio.engine.hardware import Hardware
from studio.engine.hypernetwork import HypernetworkFiles
from studio.engine.lora import LoraStack
from studio.engine.lora_files import Factors
from studio.engine.offload import Offload
from studio.engine.runner import DiffusersEngine
from studio.engine.saving import Saving
from studio.errors import OutOfMemory
from studio.schema.engine import CancelToken
from studio.schema.events import Event, ImageReady, Status
from studio.schema.faces import FacePlan
from studio.schema.resolved import LoraUse, RefinerPlan, ResolvedRequest
from tests.engine.card import card_of
from tests.engine.faces.made import blind_detector, made_file
from tests.engine.samples import resolved_request
from tests.engine.test_enlarging import info as upscaler_info
from tests.engine.test_hypernetwork import made as made_network
from tests.engine.test_hypernetwork import saved as saved_network
from tests.engine.test_offload import MIB, WHOLE, engine_on, paint, pixels, processor, said, untiled
from tests.engine.test_text_files import written
from tests.engine.test_upscale import plan_of
from tests.tiny_models import tiny_file, tiny_info, tiny_lora, tiny_vae_file

__all__ = ["processor", "untiled"]  # fixtures
ONCE_MORE, OUTSIDE = "Too little memory: once more", "moving what does not work out of the device"
PLACES: dict[str, tuple[Any, str, int]] = {
    "LoRA": (Factors, "difference", 20),
    "VAE": (keeper_module, "load_vae", 1),
    "tiny VAE": (keeper_module, "load_tiny_vae", 1),
    "upscaler": (enlarging, "load_upscaler", 1),
    "hypernetwork": (HypernetworkFiles, "_read", 1),
    "text encoder": (text_files, "load_text_encoder", 1),
    "faces": (restore, "load_network", 2),
}
"""What is called, and at which call memory runs out: of a LoRA when part of the weights are changed."""


def request(**changes: Any) -> ResolvedRequest:
    return resolved_request(tiny_info("sd1"), **{"steps": 2, "cfg_scale": 2.0, **changes})


def lora(seed: int = 0) -> LoraUse:
    info = tiny_info(tiny_lora("sd1", seed=seed), "lora")
    return LoraUse(name=f"l{seed}", model=info, te_weight=1.0, unet_weight=1.0)


def enlarged() -> dict[str, Any]:
    plan = plan_of("compact-2x", (128, 128))
    return {"hires": plan.model_copy(update={"upscaler_model": upscaler_info("compact-2x"), "denoising_strength": 0.0})}


def tiny_decoder(path: Path) -> Path:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        save_file(AutoencoderTiny().state_dict(), path)
    return path


@pytest.fixture(scope="module")
def jobs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, ResolvedRequest]:
    """A job for each of `PLACES`."""
    own = tmp_path_factory.mktemp("parts")
    faces, detector = made_file(own, "GFPGAN", "GFPGAN"), blind_detector(own)
    network = saved_network(own / "ink.pt", made_network(1, [1, 2, 1], "linear", False, True, (32, 64)))
    return {
        "LoRA": request(loras=(lora(),)),
        "VAE": request(vae=tiny_info(tiny_vae_file("sd1"), "vae")),
        "tiny VAE": request(tiny_decoder=str(tiny_decoder(own / "tiny.safetensors"))),
        "upscaler": request(**enlarged()),
        "hypernetwork": request(hypernetworks=(network,)),
        "text encoder": request(text_encoders=(written(own / "text.safetensors", "sd1"),)),
        "faces": request(faces=FacePlan(name="GFPGAN", architecture="GFPGAN", file=str(faces), detector=str(detector))),
    }


def failing(patch: pytest.MonkeyPatch, place: str, fails: Callable[[int], bool]) -> None:
    """Lets memory run out after the n-th thing was made where `fails(n)`, n from 1. Somebody holds on to the errors."""
    owner, name, first = PLACES[place]
    make, calls, lost, errors = getattr(owner, name), list[int](), list[Any](), list[Exception]()

    def refuse(*arguments: Any, **more: Any) -> Any:
        found = make(*arguments, **more)
        assert not any(each() is not None for each in lost), "what was lost takes memory no longer"
        calls.append(1)
        if len(calls) >= first and fails(len(calls) - first + 1):
            with contextlib.suppress(TypeError):  # a pair
                lost.append(weakref.ref(found))
            errors.append(torch.OutOfMemoryError("CUDA out of memory"))
            raise errors[-1]
        return found

    patch.setattr(owner, name, refuse)


def held(engine: DiffusersEngine) -> list[str]:
    return [loaded.model.info.path for loaded in engine._keeper._held]


@contextlib.contextmanager
def new_engine() -> Iterator[DiffusersEngine]:
    engine = DiffusersEngine("cpu", precision="fp32")
    yield engine
    engine.close()


def fresh(resolved: ResolvedRequest) -> list[bytes]:
    """The files of an engine that has painted nothing before."""
    with new_engine() as engine:
        return files_of(paint(engine, resolved))


def files_of(events: list[Event]) -> list[bytes]:
    return [event.png for event in events if isinstance(event, ImageReady)]


@pytest.mark.parametrize("place", PLACES)
def test_what_other_jobs_left_goes_and_it_is_tried_again(
    place: str, jobs: dict[str, ResolvedRequest], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = fresh(jobs[place])
    with new_engine() as engine:
        paint(engine, request())
        engine.load(tiny_info("sd2"))
        with monkeypatch.context() as patch:
            failing(patch, place, lambda time: time == 1)
            events = paint(engine, jobs[place])
        assert said(events, ONCE_MORE) == 1
        assert held(engine) == [tiny_info("sd1").path]
        assert files_of(events) == whole
        assert not said(paint(engine, jobs[place]), ONCE_MORE)


@pytest.mark.parametrize("place", PLACES)
def test_where_that_does_not_help_it_is_said_and_the_next_job_is_as_ever(
    place: str, jobs: dict[str, ResolvedRequest], monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, whole = fresh(request()), fresh(jobs[place])
    with new_engine() as engine:
        engine.load(tiny_info("sd2"))
        with monkeypatch.context() as patch:
            failing(patch, place, lambda _: True)
            events: list[Event] = []
            with pytest.raises(OutOfMemory, match="Use a smaller"):
                events.extend(engine.run(jobs[place], CancelToken()))
            assert said(events, ONCE_MORE) == 1
            assert held(engine) == [tiny_info("sd1").path]
        assert engine.info().state == "ready"
        assert files_of(paint(engine, request())) == plain
        assert files_of(paint(engine, jobs[place])) == whole


def test_weights_that_another_lora_is_in_go_with_the_attempt(
    jobs: dict[str, ResolvedRequest], monkeypatch: pytest.MonkeyPatch
) -> None:
    """There is nothing else to give up, but the attempt gave up that."""
    whole = fresh(jobs["LoRA"])
    with new_engine() as engine:
        paint(engine, request(loras=(lora(1),)))
        with monkeypatch.context() as patch:
            failing(patch, "LoRA", lambda time: time == 1)
            events = paint(engine, jobs["LoRA"])
        assert said(events, ONCE_MORE) == 1
        assert files_of(events) == whole


def test_only_what_the_job_does_not_need_goes(
    jobs: dict[str, ResolvedRequest], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Its own VAE, upscaler, faces and other checkpoint stay; of its checkpoint go weights with other LoRAs, and other text encoders."""
    other = tiny_info(Path(shutil.copy(tiny_vae_file("sd1"), tmp_path / "other.safetensors")), "vae")
    parts = {**enlarged(), "faces": jobs["faces"].faces, "vae": other}
    own = jobs["LoRA"].model_copy(
        update={**parts, "refiner": RefinerPlan(model=tiny_info(tiny_file("sd1")), switch_at=0.1)}
    )
    with new_engine() as engine:
        paint(engine, jobs["VAE"])
        paint(engine, jobs["text encoder"])
        paint(engine, own)
        paint(engine, request(loras=(lora(1),)))
        keeper, faces = engine._keeper, engine._faces
        (loaded,) = (one for one in keeper._held if one.model.info == tiny_info("sd1"))

        def kept() -> tuple[Any, ...]:
            vaes = [Path(key[0][0][0]).name for key in keeper._vaes]
            loras = [len(loaded.loras._kept), len(loaded.text.waiting)]
            return vaes, loras, keeper._upscaler is not None, sorted(faces._loaded), len(held(engine))

        first = (["sd1-vae.safetensors", "other.safetensors"], [2, 1], True, ["GFPGAN", "RetinaFace"], 2)
        assert kept() == first
        with monkeypatch.context() as patch:
            failing(patch, "hypernetwork", lambda time: time == 1)
            networks = {"hypernetworks": jobs["hypernetwork"].hypernetworks}
            assert said(paint(engine, own.model_copy(update=networks)), ONCE_MORE) == 1
        assert kept() == (["other.safetensors"], [1, 0], True, ["GFPGAN", "RetinaFace"], 2)
        with monkeypatch.context() as patch:
            failing(patch, "tiny VAE", lambda time: time == 1)
            assert said(paint(engine, jobs["tiny VAE"]), ONCE_MORE) == 1
        assert kept() == ([], [0, 0], False, [], 1)


def test_what_the_job_comes_to_later_stays(
    jobs: dict[str, ResolvedRequest], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A text encoder that it has not begun to read with; hypernetworks and tiny VAEs of others go."""
    with new_engine() as engine:
        for place in ("text encoder", "hypernetwork", "tiny VAE"):
            paint(engine, jobs[place])
        keeper = engine._keeper
        (loaded,) = keeper._held

        def kept() -> list[int]:
            return [len(loaded.text.waiting), len(keeper._hypernetworks._files), len(keeper._tiny)]

        assert kept() == [1, 1, 1]
        with monkeypatch.context() as patch:
            failing(patch, "VAE", lambda time: time == 1)
            parts = {"text_encoders": jobs["text encoder"].text_encoders}
            assert said(paint(engine, jobs["VAE"].model_copy(update=parts)), ONCE_MORE) == 1
        assert kept() == [1, 0, 0]  # the checkpoint's own waits now
        assert keeper.spare(jobs["text encoder"].model_copy(update={"text_encoders": ()}))  # its separate VAE
        paint(engine, request())
        assert loaded.text.waiting and not keeper.spare(jobs["text encoder"])


def test_where_there_is_nothing_to_give_up_nothing_is_said_to_go(
    jobs: dict[str, ResolvedRequest], monkeypatch: pytest.MonkeyPatch
) -> None:
    with new_engine() as engine:
        paint(engine, request())
        failing(monkeypatch, "LoRA", lambda time: time == 1)
        events = paint(engine, jobs["LoRA"])
    assert [event.message for event in events if isinstance(event, Status) and ONCE_MORE in event.message] == [
        ONCE_MORE
    ]


def test_before_a_later_batch_too(jobs: dict[str, ResolvedRequest], monkeypatch: pytest.MonkeyPatch) -> None:
    """There is room for one checkpoint only: the refiner takes the place of the first, which comes back for the second batch."""
    refined = jobs["LoRA"].model_copy(
        update={
            "refiner": RefinerPlan(model=tiny_info(tiny_file("sd1")), switch_at=0.1),
            "batch_count": 2,
            "seeds": (7, 8),
        }
    )
    whole = fresh(refined)
    monkeypatch.setattr(Hardware, "free_memory", lambda self: 2**30)
    with new_engine() as engine:
        apply, calls = LoraStack.apply, list[int]()

        def refuse(self: LoraStack, wanted: Any) -> bool:
            calls.append(1)
            if len(calls) == 4:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return apply(self, wanted)

        prepared: list[int] = []
        prepare = DiffusersEngine._prepare

        def counted(self: DiffusersEngine, resolved: ResolvedRequest) -> Any:
            prepared.append(len(calls))
            return prepare(self, resolved)

        monkeypatch.setattr(LoraStack, "apply", refuse)
        monkeypatch.setattr(DiffusersEngine, "_prepare", counted)
        monkeypatch.setattr(Saving, "decodes_in_tiles", lambda self, *_: False)
        events = paint(engine, refined)
        assert prepared == [0, 3, 4]
        assert said(events, ONCE_MORE) == 1
        assert [Image.open(io.BytesIO(png)).tobytes() for png in files_of(events)] == [
            Image.open(io.BytesIO(png)).tobytes() for png in whole
        ]


# -- on a card --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", ["VAE", "LoRA", "upscaler"])
def test_on_a_card_the_checkpoint_waits_outside_then(
    place: str,
    jobs: dict[str, ResolvedRequest],
    monkeypatch: pytest.MonkeyPatch,
    processor: DiffusersEngine,
    untiled: None,
) -> None:
    """For a separate VAE there really is no room; for the others memory runs out by decree."""
    whole, plain = pixels(paint(processor, jobs[place])), pixels(paint(processor, request()))
    monkeypatch.setattr(offload_module, "chosen", lambda *_: Offload.NONE)
    with card_of(WHOLE) as hardware:
        card = hardware.card
        assert card is not None
        engine = engine_on(hardware, monkeypatch)
        assert pixels(paint(engine, request())) == plain
        (loaded,) = engine._keeper._held
        assert loaded.bytes > 15 * MIB
        with monkeypatch.context() as patch:
            if place == "VAE":
                card.capacity = card.used + MIB
            else:
                failing(patch, place, lambda time: time <= 2)
            events = paint(engine, jobs[place])
        assert [said(events, words) for words in (ONCE_MORE, OUTSIDE)] == [2, 1]
        assert pixels(events) == whole
        assert loaded.bytes == 0
        card.capacity = 2 * WHOLE
        again = paint(engine, jobs[place])
        assert pixels(again) == whole
        assert not said(again, ONCE_MORE)
        assert loaded.bytes > 15 * MIB
        assert all(card.holds(next(vae.module.parameters())) for vae in engine._keeper._vaes.values())
        assert pixels(paint(engine, request())) == plain
        with monkeypatch.context() as patch:
            failing(patch, "hypernetwork", lambda _: True)
            with pytest.raises(OutOfMemory, match="too little memory on xpu"):
                paint(engine, jobs["hypernetwork"])
        assert pixels(paint(engine, request())) == plain
        engine.close()


def test_what_waits_outside_anyway_is_not_put_there_again(
    jobs: dict[str, ResolvedRequest], monkeypatch: pytest.MonkeyPatch, untiled: None
) -> None:
    events: list[Event] = []
    monkeypatch.setattr(offload_module, "chosen", lambda *_: Offload.NETWORKS)
    with card_of(WHOLE) as hardware:
        engine = engine_on(hardware, monkeypatch)
        failing(monkeypatch, "upscaler", lambda _: True)
        with pytest.raises(OutOfMemory):
            events.extend(engine.run(jobs["upscaler"], CancelToken()))
        assert [said(events, words) for words in (ONCE_MORE, OUTSIDE)] == [1, 0]
        engine.close()


def test_vaes_are_not_read_again_and_again_while_a_checkpoint_has_no_room(
    jobs: dict[str, ResolvedRequest], monkeypatch: pytest.MonkeyPatch, untiled: None
) -> None:
    """They come from outside as the checkpoint does, until that can come back for good."""
    monkeypatch.setattr(offload_module, "chosen", lambda *_: Offload.NONE)
    load, read = keeper_module.load_vae, list[int]()
    monkeypatch.setattr(keeper_module, "load_vae", lambda *given: (read.append(1), load(*given))[1])
    with card_of(2 * WHOLE) as hardware:
        engine = engine_on(hardware, monkeypatch)
        paint(engine, request())
        (loaded,) = engine._keeper._held
        loaded.park()
        with monkeypatch.context() as patch:
            patch.setattr(type(loaded), "gather", lambda self: None)
            for _ in range(3):
                paint(engine, jobs["VAE"])
            assert (loaded.parked, len(read)) == (True, 1)
        paint(engine, jobs["VAE"])
        assert (loaded.parked, len(read)) == (False, 2)
        engine.close()


def test_a_job_whose_checkpoint_had_to_wait_before_a_later_batch_saves_from_then_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """There is room for one checkpoint only, so the first is loaded again for the second batch."""
    refined = request(refiner=RefinerPlan(model=tiny_info(tiny_file("sd1")), switch_at=0.1), batch_count=2, seed=7)
    monkeypatch.setattr(Hardware, "free_memory", lambda self: 2**30)
    monkeypatch.setattr(Saving, "decodes_in_tiles", lambda self, *_: False)
    prepare, savings = DiffusersEngine._prepare, list[Offload]()

    def prepared(self: DiffusersEngine, resolved: ResolvedRequest) -> Any:
        savings.append(self._coding.saving.offload)
        loaded = yield from prepare(self, resolved)
        loaded.parked = len(savings) > 1
        return loaded

    monkeypatch.setattr(DiffusersEngine, "_prepare", prepared)
    with new_engine() as engine:
        assert len(files_of(paint(engine, refined))) == 2
        assert [*savings, engine._coding.saving.offload] == [Offload.NONE, Offload.NONE, Offload.NETWORKS]


def test_a_later_batch_knows_what_waits_outside_already() -> None:
    saving, device = Saving(split=True, tiled=True), torch.device("xpu")
    saving.heed(SimpleNamespace(parked=False))  # type: ignore[arg-type]
    assert saving.offload == Offload.NONE
    saving.heed(SimpleNamespace(parked=True))  # type: ignore[arg-type]
    assert "block by block" in saving.more(device)
    saving.heed(SimpleNamespace(parked=True))  # type: ignore[arg-type]
    assert saving.offload == Offload.BLOCKS

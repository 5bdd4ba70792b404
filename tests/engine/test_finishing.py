"""Decoding beside the next batch: the processor stands in for a device that computes both at once."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image, ImageOps

from studio.engine import finishing
from studio.engine.decode import Decoder, NotAlone
from studio.engine.faces.restore import FaceKeeper
from studio.engine.finishing import DENOISED_CHANNELS, Finishing, Given
from studio.engine.hardware import Hardware, choose_hardware
from studio.engine.painting import ALONE, IN_FLOAT32
from studio.engine.runner import DiffusersEngine
from studio.engine.saving import DECODED_CHANNELS, Saving
from studio.errors import EngineError, OutOfMemory
from studio.infotext import encode_png
from studio.library.init_images import InitImages
from studio.schema.engine import CancelToken
from studio.schema.events import Event, Finished, ImageReady, Progress, Status
from studio.schema.faces import FacePlan
from studio.schema.request import RunOptions
from studio.schema.resolved import MaskPlan, RefinerPlan, ResolvedRequest, SourcePlan
from studio.schema.source import Mask, Source
from tests.engine.samples import resolved_request
from tests.engine.test_tiles import noise
from tests.engine.test_upscale import plan_of
from tests.tiny_models import tiny_info

PATIENCE = 60
"""Seconds after which a test that waits for another thread fails instead of hanging."""


@pytest.fixture
def beside(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let this device compute two things at once."""
    monkeypatch.setattr(Hardware, "overlaps", True)


def request(**changes: Any) -> ResolvedRequest:
    return resolved_request(tiny_info("sd1"), **{"batch_count": 2, "steps": 2, "preview_every": 0, **changes})


def paint(engine: DiffusersEngine, **changes: Any) -> list[Event]:
    return list(engine.run(request(**changes), CancelToken()))


def pictures(events: list[Event]) -> list[ImageReady]:
    return [event for event in events if isinstance(event, ImageReady)]


def said(events: list[Event], words: str) -> int:
    return sum(isinstance(event, Status) and words in event.message for event in events)


def is_at(event: Event, batch: int, step: int) -> bool:
    return isinstance(event, Progress) and (event.batch, event.step) == (batch, step)


def in_a_thread() -> bool:
    return threading.current_thread() is not threading.main_thread()


class WatchedVae:
    """The checkpoint's VAE, whose decodings call `before(number)`, from 0."""

    def __init__(self, engine: DiffusersEngine, monkeypatch: pytest.MonkeyPatch) -> None:
        self.before: Callable[[int], None] = lambda number: None
        self.apart: list[bool] = []
        """Of each decoding begun, whether another thread did it."""
        self.finished = 0
        module = engine.load(tiny_info("sd1")).model.vae
        decode = module.decode

        def watched(*arguments: Any) -> Any:
            self.apart.append(in_a_thread())
            assert torch.is_inference_mode_enabled()
            self.before(len(self.apart) - 1)
            decoded = decode(*arguments)
            self.finished += 1
            return decoded

        monkeypatch.setattr(module, "decode", watched)


@pytest.fixture
def vae(engine: DiffusersEngine, monkeypatch: pytest.MonkeyPatch) -> WatchedVae:
    return WatchedVae(engine, monkeypatch)


class Gate:
    """Holds decodings of another thread until it is opened."""

    def __init__(self) -> None:
        self.reached, self.opened = threading.Event(), threading.Event()

    def __call__(self, number: int) -> None:
        if in_a_thread():
            self.reached.set()
            assert self.opened.wait(PATIENCE), "nobody opened"

    def open_once_reached(self) -> None:
        assert self.reached.wait(PATIENCE), "nothing is decoded in another thread"
        self.opened.set()


@pytest.fixture
def gate(vae: WatchedVae) -> Gate:
    vae.before = Gate()
    return vae.before


def fail_at(*numbers: int, error: type[Exception] = torch.OutOfMemoryError) -> Callable[[int], None]:
    """Lets these decodings fail; by default they run out of memory."""

    def before(number: int) -> None:
        if number in numbers:
            raise error("CUDA out of memory" if error is torch.OutOfMemoryError else "the roof is on fire")

    return before


@contextmanager
def failing_unet(engine: DiffusersEngine, calls: set[int], value: Callable[[Any], Any] | None = None) -> Iterator[None]:
    """Lets these calls, from 0, run out of memory, or give another `value`."""
    made: list[int] = []

    def forward(module: Any, arguments: Any, output: Any) -> Any:
        made.append(1)
        if len(made) - 1 not in calls:
            return output
        if value is None:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return (value(output[0]),)

    hook = engine.load(tiny_info("sd1")).model.unet.register_forward_hook(forward)
    yield
    hook.remove()


# -- what comes of it -------------------------------------------------------------------------------------------------


def part_painted(folder: Path) -> dict[str, Any]:
    """A picture to begin with, of which one half is painted."""
    kept = InitImages(folder / "kept", folder / "waiting")
    mask = Image.new("L", (64, 64), 0)
    mask.paste(255, (0, 0, 32, 64))
    picture, area = kept.keep(encode_png(noise(64, 64), "")), kept.keep_mask(encode_png(mask, ""))
    source = SourcePlan(**{**Source().model_dump(exclude={"extra_noise"}), "image": picture})
    return {"source": source, "mask": MaskPlan(**{**Mask().model_dump(), "image": area})}


@pytest.mark.parametrize("kind", ["many", "part"])
def test_what_comes_is_what_one_thing_after_the_other_gives(
    engine: DiffusersEngine, vae: WatchedVae, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, kind: str
) -> None:
    """The same pictures to the byte, steps and words, each in the same order; only when a picture comes is another matter."""
    many = {"batch_size": 2, "batch_count": 3, "preview_every": 1}
    changes = many if kind == "many" else {**part_painted(tmp_path), "tiling": True}
    plain = paint(engine, **changes)
    size, count = changes.get("batch_size", 1), len(pictures(plain))
    assert vae.apart == [False] * count
    monkeypatch.setattr(Hardware, "overlaps", True)
    both = paint(engine, **changes)
    assert vae.apart[count:] == [True] * (count - size) + [False] * size, "the last batch has none to be decoded beside"

    def of(events: list[Event], kind: type[Event]) -> list[Event]:
        found = [event for event in events if isinstance(event, kind)]
        return [event.model_copy(update={"seconds": 0.0}) if kind is Progress else event for event in found]

    for each in (ImageReady, Progress, Status):
        assert of(both, each) == of(plain, each)
    assert [picture.index for picture in pictures(both)] == list(range(count))
    assert isinstance(both[-1], Finished) and both[-1].images == count


def test_the_next_batch_is_denoised_while_one_is_decoded(
    engine: DiffusersEngine, vae: WatchedVae, gate: Gate, beside: None
) -> None:
    """The decoding ends only when the next batch's last step is there."""
    seen: list[Event] = []
    for event in engine.run(request(), CancelToken()):
        seen.append(event)
        if is_at(event, 1, 2):
            assert not pictures(seen)
            gate.open_once_reached()
    assert [picture.index for picture in pictures(seen)] == [0, 1]
    assert vae.apart == [True, False]


def test_a_picture_comes_between_the_steps_of_the_next_batch(
    engine: DiffusersEngine, gate: Gate, monkeypatch: pytest.MonkeyPatch, beside: None
) -> None:
    taken: list[Given | None] = []
    take = Finishing.take
    monkeypatch.setattr(Finishing, "take", lambda self, *more: (take(self, *more), taken.append(self.first())))
    seen: list[Event] = []
    for event in engine.run(request(steps=4), CancelToken()):
        seen.append(event)
        if is_at(event, 1, 2):
            gate.open_once_reached()
            assert taken[0] is not None and taken[0].picture()
    order = [(event.type, getattr(event, "step", 0)) for event in seen if isinstance(event, Progress | ImageReady)]
    assert order[4:] == [("progress", 1), ("progress", 2), ("image", 0), ("progress", 3), ("progress", 4), ("image", 0)]


def test_a_step_can_be_decoded_meanwhile_in_turn(engine: DiffusersEngine, vae: WatchedVae, beside: None) -> None:
    """With edges that meet, which is a state of the same VAE."""
    kept = request(options=RunOptions(preview_every=1, keep_latents=True), tiling=True, batch_count=1)
    last = [event for event in engine.run(kept, CancelToken()) if isinstance(event, Progress)][-1]
    wanted = engine.decode(kept.model, None, last.latents, 0)
    plain = pictures(paint(engine))
    inside, reached, begun = threading.Event(), threading.Event(), len(vae.apart)

    def before(number: int) -> None:
        if not in_a_thread():
            inside.set()
        elif number == begun:
            reached.set()
            assert not inside.wait(0.5), "two decode at once"

    vae.before, seen, found = before, [], b""
    for event in engine.run(request(), CancelToken()):
        seen.append(event)
        if is_at(event, 1, 1):
            assert reached.wait(PATIENCE)
            found = engine.decode(kept.model, None, last.latents, 0)
    assert found == wanted
    assert pictures(seen) == plain
    assert vae.apart[begun:] == [True, False, False]


def test_a_vae_that_fails_beside_the_next_batch_is_converted_alone(
    engine: DiffusersEngine, vae: WatchedVae, monkeypatch: pytest.MonkeyPatch, beside: None
) -> None:
    """Converting it there would free weights that another stream still reads."""
    plain = pictures(paint(engine, batch_count=3))
    numbers = Decoder._numbers

    def fails_beside(self: Decoder, latents: torch.Tensor) -> torch.Tensor:
        if self._beside:
            raise NotAlone
        return numbers(self, latents)

    monkeypatch.setattr(Decoder, "_numbers", fails_beside)
    vae.apart.clear()
    events = paint(engine, batch_count=3)
    assert pictures(events) == plain
    assert vae.apart == [False, False, False], "nothing more goes beside"
    assert (said(events, IN_FLOAT32), said(events, ALONE)) == (1, 0)


# -- not where it could do harm ----------------------------------------------------------------------------------------


def test_only_plain_passes_of_one_checkpoint(
    engine: DiffusersEngine, monkeypatch: pytest.MonkeyPatch, beside: None
) -> None:
    monkeypatch.setattr(FaceKeeper, "restore", lambda self, plan: ImageOps.invert)
    faces = FacePlan(name="GFPGAN", architecture="GFPGAN", file="/gone", detector="/gone")
    without = plan_of("Lanczos", (64, 64)).model_copy(update={"denoising_strength": 0.0})
    taken: list[int] = []
    take = Finishing.take
    monkeypatch.setattr(
        Finishing, "take", lambda self, first, *more: (taken.append(first), take(self, first, *more))[1]
    )
    for changes in (
        {"refiner": RefinerPlan(model=tiny_info("sd1"), switch_at=0.5, from_call=0)},
        {"hires": plan_of("Lanczos", (64, 64))},
        {"hires": without},
        {"faces": faces},
        {"batch_count": 1},
    ):
        assert pictures(paint(engine, **{"steps": 1, **changes}))
        assert taken == [], changes
    assert pictures(paint(engine, steps=1))
    assert taken == [0]


def test_only_where_memory_is_enough_for_both(monkeypatch: pytest.MonkeyPatch, beside: None) -> None:
    """In float16 beside a VAE in float32."""
    hardware, free = Hardware(torch.device("cpu"), torch.float16, torch.float32, "sdpa"), [0]
    monkeypatch.setattr(Hardware, "free_memory", lambda self: free[0])
    free[0] = 512 * 512 * (DECODED_CHANNELS * 4 + 2 * DENOISED_CHANNELS * 2)
    work = Finishing(hardware)
    assert work.has_room(512, 512, 2)
    assert not work.has_room(512, 512, 3)
    assert not work.has_room(512, 520, 2)
    monkeypatch.setattr(Hardware, "overlaps", False)
    assert not work.has_room(64, 64, 1)


@pytest.mark.parametrize("from_the_start", [True, False])
def test_not_while_memory_is_saved(
    engine: DiffusersEngine, vae: WatchedVae, monkeypatch: pytest.MonkeyPatch, beside: None, from_the_start: bool
) -> None:
    if from_the_start:
        monkeypatch.setattr(Saving, "of", lambda _: Saving(split=True))
    with failing_unet(engine, set() if from_the_start else {0}):
        events = paint(engine)
    assert said(events, "prompts one after the other") == (0 if from_the_start else 1)
    assert [picture.index for picture in pictures(events)] == [0, 1]
    assert vae.apart and not any(vae.apart)


# -- when memory runs out ----------------------------------------------------------------------------------------------


def test_a_picture_that_memory_ran_out_for_is_decoded_again_alone(
    engine: DiffusersEngine, vae: WatchedVae, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The pictures stay the same; those behind it are not tried beside the pass again."""
    plain = pictures(paint(engine, batch_size=3))
    monkeypatch.setattr(Hardware, "overlaps", True)
    begun = len(vae.apart)
    vae.before = fail_at(begun + 1)
    events = paint(engine, batch_size=3)
    assert pictures(events) == plain
    assert vae.apart[begun:] == [True] * 2 + [False] * 5
    assert said(events, ALONE) == said(events, "Too little memory") == 1
    assert isinstance(events[-1], Finished) and events[-1].images == 6


def test_when_it_runs_out_alone_too_memory_is_saved(
    engine: DiffusersEngine, vae: WatchedVae, monkeypatch: pytest.MonkeyPatch, beside: None
) -> None:
    vae.before = fail_at(0, 1)
    events = paint(engine, batch_size=2)
    assert [picture.index for picture in pictures(events)] == [0, 1, 2, 3]
    assert ["tiled VAE" in picture.infotext for picture in pictures(events)] == [True] * 4
    assert (said(events, ALONE), said(events, "decoding in tiles")) == (1, 1)
    assert max(event.step for event in events if isinstance(event, Progress)) == 2
    assert sum(isinstance(event, Progress) for event in events) == 4, "no batch is denoised again for it"


def test_when_nothing_helps_it_is_said(engine: DiffusersEngine, vae: WatchedVae, beside: None) -> None:
    vae.before = fail_at(*range(100))
    with pytest.raises(OutOfMemory, match="smaller"):
        paint(engine)


def test_a_pass_that_memory_ran_out_for_is_begun_again_without_decoding_beside_it(
    engine: DiffusersEngine, vae: WatchedVae, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = pictures(paint(engine, batch_count=3, batch_size=2))
    monkeypatch.setattr(Hardware, "overlaps", True)
    begun, seen, gate, wait = len(vae.apart), [], Gate(), finishing.wait
    vae.before = gate
    monkeypatch.setattr(finishing, "wait", lambda given: (gate.opened.set(), wait(given)))
    with failing_unet(engine, {3}):  # the second batch's second step
        for event in engine.run(request(batch_count=3, batch_size=2), CancelToken()):
            seen.append(event)
            if is_at(event, 1, 1):
                assert gate.reached.wait(PATIENCE)
    assert pictures(seen) == plain
    assert vae.apart[begun:] == [True] + [False] * 5
    assert said(seen, ALONE) == said(seen, "Too little memory") == 1
    before_the_last = seen[: next(i for i, event in enumerate(seen) if is_at(event, 2, 1))]
    assert [picture.index for picture in pictures(before_the_last)] == [0, 1, 2, 3], "nothing waits for the next batch"


# -- when something fails ----------------------------------------------------------------------------------------------


def test_another_error_fails_the_job_and_the_pictures_before_it_stay(
    engine: DiffusersEngine, vae: WatchedVae, beside: None
) -> None:
    vae.before, seen = fail_at(2, error=ValueError), []
    with pytest.raises(EngineError, match="ValueError: the roof is on fire"):
        seen.extend(engine.run(request(batch_size=4), CancelToken()))
    assert [picture.index for picture in pictures(seen)] == [0, 1]
    assert vae.apart == [True] * 3
    vae.before = lambda number: None
    assert len(pictures(paint(engine))) == 2


def test_when_the_next_batch_fails_the_pictures_being_decoded_stay(
    engine: DiffusersEngine, vae: WatchedVae, gate: Gate, beside: None
) -> None:
    seen: list[Event] = []

    def go_on() -> None:
        for event in engine.run(request(batch_size=2), CancelToken()):
            seen.append(event)
            if is_at(event, 1, 1):
                gate.open_once_reached()

    with failing_unet(engine, {3}, lambda x: x * torch.nan), pytest.raises(EngineError, match="NaN"):
        go_on()
    assert [picture.index for picture in pictures(seen)] == [0, 1]


# -- when it is stopped ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["skip", "interrupt"])
def test_stopping_a_batch_leaves_that_before_it_whole(
    engine: DiffusersEngine, vae: WatchedVae, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """As where one is done after the other, however far the decoding is."""

    def stopped(gate: Gate | None) -> list[Event]:
        cancel, seen = CancelToken(), []
        for event in engine.run(request(batch_size=2, batch_count=3), cancel):
            seen.append(event)
            if is_at(event, 1, 1):
                getattr(cancel, how)()
                if gate:
                    gate.open_once_reached()
        return seen

    plain = stopped(None)
    monkeypatch.setattr(Hardware, "overlaps", True)
    vae.before = Gate()
    both = stopped(vae.before)
    assert pictures(both) == pictures(plain)
    assert [picture.index for picture in pictures(both)] == ([0, 1, 4, 5] if how == "skip" else [0, 1])
    assert [event.type for event in both if isinstance(event, Progress)] == ["progress"] * (5 if how == "skip" else 3)
    ends = [(event.images, event.interrupted) for event in (plain[-1], both[-1]) if isinstance(event, Finished)]
    assert ends == ([(4, False)] * 2 if how == "skip" else [(2, True)] * 2)


@pytest.mark.parametrize("how", ["skip", "interrupt"])
def test_a_batch_stopped_before_its_decoding_has_no_pictures(
    engine: DiffusersEngine, vae: WatchedVae, beside: None, how: str
) -> None:
    cancel, seen = CancelToken(), []
    for event in engine.run(request(batch_count=3), cancel):
        seen.append(event)
        if said(seen, "Decoding") == 1 and isinstance(event, Status):
            getattr(cancel, how)()
    assert [picture.index for picture in pictures(seen)] == ([1, 2] if how == "skip" else [])
    assert seen[-1].type == ("finished" if how == "skip" else "cancelled")


def test_closing_waits_for_the_picture_being_decoded_and_no_other(
    engine: DiffusersEngine, vae: WatchedVae, monkeypatch: pytest.MonkeyPatch, beside: None
) -> None:
    gate = Gate()

    class Opens(ThreadPoolExecutor):
        def shutdown(self, *arguments: Any, **more: Any) -> None:
            gate.opened.set()
            super().shutdown(*arguments, **more)

    monkeypatch.setattr(finishing, "ThreadPoolExecutor", Opens)
    vae.before = lambda number: (gate(number), time.sleep(0.1))[0]
    events = engine.run(request(batch_size=3), CancelToken())
    assert any(is_at(event, 1, 1) for event in events)
    assert gate.reached.wait(PATIENCE)
    events.close()  # type: ignore[attr-defined]
    assert (vae.apart, vae.finished) == ([True], 1)
    assert engine.info().state == "ready"


# -- on a card ---------------------------------------------------------------------------------------------------------


def test_on_a_card_the_thread_works_on_a_stream_of_its_own_behind_the_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """There is no card here, so the calls are written down."""
    card, calls = torch.device("cuda"), []

    class Written:
        def __init__(self, name: str) -> None:
            self._name = name

        def __getattr__(self, call: str) -> Callable[..., None]:
            return lambda *args: calls.append((self._name, call, *(getattr(arg, "_name", arg) for arg in args)))

    class Latents(Written):
        device = card

    @contextmanager
    def stream(used: Written) -> Iterator[None]:
        calls.append("in")
        yield
        calls.append("out")

    monkeypatch.setattr(torch.cuda, "Event", lambda: Written("mark"))
    monkeypatch.setattr(torch.cuda, "Stream", lambda device: calls.append("new") or Written("own"))
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: "the steps'")
    monkeypatch.setattr(torch.cuda, "stream", stream)
    finishing._stream.cache_clear()
    own = [("own", "wait_event", "mark"), ("one", "record_stream", "own"), "in", "decoded", "out"]
    for new in (["new"], []):  # the next job's is the same
        work = Finishing(Hardware(card, torch.float16, torch.float32, "sdpa"))
        work.take(5, [Latents("one")], lambda latents: calls.append("decoded") or Image.new("RGB", (1, 1)))  # type: ignore[list-item]
        given = work.first()
        assert given is not None and given.picture() is not None
        assert [index for index, _ in work.done()] == [5]
        work.close()
        assert calls == [("mark", "record", "the steps'"), *new, *own]
        calls.clear()
    finishing._stream.cache_clear()


def test_which_devices_compute_two_things_at_once() -> None:
    def overlaps(device: str, attention: Any = "sdpa", **more: Any) -> bool:
        return Hardware(torch.device(device), torch.float16, torch.float32, attention, **more).overlaps

    assert overlaps("cuda") and overlaps("cuda", "xformers")
    assert not overlaps("mps") and not choose_hardware("cpu").overlaps
    assert not overlaps("cuda", "flash")
    assert not overlaps("cuda", compiled="blocks")

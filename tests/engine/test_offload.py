"""Checkpoints larger than a card: what waits outside, when it comes, and that pictures stay the same. A stand-in is the card, see `card.py`."""

from __future__ import annotations

import copy
import functools
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from studio.engine import encode, runner
from studio.engine import keeper as keeper_module
from studio.engine import lora as lora_module
from studio.engine import offload as offload_module
from studio.engine.eight_bit import PLAIN, Storage
from studio.engine.hardware import Hardware, choose_hardware
from studio.engine.keeper import ModelKeeper
from studio.engine.loading import LoadedModel, Place, load_checkpoint
from studio.engine.offload import UNET_ROOM, WORKING_MEMORY, Offload, Placing, Stage, chosen
from studio.engine.runner import DiffusersEngine
from studio.engine.saving import Saving
from studio.errors import OutOfMemory
from studio.library.init_images import InitImages
from studio.schema.engine import CancelToken
from studio.schema.events import Event, Progress, Status
from studio.schema.models import ModelInfo
from studio.schema.resolved import LoraUse, RefinerPlan, ResolvedRequest
from tests.engine.card import CARD, Card, CardHardware, card_of
from tests.engine.samples import resolved_request
from tests.engine.test_hires import asked, pictures
from tests.engine.test_source import Desk
from tests.engine.test_source import asked as over_a_picture
from tests.engine.test_text_files import written
from tests.tiny_models import tiny_info, tiny_lora, tiny_vae_file

MIB = 2**20
WHOLE = 20 * MIB
"""Enough for a tiny SD 1 (U-Net 6.3 MiB, text encoder 6.1, autoencoder 3.1) and what it works on."""
NETWORK = 8 * MIB
"""Less than two of its networks, more than each with what it works on."""
BLOCKS = 6 * MIB
"""Less than its U-Net."""


def paint(engine: DiffusersEngine, resolved: ResolvedRequest) -> list[Event]:
    return list(engine.run(resolved, CancelToken()))


def pixels(events: list[Event]) -> list[bytes]:
    """Pictures without their text, which names the device."""
    return [picture.tobytes() for picture in pictures(events)]


def said(events: list[Event], words: str) -> int:
    return sum(isinstance(event, Status) and words in event.message for event in events)


@pytest.fixture(scope="module")
def processor() -> Iterator[DiffusersEngine]:
    engine = DiffusersEngine("cpu", precision="fp32")
    yield engine
    engine.close()


@pytest.fixture
def untiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tiles of a tiny random autoencoder are another picture."""
    monkeypatch.setattr(Saving, "decodes_in_tiles", lambda self, *_: False)


@pytest.fixture
def quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files are read once for all tests, onto the processor, and what was read is copied to where it is to be."""

    def load(info: ModelInfo, *_: Any, place: Place, **more: Any) -> LoadedModel:
        model = read(info.path)
        modules = (model.unet, model.vae, *model.text_encoders)
        names: list[Any] = ["unet", "vae", *(encoder.name for encoder in model.family.encoders)]
        sizes = [sum(weight.nbytes for weight in module.parameters()) for module in modules]
        where = place(dict(zip(names, sizes, strict=True)))
        unet, vae, *texts = (copy.deepcopy(module).to(where) for module in modules)
        return replace(model, info=info, unet=unet, vae=vae, text_encoders=tuple(texts))

    monkeypatch.setattr(keeper_module, "load_checkpoint", load)


@functools.cache
def read(path: str) -> LoadedModel:
    return load_checkpoint(tiny_info(Path(path)), torch.device("cpu"), torch.float32)


def engine_on(hardware: Hardware, monkeypatch: pytest.MonkeyPatch) -> DiffusersEngine:
    monkeypatch.setattr(runner, "choose_hardware", lambda *_: hardware)
    return DiffusersEngine("cpu")


def narrowed(monkeypatch: pytest.MonkeyPatch, card: Card, room: int = BLOCKS) -> None:
    """While a U-Net works, the card has no more than this: as it is, no room for one."""
    only = Saving.only

    @contextmanager
    def watched(self: Saving, needed: Any, loaded: Any) -> Iterator[None]:
        before, card.capacity = card.capacity, room if needed == "unet" else max(card.capacity, NETWORK)
        try:
            with only(self, needed, loaded):
                yield
        finally:
            card.capacity = before

    monkeypatch.setattr(Saving, "only", watched)


# -- how much waits ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "free, visitor, expected",
    [
        (6 + 3, 0, Offload.NONE),
        (6 + 3 - 0.01, 0, Offload.NETWORKS),
        (6 + 3, 0.01, Offload.NETWORKS),
        (6 + 3 + 2, 2, Offload.NONE),
        (4 + 1, 0, Offload.NETWORKS),
        (4 + 1, 9, Offload.NETWORKS),
        (4 + 1 - 0.01, 0, Offload.BLOCKS),
        (0, 0, Offload.BLOCKS),
    ],
)
def test_what_is_chosen_by_memory(free: float, visitor: float, expected: Offload) -> None:
    """In GiB, for a U-Net of 4 and 2 of others."""
    assert (WORKING_MEMORY, UNET_ROOM) == (3 * 2**30, 2**30)
    sizes = {"unet": 4 * 2**30, "vae": 2**29, "text_encoder": 3 * 2**29}
    assert chosen(sizes, int(free * 2**30), int(visitor * 2**30)) is expected


@pytest.mark.parametrize("storage, dtype", [(PLAIN, torch.float16), (Storage(eight_bit=True), torch.float32)])
def test_sizes_are_known_before_a_weight_is_read(storage: Storage, dtype: torch.dtype) -> None:
    told: list[dict[Any, int]] = []

    def place(sizes: Any) -> torch.device:
        told.append(dict(sizes))
        return torch.device("cpu")

    model = load_checkpoint(tiny_info("sd1"), CARD, dtype, vae_dtype=torch.float32, storage=storage, place=place)
    parts = {"unet": model.unet, "vae": model.vae, "text_encoder": model.text_encoders[0]}
    assert told == [{name: sum(weight.nbytes for weight in part.parameters()) for name, part in parts.items()}]


def test_a_device_that_shares_the_machines_memory_gets_everything() -> None:
    sizes = {"unet": 2**50, "vae": 1, "text_encoder": 1}
    for kind in ("mps", "cpu"):
        placing = Placing(Hardware(torch.device(kind), torch.float16, torch.float32, "sdpa"))
        assert placing(sizes) == torch.device(kind)
        assert placing.offload is Offload.NONE
        full = RuntimeError("MPS backend out of memory")
        assert placing.once_more(full) is (kind == "mps"), "such a device may be full before the machine is"
        assert placing(sizes) == torch.device("cpu")
        assert placing.offload is (Offload.NETWORKS if kind == "mps" else Offload.NONE)
        assert not placing.once_more(full)


# -- who is there -----------------------------------------------------------------------------------------------------


def test_only_those_whose_turn_it_is_are_there() -> None:
    with card_of(MIB) as hardware:
        card = hardware.card
        assert card is not None
        one, two, home = (nn.Linear(8, 8).requires_grad_(False) for _ in range(3))
        home.to(hardware.device)
        stage, base = Stage(hardware.device), card.used
        kept = one.weight.data_ptr()

        def there() -> list[bool]:
            return [card.holds(module.weight) for module in (one, two, home)]

        with stage.of(one):
            assert there() == [True, False, True]
            assert card.used == 2 * base
            with stage.of(two, home):
                assert there() == [False, True, True]
            assert there() == [True, False, True]
            stage.change(two)
            assert there() == [False, True, True]
            two.to(torch.float64)
        assert there() == [False, False, True]
        assert card.used == base
        assert one.weight.data_ptr() == kept, "nothing was copied back"
        assert two.weight.dtype == torch.float64, "another number format stays"
        card.capacity = base + 270  # enough for the weight, not for the bias
        two.to(torch.float32)
        with pytest.raises(torch.OutOfMemoryError), stage.of(one):
            pass
        assert there() == [False, False, True]
        assert not one.weight.is_inference()


# -- loading ----------------------------------------------------------------------------------------------------------


def small(monkeypatch: pytest.MonkeyPatch, room: int = MIB) -> None:
    """The room that is left free, as small as the models."""
    monkeypatch.setattr(offload_module, "WORKING_MEMORY", room)
    monkeypatch.setattr(offload_module, "UNET_ROOM", room)
    monkeypatch.setattr(keeper_module, "WORKING_MEMORY", room)
    monkeypatch.setattr(keeper_module, "UNET_ROOM", room)


@pytest.mark.parametrize(
    "capacity, expected, words",
    [
        (WHOLE, Offload.NONE, ""),
        (NETWORK, Offload.NETWORKS, "too large for xpu as a whole"),
        (BLOCKS, Offload.BLOCKS, "Not even the U-Net"),
    ],
)
def test_a_checkpoint_is_loaded_where_there_is_room(
    monkeypatch: pytest.MonkeyPatch, capacity: int, expected: Offload, words: str
) -> None:
    small(monkeypatch)
    with card_of(capacity) as hardware:
        assert hardware.card is not None
        loaded = ModelKeeper(hardware).checkpoint(tiny_info("sd1"))
        assert loaded.offload is expected
        weights = [weight for part in (loaded.model.unet, loaded.model.vae) for weight in part.parameters()]
        assert {hardware.card.holds(weight) for weight in weights} == {expected is Offload.NONE}
        assert (loaded.bytes > 15 * MIB) if expected is Offload.NONE else (loaded.bytes == 0)
        assert loaded.bytes <= hardware.card.peak < loaded.bytes + 1024
        notes = loaded.told()
        assert [words in note for note in notes] == ([True] if words else [])
        assert loaded.told() == ()


def test_when_memory_runs_out_while_loading_more_of_it_waits(
    monkeypatch: pytest.MonkeyPatch, processor: DiffusersEngine, untiled: None
) -> None:
    """The estimate is wrong. Training, which needs all of it on the card, is told so."""
    resolved = resolved_request(tiny_info("sd1"), steps=1, cfg_scale=1.0)
    monkeypatch.setattr(offload_module, "chosen", lambda *_: Offload.NONE)
    with card_of(NETWORK) as hardware:
        assert hardware.card is not None
        engine = engine_on(hardware, monkeypatch)
        events = paint(engine, resolved)
        assert said(events, "too large for xpu as a whole") == 1
        assert hardware.card.peak > 7 * MIB
        with pytest.raises(torch.OutOfMemoryError):
            ModelKeeper(hardware, whole=True).checkpoint(tiny_info("sd1"))
        engine.close()
    assert pixels(events) == pixels(paint(processor, resolved))
    tries: list[Any] = []

    def refuse(*rest: Any, place: Any, **more: Any) -> Any:
        tries.append(place({"unet": 1}))
        raise MemoryError

    monkeypatch.setattr(keeper_module, "load_checkpoint", refuse)
    with card_of(NETWORK) as hardware, pytest.raises(OutOfMemory, match="too little memory on xpu"):
        paint(engine_on(hardware, monkeypatch), resolved)
    assert [each.type for each in tries] == ["xpu", "cpu"], "there is no more to try"


def test_what_waits_is_put_away_for_the_machines_memory_and_the_rest_for_the_cards(
    monkeypatch: pytest.MonkeyPatch, quickly: None
) -> None:
    small(monkeypatch)
    machine = [2**40]
    monkeypatch.setattr(keeper_module, "available_bytes", lambda: machine[0])
    large, twin, little = tiny_info("sd1"), tiny_info("sd1-inpaint"), tiny_info("sprout")
    with card_of(12 * MIB) as hardware:
        keeper = ModelKeeper(hardware, limit=4)

        def held() -> list[str]:
            return [f"{loaded.model.info.name} {loaded.offload.name}" for loaded in keeper._held]

        keeper.checkpoint(large)
        keeper.checkpoint(little)
        assert held() == ["sd1-folder NETWORKS", "sprout-folder NONE"]
        keeper.checkpoint(large)
        assert held() == ["sd1-folder NETWORKS"], "its U-Net has to come"
        keeper.checkpoint(little, beside=[large, little])
        assert held() == ["sd1-folder NETWORKS", "sprout-folder NETWORKS"], "in one job both have to work"
        keeper.checkpoint(twin)
        assert len(held()) == 3
        keeper.drop()
        keeper.checkpoint(large)
        assert hardware.card is not None
        hardware.card.capacity = little.size + 2 * MIB
        assert [keeper.has_room(little, beside) for beside in ([], [large])] == [True, False]
        hardware.card.capacity = 12 * MIB
        machine[0] = 0
        keeper.checkpoint(twin)
        assert held() == ["sd1-inpaint-folder NETWORKS"]
        machine[0] = 2**40
        keeper.drop()
        keeper.checkpoint(little)
        keeper.checkpoint(twin, beside=[little, twin])
        assert held() == ["sd1-inpaint-folder NETWORKS"]
        keeper.drop()


# -- pictures ---------------------------------------------------------------------------------------------------------


def jobs(folder: Path) -> dict[str, ResolvedRequest]:
    inpaint, lora = tiny_info("sd1-inpaint"), tiny_info(tiny_lora("sd1"), "lora")
    merged = {"loras": (LoraUse(name="l", model=lora, te_weight=1.0, unet_weight=1.0),)}
    Desk.kept = InitImages(folder, folder)
    part = {"vae": tiny_info(tiny_vae_file("sd1"), "vae"), "text_encoders": (written(folder / "t.safetensors", "sd1"),)}
    refiner = RefinerPlan(model=inpaint, switch_at=0.4, from_call=None)
    calm: dict[str, Any] = {"steps": 2, "cfg_scale": 2.0}
    return {
        "inpainting model": resolved_request(inpaint, **merged, **calm, deep_cache=2, token_merging_ratio=0.5),
        "picture": over_a_picture("sd1-inpaint", mask={}, steps=2).model_copy(update=part),
        "second checkpoint": asked(steps=1, hires={"checkpoint": "sd1-inpaint", "upscaler": "Lanczos", "scale": 1.25}),
        "refiner": resolved_request(tiny_info("sd1"), refiner=refiner, batch_count=2, **merged, **calm),
    }


@pytest.mark.parametrize(
    "name, offload",
    [
        ("inpainting model", Offload.BLOCKS),
        ("picture", Offload.NETWORKS),
        ("second checkpoint", Offload.NETWORKS),
        ("refiner", Offload.NETWORKS),
        ("refiner", Offload.BLOCKS),
    ],
)
def test_pictures_stay_the_same(
    monkeypatch: pytest.MonkeyPatch,
    processor: DiffusersEngine,
    quickly: None,
    untiled: None,
    tmp_path: Path,
    name: str,
    offload: Offload,
) -> None:
    resolved = jobs(tmp_path)[name]
    whole = pixels(paint(processor, resolved))
    monkeypatch.setattr(offload_module, "chosen", lambda *_: offload)
    with card_of(NETWORK) as hardware:
        card = hardware.card
        assert card is not None
        if offload is Offload.BLOCKS:
            narrowed(monkeypatch, card)
        codes, there = encode._codes, list[bool]()

        def watched(module: Any, sample: torch.Tensor) -> torch.Tensor:
            there.append(card.holds(next(module.parameters())))
            return codes(module, sample)

        monkeypatch.setattr(encode, "_codes", watched)
        merged, sums = lora_module._merged, set[str]()

        def added(base: torch.Tensor, changes: Any, weight: Any, device: torch.device) -> torch.Tensor:
            sums.add(device.type)
            return merged(base, changes, weight, device)

        monkeypatch.setattr(lora_module, "_merged", added)
        engine = engine_on(hardware, monkeypatch)
        events = paint(engine, resolved)
        assert pixels(events) == whole
        assert set(there) == {True}
        assert sums == ({CARD.type} if resolved.loras else set()), "sums are rounded as where everything is on the card"
        assert not said(events, "Too little memory")
        assert said(events, "too large for" if offload is Offload.NETWORKS else "Not even") >= 1
        assert [loaded.bytes for loaded in engine._keeper._held] == [0] * len(resolved.checkpoints)
        assert card.used < MIB, "nothing stays but what prompts were encoded to"
        again = paint(engine, resolved)
        assert pixels(again) == whole
        assert said(again, "Loading") == said(again, "too large for") == said(again, "Not even") == 0
        engine.close()


@pytest.mark.parametrize("offload", [Offload.NETWORKS, Offload.BLOCKS])
def test_a_step_can_be_decoded_while_the_next_ones_wait(
    monkeypatch: pytest.MonkeyPatch, processor: DiffusersEngine, quickly: None, untiled: None, offload: Offload
) -> None:
    resolved = asked(prompt="a (red:1.3) fox", hires=None, keep=True, steps=2)
    monkeypatch.setattr(offload_module, "chosen", lambda *_: offload)

    def run(engine: DiffusersEngine) -> list[bytes]:
        events: list[Event] = []
        found = []
        for event in engine.run(resolved, CancelToken()):
            events.append(event)
            if isinstance(event, Progress):
                found.append(engine.decode(resolved.model, None, event.latents, 0))
        return found + pixels(events)

    with card_of(NETWORK) as hardware:
        engine = engine_on(hardware, monkeypatch)
        found = run(engine)
        engine.close()
    assert found == run(processor)
    assert len(found) == 3


def test_a_job_that_runs_out_of_memory_goes_on_with_less_and_the_next_one_begins_anew(
    monkeypatch: pytest.MonkeyPatch, processor: DiffusersEngine, quickly: None, untiled: None
) -> None:
    """A checkpoint lies on the card as a whole, and another program takes more and more of it while the U-Net works."""
    resolved = resolved_request(tiny_info("sd1"), steps=1, cfg_scale=1.0)
    whole = pixels(paint(processor, resolved))
    monkeypatch.setattr(offload_module, "chosen", lambda *_: Offload.NONE)
    with card_of(WHOLE) as hardware:
        card = hardware.card
        assert card is not None
        engine = engine_on(hardware, monkeypatch)

        def saved() -> list[bool]:
            events = paint(engine, resolved)
            assert pixels(events) == whole
            return [bool(said(events, words)) for words in ("once more", "out of the device", "block by block")]

        assert saved() == [False, False, False]
        (loaded,) = engine._keeper._held
        assert loaded.bytes > 15 * MIB
        with monkeypatch.context() as patch:
            narrowed(patch, card, NETWORK)
            assert saved() == [True, True, False]
            assert loaded.bytes == 0
            card.capacity = NETWORK
            assert saved() == [False, False, False], "what does not fit any more stays outside"
            assert loaded.bytes == 0
        card.capacity = WHOLE
        assert saved() == [False, False, False]
        assert loaded.bytes > 15 * MIB
        narrowed(monkeypatch, card)
        assert saved() == [True, True, True]
        engine.close()


def test_networks_make_room_for_the_next_and_blocks_follow_when_that_is_not_enough(
    monkeypatch: pytest.MonkeyPatch, processor: DiffusersEngine, quickly: None, untiled: None
) -> None:
    small(monkeypatch)
    resolved = resolved_request(tiny_info("sd1"), steps=2, cfg_scale=1.0)
    refiner = RefinerPlan(model=tiny_info("sd1-inpaint"), switch_at=0.4, from_call=None)
    with card_of(12 * MIB) as hardware:
        assert hardware.card is not None
        engine = engine_on(hardware, monkeypatch)
        paint(engine, resolved.model_copy(update={"refiner": refiner}))
        assert [loaded.offload for loaded in engine._keeper._held] == [Offload.NETWORKS] * 2
        narrowed(monkeypatch, hardware.card)
        events = paint(engine, resolved)
        engine.close()
    assert pixels(events) == pixels(paint(processor, resolved))
    words = ("once more", "without the other checkpoints", "out of the device", "block by block")
    assert [said(events, each) for each in words] == [3, 1, 0, 1]


def test_a_job_begins_with_what_its_checkpoint_needs() -> None:
    saving = Saving(Offload.NETWORKS)
    assert "one after the other" in saving.more(CARD)
    assert "block by block" in saving.more(CARD)
    assert saving.more(CARD) == ""
    saving = Saving(Offload.BLOCKS)
    assert "one after the other" in saving.more(CARD)
    assert saving.more(CARD) == ""
    assert choose_hardware("cpu").has_own_memory is False
    assert CardHardware(CARD, torch.float32, torch.float32, "sdpa").has_own_memory is True

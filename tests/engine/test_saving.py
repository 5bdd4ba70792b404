"""What happens when memory runs out: the same picture with less of it, and in the end a clear failure."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from studio.engine import encode
from studio.engine.decode import Decoder
from studio.engine.hardware import Hardware, choose_hardware
from studio.engine.keeper import ModelKeeper
from studio.engine.loading import LoadedVae
from studio.engine.offload import Offload
from studio.engine.runner import DiffusersEngine
from studio.engine.saving import Saving
from studio.errors import OutOfMemory
from studio.schema.engine import CancelToken
from studio.schema.events import Event, Finished, ImageReady, Status
from studio.schema.resolved import ResolvedRequest
from studio.schema.source import LATENT_UPSCALE
from tests.engine.samples import resolved_request
from tests.engine.test_source import asked as asked_over
from tests.tiny_models import tiny_info


def run(engine: DiffusersEngine, **changes: Any) -> list[Event]:
    return list(engine.run(resolved_request(tiny_info("sd1"), **{"cfg_scale": 2.0, **changes}), CancelToken()))


def over_a_picture(**source: Any) -> ResolvedRequest:
    """64x64 that begin with a picture of 128x96."""
    return asked_over("sd1", steps=2, source=source)


def pictures(events: list[Event]) -> list[ImageReady]:
    return [event for event in events if isinstance(event, ImageReady)]


def pixels(picture: ImageReady) -> np.ndarray[Any, Any]:
    return np.asarray(Image.open(io.BytesIO(picture.png))).astype(int)


def said(events: list[Event], words: str) -> bool:
    return any(isinstance(event, Status) and words in event.message for event in events)


def failing_unet(engine: DiffusersEngine, rows: int) -> Any:
    """Lets the U-Net run out of memory for more than `rows` rows at once; calling the answer ends that."""
    unet = engine.load(tiny_info("sd1")).model.unet

    def refuse(module: Any, args: tuple[torch.Tensor, ...]) -> None:
        if len(args[0]) > rows:
            raise torch.OutOfMemoryError("CUDA out of memory")

    return unet.register_forward_pre_hook(refuse).remove


def test_prompts_go_one_after_the_other_when_both_are_too_much(
    engine: DiffusersEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    (whole,) = pictures(run(engine))
    stop = failing_unet(engine, 1)
    with monkeypatch.context() as patch:
        patch.setattr(
            Saving, "decodes_in_tiles", lambda self, *_: False
        )  # tiles of a tiny random VAE are another picture
        events = run(engine)
    stop()
    assert said(events, "Too little memory: once more")
    (split,) = pictures(events)
    assert np.abs(pixels(whole) - pixels(split)).max() <= 2
    assert isinstance(events[-1], Finished)
    assert not said(run(engine), "Too little memory")
    assert pictures(run(engine))[0].png == whole.png


def test_when_nothing_helps_it_is_said(engine: DiffusersEngine) -> None:
    (whole,) = pictures(run(engine))
    stop = failing_unet(engine, 0)
    with pytest.raises(OutOfMemory, match="smaller"):
        run(engine)
    stop()
    assert pictures(run(engine))[0].png == whole.png


def failing_once(module: torch.nn.Module) -> list[int]:
    """Lets the module run out of memory at its first call; the answer grows by each."""
    calls: list[int] = []

    def refuse(*_: Any) -> None:
        calls.append(1)
        if len(calls) == 1:
            raise torch.OutOfMemoryError("CUDA out of memory")

    module.register_forward_pre_hook(refuse)
    return calls


def test_reading_the_prompt_is_tried_again_too() -> None:
    engine = DiffusersEngine("cpu", precision="fp32")
    calls = failing_once(engine.load(tiny_info("sd1")).model.text_encoders[0])
    events = run(engine)
    assert said(events, "Too little memory: once more")
    assert len(calls) > 1
    assert len(pictures(events)) == 1
    engine.close()


def test_encoding_the_picture_to_begin_with_is_tried_again_too(
    engine: DiffusersEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    codes, calls = encode._codes, []

    def first_fails(*arguments: Any) -> torch.Tensor:
        calls.append(1)
        if len(calls) == 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return codes(*arguments)

    monkeypatch.setattr(encode, "_codes", first_fails)
    events = list(engine.run(over_a_picture(), CancelToken()))
    assert said(events, "Too little memory: once more")
    assert len(pictures(events)) == 1


def test_other_checkpoints_go_before_anything_changes_the_picture() -> None:
    engine = DiffusersEngine("cpu", precision="fp32")
    (whole,) = pictures(run(engine))
    engine.load(tiny_info("sd2"))
    failing_once(engine.load(tiny_info("sd1")).model.unet)
    events = run(engine)
    assert said(events, "without the other checkpoints in memory")
    assert not said(events, "one after the other")
    assert [loaded.model.info.path for loaded in engine._keeper._held] == [tiny_info("sd1").path]
    assert pictures(events)[0].png == whole.png
    engine.close()


def test_other_checkpoints_go_before_a_picture_is_decoded_in_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = DiffusersEngine("cpu", precision="fp32")
    engine.load(tiny_info("sd2"))
    monkeypatch.setattr(Hardware, "free_memory", lambda self: 0 if len(engine._keeper._held) > 1 else 2**40)
    (picture,) = pictures(run(engine))
    assert len(engine._keeper._held) == 1
    assert "tiled VAE" not in picture.infotext
    engine.close()


def test_a_picture_that_begins_with_one_encoded_in_tiles_says_so(
    engine: DiffusersEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The original of a latent upscale is larger than what is painted, and only that is too much."""
    asked: list[tuple[int, int]] = []

    def too_much(self: Saving, hardware: Hardware, width: int, height: int) -> bool:
        asked.append((width, height))
        return width > 64

    monkeypatch.setattr(Saving, "decodes_in_tiles", too_much)
    (picture,) = pictures(list(engine.run(over_a_picture(resize_mode=LATENT_UPSCALE), CancelToken())))
    assert (128, 96) in asked
    assert "tiled VAE" in picture.infotext
    (picture,) = pictures(list(engine.run(over_a_picture(), CancelToken())))
    assert "tiled VAE" not in picture.infotext, "that was another job"


def test_a_vae_that_fails_in_its_format_is_named_from_then_on() -> None:
    engine = DiffusersEngine("cpu", precision="bf16")
    (plain,) = pictures(run(engine))
    module = engine.load(tiny_info("sd1")).model.vae
    hook = module.decoder.register_forward_hook(
        lambda module, _, output: output if output.dtype == torch.float32 else output * float("nan")
    )
    (failed,) = pictures(run(engine))
    hook.remove()
    (later,) = pictures(run(engine))
    assert ["float32 VAE" in picture.infotext for picture in (plain, failed, later)] == [False, True, True]
    engine.close()


def test_pictures_that_were_finished_before_are_not_made_again(
    engine: DiffusersEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = pictures(run(engine, batch_size=3))
    decode, calls = Decoder._decode, []

    def second_fails(self: Decoder, latents: torch.Tensor) -> torch.Tensor:
        calls.append(1)
        if len(calls) == 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return decode(self, latents)

    monkeypatch.setattr(Decoder, "_decode", second_fails)
    events = run(engine, batch_size=3)
    found = pictures(events)
    assert [picture.index for picture in found] == [0, 1, 2]
    assert len(calls) == 4
    assert [bool("tiled VAE" in picture.infotext) for picture in found] == [False, True, True]
    assert np.abs(pixels(found[0]) - pixels(whole[0])).max() <= 2
    finished = events[-1]
    assert isinstance(finished, Finished)
    assert finished.images == 3


def test_tiles_are_for_what_is_larger_than_the_vae_was_trained_on_and_are_turned_off_again() -> None:
    keeper = ModelKeeper(choose_hardware("cpu", precision="fp32"))
    loaded = keeper.checkpoint(tiny_info("sd1"))
    vae, side = LoadedVae(loaded.model.vae, loaded.model.latent), loaded.model.vae.tile_latent_min_size
    noise = torch.randn(4, 3 * side, 2 * side, generator=torch.Generator().manual_seed(1))

    def decoded(latents: torch.Tensor, *, tiled: bool) -> np.ndarray[Any, Any]:
        with torch.inference_mode():
            return np.asarray(Decoder(vae, tiled=tiled).picture(latents)).astype(int)

    small, large = noise[:, :side, :side], noise
    assert np.array_equal(decoded(small, tiled=True), decoded(small, tiled=False))
    assert vae.marks == set(), "a single tile is the whole"
    whole, tiled, again = (decoded(large, tiled=tiles) for tiles in (False, True, False))
    assert vae.marks == {"tiled VAE"}
    assert vae.module.tile_latent_min_size == side
    assert whole.shape == tiled.shape
    assert not np.array_equal(whole, tiled)
    assert np.array_equal(whole, again)
    keeper.drop()


def test_tiles_are_taken_where_a_whole_picture_would_not_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    hardware, saving = choose_hardware("cpu", precision="fp32"), Saving()
    monkeypatch.setattr(Hardware, "free_memory", lambda self: 2 * 2**30)
    assert saving.decodes_in_tiles(hardware, 512, 512) is False
    assert saving.decodes_in_tiles(hardware, 2048, 2048) is True


def test_on_a_processor_there_is_nothing_else_to_save() -> None:
    saving, cpu = Saving(), torch.device("cpu")
    assert "one after the other" in saving.more(cpu)
    assert saving.more(cpu) == ""


def test_on_a_card_networks_wait_outside_then_blocks() -> None:
    saving, card = Saving(), torch.device("cuda")
    said = [saving.more(card) for _ in range(4)]
    assert all(
        words in text for words, text in zip(("tiles", "out of the device", "block by block"), said, strict=False)
    )
    assert said[3] == ""
    assert saving.offload is Offload.BLOCKS

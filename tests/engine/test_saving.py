"""What happens when memory runs out: the same picture with less of it, and in the end a clear failure."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

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
from tests.engine.samples import resolved_request
from tests.tiny_models import tiny_info


def run(engine: DiffusersEngine, **changes: Any) -> list[Event]:
    return list(engine.run(resolved_request(tiny_info("sd1"), **{"cfg_scale": 2.0, **changes}), CancelToken()))


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
    whole, tiled, again = (decoded(large, tiled=tiles) for tiles in (False, True, False))
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

"""Pictures whose edges meet: where the noise is shifted around the edges, the picture is."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

import studio.engine.passes
from studio.engine.decode import Decoder
from studio.engine.encode import encoded
from studio.engine.hardware import choose_hardware
from studio.engine.keeper import ModelKeeper
from studio.engine.loading import LoadedVae
from studio.engine.passes import DenoisingPass, batch_noise, blank_inpaint_channels
from studio.engine.runner import DiffusersEngine
from studio.engine.saving import Saving
from studio.engine.wrapping import set_wrapping
from studio.samplers.noise import ImageNoise
from studio.schema.engine import CancelToken
from studio.schema.events import ImageReady, Progress
from studio.schema.request import RunOptions
from tests.engine.samples import resolved_request
from tests.tiny_models import tiny_info

HARDWARE = choose_hardware("cpu", precision="fp32")
SHIFT = (4, 12)
"""Latents, down and right: the tiny U-Net halves its sides twice."""
ACCEPTED = 2
"""8-bit levels: sums in another order."""


@pytest.fixture(scope="module")
def keeper() -> Iterator[ModelKeeper]:
    found = ModelKeeper(HARDWARE)
    yield found
    found.drop()


def painted(keeper: ModelKeeper, **changes: Any) -> tuple[Tensor, np.ndarray[Any, Any]]:
    """The finished latents [C, h, w] and the picture [H, W, 3]."""
    info = tiny_info("sprout")
    loaded = keeper.checkpoint(info)
    request = resolved_request(info, width=96, height=64, **changes)
    x = list(DenoisingPass(loaded, request, HARDWARE, Saving()).steps([1]))[-1].x[0]
    with torch.inference_mode():
        picture = Decoder(LoadedVae(loaded.model.vae, loaded.model.latent), wraps=request.tiling).picture(x)
    return x, np.asarray(picture).astype(int)


def shift_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    def shifted(*given: Any) -> ImageNoise:
        noise = batch_noise(*given)
        start = noise.start
        noise.start = lambda: torch.roll(start(), SHIFT, (2, 3))  # type: ignore[method-assign]
        return noise

    monkeypatch.setattr(studio.engine.passes, "batch_noise", shifted)


@pytest.mark.parametrize("tiling", [True, False])
def test_shifted_noise_is_a_shifted_picture(keeper: ModelKeeper, monkeypatch: pytest.MonkeyPatch, tiling: bool) -> None:
    x, picture = painted(keeper, tiling=tiling)
    shift_noise(monkeypatch)
    x_shifted, picture_shifted = painted(keeper, tiling=tiling)
    again = torch.allclose(torch.roll(x, SHIFT, (1, 2)), x_shifted, rtol=1e-3, atol=1e-3)
    pixels = tuple(4 * latents for latents in SHIFT)
    distance = np.abs(np.roll(picture, pixels, (0, 1)) - picture_shifted).max()
    assert (again, distance <= ACCEPTED) == (tiling, tiling)


def test_a_later_picture_does_not_know_of_it(keeper: ModelKeeper) -> None:
    before, _ = painted(keeper)
    tiled, _ = painted(keeper, tiling=True)
    after, _ = painted(keeper)
    assert torch.equal(before, after)
    assert not torch.allclose(before, tiled)


def pixels(png: bytes) -> np.ndarray[Any, Any]:
    return np.asarray(Image.open(io.BytesIO(png))).astype(int)


def test_the_file_is_byte_equal_again_and_steps_are_decoded_as_they_were_painted(engine: DiffusersEngine) -> None:
    """Also while a tiled picture is under way, and of one that was painted before it."""
    info = tiny_info("sprout")
    options = RunOptions(preview_every=0, keep_latents=True)

    def paint(tiling: bool, look_at: bytes = b"") -> tuple[bytes, bytes]:
        kept = png = b""
        for event in engine.run(resolved_request(info, tiling=tiling, options=options), CancelToken()):
            if isinstance(event, Progress):
                kept = event.latents
                assert not look_at or engine.decode(info, None, look_at, 0) == decoded
            elif isinstance(event, ImageReady):
                png = event.png
        return png, kept

    plain, kept_plain = paint(False)
    decoded = engine.decode(info, None, kept_plain, 0)
    tiled, kept_tiled = paint(True, look_at=kept_plain)
    assert paint(False)[0] == plain != tiled
    assert engine.decode(info, None, kept_plain, 0) == decoded
    for png, kept in ((plain, kept_plain), (tiled, kept_tiled)):
        assert np.abs(pixels(png) - pixels(engine.decode(info, None, kept, 0))).max() <= ACCEPTED
    with torch.inference_mode():  # the two ways of decoding are not the same
        ways = [
            pixels(engine.decode(info, None, kept, 0)) for kept in (kept_tiled, kept_tiled.replace(b"wraps", b"plain"))
        ]
    assert np.abs(ways[0] - ways[1]).max() > ACCEPTED


@contextmanager
def small_tiles(keeper: ModelKeeper) -> Iterator[LoadedVae]:
    """The autoencoder of the embedded model's kind, with tiles of 64 pixels."""
    loaded = keeper.checkpoint(tiny_info("sprout"))
    module = loaded.model.vae
    sizes = (module.tile_sample_min_size, module.tile_latent_min_size)
    module.tile_sample_min_size, module.tile_latent_min_size = 64, 16
    try:
        yield LoadedVae(module, loaded.model.latent)
    finally:
        module.tile_sample_min_size, module.tile_latent_min_size = sizes


def test_decoded_in_tiles_the_edges_meet_too(keeper: ModelKeeper) -> None:
    """The seam of the shifted picture lies in its middle; it is no sharper there than the picture that was not shifted."""
    x = torch.randn(4, 24, 24, generator=torch.Generator().manual_seed(3))
    with small_tiles(keeper) as vae, torch.inference_mode():
        whole, tiles, unaware = (
            np.asarray(Decoder(vae, tiled=tiled, wraps=wraps).picture(x)).astype(int)
            for tiled, wraps in ((False, True), (True, True), (True, False))
        )
    assert whole.shape == tiles.shape

    def at_the_edge(picture: np.ndarray[Any, Any]) -> float:
        return float(np.abs(picture[:2] - whole[:2]).mean())

    assert at_the_edge(tiles) < at_the_edge(unaware) / 2


@pytest.mark.parametrize("size", [(96, 96), (160, 64), (40, 200)])
def test_encoded_in_tiles_the_edges_meet_too(keeper: ModelKeeper, size: tuple[int, int]) -> None:
    """As in the middle of a picture that is repeated: a tile that wrapped around itself would differ at its own edges."""
    sample = torch.rand(3, *size, generator=torch.Generator().manual_seed(3)) * 2 - 1
    height, width = (side // 4 for side in size)
    with small_tiles(keeper) as vae, torch.inference_mode():
        repeated = encoded(sample.repeat(1, 3, 3), vae)[:, height : 2 * height, width : 2 * width]
        tiles, unaware = (encoded(sample, vae, tiled=True, wraps=wraps) for wraps in (True, False))
    assert tiles.shape == repeated.shape

    def distances(found: Tensor) -> list[float]:
        away = (found - repeated).abs().mean(dim=0)
        return [float(rim.mean()) for rim in (away[0], away[-1], away[:, 0], away[:, -1])]

    assert all(one < other / 2 for one, other in zip(distances(tiles), distances(unaware), strict=True))


def test_one_tile_wraps_as_a_whole(keeper: ModelKeeper) -> None:
    sample = torch.rand(3, 64, 48, generator=torch.Generator().manual_seed(3)) * 2 - 1
    with small_tiles(keeper) as vae, torch.inference_mode():
        assert torch.equal(encoded(sample, vae, tiled=True, wraps=True), encoded(sample, vae, wraps=True))


def test_only_padding_is_changed_and_inpainting_models_see_a_canvas_that_wraps(keeper: ModelKeeper) -> None:
    model = keeper.checkpoint(tiny_info("sd1-inpaint")).model
    with torch.inference_mode():
        vae = LoadedVae(model.vae, model.latent)
        plain, wrapped = (blank_inpaint_channels(vae, (4, 8, 12), tiling) for tiling in (False, True))
    assert not torch.equal(plain, wrapped)
    assert float(wrapped[:, 1:].flatten(2).std(dim=2).max()) < float(plain[:, 1:].flatten(2).std(dim=2).max())
    set_wrapping(model.unet, True)
    modes = {
        (layer.padding != (0, 0), layer.padding_mode)
        for layer in model.unet.modules()
        if isinstance(layer, torch.nn.Conv2d)
    }
    assert modes == {(True, "circular"), (False, "zeros")}

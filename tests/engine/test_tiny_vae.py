"""The tiny autoencoder: its two layouts beside diffusers' class and the layers of the original; whom it fits; what a picture becomes."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import AutoencoderTiny
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn

from studio.engine.decode import Decoder, to_pixels
from studio.engine.hardware import choose_hardware
from studio.engine.keeper import ModelKeeper
from studio.engine.loaded import LoadedCheckpoint
from studio.engine.runner import DiffusersEngine
from studio.engine.tiny_vae import load_tiny_vae
from studio.errors import IncompatibleFile, NotFound
from studio.families.tiny_vae import Half
from studio.schema.engine import CancelToken
from studio.schema.events import Event, ImageReady, Progress
from tests.engine.samples import resolved_request
from tests.engine.test_enlarging import done
from tests.engine.test_hires import no_upscaler
from tests.engine.test_upscale import plan_of
from tests.tiny_models import tiny_info

HARDWARE = choose_hardware("cpu", precision="fp32")
HALVES: tuple[Half, Half] = ("encoder", "decoder")


class Clamp(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(x / 3) * 3


class Block(nn.Module):
    """The original's, of equal width on both sides."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Sequential(layer(), nn.ReLU(), layer(), nn.ReLU(), layer())

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.conv(x) + x)


def layer(before: int = 64, after: int = 64, **options: Any) -> nn.Conv2d:
    return nn.Conv2d(before, after, 3, padding=1, **options)


def blocks(count: int) -> list[nn.Module]:
    return [Block() for _ in range(count)]


def original(half: Half) -> nn.Sequential:
    """The layers that https://github.com/madebyollin/taesd lists: pictures are in 0..1."""
    if half == "decoder":
        up = [part for _ in range(3) for part in (*blocks(3), nn.Upsample(scale_factor=2), layer(bias=False))]
        return nn.Sequential(Clamp(), layer(4), nn.ReLU(), *up, Block(), layer(64, 3))
    down = [part for _ in range(3) for part in (layer(stride=2, bias=False), *blocks(3))]
    return nn.Sequential(layer(3), Block(), *down, layer(64, 4))


@pytest.fixture(scope="module")
def networks() -> dict[Half, nn.Sequential]:
    """Random weights whose pictures are neither black nor white."""
    with torch.random.fork_rng():
        torch.manual_seed(4)
        made = {half: original(half).eval().requires_grad_(False) for half in HALVES}
    last = made["decoder"][-1]
    last.weight *= 20
    last.bias += 0.5
    return made


@pytest.fixture(scope="module")
def folder(networks: dict[Half, nn.Sequential], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The halves as the original's author gives them, and both as diffusers saves them."""
    made = tmp_path_factory.mktemp("vae_approx")
    whole = {}
    for half, network in networks.items():
        save_file(network.state_dict(), made / f"taesd_{half}.safetensors")
        for key, value in network.state_dict().items():
            number, _, rest = key.partition(".")
            whole[f"{half}.layers.{int(number) - (half == 'decoder')}.{rest}"] = value
    tiny = AutoencoderTiny()
    tiny.load_state_dict(whole)
    tiny.save_pretrained(made / "taesd")
    return made


def files(folder: Path, half: Half) -> list[Path]:
    return [folder / f"taesd_{half}.safetensors", folder / "taesd" / "diffusion_pytorch_model.safetensors"]


@pytest.fixture(scope="module")
def loaded() -> LoadedCheckpoint:
    return ModelKeeper(HARDWARE).checkpoint(tiny_info("sd1"))


def latents(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def test_decoding_is_that_of_diffusers_and_of_the_original(
    folder: Path, networks: dict[Half, nn.Sequential], loaded: LoadedCheckpoint
) -> None:
    x = latents(4, 8, 12)
    theirs = AutoencoderTiny.from_pretrained(folder / "taesd").decode(x[None]).sample[0]
    assert torch.allclose(theirs, networks["decoder"](x[None])[0] * 2 - 1, atol=1e-5)
    expected = to_pixels(theirs).numpy()
    assert expected.std() > 10
    for file in files(folder, "decoder"):
        vae = load_tiny_vae(file, "decoder", loaded.model, torch.float32)
        assert np.array_equal(np.asarray(Decoder(vae).picture(x)), expected)
        assert vae.latent.scale == 8


@torch.no_grad()
def test_encoding_is_that_of_diffusers_and_of_the_original(
    folder: Path, networks: dict[Half, nn.Sequential], loaded: LoadedCheckpoint
) -> None:
    from studio.engine.upscale import begun, enlarged

    x = latents(1, 4, 8, 8)
    decoder = load_tiny_vae(files(folder, "decoder")[0], "decoder", loaded.model, torch.float32)
    large = Decoder(decoder).picture(x[0]).resize((96, 128), Image.Resampling.LANCZOS)
    pixels = torch.tensor(np.asarray(large)).permute(2, 0, 1)[None] / 255
    expected = networks["encoder"](pixels)
    theirs = AutoencoderTiny.from_pretrained(folder / "taesd").encode(pixels * 2 - 1).latents
    assert torch.allclose(theirs, expected, atol=1e-5)
    for file in files(folder, "encoder"):
        encoder = load_tiny_vae(file, "encoder", loaded.model, torch.float32)
        plan = plan_of("Lanczos", (96, 128))
        large, _ = done(enlarged(x, plan, decoder, no_upscaler))
        found = begun(large, plan, encoder)
        assert torch.allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("half", HALVES)
def test_what_does_not_fit_is_refused(folder: Path, loaded: LoadedCheckpoint, half: Half) -> None:
    other = HALVES[half == "encoder"]
    with pytest.raises(IncompatibleFile, match=f"lacks .* of the tiny {half}"):
        load_tiny_vae(folder / f"taesd_{other}.safetensors", half, loaded.model, torch.float32)
    sprout = ModelKeeper(HARDWARE).checkpoint(tiny_info("sprout")).model
    with pytest.raises(IncompatibleFile, match="Choose Full"):
        load_tiny_vae(folder / f"taesd_{half}.safetensors", half, sprout, torch.float32)


def painted(engine: DiffusersEngine, family: str = "sd1", **changes: Any) -> tuple[np.ndarray[Any, Any], str]:
    request = resolved_request(tiny_info(family), steps=2, cfg_scale=2.0, **changes)
    (picture,) = [event for event in engine.run(request, CancelToken()) if isinstance(event, ImageReady)]
    return np.asarray(Image.open(io.BytesIO(picture.png))).astype(int), picture.infotext


def test_a_picture_by_the_tiny_decoder(engine: DiffusersEngine, folder: Path) -> None:
    file = str(files(folder, "decoder")[0])
    full, text = painted(engine)
    tiny, told = painted(engine, tiny_decoder=file)
    assert "VAE Decoder: TAESD" in told and "VAE Decoder" not in text
    assert tiny.shape == full.shape and not np.array_equal(tiny, full)
    assert np.array_equal(painted(engine, tiny_decoder=str(files(folder, "decoder")[1]))[0], tiny)
    assert np.array_equal(painted(engine)[0], full)
    wrapped, _ = painted(engine, tiny_decoder=file, tiling=True)
    assert not np.array_equal(wrapped, tiny)


def test_a_second_pass_through_the_tiny_halves(engine: DiffusersEngine, folder: Path) -> None:
    plan = plan_of("Lanczos", (96, 96))
    halves = {f"tiny_{half}": str(files(folder, half)[0]) for half in HALVES}
    kinds = [painted(engine, hires=plan, **{name: halves[name] for name in names})
             for names in ((), ("tiny_encoder",), ("tiny_decoder",), tuple(halves))]  # fmt: skip
    assert len({picture.tobytes() for picture, _ in kinds}) == 4
    assert [("VAE Encoder: TAESD" in text, "VAE Decoder: TAESD" in text) for _, text in kinds] == [
        (False, False), (True, False), (False, True), (True, True)
    ]  # fmt: skip


def test_what_cannot_be_used_is_told_before_a_step_is_painted(
    engine: DiffusersEngine, folder: Path, tmp_path: Path
) -> None:
    def fails(kind: type[Exception], family: str, file: Path) -> None:
        seen: list[Event] = []
        with pytest.raises(kind):
            seen.extend(engine.run(resolved_request(tiny_info(family), tiny_decoder=str(file)), CancelToken()))
        assert not any(isinstance(event, Progress) for event in seen)

    fails(IncompatibleFile, "sprout", files(folder, "decoder")[0])
    fails(NotFound, "sd1", tmp_path / "gone.safetensors")

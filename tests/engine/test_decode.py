"""The last step: rounding, and the answer to a VAE that gives NaN or black."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from studio.engine.decode import FLOAT32, Decoder, NotAlone, tile_side, to_pixels
from studio.engine.loading import LatentFacts, LoadedVae
from studio.errors import EngineError
from studio.families.spec import PreviewFactors

FACTS = LatentFacts(
    channels=4, scale=8, scaling_factor=0.5, shift_factor=0.25, preview=PreviewFactors(((0.0, 0.0, 0.0),) * 4)
)


@dataclasses.dataclass
class FakeVae:
    """Gives `good`, or what is in `bad` for its number format."""

    dtype: torch.dtype
    tile_sample_min_size: int = 512
    good: float = 0.0
    bad: dict[torch.dtype, float] = dataclasses.field(default_factory=dict)
    inputs: list[Tensor] = dataclasses.field(default_factory=list)

    def decode(self, latents: Tensor) -> Any:
        self.inputs.append(latents)
        return SimpleNamespace(sample=torch.full((1, 3, 16, 16), self.bad.get(self.dtype, self.good), dtype=self.dtype))

    def modules(self) -> tuple[()]:
        return ()

    def to(self, *, dtype: torch.dtype) -> None:
        self.dtype = dtype


def decoder(vae: FakeVae) -> Decoder:
    return Decoder(LoadedVae(vae, FACTS))  # type: ignore[arg-type]


def test_values_are_cut_not_rounded() -> None:
    values = torch.tensor([-2.0, -1.0, -0.996, 0.0, 0.9999, 1.0, 2.0])
    pixels = to_pixels(values.view(1, 1, -1).expand(3, 1, -1))
    assert pixels[0, :, 0].tolist() == [0, 0, 0, 127, 254, 255, 255]


def test_latents_are_scaled_and_shifted() -> None:
    vae = FakeVae(torch.float32)
    decoder(vae).picture(torch.full((4, 2, 2), 1.5))
    assert vae.inputs[0].shape == (1, 4, 2, 2)
    assert vae.inputs[0].unique().tolist() == [3.25]


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -1.0])
def test_a_lost_picture_is_decoded_again_in_float32_and_the_vae_stays_there(bad: float) -> None:
    vae = FakeVae(torch.float16, good=0.5, bad={torch.float16: bad})
    painter = decoder(vae)
    assert painter.picture(torch.zeros(4, 2, 2)).getpixel((0, 0)) == (191, 191, 191)
    assert vae.dtype == torch.float32
    painter.picture(torch.zeros(4, 2, 2))
    assert len(vae.inputs) == 3


def test_nan_in_float32_is_an_error_and_not_a_picture() -> None:
    with pytest.raises(EngineError, match="VAE file may be damaged"):
        decoder(FakeVae(torch.float16, good=float("nan"))).picture(torch.zeros(4, 2, 2))


def test_black_in_float32_is_a_picture() -> None:
    assert decoder(FakeVae(torch.float32, good=-1.0)).picture(torch.zeros(4, 2, 2)).getpixel((0, 0)) == (0, 0, 0)


def test_black_in_every_format_leaves_the_vae_as_it_is() -> None:
    """Else a picture that is meant to be black would change all that come after it."""
    vae = FakeVae(torch.float16, good=-1.0)
    loaded = LoadedVae(vae, FACTS, dtype=torch.float16)  # type: ignore[arg-type]
    assert Decoder(loaded).picture(torch.zeros(4, 2, 2)).getpixel((0, 0)) == (0, 0, 0)
    assert (vae.dtype, loaded.marks) == (torch.float16, set())


def test_a_vae_that_went_to_float32_marks_this_picture_and_the_next() -> None:
    vae = FakeVae(torch.float16, good=0.5, bad={torch.float16: float("nan")})
    first, second = (LoadedVae(vae, FACTS, dtype=torch.float16) for _ in range(2))  # type: ignore[arg-type]
    for loaded in (first, second):
        Decoder(loaded).picture(torch.zeros(4, 2, 2))
        assert loaded.marks == {FLOAT32}
    plain = LoadedVae(FakeVae(torch.float32), FACTS, dtype=torch.float32)  # type: ignore[arg-type]
    Decoder(plain).picture(torch.zeros(4, 2, 2))
    assert plain.marks == set()


def test_beside_another_thread_nothing_is_converted() -> None:
    vae = FakeVae(torch.float16, good=0.5, bad={torch.float16: float("nan")})
    loaded = LoadedVae(vae, FACTS, dtype=torch.float16)  # type: ignore[arg-type]
    with pytest.raises(NotAlone):
        Decoder(loaded, beside=True).picture(torch.zeros(4, 2, 2))
    assert (vae.dtype, loaded.marks) == (torch.float16, set())


@pytest.mark.parametrize(
    ("own", "size", "side"),
    [
        (512, (1024, 512), 512),
        (512, (768, 640), 512),
        (512, (640, 640), 256),
        (512, (512, 512), 256),
        (512, (256, 256), None),
        (1024, (2048, 1024), 1024),
        (1024, (1024, 1024), 512),
        (1024, (1152, 896), 512),
        (1024, (512, 512), None),
        (128, (160, 128), 128),
        (128, (128, 128), None),
    ],
)
def test_tiles_spare_memory_for_every_size_that_needs_any(own: int, size: tuple[int, int], side: int | None) -> None:
    """A tile never has more than two thirds of the picture's longer side, unless the VAE is for pictures that are small anyway."""
    vae = LoadedVae(FakeVae(torch.float32, tile_sample_min_size=own), FACTS)  # type: ignore[arg-type]
    assert tile_side(vae, *size) == tile_side(vae, *size[::-1]) == side


def test_where_memory_runs_out_in_the_second_try_the_vae_is_as_before() -> None:
    """It may be black that was painted: the next attempt asks again."""
    vae = FakeVae(torch.float16, good=-1.0)
    loaded, decode = LoadedVae(vae, FACTS, dtype=torch.float16), vae.decode  # type: ignore[arg-type]

    def short_of_memory(latents: Tensor) -> Any:
        if vae.dtype == torch.float32:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return decode(latents)

    vae.decode = short_of_memory  # type: ignore[method-assign]
    with pytest.raises(torch.OutOfMemoryError):
        Decoder(loaded).picture(torch.zeros(4, 2, 2))
    assert (vae.dtype, loaded.marks) == (torch.float16, set())

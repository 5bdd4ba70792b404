"""What SD upscale comes to: sizes, tiles, upscalers, and what cannot be."""

from __future__ import annotations

from typing import Any

import pytest

from studio.errors import IncompatibleFile, InvalidRequest, UnknownName
from studio.resolve import fixed, resolve
from studio.schema.request import GenerationRequest, make_request
from studio.schema.resolved import InitImage, ResolvedRequest
from studio.schema.upscale import SdUpscale
from tests.test_resolve import SHELF, Shelf

NAME = "0" * 32


def run(request: GenerationRequest, size: tuple[int, int] = (500, 333)) -> ResolvedRequest:
    class Desk(Shelf):
        def init_image(self, name: str) -> InitImage:
            return InitImage(name=name, path="/m/x.png", width=size[0], height=size[1], md5="")

    desk = Desk()
    desk.models = SHELF.models
    return resolve(request, desk, lambda: 5)


def asked(size: tuple[int, int] = (500, 333), part: dict[str, Any] | None = None, **changes: Any) -> ResolvedRequest:
    whole = {"upscaler": "Lanczos", **(part or {})}
    return run(make_request({"source": {"image": NAME}, "sd_upscale": whole, "seed": 3, **changes}), size)


def test_the_picture_is_enlarged_to_multiples_of_8_and_tiles_are_no_larger() -> None:
    resolved = asked(part={"scale_factor": 1.9}, width=512, height=768)
    assert resolved.final_size == (944, 632)  # 950 x 632.7
    assert (resolved.width, resolved.height) == (512, 632)
    assert resolved.sd_upscale is not None
    assert (resolved.sd_upscale.tile, resolved.sd_upscale.overlap) == ((512, 632), 64)
    assert resolved.sd_upscale.upscaler_model is None


def test_batches_are_pictures() -> None:
    resolved = asked(batch_count=3, batch_size=4)
    assert resolved.seeds == (3, 4, 5)
    assert (resolved.picture_count, resolved.pictures_at_once, resolved.batch_size) == (3, 1, 4)


def test_none_leaves_the_size_and_a_model_has_its_file() -> None:
    resolved = asked(part={"upscaler": "none", "scale_factor": 3})
    assert resolved.final_size == (496, 328)
    assert resolved.sd_upscale and resolved.sd_upscale.scale_factor == 1
    resolved = asked(part={"upscaler": "4x-UltraSharp"})
    assert [file.name for file in resolved.upscaler_models] == ["4x-UltraSharp"]


def test_answers_are_written_in() -> None:
    request = make_request(
        {
            "source": {"image": NAME, "resize_mode": "Crop and resize"},
            "sd_upscale": {"upscaler": "lanczos"},
            "height": 2048,
        }
    )
    first = run(request)
    again = fixed(request, first)
    assert again.sd_upscale == SdUpscale(upscaler="Lanczos")
    assert (again.width, again.height) == (512, 664)
    assert again.source and again.source.resize_mode == "Just resize", "no picture is brought to another shape"
    assert fixed(again, run(again)) == again


@pytest.mark.parametrize(
    "size, part, changes, error, field, words",
    [
        ((500, 333), {"upscaler": "4x-UltraSoft"}, {}, UnknownName, "sd_upscale.upscaler", "Did you mean"),
        ((500, 333), {"upscaler": "pickle"}, {}, IncompatibleFile, "sd_upscale.upscaler", "pickle file"),
        ((500, 333), {"upscaler": "Latent"}, {}, InvalidRequest, "sd_upscale.upscaler", "works on latents"),
        ((2060, 333), {}, {}, InvalidRequest, "sd_upscale.scale_factor", "would make 4120x664"),
        ((40, 30), {"scale_factor": 1.5}, {}, InvalidRequest, "sd_upscale.scale_factor", "64 to 4096"),
        ((500, 333), {"overlap": 128}, {"width": 128}, InvalidRequest, "sd_upscale.overlap", "tiles of 128x512"),
        ((1000, 1000), {"overlap": 56}, {"width": 64, "height": 64}, InvalidRequest, "width", "59,049 tiles"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_told(
    size: tuple[int, int], part: dict[str, Any], changes: dict[str, Any], error: type[Exception], field: str, words: str
) -> None:
    with pytest.raises(error, match=words) as caught:
        asked(size, part, **changes)
    assert caught.value.field == field  # type: ignore[attr-defined]


def test_an_overlap_of_one_tile_is_none() -> None:
    assert asked((32, 32), {"overlap": 256, "scale_factor": 2}).final_size == (64, 64)

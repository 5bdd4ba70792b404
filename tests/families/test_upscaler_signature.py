"""What an upscaler is, by the names and shapes of files as they are published, and what is no upscaler."""

from __future__ import annotations

from typing import Any

import pytest

from studio.families import UpscalerSignature, describe_upscaler

Names = dict[str, list[int]]


def described(tensors: Names) -> UpscalerSignature:
    return describe_upscaler({key: {"dtype": "F32", "shape": shape} for key, shape in tensors.items()})


def conv(name: str, after: int, before: int) -> Names:
    return {f"{name}.weight": [after, before, 3, 3], f"{name}.bias": [after]}


def rrdb(
    block: str, trunk: str, ups: list[str], ends: tuple[str, str, str], blocks: int = 23, channels: int = 3
) -> Names:
    """As published: 64 features, growth 32. `ends` are the first convolution and the two that make the picture."""
    found = {**conv(ends[0], 64, channels), **conv(trunk, 64, 64), **conv(ends[1], 64, 64), **conv(ends[2], 3, 64)}
    for n in range(blocks):
        for d in (1, 2, 3):
            for c in range(1, 6):
                found |= conv(block.format(n=n, d=d, c=c), 64 if c == 5 else 32, 64 + 32 * (c - 1))
    for up in ups:
        found |= conv(up, 64, 64)
    return found


def new(blocks: int = 23, channels: int = 3) -> Names:
    ends = ("conv_first", "conv_hr", "conv_last")
    return rrdb("body.{n}.rdb{d}.conv{c}", "conv_body", ["conv_up1", "conv_up2"], ends, blocks, channels)


def old(ups: int, blocks: int = 23) -> Names:
    ends = ("model.0", f"model.{3 * ups + 2}", f"model.{3 * ups + 4}")
    doublings = [f"model.{3 * i + 3}" for i in range(ups)]
    return rrdb("model.1.sub.{n}.RDB{d}.conv{c}.0", f"model.1.sub.{blocks}", doublings, ends, blocks)


PUBLISHED = rrdb(
    "RRDB_trunk.{n}.RDB{d}.conv{c}", "trunk_conv", ["upconv1", "upconv2"], ("conv_first", "HRconv", "conv_last")
)


def compact(convs: int, times: int = 4) -> Names:
    found = conv("body.0", 64, 3) | {f"body.{2 * i + 1}.weight": [64] for i in range(convs + 1)}
    for i in range(1, convs + 1):
        found |= conv(f"body.{2 * i}", 64, 64)
    return found | conv(f"body.{2 * convs + 2}", 3 * times**2, 64)


@pytest.mark.parametrize(
    "tensors, architecture, enlarges, blocks, fold",
    [
        (new(), "rrdb", 4, 23, 1),  # RealESRGAN_x4plus
        (new(6), "rrdb", 4, 6, 1),  # RealESRGAN_x4plus_anime_6B
        (new(channels=12), "rrdb", 2, 23, 2),  # RealESRGAN_x2plus
        (new(channels=48), "rrdb", 1, 23, 4),
        (PUBLISHED, "rrdb", 4, 23, 1),  # RRDB_ESRGAN_x4, BSRGAN
        (old(2), "rrdb", 4, 23, 1),  # ESRGAN_4x, 4x-UltraSharp
        (old(0, 5), "rrdb", 1, 5, 1),
        (old(3), "rrdb", 8, 23, 1),
        (compact(32), "compact", 4, 32, 1),  # realesr-general-x4v3
        (compact(16), "compact", 4, 16, 1),  # realesr-animevideov3
        (compact(8, 2), "compact", 2, 8, 1),
    ],
)
def test_what_is_published_is_known(tensors: Names, architecture: str, enlarges: int, blocks: int, fold: int) -> None:
    found = described(tensors)
    assert found.problem is None
    assert (found.architecture, found.enlarges, found.blocks, found.fold) == (architecture, enlarges, blocks, fold)
    assert (found.features, found.growth) == (64, 32 if architecture == "rrdb" else 0)
    assert sorted(found.names.values()) == sorted(tensors)


def test_a_training_checkpoints_average_counts() -> None:
    both = {f"{start}.{key}": shape for start in ("params", "params_ema") for key, shape in compact(2).items()}
    found = described(both)
    assert found.problem is None
    assert found.names["body.0.weight"] == "params_ema.body.0.weight"


def without(tensors: Names, *names: str) -> Names:
    return {key: shape for key, shape in tensors.items() if key not in names}


@pytest.mark.parametrize(
    "tensors, words",
    [
        ({}, "no upscaler of a kind"),
        ({"lora_unet_x.lora_down.weight": [1, 768]}, "no upscaler of a kind"),
        (without(new(2), "body.1.rdb2.conv3.bias"), "lacks body.1.rdb2.conv3.bias"),
        (new(1) | {"body.0.rdb1.conv1x1.weight": [32, 64, 1, 1]}, "also holds body.0.rdb1.conv1x1.weight"),
        (old(1, 1) | {"model.1.sub.0.RDB1.conv1x1.weight": [32, 64, 1, 1]}, "also holds model.1.sub.0.RDB1.conv1x1"),
        (old(4, 1), "doubles the size 4 times"),
        (without(old(2, 1), "model.6.weight", "model.6.bias"), "lacks"),
        (new(1, channels=1), "takes 1 channels and gives 3"),
        (new(1) | conv("conv_last", 1, 64), "takes 3 channels and gives 1"),
        (old(0, 1) | conv("model.0", 64, 12), "make pictures smaller"),
        (compact(2) | {"body.0.weight": [64, 1, 3, 3]}, "takes 1 channels"),
        (compact(2) | {"body.6.weight": [50, 64, 3, 3]}, "gives 50"),
        (compact(2) | {"body.6.weight": [3 * 81, 64, 3, 3]}, "gives 243"),
        (without(compact(2), "body.3.weight"), "lacks body.3.weight"),
        ({"body.1.weight": []}, "lacks"),
        (new(1) | {"conv_first.weight": [64]}, "no upscaler of a kind"),
    ],
)  # fmt: skip
def test_what_is_none_is_told(tensors: dict[str, Any], words: str) -> None:
    found = described(tensors)
    assert found.architecture == "unknown"
    assert found.problem and words in found.problem

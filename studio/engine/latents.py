"""The latents of one step as bytes: how they leave the engine to be kept, and how they come back.

A safetensors file of two float16 tensors [B, C, h, w], `x` (the latents after the step) and `denoised` (the x0 predicted in it),
with `step`, `sigma` (a hexadecimal float: exact), `backend`, `painter` (the path of the checkpoint) and, for a picture whose edges meet, `wraps`
as its metadata. Half precision keeps eleven bits of a number,
which no eye can tell from the whole; a branch always begins with latents that were rounded so, kept ones or not.
"""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from studio.engine.passes import StartPoint
from studio.errors import EngineError
from studio.families.header import metadata
from studio.samplers.types import Step


@dataclass(frozen=True)
class StepLatents:
    """What was kept of one step. Tensors are float16 on the CPU, [B, C, h, w]; `backend` is who painted them."""

    x: Tensor
    denoised: Tensor
    step: int
    sigma: float
    backend: str
    wraps: bool = False


def pack_step(step: Step, backend: str, painter: str, *, wraps: bool = False) -> bytes:
    """The bytes of `step`, whose number counts from 1 in them."""
    tensors = {"x": _half(step.x), "denoised": _half(step.denoised)}
    facts = {"step": str(step.index + 1), "sigma": step.sigma_next.hex(), "backend": backend, "painter": painter}
    return save(tensors, {**facts, "wraps": "yes"} if wraps else facts)


def unpack_step(data: bytes) -> StepLatents:
    """The inverse of `pack_step`. Raises `EngineError` for bytes that it did not make."""
    try:
        tensors, facts = load(data), _facts(data)
        return StepLatents(
            tensors["x"],
            tensors["denoised"],
            int(facts["step"]),
            float.fromhex(facts["sigma"]),
            facts["backend"],
            "wraps" in facts,
        )
    except (SafetensorError, KeyError, ValueError) as error:
        raise EngineError(f"The kept latents of this step are damaged ({error}).") from error


def rounded(x: Tensor) -> Tensor:
    """`x` as it comes back from being kept: through float16, in its own format and place."""
    return x.half().to(x.dtype)


def start_point(
    data: bytes, step: int, shape: tuple[int, ...], backend: str, device: torch.device
) -> StartPoint | None:
    """Kept latents as the start of a branch after `step` steps, float32 on `device`.

    None when there are none or they are not what painting anew would give: of another backend, step or shape [1, C, h, w], or
    damaged.
    """
    if not data:
        return None
    try:
        kept = unpack_step(data)
    except EngineError:
        return None
    if (kept.backend, kept.step, tuple(kept.x.shape)) != (backend, step, shape):
        return None
    return StartPoint(kept.x.to(device=device, dtype=torch.float32), kept.sigma, step)


def _facts(data: bytes) -> dict[str, str]:
    """The strings in the header of a safetensors file that was found sound."""
    (length,) = struct.unpack_from("<Q", data)
    return metadata(json.loads(data[8 : 8 + length]))


def _half(tensor: Tensor) -> Tensor:
    return tensor.detach().half().cpu().contiguous()

"""From the device to the processor, without making either wait for the other."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from studio.samplers.types import Step


def bring(step: Step) -> Callable[[], Step]:
    """Start to copy the tensors of `step` to the CPU; the answer waits for them and gives the step that holds them.

    See `soon` for when it is best to ask.
    """
    arrived = soon(step.x, step.denoised)

    def wait() -> Step:
        x, denoised = arrived()
        return replace(step, x=x, denoised=denoised)

    return wait


def soon(*tensors: Tensor) -> Callable[[], tuple[Tensor, ...]]:
    """Start to copy `tensors` of one device to the CPU; the answer waits for them.

    From a CUDA card they travel beside its work, through pinned memory, if they are asked for after the next step has been
    handed to it. Elsewhere they are there at once.
    """
    device = tensors[0].device
    if device.type != "cuda":
        return lambda: tuple(tensor.cpu() for tensor in tensors)
    copies = tuple(_copied(tensor) for tensor in tensors)
    arrived = torch.cuda.Event()  # type: ignore[no-untyped-call]
    arrived.record(torch.cuda.current_stream(device))

    def wait() -> tuple[Tensor, ...]:
        arrived.synchronize()
        return copies

    return wait


def lag(device: torch.device) -> int:
    """How many steps later it is best to ask for what `bring` or `soon` brings."""
    return 1 if device.type == "cuda" else 0


def _copied(tensor: Tensor) -> Tensor:
    copy = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
    return copy.copy_(tensor, non_blocking=True)

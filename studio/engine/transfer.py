"""From the device to the processor without making either wait for the other."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from studio.samplers.types import Step


def bring(step: Step) -> Callable[[], Step]:
    """Start to copy the tensors of `step` to the CPU; the answer waits for them and gives the step that holds them.

    From a CUDA card they travel beside its work, through pinned memory, if they are asked for after the next step has been
    handed to it. Elsewhere they are there at once.
    """
    if step.x.device.type != "cuda":
        return lambda: replace(step, x=step.x.cpu(), denoised=step.denoised.cpu())
    copies = [_copied(tensor) for tensor in (step.x, step.denoised)]
    arrived = torch.cuda.Event()  # type: ignore[no-untyped-call]
    arrived.record(torch.cuda.current_stream(step.x.device))

    def wait() -> Step:
        arrived.synchronize()
        return replace(step, x=copies[0], denoised=copies[1])

    return wait


def lag(device: torch.device) -> int:
    """How many steps later it is best to ask for what `bring` brings."""
    return 1 if device.type == "cuda" else 0


def _copied(tensor: Tensor) -> Tensor:
    copy = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
    return copy.copy_(tensor, non_blocking=True)

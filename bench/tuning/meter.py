"""Processor seconds of training steps, taken from outside of the loop: the same hooks for every contender."""

from __future__ import annotations

import time
from itertools import pairwise
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.optim.optimizer import register_optimizer_step_post_hook

from bench._machine import peak_bytes


class Meter:
    """From its making on, a step ends where an optimizer's step ends; all of this process's threads count.

    `unet` is the share of a step that is spent in the U-Net: its forward pass, and `torch.autograd.backward`, which passes through it alone.
    """

    def __init__(self) -> None:
        self._ends: list[tuple[float, float]] = []
        """At the end of each step: processor seconds since the process began, and those in the U-Net."""
        self._inside = 0.0
        self._entered = 0.0
        self._backward = torch.autograd.backward
        torch.autograd.backward = self._timed_backward
        register_module_forward_pre_hook(self._enter)
        register_module_forward_hook(self._leave)
        register_optimizer_step_post_hook(self._end)

    def figures(self) -> dict[str, Any]:
        """Seconds of each step after the first (which sets kernels up), the U-Net's share, seconds until the first ended, memory."""
        (first, before), *_ = self._ends
        last, after = self._ends[-1]
        times = [end for end, _ in self._ends]
        return {
            "cpu_seconds": [round(end - begin, 4) for begin, end in pairwise(times)],
            "unet_share": round((after - before) / (last - first), 4),
            "cpu_seconds_to_first_step": round(first, 2),
            "peak_bytes": peak_bytes(),
        }

    def _enter(self, module: torch.nn.Module, arguments: Any) -> None:
        if isinstance(module, UNet2DConditionModel):
            self._entered = time.process_time()

    def _leave(self, module: torch.nn.Module, arguments: Any, output: Any) -> None:
        if isinstance(module, UNet2DConditionModel):
            self._inside += time.process_time() - self._entered

    def _timed_backward(self, *arguments: Any, **options: Any) -> None:
        began = time.process_time()
        self._backward(*arguments, **options)
        self._inside += time.process_time() - began

    def _end(self, optimizer: torch.optim.Optimizer, arguments: Any, options: Any) -> None:
        self._ends.append((time.process_time(), self._inside))

"""Optimizers by name, each built from the same settings, and their state as named tensors."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterable
from typing import Any

import torch

from studio.errors import TrainingError
from studio.registry import Registry
from studio.schema.training_tuning import OptimizerPart
from studio.training.checkpoint import Tensors

Groups = list[dict[str, Any]]
"""Groups of parameters, each with `params` and its `peak` rate."""
Maker = Callable[[Groups, OptimizerPart, torch.device], torch.optim.Optimizer]
OPTIMIZERS: Registry[Maker] = Registry("optimizer")
_FROM_SETTINGS = ("lr", "peak", "weight_decay", "initial_lr")


class Lion(torch.optim.Optimizer):
    """Sign of an interpolation between momentum and gradient (Chen et al. 2023, arXiv:2302.06675, algorithm 2)."""

    def __init__(self, params: Iterable[Any], lr: float, betas: tuple[float, float], weight_decay: float) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """One step along the gradients that are there."""
        for group in self.param_groups:
            first, second = group["betas"]
            for weight in group["params"]:
                if weight.grad is None:
                    continue
                state = self.state[weight]
                if not state:
                    state["momentum"] = torch.zeros_like(weight)
                momentum = state["momentum"]
                weight.mul_(1 - group["lr"] * group["weight_decay"])
                weight.add_(torch.lerp(weight.grad, momentum, first).sign_(), alpha=-group["lr"])
                momentum.lerp_(weight.grad, 1 - second)


def build_optimizer(groups: Groups, part: OptimizerPart, device: torch.device) -> torch.optim.Optimizer:
    """The optimizer that `part` names. Raises `TrainingError` when it needs a package or a device that is not there."""
    return OPTIMIZERS.get(part.name)(groups, part, device)


def set_rates(optimizer: torch.optim.Optimizer, share: float) -> float:
    """Give every group its peak rate times `share`; returns the first one's."""
    for group in optimizer.param_groups:
        group["lr"] = group["peak"] * share
    return float(optimizer.param_groups[0]["lr"])


def save_optimizer(optimizer: torch.optim.Optimizer) -> Tensors:
    """State of all parameters and groups; plain numbers, which some optimizers keep in either, as float64.

    It is taken from where the optimizer works: its own `state_dict` may put it another way (bitsandbytes does). No two tensors share memory,
    which a file of them could not hold.
    """
    entries = {
        f"optimizer.{index}": optimizer.state.get(weight, {}) for index, weight in enumerate(_weights(optimizer))
    }
    entries |= {f"group.{index}": group for index, group in enumerate(optimizer.param_groups)}
    tensors: Tensors = {}
    places: set[int] = set()
    for place, entry in entries.items():
        for name, value in entry.items():
            if isinstance(value, torch.Tensor):
                shared = value.untyped_storage().data_ptr() in places
                places.add(value.untyped_storage().data_ptr())
                tensors[f"{place}.{name}"] = value.clone() if shared else value
            elif isinstance(value, int | float) and not isinstance(value, bool):
                tensors[f"number.{place}.{name}"] = torch.tensor(value, dtype=torch.float64)
    return tensors


def load_optimizer(optimizer: torch.optim.Optimizer, tensors: Tensors) -> None:
    """Put back what `save_optimizer` took out; what the settings say of a group counts more than what was saved."""
    weights = _weights(optimizer)
    for key, value in tensors.items():
        if not key.startswith(("optimizer.", "group.", "number.")):
            continue
        *number, place, index, name = key.split(".", 3 if key.startswith("number.") else 2)
        if place == "optimizer":
            weight = weights[int(index)]
            # Counts of steps are torch's own, and stay on the CPU.
            optimizer.state[weight][name] = (
                value.item() if number else value.to("cpu" if name == "step" else weight.device)
            )
        elif place == "group" and name not in _FROM_SETTINGS:
            group = optimizer.param_groups[int(index)]
            kind = type(group.get(name, 0.0))  # Prodigy has some only once it has made a step
            group[name] = kind(value.item()) if number else value.to(group["params"][0].device)


def _weights(optimizer: torch.optim.Optimizer) -> list[torch.Tensor]:
    return [weight for group in optimizer.param_groups for weight in group["params"]]


def _adamw(groups: Groups, part: OptimizerPart, device: torch.device) -> torch.optim.Optimizer:
    return torch.optim.AdamW(groups, lr=part.learning_rate, weight_decay=part.weight_decay)


def _adamw_8bit(groups: Groups, part: OptimizerPart, device: torch.device) -> torch.optim.Optimizer:
    if device.type != "cuda":
        raise TrainingError(f"adamw-8bit works on CUDA devices only, and this is {device.type}: choose adamw.")
    library = _package("bitsandbytes", "adamw-8bit")
    made: torch.optim.Optimizer = library.optim.AdamW8bit(groups, lr=part.learning_rate, weight_decay=part.weight_decay)
    return made


def _lion(groups: Groups, part: OptimizerPart, device: torch.device) -> torch.optim.Optimizer:
    return Lion(groups, lr=part.learning_rate, betas=(0.9, 0.99), weight_decay=part.weight_decay)


def _adafactor(groups: Groups, part: OptimizerPart, device: torch.device) -> torch.optim.Optimizer:
    return torch.optim.Adafactor(groups, lr=part.learning_rate, weight_decay=part.weight_decay)


def _prodigy(groups: Groups, part: OptimizerPart, device: torch.device) -> torch.optim.Optimizer:
    library = _package("prodigyopt", "prodigy")
    made: torch.optim.Optimizer = library.Prodigy(
        groups, lr=part.learning_rate, weight_decay=part.weight_decay, safeguard_warmup=True, use_bias_correction=True
    )
    return made


def _package(name: str, optimizer: str) -> Any:
    if importlib.util.find_spec(name) is None:
        raise TrainingError(
            f"The optimizer {optimizer} needs the package {name}, which is not installed: pip install {name}, or choose adamw."
        )
    return importlib.import_module(name)


OPTIMIZERS.add("adamw", _adamw)
OPTIMIZERS.add("adamw-8bit", _adamw_8bit)
OPTIMIZERS.add("lion", _lion)
OPTIMIZERS.add("adafactor", _adafactor)
OPTIMIZERS.add("prodigy", _prodigy)

"""Checkpoints of a running training: folders of safetensors with a manifest written last, old ones pruned after the new one is complete."""

from __future__ import annotations

import errno
import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from studio.paths import atomic_write, storage_error

Tensors = dict[str, torch.Tensor]
_MANIFEST = "manifest.json"


@dataclass(frozen=True)
class Checkpoint:
    """State after ``step`` steps: named tensors and small JSON facts."""

    step: int
    tensors: Tensors
    facts: dict[str, Any]


class CheckpointStore:
    """The checkpoints of one stage below ``folder``, the newest ``keep`` of them."""

    def __init__(self, folder: Path, keep: int) -> None:
        self._folder = folder
        self._keep = keep

    def save(self, checkpoint: Checkpoint) -> None:
        """Write completely, then publish by renaming, then prune. Raises ``StorageError``; what was saved before is then intact."""
        target = self._folder / f"step-{checkpoint.step:08d}"
        temporary, old = target.with_suffix(".tmp"), target.with_suffix(".old")
        try:
            for leftover in (*self._folder.glob("*.tmp"), *self._folder.glob("*.old")):
                shutil.rmtree(leftover, ignore_errors=True)
            temporary.mkdir(parents=True)
            state = temporary / "state.safetensors"
            save_file({name: tensor.detach().contiguous() for name, tensor in checkpoint.tensors.items()}, state)
            with state.open("rb+") as stream:
                os.fsync(stream.fileno())
            atomic_write(temporary / _MANIFEST, json.dumps({"step": checkpoint.step, **checkpoint.facts}).encode())
            if target.exists():
                target.rename(old)
            temporary.rename(target)
        except (OSError, SafetensorError) as error:
            shutil.rmtree(temporary, ignore_errors=True)
            cause = error if isinstance(error, OSError) else disk_error(error)
            raise storage_error(self._folder, cause) from error
        shutil.rmtree(old, ignore_errors=True)
        for old in self._complete()[: -self._keep]:
            shutil.rmtree(old, ignore_errors=True)

    def latest(self) -> Checkpoint | None:
        """The newest complete checkpoint, or None."""
        found = self._complete()
        if not found:
            return None
        facts = json.loads((found[-1] / _MANIFEST).read_text("utf-8"))
        return Checkpoint(facts.pop("step"), load_file(found[-1] / "state.safetensors"), facts)

    def latest_step(self) -> int | None:
        """The step of the newest complete checkpoint, or None."""
        found = self._complete()
        return int(found[-1].name.removeprefix("step-")) if found else None

    def clear(self) -> None:
        """Delete all checkpoints: the stage is finished and its result stored elsewhere."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def _complete(self) -> list[Path]:
        return sorted(path.parent for path in self._folder.glob(f"step-????????/{_MANIFEST}"))


def disk_error(error: SafetensorError) -> OSError:
    """What the operating system said; safetensors passes it on in words."""
    return OSError(errno.ENOSPC if "No space left" in str(error) else errno.EIO, str(error))


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> Tensors:
    """AdamW's moments and step counts as named tensors, in parameter order."""
    state = optimizer.state_dict()["state"]
    return {f"optimizer.{index}.{name}": value for index, entry in state.items() for name, value in entry.items()}


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: Tensors) -> None:
    """Put back what ``optimizer_tensors`` took out."""
    state: dict[int, dict[str, torch.Tensor]] = {}
    for key, value in tensors.items():
        if key.startswith("optimizer."):
            _, index, name = key.split(".", 2)
            state.setdefault(int(index), {})[name] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def named(prefix: str, tensors: Tensors) -> Tensors:
    """The same tensors with ``prefix.`` before each name."""
    return {f"{prefix}.{name}": tensor for name, tensor in tensors.items()}


def under(prefix: str, tensors: Tensors) -> Tensors:
    """The tensors below ``prefix.``, without it."""
    return {name[len(prefix) + 1 :]: tensor for name, tensor in tensors.items() if name.startswith(f"{prefix}.")}

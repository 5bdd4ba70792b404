"""LoRAs merged into a model's own weights and taken out again exactly.

W' = W + sum over files of weight * (alpha / rank) * up @ down; of a DoRA see `Factors.dora_difference`. Merging costs nothing per step (separate adapters cost 5 %);
the weights as loaded are kept beside the merged ones, so undoing is a copy and leaves no rounding behind.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from studio.engine.loading import LoadedModel
from studio.engine.lora_files import LoraFile, read_lora
from studio.engine.lora_targets import Change, match, targets
from studio.errors import NotFound
from studio.families.lora_keys import LoraPart
from studio.schema.resolved import LoraUse

_Stamp = tuple[str, int, int]


@dataclass(frozen=True)
class LoraWeights:
    """One LoRA to apply: the strengths for the text encoders and for the U-Net, 1 as trained; 0 leaves a part alone."""

    path: Path
    te: float
    unet: float
    name: str = ""

    @staticmethod
    def of(use: LoraUse) -> LoraWeights:
        """From a resolved `<lora:...>` tag."""
        return LoraWeights(Path(use.model.path), use.te_weight, use.unet_weight, use.name)

    def strength(self, part: LoraPart) -> float:
        """The strength for one part of the model."""
        return self.unet if part == "unet" else self.te


@dataclass(frozen=True)
class _Loaded:
    file: LoraFile
    changes: tuple[Change, ...]


class LoraStack:
    """The LoRAs in one model. Nothing else may change the model's weights while any is active."""

    def __init__(self, model: LoadedModel) -> None:
        self._model = model
        self._table = targets(model)
        self._base: dict[torch.nn.Parameter, torch.Tensor] = {}
        self._files: dict[_Stamp, _Loaded] = {}
        self._active: tuple[tuple[_Stamp, LoraWeights], ...] = ()

    @property
    def active(self) -> tuple[LoraWeights, ...]:
        """What is merged in now."""
        return tuple(weights for _, weights in self._active)

    def text_key(self) -> Hashable:
        """Equal exactly while the text encoders' weights are equal; for caches of encoded prompts."""
        return self._key(("text_encoder", "text_encoder_2"))

    def unet_key(self) -> Hashable:
        """Equal exactly while the U-Net's weights are equal."""
        return self._key(("unet",))

    def apply(self, wanted: Sequence[LoraWeights]) -> bool:
        """Merge exactly `wanted`; nothing gives the model back as it was loaded, bit for bit. Returns whether weights changed.

        Files are read again only when they changed on disk; the same list costs nothing. Every file is read, checked and
        placed before a weight is touched: when `NotFound`, `DamagedFile` or `IncompatibleFile` is raised, the model is as
        before the call. Should the device run out of memory half way, it is as loaded.
        """
        asked = tuple((_stamp(weights), weights) for weights in wanted if weights.te or weights.unet)
        if asked == self._active:
            return False
        files = {stamp: self._files.get(stamp) or self._load(weights) for stamp, weights in asked}
        plan: dict[torch.nn.Parameter, list[tuple[Change, float]]] = {}
        for stamp, weights in asked:
            for change in files[stamp].changes:
                if strength := weights.strength(change.target.part):
                    plan.setdefault(change.target.weight, []).append((change, strength))
        try:
            self._merge(plan)
        except BaseException:
            self._restore(self._base)
            self._files, self._active = {}, ()
            raise
        self._files, self._active = files, asked
        return True

    def _load(self, weights: LoraWeights) -> _Loaded:
        file = read_lora(weights.path, weights.name)
        return _Loaded(file, match(file, self._model, self._table))

    @torch.no_grad()
    def _merge(self, plan: dict[torch.nn.Parameter, list[tuple[Change, float]]]) -> None:
        self._restore([weight for weight in self._base if weight not in plan])
        for weight, changes in plan.items():
            if weight not in self._base:
                self._base[weight] = weight.detach().to("cpu", copy=True)
            merged = self._base[weight].to(weight.device, torch.float32, copy=True)
            for change, strength in changes:
                if change.factors.magnitude is None:
                    difference = change.factors.difference(weight.device).reshape(merged.shape)
                    merged.add_(difference, alpha=strength * change.scale)
                else:  # each of the weight as loaded, whatever else is merged in
                    base = self._base[weight].to(weight.device, torch.float32)
                    merged.add_(change.factors.dora_difference(base, change.scale), alpha=strength)
            weight.copy_(merged)

    @torch.no_grad()
    def _restore(self, weights: Iterable[torch.nn.Parameter]) -> None:
        for weight in list(weights):
            weight.copy_(self._base.pop(weight))

    def _key(self, parts: tuple[LoraPart, ...]) -> Hashable:
        return tuple(
            (stamp, weights.strength(parts[0]))
            for stamp, weights in self._active
            if weights.strength(parts[0]) and any(change.target.part in parts for change in self._files[stamp].changes)
        )


def _stamp(weights: LoraWeights) -> _Stamp:
    """What tells one state of a file from another."""
    try:
        status = weights.path.stat()
    except OSError:
        raise NotFound(f"The LoRA {weights.name or weights.path.stem!r} is not there any more.") from None
    return str(weights.path), status.st_mtime_ns, status.st_size

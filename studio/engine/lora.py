"""LoRAs merged into a model's own weights and taken out again exactly.

W' = W + sum over files of weight * (alpha / rank) * up @ down; of a DoRA see `Factors.dora_difference`. Merging costs nothing per step (separate adapters cost 5 %);
the weights as loaded are put aside as they are, so undoing leaves no rounding behind. A weight that changes from step to step is for
`lora_courses`. On the CPU merged weights are kept too, so that going back and forth between LoRAs only changes which tensor a parameter shows.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from studio.engine.eight_bit import FLOAT8, rounded, unrounded
from studio.engine.file_cache import FileStamp, file_stamp
from studio.engine.loading import LoadedModel
from studio.engine.lora_courses import Courses
from studio.engine.lora_files import LoraFile, read_lora
from studio.engine.lora_targets import Change, match, targets
from studio.engine.packing import PackedConv2d, unpacked
from studio.families.lora_keys import LoraPart
from studio.schema.resolved import LoraUse

KEPT_BYTES = 2**30
"""Memory for merged weights that are not in use. A LoRA of SD 1.5 takes 0.2 to 1.3 GB, by the layers it changes."""
_Asked = tuple[tuple[FileStamp, "LoraWeights"], ...]
_Plan = dict[torch.nn.Parameter, list[tuple[Change, float]]]


@dataclass(frozen=True)
class LoraWeights:
    """One LoRA to merge: the strengths for the text encoders and for the U-Net, 1 as trained; 0 leaves a part alone."""

    path: Path
    te: float
    unet: float
    name: str = ""

    @staticmethod
    def of(use: LoraUse) -> LoraWeights:
        """From a resolved `<lora:...>` tag; the U-Net is left alone where its weight changes from step to step."""
        return LoraWeights(Path(use.model.path), use.te_weight, 0.0 if use.unet_course else use.unet_weight, use.name)

    def strength(self, part: LoraPart) -> float:
        """The strength for one part of the model."""
        return self.unet if part == "unet" else self.te


@dataclass(frozen=True)
class _Loaded:
    file: LoraFile
    changes: tuple[Change, ...]


class LoraStack:
    """The LoRAs in one model. Nothing else may change the model's weights while any is active.

    Weights may wait outside of the `device` that they are computed with: sums are made there nevertheless, as rounding differs between devices.
    Merged weights are kept in memory for when they are wanted again, as far as `keeps` bytes go.
    """

    def __init__(self, model: LoadedModel, device: torch.device | None = None, keeps: int = KEPT_BYTES) -> None:
        self._model = model
        self._device = device
        self.keeps = keeps
        self._table = targets(model)
        self._base: dict[torch.nn.Parameter, torch.Tensor] = {}
        self._files: dict[FileStamp, _Loaded] = {}
        self._kept: OrderedDict[_Asked, dict[torch.nn.Parameter, torch.Tensor]] = OrderedDict()
        self._active: _Asked = ()
        self._beside: dict[FileStamp, _Loaded] = {}
        self._attached: Courses | None = None

    @property
    def active(self) -> tuple[LoraWeights, ...]:
        """What is merged in now."""
        return tuple(weights for _, weights in self._active)

    @property
    def beside(self) -> int:
        """Bytes in the machine's memory beside the model's own weights: those as loaded, and merged ones that are not in use."""
        idle = (tensor for asked, kept in self._kept.items() if asked != self._active for tensor in kept.values())
        return sum(tensor.nbytes for tensor in (*self._base.values(), *idle))

    def forget(self) -> bool:
        """Let go of merged weights that are not in use; whether there were any."""
        idle = [asked for asked in self._kept if asked != self._active]
        for asked in idle:
            del self._kept[asked]
        return bool(idle)

    def text_key(self) -> Hashable:
        """Equal exactly while the text encoders' weights are equal; for caches of encoded prompts."""
        parts = ("text_encoder", "text_encoder_2")
        return tuple(
            (stamp, weights.te)
            for stamp, weights in self._active
            if weights.te and any(change.target.part in parts for change in self._files[stamp].changes)
        )

    def apply(self, wanted: Sequence[LoraWeights]) -> bool:
        """Merge exactly `wanted`; nothing gives the model back as it was loaded, bit for bit. Returns whether weights changed.

        Files are read again only when they changed on disk; the same list costs nothing. Every file is read, checked and
        placed before a weight is touched: when `NotFound`, `DamagedFile` or `IncompatibleFile` is raised, the model is as
        before the call. Should the device run out of memory half way, it is as loaded; what cannot be undone at once, the next call undoes.
        """
        self.attach(None)
        asked = tuple((_stamp(weights), weights) for weights in wanted if weights.te or weights.unet)
        if asked == self._active and (asked or not self._base):
            return False
        files = {stamp: self._files.get(stamp) or self._load(weights) for stamp, weights in asked}
        try:
            merged = self._show(self._kept[asked]) if asked in self._kept else self._merge(_planned(asked, files))
        except BaseException:
            self._files, self._active = {}, ()
            self._kept.clear()
            self._restore(self._base)
            raise
        self._keep(asked, merged)
        self._files = {stamp: file for stamp, file in (self._files | files).items() if self._is_used(stamp, asked)}
        self._active = asked
        return True

    def courses(self, uses: Sequence[LoraUse], dtype: torch.dtype) -> Courses:
        """What those of `uses` do whose weight in the U-Net changes from step to step, computed in `dtype`. Raises as `apply` does."""
        found: dict[FileStamp, _Loaded] = {}
        changes = []
        for use in uses:
            if use.unet_course:
                weights = LoraWeights.of(use)
                stamp = _stamp(weights)
                found[stamp] = found.get(stamp) or self._beside.get(stamp) or self._load(weights)
                own = [change for change in found[stamp].changes if change.target.part == "unet"]
                changes.append((own, use.unet_course))
        self._beside = found
        device = self._device or next(self._model.unet.parameters()).device
        return Courses(changes, self._as_loaded, device, dtype)

    def attach(self, courses: Courses | None) -> None:
        """Let the U-Net feel `courses`, and none that were attached before."""
        if self._attached:
            self._attached.detach()
        self._attached = courses
        if courses:
            courses.attach()

    def _as_loaded(self, change: Change, device: torch.device) -> torch.Tensor:
        """The weight before any LoRA, float32 on `device`."""
        weight = change.target.weight
        return _exact(self._base.get(weight, weight.data), change.target.layer).to(device, torch.float32)

    def _load(self, weights: LoraWeights) -> _Loaded:
        file = read_lora(weights.path, weights.name)
        return _Loaded(file, match(file, self._model, self._table))

    @torch.no_grad()
    def _merge(self, plan: _Plan) -> dict[torch.nn.Parameter, torch.Tensor]:
        """Compute the changed weights and show them; they are given back."""
        self._restore([weight for weight in self._base if weight not in plan])
        for changes in plan.values():
            layer = changes[0][0].target.layer
            if isinstance(layer, PackedConv2d):  # a parameter shows packed tensors or ordinary ones, not both in turn
                layer.pack()
        return {
            weight: self._change(
                weight, _merged(self._aside(weight), plan[weight], weight, self._device or weight.device)
            )
            for weight in plan
        }

    def _show(self, merged: dict[torch.nn.Parameter, torch.Tensor]) -> dict[torch.nn.Parameter, torch.Tensor]:
        """Show weights that were computed before; nothing is copied."""
        self._restore([weight for weight in self._base if weight not in merged])
        for weight, tensor in merged.items():
            self._aside(weight)
            self._change(weight, tensor)
        return merged

    def _aside(self, weight: torch.nn.Parameter) -> torch.Tensor:
        """The weight as loaded, on the CPU, now that it is going to be changed."""
        if weight not in self._base:
            self._base[weight] = weight.data.to("cpu")
        return self._base[weight]

    @staticmethod
    def _change(weight: torch.nn.Parameter, tensor: torch.Tensor) -> torch.Tensor:
        """Let the parameter hold `tensor`; on a card in its place, where compiled graphs look for it."""
        if weight.device.type == "cpu":
            weight.data = tensor
        else:
            weight.data.copy_(tensor)
        return weight.data

    def _restore(self, weights: Iterable[torch.nn.Parameter]) -> None:
        for weight in list(weights):
            self._change(weight, self._base[weight])
            del self._base[weight]  # not before: if that fails, it is all there is of the weight

    def _keep(self, asked: _Asked, merged: dict[torch.nn.Parameter, torch.Tensor]) -> None:
        """Remember what is shown now, and forget what was shown longest ago where there is no room for it."""
        if merged and all(weight.device.type == "cpu" for weight in merged):
            self._kept[asked] = merged
            self._kept.move_to_end(asked)
        idle = [
            (old, sum(tensor.nbytes for tensor in kept.values())) for old, kept in self._kept.items() if old != asked
        ]
        while idle and sum(size for _, size in idle) > self.keeps:
            del self._kept[idle.pop(0)[0]]

    def _is_used(self, stamp: FileStamp, asked: _Asked) -> bool:
        return any(stamp == other for known in (asked, *self._kept) for other, _ in known)


def _planned(asked: _Asked, files: dict[FileStamp, _Loaded]) -> _Plan:
    """Which weights change, and by what with which strength."""
    plan: _Plan = {}
    for stamp, weights in asked:
        for change in files[stamp].changes:
            if strength := weights.strength(change.target.part):
                plan.setdefault(change.target.weight, []).append((change, strength))
    return plan


def _merged(
    base: torch.Tensor, changes: list[tuple[Change, float]], weight: torch.nn.Parameter, device: torch.device
) -> torch.Tensor:
    """`base` with the changes, computed in float32 on `device`, where the weight is, in its number format and memory layout."""
    layer = changes[0][0].target.layer
    base = _exact(base, layer).to(device, torch.float32)
    merged = base.clone()
    for change, strength in changes:
        if change.factors.magnitude is None:
            difference = change.factors.difference(device).reshape(merged.shape)
            merged.add_(difference, alpha=strength * change.scale)
        else:  # each of the weight as loaded, whatever else is merged in
            merged.add_(change.factors.dora_difference(base, change.scale), alpha=strength)
    merged = (rounded(merged) if weight.dtype == FLOAT8 else merged.to(weight.dtype)).to(weight.device)
    return layer.packed(merged) if isinstance(layer, PackedConv2d) else merged


def _exact(weight: torch.Tensor, layer: torch.nn.Module) -> torch.Tensor:
    """`weight` of `layer` as an ordinary tensor; of one in eight bits the copy in half precision, where there is one."""
    exact = unrounded(layer)
    return unpacked(weight if exact is None else exact)


def _stamp(weights: LoraWeights) -> FileStamp:
    return file_stamp(weights.path, f"LoRA {weights.name or weights.path.stem!r}")

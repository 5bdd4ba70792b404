"""LoRA files read whole and checked whole: every key becomes part of a factor pair, or the file is refused.

A factor pair stands for the difference `scale * up @ down` of one layer's weight (Hu et al., LoRA, 2021), with
scale = alpha / rank. Convolutions may have a third factor between the two (LyCORIS' LoCon with a Tucker core).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from studio.engine.loading_weights import Weights, check_finite, listed
from studio.errors import DamagedFile, IncompatibleFile
from studio.families.layout import Source
from studio.families.lora_keys import LoraPart, Role, parse_lora_key
from studio.families.lora_signature import LoraSignature, describe_lora
from studio.families.signature import pickle_problem

Layer = tuple[LoraPart, str]
"""Part of the model and layer name in underscore form, as `parse_lora_key` gives it."""


@dataclass(frozen=True)
class Factors:
    """One layer's difference. `down` [r, in, ...], `up` [out, r, ...], `mid` [r, r, kh, kw] or None; `alpha` None: see `strength`."""

    down: torch.Tensor
    up: torch.Tensor
    mid: torch.Tensor | None
    alpha: float | None
    key: str
    """The key of `down` in the file, for messages."""
    magnitude: torch.Tensor | None = None
    """Of a DoRA (Liu et al. 2024, arXiv:2402.09353): the length of every row [out, 1] or every column [1, in] of the changed weight."""

    @property
    def rank(self) -> int:
        """Columns of `up`, rows of `down`."""
        return self.down.shape[0]

    @property
    def shape(self) -> tuple[int, ...] | None:
        """Shape of the difference; None when the factors do not fit one another."""
        down, up = self.down.shape, self.up.shape
        if (
            len(down) != len(up)
            or len(down) not in (2, 4)
            or up[1] != (down[0] if self.mid is None else self.mid.shape[0])
        ):
            return None
        if len(down) == 2:
            return (up[0], down[1]) if self.mid is None else None
        if tuple(up[2:]) != (1, 1):
            return None
        if self.mid is None:
            return (up[0], *down[1:])
        fits = self.mid.ndim == 4 and self.mid.shape[1] == down[0] and tuple(down[2:]) == (1, 1)
        return (up[0], down[1], *self.mid.shape[2:]) if fits else None

    def difference(self, device: torch.device) -> torch.Tensor:
        """up @ (mid @) down without any scale, float32, in the shape of `shape`."""
        up, down = (factor.to(device, torch.float32) for factor in (self.up.flatten(1), self.down.flatten(1)))
        if self.mid is None:
            return (up @ down).reshape(self.shape or (-1,))
        core = self.mid.to(device, torch.float32)
        return torch.einsum("oa,abhw,bi->oihw", up, core, down)

    def dora_difference(self, base: torch.Tensor, scale: float) -> torch.Tensor:
        """What a DoRA adds to the weight `base` (float32) at full strength, in its shape: base + scale * up @ down, brought to the lengths
        of `magnitude`, less base."""
        assert self.magnitude is not None, "only a DoRA has lengths"
        lengths = self.magnitude.to(base.device, torch.float32)
        changed = base + self.difference(base.device).reshape(base.shape) * scale
        kept = 0 if lengths.shape[1] == 1 else 1
        others = [axis for axis in range(changed.ndim) if axis != kept]
        norms = torch.linalg.vector_norm(changed, dim=others, keepdim=True)
        difference: torch.Tensor = changed * (lengths.reshape(norms.shape) / norms) - base
        return difference


@dataclass(frozen=True)
class PeftSettings:
    """What the `lora_adapter_metadata` of a diffusers file says about one part."""

    alpha: float | None = None
    alphas: Mapping[str, float] = field(default_factory=dict)
    """Exceptions, by module name or the end of one."""
    rank_stabilised: bool = False

    def strength(self, factors: Factors, module: str) -> float:
        """alpha / rank of a layer: the file's own alpha first, then an exception for `module`, then the common one, else 1."""
        exception = next((value for name, value in self.alphas.items() if self.covers(name, module)), self.alpha)
        alpha = factors.alpha if factors.alpha is not None else exception
        if alpha is None:
            return 1.0
        return alpha / (factors.rank**0.5 if self.rank_stabilised else factors.rank)

    @staticmethod
    def covers(name: str, module: str) -> bool:
        """Whether an exception called `name` is meant for `module`."""
        return module == name or module.endswith(f".{name}")


@dataclass(frozen=True)
class LoraFile:
    """A file in memory. All numbers finite, all keys placed; whether it fits a model is for `lora_targets` to say."""

    name: str
    signature: LoraSignature
    layers: Mapping[Layer, Factors]
    settings: Mapping[LoraPart, PeftSettings]


def read_lora(path: Path, name: str = "") -> LoraFile:
    """Read a LoRA. `name` is how messages call it; empty: the file's name.

    Raises `NotFound`, `DamagedFile`, and `IncompatibleFile` for pickles, for other kinds of adapters (LoHa, LoKr ...)
    and for keys that belong to nothing known.
    """
    name = name or path.stem
    if path.suffix.lower() != ".safetensors":
        raise IncompatibleFile(pickle_problem(path.name))
    weights = Weights([path])
    signature = describe_lora(weights.header)
    if signature.problem:
        raise IncompatibleFile(f"LoRA {name!r}: {signature.problem}")
    tensors = {key: weights.tensor(Source(key)) for key in weights.shapes}
    check_finite(path.name, tensors)
    layers = _layers(name, tensors)
    return LoraFile(name, signature, layers, _settings(name, weights.header["__metadata__"], layers))


def _layers(name: str, tensors: Mapping[str, torch.Tensor]) -> dict[Layer, Factors]:
    found: dict[Layer, dict[Role, str]] = {}
    unknown: list[str] = []
    for key in tensors:
        understood = parse_lora_key(key)
        if understood is None or understood.role in found.get((understood.part, understood.layer), {}):
            unknown.append(key)
        else:
            found.setdefault((understood.part, understood.layer), {})[understood.role] = key
    halves = [key for roles in found.values() for key in roles.values() if not {"down", "up"} <= roles.keys()]
    if unknown or halves:
        raise IncompatibleFile(
            f"LoRA {name!r}: {len(unknown) + len(halves)} of its {len(tensors)} keys belong to nothing known: {listed(unknown + halves)}."
        )
    return {layer: _factors(tensors, roles) for layer, roles in found.items()}


def _factors(tensors: Mapping[str, torch.Tensor], roles: Mapping[Role, str]) -> Factors:
    alpha = tensors[roles["alpha"]] if "alpha" in roles else None
    if alpha is not None and alpha.numel() != 1:
        raise DamagedFile(f"{roles['alpha']} must be one number, it is {list(alpha.shape)}.")
    return Factors(
        down=tensors[roles["down"]],
        up=tensors[roles["up"]],
        mid=tensors[roles["mid"]] if "mid" in roles else None,
        alpha=None if alpha is None else float(alpha),
        key=roles["down"],
        magnitude=_magnitude(tensors, roles) if "magnitude" in roles else None,
    )


def _magnitude(tensors: Mapping[str, torch.Tensor], roles: Mapping[Role, str]) -> torch.Tensor:
    """As [out, 1] or [1, in]. PEFT writes lengths of rows, flat or with axes of 1; LyCORIS by default those of columns, as [1, in, ...]."""
    found, rows, columns = tensors[roles["magnitude"]], tensors[roles["up"]].shape[0], tensors[roles["down"]].shape[1]
    by_peft = "lora_magnitude_vector" in roles["magnitude"]
    if found.numel() == rows and (by_peft or found.shape[:1] == (rows,)):
        return found.reshape(rows, 1)
    if found.numel() == columns and found.shape[:1] == (1,):
        return found.reshape(1, columns)
    raise DamagedFile(f"{roles['magnitude']} is {list(found.shape)}; [{rows}, 1] or [1, {columns}] would fit.")


def _settings(name: str, metadata: Mapping[str, str], layers: Mapping[Layer, Factors]) -> dict[LoraPart, PeftSettings]:
    """From `lora_adapter_metadata`: JSON with `<part>.<field of peft's LoraConfig>`."""
    try:
        data: Any = json.loads(metadata.get("lora_adapter_metadata", "{}"))
        parts: tuple[LoraPart, ...] = ("unet", "text_encoder", "text_encoder_2")
        settings = {part: _part_settings(part, data) for part in parts}
        doras = {part for part in parts if data.get(f"{part}.use_dora")}
    except (ValueError, TypeError, AttributeError, RecursionError):
        raise DamagedFile(f"LoRA {name!r}: its lora_adapter_metadata is damaged.") from None
    if lost := doras - {part for (part, _), factors in layers.items() if factors.magnitude is not None}:
        raise DamagedFile(f"LoRA {name!r} says that it is a DoRA, but has no magnitudes for {', '.join(sorted(lost))}.")
    return settings


def _part_settings(part: str, data: Mapping[str, Any]) -> PeftSettings:
    alpha = data.get(f"{part}.lora_alpha")
    patterns = dict(data.get(f"{part}.alpha_pattern") or {})
    return PeftSettings(
        alpha=None if alpha is None else float(alpha),
        # PEFT reads these names as regular expressions; diffusers writes plain names, PEFT anchors them with ^.
        alphas={key.lstrip("^").rstrip("$").replace("\\.", "."): float(value) for key, value in patterns.items()},
        rank_stabilised=bool(data.get(f"{part}.use_rslora")),
    )

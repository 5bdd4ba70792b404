"""Which weights of a loaded model a LoRA file changes: every layer of the file finds its place, or the file is refused."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import cast

import torch

from studio.engine.loading import LoadedModel
from studio.engine.loading_weights import listed
from studio.engine.lora_files import Factors, Layer, LoraFile, PeftSettings
from studio.errors import IncompatibleFile
from studio.families.layout import renamed, unet_names
from studio.families.lora_keys import LoraPart
from studio.families.table import family


@dataclass(frozen=True)
class Target:
    """A layer whose weight can be changed, and its dotted name."""

    part: LoraPart
    module: str
    layer: torch.nn.Linear | torch.nn.Conv2d

    @property
    def weight(self) -> torch.nn.Parameter:
        """The weight; the same object whatever it shows."""
        return cast(torch.nn.Parameter, self.layer.weight)


@dataclass(frozen=True)
class Change:
    """What one file does to one weight at strength 1: `scale * factors.difference()`."""

    target: Target
    factors: Factors
    scale: float


def targets(model: LoadedModel) -> dict[Layer, Target]:
    """All linear and convolution weights of the U-Net and the text encoders, by every name that LoRA files use for them."""
    table: dict[Layer, Target] = {}
    config = model.unet.config
    original = unet_names(config) if isinstance(config.layers_per_block, int) else {}
    for name, layer in _layers(model.unet):
        target = Target("unet", name, layer)
        for spelling in (name, renamed(f"{name}.weight", original).removesuffix(".weight")):
            table["unet", spelling.replace(".", "_")] = target
    for encoder, module in zip(model.family.encoders, model.text_encoders, strict=True):
        for name, layer in _layers(module):
            plain = name.removeprefix("text_model.")
            table[encoder.name, plain.replace(".", "_")] = Target(encoder.name, plain, layer)
    return table


def match(file: LoraFile, model: LoadedModel, table: Mapping[Layer, Target]) -> tuple[Change, ...]:
    """Place every layer of `file`. Raises `IncompatibleFile` that says for which family the file is, or what did not fit."""
    lost = [factors.key for layer, factors in file.layers.items() if layer not in table]
    wrong = [
        f"{factors.key} makes {list(factors.shape or ())}, the layer is {list(table[layer].weight.shape)}"
        for layer, factors in file.layers.items()
        if layer in table and not _fits(factors, table[layer].weight)
    ]
    if lost or wrong:
        raise IncompatibleFile(_misfit(file, model, lost, wrong))
    changes = []
    for (part, layer), factors in file.layers.items():
        target, settings = table[part, layer], file.settings[part]
        changes.append(Change(target, factors, settings.strength(factors, target.module)))
    for part, settings in file.settings.items():
        _check_exceptions(file, settings, [change.target.module for change in changes if change.target.part == part])
    return tuple(changes)


def _layers(module: torch.nn.Module) -> Iterator[tuple[str, torch.nn.Linear | torch.nn.Conv2d]]:
    for name, layer in module.named_modules():
        if isinstance(layer, torch.nn.Linear | torch.nn.Conv2d):
            yield name, layer


def _fits(factors: Factors, weight: torch.Tensor) -> bool:
    """A 1x1 convolution and a linear layer may stand for each other."""
    shape, wanted = factors.shape, tuple(weight.shape)
    if shape is None:
        return False
    short, long = sorted((shape, wanted), key=len)
    return long in (short, (*short, 1, 1))


def _misfit(file: LoraFile, model: LoadedModel, lost: list[str], wrong: list[str]) -> str:
    start, total, made_for = f"LoRA {file.name!r} cannot be used", len(file.layers), file.signature.family
    if made_for not in ("unknown", model.family.name):
        return (
            f"{start}: it was made for {family(made_for).title}, and {model.info.name} is {model.family.title}. "
            f"{len(lost) + len(wrong)} of its {total} layers do not match, such as {(lost + wrong)[0]}."
        )
    details = []
    if lost:
        details.append(f"{len(lost)} of its {total} layers are not in the model: {listed(lost)}")
    if wrong:
        details.append(f"{len(wrong)} of its {total} layers have other shapes: {listed(wrong)}")
    return f"{start}: it does not fit {model.info.name} ({model.family.title}). {'; '.join(details)}."


def _check_exceptions(file: LoraFile, settings: PeftSettings, modules: list[str]) -> None:
    """An alpha that is for no layer of the file would be lost in silence."""
    idle = [name for name in settings.alphas if not any(settings.covers(name, module) for module in modules)]
    if idle:
        raise IncompatibleFile(
            f"LoRA {file.name!r}: its metadata gives alphas for layers that it does not have: {listed(idle)}."
        )

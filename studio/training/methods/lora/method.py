"""The method `lora`, from a run's settings to a file in `loras/`."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from torch import nn

from studio.schema.training_tuning import LoraMethod, NetworkPart, TextEncoderMethod
from studio.training.context import TrainingContext
from studio.training.methods.lora.adapter import BatchPlace, Trained, add_adapter, text_layers, unet_layers
from studio.training.methods.lora.metadata import Facts
from studio.training.methods.lora.result import LoraResult
from studio.training.tuning.base import Base, load_base
from studio.training.tuning.learner import Group, Learner
from studio.training.tuning.prepare import Learning, open_dataset, open_session
from studio.training.tuning.publish import add_preview
from studio.training.tuning.run import run_session


def train_lora(context: TrainingContext) -> Path:
    """Run or resume; returns the finished file."""
    method = context.settings(LoraMethod)
    return train_adapters(context, method, unet=True, encoders=method.text_encoder)


def train_adapters(
    context: TrainingContext, method: LoraMethod | TextEncoderMethod, *, unet: bool, encoders: bool
) -> Path:
    """Adapters in the U-Net, the text encoders or both learn; the result is one file in `loras/`."""
    dataset = open_dataset(context, method.data)
    base = load_base(context, method.model, frozen_unet=True)
    layers: list[Trained] = []

    def build(base: Base) -> Learning:
        place = BatchPlace()
        base.unet.requires_grad_(False)
        if unet:
            layers.extend(_in_unet(base, method.network, context.config.seed, place))
        if encoders:
            layers.extend(_in_encoders(base, method.network, context.config.seed, place))
        learning = (base.unet, *base.model.text_encoders) if encoders else (base.unet,)
        # Prodigy takes no groups with rates of their own: it finds one for all.
        factor = method.optimizer.text_rate_factor if unet and method.optimizer.name != "prodigy" else 1.0
        learner = Learner(
            learning,
            Group(_parameters(layer for layer in layers if layer.part == "unet")),
            Group(_parameters(layer for layer in layers if layer.part != "unet"), factor),
        )
        return Learning(learner, place.move)

    session = open_session(context, method, dataset, base, encoders_learn=encoders, build=build)
    result = LoraResult(base, layers)
    learns = tuple(dict.fromkeys(layer.part for layer in layers))

    def export(step: int, name: str) -> Path:
        facts = Facts(context.run, method, method.network, base.info, dataset, context.config.seed, step, name, learns)
        path = result.write(facts, context.paths.loras)
        add_preview(path, context.run, step)
        return path

    return run_session(session, export)


def _in_unet(base: Base, network: NetworkPart, seed: int, place: BatchPlace) -> list[Trained]:
    return add_adapter(base.unet, "unet", unet_layers(base.unet, network), network, seed, place)


def _in_encoders(base: Base, network: NetworkPart, seed: int, place: BatchPlace) -> list[Trained]:
    layers: list[Trained] = []
    for encoder, module in zip(base.model.family.encoders, base.model.text_encoders, strict=True):
        layers += add_adapter(module, encoder.name, (text_layers(module), set()), network, seed, place)
    return layers


def _parameters(layers: Iterable[Trained]) -> dict[str, nn.Parameter]:
    """By names that are unique over the model and stay the same from sitting to sitting."""
    found: dict[str, nn.Parameter] = {}
    for layer in layers:
        for role, parameter in (("down", layer.down), ("up", layer.up), ("magnitude", layer.magnitude)):
            if parameter is not None:
                found[f"{layer.part}.{layer.module}.{role}"] = parameter
    return found

"""Low-rank adapters in a U-Net or a text encoder, by peft: which layers, how large, and what can be read of them again."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any

import torch
from diffusers.models.resnet import Downsample2D, ResnetBlock2D, Upsample2D
from diffusers.models.transformers.transformer_2d import Transformer2DModel
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora import LoraLayer
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn

from studio.families.lora_keys import LoraPart
from studio.schema.training_tuning import NetworkPart

_ADAPTER = "default"
_ATTENTION = re.compile(r"\.attn[12]\.to_(q|k|v|out\.0)$")
_CROSS, _FEED_FORWARD = ".attn2.", ".ff."
_TEXT = re.compile(r"\.(self_attn|mlp)\.\w+$")


@dataclass(frozen=True)
class Trained:
    """One layer's adapter: `down` [r, in, ...], `up` [out, r, ...], `magnitude` of a DoRA or None; `alpha` as the layer is scaled by it."""

    part: LoraPart
    module: str
    down: nn.Parameter
    up: nn.Parameter
    alpha: float
    magnitude: nn.Parameter | None


@dataclass
class BatchPlace:
    """Which batch is being computed, and which of its rows by this process."""

    number: int = 0
    part: slice = field(default_factory=lambda: slice(0, 1))
    size: int = 1

    def move(self, number: int, part: slice, size: int) -> None:
        """To another batch."""
        self.number, self.part, self.size = number, part, size


class PlacedDropout(nn.Module):
    """Dropout whose mask is a function of (seed, layer, batch): the same in a resumed run, and the same rows for any number of processes."""

    def __init__(self, share: float, key: str, place: BatchPlace) -> None:
        super().__init__()
        self._share, self._key, self._place = share, key, place

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """`x` has the batch's rows first."""
        if not self.training:
            return x
        digest = blake2b(f"{self._key}|{self._place.number}".encode(), digest_size=7).digest()
        rng = torch.Generator(x.device).manual_seed(int.from_bytes(digest, "big"))
        kept = (
            torch.rand((self._place.size, *x.shape[1:]), generator=rng, device=x.device)[self._place.part]
            >= self._share
        )
        return x * kept.to(x.dtype) / (1 - self._share)


def unet_layers(unet: nn.Module, network: NetworkPart) -> tuple[set[str], set[str]]:
    """Names of the layers of `network` to learn: those of transformers, and those of residual blocks (with conv only).

    But for "attention" alone, and without feed-forward layers where the choice does not name them, these are the layers that sd-scripts calls
    LoRA (all linear layers and 1x1 convolutions of transformers) and LoCon (the residual blocks and resamplers too).
    """
    transformers = set(_layers_in(unet, (Transformer2DModel,)))
    if not network.cross_attention:
        transformers = {name for name in transformers if _CROSS not in name}
    if network.layers == "attention":
        return {name for name in transformers if _ATTENTION.search(name)}, set()
    if "feed-forward" not in network.layers:
        transformers = {name for name in transformers if _FEED_FORWARD not in name}
    blocks = (ResnetBlock2D, Downsample2D, Upsample2D)
    return transformers, set(_layers_in(unet, blocks)) if network.layers.endswith("conv") else set()


def text_layers(encoder: nn.Module) -> set[str]:
    """Attention and feed-forward layers of a CLIP text encoder."""
    return {name for name, module in encoder.named_modules() if isinstance(module, nn.Linear) and _TEXT.search(name)}


def add_adapter(
    module: nn.Module,
    part: LoraPart,
    layers: tuple[set[str], set[str]],
    network: NetworkPart,
    seed: int,
    place: BatchPlace,
) -> list[Trained]:
    """Put adapters on `layers` (transformers, residual blocks) of `module` in place; only they learn, in fp32 whatever the base is in.

    The start values follow from `seed`; they change nothing until a step is made.
    """
    inner, blocks = layers
    rank, alpha = network.convolutions
    patterns = {re.escape(name): (rank, alpha) for name in sorted(blocks)}
    config = LoraConfig(
        r=network.rank,
        lora_alpha=network.scale_alpha,
        target_modules="|".join(re.escape(name) for name in sorted(inner | blocks)),
        rank_pattern={name: each[0] for name, each in patterns.items()},
        alpha_pattern={name: each[1] for name, each in patterns.items()},
        use_dora=network.kind == "dora",
    )
    with torch.random.fork_rng():
        torch.manual_seed(int.from_bytes(blake2b(f"{seed}|{part}".encode(), digest_size=7).digest(), "big"))
        inject_adapter_in_model(config, module, _ADAPTER)
    for name, parameter in module.named_parameters():
        parameter.requires_grad_("lora_" in name)
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    if network.dropout:
        for name, layer in adapted(module):
            layer.lora_dropout[_ADAPTER] = PlacedDropout(network.dropout, f"{seed}|{part}|{name}", place)
    return [_trained(part, name, layer) for name, layer in adapted(module)]


def adapted(module: nn.Module) -> Iterator[tuple[str, Any]]:
    """peft's layers with their names."""
    return ((name, layer) for name, layer in module.named_modules() if isinstance(layer, LoraLayer))


@contextmanager
def switched_off(modules: Iterable[nn.Module]) -> Iterator[None]:
    """Inside, the modules compute as if they had no adapters."""
    layers = [layer for module in modules for layer in module.modules() if isinstance(layer, BaseTunerLayer)]
    learning = [parameter for layer in layers for parameter in layer.parameters() if parameter.requires_grad]
    for layer in layers:
        layer.enable_adapters(False)
    try:
        yield
    finally:
        for layer in layers:
            layer.enable_adapters(True)
        for parameter in learning:
            parameter.requires_grad_(True)


def _layers_in(module: nn.Module, kinds: tuple[type[nn.Module], ...]) -> Iterator[str]:
    """Names of the linear layers and convolutions inside of modules of `kinds`."""
    for name, holder in module.named_modules():
        if isinstance(holder, kinds):
            for inner, layer in holder.named_modules():
                if isinstance(layer, nn.Linear | nn.Conv2d):
                    yield f"{name}.{inner}"


def _trained(part: LoraPart, name: str, layer: Any) -> Trained:
    magnitudes = layer.lora_magnitude_vector
    return Trained(
        part=part,
        module=name.removeprefix("text_model."),
        down=layer.lora_A[_ADAPTER].weight,
        up=layer.lora_B[_ADAPTER].weight,
        alpha=float(layer.scaling[_ADAPTER] * layer.r[_ADAPTER]),
        magnitude=magnitudes[_ADAPTER].weight if _ADAPTER in magnitudes else None,
    )

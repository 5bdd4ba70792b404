"""The memory estimate: what learns is counted as the real adapters count it, for every family and both layouts; the sum is the documented one."""

from __future__ import annotations

import copy
import math
from typing import Any, get_args

import pytest

from studio.schema.runs import MemoryEstimate
from studio.schema.training import TrainingConfig
from studio.schema.training_tuning import LayerChoice, NetworkPart, TuningMethod
from studio.training.estimate import _ACTIVATIONS, PROCESS, estimate
from studio.training.methods.lora.adapter import BatchPlace, Trained, add_adapter, text_layers, unet_layers
from tests.tiny_models import tiny_components, tiny_file, tiny_folder, tiny_info

LAYERS = get_args(LayerChoice)


def asked(source: Any, *, short: bool = True, **method: Any) -> MemoryEstimate:
    facts = {"kind": "lora", "data": {"path": "x", "resolution": 256}, **method}
    found = TrainingConfig.model_validate({"name": "x", "method": facts}).method
    assert isinstance(found, TuningMethod)
    return estimate(found, tiny_info(source), short=short)


def numbers(layers: list[Trained]) -> int:
    parts = [part for layer in layers for part in (layer.down, layer.up, layer.magnitude) if part is not None]
    return sum(part.numel() for part in parts)


def size(family: str, *names: str) -> int:
    modules = [module for name, module in tiny_components(family).items() if name.startswith(names)]
    return sum(value.numel() for module in modules for value in module.state_dict().values())


@pytest.mark.parametrize("family", ["sprout", "sd1", "sd2", "sdxl"])
@pytest.mark.parametrize("layers", LAYERS)
@pytest.mark.parametrize("kind, listens", [("lora", True), ("dora", True), ("lora", False)])
def test_it_counts_what_the_adapters_have(family: str, layers: Any, kind: Any, listens: bool) -> None:
    network = {"kind": kind, "rank": 3, "conv_rank": 2, "layers": layers, "cross_attention": listens}
    unet, part = copy.deepcopy(tiny_components(family)["unet"]), NetworkPart.model_validate(network)
    real = add_adapter(unet, "unet", unet_layers(unet, part), part, 1, BatchPlace())
    for source in [tiny_folder(family)] + ([tiny_file(family)] if family != "sprout" else []):
        assert asked(source, network=network).learning_numbers == numbers(real), source.name


@pytest.mark.parametrize("family", ["sd1", "sd2", "sdxl"])
def test_it_counts_those_of_the_text_encoders(family: str) -> None:
    real = 0
    for name, module in tiny_components(family).items():
        if name.startswith("text_encoder"):
            encoder: Any = copy.deepcopy(module)
            real += numbers(
                add_adapter(
                    encoder, "text_encoder", (text_layers(encoder), set()), NetworkPart(rank=3), 1, BatchPlace()
                )
            )
    for source in (tiny_folder(family), tiny_file(family)):
        found = asked(source, kind="text_encoder", network={"rank": 3})
        unused = family != "sd1" and source.is_file()  # OpenCLIP's last layer, which files hold and nothing reads
        assert real <= found.learning_numbers <= real * (1 + unused / 3), source.name


def test_the_sum_is_the_documented_one() -> None:
    unet, vae, text = size("sd1", "unet"), size("sd1", "vae"), size("sd1", "text")
    plain = asked("sd1", batch=2)
    assert plain.loading == pytest.approx(PROCESS + 2 * unet + 2 * text + 4 * vae, abs=10_000)
    assert (plain.weights, plain.learning) == (2 * unet, plain.learning_numbers * (4 + 4 + 8))
    assert plain.training == PROCESS + plain.weights + plain.learning + plain.activations
    whole = asked("sd1", batch=2, kind="full", optimizer={"name": "lion"}, ema_decay=0.9)
    assert (whole.weights, whole.learning) == (4 * unet, unet * (4 + 4 + 4))
    assert asked("sd1", batch=2, samples={"prompts": ["x"]}).weights == 2 * unet + 4 * vae


def test_activations_follow_pixels_batch_number_format_and_checkpointing() -> None:
    one = asked("sd1").activations
    assert asked("sd1", batch=4).activations == 4 * one
    assert asked("sd1", data={"path": "x", "resolution": 512}).activations == 4 * one
    assert asked("sd1", short=False).activations == 2 * one
    assert asked("sd1", gradient_checkpointing=True).activations == pytest.approx(0.3 * one, rel=1e-3)
    assert one == 2 * 7_700 * _latent(256), "the nearest U-Net that is known is the embedded model's"


@pytest.mark.parametrize("family", ["sprout", "sd1", "sd2", "sdxl"])
def test_more_layers_need_more_room(family: str) -> None:
    """Of the tiny models only the numbers of the embedded one are asked for, so the table is read itself."""
    one, linear, all_of_them, blocks = (_ACTIVATIONS[family][1][each] for each in LAYERS)
    assert one < linear < all_of_them and one < blocks < all_of_them
    assert asked("sd1", network={"layers": LAYERS[3]}).activations == 2 * _ACTIVATIONS["sprout"][1][
        LAYERS[3]
    ] * _latent(256)


def _latent(side: int) -> int:
    """Latent pixels of the tiny models, whose autoencoders halve a picture as often as they have levels below the first."""
    halvings = len(tiny_components("sd1")["vae"].config.block_out_channels) - 1
    return int(math.pow(side // 2**halvings, 2))

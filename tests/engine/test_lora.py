"""LoRAs: equal to what diffusers and peft make of the same files, taken out without a trace, and nothing lost in silence."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from studio.engine.eight_bit import PLAIN
from studio.engine.fingerprint import fingerprint
from studio.engine.hardware import Hardware, choose_hardware
from studio.engine.keeper import ModelKeeper
from studio.engine.loading import LoadedModel, load_checkpoint
from studio.engine.loading_size import stored_bytes
from studio.engine.lora import LoraStack, LoraWeights
from studio.engine.text_encoders import encode_tokens
from studio.errors import DamagedFile, IncompatibleFile, NotFound
from studio.schema.resolved import LoraUse
from tests.engine.card import card_of
from tests.tiny_models import read_tensors, tiny_components, tiny_folder, tiny_info, tiny_lora

CPU = torch.device("cpu")
State = dict[str, torch.Tensor]
TOKENS = torch.tensor([[49406, 320, 736, 3240, *([49407] * 73)]])
LAYER = "down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q"


def load(family: str, dtype: torch.dtype = torch.float32) -> LoadedModel:
    return load_checkpoint(tiny_info(tiny_folder(family)), CPU, dtype)


def weights(model: LoadedModel) -> State:
    """A copy of every weight that a LoRA could touch."""
    parts = {"unet": model.unet, **{str(index): module for index, module in enumerate(model.text_encoders)}}
    return {
        f"{part}.{key}": value.clone() for part, module in parts.items() for key, value in module.state_dict().items()
    }


def same(left: State, right: State) -> bool:
    return all(torch.equal(value, right[key]) for key, value in left.items())


def one(path: Path, te: float = 1.0, unet: float = 1.0) -> list[LoraWeights]:
    return [LoraWeights(path, te, unet)]


def unet_output(unet: Any, model: LoadedModel) -> torch.Tensor:
    seeded = torch.Generator().manual_seed(0)
    x, text = (
        torch.randn(1, 4, 8, 8, generator=seeded),
        torch.randn(1, 7, unet.config.cross_attention_dim, generator=seeded),
    )
    with torch.no_grad():
        result: torch.Tensor = unet(
            x, 500, text, added_cond_kwargs=model.added_conditions(torch.ones(1, 64), 64, 64)
        ).sample
    return result


def pipeline_with(family: str, files: dict[Path, float]) -> Any:
    """diffusers' pipeline on copies of the tiny modules, with the LoRAs as adapters of peft."""
    import copy

    from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline

    parts = {name: copy.deepcopy(module) for name, module in tiny_components(family).items()}
    if family == "sdxl":
        pipeline: Any = StableDiffusionXLPipeline(
            **parts, tokenizer=None, tokenizer_2=None, scheduler=None, add_watermarker=False
        )
    else:
        absent = {"tokenizer": None, "scheduler": None, "safety_checker": None, "feature_extractor": None}
        pipeline = StableDiffusionPipeline(**parts, **absent, requires_safety_checker=False)
    names = [f"lora{index}" for index in range(len(files))]
    for name, path in zip(names, files, strict=True):
        pipeline.load_lora_weights(path, adapter_name=name)
    pipeline.set_adapters(names, list(files.values()))
    return pipeline


def agree(family: str, files: dict[Path, float]) -> None:
    """Our merged weights and diffusers' adapters give the same outputs, and both differ from the model without LoRA."""
    model, pipeline = load(family), pipeline_with(family, files)
    plain, plain_text = unet_output(model.unet, model), encode_tokens(model, TOKENS).joined()
    LoraStack(model).apply([LoraWeights(path, weight, weight) for path, weight in files.items()])
    ours, theirs = unet_output(model.unet, model), unet_output(pipeline.unet, model)
    assert float((ours - plain).abs().max()) > 1e-3
    assert torch.allclose(ours, theirs, atol=1e-5)
    text = encode_tokens(model, TOKENS).joined()
    model.text_encoders = tuple(getattr(pipeline, encoder.name) for encoder in model.family.encoders)
    assert torch.allclose(text, encode_tokens(model, TOKENS).joined(), atol=1e-5)
    has_text = any(key.startswith(("lora_te", "text_encoder")) for path in files for key in read_tensors(path))
    assert (float((text - plain_text).abs().max()) > 1e-3) == has_text


@pytest.mark.parametrize("family", ["sd1", "sdxl"])
@pytest.mark.parametrize("naming", ["kohya", "peft"])
def test_a_file_does_what_diffusers_makes_of_it(family: str, naming: str) -> None:
    agree(family, {tiny_lora(family, naming): 0.8})


@pytest.mark.filterwarnings("ignore:Already found a `peft_config` attribute")
def test_several_files_add_up_as_in_diffusers() -> None:
    agree("sd1", {tiny_lora("sd1", seed=1): 0.7, tiny_lora("sd1", "peft", rank=2, alpha=1.0, seed=2): -0.4})


def wide_lora(tmp_path: Path, family: str) -> Path:
    """Attention, projections and convolutions, with a rank and an alpha of their own for some: peft's own writing."""
    import copy

    from diffusers import StableDiffusionPipeline
    from peft import LoraConfig, get_peft_model_state_dict

    unet = copy.deepcopy(tiny_components(family)["unet"])
    layers = ["to_q", "to_out.0", "proj_in", "proj_out", "ff.net.0.proj", "conv1", "time_emb_proj"]
    special = "mid_block.attentions.0.proj_in"
    config = LoraConfig(
        r=4,
        lora_alpha=2,
        target_modules=layers,
        alpha_pattern={special: 8},
        rank_pattern={special: 2},
        init_lora_weights=False,
    )
    with torch.random.fork_rng():
        torch.manual_seed(5)
        unet.add_adapter(config)
    state = {key: value.contiguous() for key, value in get_peft_model_state_dict(unet).items()}
    StableDiffusionPipeline.save_lora_weights(
        tmp_path, unet_lora_layers=state, unet_lora_adapter_metadata=unet.peft_config["default"].to_dict()
    )
    path = tmp_path / "pytorch_lora_weights.safetensors"
    assert len(read_tensors(path)) == len(state)
    return path


@pytest.mark.parametrize("family", ["sd1", "sd2"])
def test_projections_and_convolutions_of_peft_are_not_lost(tmp_path: Path, family: str) -> None:
    """The file once lost 256 of 320 layers in diffusers without a word, and its alpha."""
    path = wide_lora(tmp_path, family)
    model, stack_pipeline = load(family), pipeline_with(family, {path: 1.0})
    before = weights(model)
    LoraStack(model).apply(one(path))
    changed = sum(not torch.equal(value, before[key]) for key, value in weights(model).items())
    assert changed == len(read_tensors(path)) // 2
    # so wide a LoRA moves outputs near 1 by up to 3e-5 where a processor sums in another order; a lost layer moves them by far more
    assert torch.allclose(unet_output(model.unet, model), unet_output(stack_pipeline.unet, model), atol=5e-5)


def test_the_older_spelling_of_diffusers_with_mixed_names(tmp_path: Path) -> None:
    """convert_state_dict_to_diffusers writes lora.down beside lora_A; both are the same layer's factors."""
    from diffusers.utils import convert_state_dict_to_diffusers

    path = wide_lora(tmp_path, "sd1")
    plain = {key.removeprefix("unet."): value for key, value in read_tensors(path).items()}
    converted = {f"unet.{key}": value for key, value in convert_state_dict_to_diffusers(plain).items()}
    assert any(".lora.down." in key or "_lora.down." in key for key in converted)
    old = tmp_path / "old.safetensors"
    metadata = {
        "lora_adapter_metadata": json.dumps(
            {"unet.lora_alpha": 2, "unet.alpha_pattern": {"mid_block.attentions.0.proj_in": 8}}
        )
    }
    save_file(converted, old, metadata)
    model, other = load("sd1"), load("sd1")
    LoraStack(model).apply(one(path))
    LoraStack(other).apply(one(old))
    assert same(weights(model), weights(other))


# --- the arithmetic, layer by layer ----------------------------------------------------------------------------------


def layer_file(tmp_path: Path, tensors: State, metadata: dict[str, Any] | None = None) -> Path:
    path = tmp_path / "layer.safetensors"
    save_file(tensors, path, {"lora_adapter_metadata": json.dumps(metadata)} if metadata is not None else None)
    return path


def factors(rank: int = 4, width: int = 32) -> tuple[torch.Tensor, torch.Tensor]:
    seeded = torch.Generator().manual_seed(3)
    return torch.randn(rank, width, generator=seeded), torch.randn(width, rank, generator=seeded)


PEFT_LAYER = "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"


@pytest.mark.parametrize(
    "alpha, metadata, scale",
    [
        (None, None, 1.0),
        (2.0, None, 0.5),
        (None, {"unet.lora_alpha": 2, "unet.r": 4}, 0.5),
        (1.0, {"unet.lora_alpha": 2}, 0.25),
        (None, {"unet.lora_alpha": 2, "unet.use_rslora": True}, 1.0),
        (None, {"unet.lora_alpha": 2, "unet.alpha_pattern": {"attn1.to_q": 12}}, 3.0),
        (
            None,
            {
                "unet.lora_alpha": 2,
                "unet.alpha_pattern": {r"^down_blocks\.0\.attentions\.0\.transformer_blocks\.0\.attn1\.to_q": 12},
            },
            3.0,
        ),
        (None, {"text_encoder.lora_alpha": 2}, 1.0),
    ],
)
def test_alpha_is_honoured_wherever_it_stands(
    tmp_path: Path, alpha: float | None, metadata: dict[str, Any] | None, scale: float
) -> None:
    down, up = factors()
    tensors = {f"{PEFT_LAYER}.lora_A.weight": down, f"{PEFT_LAYER}.lora_B.weight": up}
    tensors |= {} if alpha is None else {f"{PEFT_LAYER}.alpha": torch.tensor(alpha)}
    model = load("sd1")
    weight = model.unet.get_submodule(PEFT_LAYER.removeprefix("unet.")).weight
    base = weight.clone()
    LoraStack(model).apply(one(layer_file(tmp_path, tensors, metadata), unet=0.5))
    assert torch.allclose(weight, base + 0.5 * scale * up @ down, atol=1e-6)


def test_alphas_for_layers_that_are_not_there_are_refused(tmp_path: Path) -> None:
    down, up = factors()
    tensors = {f"{PEFT_LAYER}.lora_A.weight": down, f"{PEFT_LAYER}.lora_B.weight": up}
    path = layer_file(tmp_path, tensors, {"unet.alpha_pattern": {"attn2.to_q": 12}})
    with pytest.raises(IncompatibleFile, match=r"does not have: attn2\.to_q"):
        LoraStack(load("sd1")).apply(one(path))


@pytest.mark.parametrize("middle", [False, True])
def test_convolutions_with_and_without_a_core(tmp_path: Path, middle: bool) -> None:
    """Compared with running the factors as convolutions one after the other."""
    name, seeded = "mid_block.resnets.0.conv1", torch.Generator().manual_seed(4)
    tensors = {"lora_up.weight": torch.randn(64, 4, 1, 1, generator=seeded), "alpha": torch.tensor(2.0)}
    if middle:
        tensors |= {
            "lora_down.weight": torch.randn(4, 64, 1, 1, generator=seeded),
            "lora_mid.weight": torch.randn(4, 4, 3, 3, generator=seeded),
        }
    else:
        tensors |= {"lora_down.weight": torch.randn(4, 64, 3, 3, generator=seeded)}
    model = load("sd1")
    conv = model.unet.get_submodule(name)
    x = torch.randn(1, 64, 5, 5, generator=seeded)
    path = layer_file(tmp_path, {f"lora_unet_{name.replace('.', '_')}.{key}": value for key, value in tensors.items()})
    with torch.no_grad():
        inner = torch.nn.functional.conv2d(x, tensors["lora_down.weight"], padding=0 if middle else 1)
        if middle:
            inner = torch.nn.functional.conv2d(inner, tensors["lora_mid.weight"], padding=1)
        expected = conv(x) + 0.5 * torch.nn.functional.conv2d(inner, tensors["lora_up.weight"])
        LoraStack(model).apply(one(path))
        assert torch.allclose(conv(x), expected, atol=1e-4)


def test_linear_factors_fit_a_1x1_convolution_and_the_reverse(tmp_path: Path) -> None:
    down, up = factors(width=64)
    for family, shape in (("sd1", (64, 64, 1, 1)), ("sd2", (64, 64))):
        for extra in ((), (1, 1)):
            model = load(family)
            weight = model.unet.mid_block.attentions[0].proj_in.weight
            base = weight.clone()
            key = "lora_unet_mid_block_attentions_0_proj_in"
            tensors = {
                f"{key}.lora_down.weight": down.reshape(*down.shape, *extra),
                f"{key}.lora_up.weight": up.reshape(*up.shape, *extra),
            }
            LoraStack(model).apply(one(layer_file(tmp_path, tensors)))
            assert weight.shape == shape
            assert torch.allclose(weight, base + (up @ down).reshape(shape), atol=1e-5)


def test_sdxl_files_with_the_original_names_of_the_unet(tmp_path: Path) -> None:
    down, up = factors(width=64)
    model = load("sdxl")
    pairs = {
        "lora_unet_middle_block_1_transformer_blocks_1_attn1_to_q": "mid_block.attentions.0.transformer_blocks.1.attn1.to_q",
        "lora_unet_input_blocks_5_1_proj_in": "down_blocks.2.attentions.0.proj_in",
        "lora_unet_output_blocks_0_1_proj_out": "up_blocks.0.attentions.0.proj_out",
    }
    before = {name: model.unet.get_submodule(name).weight.clone() for name in pairs.values()}
    tensors = {
        f"{key}.{role}.weight": value
        for key in pairs
        for role, value in (("lora_down", down.clone()), ("lora_up", up.clone()))
    }
    LoraStack(model).apply(one(layer_file(tmp_path, tensors)))
    for name, base in before.items():
        assert torch.allclose(model.unet.get_submodule(name).weight, base + up @ down, atol=1e-5), name


# --- switching -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_taking_out_leaves_the_model_as_loaded_bit_for_bit(dtype: torch.dtype) -> None:
    model = load("sdxl", dtype)
    stack, base = LoraStack(model), weights(model)
    first, second = one(tiny_lora("sdxl", seed=1), 0.5, 0.9), one(tiny_lora("sdxl", "peft", seed=2), 1.5, -1)
    merged = []
    for wanted in (first, second, [*first, *second], first, [], second, []):
        stack.apply(wanted)
        merged.append(weights(model))
    assert same(merged[4], base)
    assert same(merged[6], base)
    assert same(merged[0], merged[3])
    assert same(merged[1], merged[5])
    assert not same(merged[0], base)


def test_going_back_to_a_lora_computes_nothing_and_gives_the_same_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    from studio.engine.lora_files import Factors

    model = load("sd1", torch.bfloat16)
    model.unet.to(memory_format=torch.channels_last)
    stack, first, second = LoraStack(model), one(tiny_lora("sd1", seed=1)), one(tiny_lora("sd1", seed=2))
    once = []
    for wanted in (first, second):
        stack.apply(wanted)
        once.append(weights(model))
    monkeypatch.setattr(Factors, "difference", None)  # calling it fails
    for place, wanted in ((0, first), (1, second), (0, first)):
        assert stack.apply(wanted) is True
        assert same(weights(model), once[place])
    assert model.unet.conv_in.weight.is_contiguous(memory_format=torch.channels_last)
    for resnet in model.unet.down_blocks[0].resnets:
        assert resnet.conv1.weight.is_contiguous(memory_format=torch.channels_last)


def test_merged_weights_are_forgotten_where_there_is_no_room_for_them() -> None:
    model = load("sd1")
    stack, base = LoraStack(model, keeps=0), weights(model)
    for seed in (1, 2, 1):
        stack.apply(one(tiny_lora("sd1", seed=seed)))
    assert len(stack._kept) == 1
    assert len(stack._files) == 1
    stack.apply(())
    assert same(weights(model), base)


def test_merged_weights_that_are_taken_out_are_forgotten_where_there_is_no_room_for_them() -> None:
    """Also by the list that is empty, which has none of its own to keep."""
    stack = LoraStack(load("sd1"), keeps=0)
    stack.apply(one(tiny_lora("sd1", seed=1)))
    stack.apply(())
    assert not stack._kept and stack.beside == 0


def test_what_is_kept_for_loras_counts_as_memory_and_goes_before_a_checkpoint_does(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    keeper = ModelKeeper(choose_hardware("cpu", precision="fp32"), limit=2)
    monkeypatch.setattr("studio.engine.keeper.WORKING_MEMORY", 0)
    info, other = tiny_info("sd1"), tiny_info("sprout")
    loaded = keeper.checkpoint(info)
    alone, base = loaded.bytes, weights(loaded.model)
    loaded.loras.apply(one(tiny_lora("sd1", seed=1)))
    merged = sum(tensor.nbytes for tensor in next(iter(loaded.loras._kept.values())).values())
    assert loaded.bytes == alone + merged, "the weights as loaded lie beside those that are shown"
    loaded.loras.apply(one(tiny_lora("sd1", seed=2)))
    assert loaded.bytes == alone + 2 * merged
    room = alone + 2 * merged

    def free(self: Hardware) -> int:
        return room - sum(held.bytes for held in keeper._held)

    monkeypatch.setattr(Hardware, "free_memory", free)
    room += stored_bytes(fingerprint(other), PLAIN, keeper._hardware) - merged
    shown = weights(loaded.model)
    keeper.checkpoint(other)
    assert keeper.holds(loaded) and loaded.bytes == alone + merged
    assert same(weights(loaded.model), shown)
    loaded.loras.apply(())
    assert loaded.bytes == alone + merged, "what was merged is kept, in case it comes back"
    assert same(weights(loaded.model), base)


def test_the_parts_have_weights_of_their_own() -> None:
    model = load("sdxl")
    stack, base = LoraStack(model), weights(model)
    for te, unet, parts in ((0.0, 1.0, {"unet"}), (1.0, 0.0, {"0", "1"}), (0.0, 0.0, set())):
        stack.apply(one(tiny_lora("sdxl"), te, unet))
        assert {
            key.split(".")[0] for key, value in weights(model).items() if not torch.equal(value, base[key])
        } == parts


def test_weights_act_in_proportion_and_one_file_twice_is_the_sum() -> None:
    model = load("sd1")
    stack, base = LoraStack(model), weights(model)
    path = tiny_lora("sd1")
    stack.apply(one(path))
    full = weights(model)
    stack.apply([*one(path, 0.7, 0.7), *one(path, 0.3, 0.3)])
    assert all(torch.allclose(value, full[key], atol=1e-6) for key, value in weights(model).items())
    stack.apply(one(path, 0.5, 0.5))
    assert all(
        torch.allclose(value - base[key], (full[key] - base[key]) / 2, atol=1e-6)
        for key, value in weights(model).items()
    )


def test_the_same_list_costs_nothing_and_parameters_stay_the_same_objects(monkeypatch: pytest.MonkeyPatch) -> None:
    import studio.engine.lora as module

    model = load("sd1")
    stack, parameters = LoraStack(model), [id(parameter) for parameter in model.unet.parameters()]
    reads: list[Path] = []
    read = module.read_lora
    monkeypatch.setattr(module, "read_lora", lambda path, name: reads.append(path) or read(path, name))
    path = tiny_lora("sd1")
    assert stack.apply(one(path)) is True
    assert stack.apply(one(path)) is False
    assert stack.apply(one(path, 0.5, 0.5)) is True
    assert len(reads) == 1
    assert stack.active == (LoraWeights(path, 0.5, 0.5),)
    assert stack.apply(()) is True
    assert stack.apply(()) is False
    assert [id(parameter) for parameter in model.unet.parameters()] == parameters


def test_a_file_that_changed_on_disk_is_read_again(tmp_path: Path) -> None:
    path = Path(shutil.copy(tiny_lora("sd1", seed=1), tmp_path / "x.safetensors"))
    model = load("sd1")
    stack = LoraStack(model)
    stack.apply(one(path))
    before = weights(model)
    shutil.copy(tiny_lora("sd1", seed=2), path)
    os.utime(path, ns=(1, 1))
    assert stack.apply(one(path)) is True
    assert not same(weights(model), before)


def test_the_key_of_encoded_prompts_follows_the_text_encoders_weights() -> None:
    stack = LoraStack(load("sd1"))
    both, unet_only = tiny_lora("sd1"), tiny_lora("sd1", parts=("unet",))
    base = stack.text_key()
    stack.apply(one(unet_only))
    assert stack.text_key() == base
    stack.apply(one(both, te=1.0, unet=0.0))
    changed = stack.text_key()
    assert changed != base
    stack.apply(one(both, te=0.5, unet=0.0))
    assert stack.text_key() not in (base, changed)
    stack.apply(())
    assert stack.text_key() == base


def test_a_resolved_tag_is_understood() -> None:
    use = LoraUse(name="fox", model=tiny_info(tiny_lora("sd1"), "lora"), te_weight=0.3, unet_weight=0.6)
    assert LoraWeights.of(use) == LoraWeights(tiny_lora("sd1"), 0.3, 0.6, "fox")


# --- what can be wrong -----------------------------------------------------------------------------------------------


def kohya(**more: torch.Tensor) -> State:
    down, up = factors()
    layer = f"lora_unet_{LAYER}"
    tensors = {"lora_down.weight": down, "lora_up.weight": up, "alpha": torch.tensor(2.0)} | more
    return {f"{layer}.{key}": value for key, value in tensors.items()}


def without(key: str) -> State:
    return {name: value for name, value in kohya().items() if not name.endswith(key)}


@pytest.mark.parametrize(
    "tensors, words",
    [
        (lambda: kohya() | {"lora_unet_nowhere_to_q.lora_down.weight": torch.ones(4, 32), "lora_unet_nowhere_to_q.lora_up.weight": torch.ones(32, 4)},
         r"1 of its 2 layers are not in the model: lora_unet_nowhere"),
        (lambda: kohya() | {"surplus.weight": torch.ones(2)}, r"1 of its 4 keys belong to nothing known: surplus\.weight"),
        (lambda: kohya() | {"bundle_emb.x.string_to_param.*": torch.ones(2)}, "belong to nothing known: bundle_emb"),
        (lambda: without("lora_up.weight"), r"2 of its 2 keys belong to nothing known"),
        (lambda: without("lora_down.weight") | {"lora_unet_x.lora_down.weight": torch.ones(2, 2)}, "belong to nothing known"),
        (lambda: kohya(**{"lora_down.weight": torch.ones(4, 48)}), r"1 of its 1 layers have other shapes: .* makes \[32, 48\], the layer is \[32, 32\]"),
        (lambda: kohya(**{"lora_down.weight": torch.ones(5, 32)}), "have other shapes"),
        (lambda: kohya(**{"lora_down.weight": torch.ones(4, 32, 3)}), "have other shapes"),
        (lambda: {f"lora_unet_{LAYER}.hada_w1_a": torch.ones(32, 4)}, "LoHa"),
        (lambda: {f"lora_unet_{LAYER}.lokr_w1": torch.ones(4, 4)}, "LoKr"),
        (lambda: {"x": torch.ones(1)}, "no LoRA weights"),
    ],
)  # fmt: skip
def test_nothing_is_lost_in_silence(tmp_path: Path, tensors: Callable[[], State], words: str) -> None:
    model = load("sd1")
    stack = LoraStack(model)
    stack.apply(one(tiny_lora("sd1")))
    before = weights(model)
    with pytest.raises(IncompatibleFile, match=words) as caught:
        stack.apply([*one(tiny_lora("sd1", seed=9)), LoraWeights(layer_file(tmp_path, tensors()), 1, 1, "fox")])
    assert "'fox'" in caught.value.message
    assert same(weights(model), before)
    assert stack.active == (LoraWeights(tiny_lora("sd1"), 1, 1),)


@pytest.mark.parametrize(
    "made_for, used_on, title", [("sdxl", "sd1", "Stable Diffusion XL"), ("sd1", "sdxl", "Stable Diffusion 1.x")]
)
def test_a_lora_of_another_family_is_said_to_be_one(made_for: str, used_on: str, title: str) -> None:
    with pytest.raises(IncompatibleFile, match=f"it was made for {title}, and {used_on}-folder is"):
        LoraStack(load(used_on)).apply(one(tiny_lora(made_for)))


@pytest.mark.parametrize(
    "tensors, words",
    [
        (lambda: kohya(**{"lora_up.weight": torch.full((32, 4), float("nan"))}), "no finite numbers"),
        (lambda: kohya(alpha=torch.tensor(float("inf"))), "no finite numbers"),
        (lambda: kohya(alpha=torch.ones(3)), "must be one number"),
    ],
)
def test_numbers_that_are_none_are_damage(tmp_path: Path, tensors: Callable[[], State], words: str) -> None:
    with pytest.raises(DamagedFile, match=words):
        LoraStack(load("sd1")).apply(one(layer_file(tmp_path, tensors())))


@pytest.mark.parametrize("text", ["{", "[]", '{"unet.lora_alpha": "x"}', '{"unet.alpha_pattern": 3}'])
def test_damaged_metadata_is_damage(tmp_path: Path, text: str) -> None:
    path = tmp_path / "x.safetensors"
    save_file(kohya(), path, {"lora_adapter_metadata": text})
    with pytest.raises(DamagedFile, match="lora_adapter_metadata"):
        LoraStack(load("sd1")).apply(one(path))


def test_missing_truncated_and_pickled_files(tmp_path: Path) -> None:
    stack = LoraStack(load("sd1"))
    with pytest.raises(NotFound, match="'gone'"):
        stack.apply(one(tmp_path / "gone.safetensors"))
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(tiny_lora("sd1").read_bytes()[:-100])
    with pytest.raises(DamagedFile, match=r"cut\.safetensors"):
        stack.apply(one(cut))
    pickled = tmp_path / "old.pt"
    pickled.write_bytes(b"x")
    with pytest.raises(IncompatibleFile, match="pickle"):
        stack.apply(one(pickled))


def test_running_out_of_memory_half_way_leaves_the_model_as_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    from studio.engine.lora_files import Factors

    model = load("sd1")
    stack, base = LoraStack(model), weights(model)
    stack.apply(one(tiny_lora("sd1", seed=1)))
    made = Factors.difference
    calls: list[int] = []

    def failing(self: Factors, device: torch.device) -> torch.Tensor:
        calls.append(1)
        if len(calls) == 20:
            raise torch.OutOfMemoryError("no memory")
        return made(self, device)

    monkeypatch.setattr(Factors, "difference", failing)
    with pytest.raises(torch.OutOfMemoryError):
        stack.apply(one(tiny_lora("sd1", seed=2)))
    assert same(weights(model), base)
    assert stack.active == ()
    monkeypatch.setattr(Factors, "difference", made)
    assert stack.apply(one(tiny_lora("sd1", seed=2))) is True


def test_an_undoing_that_fails_is_done_by_the_next_attempt(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory runs out half way, and the card, or whoever is asked, refuses part of the undoing as well: no weight is lost."""
    model = load("sd1")
    stack, base = LoraStack(model), weights(model)
    stack.apply(one(tiny_lora("sd1", seed=2)))
    merged = weights(model)
    stack.apply(())
    change, calls = LoraStack._change, list[int]()

    def failing(weight: torch.nn.Parameter, tensor: torch.Tensor) -> torch.Tensor:
        calls.append(1)
        if len(calls) in (20, 25):
            raise torch.OutOfMemoryError("no memory")
        return change(weight, tensor)

    for then, expected in (((), base), (one(tiny_lora("sd1", seed=2)), merged)):
        stack.apply(one(tiny_lora("sd1", seed=1)))
        stack.forget()
        calls.clear()
        with monkeypatch.context() as patch:
            patch.setattr(LoraStack, "_change", staticmethod(failing))
            with pytest.raises(torch.OutOfMemoryError):
                stack.apply(one(tiny_lora("sd1", seed=3)))
        assert len(calls) == 25
        assert not same(weights(model), base)
        stack.apply(then)
        assert same(weights(model), expected)
        assert stack.active == tuple(then)
        stack.apply(())


def test_memory_that_runs_out_on_a_card_leaves_the_weights_as_loaded() -> None:
    """They are changed in their places there. Really too little memory, at whichever weight that is."""
    with card_of(64 * 2**20) as hardware:
        card = hardware.card
        assert card is not None
        model = load_checkpoint(tiny_info(tiny_folder("sd1")), hardware.device, torch.float32)

        def there() -> State:
            return {
                f"{number} {key}": value.cpu()
                for number, module in enumerate((model.unet, *model.text_encoders))
                for key, value in module.state_dict().items()
            }

        stack, base = LoraStack(model, hardware.device), there()
        stack.apply(one(tiny_lora("sd1", seed=1)))
        first = there()
        stack.apply(one(tiny_lora("sd1", seed=2)))
        second = there()
        failed = 0
        for room in range(0, 2**16, 2**11):
            stack.apply(one(tiny_lora("sd1", seed=1)))
            assert same(there(), first)
            whole, card.capacity = card.capacity, card.used + room
            try:
                stack.apply(one(tiny_lora("sd1", seed=2)))
            except torch.OutOfMemoryError:
                failed += 1
            card.capacity = whole
            assert same(there(), base if not stack.active else second)
        assert 0 < failed < 32

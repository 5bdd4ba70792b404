"""Text encoders from files of their own: they read as in a checkpoint that has them inside, and leave no trace."""

from __future__ import annotations

import copy
import functools
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from transformers import CLIPConfig, CLIPModel

from studio.engine import coding
from studio.engine.eight_bit import PLAIN, EightBitLinear, Storage
from studio.engine.hardware import choose_hardware
from studio.engine.keeper import ModelKeeper
from studio.engine.loaded import LoadedCheckpoint
from studio.engine.loading import LoadedVae
from studio.engine.lora import LoraWeights
from studio.engine.runner import DiffusersEngine
from studio.engine.text_encoders import TextStates, encode_tokens
from studio.errors import IncompatibleFile, NotFound
from studio.schema.engine import CancelToken
from studio.schema.events import ImageReady
from studio.schema.models import ModelInfo
from studio.schema.resolved import ResolvedRequest
from tests import tiny_original as original
from tests.engine.test_hires import asked, pictures
from tests.tiny_models import tiny_components, tiny_file, tiny_folder, tiny_info, tiny_lora, tiny_vae_file

TOKENS = torch.tensor([[49406, 320, 736, 3240, *([49407] * 73)]])
HARDWARE = choose_hardware("cpu", precision="fp32")


@functools.cache
def tuned(family: str, part: str = "text_encoder") -> Any:
    """Another text encoder of the same shape."""
    module = copy.deepcopy(tiny_components(family)[part])
    seeded = torch.Generator().manual_seed(3)
    for weight in module.parameters():
        weight.data += 0.05 * torch.randn(weight.shape, generator=seeded)
    return module


def written(path: Path, family: str, part: str = "text_encoder", layout: str = "text_model.") -> ModelInfo:
    """`tuned` in a file; `layout` is what stands before transformers' keys, or "open_clip"."""
    module = tuned(family, part)
    state = module.state_dict()
    if layout == "open_clip":
        extra = 1 if family == "sd2" else 0
        tensors = original.original_open_clip(state, extra_layers=extra)
    else:
        tensors = {f"{layout}{key}": value for key, value in original.bare(state).items() if "projection" not in key}
        projection = {key: value for key, value in state.items() if "projection" in key}
        tensors |= {f"{layout.removesuffix('text_model.')}{key}": value for key, value in projection.items()}
    save_file({key: value.contiguous().clone() for key, value in tensors.items()}, path)
    return info(path, module.get_input_embeddings().embedding_dim)


def info(path: Path, width: int) -> ModelInfo:
    facts = {"kind": "text_encoder", "name": path.stem, "path": str(path), "layout": "file", "family": "unknown"}
    return ModelInfo.model_validate({**facts, "size": path.stat().st_size, "mtime": 0.0, "text_widths": (width,)})


def loaded(family: str, storage: Storage = PLAIN) -> LoadedCheckpoint:
    return ModelKeeper(HARDWARE).checkpoint(tiny_info(family), storage=storage)


def read(checkpoint: LoadedCheckpoint) -> TextStates:
    return encode_tokens(checkpoint.model, TOKENS)


def same(one: TextStates, other: TextStates) -> bool:
    pooled = one.pooled is other.pooled or (one.pooled is not None and torch.equal(one.pooled, other.pooled))  # type: ignore[arg-type]
    return pooled and all(torch.equal(a, b) for a, b in zip(one.states, other.states, strict=True))


@pytest.mark.parametrize(
    ("family", "part", "layout"),
    [
        ("sd1", "text_encoder", "text_model."),
        ("sd2", "text_encoder", "open_clip"),
        ("sdxl", "text_encoder_2", "text_model."),
        ("sdxl", "text_encoder_2", "open_clip"),
    ],
)
def test_it_reads_as_in_a_checkpoint_that_has_it_inside(tmp_path: Path, family: str, part: str, layout: str) -> None:
    checkpoint = loaded(family)
    own, before = checkpoint.model.text_encoders, read(checkpoint)
    file = written(tmp_path / "tuned.safetensors", family, part, layout)
    key = checkpoint.text_key()
    checkpoint.read_with([file], ())
    found = read(checkpoint)
    assert checkpoint.text_key() != key
    place = [encoder.name for encoder in checkpoint.model.family.encoders].index(part)  # type: ignore[arg-type]
    checkpoint.model.text_encoders = (*own[:place], tuned(family, part), *own[place + 1 :])
    assert same(found, read(checkpoint)) and not same(found, before)
    checkpoint.read_with((), ())
    assert checkpoint.model.text_encoders == own  # the very same modules
    assert same(read(checkpoint), before) and checkpoint.text_key() == key


def test_a_whole_checkpoint_and_a_trained_pair_lend_their_text_encoders(tmp_path: Path) -> None:
    """What the training methods `text_encoder` (as one file) and `clip` publish."""
    checkpoint = loaded("sprout")
    inside = tiny_components("sd1")["text_encoder"]
    checkpoint.read_with([info(tiny_file("sd1"), 32)], ())
    weights = original.bare(checkpoint.model.text_encoders[0].state_dict())
    assert all(torch.equal(weights[key], value) for key, value in original.bare(inside.state_dict()).items())
    vision = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
    text = {**inside.config.to_dict(), "dtype": "float32"}
    pair = CLIPModel(CLIPConfig(text_config=text, vision_config={**vision, "image_size": 8, "patch_size": 8}))
    pair.half().save_pretrained(tmp_path / "pair")
    checkpoint.read_with([info(tmp_path / "pair" / "model.safetensors", 32)], ())
    weights = original.bare(checkpoint.model.text_encoders[0].state_dict())
    trained = {
        key.removeprefix("text_model."): value for key, value in pair.state_dict().items() if "text_model." in key
    }
    assert weights.keys() == trained.keys()
    assert all(torch.equal(weights[key], value.float()) for key, value in trained.items())


def test_prompts_are_not_remembered_across_text_encoders(tmp_path: Path) -> None:
    checkpoint = loaded("sd1")
    file = written(tmp_path / "tuned.safetensors", "sd1")

    def states() -> torch.Tensor:
        encode = checkpoint.conditioner.encode
        text = (("a fox", 1.2),)
        return encode(text, clip_skip=2, emphasis="Original", weights=checkpoint.text_key(), is_negative=False).joined()

    before = states()
    checkpoint.read_with([file], ())
    changed = states()
    assert not torch.equal(before, changed)
    checkpoint.read_with((), ())
    assert torch.equal(states(), before)


@pytest.mark.parametrize("storage", [PLAIN, Storage(eight_bit=True)])
def test_a_lora_goes_into_it_and_out_of_it(tmp_path: Path, storage: Storage) -> None:
    checkpoint = loaded("sd1", storage)
    file, lora = written(tmp_path / "tuned.safetensors", "sd1"), [LoraWeights(tiny_lora("sd1"), 0.7, 0.7)]
    checkpoint.read_with((), lora)
    with_lora, own = read(checkpoint), checkpoint.model.text_encoders[0]
    assert isinstance(next(m for m in own.modules() if isinstance(m, nn.Linear)), EightBitLinear) == storage.eight_bit
    checkpoint.read_with([file], ())
    bare, other = read(checkpoint), checkpoint.model.text_encoders[0]
    assert {type(m) for m in other.modules() if isinstance(m, nn.Linear)} == {
        EightBitLinear if storage.eight_bit else nn.Linear
    }
    checkpoint.read_with([file], lora)
    both = read(checkpoint)
    assert not same(both, bare) and not same(both, with_lora)
    if not storage.eight_bit:
        layer, part = "encoder.layers.0.self_attn.q_proj", checkpoint.model.text_encoders[0]
        difference = part.get_submodule(layer).weight - original_layer(tuned("sd1"), layer)
        alone = own.get_submodule(layer).weight
        checkpoint.read_with((), lora)
        merged = own.get_submodule(layer).weight.clone()
        checkpoint.read_with((), ())
        assert torch.allclose(difference, merged - own.get_submodule(layer).weight, atol=1e-6)
        assert float(difference.abs().max()) > 1e-3 and alone.shape == merged.shape
    checkpoint.read_with([file], ())
    assert same(read(checkpoint), bare)
    checkpoint.read_with((), lora)
    assert same(read(checkpoint), with_lora)


def original_layer(module: nn.Module, name: str) -> torch.Tensor:
    weight: torch.Tensor = module.get_submodule(name).weight  # type: ignore[assignment]
    return weight


def test_both_of_sdxl_at_once_and_a_file_that_is_written_over(tmp_path: Path) -> None:
    checkpoint = loaded("sdxl")
    files = [written(tmp_path / f"{part}.safetensors", "sdxl", part) for part in ("text_encoder", "text_encoder_2")]
    checkpoint.read_with(files, ())
    both = read(checkpoint)
    for place, own in enumerate(("text_encoder", "text_encoder_2")):
        assert torch.equal(
            checkpoint.model.text_encoders[place].get_input_embeddings().weight,  # type: ignore[operator]
            tuned("sdxl", own).get_input_embeddings().weight,
        )
    size = checkpoint.bytes
    checkpoint.read_with((), ())
    assert checkpoint.bytes == size  # they wait in memory
    state = {f"text_model.{key}": value * 1.5 for key, value in original.bare(tuned("sdxl").state_dict()).items()}
    save_file(state, files[0].path)
    checkpoint.read_with(files, ())
    assert not same(read(checkpoint), both)


def test_what_does_not_fit_changes_nothing(tmp_path: Path) -> None:
    checkpoint = loaded("sd1")
    before = read(checkpoint)
    wide = written(tmp_path / "wide.safetensors", "sd2", layout="open_clip")
    with pytest.raises(IncompatibleFile, match=r"'wide' does not fit .*reads prompts with 32") as caught:
        checkpoint.read_with([wide], ())
    assert caught.value.field == "text_encoders"
    short = {key: value.contiguous() for key, value in tuned("sd1").state_dict().items() if ".layers.2." not in key}
    save_file(short, tmp_path / "short.safetensors")
    with pytest.raises(IncompatibleFile, match=r"It has 2 layers, the text encoder of .* has 3"):
        checkpoint.read_with([info(tmp_path / "short.safetensors", 32)], ())
    with pytest.raises(NotFound, match="'gone' is not there any more"):
        checkpoint.read_with([wide.model_copy(update={"name": "gone", "path": str(tmp_path / "gone.safetensors")})], ())
    assert same(read(checkpoint), before)


def painted(engine: DiffusersEngine, resolved: ResolvedRequest) -> np.ndarray[Any, Any]:
    events = list(engine.run(resolved, CancelToken()))
    assert any(isinstance(event, ImageReady) for event in events)
    return pictures(events)[0]


def test_each_pass_has_its_own(tmp_path: Path) -> None:
    """In both passes it is what a checkpoint paints that has it inside; in one of them it is neither that nor the plain picture."""
    engine = DiffusersEngine("cpu", precision="fp32")
    file = written(tmp_path / "tuned.safetensors", "sd1")
    plain = asked(steps=1, hires={"scale": 1.0, "denoising_strength": 0.5})
    inside = shutil.copytree(tiny_folder("sd1"), tmp_path / "inside")
    tuned("sd1").save_pretrained(inside / "text_encoder")
    base = plain.hires
    assert base is not None
    found = {
        (first, second): painted(
            engine,
            plain.model_copy(
                update={
                    "text_encoders": (file,) * first,
                    "hires": base.model_copy(update={"text_encoders": (file,) * second}),
                }
            ),
        )
        for first in (False, True)
        for second in (False, True)
    }
    whole = {"model": tiny_info(inside), "hires": base.model_copy(update={"model": tiny_info(inside)})}
    assert np.array_equal(found[True, True], painted(engine, plain.model_copy(update=whole)))
    keys = list(found)
    assert not any(np.array_equal(found[a], found[b]) for a in keys for b in keys if a < b)


def test_the_vae_of_the_second_pass_reads_what_is_between_and_finishes_the_picture(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    engine = DiffusersEngine("cpu", precision="fp32")
    vae = tiny_info(tiny_vae_file("sd1"), "vae")
    read: list[nn.Module] = []
    begin = coding.begun

    def watched(large: Any, plan: Any, coder: LoadedVae, **more: Any) -> torch.Tensor:
        read.append(coder.module)
        return begin(large, plan, coder, **more)

    monkeypatch.setattr(coding, "begun", watched)

    def picture(upscaler: str, first: ModelInfo | None, second: ModelInfo | None) -> np.ndarray[Any, Any]:
        plain = asked(steps=1, hires={"scale": 1.0, "denoising_strength": 0.5, "upscaler": upscaler})
        assert plain.hires is not None
        return painted(
            engine,
            plain.model_copy(update={"vae": first, "hires": plain.hires.model_copy(update={"vae": second})}),
        )

    # Enlarged latents never meet the first pass's VAE; an enlarged picture comes of it.
    assert np.array_equal(picture("Latent", None, vae), picture("Latent", vae, vae))
    assert not np.array_equal(picture("Lanczos", None, vae), picture("Lanczos", vae, vae))
    (separate,) = (each.module for each in engine._keeper._vaes.values())
    assert all(module is separate for module in read) and len(read) == 4

"""Embeddings in the text encoders. The oracle puts their vectors into the table of token vectors, as new words."""

from __future__ import annotations

import copy
import functools
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from studio.engine.conditioning import Conditioner
from studio.engine.embeddings import KEPT_FILES, NO_VECTORS, EmbeddingVectors, LoadedEmbeddings
from studio.engine.loading import LoadedModel, load_checkpoint
from studio.engine.text_encoders import TextStates
from studio.errors import DamagedFile, IncompatibleFile, NotFound
from studio.prompt import parse_weights, shipped_tokenizer
from studio.schema.resolved import EmbeddingUse
from tests.tiny_models import tiny_components, tiny_embedding, tiny_info

TOKENIZER = shipped_tokenizer()
FAMILIES = ["sd1", "sd2", "sdxl"]
BOS, EOS = 49406, 49407


@functools.cache
def loaded(family: str) -> LoadedModel:
    return load_checkpoint(tiny_info(family), torch.device("cpu"), torch.float32)


def use(path: Path, name: str = "wash") -> EmbeddingUse:
    return EmbeddingUse(name=name, model=tiny_info(path, "embedding"))


def encode(model: LoadedModel, text: str, embeddings: LoadedEmbeddings = NO_VECTORS, **changes: Any) -> TextStates:
    options: dict[str, Any] = {"clip_skip": 1, "emphasis": "Original", "weights": (), "is_negative": False, **changes}
    parts = tuple(parse_weights(text))
    return Conditioner(model, TOKENIZER).encode(parts, embeddings=embeddings, **options)


def with_new_words(family: str, path: Path, ids: list[int]) -> list[tuple[Any, ...]]:
    """Per encoder the outputs for [77] `ids`, where 49408 and following are the rows of the file."""
    outputs = []
    encoders = [module for name, module in tiny_components(family).items() if "text" in name]
    tensors = load_file(path)
    keys = ("clip_l", "clip_g") if len(encoders) > 1 else tuple(tensors)
    for index, (module, key) in enumerate(zip(encoders, keys, strict=True)):
        module = copy.deepcopy(module)
        old = module.get_input_embeddings().weight
        table = torch.nn.Embedding.from_pretrained(torch.cat([old, tensors[key]]))
        module.set_input_embeddings(table)
        fill = 0 if index == 1 or family == "sd2" else EOS
        row = [BOS, *ids, EOS, *[fill] * (75 - len(ids))]
        with torch.no_grad():
            outputs.append(module(input_ids=torch.tensor([row]), output_hidden_states=True))
    return outputs


@pytest.mark.parametrize("family", FAMILIES)
def test_it_is_as_if_the_vectors_stood_in_the_table(family: str) -> None:
    model, path = loaded(family), tiny_embedding(family)
    embeddings = EmbeddingVectors(model, TOKENIZER).load([use(path)])
    found = encode(model, "a Wash fox", embeddings)
    (fox,) = TOKENIZER.encode("fox")
    outputs = with_new_words(family, path, [*TOKENIZER.encode("a"), 49408, 49409, 49410, fox])
    if family == "sdxl":
        wanted = torch.cat([output.hidden_states[-2] for output in outputs], dim=-1)
        assert found.pooled is not None
        torch.testing.assert_close(found.pooled, outputs[1].text_embeds)
    else:
        wanted = outputs[0].last_hidden_state
    torch.testing.assert_close(found.joined(), wanted)
    assert not torch.allclose(found.joined(), encode(model, "a Wash fox").joined())


@pytest.mark.parametrize("family", FAMILIES)
def test_it_stands_where_its_chunk_says_and_carries_its_weight(family: str) -> None:
    model, path = loaded(family), tiny_embedding(family)
    embeddings = EmbeddingVectors(model, TOKENIZER).load([use(path)])
    both = encode(model, "a fox BREAK wash", embeddings).joined()
    torch.testing.assert_close(both[:, :77], encode(model, "a fox").joined())
    torch.testing.assert_close(both[:, 77:], encode(model, "wash", embeddings).joined())
    plain = encode(model, "a wash", embeddings, emphasis="No norm").joined()
    weighed = encode(model, "a (wash:1.5)", embeddings, emphasis="No norm").joined()
    factors = torch.ones(77)
    factors[2:5] = 1.5
    torch.testing.assert_close(weighed, plain * factors[None, :, None])


def test_the_text_encoders_are_as_before_afterwards() -> None:
    model = loaded("sd1")
    before = encode(model, "a wash").joined()
    encode(model, "a wash", EmbeddingVectors(model, TOKENIZER).load([use(tiny_embedding("sd1"))]))
    assert torch.equal(encode(model, "a wash").joined(), before)
    assert not model.text_encoders[0].get_input_embeddings()._forward_hooks  # type: ignore[operator]


def test_a_half_precision_model_takes_them() -> None:
    model = load_checkpoint(tiny_info("sd1"), torch.device("cpu"), torch.bfloat16)
    embeddings = EmbeddingVectors(model, TOKENIZER).load([use(tiny_embedding("sd1"))])
    assert bool(encode(model, "wash", embeddings).joined().isfinite().all())


def test_one_vector_without_a_row_and_another_key(tmp_path: Path) -> None:
    whole = load_file(tiny_embedding("sd1", 1))["emb_params"]
    save_file({"<wash>": whole[0]}, tmp_path / "flat.safetensors")
    reader = EmbeddingVectors(loaded("sd1"), TOKENIZER)
    one, other = (
        encode(loaded("sd1"), "wash", reader.load([use(path)])).joined()
        for path in (tiny_embedding("sd1", 1), tmp_path / "flat.safetensors")
    )
    assert torch.equal(one, other)


def test_encoded_prompts_are_remembered_until_the_file_changes(tmp_path: Path) -> None:
    model, path = loaded("sd1"), tmp_path / "wash.safetensors"
    shutil.copy(tiny_embedding("sd1"), path)
    reader, conditioner = EmbeddingVectors(model, TOKENIZER), Conditioner(model, TOKENIZER)
    options: dict[str, Any] = {"clip_skip": 1, "emphasis": "Original", "weights": (), "is_negative": False}

    def again() -> torch.Tensor:
        return conditioner.encode((("wash", 1.0),), embeddings=reader.load([use(path)]), **options).joined()

    first = again()
    assert again() is first
    shutil.copy(tiny_embedding("sd1", seed=1), path)
    os.utime(path, ns=(1, 1))
    assert not torch.allclose(again(), first)


def test_memory_is_bounded(tmp_path: Path) -> None:
    reader = EmbeddingVectors(loaded("sd1"), TOKENIZER)
    paths = [tmp_path / f"e{number}.safetensors" for number in range(KEPT_FILES + 5)]
    for path in paths:
        shutil.copy(tiny_embedding("sd1", 1), path)
    held = reader.load([use(path, path.stem) for path in paths])
    assert len(reader._files) == KEPT_FILES
    assert len(held.vectors) == len(paths)


def test_files_that_cannot_be_used(tmp_path: Path) -> None:
    model = loaded("sd1")
    reader = EmbeddingVectors(model, TOKENIZER)
    gone = use(tiny_embedding("sd1"))
    gone = gone.model_copy(update={"model": gone.model.model_copy(update={"path": str(tmp_path / "gone.safetensors")})})
    with pytest.raises(NotFound, match="'wash' is not there any more"):
        reader.load([gone])
    with pytest.raises(IncompatibleFile, match="vectors are 64 wide, the model's 32"):
        reader.load([use(tiny_embedding("sd2"))])
    save_file({"a": torch.ones(32), "b": torch.ones(32)}, tmp_path / "two.safetensors")
    with pytest.raises(IncompatibleFile, match="holds 2 tensors"):
        reader.load([use(tmp_path / "two.safetensors")])
    save_file({"emb_params": torch.tensor([[float("nan")] * 32])}, tmp_path / "nan.safetensors")
    with pytest.raises(DamagedFile, match="no finite numbers"):
        reader.load([use(tmp_path / "nan.safetensors")])
    pickled = gone.model_copy(update={"model": gone.model.model_copy(update={"path": str(tmp_path / "x.pt")})})
    (tmp_path / "x.pt").write_bytes(b"x")
    with pytest.raises(IncompatibleFile, match="pickle"):
        reader.load([pickled])
    assert reader.load([]) is NO_VECTORS

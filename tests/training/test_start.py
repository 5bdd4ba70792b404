"""Training on from a finished model: nothing it knows is lost, and what does not fit is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from transformers import CLIPTextModel

from studio.errors import TrainingError
from studio.schema.training import ScratchMethod, parse_training_config
from studio.training.context import TrainingContext
from studio.training.data.scenes.glyphs import FONT_PATH
from studio.training.methods import run_method
from studio.training.methods.scratch.diffusion import averaged_networks, build_networks
from studio.training.methods.scratch.pool import open_pool
from studio.training.methods.scratch.start import compact_rows, copy_autoencoder, load_unet
from studio.training.methods.scratch.text import CompactVocabulary, load_tokenizer
from studio.training.runs import RunFolder

pytestmark = pytest.mark.skipif(not FONT_PATH.exists(), reason="drawing needs the package fonts-noto-color-emoji")


def config(start: str = "", seed: int = 5, width: int = 16) -> dict[str, Any]:
    return {
        "name": "tiny",
        "seed": seed,
        "precision": "fp32",
        "method": {
            "kind": "scratch",
            "start": start,
            "data": {"pictures": 16, "captions": 2, "side": 32},
            "autoencoder": {"channels": [8, 8], "pictures": 8, "crop": 16, "steps": 2, "batch": 2},
            "text": {"width": 16, "layers": 1, "heads": 2, "reading_steps": 2, "reading_batch": 4},
            "unet": {"channels": [8, width], "attention": [False, True]},
            "diffusion": {"steps": 4, "batch": 3, "warmup": 1},
        },
    }


def make_run(folder: Path, **options: Any) -> TrainingContext:
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config(**options)))
    run = RunFolder(folder)
    return TrainingContext(run.config(), run)


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Path:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    context = make_run(tmp_path_factory.mktemp("first") / "run")
    run_method(context)
    torch.set_num_threads(threads)
    return context.run.model


def test_a_run_goes_on_from_the_models_weights_and_latents(first: Path, tmp_path: Path) -> None:
    context = make_run(tmp_path / "run", start=str(first), seed=6)
    run_method(context)
    pool = open_pool(context.run.path / "pool")
    vae = AutoencoderKL.from_pretrained(first / "vae")
    assert pool.mean == (0.0,) * 4
    assert pool.deviation == pytest.approx(1 / vae.config.scaling_factor)
    assert not (context.run.path / "reading.safetensors").exists()

    begun = build_networks(context, pool)
    unet = UNet2DConditionModel.from_pretrained(first / "unet", torch_dtype=torch.float32)
    for name, value in unet.state_dict().items():
        assert torch.equal(begun.unet.state_dict()[name], value), name
    learned = averaged_networks(context, pool)[0].unet
    assert not torch.equal(learned.conv_in.weight, begun.unet.conv_in.weight)

    exported = AutoencoderKL.from_pretrained(context.run.model / "vae")
    for name, value in vae.state_dict().items():
        assert torch.equal(exported.state_dict()[name], value), name


def test_words_both_know_keep_their_vectors(first: Path, tmp_path: Path) -> None:
    context = make_run(tmp_path / "run", start=str(first))
    run_method(context)
    pool = open_pool(context.run.path / "pool")
    begun = build_networks(context, pool).text.eval()
    full = CLIPTextModel.from_pretrained(first / "text_encoder", dtype=torch.float32).eval()
    ids = load_tokenizer()(["a red fox"], padding="max_length", max_length=77, return_tensors="np").input_ids
    rows = torch.from_numpy(pool.vocabulary.compact(ids).astype(np.int64))
    with torch.no_grad():
        got, wanted = begun(rows).last_hidden_state, full(torch.from_numpy(ids)).last_hidden_state
    first_unknown = int(np.argmax(rows.numpy()[0] == pool.vocabulary.unknown)) or 77
    torch.testing.assert_close(got[:, :first_unknown], wanted[:, :first_unknown])


def test_new_words_begin_near_the_shared_row_and_apart_from_each_other() -> None:
    old = CompactVocabulary(np.array([2, 5], dtype=np.int32))
    rows = torch.tensor([[1.0, 2.0], [3.0, 4.0], [9.0, 9.0]])
    embedding = old.expand(rows, 12)
    torch.manual_seed(0)
    found = compact_rows(embedding, CompactVocabulary(np.array([2, 3, 5, 7], dtype=np.int32)))
    assert torch.equal(found[[0, 2, 4]], rows)
    assert not torch.equal(found[1], found[3])
    assert (found[[1, 3]] - rows[2]).abs().max() < 0.2


def test_what_does_not_fit_is_refused(first: Path, tmp_path: Path) -> None:
    def method(**options: Any) -> ScratchMethod:
        return parse_training_config(config(**options), "test").method

    with pytest.raises(TrainingError, match="no diffusers model"):
        copy_autoencoder(method(start=str(tmp_path / "nothing")), tmp_path / "target")
    with pytest.raises(TrainingError, match="block_out_channels"):
        load_unet(method(start=str(first), width=24))
    copy = tmp_path / "copy"
    shutil.copytree(first, copy)
    assert load_unet(method(start=str(copy))).config.sample_size == 16

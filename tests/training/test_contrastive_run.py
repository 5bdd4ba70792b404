"""A whole clip run in miniature: broken off and resumed it makes the same bytes as unbroken, and transformers loads what it makes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import CLIPModel, CLIPProcessor

from studio.library.scan import find_models
from studio.training.card import BEGIN, END
from studio.training.context import StopTraining, TrainingContext
from studio.training.data.scenes.glyphs import FONT_PATH, GlyphAtlas
from studio.training.methods.contrastive import method as method_module
from studio.training.methods.contrastive.model import caption_vectors, picture_vectors
from studio.training.methods.contrastive.pool import brought_to, build_pool
from studio.training.methods.contrastive.train import train_clip_pair
from studio.training.runs import RunFolder, read_events
from tests.training.miniature import Crash, after, eager_polling, new_run, sit

pytestmark = pytest.mark.skipif(not FONT_PATH.exists(), reason="drawing needs the package fonts-noto-color-emoji")

CONFIG: dict[str, Any] = {
    "name": "tiny",
    "seed": 5,
    "precision": "fp32",
    "save_minutes": 1e-9,
    "method": {
        "kind": "clip",
        "data": {"pictures": 12, "captions": 2, "side": 32},
        "text": {"width": 16, "layers": 1, "heads": 2},
        "vision": {"width": 16, "layers": 1, "heads": 2, "side": 16, "patch": 4},
        "projection": 8,
        "contrastive": {"steps": 5, "batch": 4, "warmup": 2},
    },
}


@pytest.fixture(scope="module", autouse=True)
def _eager_with_few_questions() -> Iterator[None]:
    with eager_polling() as patch:
        patch.setattr(method_module, "PICTURES", 20)
        yield


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the unbroken run puts its model, beside a card."""
    folder = tmp_path_factory.mktemp("published") / "pair"
    folder.mkdir()
    (folder / "README.md").write_text(f"# pair\n{BEGIN}\n{END}\n")
    return folder


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, published: Path) -> RunFolder:
    run = new_run(tmp_path_factory.mktemp("whole") / "run", {**CONFIG, "export_to": str(published)})
    sit(run)
    return run


def test_stopped_and_crashed_and_resumed_equals_unbroken_bit_for_bit(whole: RunFolder, tmp_path: Path) -> None:
    run = new_run(tmp_path / "run", CONFIG)
    with pytest.raises(StopTraining):
        sit(run, after(1))  # while writing captions
    with pytest.raises(StopTraining):
        sit(run, after(1 + 1))  # written; then while drawing
    with pytest.raises(StopTraining):
        sit(run, after(1 + 2))  # drawn; then at step 2
    with pytest.raises(Crash):
        sit(run, after(2, Crash))  # killed in step 4
    with pytest.raises(StopTraining):
        sit(run, after(2 + 1 + 1))  # trained and exported; then while it is measured
    model = sit(run)
    for name in ("model.safetensors", "figures.json"):
        assert (model / name).read_bytes() == (whole.model / name).read_bytes()
    stages = [(event.stage, event.step) for event in read_events(run)[0] if event.kind == "stage"]
    assert stages == [
        ("captions", 0),
        ("captions", 0),
        ("draw", 0),
        ("draw", 0),
        ("contrastive", 0),
        ("contrastive", 2),
        ("contrastive", 3),
        ("export", 0),
        ("evaluate", 0),
        ("contrastive", 5),
        ("export", 0),
        ("evaluate", 0),
    ]


def test_transformers_loads_the_export_and_sees_what_was_trained(whole: RunFolder) -> None:
    model = CLIPModel.from_pretrained(whole.model, local_files_only=True)
    processor = CLIPProcessor.from_pretrained(whole.model, local_files_only=True)
    assert model.dtype == torch.float32 and model.config.text_config.vocab_size == 49408
    picture = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    inputs = processor(
        text=["a red fox", "a quokka"], images=[Image.fromarray(picture)], return_tensors="pt", padding=True
    )
    assert inputs["input_ids"][0, :5].tolist() == [49406, 320, 736, 3240, 49407]  # CLIP's own numbers
    seen = torch.tensor(brought_to(picture, 16)).permute(2, 0, 1).float() / 127.5 - 1
    assert torch.allclose(inputs["pixel_values"][0], seen, atol=1e-6)
    with torch.no_grad():
        found = model(**inputs)
        assert torch.allclose(found.image_embeds, picture_vectors(model, seen[None]), atol=1e-6)
    assert found.logits_per_image.shape == (1, 2) and found.logits_per_image.isfinite().all()


def test_the_figures_are_in_the_events_beside_the_model_and_in_the_card(whole: RunFolder, published: Path) -> None:
    figures = json.loads((whole.model / "figures.json").read_text())
    measured = [event for event in read_events(whole)[0] if event.kind == "measured"]
    assert [event.stage for event in measured] == ["evaluate"]
    assert figures == {**measured[0].values, "steps": 5, "pictures_a_step": 4}
    shares = [value for name, value in figures.items() if name.startswith("swap_") and not name.endswith("_pictures")]
    shares += [figures[name] for name in ("image_to_text_r1", "text_to_image_r1", "object_zero_shot")]
    assert len(shares) >= 6 and all(0 <= share <= 1 for share in shares)
    assert figures["held_out_pictures"] == figures["gallery"] == 20
    assert f"| image_to_text_r1 | {figures['image_to_text_r1']:.3f} |" in (published / "README.md").read_text()
    names = {file.name for file in published.iterdir()}
    assert {file.name for file in whole.model.iterdir()} | {"README.md"} == names
    assert {"NOTICE", "config.json", "model.safetensors", "preprocessor_config.json", "vocab.json"} <= names


@pytest.mark.usefixtures("whole")
def test_the_published_folder_is_no_checkpoint_to_choose(published: Path) -> None:
    assert (published / "model.safetensors").is_file()
    assert list(find_models(published.parent)) == []


def test_a_few_pictures_are_learned_until_each_picks_its_caption(tmp_path: Path) -> None:
    tower = {"width": 32, "layers": 2, "heads": 2}
    method = {
        **CONFIG["method"],
        "data": {"pictures": 8, "captions": 1, "side": 32},
        "text": tower,
        "vision": {**tower, "side": 32, "patch": 8},
        "projection": 16,
        "contrastive": {"steps": 80, "batch": 8, "warmup": 5, "learning_rate": 3e-3, "ema_decay": 0.0},
    }
    run = new_run(tmp_path / "run", {**CONFIG, "method": method, "save_minutes": 60})
    context = TrainingContext(run.config(), run)
    pool = build_pool(context, GlyphAtlas())
    model = train_clip_pair(context, pool)
    pictures = torch.tensor(pool.pictures).permute(0, 3, 1, 2).float() / 127.5 - 1
    right, wrong = (torch.from_numpy(rows[:, 0].astype(np.int64)) for rows in (pool.captions, pool.wrong))
    with torch.no_grad():
        shown, told, false = (
            picture_vectors(model, pictures),
            caption_vectors(model, right),
            caption_vectors(model, wrong),
        )
    assert (shown @ told.T).argmax(dim=1).tolist() == list(range(8))
    assert ((shown * told).sum(dim=1) > (shown * false).sum(dim=1)).sum() >= 7
    losses = [
        event.values["loss"] for event in read_events(run)[0] if event.kind == "progress" and "loss" in event.values
    ]
    assert losses[-1] < 0.3 * np.log(8) < losses[0]

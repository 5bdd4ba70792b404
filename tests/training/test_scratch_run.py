"""A whole scratch run in miniature: broken off and resumed it makes the same bytes as unbroken, and diffusers loads what it makes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline

from studio.errors import TrainingError
from studio.schema.training import TrainingConfig
from studio.training.context import StopTraining, TrainingContext
from studio.training.data.scenes.glyphs import FONT_PATH
from studio.training.runs import RunFolder, StageProgress, read_events
from studio.training.worker import main as worker_main
from tests.training.miniature import Crash, after, eager_polling, new_run, sit

pytestmark = pytest.mark.skipif(not FONT_PATH.exists(), reason="drawing needs the package fonts-noto-color-emoji")

CONFIG = {
    "name": "tiny",
    "seed": 5,
    "precision": "fp32",
    "save_minutes": 1e-9,
    "method": {
        "kind": "scratch",
        "data": {"pictures": 24, "captions": 2, "side": 32},
        "autoencoder": {"channels": [8, 8], "latent_channels": 4, "pictures": 8, "crop": 16, "steps": 5, "batch": 2},
        "text": {"width": 16, "layers": 1, "heads": 2, "long_from": 0.7, "reading_steps": 3, "reading_batch": 4},
        "unet": {"channels": [8, 16], "attention": [False, True]},
        "diffusion": {"steps": 6, "batch": 3, "warmup": 2},
    },
}


@pytest.fixture(scope="module", autouse=True)
def _eager() -> Iterator[None]:
    with eager_polling():
        yield


def weights(model: Path) -> dict[str, bytes]:
    return {file.parent.name: file.read_bytes() for file in model.rglob("*.safetensors")}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    run = new_run(tmp_path_factory.mktemp("whole") / "run", CONFIG)
    sit(run)
    return run


def test_stopped_and_crashed_and_resumed_equals_unbroken_bit_for_bit(whole: RunFolder, tmp_path: Path) -> None:
    run = new_run(tmp_path / "run", CONFIG)
    with pytest.raises(StopTraining):
        sit(run, after(3))  # in the autoencoder, at step 3
    with pytest.raises(Crash):
        sit(
            run, after(2 + 1 + 3 + 3, Crash)
        )  # 2 of the autoencoder, 1 encode, 3 reading, then killed in step 3 of diffusion
    with pytest.raises(StopTraining):
        sit(run, after(2))
    model = sit(run)
    assert weights(model) == weights(whole.model)
    stages = [(event.stage, event.step) for event in read_events(run)[0] if event.kind == "stage"]
    assert stages == [
        ("autoencoder", 0),
        ("autoencoder", 3),
        ("encode", 0),
        ("reading", 0),
        ("diffusion", 0),
        ("diffusion", 2),
        ("diffusion", 4),
        ("export", 0),
    ]


def test_the_events_tell_loss_speed_and_eta(whole: RunFolder) -> None:
    progress = [
        event for event in read_events(whole)[0] if isinstance(event, StageProgress) and event.stage == "diffusion"
    ]
    assert [event.step for event in progress] == [1, 2, 3, 4, 5, 6]
    assert all(event.values["loss"] > 0 and event.per_second > 0 for event in progress)
    assert progress[-1].eta_s == 0


def test_plain_diffusers_loads_the_export_and_paints(whole: RunFolder) -> None:
    pipeline = StableDiffusionPipeline.from_pretrained(whole.model, local_files_only=True)
    pipeline.set_progress_bar_config(disable=True)
    assert pipeline.safety_checker is None
    assert pipeline.scheduler.config.prediction_type == "v_prediction"
    assert pipeline.scheduler.config.clip_sample is False
    picture = np.asarray(pipeline("a red fox", num_inference_steps=2, output_type="np").images[0])
    assert picture.shape == (32, 32, 3) and np.isfinite(picture).all()


def test_the_export_does_not_say_where_it_was_made(whole: RunFolder) -> None:
    texts = [path.read_text("utf-8") for path in whole.model.rglob("*.json") if path.name != "vocab.json"]
    assert len(texts) >= 5
    assert [text for text in texts if str(whole.path) in text or "_name_or_path" in text] == []


def test_exported_latents_are_centred_and_scaled_and_the_preview_fits_them(whole: RunFolder) -> None:
    shipped = AutoencoderKL.from_pretrained(whole.model / "vae").eval()
    trained = AutoencoderKL.from_pretrained(whole.path / "autoencoder").eval()
    pictures = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    with torch.no_grad():
        raw = trained.encode(pictures).latent_dist.mode()
        decoded = trained.decode(raw).sample
        again = shipped.decode(shipped.encode(pictures).latent_dist.mode()).sample
    assert torch.allclose(decoded, again, atol=0.02)
    facts = json.loads((whole.path / "pool" / "manifest.json").read_text())
    assert shipped.config.scaling_factor == pytest.approx(1 / facts["deviation"])
    preview = json.loads((whole.model / "preview.json").read_text())
    assert np.array(preview["factors"]).shape == (4, 3) and np.array(preview["bias"]).shape == (3,)


def test_a_loss_that_is_not_finite_ends_the_run_and_keeps_the_last_state(tmp_path: Path) -> None:
    run = new_run(tmp_path / "run", CONFIG)
    config = TrainingConfig.model_validate(CONFIG)
    clock = TrainingContext(config, run).stage("diffusion", 0, 10)
    with pytest.raises(TrainingError, match="loss is nan at step 4"):
        clock.tick(4, loss=float("nan"))


def test_the_worker_reports_a_broken_run_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert worker_main([str(tmp_path)]) == 1
    assert "no run folder" in capsys.readouterr().err
    assert [event.kind for event in read_events(RunFolder(tmp_path))[0]] == ["failed"]

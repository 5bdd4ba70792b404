"""`train RECIPE` for real: the run's process, its folder, a kill -9 in the middle, and the same command again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from studio.training.data.scenes.glyphs import FONT_PATH

ROOT = Path(__file__).resolve().parents[2]
RECIPE = """
name = "tiny"
seed = 5
precision = "fp32"
save_minutes = 1e-9

[method]
kind = "scratch"
data = { pictures = 24, captions = 2, side = 32 }
autoencoder = { channels = [8, 8], latent_channels = 4, pictures = 8, crop = 16, steps = 5, batch = 2 }
text = { width = 16, layers = 1, heads = 2, long_from = 0.7, reading_steps = 3, reading_batch = 4 }
unet = { channels = [8, 16], attention = [false, true] }
diffusion = { steps = 60, batch = 3, warmup = 2 }
"""

pytestmark = pytest.mark.skipif(not FONT_PATH.exists(), reason="drawing needs the package fonts-noto-color-emoji")


def start(folder: Path) -> subprocess.Popen[str]:
    words = [sys.executable, "-m", "studio", "train", str(folder / "tiny.toml"), "--data-dir", str(folder)]
    environ = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(words, cwd=ROOT, env=environ, stderr=subprocess.PIPE, text=True)


@pytest.mark.slow
def test_a_killed_run_goes_on_with_the_same_command(tmp_path: Path) -> None:
    (tmp_path / "tiny.toml").write_text(RECIPE)
    first = start(tmp_path)
    deadline = time.monotonic() + 60
    while not list((tmp_path / "outputs" / "runs").glob("*/checkpoints/diffusion/*/manifest.json")):
        assert time.monotonic() < deadline
        assert first.poll() is None
        time.sleep(0.02)
    for child in psutil.Process(first.pid).children(recursive=True):
        os.kill(child.pid, signal.SIGKILL)
    told = first.communicate(timeout=30)[1]
    assert first.returncode == 1
    assert "training process ended" in told
    second = start(tmp_path)
    told = second.communicate(timeout=90)[1]
    assert second.returncode == 0, told
    assert "finished" in told
    runs = list((tmp_path / "outputs" / "runs").iterdir())
    assert len(runs) == 1
    assert (runs[0] / "model" / "model_index.json").is_file()

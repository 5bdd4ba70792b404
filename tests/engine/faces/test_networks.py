"""The networks beside those that they are written after, on the same small weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from studio.engine.faces.codeformer import CodeFormer
from studio.engine.faces.gfpgan import Gfpgan
from studio.engine.faces.restore import load_network
from studio.engine.faces.retinaface import RetinaFace
from studio.errors import IncompatibleFile
from tests.engine.faces.made import made_file, vectors

CPU = torch.device("cpu")
REFERENCE = vectors()


def drawn(seed: int, low: float, high: float, *shape: int) -> torch.Tensor:
    values = np.random.RandomState(seed).uniform(low, high, shape)
    return torch.from_numpy(values.astype(np.float32))


@torch.inference_mode()
def test_gfpgan_is_the_published_one(tmp_path: Path) -> None:
    network = load_network(Gfpgan, "GFPGAN", made_file(tmp_path, "GFPGAN", "g"), CPU)
    assert network.size == 64
    face = drawn(11, -1, 1, 1, 3, 64, 64)
    restored = network(face, 0.5)
    assert np.allclose(restored.numpy(), REFERENCE["gfpgan"], atol=2e-5) and restored.std() > 0.5
    assert torch.equal(network(face, 0.5), restored)  # no noise is drawn


@torch.inference_mode()
def test_codeformer_is_the_published_one(tmp_path: Path) -> None:
    network = load_network(CodeFormer, "CodeFormer", made_file(tmp_path, "CodeFormer", "c"), CPU)
    assert network.size == 64
    face = drawn(11, -1, 1, 1, 3, 64, 64)
    for weight in (0.0, 0.7):
        assert np.allclose(network(face, weight).numpy(), REFERENCE[f"codeformer_{weight}"], atol=1e-3), weight
    assert np.abs(REFERENCE["codeformer_0.7"] - REFERENCE["codeformer_0.0"]).mean() > 0.1


@pytest.mark.parametrize("prefix", ["", "module."])
@torch.inference_mode()
def test_the_detector_is_the_published_one(tmp_path: Path, prefix: str) -> None:
    network = load_network(RetinaFace, "RetinaFace", made_file(tmp_path, "RetinaFace", "r", prefix), CPU)
    answers = network(drawn(12, -120, 130, 1, 3, 72, 104))
    for name, found in zip(("boxes", "scores", "landmarks"), answers, strict=True):
        assert np.allclose(found.numpy(), REFERENCE[f"retina_{name}"], rtol=1e-4, atol=1e-3), name


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    with pytest.raises(IncompatibleFile, match=r"r\.safetensors holds no GFPGAN that is known here"):
        load_network(Gfpgan, "GFPGAN", made_file(tmp_path, "RetinaFace", "r"), CPU)

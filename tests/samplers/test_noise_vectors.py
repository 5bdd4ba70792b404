"""Start noise, later draws, variation, seed resize and the Philox generator against what Forge drew."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from studio.samplers import ImageNoise
from studio.samplers.noise import slerp
from studio.samplers.philox import PhiloxGenerator
from tests.vector_files import load_json

VECTORS = load_json("rng.json")
ATOL = {"CPU": 1e-6, "NV": 2e-6}
SUM_ATOL = 1e-3
PIXELS_PER_LATENT = 8

ENTRIES = [
    pytest.param(entry, id=f"{group} {number} {entry['mode']}")
    for group, entries in VECTORS.items()
    if isinstance(entries, list)
    for number, entry in enumerate(entries)
    if isinstance(entry, dict) and "draws" in entry
]


def check(tensor: Tensor, expected: dict[str, Any], atol: float) -> None:
    flat = tensor.flatten()
    assert list(tensor.shape) == expected["shape"]
    if "values" in expected:
        torch.testing.assert_close(flat, torch.tensor(expected["values"]), rtol=0, atol=atol)
    for key, part in (("first16", flat[:16]), ("last4", flat[-4:])):
        if key in expected:
            torch.testing.assert_close(part, torch.tensor(expected[key]), rtol=0, atol=atol)
    assert float(flat.double().sum()) == pytest.approx(expected["sum_float64"], abs=SUM_ATOL)
    assert float(flat.double().square().sum()) == pytest.approx(expected["sumsq_float64"], abs=SUM_ATOL)


@pytest.mark.parametrize("entry", ENTRIES)
def test_noise_vectors(entry: dict[str, Any]) -> None:
    old = (entry.get("seed_resize_from_h", 0), entry.get("seed_resize_from_w", 0))
    noise = ImageNoise(
        entry["seeds"],
        tuple(entry["shape"]),
        source=entry["mode"],
        ensd=entry.get("ensd", 0),
        subseeds=entry.get("subseeds", ()),
        subseed_strength=entry.get("subseed_strength", 0.0),
        resize_from=(old[0] // PIXELS_PER_LATENT, old[1] // PIXELS_PER_LATENT) if all(old) else None,
    )
    first, *later = entry["draws"]
    for draw, expected in ((noise.start(), first), *((noise.draw(), images) for images in later)):
        assert len(draw) == len(expected)
        for image, one in zip(draw, expected, strict=True):
            check(image, one, ATOL[entry["mode"]])


@pytest.mark.parametrize("entry", VECTORS["philox_raw"], ids=lambda entry: str(entry["seed"]))
def test_philox_vectors(entry: dict[str, Any]) -> None:
    generator = PhiloxGenerator(entry["seed"])
    for call in entry["calls"]:
        torch.testing.assert_close(generator.randn((len(call),)), torch.tensor(call), rtol=0, atol=ATOL["NV"])


@pytest.mark.parametrize("entry", VECTORS["slerp"], ids=lambda entry: str(entry["val"]))
def test_slerp_vectors(entry: dict[str, Any]) -> None:
    mixed = slerp(entry["val"], torch.tensor(entry["low"]), torch.tensor(entry["high"]))
    torch.testing.assert_close(mixed, torch.tensor(entry["result"]), rtol=0, atol=1e-6)

"""The family table and its data."""

from __future__ import annotations

import json

import pytest

from studio.errors import UnknownName
from studio.families import FAMILIES, PreviewFactors, family
from studio.families.spec import DATA
from tests.vector_files import load_json


def test_every_family_has_its_configurations_and_one_row_of_preview_factors_a_channel() -> None:
    assert FAMILIES.names() == ["sd1", "sd2", "sdxl", "sdxl_refiner"]
    for name in FAMILIES.names():
        spec = family(name)
        assert spec.name == name
        assert len(spec.preview.factors) == spec.latent_channels
        for component in ("unet", "vae", *(encoder.name for encoder in spec.encoders)):
            assert (DATA / name / component / "config.json").is_file()
        index = json.loads((DATA / name / "model_index.json").read_text())
        assert {"unet", "vae", "scheduler", *(encoder.name for encoder in spec.encoders)} <= index.keys()


def test_an_unknown_family_is_answered_with_near_matches() -> None:
    with pytest.raises(UnknownName, match="'sdxl'"):
        family("sdx")


@pytest.mark.parametrize("ours, theirs", [("sd1", "sd15"), ("sd2", "sd15"), ("sdxl", "sdxl"), ("sdxl_refiner", "sdxl")])
def test_vectors_preview_factors_are_the_published_ones(ours: str, theirs: str) -> None:
    published = load_json("latent_rgb.json")["models"][theirs]
    assert [list(row) for row in family(ours).preview.factors] == published["factors_channel_by_rgb"]
    assert list(family(ours).preview.bias) == (published["bias_rgb"] or [0, 0, 0])


@pytest.mark.parametrize(
    "data",
    [
        None,
        {},
        {"factors": []},
        {"factors": [[1, 2]]},
        {"factors": [["1", 2, 3]]},
        {"factors": [[1, 2, 3]], "bias": [1]},
        {"factors": "abc"},
    ],
)
def test_preview_factors_of_another_form_are_refused(data: object) -> None:
    with pytest.raises(ValueError, match=r"factors|three numbers"):
        PreviewFactors.parse(data)

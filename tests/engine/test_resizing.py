"""The resize modes: sizes come out as asked, and each keeps of the picture what it should."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from studio.engine.resizing import resized
from studio.schema.source import ResizeMode

MODES: tuple[ResizeMode, ...] = (
    "Just resize", "Crop and resize", "Resize and fill", "Just resize (latent upscale)",
)  # fmt: skip
SIDES = st.integers(1, 200)


def ramp(width: int, height: int) -> Image.Image:
    """Red rises from left to right, green from top to bottom."""
    across, down = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    return Image.fromarray(np.stack([across, down, 0 * down], axis=-1).astype(np.uint8))


@given(SIDES, SIDES, SIDES, SIDES, st.sampled_from(MODES), st.sampled_from(["RGB", "L"]))
def test_every_shape_comes_to_every_size(
    width: int, height: int, wanted: int, high: int, mode: ResizeMode, kind: str
) -> None:
    picture = Image.new(kind, (width, height), "white")
    found = resized(picture, (wanted, high), mode)
    assert (found.size, found.mode) == ((wanted, high), kind)
    if min(width, height) > 1:  # one line of pixels may shrink to none where it is cut
        assert found.getextrema() == resized(picture, (wanted, high), "Just resize").getextrema(), (
            "nothing is left black"
        )


@pytest.mark.parametrize("mode", MODES)
def test_at_its_own_size_it_stays_as_it_is(mode: ResizeMode) -> None:
    picture = ramp(64, 48)
    assert resized(picture, (64, 48), mode).tobytes() == picture.tobytes()


def test_cut_off_evenly() -> None:
    found = np.asarray(resized(ramp(200, 100), (100, 100), "Crop and resize")).astype(int)
    assert found[:, 0, 0].max() == pytest.approx(64, abs=2)
    assert found[:, -1, 0].min() == pytest.approx(191, abs=2)
    assert (found[0, :, 1].max(), found[-1, :, 1].min()) == (0, 255)


@pytest.mark.parametrize("size, axis", [((100, 200), 0), ((200, 100), 1)])
def test_edges_are_drawn_out(size: tuple[int, int], axis: int) -> None:
    found = np.asarray(resized(ramp(100, 100), size, "Resize and fill")).astype(int)
    lines = found if axis == 0 else found.swapaxes(0, 1)
    assert (lines[:50] == lines[50]).all() and (lines[-50:] == lines[-51]).all()
    assert np.array_equal(
        lines[50:150], np.asarray(ramp(100, 100)) if axis == 0 else np.asarray(ramp(100, 100)).swapaxes(0, 1)
    )

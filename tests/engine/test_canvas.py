"""What a picture and its mask become before the model, and how what was painted gets back."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from studio.engine.canvas import Canvas, filled, mask_values, prepare, surroundings
from studio.errors import InvalidRequest
from studio.library.init_images import InitImages
from studio.schema.resolved import InitImage, MaskPlan, SourcePlan
from studio.schema.source import Mask, Source
from tests.library.test_init_images import file_of

RNG = np.random.default_rng(5)
PICTURE = Image.fromarray(RNG.integers(0, 256, (96, 128, 3), dtype=np.uint8))
SPOT = (40, 30, 80, 60)


def spot(box: tuple[int, int, int, int] = SPOT, size: tuple[int, int] = (128, 96), grey: int = 255) -> Image.Image:
    """White (or grey) in `box`, its right and bottom outside."""
    mask = Image.new("L", size)
    ImageDraw.Draw(mask).rectangle((box[0], box[1], box[2] - 1, box[3] - 1), fill=grey)
    return mask


class Desk:
    """Keeps pictures and makes plans of them."""

    def __init__(self, folder: Path) -> None:
        self.kept = InitImages(folder, folder)

    def canvas(
        self,
        size: tuple[int, int] = (128, 96),
        mask: Image.Image | None = None,
        picture: Image.Image = PICTURE,
        **facts: Any,
    ) -> Canvas:
        part = Source(**{name: facts.pop(name) for name in list(facts) if name in Source.model_fields})
        source = SourcePlan(image=self.kept.keep(file_of(picture)), **part.model_dump(exclude={"image", "extra_noise"}))
        return prepare(source, self.plan(mask, **facts) if mask else None, size)

    def plan(self, mask: Image.Image, **facts: Any) -> MaskPlan:
        found: InitImage = self.kept.keep_mask(file_of(mask))
        return MaskPlan(image=found, **Mask(**facts).model_dump(exclude={"image"}))


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


def values(image: Image.Image) -> np.ndarray[Any, Any]:
    return np.asarray(image).astype(int)


def test_without_a_mask_the_picture_is_resized_and_nothing_put_back(desk: Desk) -> None:
    canvas = desk.canvas((64, 64), resize_mode="Crop and resize")
    assert (canvas.original.size, canvas.picture.size, canvas.mask) == ((128, 96), (64, 64), None)
    painted = Image.new("RGB", (64, 64), "red")
    assert canvas.finished(painted) is painted


def test_what_is_not_masked_stays_to_the_bit(desk: Desk) -> None:
    canvas = desk.canvas(mask=spot(), blur=0)
    found = values(canvas.finished(Image.new("RGB", (128, 96), "red")))
    inside = values(spot()) == 255
    assert (found[inside] == (255, 0, 0)).all()
    assert (found[~inside] == values(PICTURE)[~inside]).all()


def test_the_edge_goes_over_softly(desk: Desk) -> None:
    canvas = desk.canvas(mask=spot(), blur=4, picture=Image.new("RGB", (128, 96)))
    found = values(canvas.finished(Image.new("RGB", (128, 96), "white")))[45, :, 0]
    assert (found[:29] == 0).all() and found[60] == 255
    assert (np.diff(found[29:61]) >= 0).all()
    assert 0 < found[37] < 255


def test_the_blur_is_a_gaussian_cut_off(desk: Desk) -> None:
    """Against the same sum written out, on a line far from all edges."""
    sigma, radius = 3, int(2.5 * 3 + 0.5)
    mask = desk.canvas(mask=spot((64, 0, 128, 96)), blur=sigma).mask
    assert mask is not None
    weights = [math.exp(-0.5 * (i / sigma) ** 2) for i in range(-radius, radius + 1)]
    for x in (58, 62, 64, 66, 70):
        share = sum(w for i, w in zip(range(-radius, radius + 1), weights, strict=True) if x + i >= 64) / sum(weights)
        assert mask.getpixel((x, 48)) == pytest.approx(255 * share, abs=1)


@pytest.mark.parametrize("grey, rounded", [(100, 0), (128, 0), (129, 255), (200, 255)])
def test_a_mask_has_two_values_unless_greys_count(desk: Desk, grey: int, rounded: int) -> None:
    mixed = Image.composite(spot((0, 0, 8, 8)), spot(grey=grey), spot((0, 0, 8, 8)))
    for rounding, wanted in ((True, rounded), (False, grey)):
        mask = desk.canvas(mask=mixed, blur=0, rounding=rounding).mask
        assert mask is not None and mask.getpixel((50, 40)) == wanted


def test_inverted_paints_the_rest(desk: Desk) -> None:
    canvas = desk.canvas(mask=spot(), blur=0, inverted=True)
    found = values(canvas.finished(Image.new("RGB", (128, 96), "red")))
    inside = values(spot()) == 255
    assert (found[inside] == values(PICTURE)[inside]).all() and (found[~inside] == (255, 0, 0)).all()


@pytest.mark.parametrize(
    "mask, inverted, field", [(spot(grey=0), False, "mask.image"), (spot((0, 0, 128, 96)), True, "mask.inverted")]
)
def test_an_empty_mask_is_refused(desk: Desk, mask: Image.Image, inverted: bool, field: str) -> None:
    with pytest.raises(InvalidRequest, match="nothing would be painted") as caught:
        desk.canvas(mask=mask, inverted=inverted)
    assert caught.value.field == field


def test_a_mask_of_another_size_is_brought_to_the_picture(desk: Desk) -> None:
    mask = desk.canvas(mask=spot((20, 15, 40, 30), (64, 48)), blur=0).mask
    assert mask is not None and mask.size == (128, 96)
    assert mask.getbbox() == SPOT


def test_only_the_masked_part_is_painted_at_full_size_and_put_back(desk: Desk) -> None:
    canvas = desk.canvas((256, 192), mask=spot(), blur=0, area="Only masked", padding=4)
    box = (36, 26, 84, 64)  # 48 wide with the padding, so 36 high; 38 are there already
    left, top, right, bottom = surroundings(spot(), 4, (256, 192))
    assert (top, bottom) == box[1::2] and right - left == 50 and left <= 36 and right >= 84
    assert canvas.original.size == (50, 38)
    assert canvas.picture.size == canvas.mask.size == (256, 192)  # type: ignore[union-attr]
    found = values(canvas.finished(Image.new("RGB", (256, 192), "red")))
    assert found.shape == (96, 128, 3), "the picture keeps its own size"
    inside = values(spot()) == 255
    assert (found[inside] == (255, 0, 0)).all() and (found[~inside] == values(PICTURE)[~inside]).all()


@given(
    st.integers(1, 100), st.integers(1, 100), st.data(), st.integers(0, 256),
    st.integers(8, 256), st.integers(8, 256),
)  # fmt: skip
def test_the_surroundings_hold_the_mask_within_the_picture(
    width: int, height: int, data: st.DataObject, padding: int, wide: int, high: int
) -> None:
    left, top = data.draw(st.integers(0, width - 1)), data.draw(st.integers(0, height - 1))
    right, bottom = data.draw(st.integers(left + 1, width)), data.draw(st.integers(top + 1, height))
    box = surroundings(spot((left, top, right, bottom), (width, height)), padding, (wide, high))
    assert 0 <= box[0] <= left and 0 <= box[1] <= top and right <= box[2] <= width and bottom <= box[3] <= height
    whole_wide, whole_high = box[2] - box[0] == width, box[3] - box[1] == height
    if not (whole_wide or whole_high):
        assert abs((box[2] - box[0]) - (box[3] - box[1]) * wide / high) <= max(1, wide / high)


@pytest.mark.parametrize(
    "spot_box, size, wanted",
    [
        ((90, 40, 100, 50), (40, 10), (60, 40, 100, 50)),  # moved back from the right edge
        ((0, 40, 10, 50), (40, 10), (0, 40, 40, 50)),
        ((40, 90, 50, 100), (10, 40), (40, 60, 50, 100)),
        ((40, 0, 50, 10), (10, 40), (40, 0, 50, 40)),
        ((45, 45, 55, 55), (30, 10), (35, 45, 65, 55)),
        ((45, 45, 55, 55), (200, 10), (0, 45, 100, 55)),  # wider than the picture: as wide as it is
    ],
)
def test_surroundings_at_an_edge_are_moved_not_cut(
    spot_box: tuple[int, int, int, int], size: tuple[int, int], wanted: tuple[int, int, int, int]
) -> None:
    assert surroundings(spot(spot_box, (100, 100)), 0, size) == wanted


@pytest.mark.parametrize("content", ["fill", "latent noise", "latent nothing"])
def test_the_masked_part_takes_colours_from_around_it(desk: Desk, content: str) -> None:
    hole = PICTURE.copy()
    hole.paste((255, 0, 255), SPOT)
    frame = Image.new("RGB", (128, 96), (10, 200, 30))
    frame.paste(hole.crop(SPOT), SPOT[:2])
    canvas = desk.canvas(mask=spot(), blur=0, picture=frame, content=content)
    assert np.abs(values(canvas.picture) - (10, 200, 30)).max() <= 8, "colours of 8 bits, where little of them is left"
    assert desk.canvas(mask=spot(), blur=0, picture=frame).picture.tobytes() == frame.tobytes()


def test_filling_leaves_what_is_not_masked() -> None:
    found = values(filled(PICTURE, spot()))
    outside = values(spot()) == 0
    assert (found[outside] == values(PICTURE)[outside]).all()


def test_mask_values_are_shares() -> None:
    assert mask_values(Image.new("L", (2, 3), 51)).tolist() == [pytest.approx([0.2] * 2)] * 3

"""The sheet of a plot: where each picture stands, what is written beside it, and what it carries."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import studio.jobs.sheets as sheets_module
from studio.engine.fake import FakeEngine
from studio.errors import InvalidRequest
from studio.infotext import parse_infotext, read_picture, write_infotext
from studio.jobs.cells import painted
from studio.jobs.saving import save_grid, save_picture
from studio.jobs.sheets import draw_sheet
from studio.paths import Paths
from studio.resolve import resolve
from studio.schema.engine import CancelToken
from studio.schema.events import ImageReady
from studio.schema.request import RunOptions, make_request
from studio.schema.resolved import ResolvedRequest
from studio.settings import Settings
from tests.infotext.test_round_trip import Library

COLOURS = {index: tuple(np.random.default_rng(index).integers(30, 220, 3).tolist()) for index in range(12)}


def plotted(**plot: Any) -> ResolvedRequest:
    request = make_request({"prompt": "a fox", "seed": 3, "width": 64, "height": 64, "plot": plot})
    return resolve(request, Library(), lambda: 1, options=RunOptions())


def files(count: int, size: tuple[int, int] = (64, 64)) -> dict[int, bytes]:
    found = {}
    for index in range(count):
        buffer = io.BytesIO()
        Image.new("RGB", size, COLOURS[index]).save(buffer, "PNG")
        found[index] = buffer.getvalue()
    return found


def drawn(order: ResolvedRequest, pictures: dict[int, bytes]) -> np.ndarray[Any, Any]:
    assert order.plot is not None
    sizes = {index: Image.open(io.BytesIO(data)).size for index, data in pictures.items()}
    return np.asarray(draw_sheet(sizes, pictures.__getitem__, order.plot))


def places(sheet: np.ndarray[Any, Any], index: int) -> tuple[int, int, int, int]:
    """Left, top, right, bottom of the pixels of a picture's colour."""
    rows, columns = np.nonzero((sheet == COLOURS[index]).all(axis=-1))
    return int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1


AXES = {
    "x_type": "Steps",
    "x_values": "1-3",
    "y_type": "CFG Scale",
    "y_values": "2,3",
    "z_type": "Clip skip",
    "z_values": "1,2",
}


def test_without_a_legend_there_is_nothing_but_pictures() -> None:
    sheet = drawn(plotted(**{**AXES, "z_type": "Nothing"}, legend=False), files(6))
    assert sheet.shape == (128, 192, 3)
    for index in range(6):
        left, top = index % 3 * 64, index // 3 * 64
        assert places(sheet, index) == (left, top, left + 64, top + 64)


def test_a_margin_stands_between_them() -> None:
    sheet = drawn(plotted(**{**AXES, "z_type": "Nothing"}, legend=False, margin=10), files(6))
    assert sheet.shape == (138, 212, 3)
    assert places(sheet, 4) == (74, 74, 138, 138)
    assert (sheet[64:74] == 255).all()


def test_values_of_z_are_blocks_side_by_side() -> None:
    sheet = drawn(plotted(**AXES), files(12))
    boxes = [places(sheet, index) for index in range(12)]
    for index, (left, top, right, bottom) in enumerate(boxes):
        assert (right - left, bottom - top) == (64, 64)
        if index % 3:
            assert (left, top) == (boxes[index - 1][2], boxes[index - 1][1]), "beside the one before"
        elif index % 6:
            assert (left, top) == (boxes[index - 3][0], boxes[index - 3][3]), "under the one above"
    assert boxes[6][0] > boxes[2][2] and boxes[6][1] == boxes[0][1]


def test_the_legend_is_written_where_there_is_something_to_say() -> None:
    def ink(sheet: np.ndarray[Any, Any], left: int, top: int, right: int, bottom: int) -> bool:
        return bool((sheet[top:bottom, left:right] < 100).all(axis=-1).any())

    sheet = drawn(plotted(**AXES), files(12))
    left, top, right, _ = places(sheet, 0)
    assert ink(sheet, left, 0, right, top) and ink(sheet, 0, top, left, top + 64)
    only_x = drawn(plotted(x_type="Steps", x_values="1-3"), files(3))
    left, top, *_ = places(only_x, 0)
    assert left == 0 and top > 0 and ink(only_x, 0, 0, 64, top)
    only_y = drawn(plotted(y_type="Steps", y_values="1-3"), files(3))
    left, top, *_ = places(only_y, 0)
    assert top == 0 and left > 0 and ink(only_y, 0, 0, left, 64)


def test_a_long_value_wraps_and_no_letter_is_needed_that_the_font_lacks() -> None:
    words = "a very long wording of a prompt that nobody would type in one line " * 3
    order = plotted(x_type="Prompt S/R", x_values=f'a fox, "{words}", 狐, "🦊"')
    sheet = drawn(order, files(4))
    assert [places(sheet, index)[2] - places(sheet, index)[0] for index in range(4)] == [64] * 4
    assert places(sheet, 0)[1] > 60, "room for the lines of the longest"


def test_a_missing_picture_is_grey_and_a_smaller_one_in_the_middle() -> None:
    pictures = files(3)
    buffer = io.BytesIO()
    Image.new("RGB", (32, 16), COLOURS[1]).save(buffer, "PNG")
    pictures[1] = buffer.getvalue()
    sheet = drawn(plotted(x_type="Steps", x_values="1-4", legend=False), pictures)
    assert sheet.shape == (64, 256, 3)
    assert places(sheet, 1) == (80, 24, 112, 40)
    assert (sheet[:, 192:] == 153).all()


def test_one_that_is_too_large_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sheets_module, "MAX_PIXELS", 64 * 64 * 2)
    with pytest.raises(InvalidRequest, match="The sheet of this plot would have"):
        drawn(plotted(x_type="Steps", x_values="1-3", legend=False), files(3))


def test_the_saved_sheet_tells_what_the_plot_is_and_the_pictures_what_they_are(tmp_path: Path) -> None:
    paths, settings = Paths(tmp_path), Settings(save_to_dirs=False, samples_filename_pattern="[steps]-[cfg]")
    order = plotted(**{**AXES, "z_type": "Nothing"})
    engine = FakeEngine(infotext=lambda resolved, index: write_infotext(resolved, index, "1"))
    ready = [event for event in painted(engine, order, CancelToken()) if isinstance(event, ImageReady)]
    saved = [save_picture(picture, order, 0.0, paths, settings) for picture in ready]
    assert [Path(one.path or "").name for one in saved] == [
        *("00000-1-2.0.png", "00001-2-2.0.png", "00002-3-2.0.png"),
        *("00003-1-3.0.png", "00004-2-3.0.png", "00005-3-3.0.png"),
    ]
    path = save_grid(saved, lambda one: Path(one.path or "").read_bytes(), order, 0.0, paths, settings)
    text = read_picture(Path(path or "").read_bytes()).infotext or ""
    assert text.endswith(
        'Script: X/Y/Z plot, X Type: Steps, X Values: 1-3, Y Type: CFG Scale, Y Values: "2,3", Version: Latent Studio 1'
    )
    again = make_request(parse_infotext(text).request)
    assert again.plot is not None and order.plot is not None
    second = resolve(again, Library(), lambda: 9)
    assert second.plot is not None and second.plot.cells == tuple(
        one.model_copy(update={"options": RunOptions()}) for one in order.plot.cells
    )

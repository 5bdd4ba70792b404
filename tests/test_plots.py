"""A plot through the whole studio: queue, pictures, sheet, steps, a restart, and what is refused."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from studio.app import Studio
from studio.engine.fake import FakeEngine
from studio.errors import InvalidRequest, NotFound
from studio.infotext import read_picture, write_infotext
from studio.schema.engine import CancelToken
from studio.schema.events import Finished, ImageReady
from studio.schema.models import ModelInfo
from studio.schema.request import RunOptions, make_request
from studio.steps import decode_step, origin_text
from tests.api.stand_in import make_studio

PLOT = {"x_type": "Checkpoint name", "x_values": "sprout, oak/old", "y_type": "Seed", "y_values": "-1, 7"}
ASKED = {"prompt": "a fox", "steps": 2, "width": 64, "height": 64}


class Noting(FakeEngine):
    """Remembers by which checkpoint and VAE a step was decoded."""

    def __init__(self) -> None:
        super().__init__(infotext=lambda resolved, index: write_infotext(resolved, index, "v1"))
        self.decoded: list[tuple[str, str]] = []

    def decode(self, model: ModelInfo, vae: ModelInfo | None, latents: bytes, index: int) -> bytes:
        self.decoded.append((model.name, vae.name if vae else ""))
        return super().decode(model, vae, latents, index)


@pytest.fixture
def engine() -> Noting:
    return Noting()


@pytest.fixture
def studio(tmp_path: Path, engine: Noting) -> Iterator[Studio]:
    made = make_studio(tmp_path, engine, save_to_dirs=False)
    yield made
    made.close()


def run(studio: Studio, plot: dict[str, Any] = PLOT, **options: bool) -> Any:
    studio.queue.start()
    job = studio.submit(make_request({**ASKED, "plot": plot}), RunOptions(**options))
    return studio.queue.wait(job.id, 20)


def test_the_queue_paints_every_cell_and_lays_out_the_sheet(studio: Studio) -> None:
    job = run(studio)
    assert (job.status, job.progress, len(job.images)) == ("done", 1.0, 4)
    assert [image.index for image in job.images] == [0, 1, 2, 3]
    drawn = job.images[0].seed
    assert [image.seed for image in job.images] == [drawn, drawn, 7, 7]
    assert ["Model: old" in image.infotext for image in job.images] == [False, True, False, True]
    text = read_picture(studio.queue.grid_bytes(job.id)).infotext or ""
    assert f'Y Values: "{drawn}, 7", Fixed Y Values: "{drawn}, 7"' in text, "what was drawn stays"
    assert job.request.plot is not None and job.request.plot.y_values == f"{drawn}, 7"


def test_a_retried_plot_gives_the_same_pictures(studio: Studio) -> None:
    job = run(studio)
    again = studio.queue.wait(studio.queue.retry(job.id).id, 20)
    assert [image.infotext for image in again.images] == [image.infotext for image in job.images]


def test_each_step_is_decoded_by_the_checkpoint_of_its_cell(studio: Studio, engine: Noting) -> None:
    job = run(studio, {**PLOT, "z_type": "VAE", "z_values": "Automatic, sharp"}, keep_latents=True)
    for cell in (0, 1, 5):
        decode_step(studio, job.id, cell, 1, 0)
    assert engine.decoded == [("sprout", ""), ("oak/old", ""), ("oak/old", "sharp")]


def test_a_branch_of_a_cell_begins_with_its_own_latents(studio: Studio, engine: Noting) -> None:
    job = run(studio, keep_latents=True)
    text = origin_text(studio, job.id, 2)
    assert text == job.images[2].infotext
    request = make_request({**ASKED, "branch": {"step": 1, "origin": text}, "seed": 7, "model": "sprout"})
    studio.queue.wait(studio.submit(request, RunOptions()).id, 20)
    assert engine.kept[-1] == b"7/1"


def test_the_text_of_an_unfinished_cell_is_made_anew(studio: Studio) -> None:
    job = studio.submit(make_request({**ASKED, "plot": PLOT}), RunOptions())  # the queue is not started
    assert "Seed: 7" in origin_text(studio, job.id, 2) and "Model: old" in origin_text(studio, job.id, 3)
    with pytest.raises(NotFound, match="no picture 4"):
        origin_text(studio, job.id, 4)


def test_without_the_queue_it_is_the_same(studio: Studio) -> None:
    resolved = studio.resolve(make_request({**ASKED, "plot": PLOT}), RunOptions())
    events = list(studio.paint(resolved, CancelToken()))
    assert sum(isinstance(event, ImageReady) for event in events) == 4
    assert isinstance(events[-1], Finished)
    assert len(list((studio.paths.outputs / "txt2img-grids").iterdir())) == 1


def test_a_value_that_cannot_be_is_refused_before_it_is_queued(studio: Studio) -> None:
    with pytest.raises(InvalidRequest, match=r"plot\.x_values = 'many'"):
        studio.submit(make_request({**ASKED, "plot": {"x_type": "Steps", "x_values": "many"}}))
    assert studio.queue.jobs() == []


def test_a_sheet_is_no_picture_to_check(studio: Studio) -> None:
    job = run(studio)
    with pytest.raises(InvalidRequest, match="sheet of a plot"):
        studio.reproduce(studio.queue.grid_bytes(job.id), CancelToken())

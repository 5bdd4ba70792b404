"""Live pictures on a running server: told in the answer, replaced by the next, dropped when nobody reads."""

from __future__ import annotations

import base64
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from studio.app import Studio
from studio.engine.fake import FakeEngine
from studio.schema.engine import CancelToken
from studio.schema.events import Event, Progress
from studio.schema.resolved import ResolvedRequest
from tests.api.stand_in import make_studio, serving

SKETCH = "/studio/v1/sketch"
SMALL = {"prompt": "a fox", "width": 64, "height": 64, "seed": 5, "client": "me"}
PATIENCE = 20.0


class CountingEngine(FakeEngine):
    """Remembers the prompt of every step."""

    def __init__(self) -> None:
        super().__init__(step_seconds=0.05)
        self.steps: list[str] = []

    def run(self, resolved: ResolvedRequest, cancel: CancelToken, kept: bytes = b"") -> Iterator[Event]:
        for event in super().run(resolved, cancel, kept):
            if isinstance(event, Progress):
                self.steps.append(resolved.positive.text)
            yield event


class Slow:
    """A server whose steps take as long as `engine.step_seconds` says."""

    def __init__(self, url: str, studio: Studio, engine: CountingEngine) -> None:
        self.client = httpx.Client(base_url=url, timeout=30)
        self.studio, self.engine = studio, engine

    def ask(self, number: int, **fields: Any) -> Reading:
        return Reading(self.client, {**SMALL, "number": number, **fields})


class Reading(threading.Thread):
    """One question, whose answer is read line by line."""

    def __init__(self, client: httpx.Client, asked: dict[str, Any]) -> None:
        super().__init__(daemon=True)
        self.client, self.asked = client, asked
        self.events: list[dict[str, Any]] = []
        self.start()

    def run(self) -> None:
        with self.client.stream("POST", SKETCH, json=self.asked) as answer:
            assert answer.headers["content-type"] == "application/x-ndjson"
            for line in answer.iter_lines():
                self.events.append(json.loads(line))

    @property
    def kinds(self) -> list[str]:
        return [event["type"] for event in self.events]

    def until(self, kind: str) -> None:
        until(lambda: kind in self.kinds)

    def all(self) -> list[str]:
        self.join(PATIENCE)
        assert not self.is_alive()
        return self.kinds


def until(true: Any) -> None:
    deadline = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.fixture
def slow(tmp_path: Path) -> Iterator[Slow]:
    engine = CountingEngine()
    studio = make_studio(tmp_path, engine)
    with serving(studio) as url:
        made = Slow(url, studio, engine)
        yield made
        made.client.close()


def test_the_answer_brings_steps_and_picture(client: httpx.Client, studio: Studio) -> None:
    answer = client.post(SKETCH, json={**SMALL, "number": 1, "steps": 50, "batch_size": 4, "sampler": "Euler a"})
    events = [json.loads(line) for line in answer.text.splitlines()]
    assert [event["type"] for event in events] == ["queued", "started", *["progress"] * 6, "image", "finished"]
    image = events[-2]
    assert base64.urlsafe_b64decode(image["png"])[:4] == b"\x89PNG"
    assert base64.urlsafe_b64decode(events[2]["previews"][0])[:2] == b"\xff\xd8"
    assert "Steps: 6, Sampler: DPM++ 2M, Schedule type: SGM Uniform" in image["infotext"]
    assert (image["seed"], image["width"], image["path"], image["image_id"]) == (5, 64, None, None)
    assert client.get("/studio/v1/jobs").json() == client.get("/studio/v1/images").json() == []
    assert not (studio.paths.outputs / "txt2img-images").exists()


def test_what_is_left_out_is_as_a_fresh_form_shows(client: httpx.Client) -> None:
    answer = client.post(SKETCH, json={"client": "me", "number": 2, "model": "oak/old", "live_steps": 4})
    image = json.loads(answer.text.splitlines()[-2])
    assert (image["width"], image["height"]) == (512, 512)
    assert "Steps: 4, " in image["infotext"]


@pytest.mark.parametrize(
    "wrong, field",
    [
        ({"live_steps": 9}, "live_steps"),
        ({"live_steps": 3}, "live_steps"),
        ({"client": "a b"}, "client"),
        ({"client": ""}, "client"),
        ({"number": -1}, "number"),
        ({"cfg_scale": 200}, "cfg_scale"),
        ({"prompt": "<lora:nobody:1>"}, "prompt"),
        ({"sampler": "Nobody"}, "sampler"),
        ({"options": {"save": True}}, "options"),
    ],
)
def test_what_is_not_possible_is_said(client: httpx.Client, wrong: dict[str, Any], field: str) -> None:
    answer = client.post(SKETCH, json={**SMALL, "number": 3, **wrong})
    assert answer.status_code in (400, 404, 422)
    assert answer.json()["error"]["field"] == field


def test_a_newer_question_ends_the_older_within_a_step(slow: Slow) -> None:
    slow.engine.step_seconds = 0.3
    first = slow.ask(1, prompt="one")
    first.until("progress")
    second = slow.ask(2, prompt="two")
    assert first.all()[-1] == "cancelled"
    assert "image" not in first.kinds
    slow.engine.step_seconds = 0.01
    assert second.all()[-2:] == ["image", "finished"]
    assert [run.positive.text for run in slow.engine.runs] == ["one", "two"]


def test_an_older_question_that_comes_late_is_cancelled(slow: Slow) -> None:
    slow.engine.step_seconds = 0.2
    newer = slow.ask(20)
    newer.until("started")
    assert slow.ask(10, prompt="late").all() == ["cancelled"]
    assert newer.all()[-1] == "finished"


def test_a_job_goes_first(slow: Slow) -> None:
    sketch = slow.ask(1, prompt="sketch")
    sketch.until("progress")
    job = slow.client.post("/studio/v1/generate", json={"prompt": "job", "width": 64, "height": 64, "steps": 3}).json()
    assert sketch.all()[-1] == "finished"
    assert sketch.kinds.count("started") == 2
    assert [run.positive.text for run in slow.engine.runs] == ["sketch", "job", "sketch"]
    assert slow.studio.queue.job(job["id"]).status == "done"


def test_a_picture_that_nobody_reads_is_not_painted_to_the_end(slow: Slow) -> None:
    slow.engine.step_seconds = 0.5
    asked = {**SMALL, "number": 1, "prompt": "left alone", "live_steps": 8}
    with (
        httpx.Client(base_url=str(slow.client.base_url), timeout=30) as leaving,
        leaving.stream("POST", SKETCH, json=asked) as answer,
    ):
        lines = answer.iter_lines()
        assert json.loads(next(lines))["type"] == "queued"
        until(lambda: slow.engine.steps)
    assert slow.ask(1, client="other").all()[-1] == "finished"
    assert slow.engine.steps.count("left alone") < 8
    assert slow.engine.steps.count("a fox") == 6


def test_streams_end_when_the_server_closes(slow: Slow) -> None:
    slow.engine.step_seconds = 0.5
    reading = slow.ask(1)
    reading.until("started")
    slow.studio.queue.sketches.close()
    assert reading.all()[-1] == "cancelled"

"""The event stream as a browser reads it."""

from __future__ import annotations

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
from studio.schema.request import GenerationRequest
from tests.api.stand_in import make_studio, serving

REQUEST = GenerationRequest(prompt="x", width=64, height=64, steps=3)
Message = dict[str, Any]


def messages(answer: httpx.Response) -> Iterator[Message]:
    """What an EventSource would give: id, event and decoded data."""
    message: Message = {}
    for line in answer.iter_lines():
        name, _, value = line.partition(": ")
        if line == "" and "data" in message:
            yield message
            message = {}
        elif name in ("id", "event"):
            message[name] = value
        elif name == "data":
            message["data"] = json.loads(value)


def collect(address: str, until: str, headers: dict[str, str] | None = None, query: str = "") -> list[Message]:
    """Messages up to the first job event of type `until`."""
    found = []
    with httpx.stream("GET", f"{address}/studio/v1/events{query}", headers=headers, timeout=20) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        assert answer.headers["cache-control"] == "no-store"
        for message in messages(answer):
            found.append(message)
            if message["event"] == until or (message["event"] == "job" and message["data"]["event"]["type"] == until):
                break
    return found


def submit(studio: Studio, count: int = 1) -> int:
    return [studio.submit(REQUEST).id for _ in range(count)][-1]


def test_a_job_as_it_happens_and_again_from_any_point(address: str, studio: Studio) -> None:
    first = collect(address, "engine")
    assert [message["event"] for message in first] == ["hello", "engine"]
    boot, start = first[0]["data"]["boot"], first[0]["data"]["last_seq"]
    assert first[0]["data"]["missed"] is False
    threading.Timer(0.3, submit, (studio,)).start()
    live = [message for message in collect(address, "finished", query=f"?after={start}") if message["event"] == "job"]
    kinds = [message["data"]["event"]["type"] for message in live]
    assert kinds == ["queued", "started", "progress", "progress", "progress", "image", "finished"]
    assert all("png" not in json.dumps(m["data"]["event"].get("previews", "")) for m in live)
    assert live[2]["data"]["event"]["preview_urls"]
    assert live[5]["data"]["event"]["png"] == ""
    again = [m for m in collect(address, "finished", {"Last-Event-ID": live[2]["id"]}) if m["event"] == "job"]
    assert again == live[3:]
    assert live[0]["id"].startswith(f"{boot}-")


def test_an_id_of_another_run_gives_everything_and_says_so(address: str, studio: Studio) -> None:
    studio.queue.wait(submit(studio), 10)
    found = collect(address, "finished", {"Last-Event-ID": "deadbeef-3"})
    assert found[0]["data"]["missed"] is True
    assert found[1]["data"]["seq"] == 1
    assert collect(address, "finished", {"Last-Event-ID": "rubbish"})[0]["data"]["missed"] is True


def test_listeners_that_go_leave_nothing_behind(address: str, studio: Studio) -> None:
    collect(address, "engine")
    threads = threading.active_count()
    clients = [httpx.Client(timeout=20) for _ in range(20)]
    streams = [client.stream("GET", f"{address}/studio/v1/events") for client in clients]
    reading = [messages(stream.__enter__()) for stream in streams]
    for each in reading:
        assert next(each)["event"] == "hello"
    assert studio.queue.events.listeners == 20
    assert threading.active_count() <= threads
    for stream, client in zip(streams, clients, strict=True):
        stream.__exit__(None, None, None)
        client.close()
    deadline = time.monotonic() + 10
    while studio.queue.events.listeners and time.monotonic() < deadline:
        time.sleep(0.05)
    assert studio.queue.events.listeners == 0


def test_a_lost_connection_loses_no_job(folder: Path) -> None:
    studio = make_studio(folder, FakeEngine(step_seconds=0.05))
    with serving(studio) as address:
        job_id = submit(studio)
        found = collect(address, "progress", query="?after=0")
        rest = collect(address, "finished", {"Last-Event-ID": found[-1]["id"]})
        seqs = [message["data"]["seq"] for message in found + rest if message["event"] == "job"]
        assert seqs == list(range(1, 8))
        assert studio.queue.job(job_id).status == "done"


def test_the_stream_ends_when_the_server_stops(folder: Path) -> None:
    studio = make_studio(folder)
    ended: list[float] = []

    def listen(address: str) -> None:
        try:
            collect(address, "never")
        except httpx.HTTPError:
            pass
        ended.append(time.monotonic())

    with serving(studio) as address:
        thread = threading.Thread(target=listen, args=(address,))
        thread.start()
        while not studio.queue.events.listeners:
            time.sleep(0.01)
        began = time.monotonic()
    thread.join(10)
    assert ended[0] - began < 3
    assert time.monotonic() - began < 8


def test_the_engine_is_news_only_when_it_changes(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    studio = make_studio(folder)
    monkeypatch.setattr("studio.api.native.events.ENGINE_SECONDS", 0.02)
    monkeypatch.setattr("studio.api.native.events.HEARTBEAT_SECONDS", 0.1)
    with serving(studio) as address, httpx.stream("GET", f"{address}/studio/v1/events", timeout=10) as answer:
        found: list[str] = []
        for line in answer.iter_lines():
            found.append(line)
            if found.count(": still here") == 2:
                studio.engine.close()
            if sum(entry == "event: engine" for entry in found) == 2:
                break
        assert found.count("event: engine") == 2

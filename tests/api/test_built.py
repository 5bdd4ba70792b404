"""The real composition root behind the real server: one picture, and one server a folder."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest

from studio.building import build
from studio.engine.fake import FakeEngine
from studio.errors import SettingsError
from studio.paths import Paths
from studio.schema.request import GenerationRequest
from studio.settings import Settings
from tests.api.stand_in import model, serving


def test_a_built_studio_serves_and_keeps_its_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    studio = build(Settings(), Paths(folder), engine=FakeEngine())
    monkeypatch.setattr(studio.library, "checkpoint", lambda name: model("checkpoint", "tiny"))
    with serving(studio) as url:
        with pytest.raises(SettingsError, match="already in use"):
            build(Settings(), Paths(folder), engine=FakeEngine())
        job = httpx.post(f"{url}/studio/v1/generate", json={"width": 64, "height": 64, "steps": 1}).json()
        assert studio.queue.wait(job["id"], 10).status == "done"
        assert len(httpx.get(f"{url}/studio/v1/images").json()) == 1
    again = build(Settings(), Paths(folder), engine=FakeEngine())
    assert again.queue.job(job["id"]).request == GenerationRequest.model_validate(job["request"])
    again.close()

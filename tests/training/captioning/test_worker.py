"""The captioning process speaks JSON only, whatever its libraries print."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from studio.training.captioning import worker


def test_what_a_library_prints_is_no_answer(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    Image.new("RGB", (64, 64)).save(tmp_path / "a_red_boat.png")
    write = worker.caption_dataset

    def chatty(*given: Any, **named: Any) -> Any:
        print("loading weights ...")
        return write(*given, **named)

    monkeypatch.setattr(worker, "caption_dataset", chatty)
    order = {
        "path": str(tmp_path),
        "format": "auto",
        "captioner": "file-name",
        "models": str(tmp_path),
        "device": "cpu",
        "replace": True,
    }
    assert worker.main([json.dumps(order)]) == 0
    told = capsys.readouterr()
    answers = [json.loads(line) for line in told.out.splitlines()]
    assert answers[-1]["written"] == 1
    assert "loading weights" in told.err

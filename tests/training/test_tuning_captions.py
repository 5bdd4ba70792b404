"""Which captions are encoded before a run begins: all that it can ask for, found without drawing the whole run where that is possible."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from studio.training.runs import RunFolder
from studio.training.tuning import prepare
from studio.training.tuning.batches import BatchMaker
from studio.training.tuning.texts import KeptTexts
from tests.training.tuning import run_in, settings, studio, train

PLAIN = {f"a thing, number {index}" for index in range(6)}


class Watched:
    """The captions that were to be kept, None when the encoders stayed loaded, and of how many batches captions were drawn."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.kept: set[str] | None = None
        self.drawn = 0
        fill, captions = KeptTexts.fill, BatchMaker.captions

        def filled(texts: KeptTexts, context: Any, base: Any, wanted: list[str]) -> None:
            self.kept = set(wanted)
            fill(texts, context, base, wanted)

        def drawing(batches: BatchMaker, numbers: range) -> Iterator[str]:
            self.drawn = len(numbers)
            return captions(batches, numbers)

        monkeypatch.setattr(KeptTexts, "fill", filled)
        monkeypatch.setattr(BatchMaker, "captions", drawing)


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> Watched:
    return Watched(monkeypatch)


def new(root: Path, steps: int, **data: Any) -> RunFolder:
    # A run that asks for a caption that was not kept fails.
    return run_in(
        studio(root), settings(steps=steps, data={"path": "pictures", "resolution": 64, "caption_dropout": 0, **data})
    )


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ({}, PLAIN),
        ({"caption_dropout": 0.4}, PLAIN | {""}),
        ({"trigger": "sks"}, {f"sks, {caption}" for caption in PLAIN}),
    ],
)
def test_fixed_captions_are_taken_from_the_pictures(
    data: dict[str, Any], expected: set[str], tmp_path: Path, watched: Watched
) -> None:
    train(new(tmp_path / "s", 12, **data))
    assert (watched.kept, watched.drawn) == (expected, 0)


def test_they_are_kept_however_long_the_run(tmp_path: Path, watched: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prepare, "CAPTION_COUNT_BATCHES", 5)
    train(new(tmp_path / "s", 6))
    assert (watched.kept, watched.drawn) == (PLAIN, 0)


def test_a_run_too_short_for_all_of_them_encodes_what_it_will_see(tmp_path: Path, watched: Watched) -> None:
    train(new(tmp_path / "s", 2))
    assert watched.drawn == 2
    assert watched.kept is not None and watched.kept < PLAIN


def test_shuffled_captions_are_drawn(tmp_path: Path, watched: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    train(new(tmp_path / "s", 12, shuffle=True))
    assert watched.drawn == 12 and watched.kept is not None and watched.kept - PLAIN
    watched.kept = None
    monkeypatch.setattr(prepare, "CAPTION_COUNT_BATCHES", 11)
    train(new(tmp_path / "t", 12, shuffle=True))
    assert watched.kept is None

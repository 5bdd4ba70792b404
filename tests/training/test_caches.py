"""Caches stay within their bound, what was used last stays, and nothing is taken from a run."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import pytest
from safetensors.torch import load_file

from studio.training.caches import looking, prune, touch
from tests.training.tuning import events, run_in, settings, studio, train

NEVER = float("inf")


def cached(store: Path, name: str, used: float, size: int = 100) -> Path:
    file = store / "latents" / name[:2] / f"{name}.safetensors"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(b"x" * size)
    os.utime(file, (used, used))
    return file


def left(store: Path) -> list[str]:
    return sorted(path.stem for path in store.rglob("*.safetensors"))


def test_what_was_used_longest_ago_goes_first(tmp_path: Path) -> None:
    for name, used in (("aa", 30), ("ab", 10), ("ba", 20), ("bb", 40)):
        cached(tmp_path, name, used)
    assert prune(tmp_path, 400, spare=NEVER) == 0
    assert prune(tmp_path, 250, spare=NEVER) == 200
    assert left(tmp_path) == ["aa", "bb"]
    assert prune(tmp_path / "not there", 0, spare=NEVER) == 0


def test_what_was_used_since_a_run_began_stays_whatever_the_bound(tmp_path: Path) -> None:
    for name, used in (("aa", 30), ("ab", 10), ("ba", 20)):
        cached(tmp_path, name, used)
    prune(tmp_path, 0, spare=20)
    assert left(tmp_path) == ["aa", "ba"]


def test_a_file_that_is_looked_at_counts_as_used(tmp_path: Path) -> None:
    old = cached(tmp_path, "aa", 10)
    cached(tmp_path, "ab", 20)
    assert touch(old) and not touch(tmp_path / "gone")
    prune(tmp_path, 100, spare=NEVER)
    assert left(tmp_path) == ["aa"]


def test_nothing_is_pruned_while_a_run_looks_and_a_run_waits_for_a_prune(tmp_path: Path) -> None:
    cached(tmp_path, "aa", 10)
    inside, leave = threading.Event(), threading.Event()

    def look() -> None:
        with looking(tmp_path):
            inside.set()
            leave.wait(20)

    thread = threading.Thread(target=look)
    thread.start()
    assert inside.wait(20)
    assert prune(tmp_path, 0, spare=NEVER) == 0 and left(tmp_path) == ["aa"]
    leave.set()
    thread.join(20)
    assert prune(tmp_path, 0, spare=NEVER) == 100


@pytest.mark.parametrize("again", [False, True])
def test_a_run_touches_what_it_finds_and_encodes_what_was_pruned(tmp_path: Path, again: bool) -> None:
    root = studio(tmp_path / "data", pictures=3)
    train(run_in(root, settings(steps=1), "first"))
    store = root / "outputs" / ".studio" / "training"
    files = sorted(store.rglob("*.safetensors"))
    assert {path.parent.parent.name for path in files} == {"latents", "texts"}
    for path in files:
        os.utime(path, (5, 5))
    if again:
        prune(store, 0, spare=NEVER)
    began = time.time() - 1
    second = run_in(root, settings(steps=1), "second")
    train(second)
    assert [path for path in sorted(store.rglob("*.safetensors")) if path.stat().st_mtime < began] == []
    stages = {event.stage for event in events(second, "stage")}
    assert ("latents" in stages) == again


def test_captions_of_another_number_format_are_encoded_anew(tmp_path: Path) -> None:
    root = studio(tmp_path / "data", pictures=3)
    texts = root / "outputs" / ".studio" / "training" / "texts"
    for place, precision in enumerate(("bf16", "fp32", "fp32")):
        train(run_in(root, {**settings(steps=1), "precision": precision}, f"run{place}"))
    formats = sorted(str(load_file(file)["states.0"].dtype) for file in texts.rglob("*.safetensors"))
    assert formats == ["torch.bfloat16"] * (len(formats) // 2) + ["torch.float32"] * (len(formats) // 2) != []

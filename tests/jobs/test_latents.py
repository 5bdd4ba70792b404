"""Latents that are kept: found again, bounded, and never in the way."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save

from studio.engine.fake import FakeEngine
from studio.errors import NotFound
from studio.jobs.latents import LatentStore, painter_of, picture_name
from studio.paths import Paths
from studio.schema.events import Progress
from studio.schema.parts import HiresPass
from studio.schema.request import GenerationRequest, RunOptions
from studio.schema.resolved import BranchPlan, EmbeddingUse, HypernetworkUse, LoraUse, RefinerPlan, ResolvedRequest
from tests.jobs.conftest import QueueMaker, prepare
from tests.test_resolve import run

Small = Callable[..., GenerationRequest]
KEEP = RunOptions(keep_latents=True)


def step(number: int, latents: bytes, batch: int = 0) -> Progress:
    return Progress(batch=batch, batches=2, step=number, total=9, sigma=1.0, latents=latents)


def request(seed: int = 5, options: RunOptions = KEEP, **fields: object) -> ResolvedRequest:
    return prepare(GenerationRequest.model_validate({"prompt": "a fox", "seed": seed, **fields}), options)


def branch(origin: ResolvedRequest, at: int) -> ResolvedRequest:
    return request().model_copy(update={"branch": BranchPlan(step=at, origin=origin, text="x")})


def test_a_branch_finds_the_latents_of_its_origin_also_later(paths: Paths) -> None:
    store = LatentStore(paths, lambda: 1000)
    store.begin(3, request(batch_count=2))
    kept = store.keep(3, step(2, b"second picture", batch=1))
    assert (kept.latents, kept.kept) == (b"", True)
    for again in (store, LatentStore(paths, lambda: 1000)):
        assert again.find(branch(request(seed=6), 2)) == b"second picture"
        assert again.find(branch(request(seed=6), 3)) == b""
        assert again.find(branch(request(seed=5), 2)) == b""
        assert again.find(branch(request(seed=6, cfg_scale=3), 2)) == b""
        assert again.find(request()) == b""
        assert again.marked(3, [step(1, b"", 1), step(2, b"", 1)])[1].kept
        assert again.data((3, 1, 2)) == b"second picture"


def test_pictures_of_one_batch_are_not_taken_for_single_ones(paths: Paths) -> None:
    store = LatentStore(paths, lambda: 1000)
    store.begin(3, request(batch_size=2))
    assert store.keep(3, step(2, b"two")).kept
    assert store.find(branch(request(), 2)) == b""
    assert store.data((3, 0, 2)) == b"two"


def test_a_picture_has_its_name_from_what_it_is_painted_with(paths: Paths) -> None:
    name = picture_name(request(seed=6), 0)
    model = request().model
    hashed = request(seed=6).model_copy(update={"model": model.model_copy(update={"short_hash": "0123456789"})})
    replaced = request(seed=6).model_copy(update={"model": model.model_copy(update={"mtime": 9.0})})
    drawn = request(seed=6, options=RunOptions(template="{a|b}"))
    assert picture_name(request(seed=5, batch_count=2), 1) == picture_name(hashed, 0) == picture_name(drawn, 0) == name
    assert name not in (picture_name(request(seed=5), 0), picture_name(replaced, 0))


def test_the_name_knows_the_refiner_and_the_embeddings(paths: Paths) -> None:
    second = run(GenerationRequest(hires=HiresPass())).hires
    assert second is not None

    def named(**changes: object) -> str:
        other = request().model.model_copy(update={"path": "/other", **changes})
        parts = {
            "refiner": RefinerPlan(model=other, switch_at=0.5),
            "embeddings": (EmbeddingUse(name="e", model=other),),
            "hypernetworks": (HypernetworkUse(name="h", model=other, multiplier=1, tagged=True),),
            "hires": second.model_copy(
                update={
                    "refiner": RefinerPlan(model=other, switch_at=0.5),
                    "loras": (LoraUse(name="l", model=other, te_weight=1, unet_weight=1),),
                }
            ),
        }
        own = {"model": other, "embeddings": (EmbeddingUse(name="e", model=other),)}
        parts = {
            **{part: {part: value} for part, value in parts.items()},
            **{f"hires.{part}": {"hires": second.model_copy(update={part: value})} for part, value in own.items()},
        }
        names = [picture_name(request().model_copy(update=changes), 0) for changes in parts.values()]
        return " ".join([*names, picture_name(request(), 0)])

    plain, hashed, replaced = named(), named(short_hash="0123456789"), named(mtime=9.0)
    assert len(set(plain.split())) == 7
    assert hashed == plain
    assert [one == two for one, two in zip(plain.split(), replaced.split(), strict=True)] == [*[False] * 6, True]


@pytest.mark.parametrize("on_disk", [True, False])
def test_who_painted_the_newest_step(paths: Paths, on_disk: bool) -> None:
    if not on_disk:
        paths.latents.parent.mkdir(parents=True)
        paths.latents.write_text("a file where the folder should be")
    store = LatentStore(paths, lambda: 10_000)
    for number, painter in ((9, "/a"), (10, "/née"), (2, "/c")):
        store.keep(3, step(number, save({"x": np.zeros(1)}, {"painter": painter}), batch=1))
    assert [store.last_painter(3, batch) for batch in (0, 1)] == ["", "/née"]
    assert [painter_of(data) for data in (b"", b"6/2", b"\x02" + bytes(7) + b"[]", b"\x02" + bytes(7) + b"{}")] == [
        ""
    ] * 4


def test_the_disk_is_bounded_oldest_jobs_first_then_oldest_steps(paths: Paths) -> None:
    store = LatentStore(paths, lambda: 100)
    for job in (1, 2):
        store.begin(job, request())
        for number in (1, 2):
            store.keep(job, step(number, bytes(25)))
    assert store.keep(3, step(1, bytes(10))).kept
    assert not (paths.latents / "1").exists()
    assert [store.has((job, 0, 1)) for job in (1, 2, 3)] == [False, True, True]
    for number in range(2, 12):
        store.keep(3, step(number, bytes(10)))
    assert not store.has((2, 0, 1))
    assert sorted(file.name for file in (paths.latents / "3").iterdir())[:1] == ["0-10.safetensors"]
    assert [store.has((3, 0, number)) for number in (1, 2, 11)] == [False, True, True]
    with pytest.raises(NotFound, match="step 1 of batch 0 of job 3 are not kept"):
        store.data((3, 0, 1))
    assert not store.keep(4, step(1, bytes(101))).kept


def test_what_was_there_before_a_restart_is_counted(paths: Paths) -> None:
    LatentStore(paths, lambda: 100).keep(10, step(1, bytes(60)))
    LatentStore(paths, lambda: 100).keep(9, step(1, bytes(30)))
    (paths.latents / "note").mkdir()
    (paths.latents / "10" / "other.txt").write_text("x")
    store = LatentStore(paths, lambda: 100)
    store.keep(11, step(1, bytes(50)))
    assert [store.has((job, 0, 1)) for job in (9, 10, 11)] == [False, False, True]


def test_a_disk_that_takes_nothing_leaves_memory(paths: Paths) -> None:
    paths.latents.parent.mkdir(parents=True)
    paths.latents.write_text("a file where the folder should be")
    store = LatentStore(paths, lambda: 1000, memory=10)
    store.begin(1, request())
    assert store.keep(1, step(1, b"12345678")).kept
    assert store.find(branch(request(), 1)) == b"12345678"
    store.keep(1, step(2, b"12345678"))
    assert [store.has((1, 0, number)) for number in (1, 2)] == [False, True]


def test_the_queue_keeps_finds_and_prunes(make_queue: QueueMaker, small: Small, paths: Paths) -> None:
    engine = FakeEngine()
    queue = make_queue(engine, keep=2)
    plain = queue.wait(queue.submit(small(), RunOptions(), "").id, 10)
    assert not paths.latents.exists()
    assert not any(event.kept for event in queue.progress_events(plain.id))
    jobs = [queue.wait(queue.submit(small(seed=seed), KEEP, "").id, 10) for seed in (5, 6, 7)]
    assert queue.step_latents(jobs[1].id, 0, 2) == b"6/2"
    events = queue.progress_events(jobs[2].id)
    assert all(event.kept and not event.latents for event in events) and len(events) == 3
    queue.wait(queue.submit(small(seed=8), KEEP, "").id, 10)
    names = sorted(int(entry.name) for entry in paths.latents.iterdir())
    assert names == [jobs[1].id, jobs[2].id, jobs[2].id + 1]
    with pytest.raises(NotFound):
        queue.step_latents(jobs[0].id, 0, 2)
    assert engine.kept == [b""] * 5


def test_nothing_of_it_lies_outside_the_state_folder(paths: Paths) -> None:
    assert Path(paths.latents).parent == paths.state

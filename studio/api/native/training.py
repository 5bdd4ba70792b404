"""Training runs: which there are, how they do, and what is to be done with them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel
from starlette.responses import Response

from studio.api.auth import is_from_here
from studio.api.common import StudioDep, picture_type
from studio.errors import NotAllowed, NotFound
from studio.runs import RunManager
from studio.runs.check import memory
from studio.runs.presets import Preset, presets
from studio.schema.runs import MemoryEstimate, RunAction, RunCurves, RunDetail, RunEvents, RunLog, RunRecord, RunSample
from studio.schema.training import TrainingConfig

router = APIRouter(prefix="/training", tags=["training"])

ACTIONS: dict[RunAction, Callable[[RunManager, str], RunRecord]] = {
    "stop": RunManager.stop,
    "pause": RunManager.pause,
    "resume": RunManager.resume,
    "save": RunManager.save,
    "sample": RunManager.sample,
    "force-stop": RunManager.force_stop,
    "duplicate": RunManager.duplicate,
}
_PICTURE_CSP = {"content-security-policy": "default-src 'none'; sandbox"}


class FormAnswer(BaseModel):
    """What a configuration may hold, as JSON schema, and the presets: parts of configurations."""

    config: dict[str, Any]
    presets: list[Preset]


@router.get("/form")
def form() -> FormAnswer:
    """Everything a form for a new run needs."""
    return FormAnswer(config=TrainingConfig.model_json_schema(), presets=presets())


@router.post("/estimate")
def estimate_memory(studio: StudioDep, body: TrainingConfig) -> MemoryEstimate | None:
    """The memory that a run of this configuration will take; null for methods that start from no checkpoint."""
    return memory(body, studio.library)


@router.get("/runs")
def runs(studio: StudioDep) -> list[RunRecord]:
    """All training runs, newest first."""
    return list(studio.training.runs())


@router.post("/runs")
def create(studio: StudioDep, request: Request, body: TrainingConfig) -> RunRecord:
    """Put a new run into the queue. The body is its configuration, as a recipe holds it."""
    if body.export_to:
        raise NotAllowed("Where the finished model is exported to cannot be chosen over HTTP.", field="export_to")
    return studio.start_training(body, anywhere=is_from_here(request.scope, exposed=studio.exposed))


@router.get("/runs/{run_id}")
def run(studio: StudioDep, run_id: str) -> RunDetail:
    """One run and its configuration."""
    return studio.training.detail(run_id)


@router.post("/runs/{run_id}/{action}")
def act(studio: StudioDep, run_id: str, action: RunAction) -> RunRecord:
    """Stop (and save), pause, resume, save now, paint samples now, stop by force, or duplicate as a new run."""
    return ACTIONS[action](studio.training, run_id)


@router.delete("/runs/{run_id}")
def delete(studio: StudioDep, run_id: str) -> dict[str, bool]:
    """Move the folder of a run that is not running to the trash, `outputs/runs/.trash`."""
    studio.training.delete(run_id)
    return {"ok": True}


@router.get("/runs/{run_id}/events")
def events(
    studio: StudioDep,
    run_id: str,
    offset: Annotated[int, Query(ge=0, lt=2**53)] = 0,
    limit: Annotated[int, Query(ge=1, le=4 << 20)] = 1 << 20,
) -> RunEvents:
    """The run's events after byte `offset` of its events.jsonl, about `limit` bytes; ask again with the answer's offset."""
    return studio.training.events(run_id, offset, limit)


@router.get("/runs/{run_id}/curves")
def curves(studio: StudioDep, run_id: str, stage: str | None = None) -> RunCurves:
    """Loss, learning rate and what else was measured over the steps of a stage (the newest), thinned for drawing."""
    return studio.training.curves(run_id, stage)


@router.get("/runs/{run_id}/log")
def log(studio: StudioDep, run_id: str, size: Annotated[int, Query(ge=1, le=1 << 20)] = 8192) -> RunLog:
    """The end of what the training process printed, at most `size` bytes."""
    return studio.training.log(run_id, size)


@router.get("/runs/{run_id}/samples")
def samples(studio: StudioDep, run_id: str) -> list[RunSample]:
    """Pictures painted while it trained."""
    return studio.training.samples(run_id)


@router.get("/runs/{run_id}/samples/{name}", response_class=Response)
def sample(studio: StudioDep, run_id: str, name: str) -> Response:
    """One of them."""
    data = studio.training.sample_bytes(run_id, name)
    kind = picture_type(data)
    if kind is None:
        raise NotFound(f"{name} is no picture.")
    return Response(data, media_type=kind, headers={"cache-control": "private, no-cache", **_PICTURE_CSP})

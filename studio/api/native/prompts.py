"""The prompt inspector: what prompts come to, before anything runs."""

from __future__ import annotations

from fastapi import APIRouter

from studio.api.common import StudioDep
from studio.inspection import Inspection
from studio.schema.request import GenerationRequest, make_request

router = APIRouter(tags=["prompts"])


class InspectBody(GenerationRequest):
    """A request, as far as it is given; the rest is what a fresh form would show. Only what the prompts depend on counts."""


@router.post("/prompt/inspect")
def inspect(studio: StudioDep, body: InspectBody) -> Inspection:
    """Chunks, tokens with their weights, wordings over the steps, and what the prompts name that is not there."""
    given = body.model_dump(include=body.model_fields_set)
    return studio.inspect(make_request({**studio.default_request().model_dump(), **given}))

"""Where a branched picture comes from: the origin's request out of its text, and what a branch has to share with it.

A branch goes on from latents of its origin, so what made these latents is the origin's alone: size, seed, variation, seed resize,
noise source. The checkpoint is the same too: the latents of one mean nothing to another of a different family, and little to a
relative.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from studio.errors import InvalidRequest
from studio.infotext import parse_infotext
from studio.samplers.table import find_sampler
from studio.schema.parts import MAX_BRANCHES, BranchPoint
from studio.schema.request import GenerationRequest, make_request
from studio.schema.resolved import InitImage, ResolvedRequest
from studio.sources import adopted_source

_SHARED = {
    "width": "width",
    "height": "height",
    "seeds": "seed",
    "variation": "variation",
    "seed_resize": "seed resize",
    "rng": "source of random numbers",
    "source": "picture to begin with",
    "mask": "mask",
}
"""Fields of `ResolvedRequest` that a branch has in common with its origin, and their names in a message."""
_FIELDS = {"seeds": "seed"}
"""What the request calls them, where that is another name."""


def origin_request(point: BranchPoint, loras: Mapping[str, str], embeddings: Mapping[str, str]) -> GenerationRequest:
    """What painted the picture that is branched from, as its text tells; one picture. `loras` and `embeddings` as for `parse_infotext`.

    Raises `InvalidRequest` for a text without parameters, one that makes no request, or one whose branches are nested deeper
    than `MAX_BRANCHES`.
    """
    first = asked = _read(point, loras, embeddings)
    depth = 1
    while asked.branch is not None:
        depth += 1
        if depth > MAX_BRANCHES:
            raise InvalidRequest(
                f"This picture would be a branch of a branch of a branch …: {MAX_BRANCHES} in a row are possible.",
                field="branch.origin",
            )
        asked = _read(asked.branch, loras, embeddings)
    return first


def adopted(request: GenerationRequest, origin: ResolvedRequest) -> GenerationRequest:
    """`request` with what it leaves open of the origin's (seeds of -1, no checkpoint, no picture to begin with) taken from there.

    Raises `InvalidRequest` for a second pass where the origin began with a picture.
    """
    request = adopted_source(request, origin)
    variation, theirs = request.variation, origin.variation
    if variation and theirs and variation.seed < 0:
        variation = variation.model_copy(update={"seed": theirs.seeds[0]})
    return request.model_copy(
        update={
            "seed": request.seed if request.seed >= 0 else origin.seeds[0],
            "variation": variation,
            "model": request.model or origin.model.name,
        }
    )


def refuse_contradictions(resolved: ResolvedRequest, origin: ResolvedRequest) -> None:
    """Raises `InvalidRequest` naming the first field that a branch must share with its origin and does not."""
    if len(resolved.seeds) > 1:
        raise InvalidRequest(
            f"A branch is one picture, not {len(resolved.seeds)}: set batch count and batch size to 1.",
            field="batch_count" if resolved.batch_count > 1 else "batch_size",
        )
    if resolved.model.path != origin.model.path:
        raise _contradiction("model", "checkpoint", origin.model.name, resolved.model.name)
    for name, words in _SHARED.items():
        ours, theirs = getattr(resolved, name), getattr(origin, name)
        if ours != theirs:
            raise _contradiction(_FIELDS.get(name, name), words, _shown(theirs), _shown(ours))


def refuse_late_step(step: int, origin: ResolvedRequest) -> None:
    """Raises `InvalidRequest` for a step that leaves nothing to do, where the number of the origin's steps is known beforehand."""
    sampler = find_sampler(origin.sampler)
    counted = origin.branch is None and sampler.can_branch and not sampler.timesteps
    if counted and step >= origin.steps:
        which = "first pass, the only one that can be branched from," if origin.hires else "picture"
        raise InvalidRequest(
            f"branch.step = {step} is not possible: the {which} has {origin.steps} steps, and one at least must be left.",
            field="branch.step",
        )


def _read(point: BranchPoint, loras: Mapping[str, str], embeddings: Mapping[str, str]) -> GenerationRequest:
    parsed = parse_infotext(point.origin, loras, embeddings)
    if "Steps" not in parsed.pairs:
        raise InvalidRequest(
            "The text of the picture that is branched from has no generation parameters.", field="branch.origin"
        )
    return make_request(parsed.request)


def _contradiction(field: str, words: str, theirs: str, ours: str) -> InvalidRequest:
    return InvalidRequest(
        f"A branch has the {words} of the picture it leaves, {theirs}, and cannot have {ours}.", field=field
    )


def _shown(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, InitImage):
        return value.name
    if isinstance(value, tuple):
        return ", ".join(str(item) for item in value)
    if hasattr(value, "model_dump"):
        return " ".join(f"{name} {_shown(getattr(value, name))}" for name in type(value).model_fields)
    return str(value)

"""Which hypernetworks act in a pass: those that the tags of its prompt name, and the request's own.

A tag is `<hypernet:name:multiplier>`, the multiplier 1 where it is left out. The request's own comes last, and not at all where a tag names the same file,
as in AUTOMATIC1111.
"""

from __future__ import annotations

from studio.errors import StudioError
from studio.prompt.networks import HYPERNETWORK, NetworkTag, extract_networks, hypernetwork_multiplier
from studio.schema.models import ModelInfo
from studio.schema.request import GenerationRequest
from studio.schema.resolved import HypernetworkUse, ResolvedRequest
from studio.wording import ModelLookup, usable


def find_hypernetworks(request: GenerationRequest, prompt: str, library: ModelLookup) -> tuple[HypernetworkUse, ...]:
    """Those of a pass with this prompt that change anything, in their order.

    Raises `UnknownName`, `IncompatibleFile` and `InvalidRequest` (a multiplier that is no number), naming the field.
    """
    tags = (tag for tag in extract_networks(prompt)[1] if tag.kind == HYPERNETWORK)
    uses = [find_hypernetwork(tag, library) for tag in tags]
    own = _own(request, library)
    if own is not None and all(use.model.path != own.model.path for use in uses):
        uses.append(own)
    return tuple(use for use in uses if use.multiplier)


def find_hypernetwork(tag: NetworkTag, library: ModelLookup) -> HypernetworkUse:
    """The file behind one tag. Raises as `find_hypernetworks` does."""
    model = usable(library.hypernetwork(tag.name))
    return HypernetworkUse(name=tag.name, model=model, multiplier=hypernetwork_multiplier(tag), tagged=True)


def fixed_hypernetwork(resolved: ResolvedRequest) -> dict[str, object]:
    """The fields of a request as `studio.resolve.fixed` writes them: empty where the request's own changes nothing."""
    own = resolved.own_hypernetwork
    return {
        "hypernetwork": own.model.name if own else "",
        "hypernetwork_strength": own.multiplier if own else 1.0,
    }


def _own(request: GenerationRequest, library: ModelLookup) -> HypernetworkUse | None:
    if not (request.hypernetwork and request.hypernetwork_strength):
        return None
    try:
        model: ModelInfo = usable(library.hypernetwork(request.hypernetwork))
    except StudioError as error:
        error.field = "hypernetwork"
        raise
    return HypernetworkUse(name=model.name, model=model, multiplier=request.hypernetwork_strength, tagged=False)

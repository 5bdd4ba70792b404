"""The picture that a request begins with: found, checked, and handed from an origin to its branch."""

from __future__ import annotations

from studio.errors import InvalidRequest, StudioError
from studio.library.init_images import InitImages
from studio.samplers.planning import img2img_steps
from studio.schema.models import ModelInfo
from studio.schema.request import GenerationRequest
from studio.schema.resolved import InitImage, MaskPlan, ResolvedRequest, SourcePlan
from studio.schema.source import LATENT_UPSCALE, Mask, Source
from studio.wording import ModelLookup

SOURCE_FIELDS = ("denoising_strength", "resize_mode", "exact_steps", "noise_multiplier", "image_cfg_scale")
MASK_FIELDS = ("blur", "inverted", "content", "area", "padding", "rounding", "conditioning_weight")


def source_plan(request: GenerationRequest, model: ModelInfo, library: ModelLookup) -> SourcePlan | None:
    """The picture to begin with, found; what does not act, also in `model`, has its default. Raises `UnknownName` when it is not kept any more."""
    part, mask = request.source, request.mask
    if part is None:
        return None
    facts = {name: getattr(part, name) for name in SOURCE_FIELDS}
    part_only = mask is not None and mask.area == "Only masked"  # is always brought to size in one way
    if part_only or (mask is not None and part.resize_mode == LATENT_UPSCALE):
        facts["resize_mode"] = Source().resize_mode
    if request.sd_upscale is not None:
        facts["resize_mode"] = Source().resize_mode
    if not model.edit:
        facts["image_cfg_scale"] = Source().image_cfg_scale
    return SourcePlan(image=_found(part.image, library, "source.image"), **facts)


def mask_plan(request: GenerationRequest, model: ModelInfo, library: ModelLookup) -> MaskPlan | None:
    """The mask, found; what does not act, also in `model`, has its default. Raises as `source_plan`."""
    part = request.mask
    if part is None:
        return None
    facts = {name: getattr(part, name) for name in MASK_FIELDS}
    if part.area != "Only masked":
        facts["padding"] = Mask().padding
    if not model.inpaint:
        facts["conditioning_weight"] = Mask().conditioning_weight
    return MaskPlan(image=_found(part.image, library, "mask.image"), **facts)


def run_steps(request: GenerationRequest) -> int:
    """The sampling steps that are run of those asked for: over a picture only the part that the strength gives."""
    part = request.source
    if part is None:
        return request.steps
    return img2img_steps(request.steps, part.denoising_strength, exact_steps=part.exact_steps)[1] + 1


def adopted_source(request: GenerationRequest, origin: ResolvedRequest) -> GenerationRequest:
    """`request` with the picture and mask of its `origin`, unless it names its own.

    Raises `InvalidRequest` for a second pass over such a branch.
    """
    if origin.source is None:
        return request
    if request.hires is not None:
        raise InvalidRequest(
            "The picture that is branched from began with a picture (img2img), so there is no second pass: turn Hires. fix off.",
            field="hires",
        )
    source, mask = given_pictures(origin)
    return request.model_copy(update={"source": request.source or source, "mask": request.mask or mask})


def given_pictures(resolved: ResolvedRequest) -> tuple[Source | None, Mask | None]:
    """Picture and mask as a request asks for them, with only what acts."""
    source, mask = resolved.source, resolved.mask
    if source is None:
        return None, None
    facts = {name: getattr(source, name) for name in SOURCE_FIELDS}
    asked = Source(image=source.image.name, extra_noise=resolved.extra_noise, **facts)
    if mask is None:
        return asked, None
    return asked, Mask(image=mask.image.name, **{name: getattr(mask, name) for name in MASK_FIELDS})


def hold_pictures(request: GenerationRequest, images: InitImages) -> None:
    """Keep for good what a saved picture will have begun with. Raises `StorageError`."""
    for part in (request.source, request.mask):
        if part is not None:
            images.hold(part.image)


def _found(name: str, library: ModelLookup, field: str) -> InitImage:
    try:
        return library.init_image(name)
    except StudioError as error:
        error.field = field
        raise

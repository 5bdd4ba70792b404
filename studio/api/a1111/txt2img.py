"""POST txt2img, and what its body has of its own: the second pass (hires. fix)."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter

from studio.api.a1111.bodies import Txt2ImgBody
from studio.api.a1111.names import HIRES_FIELDS, HIRES_MODULES, HIRES_OVERRIDES
from studio.api.a1111.painting import ImagesAnswer, context_of, painted
from studio.api.a1111.scripts import TXT2IMG_AXES
from studio.api.a1111.translate import (
    Context,
    Dialect,
    Order,
    Refusal,
    Said,
    file_names,
    named,
    split_sampler,
    translate,
)
from studio.api.a1111.upscale_script import is_sd_upscale
from studio.api.common import StudioDep

router = APIRouter()

HIRES_STRENGTH = 0.75
"""A1111's strength of the second pass where none is given."""


@router.post("/txt2img")
async def txt2img(studio: StudioDep, body: Txt2ImgBody) -> ImagesAnswer:
    """Paint. Answers when the job has ended; an interrupted job answers with what is finished."""
    return await painted(studio, body, lambda: txt2img_order(body, context_of(studio)))


def txt2img_order(body: Txt2ImgBody, context: Context) -> Order:
    """Understand a body of txt2img. Pure: the same body gives the same order. Raises `InvalidRequest` naming A1111's field."""
    return translate(body, context, Dialect(_REFUSED, TXT2IMG_AXES, _own_parts))


def _positive(value: Any) -> bool:
    return isinstance(value, int | float) and value > 0


_OLD_HIRES = (
    "the size of the first pass (old hires. fix) is not available in this version. Leave the field out: width and height "
    "are that, hr_scale enlarges."
)
_REFUSED: tuple[Refusal, ...] = (
    ("script_name", is_sd_upscale, "SD upscale enlarges a picture. Send one to /sdapi/v1/img2img."),
    ("firstphase_width", _positive, _OLD_HIRES),
    ("firstphase_height", _positive, _OLD_HIRES),
    ("firstpass_image", named, "a given first pass is not available in this version. Leave the field out."),
    ("init_images", bool, "txt2img begins with noise. Send pictures to /sdapi/v1/img2img."),
    ("mask", bool, "txt2img begins with noise. Send a mask, with its picture, to /sdapi/v1/img2img."),
)


def _own_parts(said: Said) -> tuple[dict[str, Any], list[str]]:
    """The second pass, and no picture to begin with but that of a branch's origin, which refuses a second pass itself."""
    hires = _hires(said)
    if "branch" in said.given and hires is None:
        return {"hires": None}, []
    warnings = []
    if said.data.get("source") and "branch" not in said.given:
        warnings.append("The infotext is of img2img; its picture was ignored. Send it to /sdapi/v1/img2img.")
    return {"hires": hires, "source": None, "mask": None, "sd_upscale": None}, warnings


def _hires(said: Said) -> dict[str, Any] | None:
    """The second pass: on where `enable_hr` says so or, where it says nothing, where the infotext tells of one."""
    known = said.data.get("hires")
    if not said.given.get("enable_hr", known is not None):
        return None
    part: dict[str, Any] = {"denoising_strength": HIRES_STRENGTH} if known is None else dict(known)
    part |= {ours: said.given[theirs] for theirs, ours in HIRES_FIELDS.items() if theirs in said.given}
    for name in ("sampler", "schedule"):
        part[name] = "" if str(part.get(name, "")).casefold().startswith("use same") else part.get(name, "")
    part["sampler"], carried = split_sampler(part["sampler"])
    part["schedule"] = part["schedule"] or carried or ""
    for name in ("width", "height"):
        part[name] = max(part.get(name) or 0, 0)
    if modules := file_names(said.given.get(HIRES_MODULES) or []):
        part |= {"text_encoders": modules, "vae": "Automatic"}
    return part | {ours: said.overrides[theirs] for theirs, ours in HIRES_OVERRIDES.items() if theirs in said.overrides}

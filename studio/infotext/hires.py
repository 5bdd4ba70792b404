"""The second pass in generation text, under AUTOMATIC1111's keys and by its rules, and `Hires CFG Scale`, which is Forge's.

`Size` is that of the first pass. What is as there has no key; without `Hires schedule type` the schedule that ran there ran here too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from studio.errors import UnknownName
from studio.infotext.modules import hires_module_pairs
from studio.infotext.unused import shortened
from studio.samplers.table import (
    SamplerSpec,
    find_sampler,
    find_schedule,
    resolve_schedule,
    split_legacy_sampler_name,
)
from studio.schema.resolved import ResolvedRequest
from studio.upscalers import DEFAULT_UPSCALER, UPSCALERS, shown_name

SAME = "use same"
MAX_UPSCALER = 300
"""Characters of an upscaler's name; a longer one is none."""


def hires_pairs(resolved: ResolvedRequest) -> dict[str, object]:
    """The pairs of the second pass, in A1111's order, except its strength, which stands further ahead."""
    plan = resolved.hires
    if plan is None:
        return {}
    resize = None if plan.resize is None else "x".join(str(side) for side in plan.resize)
    pairs = {
        "Hires checkpoint": plan.model.short_title if plan.model.path != resolved.model.path else None,
        "Hires sampler": plan.sampler if plan.sampler != resolved.sampler else None,
        "Hires prompt": plan.positive.text if plan.positive.text != resolved.positive.text else None,
        "Hires negative prompt": plan.negative.text if plan.negative.text != resolved.negative.text else None,
        "Hires CFG Scale": plan.cfg_scale if plan.cfg_scale != resolved.cfg_scale else None,
        "Hires schedule type": plan.schedule if plan.schedule != resolved.schedule else None,
        "Hires resize": resize,
        "Hires upscale": plan.scale,
        "Hires steps": plan.steps if plan.steps_given else None,
        "Hires upscaler": shown_name(plan.upscaler),
        "Hires refiner": plan.refiner_passes if plan.refiner_passes != "second pass" else None,
        **hires_module_pairs(resolved),
        "Extra noise": plan.extra_noise or None,
    }
    return {key: value for key, value in pairs.items() if value is not None}


def has_hires(pairs: Mapping[str, str]) -> bool:
    """Whether a text tells of a second pass: A1111's rule."""
    return "Denoising strength" in pairs and any(
        key in pairs for key in ("Hires upscale", "Hires upscaler", "Hires resize-1")
    )


def hires_names(pairs: Mapping[str, str], first: tuple[str, str] | None, note: Callable[[str], None]) -> dict[str, str]:
    """Upscaler, sampler and schedule of the second pass as fields of `HiresPass`; "" is the same as in the first.

    `first` are sampler and schedule as the request asks for them, None where the text does not tell. A name that is not known here
    is replaced, with a note; an upscaler's may be that of a model, so that is left to the library.
    """
    name = pairs.get("Hires upscaler", DEFAULT_UPSCALER)
    return {"upscaler": upscaler_name(name), **_sampling(pairs, first, note)}


def upscaler_name(name: str) -> str:
    """The name of a row as it is spelt here; that of a model, which only the library knows, as it stands there."""
    return UPSCALERS.get(name).name if name in UPSCALERS else name[:MAX_UPSCALER]


def _sampling(pairs: Mapping[str, str], first: tuple[str, str] | None, note: Callable[[str], None]) -> dict[str, str]:
    own, ending = _own_sampler(pairs, note)
    given = _said(pairs, "Hires schedule type") or ending
    if given:
        try:
            label = find_schedule(given).label
        except UnknownName:
            note(f"There is no schedule named {shortened(given)!r} here; the second pass uses that of the first.")
        else:
            return {"sampler": own.name if own else "", "schedule": label}
    if own is None or first is None:
        return {"sampler": own.name if own else "", "schedule": ""}
    ran = resolve_schedule(*first).label
    return {"sampler": own.name, "schedule": "" if resolve_schedule(own, first[1]).label == ran else ran}


def _own_sampler(pairs: Mapping[str, str], note: Callable[[str], None]) -> tuple[SamplerSpec | None, str]:
    """The sampler if it is another one, and the schedule at the end of its name (before A1111 1.9)."""
    name = _said(pairs, "Hires sampler")
    if not name:
        return None, ""
    bare, ending = split_legacy_sampler_name(name)
    try:
        return find_sampler(bare), ending or ""
    except UnknownName:
        note(f"There is no sampler named {shortened(name)!r} here; the second pass uses that of the first.")
        return None, ""


def _said(pairs: Mapping[str, str], key: str) -> str:
    """The value, unless it says that it is the same as in the first pass."""
    value = pairs.get(key, "").strip()
    return "" if value.casefold().startswith(SAME) or value.casefold() == "none" else value

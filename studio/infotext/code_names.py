"""k-diffusion's names of samplers and schedules, which ComfyUI and Fooocus write, as A1111 shows them."""

from __future__ import annotations

from studio.errors import UnknownName
from studio.samplers.table import find_sampler, find_schedule

SAMPLERS = {"dpm_adaptive": "k_dpm_ad", "uni_pc": "unipc", "uni_pc_bh2": "unipc"}
SCHEDULES = {"ddim_uniform": "ddim"}
"""Names that are not one of A1111's aliases without their `k_`."""


def sampler_label(name: str) -> str:
    """Such as "DPM++ 2M SDE" for `dpmpp_2m_sde_gpu`; `name` itself where there is none, so that the reader can say so."""
    short = name.removesuffix("_gpu").replace("_ancestral", "_a")
    for known in (SAMPLERS.get(short, f"k_{short}"), short):
        try:
            return find_sampler(known).name
        except UnknownName:
            continue
    return name


def schedule_label(name: str) -> str:
    """Such as "SGM Uniform" for `sgm_uniform`; `name` itself where there is none."""
    try:
        return find_schedule(SCHEDULES.get(name, name)).label
    except UnknownName:
        return name

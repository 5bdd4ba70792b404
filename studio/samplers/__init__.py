"""Samplers, schedules and noise: how noise becomes a picture, whatever the model.

Names are looked up in `table`; `plan` turns them into a run; each algorithm is one generator function in a module of its
family. Importing this package does not import torch: only calls that compute do.
"""

from studio.samplers.noise import ImageNoise
from studio.samplers.noise_table import NoiseTable
from studio.samplers.planning import SamplingPlan, plan
from studio.samplers.table import (
    SAMPLERS,
    SCHEDULES,
    SamplerSpec,
    ScheduleSpec,
    find_sampler,
    find_schedule,
    resolve_schedule,
    split_legacy_sampler_name,
)
from studio.samplers.types import Denoiser, GuidedDenoiser, NoiseSource, Step

__all__ = [
    "SAMPLERS",
    "SCHEDULES",
    "Denoiser",
    "GuidedDenoiser",
    "ImageNoise",
    "NoiseSource",
    "NoiseTable",
    "SamplerSpec",
    "SamplingPlan",
    "ScheduleSpec",
    "Step",
    "find_sampler",
    "find_schedule",
    "plan",
    "resolve_schedule",
    "split_legacy_sampler_name",
]

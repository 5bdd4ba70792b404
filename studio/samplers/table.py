"""The samplers and schedules by name: what A1111 calls them, and where their code is.

Light by design: the page, REST, the command line and infotext read these rows without importing torch. A row names its code
as ``"module:function"`` (inside this package), loaded on first use. A new sampler is one generator function and one row here.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from studio.errors import UnknownName

if TYPE_CHECKING:
    from torch import Tensor

    from studio.samplers.schedules import ScheduleInput
    from studio.samplers.types import Denoiser, Knobs, Step, StepNoise
    from studio.schema.parts import SamplerOptions

    SamplerFunction = Callable[[Denoiser, Tensor, Sequence[float], StepNoise, Knobs], Iterator[Step]]
    ScheduleFunction = Callable[[ScheduleInput], Tensor]

AUTOMATIC = "Automatic"
"""Label of the schedule that means: the sampler's default, else `UNIFORM`."""
UNIFORM = "Uniform"


@dataclass(frozen=True)
class SamplerSpec:
    """One row of `SAMPLERS`.

    Attributes:
        name: what A1111 shows and writes into infotext.
        function: ``"module:function"`` of the generator; load it with `load`.
        aliases: other names that A1111's API accepts.
        default_schedule: label of the schedule that Automatic stands for; None means Uniform.
        second_order: calls the model twice per step, except in the last one.
        uses_ensd: infotext records the eta noise seed delta for it.
        brownian: takes its noise from a Brownian path over sigma instead of one draw after another.
        discard_penultimate: computes the schedule for one step more and drops the value before the last.
        churn: obeys s_churn, s_tmin and s_tmax.
        default_eta: the noise multiplier when the request leaves it open; None where eta means nothing.
        extra_first_calls: model calls that the first step takes beyond the usual.
        own_range: ignores the schedule and goes from the largest to the smallest sigma by its own steps.
        detours: goes back up to higher levels on the way (Restart).
        call_budget: spends as many model calls as there are steps asked for, but several in each of its own steps (DPM fast).
        timesteps: takes its sigmas from integer timesteps of the training table (CompVis samplers), not from a schedule.
        continuous_time: the points between the first and last timestep are fractional and of the sampler's own making (UniPC).
        consistency: for latent consistency models: a table of 50 timesteps instead of all of them.
        solver_type: only listed by A1111's API; the function has it built in.
        guidance_factor: the CFG scale is multiplied by this.
        needs_uncond: the denoiser must also give the unconditional prediction (`GuidedDenoiser`).
    """

    name: str
    function: str
    aliases: tuple[str, ...] = ()
    default_schedule: str | None = None
    second_order: bool = False
    uses_ensd: bool = False
    brownian: bool = False
    discard_penultimate: bool = False
    churn: bool = False
    default_eta: float | None = None
    extra_first_calls: int = 0
    own_range: bool = False
    detours: bool = False
    call_budget: bool = False
    timesteps: bool = False
    continuous_time: bool = False
    consistency: bool = False
    solver_type: str | None = None
    guidance_factor: float = 1.0
    needs_uncond: bool = False

    def load(self) -> SamplerFunction:
        """The generator function; imports its module."""
        return cast("SamplerFunction", _load(self.function))

    def eta(self, options: SamplerOptions) -> float:
        """The noise multiplier in force: the request's, else this sampler's default, else 0."""
        chosen = options.eta if options.eta is not None else self.default_eta
        return chosen or 0.0

    @property
    def can_branch(self) -> bool:
        """Whether it can go on from a level of another run: not where it chooses levels of its own between the first and the last."""
        return not (self.own_range or self.detours)

    @property
    def options(self) -> dict[str, str | bool]:
        """The ``options`` object of A1111's ``/sdapi/v1/samplers``: only what is set."""
        flags = {
            "scheduler": find_schedule(self.default_schedule).name if self.default_schedule else None,
            "second_order": self.second_order,
            "uses_ensd": self.uses_ensd,
            "brownian_noise": self.brownian,
            "discard_next_to_last_sigma": self.discard_penultimate,
            "solver_type": self.solver_type,
        }
        return {key: value for key, value in flags.items() if value}


@dataclass(frozen=True)
class ScheduleSpec:
    """One row of `SCHEDULES`.

    Attributes:
        name: A1111's internal name, as its API lists it.
        label: what A1111 shows and writes into infotext.
        function: ``"module:function"`` of the schedule; load it with `load`.
        aliases: other spellings that are read.
        default_rho: value of the rho parameter; -1 where the schedule has none.
        needs_table: reads the model's training table (A1111's ``need_inner_model``), not only its largest and smallest sigma.
    """

    name: str
    label: str
    function: str
    aliases: tuple[str, ...] = ()
    default_rho: float = -1.0
    needs_table: bool = False

    def load(self) -> ScheduleFunction:
        """The schedule function; imports its module."""
        return cast("ScheduleFunction", _load(self.function))


SAMPLERS: tuple[SamplerSpec, ...] = (
    SamplerSpec("DPM++ 2M", "dpmpp:dpmpp_2m", ("k_dpmpp_2m",), "Karras"),
    SamplerSpec(
        "DPM++ SDE",
        "dpmpp_sde:dpmpp_sde",
        ("k_dpmpp_sde",),
        "Karras",
        second_order=True,
        brownian=True,
        default_eta=1.0,
    ),
    SamplerSpec(
        "DPM++ 2M SDE", "dpmpp_sde:dpmpp_2m_sde", ("k_dpmpp_2m_sde",), "Exponential", brownian=True, default_eta=1.0
    ),
    SamplerSpec(
        "DPM++ 2M SDE Heun",
        "dpmpp_sde:dpmpp_2m_sde_heun",
        ("k_dpmpp_2m_sde_heun",),
        "Exponential",
        brownian=True,
        default_eta=1.0,
        solver_type="heun",
    ),
    SamplerSpec(
        "DPM++ 2S a",
        "dpmpp:dpmpp_2s_ancestral",
        ("k_dpmpp_2s_a",),
        "Karras",
        second_order=True,
        uses_ensd=True,
        default_eta=1.0,
    ),
    SamplerSpec(
        "DPM++ 3M SDE",
        "dpmpp_sde:dpmpp_3m_sde",
        ("k_dpmpp_3m_sde",),
        "Exponential",
        brownian=True,
        discard_penultimate=True,
        default_eta=1.0,
    ),
    SamplerSpec(
        "Euler a", "euler:euler_ancestral", ("k_euler_a", "k_euler_ancestral"), uses_ensd=True, default_eta=1.0
    ),
    SamplerSpec("Euler", "euler:euler", ("k_euler",), churn=True),
    SamplerSpec("LMS", "lms:lms", ("k_lms",)),
    SamplerSpec("Heun", "heun:heun", ("k_heun",), second_order=True, churn=True),
    SamplerSpec("DPM2", "dpm2:dpm2", ("k_dpm_2",), "Karras", second_order=True, discard_penultimate=True, churn=True),
    SamplerSpec(
        "DPM2 a",
        "dpm2:dpm2_ancestral",
        ("k_dpm_2_a",),
        "Karras",
        second_order=True,
        uses_ensd=True,
        discard_penultimate=True,
        default_eta=1.0,
    ),
    SamplerSpec(
        "DPM fast",
        "dpm_solver:dpm_fast",
        ("k_dpm_fast",),
        uses_ensd=True,
        default_eta=1.0,
        own_range=True,
        call_budget=True,
    ),
    SamplerSpec(
        "DPM adaptive", "dpm_solver:dpm_adaptive", ("k_dpm_ad",), uses_ensd=True, default_eta=1.0, own_range=True
    ),
    SamplerSpec("Restart", "heun:restart", ("restart",), "Karras", second_order=True, detours=True),
    SamplerSpec("DDIM", "ddim:ddim", ("ddim",), default_eta=0.0, timesteps=True),
    SamplerSpec(
        "DDIM CFG++",
        "ddim:ddim_cfgpp",
        ("ddim_cfgpp",),
        default_eta=0.0,
        timesteps=True,
        guidance_factor=1 / 12.5,
        needs_uncond=True,
    ),
    SamplerSpec("PLMS", "ddim:plms", ("plms",), timesteps=True, extra_first_calls=1),
    SamplerSpec("UniPC", "unipc:unipc", ("unipc",), timesteps=True, continuous_time=True),
    SamplerSpec("LCM", "lcm:lcm", ("k_lcm",), consistency=True),
)
"""Every sampler, in A1111's order."""

SCHEDULES: tuple[ScheduleSpec, ...] = (
    ScheduleSpec("automatic", AUTOMATIC, "schedules:uniform"),
    ScheduleSpec("uniform", UNIFORM, "schedules:uniform", needs_table=True),
    ScheduleSpec("karras", "Karras", "schedules:karras", default_rho=7.0),
    ScheduleSpec("exponential", "Exponential", "schedules:exponential"),
    ScheduleSpec("polyexponential", "Polyexponential", "schedules:polyexponential", default_rho=1.0),
    ScheduleSpec("sgm_uniform", "SGM Uniform", "schedules:sgm_uniform", ("SGMUniform",), needs_table=True),
    ScheduleSpec("kl_optimal", "KL Optimal", "schedules:kl_optimal"),
    ScheduleSpec("align_your_steps", "Align Your Steps", "schedules:align_your_steps"),
    ScheduleSpec("simple", "Simple", "schedules:simple", needs_table=True),
    ScheduleSpec("normal", "Normal", "schedules:normal", needs_table=True),
    ScheduleSpec("ddim", "DDIM", "schedules:ddim", needs_table=True),
    ScheduleSpec("beta", "Beta", "schedules:beta", needs_table=True),
    ScheduleSpec("turbo", "Turbo", "schedules:turbo", needs_table=True),
    ScheduleSpec("align_your_steps_GITS", "Align Your Steps GITS", "schedules:align_your_steps_gits"),
    ScheduleSpec("align_your_steps_11", "Align Your Steps 11", "schedules:align_your_steps"),
    ScheduleSpec("align_your_steps_32", "Align Your Steps 32", "schedules:align_your_steps_32"),
)
"""Every schedule, in A1111's order; the last four are Forge's."""


def find_sampler(name: str) -> SamplerSpec:
    """The sampler called `name` (its name or an alias, in any case).

    Raises:
        UnknownName: there is none; the error carries near matches.
    """
    folded = name.strip().casefold()
    for spec in SAMPLERS:
        if folded in (known.casefold() for known in (spec.name, *spec.aliases)):
            return spec
    raise UnknownName.of("sampler", name, [spec.name for spec in SAMPLERS], field="sampler")


def find_schedule(name_or_label: str) -> ScheduleSpec:
    """The schedule called `name_or_label` (its name, label or an alias, in any case).

    Raises:
        UnknownName: there is none; the error carries near matches.
    """
    folded = name_or_label.strip().casefold()
    for spec in SCHEDULES:
        if folded in (known.casefold() for known in (spec.name, spec.label, *spec.aliases)):
            return spec
    raise UnknownName.of("schedule", name_or_label, [spec.label for spec in SCHEDULES], field="schedule")


def resolve_schedule(sampler: str | SamplerSpec, schedule: str | ScheduleSpec) -> ScheduleSpec:
    """The schedule that runs: Automatic becomes the sampler's default, or Uniform where it has none.

    Raises:
        UnknownName: the sampler or the schedule is not in the table.
    """
    sampler = find_sampler(sampler) if isinstance(sampler, str) else sampler
    schedule = find_schedule(schedule) if isinstance(schedule, str) else schedule
    if schedule.label != AUTOMATIC:
        return schedule
    return find_schedule(sampler.default_schedule or UNIFORM)


def split_legacy_sampler_name(name: str) -> tuple[str, str | None]:
    """Take the schedule off a sampler name as A1111 wrote it before 1.9.

    ``"DPM++ 2M Karras"`` gives ``("DPM++ 2M", "Karras")``; a name without such an ending comes back as it is, with None.
    The ending may be a schedule's label, name or alias, in any case; the longest that fits is taken. The first part is not
    looked up, so it may be a sampler that does not exist.
    """
    name = name.strip()
    endings = [(ending, spec.label) for spec in SCHEDULES for ending in (spec.label, spec.name, *spec.aliases)]
    for ending, label in sorted(endings, key=lambda pair: len(pair[0]), reverse=True):
        head, tail = name[: -len(ending)], name[-len(ending) :]
        if tail.casefold() == ending.casefold() and head.endswith(" ") and head.strip():
            return head.strip(), label
    return name, None


def _load(reference: str) -> Any:
    module, function = reference.split(":")
    return getattr(importlib.import_module(f"studio.samplers.{module}"), function)

"""The optional parts of a request, one model each, and the words and bounds that they share with it.

Bounds, defaults and help texts exist once, here and in `studio.schema.request`. Presence of a part means on.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator

MAX_SEED = 2**32 - 1
MAX_PROMPT = 50_000
"""Characters a prompt may have. A longer one is refused with a message rather than cut."""
MAX_ORIGIN = 100_000
"""Characters that the text of a branch's origin may have."""
MAX_BRANCHES = 8
"""How often a picture may be branched from a branch."""
SMALLEST_SIDE = 64
"""Pixels."""
LARGEST_SIDE = 4096
"""Pixels a side may have after the second pass."""

MAX_TEXT_ENCODERS = 8
"""Names of text encoders that a request may have: more than any checkpoint reads prompts with."""
BUILT_IN = "Built-in"
"""What Forge calls the VAE and the text encoders of the checkpoint itself."""
_OWN = ("built-in", "automatic", "none")

RefinerPasses = Literal["first pass", "second pass", "both passes"]


def _printable(text: str) -> str:
    """Refuse what no PNG text chunk can hold (pydantic itself refuses unpaired surrogates)."""
    if "\0" in text:
        raise ValueError("must not contain NUL characters")
    return text


def _side_or_off(pixels: int) -> int:
    """Refuse a side that no picture can have."""
    if 0 < pixels < SMALLEST_SIDE:
        raise ValueError(f"must be 0 (off) or at least {SMALLEST_SIDE}")
    return pixels


def _named(names: tuple[str, ...]) -> tuple[str, ...]:
    """Each name once, without space around it and without those of the checkpoint's own text encoders."""
    bare = dict.fromkeys(name.strip() for name in names)
    return tuple(name for name in bare if name and name.casefold() not in _OWN)


Text = Annotated[str, AfterValidator(_printable)]
EncoderName = Annotated[Text, Field(max_length=300)]
TextEncoders = Annotated[tuple[EncoderName, ...], AfterValidator(_named)]
SideOrOff = Annotated[int, AfterValidator(_side_or_off)]


class Frozen(BaseModel):
    """Immutable; an unknown field is refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class SamplerOptions(Frozen):
    """Knobs of the samplers and schedules, A1111's names and meanings. 0 means the default where noted."""

    eta: float | None = Field(
        None, ge=0, le=1, description="Noise multiplier; empty: 1 for ancestral and SDE samplers, 0 for DDIM"
    )
    s_churn: float = Field(0.0, ge=0, le=100, description="Sigma churn (Euler, Heun, DPM2)")
    s_tmin: float = Field(0.0, ge=0, le=1000, description="Sigma tmin: churn only above this sigma")
    s_tmax: float = Field(0.0, ge=0, le=1000, description="Sigma tmax: churn only below this sigma; 0 is no limit")
    s_noise: float = Field(
        1.0, ge=0, le=2, description="Sigma noise: scale of the noise that churn, ancestral and SDE samplers add"
    )
    sigma_min: float = Field(0.0, ge=0, le=1000, description="Schedule min sigma; 0 is the model's own")
    sigma_max: float = Field(0.0, ge=0, le=1000, description="Schedule max sigma; 0 is the model's own")
    rho: float = Field(0.0, ge=0, le=100, description="Schedule rho; 0 is the schedule's default (7 for Karras)")
    beta_dist_alpha: float = Field(
        0.6, ge=0.01, le=10, description="Beta schedule alpha: below 1 the steps crowd at the last noise levels"
    )
    beta_dist_beta: float = Field(
        0.6, ge=0.01, le=10, description="Beta schedule beta: below 1 the steps crowd at the first noise levels"
    )
    discard_penultimate: bool = Field(False, description="Always discard next-to-last sigma")
    ensd: int = Field(0, ge=-MAX_SEED, le=MAX_SEED, description="Eta noise seed delta")
    sgm_noise_multiplier: bool = Field(False, description="Scale the start noise by sqrt(1 + sigma²) instead of sigma")
    old_karras: bool = Field(False, description="Old Karras range 0.1 to 10")
    uni_pc_variant: Literal["bh1", "bh2", "vary_coeff"] = Field("bh1", description="UniPC variant")
    uni_pc_skip_type: Literal["time_uniform", "time_quadratic", "logSNR"] = Field(
        "time_uniform", description="UniPC skip type"
    )
    uni_pc_order: int = Field(3, ge=1, le=50, description="UniPC order")
    uni_pc_lower_order_final: bool = Field(True, description="UniPC lower order final")
    s_min_uncond: float = Field(
        0.0,
        ge=0,
        le=15,
        description="Negative guidance minimum sigma: below it every second call leaves the negative prompt out; 0 is off",
    )
    s_min_uncond_all: bool = Field(
        False, description="Below the negative guidance minimum sigma every call leaves the negative prompt out"
    )
    skip_early_cond: float = Field(
        0.0,
        ge=0,
        le=1,
        description="Leave the negative prompt out for this part of the steps at the beginning; 0 is off",
    )


class Variation(Frozen):
    """A second noise mixed into the start noise: pictures near the one of `seed`. At strength 0 it is as if it were not there."""

    seed: int = Field(
        -1, ge=-1, le=MAX_SEED, description="-1 draws a new one; picture i uses it + i, all the same seed"
    )
    strength: float = Field(
        0.0, ge=0, le=1, description="0 is the seed's own noise (no variation), 1 the variation seed's"
    )


class SeedResize(Frozen):
    """The noise of another size in the middle of this one, for a similar picture at a new size. A side of 0 turns it off."""

    width: SideOrOff = Field(0, ge=0, le=2048, description="Width in pixels whose noise is kept; 0 is off")
    height: SideOrOff = Field(0, ge=0, le=2048, description="Height in pixels whose noise is kept; 0 is off")


class Refiner(Frozen):
    """A second checkpoint that finishes the picture. Without a name, or with a switch at 1, it is as if it were not there.

    From the switch on its U-Net paints and its text encoders read the prompts; the latents go on. What it predicts is what
    its file says.
    """

    checkpoint: Text = Field(
        "", max_length=300, description="Checkpoint name, title or hash, of the same latent space; empty: none"
    )
    switch_at: float = Field(
        0.8, ge=0, le=1, description="Part of the way after which the refiner goes on; 0 is at once, 1 never"
    )
    by_steps: bool = Field(
        False, description="Count the part in sampling steps, as before A1111 1.8; else in timesteps of the noise level"
    )


class HiresPass(Frozen):
    """A second pass over the enlarged picture (hires. fix). Its presence means on: one with nothing but defaults enlarges twice.

    `width` and `height` say the final size instead of `scale`: one of them alone keeps the shape, both cut off what is too much.
    What is left at its default is as in the first pass. One that neither enlarges nor paints is as if it were not there.
    """

    scale: float = Field(2.0, ge=1, le=4, description="Enlarge by this; not read where a size is given")
    width: SideOrOff = Field(0, ge=0, le=LARGEST_SIDE, description="Final width in pixels; 0 is by scale, or by height")
    height: SideOrOff = Field(
        0, ge=0, le=LARGEST_SIDE, description="Final height in pixels; 0 is by scale, or by width"
    )
    upscaler: str = Field("Latent", max_length=300, description="What enlarges between the passes")
    steps: int = Field(0, ge=0, le=150, description="Sampling steps of the second pass; 0 as many as the first has")
    denoising_strength: float = Field(
        0.7, ge=0, le=1, description="How much is painted anew; 0 only enlarges, 1 keeps next to nothing"
    )
    checkpoint: Text = Field(
        "", max_length=300, description="Checkpoint of the second pass: name, title or hash; empty: the same"
    )
    vae: Text = Field(
        "", max_length=300, description="VAE of the second pass; empty: the same, Automatic: its checkpoint's own"
    )
    text_encoders: tuple[EncoderName, ...] = Field(
        (),
        max_length=MAX_TEXT_ENCODERS,
        description="Text encoders of the second pass; empty: the same, Built-in: its checkpoint's own",
    )
    sampler: str = Field("", max_length=100, description="Sampling method of the second pass; empty: the same")
    schedule: str = Field("", max_length=100, description="Schedule type of the second pass; empty: the same")
    cfg_scale: float = Field(0.0, ge=0, le=100, description="CFG scale of the second pass; 0 is the same")
    prompt: Text = Field("", max_length=MAX_PROMPT, description="Prompt of the second pass; empty: the same")
    negative_prompt: Text = Field(
        "", max_length=MAX_PROMPT, description="Negative prompt of the second pass; empty: the same"
    )
    refiner: RefinerPasses = Field("second pass", description="Which pass a refiner finishes, where there is one")
    token_merging_ratio: float = Field(0.0, ge=0, le=0.9, description="Token merging of the second pass; 0 is the same")
    extra_noise: float = Field(
        0.0, ge=0, le=1, description="Noise over what the second pass starts from, beyond what it takes away again"
    )

    @field_validator("checkpoint")
    @classmethod
    def _same_is_empty(cls, name: str) -> str:
        """What A1111 calls the checkpoint of the first pass."""
        bare = name.strip().casefold()
        return "" if bare in ("", "none") or bare.startswith("use same") else name

    @field_validator("vae")
    @classmethod
    def _same_vae_is_empty(cls, name: str) -> str:
        bare = name.strip().casefold()
        return "" if not bare or bare.startswith("use same") else "Automatic" if bare in _OWN else name

    @field_validator("text_encoders")
    @classmethod
    def _same_encoders_are_none(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        """Forge's word for the same says nothing; its word for the checkpoint's own stands alone."""
        said = [name for name in names if name.strip() and not name.strip().casefold().startswith("use same")]
        return _named(tuple(said)) or ((BUILT_IN,) if said else ())


class BranchPoint(Frozen):
    """Where a branch leaves another picture: it goes on from that one's latents after some of its steps. Without an origin it is off.

    The start belongs to the origin: size, seed, variation, seed resize, noise source and checkpoint are the same, and a branch is
    one picture. Everything else is the branch's own.
    """

    step: int = Field(1, ge=1, le=150, description="Steps of the origin that are kept, counted from 1")
    origin: Text = Field(
        "", max_length=MAX_ORIGIN, description="Generation text of the picture that is branched from; empty is off"
    )

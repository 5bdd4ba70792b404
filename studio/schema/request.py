"""`GenerationRequest`: everything that changes pixels, and nothing else.

Bounds, defaults and help texts exist once, here. The page's sliders, REST validation, command-line flags and the
documentation derive from the model's fields. Optional features are typed *parts*: presence means on.
Where pictures go, how often previews are drawn and who asked is not part of a request: see `RunOptions`.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator

from studio.errors import InvalidRequest
from studio.schema.complaint import first_complaint
from studio.schema.plot import Plot
from studio.schema.source import Mask, Source

MAX_SEED = 2**32 - 1
MAX_STYLES = 50
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
MAX_CROP = 4096
"""Pixels that SDXL may be told were cut off."""

Emphasis = Literal["Original", "No norm", "Ignore", "None"]
RngSource = Literal["CPU", "GPU", "NV"]
PictureFormat = Literal["png", "jpg", "webp", "avif"]
AskedPrediction = Literal["Automatic", "epsilon", "v_prediction"]
NoiseSchedule = Literal["Default", "Zero Terminal SNR"]
VaeMethod = Literal["Full", "TAESD"]
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


Text = Annotated[str, AfterValidator(_printable)]
SideOrOff = Annotated[int, AfterValidator(_side_or_off)]
StyleName = Annotated[Text, Field(max_length=300)]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class SamplerOptions(_Frozen):
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


class Variation(_Frozen):
    """A second noise mixed into the start noise: pictures near the one of `seed`. At strength 0 it is as if it were not there."""

    seed: int = Field(
        -1, ge=-1, le=MAX_SEED, description="-1 draws a new one; picture i uses it + i, all the same seed"
    )
    strength: float = Field(
        0.0, ge=0, le=1, description="0 is the seed's own noise (no variation), 1 the variation seed's"
    )


class SeedResize(_Frozen):
    """The noise of another size in the middle of this one, for a similar picture at a new size. A side of 0 turns it off."""

    width: SideOrOff = Field(0, ge=0, le=2048, description="Width in pixels whose noise is kept; 0 is off")
    height: SideOrOff = Field(0, ge=0, le=2048, description="Height in pixels whose noise is kept; 0 is off")


class Refiner(_Frozen):
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


class HiresPass(_Frozen):
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


class BranchPoint(_Frozen):
    """Where a branch leaves another picture: it goes on from that one's latents after some of its steps. Without an origin it is off.

    The start belongs to the origin: size, seed, variation, seed resize, noise source and checkpoint are the same, and a branch is
    one picture. Everything else is the branch's own.
    """

    step: int = Field(1, ge=1, le=150, description="Steps of the origin that are kept, counted from 1")
    origin: Text = Field(
        "", max_length=MAX_ORIGIN, description="Generation text of the picture that is branched from; empty is off"
    )


Part = Variation | SeedResize | Refiner | HiresPass | Source | Mask | Plot | BranchPoint


class GenerationRequest(_Frozen):
    """One order for pictures. Immutable; equal requests give equal pixels on the same model, device and versions."""

    prompt: Text = Field("", max_length=MAX_PROMPT, description="What to paint; may be empty")
    negative_prompt: Text = Field("", max_length=MAX_PROMPT, description="What to keep out")
    styles: tuple[StyleName, ...] = Field(
        (), max_length=MAX_STYLES, description="Styles to merge into both prompts, by name, one after the other"
    )
    sampler: str = Field("DPM++ 2M", max_length=100, description="Sampling method")
    schedule: str = Field("Automatic", max_length=100, description="Schedule type; Automatic is the sampler's own")
    steps: int = Field(20, ge=1, le=150, description="Sampling steps")
    cfg_scale: float = Field(
        7.0, ge=0, le=100, description="CFG scale: how strictly the prompt is followed; 1 turns guidance off"
    )
    width: int = Field(512, ge=SMALLEST_SIDE, le=2048, description="Width in pixels; rounded down to a multiple of 8")
    height: int = Field(512, ge=SMALLEST_SIDE, le=2048, description="Height in pixels; rounded down to a multiple of 8")
    batch_count: int = Field(1, ge=1, le=100, description="How many batches, one after the other")
    batch_size: int = Field(1, ge=1, le=16, description="How many pictures at once")
    seed: int = Field(-1, ge=-1, le=MAX_SEED, description="-1 draws a new one; picture i uses seed + i")
    variation: Variation | None = Field(None, description="Variation seed and its strength; empty: none")
    seed_resize: SeedResize | None = Field(None, description="Resize seed from this width and height; empty: do not")
    model: str | None = Field(
        None, max_length=300, description="Checkpoint name, title or hash; empty: the selected one"
    )
    refiner: Refiner | None = Field(None, description="Finish with another checkpoint; empty: do not")
    hires: HiresPass | None = Field(None, description="Enlarge and paint again (hires. fix); empty: do not")
    source: Source | None = Field(None, description="Begin with a picture (img2img); empty: begin with noise")
    mask: Mask | None = Field(None, description="Paint only this part of that picture (inpainting); empty: all of it")
    vae: str = Field("Automatic", max_length=300, description="VAE file; Automatic uses the checkpoint's own")
    vae_encoder: VaeMethod = Field(
        "Full",
        description="What encodes an enlarged picture for the second pass: Full is the VAE, TAESD a tiny one, faster and less exact",
    )
    vae_decoder: VaeMethod = Field(
        "Full",
        description="What turns latents into the picture: Full is the VAE, TAESD a tiny one, faster and less exact",
    )
    clip_skip: int = Field(1, ge=1, le=12, description="Use the text encoder's n-th last layer")
    emphasis: Emphasis = Field("Original", description="How (word:1.2) weights act on the text embedding")
    old_prompt_editing: bool = Field(
        False, description="Prompt editing as before A1111 1.6.0: below 1 is a share of the steps, all else a step"
    )
    pad_conds: bool = Field(
        False,
        description="Fill the shorter of prompt and negative prompt up with empty chunks, so that both are computed at once",
    )
    pad_conds_v0: bool = Field(
        False,
        description="Fill up or cut the negative prompt to the prompt's length, as A1111 before 1.6.0 did with DDIM and PLMS",
    )
    prediction_type: AskedPrediction = Field(
        "Automatic", description="What the checkpoint predicts; Automatic believes the file, or judges its weights"
    )
    noise_schedule: NoiseSchedule = Field(
        "Default", description="Zero Terminal SNR ends in pure noise; Default does where the checkpoint says so"
    )
    downcast_alphas: bool = Field(
        False, description="Compute the noise levels in half precision, as A1111 before 1.7.0-225 did"
    )
    tiling: bool = Field(False, description="Paint a picture whose edges meet, so that it can be laid out like tiles")
    sdxl_crop_top: int = Field(
        0, ge=0, le=MAX_CROP, description="SDXL: pixels that the model is told were cut off above the picture"
    )
    sdxl_crop_left: int = Field(
        0, ge=0, le=MAX_CROP, description="SDXL: pixels that the model is told were cut off left of the picture"
    )
    deep_cache: int = Field(
        1,
        ge=1,
        le=5,
        description="DeepCache: compute the deep part of the U-Net at every n-th model call only; 1 is exact, 2 and 3 are faster",
    )
    token_merging_ratio: float = Field(
        0.0,
        ge=0,
        le=0.9,
        description="Token merging: this part of the finest detail is computed together with what is like it; 0 is exact, 0.5 is faster at large sizes",
    )
    rng: RngSource = Field(
        "CPU", description="Where noise is drawn: CPU is the same everywhere, NV equals an NVIDIA card"
    )
    sampler_options: SamplerOptions = Field(default_factory=SamplerOptions, description="Sampler parameters")
    branch: BranchPoint | None = Field(
        None, description="Go on from a step of another picture; empty: begin with noise"
    )

    plot: Plot | None = Field(None, description="The same picture over values on up to three axes; empty: one picture")

    @field_validator("variation", "seed_resize", "refiner", "hires", "source", "mask", "branch", "plot")
    @classmethod
    def _without_idle_parts(cls, part: Part | None) -> Part | None:
        """A part that changes no pixel is none, so that equal pictures come of equal requests."""
        if isinstance(part, Source | Mask) and not part.image:
            return None
        if isinstance(part, Plot) and part.x_type == part.y_type == part.z_type == "Nothing":
            return None
        if isinstance(part, BranchPoint) and not part.origin.strip():
            return None
        if isinstance(part, Refiner) and (part.checkpoint.strip() in ("", "None") or part.switch_at == 1):
            return None
        if isinstance(part, Variation) and part.strength == 0:
            return None
        if isinstance(part, HiresPass) and (part.scale, part.width, part.height, part.denoising_strength) == (
            1,
            0,
            0,
            0,
        ):
            return None
        return None if isinstance(part, SeedResize) and 0 in (part.width, part.height) else part

    @field_validator("mask")
    @classmethod
    def _masks_a_picture(cls, mask: Mask | None, info: ValidationInfo) -> Mask | None:
        """Refuse a mask of nothing. Fields are validated in their order, the picture before its mask."""
        if mask is not None and "source" in info.data and info.data["source"] is None:
            raise ValueError("a mask needs a picture that it belongs to: give source.image too")
        return mask

    @field_validator("source")
    @classmethod
    def _one_pass(cls, source: Source | None, info: ValidationInfo) -> Source | None:
        """Refuse a second pass over a picture that was given: enlarge the finished picture instead."""
        if source is not None and info.data.get("hires") is not None:
            raise ValueError("a picture to begin with (source) and a second pass (hires) do not go together")
        return source

    @property
    def picture_count(self) -> int:
        """Pictures the whole request makes."""
        return self.batch_count * self.batch_size


class RunOptions(_Frozen):
    """How a job is run and shown; never changes pixels."""

    preview_every: int = Field(1, ge=0, le=150, description="Draw a preview every n steps; 0 turns previews off")
    keep_latents: bool = Field(
        False, description="Keep the latents of every step: any can then be decoded, and branched from without delay"
    )
    save: bool = Field(True, description="Write the pictures to the outputs folder")
    grid: bool | None = Field(
        None, description="Write a grid when there are several pictures; empty: when the pictures are written"
    )
    output_dir: str | None = Field(
        None,
        max_length=1000,
        description="Folder for the pictures instead of the one in outputs; command line only",
    )
    template: Text = Field(
        "",
        max_length=MAX_PROMPT,
        description="What the prompt was drawn from, wildcards and choices; the picture keeps it",
    )
    negative_template: Text = Field("", max_length=MAX_PROMPT, description="The same for the negative prompt")
    file_format: PictureFormat | None = Field(None, description="Format of the files; empty: as the settings say")
    quality: int | None = Field(
        None, ge=1, le=100, description="Quality of JPEG, WebP and AVIF files; empty: as the settings say"
    )
    text_file: bool | None = Field(
        None, description="Write the infotext into a .txt beside each picture too; empty: as the settings say"
    )
    user: Text | None = Field(
        None, max_length=200, description="Name of the user in the infotext; empty: as the settings say"
    )


def make_request(data: dict[str, Any]) -> GenerationRequest:
    """Validate `data` into a request.

    Raises `InvalidRequest` naming the first bad field, its value and what is allowed.
    """
    try:
        return GenerationRequest.model_validate(data)
    except ValidationError as error:
        raise invalid_request(error) from None


def invalid_request(error: ValidationError) -> InvalidRequest:
    """The first complaint of a pydantic error, as one sentence with field, value and bounds."""
    complaint = first_complaint(error)
    return InvalidRequest(complaint.sentence("request"), field=complaint.field or "request")

"""`GenerationRequest`: everything that changes pixels, and nothing else.

Bounds, defaults and help texts exist once, here. The page's sliders, REST validation, command-line flags and the
documentation derive from the model's fields. Optional features are typed *parts*: presence means on.
Where pictures go, how often previews are drawn and who asked is not part of a request: see `RunOptions`.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, ValidationError, ValidationInfo, field_validator

from studio.errors import InvalidRequest
from studio.schema.complaint import first_complaint
from studio.schema.faces import DEFAULT_WEIGHT
from studio.schema.parts import (
    MAX_PROMPT,
    MAX_SEED,
    MAX_TEXT_ENCODERS,
    SMALLEST_SIDE,
    BranchPoint,
    Frozen,
    HiresPass,
    Refiner,
    SamplerOptions,
    SeedResize,
    Text,
    TextEncoders,
    Variation,
)
from studio.schema.plot import Plot
from studio.schema.source import Mask, Source
from studio.schema.upscale import SdUpscale

MAX_STYLES = 50
MAX_CROP = 4096
"""Pixels that SDXL may be told were cut off."""

AskedPrediction = Literal["Automatic", "epsilon", "v_prediction"]
NoiseSchedule = Literal["Default", "Zero Terminal SNR"]
VaeMethod = Literal["Full", "TAESD"]
Fp8Weight = Literal["Disable", "Enable for SDXL", "Enable"]
Emphasis = Literal["Original", "No norm", "Ignore", "None"]
RngSource = Literal["CPU", "GPU", "NV"]
PictureFormat = Literal["png", "jpg", "webp", "avif"]
StyleName = Annotated[Text, Field(max_length=300)]

Part = Variation | SeedResize | Refiner | HiresPass | Source | Mask | SdUpscale | Plot | BranchPoint


class GenerationRequest(Frozen):
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
    sd_upscale: SdUpscale | None = Field(
        None, description="Enlarge that picture and paint it tile by tile (SD upscale); empty: do not"
    )
    vae: str = Field("Automatic", max_length=300, description="VAE file; Automatic uses the checkpoint's own")
    text_encoders: TextEncoders = Field(
        (),
        max_length=MAX_TEXT_ENCODERS,
        description="Text encoders from files of their own, by name, in place of the checkpoint's; SDXL has two",
    )
    vae_encoder: VaeMethod = Field(
        "Full",
        description="What encodes an enlarged picture for the second pass: Full is the VAE, TAESD a tiny one, faster and less exact",
    )
    vae_decoder: VaeMethod = Field(
        "Full",
        description="What turns latents into the picture: Full is the VAE, TAESD a tiny one, faster and less exact",
    )
    hypernetwork: Text = Field("", max_length=300, description="Hypernetwork that acts on attention; empty: none")
    hypernetwork_strength: float = Field(
        1.0, ge=0, le=1, description="How strongly the hypernetwork acts; 0 is not at all"
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
    fp8_weight: Fp8Weight = Field(
        "Disable",
        description="FP8 weight: keep the weights in eight bits, which takes half the memory and is less exact",
    )
    cache_fp16_weight: bool = Field(
        False,
        description="With FP8 weight: keep half-precision copies too, so that LoRAs are merged before weights are rounded",
    )
    face_restoration: str = Field(
        "",
        max_length=300,
        description="Restore the faces of the finished picture with this network: CodeFormer, GFPGAN, or a file's name; empty: do not",
    )
    code_former_weight: float = Field(
        DEFAULT_WEIGHT,
        ge=0,
        le=1,
        description="Of CodeFormer: 0 has the strongest effect and may change who it is, 1 stays nearest to the picture",
    )
    rng: RngSource = Field(
        "CPU", description="Where noise is drawn: CPU is the same everywhere, NV equals an NVIDIA card"
    )
    sampler_options: SamplerOptions = Field(default_factory=SamplerOptions, description="Sampler parameters")
    branch: BranchPoint | None = Field(
        None, description="Go on from a step of another picture; empty: begin with noise"
    )

    plot: Plot | None = Field(None, description="The same picture over values on up to three axes; empty: one picture")

    @field_validator("variation", "seed_resize", "refiner", "hires", "source", "mask", "sd_upscale", "branch", "plot")
    @classmethod
    def _without_idle_parts(cls, part: Part | None) -> Part | None:
        """A part that changes no pixel is none, so that equal pictures come of equal requests."""
        if isinstance(part, Source | Mask) and not part.image:
            return None
        if isinstance(part, SdUpscale) and not part.upscaler.strip():
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

    @field_validator("hypernetwork", "face_restoration")
    @classmethod
    def _without_none(cls, name: str) -> str:
        """A1111's name of nothing is "None"."""
        return "" if name.strip() in ("", "None") else name.strip()

    @field_validator("mask")
    @classmethod
    def _masks_a_picture(cls, mask: Mask | None, info: ValidationInfo) -> Mask | None:
        """Refuse a mask of nothing. Fields are validated in their order, the picture before its mask."""
        if mask is not None and "source" in info.data and info.data["source"] is None:
            raise ValueError("a mask needs a picture that it belongs to: give source.image too")
        return mask

    @field_validator("sd_upscale")
    @classmethod
    def _enlarges_a_whole_picture(cls, part: SdUpscale | None, info: ValidationInfo) -> SdUpscale | None:
        """Refuse to enlarge nothing, or a picture with a mask."""
        if part is not None and "source" in info.data and info.data["source"] is None:
            raise ValueError("painting in tiles (SD upscale) needs a picture that is enlarged: give source.image too")
        if part is not None and info.data.get("mask") is not None:
            raise ValueError(
                "painting in tiles (SD upscale) and a mask do not go together: enlarge the finished picture"
            )
        return part

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
        return self.batch_count * self.pictures_at_once

    @property
    def pictures_at_once(self) -> int:
        """Pictures a batch makes: one where it is painted in tiles."""
        return 1 if self.sd_upscale else self.batch_size


class RunOptions(Frozen):
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
    styles: tuple[Text, ...] = Field(
        (), max_length=MAX_STYLES, description="The styles that the prompt has in it; file names may tell them"
    )
    style_prompts: tuple[Text, ...] = Field((), max_length=MAX_STYLES, description="What they added to the prompt")
    task_id: Text = Field(
        "",
        max_length=200,
        description="What A1111's progress route calls the job: its `force_task_id`; empty: by its number",
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
        raise invalid_request(error, GenerationRequest) from None


def invalid_request(error: ValidationError, model: type[BaseModel]) -> InvalidRequest:
    """The first complaint of pydantic about what was to be a `model`, as one sentence with field, value and bounds."""
    complaint = first_complaint(error, model)
    return InvalidRequest(complaint.sentence("request"), field=complaint.field or "request")

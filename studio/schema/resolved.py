"""`ResolvedRequest`: a request with every question answered. Engine, infotext and cache keys read only this.

Seeds are fixed, names and hashes looked up, prompts parsed, sizes rounded; there is no -1 and no "Automatic" left to
interpret, except as the label that A1111's infotext shows.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from studio.schema.faces import FacePlan
from studio.schema.models import ModelInfo
from studio.schema.parts import RefinerPasses, SamplerOptions, SeedResize
from studio.schema.plot import Plot
from studio.schema.request import AskedPrediction, Emphasis, Fp8Weight, NoiseSchedule, RngSource, RunOptions
from studio.schema.source import InpaintArea, MaskedContent, ResizeMode


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class LoraUse(_Frozen):
    """One `<lora:name:te:unet>` tag with its file found."""

    name: str = Field(description="As written in the tag")
    model: ModelInfo
    te_weight: float = Field(description="At the first step")
    unet_weight: float = Field(description="At the first step")
    unet_course: tuple[tuple[float, float], ...] = Field(
        (), description="Where the U-Net's weight changes: (weight, step) points, see `studio.prompt.networks.Course`"
    )


class HypernetworkUse(_Frozen):
    """A hypernetwork that acts in a pass, with its file found."""

    name: str = Field(description="As written in the tag; of the request's own the name in the library")
    model: ModelInfo
    multiplier: float
    tagged: bool = Field(description="Whether a tag of the prompt asks for it; else a field of the request does")


class EmbeddingUse(_Frozen):
    """An embedding that a prompt names, with its file found."""

    name: str = Field(description="The word that stands for it")
    model: ModelInfo


Padding = Literal["off", "chunks", "v0"]
"""How prompt and negative prompt of different lengths are brought together; see `studio.engine.padding`."""

WeightedText = tuple[tuple[str, float], ...]
"""(text, weight) pairs; the pair ("BREAK", -1) starts a new 75-token chunk (A1111's convention)."""


class PromptBranch(_Frozen):
    """One part of a prompt put together with AND, as it reads over the sampler's model calls.

    `texts` are its wordings, each once. `stretches` are (last call, index into `texts`) in rising order; see
    `studio.prompt.active_stretch`.
    """

    texts: tuple[WeightedText, ...]
    stretches: tuple[tuple[int, int], ...] = ((0, 0),)
    weight: float = 1.0


class PromptPlan(_Frozen):
    """A prompt taken apart: `text` is the final prompt with its LoRA tags, as the infotext shows it; `branches` what is encoded of it."""

    text: str
    branches: tuple[PromptBranch, ...] = Field(min_length=1)


class VariationPlan(_Frozen):
    """The noise of `seeds`, one per picture, mixed into the start noise with `strength` above 0, up to 1."""

    seeds: tuple[int, ...]
    strength: float


class RefinerPlan(_Frozen):
    """The checkpoint that finishes: from model call `from_call` on (counted from 0), or, where that is None, from the noise level on
    that lies `switch_at` of the way down the timesteps."""

    model: ModelInfo
    switch_at: float
    from_call: int | None = None


class HiresPlan(_Frozen):
    """The second pass. Sizes are pixels, multiples of 8; what it shares with the first pass is not repeated here.

    The picture is enlarged to `covering`, (width, height), and what is over `width` x `height` is cut off evenly.
    """

    scale: float | None = Field(description="What was asked for; None where a size was")
    resize: tuple[int, int] | None = Field(description="The size that was asked for, a side of 0 left open; else None")
    width: int
    height: int
    covering: tuple[int, int]
    upscaler: str = Field(description="Name in `studio.upscalers.UPSCALERS`, or of `upscaler_model`")
    upscaler_model: ModelInfo | None = Field(None, description="The file, where the upscaler is a model")
    model: ModelInfo = Field(description="That of the first pass, unless another one paints this one")
    steps: int = Field(description="How many are run")
    steps_given: bool = Field(description="Whether the request says how many; the infotext then does")
    denoising_strength: float = Field(description="0 is no painting, only enlarging")
    sampler: str
    schedule: str = Field(description="Label of the schedule that runs, never Automatic")
    cfg_scale: float
    positive: PromptPlan
    negative: PromptPlan
    loras: tuple[LoraUse, ...]
    hypernetworks: tuple[HypernetworkUse, ...] = Field((), description="In the order in which they act")
    vae: ModelInfo | None = Field(None, description="A separate VAE of this pass; None is its checkpoint's own")
    text_encoders: tuple[ModelInfo, ...] = Field((), description="In place of its checkpoint's own")
    embeddings: tuple[EmbeddingUse, ...] = Field((), description="Those of this pass's prompts that fit `model`")
    refiner: RefinerPlan | None = Field(None, description="None: the checkpoint paints this pass to the end")
    refiner_passes: RefinerPasses = "second pass"
    padding: Padding = Field("off", description="As in the first pass, by the lengths of this one's prompts")
    token_merging_ratio: float = 0.0
    extra_noise: float = 0.0


class InitImage(_Frozen):
    """A kept picture: a PNG file, RGB, or grey for a mask. Sizes in pixels."""

    name: str
    path: str
    width: int
    height: int
    md5: str = Field(description="Of the pixels' bytes, which is what A1111 writes as `Init image hash`")


class SourcePlan(_Frozen):
    """The picture that a pass begins with. The rest is as in `studio.schema.source.Source`."""

    image: InitImage
    denoising_strength: float
    resize_mode: ResizeMode
    exact_steps: bool
    noise_multiplier: float
    image_cfg_scale: float


class MaskPlan(_Frozen):
    """Where that picture is painted anew. As in `studio.schema.source.Mask`, with the picture found."""

    image: InitImage
    blur: int
    inverted: bool
    content: MaskedContent
    area: InpaintArea
    padding: int
    rounding: bool
    conditioning_weight: float


class SdUpscalePlan(_Frozen):
    """The picture to begin with, enlarged and painted in tiles. Sizes are (width, height) in pixels, multiples of 8."""

    upscaler: str = Field(description="As in `HiresPlan`")
    upscaler_model: ModelInfo | None = None
    scale_factor: float
    overlap: int
    width: int = Field(description="Of the enlarged picture")
    height: int
    tile: tuple[int, int] = Field(description="No larger than the picture; the size of the request itself")


class PlotPlan(_Frozen):
    """All pictures of a plot in reading order: along X, then Y, then Z.

    `asked` is the part of the request; `labels` are the values of each axis as they stand beside the pictures, one "" where there is
    nothing on it.
    """

    asked: Plot
    labels: tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]
    cells: tuple[ResolvedRequest, ...] = Field(min_length=1)


def in_eight_bits(asked: Fp8Weight, model: ModelInfo) -> bool:
    """Whether the weights of a checkpoint are kept as float8. To A1111 the refiner is SDXL too."""
    return asked == "Enable" or (asked == "Enable for SDXL" and model.family in ("sdxl", "sdxl_refiner"))


class BranchPlan(_Frozen):
    """Where a branch begins: after `step` steps of `origin`, which is one picture. `text` is the origin's infotext as it was given."""

    step: int
    origin: ResolvedRequest
    text: str


class ResolvedRequest(_Frozen):
    """Everything an engine needs. All values concrete."""

    positive: PromptPlan
    negative: PromptPlan
    loras: tuple[LoraUse, ...]
    hypernetworks: tuple[HypernetworkUse, ...] = Field(
        (), description="Of the first pass, in the order in which they act"
    )
    embeddings: tuple[EmbeddingUse, ...] = Field(
        (), description="Of the first pass, each once, in the order the prompts name them"
    )
    model: ModelInfo
    refiner: RefinerPlan | None = Field(None, description="None: `model` paints to the end")
    vae: ModelInfo | None = Field(description="A separate VAE; None is that of the checkpoint that paints")
    text_encoders: tuple[ModelInfo, ...] = Field(
        (), description="From files of their own, in the order of those of `model` whose places they take"
    )
    tiny_encoder: str | None = Field(
        None, description="File of TAESD's encoder; None where the VAE encodes, or nothing is encoded"
    )
    tiny_decoder: str | None = Field(None, description="File of TAESD's decoder; None where the VAE decodes")
    sampler: str = Field(description="A1111 display name, known to the table")
    schedule: str = Field(description="Label of the schedule that runs, never Automatic")
    schedule_label: str = Field(
        description="Label the infotext shows: the running one, or Automatic where the sampler has no default"
    )
    sampler_options: SamplerOptions
    steps: int
    cfg_scale: float
    width: int = Field(description="Pixels, a multiple of 8")
    height: int = Field(description="Pixels, a multiple of 8")
    batch_size: int
    batch_count: int
    seeds: tuple[int, ...] = Field(description="One per picture, batch_count * pictures_at_once of them; modulo 2**32")
    variation: VariationPlan | None = Field(None, description="None is the seeds' own noise")
    seed_resize: SeedResize | None = Field(None, description="Pixels, multiples of 8; None draws at the picture's size")
    clip_skip: int
    emphasis: Emphasis
    old_prompt_editing: bool = Field(False, description="How `branches` were read; the infotext tells it")
    padding: Padding = Field("off", description="Off also where the prompts are equally long throughout")
    prediction_type: AskedPrediction = Field("Automatic", description="Automatic is what the loaded checkpoint says")
    noise_schedule: NoiseSchedule = "Default"
    downcast_alphas: bool = Field(False, description="Noise levels in half precision")
    tiling: bool = Field(False, description="The edges of the picture meet")
    sdxl_crop_top: int = Field(0, description="Pixels; 0 for families that are not told")
    sdxl_crop_left: int = Field(0, description="Pixels; 0 for families that are not told")
    deep_cache: int = Field(1, description="Every n-th call of the U-Net is computed as a whole")
    token_merging_ratio: float = Field(
        0.0, description="Part of the tokens that are merged; see `studio.engine.token_merging`"
    )
    extra_noise: float = Field(0.0, description="Beyond the first noise level of a pass that goes on from latents")
    fp8_weight: Fp8Weight = Field("Disable", description="As asked for; Disable also where it concerns no checkpoint")
    cache_fp16_weight: bool = Field(False, description="Only with such weights")
    rng: RngSource
    faces: FacePlan | None = Field(None, description="None leaves faces as they were painted")
    hires: HiresPlan | None = Field(None, description="None: the first pass is all")
    source: SourcePlan | None = Field(None, description="None begins with noise")
    mask: MaskPlan | None = Field(None, description="None paints the whole picture; only with a source")
    sd_upscale: SdUpscalePlan | None = Field(
        None, description="None is one painting; else `batch_size` are tiles, and only with a source"
    )
    branch: BranchPlan | None = Field(None, description="None begins with the source, or noise")
    plot: PlotPlan | None = Field(
        None, description="None is one picture, or batches; else everything beside it is that of the first cell"
    )
    notes: tuple[str, ...] = Field((), description="Sentences for the user about what was not done as written")
    options: RunOptions = Field(default_factory=RunOptions)

    @property
    def picture_count(self) -> int:
        """Pictures the whole job makes."""
        return len(self.plot.cells) if self.plot else len(self.seeds)

    def picture(self, index: int) -> tuple[ResolvedRequest, int]:
        """The request that picture `index` of the job comes of, and its number there."""
        return (self.plot.cells[index], 0) if self.plot else (self, index)

    @property
    def kind(self) -> Literal["txt2img", "img2img"]:
        """What A1111 calls it."""
        return "img2img" if self.source else "txt2img"

    @property
    def final_size(self) -> tuple[int, int]:
        """(width, height) of the finished picture; one of which only the masked part was painted keeps its own."""
        if self.sd_upscale:
            return (self.sd_upscale.width, self.sd_upscale.height)
        if self.source and self.mask and self.mask.area == "Only masked":
            return (self.source.image.width, self.source.image.height)
        return (self.hires.width, self.hires.height) if self.hires else (self.width, self.height)

    @property
    def any_refiner(self) -> RefinerPlan | None:
        """The refiner, whichever pass it finishes; its `from_call` is that of the pass."""
        return self.refiner or (self.hires.refiner if self.hires else None)

    @property
    def all_loras(self) -> tuple[LoraUse, ...]:
        """The LoRAs of both passes, each use once."""
        more = self.hires.loras if self.hires else ()
        return (*self.loras, *(use for use in more if use not in self.loras))

    @property
    def all_hypernetworks(self) -> tuple[HypernetworkUse, ...]:
        """The hypernetworks of both passes, each use once."""
        more = self.hires.hypernetworks if self.hires else ()
        return (*self.hypernetworks, *(use for use in more if use not in self.hypernetworks))

    @property
    def own_hypernetwork(self) -> HypernetworkUse | None:
        """The one that a field of the request asks for, in whichever pass it acts; None where it acts in none."""
        return next((use for use in self.all_hypernetworks if not use.tagged), None)

    @property
    def all_embeddings(self) -> tuple[EmbeddingUse, ...]:
        """The embeddings of both passes, each use once."""
        more = self.hires.embeddings if self.hires else ()
        return (*self.embeddings, *(use for use in more if use not in self.embeddings))

    @property
    def final_vae(self) -> ModelInfo | None:
        """The separate VAE of the pass that finishes the picture."""
        return self.hires.vae if self.hires else self.vae

    @property
    def all_vaes(self) -> tuple[ModelInfo, ...]:
        """The separate VAEs of both passes, each once."""
        found = (self.vae, self.final_vae)
        return tuple({vae.path: vae for vae in found if vae}.values())

    @property
    def all_text_encoders(self) -> tuple[ModelInfo, ...]:
        """The separate text encoders of both passes, each once."""
        found = (*self.text_encoders, *(self.hires.text_encoders if self.hires else ()))
        return tuple({encoder.path: encoder for encoder in found}.values())

    @property
    def upscaler_models(self) -> tuple[ModelInfo, ...]:
        """The files of upscalers that enlarge."""
        parts = (self.hires, self.sd_upscale)
        return tuple(part.upscaler_model for part in parts if part and part.upscaler_model)

    @property
    def pictures_at_once(self) -> int:
        """Pictures a batch makes: one where it is painted in tiles."""
        return 1 if self.sd_upscale else self.batch_size

    @property
    def checkpoints(self) -> tuple[ModelInfo, ...]:
        """All that paint, each once, in the order of their first turns; that of the first pass is the first."""
        passes: list[ResolvedRequest | HiresPlan] = [self]
        passes += [self.hires] if self.hires and self.hires.denoising_strength else []
        models = [model for part in passes for model in (part.model, part.refiner and part.refiner.model) if model]
        return tuple({model.path: model for model in models}.values())

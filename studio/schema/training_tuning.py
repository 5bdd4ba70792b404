"""Settings of the methods that train a checkpoint further on captioned pictures: ``lora``, ``text_encoder`` and ``full``."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from studio.schema.complaint import matching
from studio.schema.training_data import DatasetSettings
from studio.schema.training_parts import MethodSettings, Part

OptimizerName = Literal["adamw", "adamw-8bit", "lion", "adafactor", "prodigy"]
RateName = Literal["constant", "linear", "cosine", "cosine-restarts"]
NumberFormat = Literal["fp16", "bf16", "fp32"]
Layout = Literal["file", "folder", "both"]
LayerChoice = Literal["attention", "attention+feed-forward", "attention+feed-forward+conv", "attention+conv"]


class NetworkPart(Part):
    """The adapter: which layers learn, and how much room each has."""

    kind: Literal["lora", "dora"] = Field("lora", description="dora also learns the length of every row of the weights")
    layers: LayerChoice = Field(
        "attention+feed-forward",
        description="Layers of the U-Net that learn: queries, keys, values and outputs of attention; all linear layers and projections of "
        "the transformers; those and the residual blocks (LoCon); all of these but the feed-forward layers",
    )
    cross_attention: bool = Field(
        True,
        description="Whether the layers that listen to the prompt are among them; without them words are read as before, which suits a style",
    )
    rank: int = Field(16, ge=1, le=1024, description="Rank of the difference a layer can learn")
    alpha: float | None = Field(
        None, gt=0, le=4096, description="The difference is scaled by alpha / rank; left out: the rank"
    )
    conv_rank: int | None = Field(None, ge=1, le=1024, description="Rank in residual blocks; left out: the same rank")
    conv_alpha: float | None = Field(
        None, gt=0, le=4096, description="Alpha in residual blocks; left out: the same alpha"
    )
    dropout: float = Field(0.0, ge=0, lt=1, description="Share of the adapter's inputs that is left out at each step")

    @property
    def scale_alpha(self) -> float:
        """Alpha of all layers but the residual blocks."""
        return float(self.rank if self.alpha is None else self.alpha)

    @property
    def convolutions(self) -> tuple[int, float]:
        """Rank and alpha in residual blocks."""
        rank = self.conv_rank or self.rank
        if self.conv_alpha is not None:
            return rank, self.conv_alpha
        return rank, float(rank) if self.conv_rank and self.alpha is None else self.scale_alpha


class OptimizerPart(Part):
    """The optimizer and what is done to gradients."""

    name: OptimizerName = Field(
        "adamw", description="prodigy needs the package prodigyopt, adamw-8bit bitsandbytes and CUDA"
    )
    learning_rate: float = Field(
        1e-4, gt=0, le=10, description="Peak learning rate; 1 for prodigy, which finds its own"
    )
    text_rate_factor: float = Field(
        0.5, gt=0, le=10, description="Text encoder's learning rate relative to the U-Net's; prodigy has one for both"
    )
    weight_decay: float = Field(0.01, ge=0, le=1, description="Weight decay")
    clip_norm: float = Field(1.0, gt=0, le=1000, description="Largest gradient norm")
    accumulate: int = Field(1, ge=1, le=1024, description="Batches whose gradients make one step")


class RatePart(Part):
    """The learning rate over the run."""

    name: RateName = Field("constant", description="Course of the rate after the warm-up")
    warmup: float = Field(0.05, ge=0, le=1, description="Share of the steps in which the rate rises to its peak")
    cycles: int = Field(1, ge=1, le=100, description="Cosines of cosine-restarts")
    final: float = Field(0.0, ge=0, le=1, description="What is left of the peak rate at the end of linear and cosine")


class LossPart(Part):
    """The loss."""

    min_snr_gamma: float = Field(5.0, ge=0, le=100, description="Weigh timesteps by min-SNR with this gamma; 0 is off")
    snr_mean: float | None = Field(
        None,
        ge=-20,
        le=20,
        description="Draw timesteps by their log signal-to-noise ratio, normally distributed about this mean; left out: all alike",
    )
    snr_deviation: float = Field(2.0, gt=0, le=20, description="Standard deviation of that")
    noise_offset: float = Field(
        0.0, ge=0, le=1, description="Noise that is equal over the picture, for darker and lighter pictures"
    )


class ValidationPart(Part):
    """The loss on pictures that are kept back, at fixed noise and timesteps."""

    share: float = Field(0.05, ge=0, le=0.5, description="Share of the pictures kept back, at least one; 0 is off")
    every: int = Field(100, ge=1, le=1_000_000, description="Steps between two validations")
    draws: int = Field(4, ge=1, le=100, description="Timesteps that each picture is looked at")
    patience: int = Field(
        0, ge=0, le=1000, description="End after so many validations without a better one, and take the best; 0 is off"
    )


class SamplesPart(Part):
    """Pictures painted while training, always with the same prompts and seeds."""

    prompts: tuple[str, ...] = Field((), max_length=32, description="One picture for each; none: no pictures")
    negative_prompt: str = Field("", description="What to keep out")
    seed: int = Field(1, ge=0, lt=2**32, description="Seed of the first picture; they count up")
    every: int = Field(
        250, ge=1, le=1_000_000, description="Steps between two rounds; the first is painted before training"
    )
    sampler: str = Field("DPM++ 2M", description="Sampling method")
    schedule: str = Field("Automatic", description="Schedule type")
    steps: int = Field(20, ge=1, le=150, description="Sampling steps")
    cfg_scale: float = Field(7.0, ge=0, le=100, description="CFG scale")


FILE_NAME = matching(
    "([A-Za-z0-9][A-Za-z0-9._ -]{0,99})?",
    "a file's name has letters, digits, '.', '_', '-' and spaces, 100 at most, and begins with a letter or a digit",
)


class OutputPart(Part):
    """The finished file."""

    name: Annotated[str, FILE_NAME] = Field("", description="File name without suffix; empty: the run's name")
    number_format: NumberFormat = Field("fp16", description="Number format of the weights in the file")


class TuningMethod(MethodSettings):
    """What the methods share."""

    steps_field = ("steps",)
    on_accelerator = True

    model: str = Field("sprout-v1", min_length=1, description="Checkpoint to start from: name, title or hash")
    data: DatasetSettings
    steps: int = Field(
        1000, ge=1, le=10_000_000, description="Optimizer steps; may be changed between two sittings of a run"
    )
    batch: int = Field(1, ge=1, le=1024, description="Pictures at once, over all processes together")
    optimizer: OptimizerPart = OptimizerPart()
    rate: RatePart = RatePart()
    loss: LossPart = LossPart()
    ema_decay: float = Field(0.0, ge=0, lt=1, description="Decay of the averaged weights that are saved; 0 is off")
    gradient_checkpointing: bool = Field(False, description="Less memory for a third more time")
    validation: ValidationPart = ValidationPart()
    samples: SamplesPart = SamplesPart()
    output: OutputPart = OutputPart()


class LoraMethod(TuningMethod):
    """Train a LoRA: low-rank differences of the U-Net's weights, and if wanted of the text encoders'."""

    kind: Literal["lora"] = "lora"
    network: NetworkPart = NetworkPart()
    text_encoder: bool = Field(False, description="The text encoders learn too")


class TextEncoderMethod(TuningMethod):
    """Train only the text encoders, through the loss of the frozen U-Net."""

    kind: Literal["text_encoder"] = "text_encoder"
    result: Literal["lora", "checkpoint"] = Field(
        "lora", description="A LoRA, or all of their weights in a new checkpoint"
    )
    layout: Layout = Field("file", description="Of a checkpoint: one .safetensors file, a diffusers folder, or both")
    network: NetworkPart = NetworkPart()


class FullMethod(TuningMethod):
    """Train all weights of the U-Net and write a new checkpoint."""

    kind: Literal["full"] = "full"
    layout: Layout = Field("file", description="One .safetensors file, a diffusers folder, or both")

    @model_validator(mode="after")
    def _gentle(self) -> FullMethod:
        if self.optimizer.name != "prodigy" and self.optimizer.learning_rate > 0.01:
            raise ValueError(f"a learning rate of {self.optimizer.learning_rate} destroys a whole U-Net; at most 0.01")
        return self

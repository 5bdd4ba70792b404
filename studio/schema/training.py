"""What a training run is told: one frozen, validated object, read from a TOML recipe.

``method`` is a tagged union by its ``kind``; each method brings its own settings. Bounds and help texts exist here only.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, model_validator

from studio.errors import SettingsError
from studio.schema.complaint import first_complaint, matching
from studio.schema.training_data import AUTO
from studio.schema.training_parts import MethodSettings
from studio.schema.training_parts import Part as _Part
from studio.schema.training_tuning import FullMethod, LoraMethod, TextEncoderMethod

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


RUN_NAME = matching(
    "[a-z0-9][a-z0-9._-]{0,63}",
    "a run's name has small letters, digits, '.', '_' and '-', 64 at most, and begins with a letter or a digit",
)


class SceneData(_Part):
    """Drawn, captioned scenes (``studio.training.data.scenes``)."""

    pictures: int = Field(60_000, ge=8, le=2_000_000, description="Scenes in the training pool, drawn and encoded once")
    captions: int = Field(4, ge=1, le=16, description="Captions written for each scene; each pass picks one")
    side: int = Field(128, ge=32, le=512, multiple_of=16, description="Picture width and height in pixels")


class ScratchData(SceneData):
    """Drawn scenes, or a data set instead of them."""

    path: str = Field(
        "",
        max_length=4096,
        description="Data set that is learned from: absolute, or relative to the data folder; empty: drawn scenes",
    )
    format: str = Field(
        AUTO, max_length=40, description="How the data set is stored; auto looks at the folder (docs/training.md)"
    )
    pictures: int = Field(
        60_000,
        ge=8,
        le=2_000_000,
        description="Pictures in the training pool, encoded once; of a data set at most so many",
    )
    captions: int = Field(4, ge=1, le=16, description="Captions of each picture; each pass picks one")


class AutoencoderPart(_Part):
    """The VAE (diffusers ``AutoencoderKL``): its shape and its training."""

    channels: tuple[int, ...] = Field(
        (16, 32, 64),
        min_length=2,
        max_length=5,
        description="Channels of each level; each level after the first halves the size",
    )
    latent_channels: int = Field(4, ge=1, le=64, description="Channels of the latent")
    pictures: int = Field(8_000, ge=8, le=200_000, description="Pictures that crops are taken from")
    crop: int = Field(64, ge=16, le=512, multiple_of=16, description="Side of the training crops in pixels")
    steps: int = Field(3_000, ge=1, le=1_000_000, description="Optimizer steps")
    batch: int = Field(16, ge=1, le=1024, description="Crops a step")
    learning_rate: float = Field(1.5e-3, gt=0, le=0.1, description="Peak learning rate of AdamW")
    kl_weight: float = Field(3e-4, ge=0, le=1, description="Weight of the KL term, per latent value")


class TextPart(_Part):
    """The text encoder (``CLIPTextModel``), trained together with the U-Net."""

    width: int = Field(128, ge=16, le=1024, multiple_of=8, description="Width of the token vectors")
    layers: int = Field(3, ge=1, le=24, description="Transformer layers")
    heads: int = Field(4, ge=1, le=16, description="Attention heads")
    learning_rate_factor: float = Field(
        1.0, gt=0, le=10, description="Text encoder's learning rate relative to the U-Net's"
    )
    reading_steps: int = Field(
        700, ge=1, le=100_000, description="Steps that teach the encoder to name what captions name, before the U-Net"
    )
    reading_batch: int = Field(128, ge=1, le=8192, description="Captions a step of that")
    reading_rate: float = Field(2e-3, gt=0, le=0.1, description="Peak learning rate of that")
    short_length: int = Field(32, ge=8, le=77, description="Tokens a caption is cut to in the first part of training")
    long_from: float = Field(
        0.85, ge=0, le=1, description="Share of the training after which all 77 positions are trained"
    )


class UNetPart(_Part):
    """The U-Net (``UNet2DConditionModel``)."""

    channels: tuple[int, ...] = Field(
        (32, 48, 128, 192), min_length=2, max_length=5, description="Channels of each level; each a multiple of 8"
    )
    attention: tuple[bool, ...] = Field((False, False, True, True), description="Which levels attend to the text")
    layers: int = Field(1, ge=1, le=4, description="Residual blocks a level")

    @model_validator(mode="after")
    def _matching(self) -> UNetPart:
        if len(self.attention) != len(self.channels):
            raise ValueError(
                f"attention names {len(self.attention)} levels, channels {len(self.channels)}; they must agree"
            )
        if odd := [width for width in self.channels if width % 8]:
            raise ValueError(f"channels {odd} are no multiples of 8")
        return self


class DiffusionPart(_Part):
    """The training of U-Net and text encoder: v-prediction with log-SNR drawn from a normal distribution."""

    steps: int = Field(
        10_000, ge=1, le=10_000_000, description="Optimizer steps; may be changed between two sittings of a run"
    )
    batch: int = Field(32, ge=1, le=4096, description="Latents a step")
    learning_rate: float = Field(1.1e-3, gt=0, le=0.1, description="Peak learning rate of AdamW")
    warmup: int = Field(200, ge=0, le=100_000, description="Steps of linear warm-up")
    decay_share: float = Field(
        0.35, ge=0, le=1, description="Share of the steps, at the end, in which the rate falls to zero along a cosine"
    )
    weight_decay: float = Field(0.01, ge=0, le=1, description="AdamW's weight decay")
    clip_norm: float = Field(1.0, gt=0, le=1000, description="Largest gradient norm")
    snr_mean: float = Field(
        -2.6, ge=-20, le=20, description="Mean of the log signal-to-noise ratio that timesteps are drawn by"
    )
    snr_mean_late: float = Field(
        -1.2, ge=-20, le=20, description="The mean in the later part of training, when outlines are to be learned"
    )
    late_from: float = Field(0.5, ge=0, le=1, description="Share of the steps after which the later mean is used")
    snr_deviation: float = Field(1.8, gt=0, le=20, description="Its standard deviation")
    uniform_share: float = Field(0.05, ge=0, le=1, description="Share of timesteps drawn uniformly instead")
    caption_dropout: float = Field(
        0.1, ge=0, le=1, description="Share of captions replaced by the empty one, for classifier-free guidance"
    )
    unknown_words: float = Field(
        0.08,
        ge=0,
        le=1,
        description="Share of captions into which an unknown word is put, so that it learns to do no harm",
    )
    ema_decay: float = Field(0.985, ge=0, lt=1, description="Decay of the averaged weights, applied every fourth step")
    beta_end: float = Field(0.020, gt=0, lt=1, description="End of the scaled-linear noise schedule")


class ScratchMethod(MethodSettings):
    """Train VAE, text encoder and U-Net from nothing and write a diffusers folder."""

    steps_field = ("diffusion", "steps")

    kind: Literal["scratch"] = "scratch"
    start: str = Field(
        "",
        description="Diffusers folder, relative to the repository, that training goes on from: its VAE is kept, its U-Net and text "
        "encoder learn on; empty: all three from nothing",
    )
    data: ScratchData = ScratchData()
    autoencoder: AutoencoderPart = AutoencoderPart()
    text: TextPart = TextPart()
    unet: UNetPart = UNetPart()
    diffusion: DiffusionPart = DiffusionPart()


class JudgePart(_Part):
    """The judge's drawings and their number."""

    pictures: int = Field(24_000, ge=8, le=1_000_000, description="Scenes in the training pool, drawn once")
    unseen: int = Field(2_000, ge=8, le=100_000, description="Further scenes that the finished judge is tested on")
    side: int = Field(128, ge=32, le=512, multiple_of=16, description="Picture width and height in pixels")


class JudgeMethod(MethodSettings):
    """Train a small classifier that names what a drawn scene shows, to measure pictures painted from such scenes' captions."""

    steps_field = ("steps",)

    kind: Literal["judge"] = "judge"
    data: JudgePart = JudgePart()
    channels: tuple[int, ...] = Field(
        (64, 128, 192),
        min_length=1,
        max_length=4,
        description="Channels of each level; the first has a quarter of the picture's size, each further one half of that before",
    )
    steps: int = Field(5_000, ge=1, le=1_000_000, description="Optimizer steps")
    batch: int = Field(64, ge=2, le=4096, description="Pictures a step")
    learning_rate: float = Field(3e-3, gt=0, le=0.1, description="Peak learning rate of AdamW")
    warmup: int = Field(200, ge=0, le=100_000, description="Steps of linear warm-up; a cosine to zero follows")
    weight_decay: float = Field(0.05, ge=0, le=1, description="AdamW's weight decay")


class TowerPart(_Part):
    """One transformer of a CLIP pair."""

    width: int = Field(80, ge=16, le=1024, multiple_of=8, description="Width of the token vectors")
    layers: int = Field(3, ge=1, le=24, description="Transformer layers")
    heads: int = Field(5, ge=1, le=16, description="Attention heads; they share the width evenly")

    @model_validator(mode="after")
    def _even(self) -> TowerPart:
        if self.width % self.heads:
            raise ValueError(f"{self.heads} heads cannot share a width of {self.width} evenly")
        return self


class PictureTowerPart(TowerPart):
    """The vision transformer: it sees a picture as a grid of patches."""

    width: int = Field(160, ge=16, le=1024, multiple_of=8, description="Width of the token vectors")
    layers: int = Field(6, ge=1, le=24, description="Transformer layers")
    side: int = Field(64, ge=16, le=512, description="Width and height in pixels that pictures are brought to")
    patch: int = Field(8, ge=2, le=64, description="Side of a patch in pixels")

    @model_validator(mode="after")
    def _whole(self) -> PictureTowerPart:
        if self.side % self.patch:
            raise ValueError(f"patches of {self.patch} pixels do not fill a side of {self.side}")
        return self


class ContrastivePart(_Part):
    """The training of a CLIP pair: each picture is to find its caption among those of the batch, and each caption its picture."""

    steps: int = Field(
        4_000, ge=1, le=10_000_000, description="Optimizer steps; may be changed between two sittings of a run"
    )
    batch: int = Field(
        256, ge=2, le=65_536, description="Pictures a step, each with its caption and one that is wrong in one fact"
    )
    learning_rate: float = Field(1e-3, gt=0, le=0.1, description="Peak learning rate of AdamW")
    warmup: int = Field(300, ge=0, le=100_000, description="Steps of linear warm-up; a cosine to zero follows")
    weight_decay: float = Field(0.1, ge=0, le=1, description="AdamW's weight decay, of matrices only")
    clip_norm: float = Field(1.0, gt=0, le=1000, description="Largest gradient norm")
    unknown_words: float = Field(
        0.08,
        ge=0,
        le=1,
        description="Share of captions into which an unknown word is put, so that it learns to do no harm",
    )
    ema_decay: float = Field(0.98, ge=0, lt=1, description="Decay of the averaged weights, applied every fourth step")


class ClipMethod(MethodSettings):
    """Train a CLIP pair from nothing on drawn scenes and their captions and write a transformers ``CLIPModel`` folder."""

    steps_field = ("contrastive", "steps")

    kind: Literal["clip"] = "clip"
    data: SceneData = SceneData()
    text: TowerPart = TowerPart()
    vision: PictureTowerPart = PictureTowerPart()
    projection: int = Field(128, ge=8, le=1024, description="Length of the vectors that pictures and captions share")
    contrastive: ContrastivePart = ContrastivePart()


class TrainingConfig(_Part):
    """One training run."""

    name: Annotated[str, RUN_NAME] = Field(description="Name of the run and of what it makes")
    seed: int = Field(1, ge=0, lt=2**63, description="Everything random in the run follows from it")
    method: Annotated[
        ScratchMethod | JudgeMethod | ClipMethod | LoraMethod | TextEncoderMethod | FullMethod,
        Field(discriminator="kind"),
    ]
    precision: Literal["fp32", "bf16"] = Field(
        "bf16", description="Arithmetic of forward and backward passes; weights are always kept in fp32"
    )
    save_minutes: float = Field(3, gt=0, le=600, description="Minutes between checkpoints of the run")
    keep: int = Field(2, ge=1, le=100, description="Checkpoints of a stage that are kept")
    processes: int = Field(
        1, ge=1, le=64, description="Processes that share every batch, one a device; not part of what is trained"
    )
    export_to: str = Field(
        "",
        description="Folder, relative to the repository, that the finished model is written to; empty: only the run folder",
    )


def load_training_config(path: Path) -> TrainingConfig:
    """The recipe at ``path``. Raises ``SettingsError`` that names the file, the field and what is allowed."""
    try:
        data: dict[str, Any] = tomllib.loads(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"The recipe {path} cannot be read: {error}.") from error
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"The recipe {path} is not valid TOML: {error}.") from error
    return parse_training_config(data, str(path))


def parse_training_config(data: dict[str, Any], source: str) -> TrainingConfig:
    """Validate plain data from ``source`` (named in the message of a ``SettingsError``)."""
    try:
        return TrainingConfig.model_validate(data)
    except ValidationError as error:
        complaint = first_complaint(error, TrainingConfig)
        raise SettingsError(f"{source}: {complaint.sentence('recipe')}", field=complaint.field) from error

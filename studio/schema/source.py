"""Parts of a request that begins with a picture: the picture (img2img), and where it is painted anew (inpainting).

A picture is named, not contained: its name is what `studio.library.init_images` keeps it under, so a request stays small text that
can travel to a process, a row of the queue or another machine.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from studio.schema.complaint import matching
from studio.schema.parts import Frozen

NAME_DIGITS = 32
"""Hexadecimal digits of the name of a kept picture."""

PictureName = Annotated[
    str,
    Field(max_length=300),
    matching(
        rf"([0-9a-f]{{{NAME_DIGITS}}})?", f"should be the name of a kept picture, {NAME_DIGITS} hexadecimal digits"
    ),
]
ResizeMode = Literal["Just resize", "Crop and resize", "Resize and fill", "Just resize (latent upscale)"]
MaskedContent = Literal["fill", "original", "latent noise", "latent nothing"]
InpaintArea = Literal["Whole picture", "Only masked"]


LATENT_UPSCALE: ResizeMode = "Just resize (latent upscale)"


class Source(Frozen):
    """A picture that the painting begins with, under noise, instead of noise alone (img2img). Without a picture it is off."""

    image: PictureName = Field("", description="Name of the picture to begin with, as it was kept; empty is off")
    denoising_strength: float = Field(
        0.75, ge=0, le=1, description="How much is painted anew; 0 is almost nothing, 1 keeps next to nothing"
    )
    resize_mode: ResizeMode = Field(
        "Just resize", description="How a picture of another size comes to width and height"
    )
    image_cfg_scale: float = Field(
        1.5,
        ge=0,
        le=30,
        description="Checkpoints that follow instructions (instruct-pix2pix): how strictly the picture is kept",
    )
    exact_steps: bool = Field(
        False, description="Run as many steps as asked for; else only the part of them that the strength gives"
    )
    noise_multiplier: float = Field(
        1.0, ge=0, le=1.5, description="Noise multiplier: scale of the noise over the picture"
    )
    extra_noise: float = Field(
        0.0, ge=0, le=1, description="Noise over the picture, beyond what the steps take away again"
    )


class Mask(Frozen):
    """Where the picture of `Source` is painted anew: where the mask is light (inpainting). Without a picture it is off."""

    image: PictureName = Field("", description="Name of the mask's picture, as it was kept; empty is off")
    blur: int = Field(4, ge=0, le=64, description="Mask blur: how softly the edge goes over, in pixels")
    inverted: bool = Field(False, description="Paint where the mask is dark instead")
    content: MaskedContent = Field("original", description="What the masked part begins with")
    area: InpaintArea = Field(
        "Whole picture", description="Only masked paints the part around the mask at full size and puts it back"
    )
    padding: int = Field(32, ge=0, le=256, description="Only masked: pixels around the mask that are seen")
    rounding: bool = Field(True, description="A pixel is masked or it is not; else the mask's greys count as parts")
    conditioning_weight: float = Field(
        1.0,
        ge=0,
        le=1,
        description="Inpainting checkpoints: how strongly the masked part is hidden from them; 0 shows it all",
    )

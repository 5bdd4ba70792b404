"""The part of a request that makes a plot of it: the same picture over values on up to three axes (A1111's script X/Y/Z plot)."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from studio.schema.parts import Frozen, Text

MAX_VALUES = 20_000
"""Characters that the values of an axis may have."""
MAX_CELLS = 400
"""Pictures a plot may have: beyond that a typing error is likelier than a wish."""

AxisType = Literal[
    "Nothing", "Seed", "Var. seed", "Var. strength", "Steps", "Hires steps", "CFG Scale", "Image CFG Scale", "Prompt S/R", "Prompt order", "Sampler",
    "Hires sampler", "Checkpoint name", "Negative Guidance minimum sigma", "Sigma Churn", "Sigma min", "Sigma max", "Sigma noise",
    "Schedule type", "Schedule min sigma", "Schedule max sigma", "Schedule rho", "Beta schedule alpha", "Beta schedule beta", "Eta",
    "Clip skip", "Denoising", "Initial noise multiplier", "Extra noise", "Hires upscaler", "Cond. Image Mask Weight", "VAE", "Styles",
    "UniPC Order", "Face restore", "Token merging ratio", "Token merging ratio high-res", "Always discard next-to-last sigma", "SGM noise multiplier",
    "Refiner checkpoint", "Refiner switch at", "RNG source", "FP8 mode", "Size",
]  # fmt: skip
"""What an axis may change, under A1111's names; they stand in pictures' texts."""


Values = Annotated[Text, Field(max_length=MAX_VALUES)]


class Plot(Frozen):
    """Pictures over a grid of values. With nothing on any axis it is off."""

    x_type: AxisType = Field("Nothing", description="What changes from column to column")
    x_values: Values = Field(
        "", description="Its values: 1, 2, 3 or 1-10 (+3) or 1-10 [4]; names by commas, quotes where they hold one"
    )
    y_type: AxisType = Field("Nothing", description="What changes from row to row")
    y_values: Values = Field("", description="Its values, likewise")
    z_type: AxisType = Field("Nothing", description="What changes from sheet to sheet")
    z_values: Values = Field("", description="Its values, likewise")
    legend: bool = Field(True, description="Write the values beside the pictures of the sheet")
    margin: int = Field(0, ge=0, le=500, description="Pixels between the pictures of the sheet")
    random_seeds: bool = Field(
        False, description="Draw another seed for each picture where the seed is -1; else all have one"
    )

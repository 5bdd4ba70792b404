"""Face restoration as a resolved request has it."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

FaceArchitecture = Literal["CodeFormer", "GFPGAN"]
"""Networks that restore faces, in A1111's order and spelling."""

DEFAULT_WEIGHT = 0.5
"""CodeFormer's, as in A1111."""


class FacePlan(BaseModel):
    """What restores the faces of the finished pictures."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(description="As the infotext shows it: the architecture, or the stem of an older file of it")
    architecture: FaceArchitecture
    file: str = Field(description="Path of the restorer's file")
    detector: str = Field(description="Path of the detector's file")
    weight: float = Field(
        DEFAULT_WEIGHT, description="CodeFormer's: 0 has the strongest effect; the default for others"
    )

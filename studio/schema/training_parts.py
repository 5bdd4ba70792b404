"""What all settings of training methods are made of."""

from __future__ import annotations

from typing import ClassVar

from pydantic import BaseModel, ConfigDict


class Part(BaseModel):
    """A group of settings: frozen, and without room for misspelt fields."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class MethodSettings(Part):
    """What every method's settings say of themselves."""

    steps_field: ClassVar[tuple[str, ...]]
    """Where the number of steps stands in these settings: it may be changed between two sittings of a run."""
    on_accelerator: ClassVar[bool] = False
    """Whether the method runs on a GPU where there is one; the others are written for a CPU."""

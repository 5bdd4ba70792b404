"""What a training run is told about its pictures and captions, and what is known about them before it starts.

``DatasetSettings`` is part of a recipe; the rest is the report that the page, REST and the command line show.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from studio.schema.request import invalid_request

AUTO = "auto"
MAX_CAPTION = 10_000
"""Characters of one caption."""
MAX_CAPTIONS = 64
"""Captions of one picture."""


class DatasetSettings(BaseModel):
    """Which pictures and captions are learned from, and what is done to them on the way."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: str = Field(
        "",
        max_length=4096,
        description="Folder (or .parquet file) of the data set: absolute, or relative to the data folder",
    )
    format: str = Field(
        AUTO, max_length=40, description="How the data set is stored; auto looks at the folder (docs/training.md)"
    )
    resolution: int = Field(
        512, ge=16, le=2048, multiple_of=8, description="Side of the square that pictures are brought to, in pixels"
    )
    buckets: bool = Field(
        False, description="Keep wide and tall pictures so: bring each to the nearest shape of about the same area"
    )
    bucket_step: int = Field(
        64, ge=8, le=512, multiple_of=8, description="Sides of those shapes are multiples of this, in pixels"
    )
    bucket_ratio: float = Field(4.0, ge=1, le=8, description="Longest of those shapes: long side by short side")
    flip: bool = Field(False, description="Mirror every other draw of a picture, left to right")
    repeats: int = Field(1, ge=1, le=10_000, description="How often each picture comes in one epoch")
    caption_source: Literal["stored", "file_name", "none"] = Field(
        "stored", description="Captions of the data set, the words of the file's name, or none but the trigger word"
    )
    trigger: str = Field(
        "", max_length=200, description="Put before every caption that does not hold it, to call the result by"
    )
    caption_dropout: float = Field(
        0.05, ge=0, le=1, description="Share of draws with an empty caption, for classifier-free guidance"
    )
    shuffle: bool = Field(False, description="Put the comma-separated parts of a caption into a random order")
    keep_tokens: int = Field(
        0, ge=0, le=255, description="Parts at the start of a caption that keep their place when it is shuffled"
    )

    @model_validator(mode="after")
    def _fitting(self) -> DatasetSettings:
        if self.buckets and self.resolution < self.bucket_step:
            raise ValueError(
                f"buckets of multiples of {self.bucket_step} pixels cannot have the area of {self.resolution} squared"
            )
        if any(character in self.trigger for character in "\n\r\0"):
            raise ValueError("trigger must be one line")
        return self


def make_dataset_settings(data: dict[str, Any]) -> DatasetSettings:
    """Validate ``data``. Raises ``InvalidRequest`` naming the first bad field, its value and what is allowed."""
    try:
        return DatasetSettings.model_validate(data)
    except ValidationError as error:
        raise invalid_request(error, DatasetSettings) from None


class _Fact(BaseModel):
    model_config = ConfigDict(frozen=True)


class SizeCount(_Fact):
    """How many pictures have one size, or come into one bucket; ``width`` and ``height`` in pixels."""

    width: int
    height: int
    count: int


class TokenLengths(_Fact):
    """CLIP tokens of the captions, trigger word included; start and end do not count."""

    shortest: int
    median: float
    longest: int
    over_75: int = Field(description="Captions longer than the 75 tokens that a text encoder takes at once")


class Duplicates(_Fact):
    """Files with the very same picture in them."""

    key: str
    names: tuple[str, ...]


class Expectation(_Fact):
    """What a run over the data set takes."""

    epochs: int
    batch: int
    samples: int = Field(description="Draws in one epoch: every picture as often as it repeats")
    steps: int = Field(description="Optimizer steps: batches of all epochs")
    seconds: float | None = Field(description="Time of all steps; null while no step has been measured")
    cache_bytes: int = Field(description="Latents and text embeddings of every picture and caption, as kept in memory")


class DatasetReport(_Fact):
    """A data set before anything starts. Lists are cut to their first entries; counts are whole."""

    path: str
    format: str
    digest: str = Field(description="Hash over pictures, captions and repeats")
    pictures: int
    captions: int = Field(description="Different captions")
    problems: tuple[str, ...] = Field(description="Files that cannot be used, a sentence each")
    problem_count: int
    notes: tuple[str, ...] = Field(description="What was assumed while reading")
    sizes: tuple[SizeCount, ...] = Field(description="Sizes of the files, most frequent first")
    size_count: int
    buckets: tuple[SizeCount, ...] = Field(description="Sizes they are brought to, most frequent first")
    enlarged: int = Field(description="Pictures smaller than what they are brought to")
    tokens: TokenLengths
    without_caption: tuple[str, ...]
    without_caption_count: int
    duplicates: tuple[Duplicates, ...]
    duplicate_count: int = Field(description="Files that are copies of another")
    expectation: Expectation


class CaptionEntry(_Fact):
    """One picture and its captions as stored; ``tokens`` of the longest, trigger word included."""

    name: str
    key: str
    captions: tuple[str, ...]
    tokens: int
    width: int
    height: int


class CaptionPage(_Fact):
    """A stretch of the data set in its order."""

    total: int
    offset: int
    entries: tuple[CaptionEntry, ...]


class CaptionEdit(_Fact):
    """What a picture's captions were before an edit; writing them back undoes it."""

    name: str
    former: tuple[str, ...]


class CaptionerInfo(_Fact):
    """What can describe pictures."""

    name: str
    problem: str = Field("", description="What to put where before it can work; empty: nothing is missing")


class CaptionTask(_Fact):
    """Captions that are being written, or were last."""

    path: str
    captioner: str
    state: Literal["running", "finished", "failed", "stopped"]
    done: int = Field(0, description="Pictures looked at")
    total: int = Field(0, description="Pictures of the data set; 0 while it is read")
    written: int = Field(0, description="Pictures that got a caption; known at the end")
    kept: int = Field(0, description="Pictures that kept the one they had")
    problems: tuple[str, ...] = Field((), description="A sentence for each picture that got none, the first hundred")
    problem_count: int = 0
    message: str = Field("", description="Why it failed")

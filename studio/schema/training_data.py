"""What a training run is told about its pictures and captions."""

from __future__ import annotations

from pydantic import Field

from studio.schema.training_parts import Part


class DatasetSettings(Part):
    """A data set of captioned pictures and how they are prepared."""

    path: str = Field(
        min_length=1, description="Folder of pictures with .txt captions beside them; relative to the data folder"
    )
    resolution: int = Field(
        512, ge=64, le=2048, multiple_of=8, description="Side in pixels that pictures are brought to"
    )
    buckets: bool = Field(
        False, description="Keep the shape of pictures: sizes of about the same area, in steps of 64 pixels"
    )
    flip: bool = Field(False, description="Show half of the pictures mirrored")
    repeats: int = Field(1, ge=1, le=1000, description="How often each picture counts in an epoch")
    caption_dropout: float = Field(
        0.05, ge=0, le=1, description="Share of captions replaced by the empty one, for guidance"
    )
    shuffle: bool = Field(False, description="Shuffle the comma-separated parts of captions")
    keep_tokens: int = Field(0, ge=0, le=100, description="Parts at the start of a caption that stay in place")
    trigger: str = Field(
        "", max_length=200, description="Words put before every caption, by which the result is called"
    )

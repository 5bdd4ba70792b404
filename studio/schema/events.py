"""What a job can say while it lives. UI, REST, SSE, the command-line bar and `events.jsonl` share these.

An engine yields bare events; the queue wraps each in a `JobEvent` that adds the job and a sequence number.
Binary parts (preview JPEGs, the finished PNG) are `bytes` here; they are stored by the dispatcher and replaced by an
URL before an event leaves the server, so JSON never carries pictures.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field


class _Event(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_bytes="base64", val_json_bytes="base64")


class Queued(_Event):
    """The job waits; position 1 is next."""

    type: Literal["queued"] = "queued"
    position: int


class Started(_Event):
    """The worker took the job."""

    type: Literal["started"] = "started"


class Status(_Event):
    """Something that takes time and is not a step: loading a model, decoding."""

    type: Literal["status"] = "status"
    message: str


class Progress(_Event):
    """One denoising step of one batch is done.

    `step` counts from 1 to `total` within the batch; `sigma` is the noise level the step ended at; `batch` counts from
    0. `previews` holds one small JPEG of the predicted x0 per picture of the batch (empty when not drawn); after storage
    `preview_urls` stands for them. `latents` are those of the batch before and after the step's model call, as the engine
    packs them (`engine/latents.py`), empty when they were not asked for; after storage `kept` says whether they are still there.
    """

    type: Literal["progress"] = "progress"
    batch: int
    batches: int
    step: int
    total: int
    sigma: float
    previews: tuple[bytes, ...] = ()
    preview_urls: tuple[str, ...] = ()
    latents: bytes = b""
    kept: bool = Field(False, description="Whether this step can be decoded in full, and branched from without delay")
    seconds: float = Field(0.0, description="Seconds since the first step of this job began")


class ImageReady(_Event):
    """A finished picture: PNG bytes with the infotext inside; after storage `image_id` and `url` stand for them."""

    type: Literal["image"] = "image"
    index: int = Field(description="0-based over the whole job")
    seed: int
    width: int
    height: int
    infotext: str
    png: bytes = b""
    image_id: int | None = None
    url: str | None = None
    path: str | None = Field(None, description="Where the file was written; None when it was not saved")
    warning: str | None = Field(None, description="Why saving failed; the picture can still be downloaded from `url`")


class Finished(_Event):
    """All pictures are done (or the job was interrupted after some: `interrupted`)."""

    type: Literal["finished"] = "finished"
    images: int
    seconds: float
    interrupted: bool = False


class Failed(_Event):
    """The job ended with an error: `StudioError.to_dict()`."""

    type: Literal["failed"] = "failed"
    error: dict[str, Any]


class Cancelled(_Event):
    """The job was taken out before any picture was done."""

    type: Literal["cancelled"] = "cancelled"


Event = Annotated[
    Queued | Started | Status | Progress | ImageReady | Finished | Failed | Cancelled, Field(discriminator="type")
]
TERMINAL = (Finished, Failed, Cancelled)


class JobEvent(BaseModel):
    """An event as the queue publishes it. `seq` grows over all jobs of one server run; `at` is seconds since the epoch."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    job_id: int
    seq: int
    at: float
    event: Event

"""What went wrong while painting, told so that a user can act on it. torch is imported only when there is an error to judge."""

from __future__ import annotations

from dataclasses import dataclass

from studio.errors import EngineError, OutOfMemory, StudioError, error_text
from studio.schema.models import ModelInfo
from studio.schema.resolved import ResolvedRequest

_NO_MEMORY = ("out of memory", "DefaultCPUAllocator", "_ALLOC_FAILED", "_ALLOCATION_FAILED", "Invalid buffer size")
"""What the texts of such errors hold: of the allocators, of cuBLAS and cuDNN (both spellings), whose own memory did not fit, and of Metal."""


@dataclass(frozen=True)
class Work:
    """What was tried, for the words in which its failure is told."""

    doing: str
    """Such as `Painting`."""
    size: str
    """What memory was needed for."""
    less: str
    """What to do to need less of it."""
    again: str
    """What can be done once more after the device failed."""

    @staticmethod
    def painting(resolved: ResolvedRequest) -> Work:
        """A job."""
        tile = resolved.sd_upscale.tile if resolved.sd_upscale else None
        width, height = tile or resolved.final_size
        size = f"{resolved.batch_size} x {width}x{height} pixels at once with {resolved.model.name}"
        return Work("Painting", size, "Use a smaller batch size or a smaller picture", "the job can be run again")

    @staticmethod
    def decoding(model: ModelInfo) -> Work:
        """One picture of a kept step."""
        size = f"decoding a step of {model.name}"
        return Work("Decoding", size, "Wait until no job runs", "the step can be decoded again")


def explain(error: Exception, work: Work, device: str) -> StudioError:
    """Any error of `work` as a `StudioError`; one that is one already is given back as it is."""
    if isinstance(error, StudioError):
        return error
    if is_out_of_memory(error):
        return OutOfMemory(
            f"There is too little memory on {device} for {work.size}. {work.less}, or close other programs."
        )
    if is_device_lost(error):
        return EngineError(
            f"The device {device} failed ({error_text(error)}). The worker is started anew; {work.again}."
        )
    return EngineError(f"{work.doing} failed ({error_text(error)}). The worker's log has the details.")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether `error` says that device or machine has too little memory."""
    import torch

    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(sign in str(error) for sign in _NO_MEMORY)


def is_device_lost(error: BaseException) -> bool:
    """Whether `error` leaves the device unusable until the process ends (a failed kernel, a card that fell off the bus)."""
    import torch

    if is_out_of_memory(error):
        return False
    return isinstance(error, torch.AcceleratorError) or (isinstance(error, RuntimeError) and "CUDA error" in str(error))

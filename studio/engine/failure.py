"""What went wrong while painting, told so that a user can act on it. torch is imported only when there is an error to judge."""

from __future__ import annotations

from studio.errors import EngineError, OutOfMemory, StudioError, error_text
from studio.schema.resolved import ResolvedRequest

_NO_MEMORY = ("out of memory", "DefaultCPUAllocator", "_ALLOC_FAILED", "_ALLOCATION_FAILED", "Invalid buffer size")
"""What the texts of such errors hold: of the allocators, of cuBLAS and cuDNN (both spellings), whose own memory did not fit, and of Metal."""


def explain(error: Exception, resolved: ResolvedRequest, device: str) -> StudioError:
    """Any error of a job as a `StudioError`; one that is one already is given back as it is."""
    if isinstance(error, StudioError):
        return error
    if is_out_of_memory(error):
        tile = resolved.sd_upscale.tile if resolved.sd_upscale else None
        width, height = tile or resolved.final_size
        size = f"{resolved.batch_size} x {width}x{height}"
        return OutOfMemory(
            f"There is too little memory on {device} for {size} pixels at once with {resolved.model.name}. "
            "Use a smaller batch size or a smaller picture, or close other programs."
        )
    if is_device_lost(error):
        return EngineError(
            f"The device {device} failed ({error_text(error)}). The worker is started anew; the job can be run again."
        )
    return EngineError(f"Painting failed ({error_text(error)}). The worker's log has the details.")


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

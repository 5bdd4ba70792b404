"""Captions as the U-Net reads them: encoded once and kept where the encoders are frozen, encoded at every step where they learn.

A caption is one chunk of 75 tokens; what is longer is cut. Each distinct caption is one file below `outputs/.studio/training/texts`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Protocol

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save

from studio.engine.loading import LoadedModel
from studio.engine.text_encoders import TextStates, encode_tokens, read_tokens
from studio.paths import atomic_write
from studio.prompt.chunks import chunk_prompt
from studio.prompt.tokenizer import shipped_tokenizer
from studio.training.caches import looking, touch
from studio.training.context import TrainingContext
from studio.training.tuning.base import Base

STAGE = "captions"
MOST_KEPT = 20_000
"""Distinct captions that are kept on disk (about 0.2 MB each for SD 1.x); with more of them the encoders stay loaded."""
_FORMAT = "1"


class Texts(Protocol):
    """From captions to what the U-Net is told."""

    def encode(self, captions: Sequence[str]) -> TextStates:
        """One row of 77 tokens for each caption, on the run's device."""
        ...


class LiveTexts:
    """Encodes when asked; with gradients where the encoders learn."""

    def __init__(self, model: LoadedModel, *, learning: bool) -> None:
        self._model = model
        self._read = read_tokens if learning else encode_tokens
        self._tokenizer = shipped_tokenizer()

    def encode(self, captions: Sequence[str]) -> TextStates:
        """See `Texts`."""
        device = next(self._model.text_encoders[0].parameters()).device
        tokens = torch.tensor([self.tokens(caption) for caption in captions], device=device)
        states = self._read(self._model, tokens)
        if not self._model.family.zero_empty_negative:
            return states
        kept = torch.tensor([bool(caption.strip()) for caption in captions], device=device)
        return TextStates(tuple(_masked(state, kept) for state in states.states), _masked(states.pooled, kept))

    def tokens(self, caption: str) -> tuple[int, ...]:
        """77 ids: start, at most 75 tokens, end and padding. Brackets and AND are words here, not the prompt language."""
        return chunk_prompt(((caption, 1.0),), self._tokenizer)[0].tokens


class KeptTexts:
    """Reads from disk what was encoded before; the encoders are not needed any more."""

    def __init__(self, folder: Path, base: Base, device: torch.device) -> None:
        self._folder = folder
        self._identity = (
            f"{base.identity}|{base.hardware.dtype}"  # what a text encoder says depends on its number format
        )
        self._device = device

    def fill(self, context: TrainingContext, base: Base, captions: Iterable[str]) -> None:
        """Encode what is missing or cannot be read, with progress as a stage of the run."""
        with looking(self._folder.parent):
            missing = [caption for caption in dict.fromkeys(captions) if not self._sound(self._file(caption))]
        if not missing:
            return
        live = LiveTexts(base.model, learning=False)
        clock = context.stage(STAGE, 0, len(missing))
        for count, caption in enumerate(missing, 1):
            states = live.encode([caption])
            tensors = {f"states.{index}": state[0].cpu() for index, state in enumerate(states.states)}
            if states.pooled is not None:
                tensors["pooled"] = states.pooled[0].cpu()
            atomic_write(self._file(caption), save({name: value.contiguous() for name, value in tensors.items()}))
            clock.tick(count)

    def encode(self, captions: Sequence[str]) -> TextStates:
        """See `Texts`."""
        rows = [load_file(self._file(caption)) for caption in captions]
        names = sorted(name for name in rows[0] if name.startswith("states."))
        states = tuple(torch.stack([row[name] for row in rows]).to(self._device) for name in names)
        pooled = torch.stack([row["pooled"] for row in rows]).to(self._device) if "pooled" in rows[0] else None
        return TextStates(states, pooled)

    def _file(self, caption: str) -> Path:
        name = hashlib.sha256(f"{_FORMAT}|{self._identity}|{caption}".encode()).hexdigest()
        return self._folder / name[:2] / f"{name}.safetensors"

    @staticmethod
    def _sound(file: Path) -> bool:
        try:
            return touch(file) and "states.0" in load_file(file)
        except (OSError, SafetensorError):
            return False


def _masked(tensor: torch.Tensor | None, kept: torch.Tensor) -> torch.Tensor:
    """Rows of captions that are empty become zeros, which SDXL takes for no prompt."""
    assert tensor is not None, "the families with such prompts have pooled text"
    return tensor * kept.view(-1, *([1] * (tensor.ndim - 1))).to(tensor.dtype)

"""Text encoders from files of their own, in place of a checkpoint's: loaded like it, built like the one whose place they take."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import Any

import torch

from studio.engine.eight_bit import Storage
from studio.engine.file_cache import FileStamp, file_stamp
from studio.engine.loading import Layout, LoadedModel
from studio.engine.loading_weights import Filling, Weights, empty
from studio.errors import IncompatibleFile
from studio.families.signature import pickle_problem
from studio.families.text_signature import describe_text_encoder
from studio.schema.models import ModelInfo

KEPT = 4
"""Modules that stay in memory for a checkpoint: SDXL's two for each of two passes."""


class TextEncoders:
    """Which text encoders a loaded checkpoint reads prompts with. Nothing may be merged into the old ones while they are changed."""

    def __init__(self, model: LoadedModel, dtype: torch.dtype, layout: Layout, storage: Storage) -> None:
        self._model = model
        self._own = model.text_encoders
        self._how = (dtype, layout(dtype), storage)
        self._loaded: OrderedDict[FileStamp, tuple[int, Any]] = OrderedDict()
        self._active: tuple[FileStamp, ...] = ()

    @property
    def key(self) -> Hashable:
        """Equal exactly while the same text encoders read."""
        return self._active

    @property
    def waiting(self) -> tuple[torch.nn.Module, ...]:
        """Those in memory that do not read at the moment."""
        everything = (*self._own, *(module for _, module in self._loaded.values()))
        return tuple(module for module in everything if not any(module is other for other in self._model.text_encoders))

    def wants(self, files: Sequence[ModelInfo]) -> bool:
        """Whether `use(files)` would change anything. Raises `NotFound` for a file that is gone."""
        return tuple(_stamp(info) for info in files) != self._active

    def use(self, files: Sequence[ModelInfo]) -> None:
        """Read with these where they fit, and with the checkpoint's own else. Files are read again only when they changed on disk.

        Raises `NotFound`, `DamagedFile` and `IncompatibleFile`; then nothing has changed.
        """
        wanted = {_stamp(info): info for info in files}
        encoders = list(self._own)
        for stamp, info in wanted.items():
            if stamp not in self._loaded:
                place = self._place(info)
                self._loaded[stamp] = (place, load_text_encoder(info, self._model, self._own[place], *self._how))
            self._loaded.move_to_end(stamp)
            place, module = self._loaded[stamp]
            encoders[place] = module
        self._model.text_encoders = tuple(encoders)
        self._active = tuple(wanted)
        while len(self._loaded) > max(KEPT, len(wanted)):
            self._loaded.popitem(last=False)

    def forget(self, needed: Sequence[ModelInfo]) -> bool:
        """Let go of those from files that neither read at the moment nor are `needed`; whether there were any. Raises `NotFound` as `wants`."""
        stay = {*self._active, *map(_stamp, needed)}
        idle = [stamp for stamp in self._loaded if stamp not in stay]
        for stamp in idle:
            del self._loaded[stamp]
        return bool(idle)

    def _place(self, info: ModelInfo) -> int:
        widths = [module.get_input_embeddings().embedding_dim for module in self._own]  # type: ignore[operator]
        place = next((at for at, width in enumerate(widths) if (width,) == info.text_widths), None)
        if place is None:
            raise IncompatibleFile(
                f"Text encoder {info.name!r} does not fit {self._model.info.name}, which reads prompts with {' and '.join(map(str, widths))}.",
                field="text_encoders",
            )
        return place


def load_text_encoder(
    info: ModelInfo,
    model: LoadedModel,
    own: Any,
    dtype: torch.dtype,
    layout: torch.memory_format,
    storage: Storage,
) -> torch.nn.Module:
    """The text encoder `info`, built like `own`, which is one of `model`'s, on its device.

    The file tells only weights, so activation and number of heads are those of `own`. It must have as many layers; SD 2.x leaves the last of
    OpenCLIP's out. Raises `NotFound`, `DamagedFile` and `IncompatibleFile`.
    """
    path = Path(info.path)
    if path.suffix.lower() != ".safetensors":
        raise IncompatibleFile(pickle_problem(path.name), field="text_encoders")
    weights = Weights([path])
    signature = describe_text_encoder(weights.header)
    layers, spare = own.config.num_hidden_layers, model.family.encoders[0].unused_layers
    problem = signature.problem
    if not problem and signature.layers not in (layers, layers + spare):
        problem = f"It has {signature.layers} layers, the text encoder of {model.info.name} has {layers}."
    if problem:
        raise IncompatibleFile(f"Text encoder {info.name!r} cannot be used: {problem}", field="text_encoders")
    module = empty(lambda: type(own)(own.config), "text encoder")
    filling = Filling(module, weights, signature.sources, dtype, "text encoder", layout, storage=storage)
    found: torch.nn.Module = filling.from_file(own.device)
    return found


def _stamp(info: ModelInfo) -> FileStamp:
    return file_stamp(Path(info.path), f"text encoder {info.name!r}", "text_encoders")

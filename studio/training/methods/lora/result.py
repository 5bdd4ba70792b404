"""Writing a LoRA file and proving it: read again by the product's own reader, its output compared with that of the trained adapters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from studio.engine.lora import LoraWeights
from studio.errors import StudioError, TrainingError
from studio.training.checkpoint import Tensors
from studio.training.methods.lora.adapter import Trained, switched_off
from studio.training.methods.lora.keys import kohya_tensors
from studio.training.methods.lora.metadata import Facts, lora_metadata
from studio.training.tuning.base import Base
from studio.training.tuning.formats import NUMBER_FORMATS
from studio.training.tuning.publish import claim, metadata_of
from studio.training.tuning.texts import LiveTexts

_PROBE_TEXT = "a photo of a thing"
_PROBE_STEP = 500
_ROUNDING = {"fp32": 1e-3, "fp16": 1e-2, "bf16": 5e-2}
"""How far the file may be from what was trained, as a share of what the LoRA changes: its number format."""
_MERGING = 64
"""How far merging may be from adding, in units of the base's precision."""


@dataclass(frozen=True)
class LoraResult:
    """What the adapters of one run have learned, to be written whenever it is asked for."""

    base: Base
    layers: Sequence[Trained]

    def write(self, facts: Facts, folder: Path) -> Path:
        """A new file in `folder` named `facts.name`, with a number where that is taken; the same file when this run wrote it already.

        Raises `TrainingError` when what can be read is not what was trained, `StorageError`.
        """
        chosen = facts.method.output.number_format
        tensors = kohya_tensors(self.layers, self.base.info.family, self.base.unet.config, NUMBER_FORMATS[chosen])
        if not all(bool(tensor.isfinite().all()) for tensor in tensors.values()):
            raise TrainingError(
                f"What was learned does not fit into {chosen}; choose fp32 as number_format of the output."
            )
        metadata = lora_metadata(facts, tensors)
        path = claim(folder, facts.name, facts.run.id, lambda file: save_file(tensors, file, metadata), _same_work)
        try:
            self._check(path, tensors, _ROUNDING[chosen])
        except StudioError as error:
            raise TrainingError(
                f"{path.name} was written, but is not what was trained: {error.message} Do not use it."
            ) from error
        return path

    def _check(self, path: Path, tensors: Tensors, rounding: float) -> None:
        """The file's tensors are equal, and merged by the product's own loader they do what the adapters do."""
        found = load_file(path)
        if found.keys() != tensors.keys():
            raise TrainingError(f"It has {len(found)} tensors instead of {len(tensors)}.")
        if wrong := [key for key, tensor in tensors.items() if not torch.equal(found[key], tensor)]:
            raise TrainingError(f"{len(wrong)} of its tensors differ, such as {wrong[0]}.")
        trained = self._answer()
        stack = self.base.loaded.loras
        with switched_off((self.base.unet, *self.base.model.text_encoders)):
            plain = self._answer()
            stack.apply([LoraWeights(path, 1.0, 1.0, path.stem)])
            try:
                merged = self._answer()
            finally:
                stack.apply([])
        precision = torch.finfo(self.base.hardware.dtype).eps * _MERGING
        allowed = rounding * float((trained - plain).norm()) + precision * float(trained.norm())
        if not float((merged - trained).norm()) <= allowed:
            raise TrainingError(
                f"Its output differs by {float((merged - trained).norm()):.3g}; {allowed:.3g} is what rounding explains."
            )

    @torch.no_grad()
    def _answer(self) -> torch.Tensor:
        """What the model says about one fixed question, float32."""
        model, device, dtype = self.base.model, self.base.hardware.device, self.base.hardware.dtype
        rng = torch.Generator().manual_seed(0)
        config = self.base.unet.config
        edge = 8 * 2 ** (len(config.block_out_channels) - 1) // 2
        latents = torch.randn(1, config.in_channels, edge, edge, generator=rng).to(device, dtype)
        states = torch.randn(1, 77, config.cross_attention_dim, generator=rng).to(device, dtype)
        pooled = None
        if model.family.size_conditioning:
            pooled = torch.randn(
                1, config.projection_class_embeddings_input_dim - 6 * config.addition_time_embed_dim, generator=rng
            ).to(device, dtype)
        if not any(parameter.is_meta for parameter in model.text_encoders[0].parameters()):
            texts = LiveTexts(model, learning=False).encode([_PROBE_TEXT])
            states, pooled = texts.joined().to(dtype), texts.pooled
        side = edge * model.latent.scale
        answer = self.base.unet(
            latents,
            torch.tensor([_PROBE_STEP], device=device),
            states,
            added_cond_kwargs=model.added_conditions(pooled, side, side),
            return_dict=False,
        )[0]
        return torch.cat([answer.float().flatten(), states.float().flatten()])


def _same_work(old: Path, new: Path) -> bool:
    """Whether two files are of the same step of the same run and hold the same weights."""
    ours, theirs = metadata_of(new), metadata_of(old)
    return all(
        ours.get(key) and ours[key] == theirs.get(key) for key in ("studio.run", "studio.step", "sshs_model_hash")
    )

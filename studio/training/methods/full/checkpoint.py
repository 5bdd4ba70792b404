"""A trained checkpoint on disk: one .safetensors file in the original layout, or a diffusers folder, which the picker lists like any other.

What did not learn is read from the base again, so that nothing of it has to stay in memory while training.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import nn

from studio.engine.loading import LoadedModel, load_checkpoint
from studio.engine.loading_schedule import alphas_cumprod, zero_terminal
from studio.errors import TrainingError
from studio.families.configs import shipped_config, text_config, unet_config, vae_config
from studio.families.layout import Source, clip_sources, open_clip_sources, unet_sources, vae_sources
from studio.families.signature import UNET_PREFIX, VAE_PREFIX
from studio.families.spec import DATA
from studio.library.hashes import file_hashes
from studio.paths import atomic_write, storage_error
from studio.prompt.tokenizer import VOCABULARY
from studio.schema.training_tuning import Layout, NumberFormat
from studio.training.checkpoint import Tensors
from studio.training.publish import forget_origin, load_as_fp32
from studio.training.tuning.base import Base
from studio.training.tuning.formats import NUMBER_FORMATS
from studio.training.tuning.publish import claim, metadata_of

Sources = Callable[[Iterable[str]], Mapping[str, Source]]
ORIGIN = "training.json"
_CPU = torch.device("cpu")
_FREE = {"sample_size", "upcast_attention", "force_upcast", "latents_mean", "latents_std", "dropout", "mid_block_type"}
"""Options that change no answer of the network, or that every family has alike."""


@dataclass(frozen=True)
class Origin:
    """Where a checkpoint comes from; written into it."""

    run: str
    dataset: str
    step: int
    resolution: int
    number_format: NumberFormat


class CheckpointWriter:
    """Writes checkpoints of one base. Raises `TrainingError` when the base cannot be written in the wanted layout."""

    def __init__(self, base: Base, layout: Layout) -> None:
        self._base = base
        self._layout = layout
        if layout != "folder" and (reason := one_file_problem(base.model)):
            raise TrainingError(f'{base.info.name} cannot be written as one file: {reason} Choose layout = "folder".')

    def write(self, learned: Tensors, origin: Origin, folder: Path, name: str) -> Path:
        """A new checkpoint below `folder` with `learned` (names with `unet.` or a text encoder's name in front) in place of the base's weights.

        Returns the file, or the folder where no file was wanted. Names that are taken get a number. Raises `TrainingError` when a weight
        does not fit into the number format, `StorageError`.
        """
        model = load_checkpoint(self._base.info, _CPU, torch.float32)
        parts = _parts(model)
        for part, module in parts.items():
            own = {key.removeprefix(f"{part}."): value for key, value in learned.items() if key.startswith(f"{part}.")}
            if own:
                module.load_state_dict({**module.state_dict(), **{key: value.cpu() for key, value in own.items()}})
            module.to(NUMBER_FORMATS[origin.number_format])
            if not all(bool(value.isfinite().all()) for value in module.state_dict().values()):
                raise TrainingError(
                    f"What was learned does not fit into {origin.number_format}; choose fp32 as number_format of the output."
                )
        written: list[Path] = []
        if self._layout in ("file", "both"):
            written.append(claim(folder, name, origin.run, partial(_write_file, model, origin, name), _same_work))
        if self._layout in ("folder", "both"):
            written.append(_write_folder(self._base, model, origin, folder, name))
        return written[0]


def one_file_problem(model: LoadedModel) -> str | None:
    """Why the original layout, which carries no configuration, could not tell this model's; None when it can."""
    spec = model.family
    state = {key: tuple(value.shape) for key, value in _original(model).items()}
    fitted = {"unet": unet_config(spec, state, UNET_PREFIX), "vae": vae_config(spec, state, VAE_PREFIX)}
    fitted |= {encoder.name: text_config(spec, encoder, state, encoder.prefixes[0]) for encoder in spec.encoders}
    for part, module in _parts(model).items():
        own = dict(module.config.items()) if part in ("unet", "vae") else module.config.to_dict()
        for option, value in fitted[part].items():
            if option in own and not option.startswith("_") and option not in _FREE and not _alike(own[option], value):
                if part.startswith("text") and option not in ("num_attention_heads", "hidden_act", "layer_norm_eps"):
                    continue
                return f"its {part} has {option} = {own[option]}, {spec.title} has {value}."
    shipped = alphas_cumprod(shipped_config(spec.name, "scheduler"), False)
    if not any(torch.allclose(model.alphas_cumprod, each) for each in (shipped, zero_terminal(shipped))):
        return f"its noise schedule is not that of {spec.title}."
    return None


def _alike(own: Any, fitted: Any) -> bool:
    """Equal, where a number may stand for a list of it."""
    left, right = (list(each) if isinstance(each, list | tuple) else each for each in (own, fitted))
    if isinstance(left, list) and not isinstance(right, list):
        return all(each == right for each in left)
    if isinstance(right, list) and not isinstance(left, list):
        return all(each == left for each in right)
    return bool(left == right)


def _parts(model: LoadedModel) -> dict[str, Any]:
    modules = zip(model.family.encoders, model.text_encoders, strict=True)
    return {"unet": model.unet, "vae": model.vae} | {str(encoder.name): module for encoder, module in modules}


def _original(model: LoadedModel) -> Tensors:
    """All weights under their names of the original layout."""
    chosen: list[tuple[nn.Module, Sources]] = [
        (model.unet, partial(unet_sources, config=model.unet.config, prefix=UNET_PREFIX)),
        (model.vae, partial(vae_sources, config=model.vae.config, prefix=VAE_PREFIX)),
    ]
    for encoder, module in zip(model.family.encoders, model.text_encoders, strict=True):
        choose = clip_sources if encoder.layout == "clip" else open_clip_sources
        chosen.append((module, partial(choose, prefix=encoder.prefixes[0])))
    found = {key: value for module, choose in chosen for key, value in _renamed(module, choose).items()}
    # The original autoencoder's attention is made of 1x1 convolutions.
    flat = [key for key, value in found.items() if key.startswith(VAE_PREFIX) and ".attn_1." in key and value.ndim == 2]
    return {**found, **{key: found[key][:, :, None, None] for key in flat}}


def _renamed(module: nn.Module, choose: Sources) -> Tensors:
    state = module.state_dict()
    found: Tensors = {}
    thirds: dict[str, dict[int, torch.Tensor]] = {}
    for key, source in choose(state).items():
        value = state[key].T if source.transposed else state[key]
        if source.third is None:
            found[source.key] = value.contiguous()
        else:
            thirds.setdefault(source.key, {})[source.third] = value
    return found | {key: torch.cat([parts[index] for index in range(3)]) for key, parts in thirds.items()}


def _write_file(model: LoadedModel, origin: Origin, name: str, file: Path) -> None:
    tensors = _original(model)
    digest = hashlib.sha256()
    for key in sorted(tensors):
        digest.update(tensors[key].view(torch.uint8).numpy().tobytes() if tensors[key].ndim else b"")
    metadata = {
        "modelspec.sai_model_spec": "1.0.1",
        "modelspec.title": name,
        "modelspec.resolution": f"{model.native_size}x{model.native_size}",
        "modelspec.prediction_type": "v" if model.prediction_type == "v_prediction" else "epsilon",
        "studio.run": origin.run,
        "studio.dataset": origin.dataset,
        "studio.step": str(origin.step),
        "studio.base": model.info.sha256 or model.info.model_id or "",
        "studio.weights": digest.hexdigest(),
    }
    if _ends_in_noise(model):
        metadata["ss_zero_terminal_snr"] = "True"
    save_file(tensors | _marks(model, origin.number_format), file, metadata)


def _marks(model: LoadedModel, number_format: NumberFormat) -> Tensors:
    """NoobAI's empty tensors, by which programs know an SDXL file that predicts v: nothing in its weights tells, and not all read metadata."""
    if model.family.name != "sdxl" or model.prediction_type != "v_prediction":
        return {}
    names = ("v_pred", "ztsnr") if _ends_in_noise(model) else ("v_pred",)
    return {name: torch.zeros(0, dtype=NUMBER_FORMATS[number_format]) for name in names}


def _write_folder(base: Base, model: LoadedModel, origin: Origin, folder: Path, name: str) -> Path:
    """Complete under a hidden name, then renamed."""
    fresh = folder / f".{origin.run}.folder.new"
    shutil.rmtree(fresh, ignore_errors=True)
    try:
        fresh.mkdir(parents=True)
        if base.info.layout == "folder":
            _copy(Path(base.info.path), fresh)
        else:
            _copy(DATA / model.family.name, fresh)
            _add_tokenizers(model, fresh)
            _say_schedule(fresh / "scheduler" / "scheduler_config.json", model)
        for part, module in _parts(model).items():
            module.save_pretrained(fresh / part)
            if part.startswith("text"):
                load_as_fp32(fresh / part / "config.json")
        forget_origin(fresh)
        atomic_write(fresh / ORIGIN, json.dumps(asdict(origin), indent=2).encode() + b"\n")
        for turn in count():
            target = folder / f"{name}{f'-{turn}' if turn else ''}"
            if not target.exists():
                os.rename(fresh, target)
                return target
            if _origin_of(target) == asdict(origin) and _bytes(target) == _bytes(fresh):
                return target
    except OSError as error:
        raise storage_error(folder, error) from error
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    raise AssertionError("count() does not end")


def _copy(source: Path, target: Path) -> None:
    """Everything of a folder but its networks."""
    for entry in source.iterdir():
        if entry.name in ("scheduler", "tokenizer", "tokenizer_2"):
            shutil.copytree(entry, target / entry.name)
        elif entry.name in ("model_index.json", "preview.json"):
            shutil.copy2(entry, target / entry.name)


def _add_tokenizers(model: LoadedModel, target: Path) -> None:
    """CLIP's vocabulary for each encoder, with the padding that it wants."""
    for encoder in model.family.encoders:
        folder = target / encoder.name.replace("text_encoder", "tokenizer")
        shutil.copytree(VOCABULARY, folder)
        if encoder.pad_token_id == 0:
            for file in (folder / "tokenizer_config.json", folder / "special_tokens_map.json"):
                facts = {**json.loads(file.read_text("utf-8")), "pad_token": "!"}
                atomic_write(file, json.dumps(facts, indent=2).encode() + b"\n")


def _say_schedule(config: Path, model: LoadedModel) -> None:
    facts = json.loads(config.read_text("utf-8"))
    facts |= {"prediction_type": model.prediction_type, "rescale_betas_zero_snr": _ends_in_noise(model)}
    atomic_write(config, json.dumps(facts, indent=2).encode() + b"\n")


def _ends_in_noise(model: LoadedModel) -> bool:
    return bool(torch.equal(model.alphas_cumprod, zero_terminal(model.alphas_cumprod)))


def _origin_of(folder: Path) -> dict[str, Any] | None:
    try:
        found: dict[str, Any] = json.loads((folder / ORIGIN).read_text("utf-8"))
    except (OSError, ValueError):
        return None
    return found


def _bytes(folder: Path) -> dict[str, str]:
    """SHA-256 of every weight file."""
    files = sorted(folder.rglob("*.safetensors"))
    return {file.relative_to(folder).as_posix(): found.sha256 for file in files if (found := file_hashes(file))}


def _same_work(old: Path, new: Path) -> bool:
    ours, theirs = metadata_of(new), metadata_of(old)
    return all(
        ours.get(key) and ours[key] == theirs.get(key) for key in ("studio.run", "studio.step", "studio.weights")
    )

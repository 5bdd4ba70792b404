"""What a diffusers folder is, from its JSON files alone. Nothing in it is run, imported or downloaded."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from studio.families.signature import CheckpointSignature, Part, Variant, family_of_context
from studio.families.table import family
from studio.schema.models import Family, PredictionType

INDEX = "model_index.json"
MAX_JSON = 1_000_000
COMPONENTS: dict[Part, tuple[str, str]] = {
    "unet": ("diffusers", "UNet2DConditionModel"),
    "vae": ("diffusers", "AutoencoderKL"),
    "text_encoder": ("transformers", "CLIPTextModel"),
    "text_encoder_2": ("transformers", "CLIPTextModelWithProjection"),
}
_STEMS: dict[Part, str] = {"unet": "diffusion_pytorch_model", "vae": "diffusion_pytorch_model"}
_CLIP_VOCABULARY = 49408
# Options of UNet2DConditionModel that need inputs which a text-to-image loop does not give.
_EXTRA_INPUTS = (
    "time_cond_proj_dim",
    "encoder_hid_dim_type",
    "encoder_hid_dim",
    "class_embed_type",
    "num_class_embeds",
)


class BadFolder(Exception):
    """Why a folder cannot be read, one sentence for the user."""


@dataclass(frozen=True)
class FolderConfigs:
    """The parsed JSON files of a folder that passed inspection."""

    components: Mapping[Part, Mapping[str, Any]]
    scheduler: Mapping[str, Any]
    preview: Any
    """What `preview.json` holds; None when there is none."""


def is_model_folder(path: Path) -> bool:
    """Whether `path` is laid out as diffusers saves a pipeline."""
    return (path / INDEX).is_file()


def is_network_folder(path: Path) -> bool:
    """Whether `path` is laid out as transformers saves one network, such as a CLIP pair: its weights paint nothing by themselves."""
    try:
        return "model_type" in _json(path, "config.json")
    except BadFolder:
        return False


def describe_folder(path: Path) -> CheckpointSignature:
    """Judge a diffusers folder. Reads JSON only and never raises on odd content: see `problem`."""
    try:
        configs = read_folder(path)
    except BadFolder as error:
        return CheckpointSignature("checkpoint", problem=str(error))
    name, variant = _family_and_variant(configs)
    prediction: PredictionType = (
        "v_prediction" if configs.scheduler.get("prediction_type") == "v_prediction" else "epsilon"
    )
    return CheckpointSignature(
        kind="checkpoint",
        family=name,
        variant=variant,
        parts=frozenset(configs.components),
        native_size=_native_size(configs, family(name).native_size if name != "unknown" else 512),
        prediction_type=prediction,
        states_prediction=True,
        zero_terminal_snr=configs.scheduler.get("rescale_betas_zero_snr") is True,
        text_widths=_text_widths(configs),
        problem=_folder_problem(path, configs, name),
    )


def read_folder(path: Path) -> FolderConfigs:
    """Read and inspect the JSON files. Raises `BadFolder` for damaged ones, foreign classes and anything executable."""
    index = _json(path, INDEX)
    code = next((file for file in sorted(path.rglob("*")) if file.suffix in {".py", ".pyc", ".so", ".dll"}), None)
    if code is not None:
        raise BadFolder(
            f"The folder brings program code ({code.relative_to(path).as_posix()}); such models are not loaded."
        )
    components: dict[Part, Mapping[str, Any]] = {}
    for part, expected in COMPONENTS.items():
        entry = index.get(part)
        if entry is None or entry == [None, None]:
            continue
        if not isinstance(entry, list) or tuple(entry) != expected:
            raise BadFolder(f"{INDEX} names {entry!r} as {part}; known is {'.'.join(expected)}.")
        components[part] = _json(path, f"{part}/config.json")
    foreign = [key for key in index if key.startswith("transformer") and index[key] not in (None, [None, None])]
    if foreign or "unet" not in components:
        raise BadFolder(
            f"The pipeline {index.get('_class_name')!r} belongs to no known family (Stable Diffusion 1.x, 2.x, XL)."
        )
    scheduler = _json(path, "scheduler/scheduler_config.json")
    for name, config in (
        {INDEX: index} | {f"{part}/config.json": config for part, config in components.items()}
    ).items():
        if "auto_map" in config:
            raise BadFolder(f"{name} asks for program code (auto_map); such models are not loaded.")
    preview = _json(path, "preview.json") if (path / "preview.json").is_file() else None
    return FolderConfigs(components, scheduler, preview)


def folder_weight_files(path: Path) -> tuple[Path, ...]:
    """The weight files that loading would read, in a fixed order; empty when the folder is not sound."""
    try:
        return tuple(file for part in read_folder(path).components for file in component_files(path / part, part))
    except BadFolder:
        return ()


def component_files(folder: Path, part: Part) -> tuple[Path, ...]:
    """The .safetensors files of one component: single or sharded, full precision before the fp16 variant.

    Raises `BadFolder` when there are none.
    """
    stem = _STEMS.get(part, "model")
    for variant in ("", ".fp16"):
        single = folder / f"{stem}{variant}.safetensors"
        if single.is_file():
            return (single,)
        index = folder / f"{stem}.safetensors.index{variant}.json"
        if index.is_file():
            return _shards(index)
    if any(folder.glob("*.bin")) or any(folder.glob("*.ckpt")):
        raise BadFolder(f"{part} has only pickle weights (.bin), which can run code; save the model as .safetensors.")
    raise BadFolder(f"{part} has no weights: {part}/{stem}.safetensors is missing.")


def _shards(index: Path) -> tuple[Path, ...]:
    relative = f"{index.parent.name}/{index.name}"
    names = _json(index.parent.parent, relative).get("weight_map")
    if not isinstance(names, dict) or not names:
        raise BadFolder(f"{relative} is damaged: it has no weight_map.")
    files = []
    for name in sorted({str(value) for value in names.values()}):
        file = index.parent / name
        if "/" in name or "\\" in name or not name.endswith(".safetensors"):
            raise BadFolder(f"{relative} names {name!r}, which is no file of this folder.")
        if not file.is_file():
            raise BadFolder(f"{index.parent.name} is incomplete: {name} is missing.")
        files.append(file)
    return tuple(files)


def _json(path: Path, relative: str) -> dict[str, Any]:
    file = path / relative
    try:
        if file.stat().st_size > MAX_JSON:
            raise BadFolder(f"{relative} is larger than {MAX_JSON} bytes.")
        data = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise BadFolder(f"{relative} is missing.") from None
    except (OSError, ValueError, RecursionError):
        raise BadFolder(f"{relative} is damaged: it is no JSON.") from None
    if not isinstance(data, dict):
        raise BadFolder(f"{relative} is damaged: it is no JSON object.")
    return data


def _text_widths(configs: FolderConfigs) -> tuple[int, ...]:
    """Width of the token vectors of each text encoder; empty unless all are told."""
    parts: tuple[Part, ...] = ("text_encoder", "text_encoder_2")
    widths = [configs.components[part].get("hidden_size") for part in parts if part in configs.components]
    known = tuple(width for width in widths if isinstance(width, int))
    return known if len(known) == len(widths) else ()


def _family_and_variant(configs: FolderConfigs) -> tuple[Family, Variant]:
    unet = configs.components["unet"]
    variants: dict[Any, Variant] = {8: "edit", 9: "inpaint"}
    variant = variants.get(unet.get("in_channels"), "base")
    if "text_encoder_2" in configs.components or unet.get("addition_embed_type") == "text_time":
        return "sdxl" if "text_encoder" in configs.components else "sdxl_refiner", variant
    by_width = family_of_context(unet.get("cross_attention_dim"))
    if by_width != "unknown":
        return by_width, variant
    # Models of other widths: OpenCLIP (SD 2) computes with gelu, CLIP (SD 1) with quick_gelu.
    activation = configs.components.get("text_encoder", {}).get("hidden_act", "quick_gelu")
    return "sd2" if activation == "gelu" else "sd1", variant


def _native_size(configs: FolderConfigs, default: int) -> int:
    size, levels = (
        configs.components["unet"].get("sample_size"),
        configs.components.get("vae", {}).get("block_out_channels"),
    )
    if isinstance(size, int) and isinstance(levels, list) and 0 < size <= 1024 and 0 < len(levels) <= 8:
        return min(max(size << (len(levels) - 1), 64), 2048)
    return default


def _folder_problem(path: Path, configs: FolderConfigs, name: Family) -> str | None:
    wanted: list[Part] = ["unet", "vae", *(encoder.name for encoder in family(name).encoders)]
    missing = [part for part in wanted if part not in configs.components]
    if missing:
        return f"The folder has no {' and no '.join(missing)}; a checkpoint needs {', '.join(wanted)}."
    unet = configs.components["unet"]
    extra = next((option for option in _EXTRA_INPUTS if unet.get(option) is not None), None)
    if extra or unet.get("addition_embed_type") not in {None, "text_time"}:
        return f"The U-Net needs an extra input ({extra or unet.get('addition_embed_type')}), which is not supported."
    for part in wanted[2:]:
        vocabulary = configs.components[part].get("vocab_size", _CLIP_VOCABULARY)
        if not isinstance(vocabulary, int) or vocabulary < _CLIP_VOCABULARY:
            return f"{part} has a vocabulary of {vocabulary!r} words; CLIP's has {_CLIP_VOCABULARY}."
    if configs.scheduler.get("prediction_type", "epsilon") not in {"epsilon", "v_prediction"}:
        return f"The model predicts {configs.scheduler['prediction_type']!r}; known are epsilon and v_prediction."
    try:
        for part in wanted:
            component_files(path / part, part)
    except BadFolder as error:
        return str(error)
    return None

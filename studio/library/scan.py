"""From folders to `ModelInfo`: which files are models, and what one of them is. Reads headers and small JSON files only."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from studio.errors import DamagedFile
from studio.families import (
    describe_checkpoint,
    describe_embedding,
    describe_folder,
    describe_hypernetwork,
    describe_lora,
    describe_upscaler,
    folder_weight_files,
    is_model_folder,
    is_network_folder,
)
from studio.families.signature import CheckpointSignature, pickle_problem
from studio.families.text_signature import describe_text_encoder
from studio.library.header import METADATA, read_header
from studio.schema.models import ModelInfo, ModelKind

SAFE = ".safetensors"
PICKLES = (".ckpt", ".pt", ".pth", ".bin")
PREVIEWS = (".preview.png", ".png", ".preview.jpg", ".jpg", ".jpeg", ".preview.webp", ".webp")
MAX_DEPTH = 10
MAX_METADATA = 100_000
"""Characters of a LoRA's metadata that are kept, short entries first."""
MAX_TRIGGER = 300
FORBIDDEN_ALIASES = frozenset({"none", "addams"})
"""What too many LoRAs call themselves."""
TRIGGER_KEYS = ("modelspec.trigger_phrase", "ss_trigger_words", "trigger_words")

Stamp = tuple[tuple[str, int, int], ...]
"""Name, size and modification time (ns) of each file an entry consists of: while these stay, so does what it is."""


@dataclass(frozen=True)
class Found:
    """A file or diffusers folder that may be a model."""

    path: Path
    name: str
    """Relative to its root, without suffix, '/' separated."""
    layout_folder: bool
    stamp: Stamp


def find_models(root: Path, skip: tuple[Path, ...] = ()) -> Iterator[Found]:
    """All model files and diffusers folders below `root`; of one folder the pickle files last. Links are followed, once.

    `skip` are folders to leave out. Hidden names are left out, and so is what lies inside a diffusers folder or in that of a network of
    another sort.
    """
    seen: set[tuple[int, int]] = {_identity(path) for path in skip if path.is_dir()}
    yield from _walk(root, root, seen, 0)


def _walk(root: Path, folder: Path, seen: set[tuple[int, int]], depth: int) -> Iterator[Found]:
    try:
        identity = _identity(folder)
        if identity in seen or depth > MAX_DEPTH:
            return
        seen.add(identity)
        entries = sorted(os.scandir(folder), key=_order)
    except OSError:
        return
    for entry in entries:
        if entry.name.startswith(".") or not _is_text(entry.name):
            continue
        path = Path(entry.path)
        if _is_dir(entry) and _is_model_folder(path):
            yield Found(path, path.relative_to(root).as_posix(), True, folder_stamp(path))
        elif _is_dir(entry):
            if not is_network_folder(path):
                yield from _walk(root, path, seen, depth + 1)
        elif path.suffix.lower() in (SAFE, *PICKLES) and (stamp := _file_stamp(entry)):
            yield Found(path, path.relative_to(root).with_suffix("").as_posix(), False, stamp)


def folder_times(root: Path) -> dict[str, int]:
    """When each folder that `find_models` looks into was last changed, in ns: by files that came, went or got another name. Hidden ones are left out."""
    times: dict[str, int] = {}
    seen: set[tuple[int, int]] = set()
    pending = [(str(root), 0)]
    while pending:
        folder, depth = pending.pop()
        try:
            stat = os.stat(folder)
            entries = list(os.scandir(folder))
        except OSError:
            continue
        if (stat.st_dev, stat.st_ino) in seen:
            continue
        seen.add((stat.st_dev, stat.st_ino))
        times[folder] = stat.st_mtime_ns
        if depth < MAX_DEPTH:
            pending += [
                (entry.path, depth + 1) for entry in entries if not entry.name.startswith(".") and _is_dir(entry)
            ]
    return times


def describe(found: Found, place: ModelKind) -> tuple[ModelInfo, tuple[Path, ...]]:
    """What a found file or folder is, and its weight files; `place` is the kind its folder is for.

    Never raises: see `problem`.
    """
    if not found.layout_folder:
        return _file(_blank(found, place), found.path, place), (found.path,)
    try:
        weights = folder_weight_files(found.path)
        return _folder(_blank(found, place), weights, place), weights
    except OSError as error:
        problem = f"{found.path.name} cannot be read: {error.strerror}."
        return _blank(found, place).model_copy(update={"problem": problem}), ()


def _blank(found: Found, place: ModelKind) -> ModelInfo:
    return ModelInfo(
        kind=place,
        name=found.name,
        path=str(found.path),
        layout="folder" if found.layout_folder else "file",
        family="unknown",
        size=sum(size for _, size, _ in found.stamp),
        mtime=max((mtime for _, _, mtime in found.stamp), default=0) / 1e9,
    )


def _file(info: ModelInfo, path: Path, place: ModelKind) -> ModelInfo:
    if path.suffix.lower() != SAFE:
        return info.model_copy(update={"problem": pickle_problem(path.name)})
    try:
        header = read_header(path)
    except DamagedFile as error:
        return info.model_copy(update={"problem": error.message})
    except OSError as error:
        return info.model_copy(update={"problem": f"{path.name} cannot be opened: {error.strerror}."})
    if place == "lora":
        return _lora(info, header)
    if place == "embedding":
        return _embedding(info, header)
    if place == "hypernetwork":
        signature = describe_hypernetwork(header)
        return info.model_copy(update={"family": signature.family, "problem": signature.problem})
    if place == "text_encoder":
        text = describe_text_encoder(header)
        widths = (text.width,) if text.width else ()
        return info.model_copy(update={"text_widths": widths, "problem": text.problem})
    if place == "upscaler":
        upscaler = describe_upscaler(header)
        return info.model_copy(update={"enlarges": upscaler.enlarges, "problem": upscaler.problem})
    return _checkpoint(info, describe_checkpoint(header), place)


def _folder(info: ModelInfo, weights: tuple[Path, ...], place: ModelKind) -> ModelInfo:
    if weights:
        info = info.model_copy(update={"size": sum(file.stat().st_size for file in weights)})
    if place != "checkpoint":
        problem = "This is a whole model in a folder: put it into the checkpoints folder."
        return info.model_copy(update={"problem": problem})
    try:
        for file in weights:
            read_header(file)
    except DamagedFile as error:
        return info.model_copy(update={"problem": error.message})
    return _checkpoint(info, describe_folder(Path(info.path)), place)


def _checkpoint(info: ModelInfo, signature: CheckpointSignature, place: ModelKind) -> ModelInfo:
    """An autoencoder among the checkpoints counts as a VAE; a checkpoint among the VAEs has a problem."""
    problem = signature.problem
    if place == "vae" and signature.kind == "checkpoint":
        problem = "This is a checkpoint, not a VAE: put it into the checkpoints folder."
    facts = {
        "kind": "vae" if signature.kind == "vae" else place,
        "family": signature.family,
        "native_size": signature.native_size,
        "prediction_type": signature.prediction_type,
        "inpaint": signature.variant == "inpaint",
        "edit": signature.variant == "edit",
        "text_widths": signature.text_widths,
        "problem": problem,
    }
    return info.model_copy(update=facts)


def _lora(info: ModelInfo, header: dict[str, object]) -> ModelInfo:
    signature = describe_lora(header)
    raw = header.get(METADATA)
    metadata = capped({str(key): str(value) for key, value in raw.items()} if isinstance(raw, dict) else {})
    alias = metadata.get("ss_output_name", "")
    facts = {
        "family": signature.family,
        "problem": signature.problem,
        "metadata": metadata,
        "alias": "" if alias.casefold() in FORBIDDEN_ALIASES else alias[:MAX_TRIGGER],
        "trigger": next((metadata[key] for key in TRIGGER_KEYS if metadata.get(key)), "")[:MAX_TRIGGER],
    }
    return info.model_copy(update=facts)


def _embedding(info: ModelInfo, header: dict[str, object]) -> ModelInfo:
    signature = describe_embedding(header)
    facts = {
        "family": signature.family,
        "problem": signature.problem,
        "vectors": signature.vectors,
        "text_widths": signature.widths,
    }
    return info.model_copy(update=facts)


def preview_of(path: Path) -> str | None:
    """A picture of the same name beside the model."""
    stem = path if path.is_dir() else path.with_suffix("")
    candidates = (Path(f"{stem}{ending}") for ending in PREVIEWS)
    return next((str(candidate) for candidate in candidates if candidate.is_file()), None)


def capped(metadata: dict[str, str]) -> dict[str, str]:
    """The entries that fit into `MAX_METADATA` characters, shortest first, in their old order."""
    kept: set[str] = set()
    room = MAX_METADATA
    for key in sorted(metadata, key=lambda key: len(key) + len(metadata[key])):
        room -= len(key) + len(metadata[key])
        if room < 0:
            break
        kept.add(key)
    return {key: value for key, value in metadata.items() if key in kept}


def _order(entry: os.DirEntry[str]) -> tuple[bool, str, str]:
    return entry.name.lower().endswith(PICKLES), entry.name.casefold(), entry.name


def _is_text(name: str) -> bool:
    """Whether the name can be shown and sent; a file system may hold others."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _is_model_folder(path: Path) -> bool:
    try:
        return is_model_folder(path)
    except OSError:
        return False


def _identity(path: Path) -> tuple[int, int]:
    stat = path.stat()
    return stat.st_dev, stat.st_ino


def _is_dir(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False


def _file_stamp(entry: os.DirEntry[str]) -> Stamp:
    """Empty for what is no file, such as a broken link."""
    try:
        stat = entry.stat()
        return ((entry.name, stat.st_size, stat.st_mtime_ns),) if entry.is_file() else ()
    except OSError:
        return ()


def folder_stamp(path: Path) -> Stamp:
    """All files of a diffusers folder, two levels deep, with their path inside it."""
    stamps: list[tuple[str, int, int]] = []
    for entry in _scanned(path):
        stamps += _file_stamp(entry)
        inner = _scanned(Path(entry.path)) if _is_dir(entry) else []
        stamps += [(f"{entry.name}/{name}", size, mtime) for file in inner for name, size, mtime in _file_stamp(file)]
    return tuple(sorted(stamps))


def _scanned(folder: Path) -> list[os.DirEntry[str]]:
    try:
        return list(os.scandir(folder))
    except OSError:
        return []

"""Pickled model files (.ckpt .pt .pth .bin) written anew as .safetensors, each in a child process of its own (`conversion/`).

The program opens a pickle nowhere else, and here only when it is asked to. This side opens none: it finds the file, starts the child with little of
what this process has, believes only a file that its own reader of headers accepts, and puts that into place.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from studio.errors import DamagedFile, EngineError, IncompatibleFile, InvalidRequest, NotFound, from_dict
from studio.families import describe_checkpoint, describe_embedding, describe_hypernetwork, describe_lora
from studio.library import PICKLES, SAFE, find_models, read_header
from studio.library.header import METADATA
from studio.paths import REPOSITORY, Paths, atomic_target

COMMAND = (sys.executable, "-m", "studio.conversion.child")
_KEPT = ("PATH", "LANG", "LC_ALL", "SYSTEMROOT", "LD_LIBRARY_PATH", "TEMP", "TMP", "PYTHONPATH")
"""What a child is told of the environment: nothing secret, no proxy."""
_REASONS = {
    "SIGXCPU": "took too long",
    "SIGKILL": "was ended by the system, which ran out of memory or time",
    "SIGBUS": "was cut off meanwhile",
}


@dataclass(frozen=True)
class Converted:
    """A file that was written: what it is ("checkpoint", "lora" …), its tensors and bytes."""

    path: Path
    kind: str
    tensors: int
    size: int


def find_pickle(name: str, paths: Paths) -> Path:
    """The file that somebody calls `name`: a path, or else the name of a file among the models below `paths`.

    Raises `NotFound` where there is none, `InvalidRequest` where several have the name or it does not end as a pickle does.
    """
    path = Path(name).expanduser()
    if path.suffix.lower() not in PICKLES:
        raise InvalidRequest(f"{name!r} cannot be converted: files that end in {', '.join(PICKLES)} can.", field="file")
    if path.is_file():
        return path
    found = [each for each in _pickles(paths) if path.parent == Path() and each.name == path.name]
    if len(found) > 1:
        listed = ", ".join(str(each) for each in found)
        raise InvalidRequest(f"There are several files {name!r}: {listed}. Name one with its folder.", field="file")
    if not found:
        raise NotFound(f"There is no file {name!r}, here or among the models below {paths.root}.", field="file")
    return found[0]


def convert(source: Path, folder: Path | None = None, *, force: bool = False) -> Converted:
    """Write the pickled model `source` into `folder` (beside it) as .safetensors; `source` stays as it is.

    Raises `InvalidRequest` where the file exists and `force` is not set, `NotAllowed` for a file that holds code, `IncompatibleFile` for one
    without a model, `DamagedFile`, `StorageError`, and `EngineError` where the child ends in another way. Nothing is left then.
    """
    target = (folder or source.parent) / source.with_suffix(SAFE).name
    _refuse_existing(target, force)
    _refuse_other(source)
    with atomic_target(target) as temporary:
        count = _in_child(source, temporary)
        header = read_header(temporary)
        if len(header.keys() - {METADATA}) != count:
            raise DamagedFile(f"{source.name} was not converted: what was written is not what was read.")
        _refuse_existing(target, force)
    return Converted(target, _kind(header), count, target.stat().st_size)


def _pickles(paths: Paths) -> list[Path]:
    """All files below the folders of models that may be pickles."""
    folders = (
        *(paths.checkpoints, paths.loras, paths.embeddings, paths.hypernetworks, paths.text_encoders),
        *(paths.vae_approx, paths.upscalers, paths.face_restoration),
    )
    found = [model.path for folder in folders for model in find_models(folder) if not model.layout_folder]
    return [path for path in found if path.suffix.lower() in PICKLES]


def _refuse_existing(target: Path, force: bool) -> None:
    if target.exists() and not force:
        raise InvalidRequest(f"{target} exists already and is left as it is; --force writes over it.", field="force")


def _refuse_other(source: Path) -> None:
    """A file that is no pickle by its content: cheaper to say than to try."""
    try:
        read_header(source)
    except DamagedFile:
        return
    except OSError as error:
        raise NotFound(f"{source} cannot be read: {error.strerror}.", field="file") from None
    raise IncompatibleFile(
        f"{source.name} is no pickle: it is a .safetensors file already, only its name says otherwise."
    )


def _in_child(source: Path, target: Path) -> int:
    """Let a child convert `source` into the empty file `target`. Returns the number of tensors; raises what the child tells."""
    done = subprocess.run(
        [*COMMAND, str(source.resolve()), str(target.resolve())],
        cwd=REPOSITORY,
        env={name: os.environ[name] for name in _KEPT if name in os.environ},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        close_fds=True,
        check=False,
    )
    try:
        told = json.loads(done.stdout.splitlines()[-1])
        if "error" in told:
            raise from_dict(told["error"])
        return int(told["tensors"])
    except (IndexError, ValueError, KeyError, TypeError):
        said = done.stderr.decode("utf-8", "replace").strip().splitlines()
        raise EngineError(
            f"{source.name} was not converted: {_ending(done.returncode)}. {''.join(said[-1:])}".strip()
        ) from None


def _ending(code: int) -> str:
    """How a child ended that told nothing."""
    name = signal.Signals(-code).name if code < 0 else ""
    return f"its process {_REASONS.get(name, f'ended with {name or code}')}"


def _kind(header: dict[str, object]) -> str:
    """What a written file is, in a word or two."""
    if describe_hypernetwork(header).widths:
        return "hypernetwork"
    if describe_lora(header).modules:
        return "LoRA"
    judged = describe_checkpoint(header)
    if judged.kind in ("checkpoint", "vae"):
        return "VAE" if judged.kind == "vae" else f"checkpoint, {judged.family}"
    return "model of another kind" if describe_embedding(header).problem else "embedding"

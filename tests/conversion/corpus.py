"""Files that would run something when they are opened, in every format that torch has had, and honest ones."""

from __future__ import annotations

import io
import os
import pickle
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

LIGHTNING = "pytorch_lightning.callbacks.model_checkpoint"


class Call:
    """Pickled as a call of `function`."""

    def __init__(self, function: Callable[..., object], *arguments: object) -> None:
        self.function, self.arguments = function, arguments

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return self.function, self.arguments


def payloads(canary: Path) -> dict[str, tuple[Any, str]]:
    """Name of a trick -> what is pickled, and the name that the refusal tells. Each makes the file `canary` if it runs."""
    return {
        "os.system": (Call(os.system, f"touch '{canary}'"), f"{os.name}.system"),
        "exec": (Call(exec, f"open({str(canary)!r}, 'w')"), "builtins.exec"),
        "eval": (Call(eval, f"open({str(canary)!r}, 'w')"), "builtins.eval"),
        "getattr": (Call(getattr, "x", "upper"), "builtins.getattr"),
        "open": (Call(open, str(canary), "w"), "io.open"),
        "torch": (Call(torch.hub.load, str(canary.parent), "x"), "torch.hub.load"),
    }


def in_zip(thing: Any, path: Path) -> None:
    torch.save({"state_dict": {"a": torch.ones(2), "b": thing}}, path)


def in_legacy(thing: Any, path: Path) -> None:
    torch.save({"state_dict": {"a": torch.ones(2), "b": thing}}, path, _use_new_zipfile_serialization=False)


def bare(thing: Any, path: Path) -> None:
    """Only a pickle, of the newest protocol, which names things in another way."""
    path.write_bytes(pickle.dumps(thing, 4))


def bare_old(thing: Any, path: Path) -> None:
    path.write_bytes(pickle.dumps(thing, 0))


def instead_of_magic(thing: Any, path: Path) -> None:
    """Where a legacy file has its magic number, which is read before it is known to be one."""
    path.write_bytes(pickle.dumps(thing, 2) + pickle.dumps(1001, 2))


def in_tar(thing: Any, path: Path) -> None:
    with tarfile.open(path, "w") as archive:
        for name in ("storages", "tensors", "pickle"):
            data = pickle.dumps(thing, 2)
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))


def packed(thing: Any, path: Path) -> None:
    """As in a zip of torch, but deflated."""
    torch.save({"state_dict": {"b": thing}}, path)
    with zipfile.ZipFile(path) as archive:
        entries = {entry.filename: archive.read(entry) for entry in archive.infolist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in entries.items():
            archive.writestr(name, data)


FORMATS = {each.__name__: each for each in (in_zip, in_legacy, bare, bare_old, instead_of_magic, in_tar, packed)}


def with_stand_in(path: Path, after: bytes, class_name: str = f"{LIGHTNING}\nModelCheckpoint") -> None:
    """A checkpoint that names a class for which there is a stand-in, and then tries `after` with it."""
    torch.save({"a": torch.ones(2)}, path)
    with zipfile.ZipFile(path) as archive:
        entries = {entry.filename: archive.read(entry) for entry in archive.infolist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in entries.items():
            if name.endswith("data.pkl"):
                data = b"\x80\x02c" + class_name.encode() + b"\n" + after + b"."
            archive.writestr(name, data)

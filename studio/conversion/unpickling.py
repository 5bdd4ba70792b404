"""The one place that opens a pickle: `torch.load` with `weights_only=True`, which is the boundary against code in a file.

That reader keeps a list of names that a pickle may use: tensors, storages, plain containers. A name it does not know ends the reading before anything
is called. Two names that honest files hold are added, and neither of them is the real thing:

- `pytorch_lightning…ModelCheckpoint`, under which the first checkpoints of Stable Diffusion keep what their training noted. It stands there as the
  key of a dictionary. The stand-in is an object, not a class: it can be named, and neither called, made nor given a state, so whatever
  else a file tries with it is refused.
- `torch.nn.modules.container.ParameterDict`, in which the embeddings of 2022 keep their vectors. The stand-in is a class of one slot that takes
  the vectors out of its state and forgets the rest.
"""

from __future__ import annotations

import re
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import torch

from studio.conversion.limits import Refused
from studio.conversion.names import Form, names_in
from studio.errors import DamagedFile, IncompatibleFile, NotAllowed

_ZIP = b"PK\x03\x04"
_HARMLESS = re.compile(r"(torch|collections|_codecs|torch\.(_utils|_tensor|storage|nn\.parameter))\.\w+")
"""The names of tensors and plain containers. Only for the message: what is read is up to torch."""
_SHOWN = 3
_BLAMED = re.compile(r"GLOBAL (\S+)")
"""How torch says which name it does not know; of `builtins.eval` it says `eval`."""


class _Named:
    """Something that a file may name; see the module."""

    __slots__ = ()


class ParameterDict:
    """The vectors of an embedding of 2022, by word; see the module."""

    __slots__ = ("parameters",)
    parameters: dict[Any, Any]

    def __new__(cls) -> ParameterDict:
        """As unpickling makes it: empty, the state comes after."""
        made = super().__new__(cls)
        made.parameters = {}
        return made

    def __setstate__(self, state: object) -> None:
        """Take the vectors of a module's state."""
        found = state.get("_parameters") if isinstance(state, dict) else None
        self.parameters = dict(found) if isinstance(found, dict) else {}


_STAND_INS: dict[str, Any] = {
    "pytorch_lightning.callbacks.model_checkpoint.ModelCheckpoint": _Named(),
    "torch.nn.modules.container.ParameterDict": ParameterDict,
}


def load(path: Path) -> Any:
    """What the pickled file `path` holds: dictionaries, lists, numbers, text and tensors, on the CPU.

    Raises `NotAllowed` for a file that names anything else, with the name; `IncompatibleFile` for a TorchScript program and the .tar format
    before 2017; `DamagedFile` for what is no file of torch, or cut off; `OSError` where it cannot be read.
    """
    form = _form(path)
    if form == "tar":
        raise _refusal(path, form) or IncompatibleFile(
            f"{path.name} is in the .tar format of torch before 2017, which cannot be opened safely."
        )
    torch.serialization.add_safe_globals([(value, name) for name, value in _STAND_INS.items()])
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=form == "zip" and _is_stored(path))
    except Exception as error:  # whatever a file can bring about; which class it is tells less than the text
        raise _explained(path, form, error) from None


def _form(path: Path) -> Form:
    """Told as torch tells it: "zip" since version 1.6, "plain" before."""
    with path.open("rb") as stream:
        if stream.read(len(_ZIP)) == _ZIP:
            return "zip"
    return "tar" if tarfile.is_tarfile(path) else "plain"


def _is_stored(path: Path) -> bool:
    """Whether the weights lie in the file as they are, so that it can be mapped; somebody may have packed it anew."""
    try:
        with zipfile.ZipFile(path) as archive:
            return all(entry.compress_type == zipfile.ZIP_STORED for entry in archive.infolist())
    except zipfile.BadZipFile:
        return False


def _explained(path: Path, form: Form, error: Exception) -> Exception:
    """The error for the person who asked, of what `torch.load` raised."""
    said = str(error)
    blamed = _BLAMED.search(said)
    refusal = _refusal(path, form, blamed[1] if blamed else "")
    if refusal is not None:
        return refusal
    if isinstance(error, Refused):
        return NotAllowed(f"{path.name} made its reader try what no model needs ({error}), so it is not converted.")
    if "TorchScript" in said:
        return IncompatibleFile(f"{path.name} is a TorchScript program, not a file of weights.")
    if isinstance(error, MemoryError) or "not enough memory" in said or "unable to mmap" in said:
        return DamagedFile(f"{path.name} asks for more memory than a file of its size should need.")
    reason = f" ({_first(said)})" if " " in said else ""  # else it is a number or an opcode
    return DamagedFile(f"{path.name} is no pickled model, or is damaged{reason}.")


def _refusal(path: Path, form: Form, blamed: str = "") -> NotAllowed | None:
    """What to say of the names in a file that are not those of tensors, and of the one that torch `blamed`; None where there are none."""
    found = names_in(path, form)
    suspects = [name for name in found if not _HARMLESS.fullmatch(name) and name not in _STAND_INS]
    if blamed:
        suspects.insert(0, next((name for name in found if name in (blamed, f"builtins.{blamed}")), blamed))
    if not suspects:
        return None
    names = list(dict.fromkeys(_plain(name)[:100] for name in suspects))
    listed = ", ".join(names[:_SHOWN]) + (" …" if len(names) > _SHOWN else "")
    return NotAllowed(
        f"{path.name} names {listed}, which no model needs: opening such a file can run code, so it is not converted."
    )


def _first(text: str) -> str:
    """The first sentence of a message, without its full stop."""
    line = (text.strip().splitlines() or ["no reason given"])[0]
    return _plain(line.partition(". ")[0].rstrip("."))[:200]


def _plain(text: str) -> str:
    return "".join(each if each.isprintable() else "?" for each in text)

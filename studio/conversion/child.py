"""`python -m studio.conversion.child SOURCE TARGET`: open the pickled SOURCE, write TARGET, which exists and is empty, and say in one line of JSON how it went.

The order is the point: TARGET is opened, then memory, time and calls are taken away, then SOURCE is opened.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any, BinaryIO

import torch

from studio.conversion.contents import contents_of
from studio.conversion.limits import limit, refuse_calls
from studio.conversion.unpickling import load
from studio.conversion.writing import size_of, write
from studio.errors import DamagedFile, StorageError, StudioError
from studio.paths import storage_error

SLACK = 64 * 1024 * 1024
"""Bytes that tensors may take beside twice the file: those that share their memory are written out one by one."""
_HEADER = 32 * 1024 * 1024


def convert(source: Path, target: BinaryIO) -> int:
    """Write the model in `source` into `target`, flushed. Returns the number of tensors. Raises what `load` and `contents_of` do, `StorageError`."""
    most = 2 * source.stat().st_size + SLACK
    model = contents_of(load(source), source.name)
    if size_of(model.tensors, source.name) > most:
        raise DamagedFile(f"{source.name} is damaged: its tensors are larger together than such a file can hold.")
    try:
        write(target, model.tensors, model.metadata)
        target.flush()
    except OSError as error:
        raise storage_error(Path(target.name).parent, error) from error
    return len(model.tensors)


def main(argv: list[str]) -> int:
    """The exit code is 0 also when a file is refused: the line says so."""
    source, target = Path(argv[0]), Path(argv[1])
    torch.set_num_threads(1)
    torch.zeros(1).numpy()  # what torch imports at first use is imported now
    try:
        with target.open("r+b") as stream:
            size = source.stat().st_size
            limit(size, 2 * size + SLACK + _HEADER)
            refuse_calls()
            told: dict[str, Any] = {"tensors": convert(source, stream)}
    except StudioError as error:
        told = {"error": error.to_dict()}
    except OSError as error:
        told = {"error": StorageError(f"{source} cannot be read: {error.strerror or error}.").to_dict()}
    sys.stdout.write(json.dumps(told) + "\n")
    sys.stdout.flush()
    return 0


if __name__ == "__main__":
    code = main(sys.argv[1:])
    os._exit(code)  # nothing that a file left behind is asked to clear itself away

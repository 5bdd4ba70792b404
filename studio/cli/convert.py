"""`convert FILE…`: write pickled model files anew as .safetensors, which hold no code."""

from __future__ import annotations

import argparse
from pathlib import Path

from studio.cli.options import add_common, open_settings, say
from studio.converting import convert, find_pickle
from studio.errors import InvalidRequest, StudioError

FAILED, REFUSED = 1, 2
_UNITS = ((1e9, "GB"), (1e6, "MB"), (1e3, "kB"))


def add(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> argparse.ArgumentParser:
    """The parser of `convert`."""
    parser = subparsers.add_parser(
        "convert", help="write pickled model files (.ckpt .pt .pth .bin) anew as .safetensors"
    )
    parser.add_argument(
        "files", metavar="FILE", nargs="+", help="a pickled file, by its path or by its name among your models"
    )
    parser.add_argument("--out", metavar="FOLDER", help="where the new files go (default: beside the old ones)")
    parser.add_argument("--force", action="store_true", help="write over files that exist")
    add_common(parser, ())
    parser.set_defaults(run=run)
    return parser


def run(arguments: argparse.Namespace) -> int:
    """Convert one after the other, a line each. 2 when one was refused, 1 when one failed otherwise; the rest are converted all the same."""
    _, paths, _ = open_settings(arguments)
    folder = Path(arguments.out).expanduser() if arguments.out else None
    if folder is not None and not folder.is_dir():
        raise InvalidRequest(f"There is no folder {str(folder)!r}.", field="out")
    code = 0
    for number, name in enumerate(arguments.files, 1):
        try:
            source = find_pickle(name, paths)
            say(f"{number} of {len(arguments.files)}: {source} ({_size(source.stat().st_size)})")
            made = convert(source, folder, force=arguments.force)
        except StudioError as error:
            say(f"error: {error.message}")
            code = max(code, REFUSED if 400 <= error.status < 500 else FAILED)
        else:
            print(f"{made.path}  {made.kind}, {made.tensors:,} tensors, {_size(made.size)}", flush=True)
    return code


def _size(size: int) -> str:
    """In the unit that keeps it short."""
    return next(f"{size / unit:.1f} {name}" for unit, name in _UNITS if size >= unit or unit == 1e3)

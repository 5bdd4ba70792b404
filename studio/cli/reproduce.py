"""`reproduce FILE.png`: paint a picture again from its own text and say whether it is the same."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from studio.cli.options import add_common
from studio.cli.painting import opened_studio
from studio.errors import EngineError, NotFound
from studio.paths import atomic_write


def add(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> argparse.ArgumentParser:
    """The parser of `reproduce`."""
    parser = subparsers.add_parser(
        "reproduce", help="paint a picture again from its own parameters; 0 when every pixel is equal, else 1"
    )
    parser.add_argument("file", metavar="FILE", help="a picture with generation parameters in it")
    parser.add_argument("--out", metavar="PNG", help="keep the new picture here")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    add_common(parser)
    parser.set_defaults(run=run)
    return parser


def run(arguments: argparse.Namespace) -> int:
    """0 when the picture came out the same, 1 when not; what differs is printed."""
    file = Path(arguments.file).expanduser()
    if not file.is_file():
        raise NotFound(f"There is no file {str(file)!r}.", field="file")
    with opened_studio(arguments) as (studio, cancel):
        found = studio.reproduce(file.read_bytes(), cancel)
    if found is None:
        raise EngineError("Nothing was painted: the check was stopped.")
    if arguments.out:
        atomic_write(Path(arguments.out).expanduser(), found.png)
    if arguments.json:
        shown = {"equal": found.equal, "largest_difference": found.largest, "similarity": found.similarity}
        print(json.dumps({**shown, "causes": found.causes, "infotext": found.infotext}, ensure_ascii=False))
    else:
        print("\n".join([found.words, *(f"  {cause}" for cause in found.causes)]))
    return 0 if found.equal else 1

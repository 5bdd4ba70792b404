"""`bench NAME`: run one of the benchmarks in `bench/`; each prints JSON."""

from __future__ import annotations

import argparse
import importlib.util
import sys
from pathlib import Path

from studio.errors import UnknownName
from studio.paths import REPOSITORY


def add(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> argparse.ArgumentParser:
    """The parser of `bench`; everything after the name belongs to the benchmark."""
    parser = subparsers.add_parser(
        "bench", help="measure speed, or how well the embedded model paints; NAME is a file in bench/"
    )
    parser.add_argument("name", metavar="NAME", help=f"one of: {', '.join(benchmarks()) or 'none found'}")
    parser.add_argument("rest", nargs=argparse.REMAINDER, metavar="...", help="arguments of the benchmark")
    parser.set_defaults(run=run)
    return parser


def benchmarks() -> dict[str, Path]:
    """Names and files of the benchmarks that came with the program."""
    return {file.stem: file for file in sorted((REPOSITORY / "bench").glob("[a-z]*.py"))}


def run(arguments: argparse.Namespace) -> int:
    """Import the benchmark's file and call its `main(argv)`. Raises `UnknownName`."""
    found = benchmarks()
    if arguments.name not in found:
        raise UnknownName.of("benchmark", arguments.name, found)
    specification = importlib.util.spec_from_file_location(f"bench_{arguments.name}", found[arguments.name])
    assert specification is not None and specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    sys.modules[specification.name] = module
    specification.loader.exec_module(module)
    return int(module.main(arguments.rest))

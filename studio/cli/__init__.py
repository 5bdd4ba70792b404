"""The command line: one file a command, each with `add(subparsers)` and a `run(arguments) -> exit code`.

Exit codes: 0 done, 1 failed while working, 2 asked for something that is not possible, 130 stopped by Ctrl-C.
Flags, bounds and help texts come from the fields of `Settings` and `GenerationRequest`; nothing is written twice.
`test` is not here: `launch.py` runs it, because it installs the tools it needs.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from importlib import import_module

from studio import __version__
from studio.errors import StudioError

COMMANDS = ("serve", "generate", "train", "runs", "dataset", "models", "convert", "reproduce", "bench")
USER_ERRORS = range(400, 500)
LONGEST_PATH = 200
"""Characters of a path that are repeated: a prompt may stand where a file should."""


def main(argv: Sequence[str] | None = None, *, serve: Callable[[argparse.Namespace], int]) -> int:
    """Run one command; `serve` starts the server and is handed in, because a server is more than this package may know."""
    words = list(sys.argv[1:] if argv is None else argv)
    if not words or (words[0].startswith("-") and words[0] not in ("-h", "--help", "--version")):
        words.insert(0, "serve")
    arguments = build_parser(serve).parse_args(words)
    try:
        return int(arguments.run(arguments))
    except StudioError as error:
        print(f"error: {error.message}", file=sys.stderr)
        return 2 if error.status in USER_ERRORS else 1
    except OSError as error:
        if error.filename is None:
            raise
        print(f"error: {str(error.filename)[:LONGEST_PATH]}: {error.strerror}.", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


def build_parser(serve: Callable[[argparse.Namespace], int]) -> argparse.ArgumentParser:
    """The whole command line. The documentation test walks it."""
    parser = argparse.ArgumentParser(
        prog="launch.py",
        description="Latent Studio: Stable Diffusion on your own machine. Without a command the studio is started (serve).",
        epilog="`python launch.py test [pytest arguments]` runs the test suite.",
    )
    parser.add_argument("--version", action="version", version=f"Latent Studio {__version__}")
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name in COMMANDS:
        command = import_module(f"studio.cli.{name}").add(subparsers)
        if name == "serve":
            command.set_defaults(run=serve)
    return parser

"""`serve`: start the studio and its page. The default command."""

from __future__ import annotations

import argparse

from studio.cli.options import add_common, add_fields
from studio.settings import Settings

SERVER_FIELDS = ("port", "host", "listen", "share", "auth", "browser", "max_queue", "torch")


def add(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> argparse.ArgumentParser:
    """The parser of `serve`; what it runs is set by `studio.cli.main`."""
    parser = subparsers.add_parser("serve", help="start the studio and open its page (default)")
    add_fields(parser, Settings, SERVER_FIELDS)
    add_common(parser)
    return parser

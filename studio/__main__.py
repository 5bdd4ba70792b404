"""`python -m studio`: the command line with the server handed in."""

from __future__ import annotations

import sys

from studio.cli import main as command_line


def main() -> int:
    """Entry point of `python -m studio` and of the `latent-studio` script."""
    from studio.serve import serve

    return command_line(serve=serve)


if __name__ == "__main__":
    sys.exit(main())

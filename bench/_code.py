"""Which code a figure was measured with."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from typing import Any

from studio.paths import REPOSITORY

_WRITTEN = (":(exclude)docs", ":(exclude)bench/results", ":(exclude)*.md")
"""What benchmarks and their readers write: no figure depends on it."""
_SECONDS = 30.0


def code() -> dict[str, Any] | None:
    """The `commit` that this is a checkout of, and as `dirty` whether it was changed since; None outside of git.

    Only files that git knows count, without those that say what was measured.
    """
    told = _git("rev-parse", "--show-prefix", "HEAD")
    if told is None or told[0]:  # a folder of another checkout: its commit is not ours
        return None
    changed = _git("status", "--porcelain", "--untracked-files=no", "--", ".", *_WRITTEN)
    return None if changed is None else {"commit": told[1], "dirty": bool(changed)}


def named(found: Mapping[str, Any] | None) -> str:
    """What `code` has found, in words."""
    if found is None:
        return "a copy that git does not know"
    return f"commit {found['commit'][:12]}{', changed since' if found['dirty'] else ''}"


def _git(*words: str) -> list[str] | None:
    """The lines that git answers; None where there is no git, or no checkout."""
    environment = {**os.environ, "GIT_OPTIONAL_LOCKS": "0"}  # a look leaves nothing behind
    try:
        done = subprocess.run(
            ["git", *words],
            cwd=REPOSITORY,
            env=environment,
            capture_output=True,
            text=True,
            timeout=_SECONDS,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.splitlines()

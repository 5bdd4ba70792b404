"""The page's own files, and where they are served."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path

ASSETS = Path(__file__).parent / "assets"


@cache
def assets_url() -> str:
    """The path below which `ASSETS` are served. It changes with any of them, so that a browser may keep them for good."""
    digest = hashlib.sha256()
    for file in sorted(ASSETS.iterdir()):
        content = file.read_bytes()
        digest.update(f"{file.name} {len(content)} ".encode() + content)
    return f"/studio/page/{digest.hexdigest()[:16]}"

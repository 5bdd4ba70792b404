"""Running a coroutine from a test, whatever else the process does."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any


def run_alone(coroutine: Coroutine[Any, Any, None]) -> None:
    """Run to the end on a loop in a thread of its own: in the main thread the browser tests may have one running."""
    with ThreadPoolExecutor(1) as pool:
        pool.submit(asyncio.run, coroutine).result()

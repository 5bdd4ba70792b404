"""For all tests: no network, and threads that do not burn the processor while they wait.

Set before torch is imported anywhere. Without a passive wait two threads of torch beside a busy neighbour are about ten
times slower, and the suite runs beside its own servers and workers.
"""

from __future__ import annotations

import gc
import os

import pytest

os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
os.environ["THP_MEM_ALLOC_ENABLE"] = "1"  # as the workers of the program are started
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
gc.disable()  # while seven thousand tests are collected: nothing of them goes before the end


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests first, so that no worker is left alone with one in the end."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


def pytest_collection_finish() -> None:
    """What the collector of cycles would look through again and again, tests and libraries, is no longer its business."""
    gc.freeze()
    gc.enable()

"""What the tests of engines share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from studio.engine.runner import DiffusersEngine


@pytest.fixture(scope="module")
def engine() -> Iterator[DiffusersEngine]:
    """One that computes in float32 on the processor; checkpoints stay loaded from test to test of a file."""
    painter = DiffusersEngine("cpu", precision="fp32")
    yield painter
    painter.close()

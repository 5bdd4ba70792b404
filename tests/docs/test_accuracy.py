"""The committed table of accuracy is what is measured here and now, within rounding, and names every sampler and schedule."""

from __future__ import annotations

import importlib.util
import os
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

from studio.samplers import SAMPLERS, SCHEDULES
from studio.samplers.table import AUTOMATIC
from tests.vector_files import ENVIRONMENT_VARIABLE

DOCS = Path(__file__).resolve().parents[2] / "docs"
NUMBER = re.compile(r"(?<=\| )(0|\de-\d\d)(?= \|)")
MOVES, FLOOR = 4, 1e-6
"""Another processor may give this many times the difference, or one up to the floor: float32 resolves 1e-6 in latents of 10."""

pytestmark = pytest.mark.skipif(
    ENVIRONMENT_VARIABLE in os.environ, reason="the page is about the vectors of the repository"
)


@pytest.fixture(scope="module")
def builder() -> ModuleType:
    specification = importlib.util.spec_from_file_location("build_accuracy", DOCS / "build_accuracy.py")
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    sys.modules["build_accuracy"] = module  # dataclasses look their module up
    specification.loader.exec_module(module)
    return module


def test_the_page_is_what_is_measured(builder: ModuleType) -> None:
    rows, levels = builder.samplers(), builder.schedules()
    assert list(rows) == [spec.name for spec in SAMPLERS]
    assert set(levels) >= {spec.label for spec in SCHEDULES} - {AUTOMATIC}
    measured, committed = builder.page(rows, levels), (DOCS / "accuracy.md").read_text("utf-8")
    assert NUMBER.sub("#", measured) == NUMBER.sub("#", committed), (
        "docs/accuracy.md is stale: run docs/build_accuracy.py"
    )
    pairs = list(zip(NUMBER.findall(committed), NUMBER.findall(measured), strict=True))
    assert len(pairs) == 2 * len(rows) + len(levels)
    for said, found in ((float(one), float(other)) for one, other in pairs):
        assert max(said, found) <= max(MOVES * min(said, found), FLOOR), (said, found)

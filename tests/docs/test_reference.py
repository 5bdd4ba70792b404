"""The reference pages say what the program says: nothing undocumented, nothing documented that is gone."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

DOCS = Path(__file__).resolve().parents[2] / "docs"


@pytest.fixture(scope="module")
def builder() -> ModuleType:
    specification = importlib.util.spec_from_file_location("build_reference", DOCS / "build_reference.py")
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def test_reference_pages_are_current(builder: ModuleType) -> None:
    for name, text in builder.pages().items():
        assert (DOCS / name).read_text("utf-8") == text, f"docs/{name} is stale: run python docs/build_reference.py"


def test_every_page_of_the_documentation_is_linked() -> None:
    index = (DOCS / "README.md").read_text("utf-8")
    for page in DOCS.glob("*.md"):
        assert page.name == "README.md" or page.name in index, f"{page.name} is not linked in docs/README.md"

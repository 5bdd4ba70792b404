"""pyproject.toml names the libraries that the program imports, and no others."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterable

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.architecture.source import ROOT, imported, modules

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

DISTRIBUTION = {"PIL": "pillow"}  # import name -> name in the index, where they differ
# Libraries that others of the list need for what the program asks of them.
NEEDED_BY_OTHERS = {
    "peft": "diffusers' LoRA loading",
    "python-multipart": "FastAPI's form and file uploads",
}
OPTIONAL = {"xformers"}
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def names(requirements: list[str]) -> set[str]:
    return {canonicalize_name(Requirement(text).name) for text in requirements}


def roots(trees: Iterable[ast.Module]) -> set[str]:
    """The libraries that modules import, by their names in the index."""
    found = {name.split(".")[0] for tree in trees for name, _ in imported(tree)}
    outside = found - {*sys.stdlib_module_names, "studio", "tests", "launch", "tomllib", ""}
    return {canonicalize_name(DISTRIBUTION.get(root, root)) for root in outside}


def test_imports_and_dependencies_agree() -> None:
    declared, used = names(PROJECT["dependencies"]), roots(modules().values())
    assert used - OPTIONAL - declared == set(), "imported, but not in pyproject.toml"
    assert declared - used - NEEDED_BY_OTHERS.keys() == set(), "in pyproject.toml, but not imported"


def test_tests_import_what_the_test_extra_brings() -> None:
    trees = [ast.parse(path.read_text(encoding="utf-8")) for path in (ROOT / "tests").rglob("*.py")]
    declared = names(PROJECT["dependencies"]) | names(PROJECT["optional-dependencies"]["test"])
    assert roots(trees) - declared - {"bench"} == set()

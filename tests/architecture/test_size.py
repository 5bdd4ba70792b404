"""Small modules, small functions: what does not fit on a screen or two hides something."""

from __future__ import annotations

import ast

import pytest

from tests.architecture.source import ROOT, modules

MODULE_LINES, FUNCTION_LINES = 400, 60
DATA_TABLES: set[str] = set()  # modules that are tables, named here one by one


@pytest.mark.parametrize("folder", ["studio"])
def test_modules_are_short(folder: str) -> None:
    lengths = {
        path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8").count("\n")
        for path in (ROOT / folder).rglob("*.py")
    }
    assert {path: lines for path, lines in lengths.items() if lines > MODULE_LINES and path not in DATA_TABLES} == {}


def test_functions_are_short() -> None:
    long = [
        f"{path}:{node.lineno} {node.name}"
        for path, tree in modules().items()
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (node.end_lineno or 0) - node.lineno >= FUNCTION_LINES
    ]
    assert long == []

"""The source tree as the architecture tests see it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
STUDIO = ROOT / "studio"


@cache
def modules() -> dict[str, ast.Module]:
    """Path from the root, such as `studio/engine/denoise.py` -> syntax tree, of every module of the program."""
    paths = sorted(STUDIO.rglob("*.py"))
    return {path.relative_to(ROOT).as_posix(): ast.parse(path.read_text(encoding="utf-8")) for path in paths}


def unit(path: str) -> str:
    """The part of the program a module belongs to: the package (or module) directly below `studio`."""
    return path.split("/")[1].removesuffix(".py")


def imported(tree: ast.Module, *, types: bool = True) -> Iterator[tuple[str, int]]:
    """(dotted name, line) of everything a module imports, anywhere in it; relative imports appear with their dots.

    Without `types`, what is imported for annotations only (below `if TYPE_CHECKING:`) is left out.
    """
    guarded: set[ast.AST] = set()
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.If)
            and isinstance(node.test, ast.Name)
            and node.test.id == "TYPE_CHECKING"
            and not types
        ):
            guarded.update(child for statement in node.body for child in ast.walk(statement))
        if node in guarded:
            continue
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = "." * node.level + (node.module or "")
            yield base, node.lineno
            if base == "studio":
                yield from ((f"studio.{alias.name}", node.lineno) for alias in node.names)

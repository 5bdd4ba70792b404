"""Imports point down only: the table of studio/ARCHITECTURE.md as code."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from graphlib import TopologicalSorter

import pytest

from tests.architecture.source import ROOT, STUDIO, imported, modules, unit

LAYERS = {
    0: {"__init__", "schema", "settings", "paths", "errors", "registry", "locking", "computing"},
    1: {"prompt", "infotext", "library", "samplers", "families", "naming", "plots", "upscalers"},
    2: {"conversion", "engine", "training", "evaluation", "jobs"},
    3: {
        "app",
        "building",
        "captioning",
        "converting",
        "datasets",
        "encoders",
        "hires",
        "hypernetworks",
        "inspection",
        "lineage",
        "localise",
        "resolve",
        "plotting",
        "reproduce",
        "runs",
        "sketching",
        "sources",
        "steps",
        "trainer",
        "upscaling",
        "wording",
    },
    4: {"ui", "api", "cli"},
    5: {"__main__", "serve", "launcher"},
}
BELOW = {0: {0}, 1: {0, 1}, 2: {0, 1}, 3: {0, 1, 2, 3}, 4: {0, 1, 3}, 5: {0, 1, 2, 3, 4, 5}}
SIDEWAYS = {("training", "engine")}
LAYER_OF = {name: layer for layer, names in LAYERS.items() for name in names}

HEAVY = ("torch", "diffusers", "transformers", "peft", "accelerate", "gradio")
WEB = ("fastapi", "starlette", "uvicorn")
# Group of parts -> the parts, and the libraries that must not come along when they are imported.
LIGHT = {
    "words, knowledge, queue, composition, command line": (
        LAYERS[0] | LAYERS[1] | {"jobs"} | LAYERS[3] | {"cli", "__main__"},
        (*HEAVY, *WEB),
    ),
    "api and entry": ({"api", "serve"}, HEAVY),
    "page": ({"ui"}, tuple(name for name in HEAVY if name != "gradio")),
}


def allowed(importer: str, target: str) -> bool:
    if importer == target or (importer, target) in SIDEWAYS or target not in LAYER_OF:  # such as studio.__version__
        return True
    return LAYER_OF[target] in BELOW[LAYER_OF[importer]]


@pytest.mark.parametrize(
    "importer, target, expected",
    [
        ("ui", "app", True),
        ("ui", "schema", True),
        ("ui", "engine", False),
        ("api", "ui", False),
        ("engine", "app", False),
        ("training", "engine", True),
        ("engine", "training", False),
        ("jobs", "engine", False),
        ("infotext", "samplers", True),
        ("samplers", "engine", False),
        ("schema", "samplers", False),
        ("serve", "ui", True),
        ("app", "serve", False),
    ],
)
def test_the_table_says(importer: str, target: str, expected: bool) -> None:
    assert allowed(importer, target) is expected


def test_imports_are_seen_wherever_they_stand() -> None:
    code = "import a.b\ndef f():\n    from studio import engine\nif TYPE_CHECKING:\n    from c import d\nfrom .x import y\n"
    tree = ast.parse(code)
    assert {name for name, _ in imported(tree)} == {"a.b", "studio", "studio.engine", "c", ".x"}
    assert {name for name, _ in imported(tree, types=False)} == {"a.b", "studio", "studio.engine", ".x"}


def test_every_part_has_a_layer() -> None:
    names = {entry.name.removesuffix(".py") for entry in STUDIO.iterdir() if entry.suffix == ".py" or entry.is_dir()}
    assert {name for name in names if not name.startswith("__pycache__")} <= LAYER_OF.keys()


def test_imports_point_down() -> None:
    wrong = [
        f"{path}:{line} imports {name}"
        for path, tree in modules().items()
        for name, line in imported(tree)
        if name.startswith("studio.") and not allowed(unit(path), name.split(".")[1])
    ]
    assert wrong == []


def test_imports_are_absolute() -> None:
    wrong = [f"{path}:{line}" for path, tree in modules().items() for name, line in imported(tree) if name[0] == "."]
    assert wrong == []


def test_parts_do_not_import_each_other_in_a_circle() -> None:
    graph: dict[str, set[str]] = {}
    for path, tree in modules().items():
        targets = {name.split(".")[1] for name, _ in imported(tree) if name.startswith("studio.")}
        graph.setdefault(unit(path), set()).update(targets & LAYER_OF.keys() - {unit(path), "__init__"})
    TopologicalSorter(graph).prepare()


@pytest.mark.parametrize(
    "library, users",
    [("gradio", {"ui"}), ("fastapi", {"api"}), ("uvicorn", {"api", "serve"})],
)
def test_each_face_keeps_its_library(library: str, users: set[str]) -> None:
    """Types do not count: the page may name the FastAPI application that it is mounted on."""
    used = {
        unit(path)
        for path, tree in modules().items()
        for name, _ in imported(tree, types=False)
        if library in name.split(".")
    }
    assert used <= users


def light_modules(units: set[str]) -> list[str]:
    """The dotted names of the modules of `units`."""
    names = (
        path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        for path in modules()
        if unit(path) in units
    )
    return sorted(names)


@pytest.mark.parametrize("group", LIGHT)
def test_light_modules_bring_nothing_heavy_along(group: str) -> None:
    units, forbidden = LIGHT[group]
    program = (
        "import importlib, json, sys\n"
        "names, forbidden = json.loads(sys.argv[1])\n"
        "loaded = {}\n"
        "for name in names:\n"
        "    importlib.import_module(name)\n"
        "    for library in forbidden:\n"
        "        if library in sys.modules:\n"
        "            loaded.setdefault(library, name)\n"
        "print(json.dumps(loaded))\n"
    )
    argument = json.dumps([light_modules(units), forbidden])
    done = subprocess.run(
        [sys.executable, "-c", program, argument], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == {}, "library -> the module that loaded it first"

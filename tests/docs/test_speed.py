"""Every lever of speed stands in the page about it: by its name, and with a row of figures."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest

from studio.schema.levers import LEVERS

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "speed.md").read_text("utf-8")


def rows(bench: str) -> list[str]:
    """The first cells of the table that a benchmark wrote."""
    begin, end = importlib.import_module(f"bench.{bench}").MARKS
    table = PAGE.partition(begin)[2].partition(end)[0]
    return re.findall(r"^\| (?!---)([^|]+) \|", table, re.MULTILINE)[1:]


@pytest.mark.parametrize("name", LEVERS)
def test_what_is_always_on_is_described(name: str) -> None:
    assert f"* `{name}`: " in PAGE


def test_every_lever_has_its_figures() -> None:
    assert rows("levers") == list(importlib.import_module("bench.levers").LEVERS)
    exact = importlib.import_module("bench.exact")
    names = [f"`{name}`" if name in LEVERS else name for name in exact.FLAGS]
    assert sorted(rows("exact")) == sorted(names * len(exact.FORMATS))

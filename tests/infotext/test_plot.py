"""A plot in generation text: A1111's keys, and what cannot be read of them."""

from __future__ import annotations

from typing import Any

import pytest

from studio.infotext import parse_infotext, with_plot, write_infotext
from studio.resolve import resolve
from studio.schema.request import make_request
from tests.infotext.test_round_trip import Library

LINE = "Steps: 20, Sampler: Euler a, CFG scale: 7, Seed: 1, Size: 512x512, RNG: CPU"


def told(**plot: Any) -> str:
    resolved = resolve(make_request({"prompt": "a fox", "plot": plot}), Library(), iter(range(50, 99)).__next__)
    assert resolved.plot is not None
    return with_plot(write_infotext(resolved, 0, "1"), resolved.plot)


def read(text: str) -> Any:
    parsed = parse_infotext(text)
    return make_request(parsed.request).plot, parsed.notes


@pytest.mark.parametrize(
    "plot",
    [
        {"x_type": "Steps", "x_values": "8-12 (+2)"},
        {"x_type": "Size", "x_values": "512x768"},
        {"y_type": "Prompt S/R", "y_values": 'fox, "owl, small", Steps: 3'},
        {
            "x_type": "CFG Scale",
            "x_values": "3",
            "y_type": "Eta",
            "y_values": "0, 1",
            "z_type": "Sampler",
            "z_values": "Heun",
        },
        {"x_type": "Steps", "x_values": "1", "legend": False, "margin": 12, "random_seeds": True},
    ],
)
def test_a_plot_survives_its_text(plot: dict[str, Any]) -> None:
    found, notes = read(told(**plot))
    assert found == make_request({"plot": plot}).plot
    assert notes == []


def test_drawn_seeds_are_fixed_values_as_in_a1111() -> None:
    text = told(x_type="Seed", x_values="-1, 7, -1")
    assert 'X Type: Seed, X Values: "-1, 7, -1", Fixed X Values: "' in text
    found, _ = read(text)
    first, middle, last = found.x_values.split(", ")
    assert middle == "7" and first != last and int(first) >= 50 and int(last) >= 50


def test_the_script_of_another_program_is_named() -> None:
    for script in ("Script: SD upscale", "Script: X/Y/Z plot, X Type: Sharpness, X Values: 2"):
        found, notes = read(f"a\n{LINE}, {script}")
        assert found is None
        assert any(script.rpartition(": ")[2].split(",")[0] in note or "Sharpness" in note for note in notes)
    found, notes = read(f"a\n{LINE}, Script: x/y/z PLOT, X Type: cfg scale, X Values: 3-5")
    assert (found.x_type, found.x_values, notes) == ("CFG Scale", "3-5", [])


def test_values_without_the_script_are_named() -> None:
    found, notes = read(f"a\n{LINE}, X Type: Steps, X Values: 1-3")
    assert found is None and any("X Type Steps" in note for note in notes)

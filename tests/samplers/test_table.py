"""Names of samplers and schedules."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from studio.errors import UnknownName
from studio.samplers.table import (
    SAMPLERS,
    SCHEDULES,
    find_sampler,
    find_schedule,
    resolve_schedule,
    split_legacy_sampler_name,
)


def test_every_name_finds_its_row_in_any_case() -> None:
    for sampler in SAMPLERS:
        for name in (sampler.name, *sampler.aliases):
            assert find_sampler(name) is find_sampler(f" {name.upper()} ") is sampler
    for schedule in SCHEDULES:
        for name in (schedule.label, schedule.name, *schedule.aliases):
            assert find_schedule(name) is find_schedule(name.swapcase()) is schedule


def test_no_two_rows_share_a_name() -> None:
    for names in (
        [name.casefold() for row in SAMPLERS for name in {row.name.casefold(), *row.aliases}],
        [name for row in SCHEDULES for name in {n.casefold() for n in (row.label, row.name, *row.aliases)}],
    ):
        assert len(names) == len(set(names))


@pytest.mark.parametrize("row", [*SAMPLERS, *SCHEDULES], ids=lambda row: row.name)
def test_every_row_has_its_code(row: Any) -> None:
    assert callable(row.load())


@pytest.mark.parametrize(
    "sampler, schedule, expected",
    [
        ("DPM++ 2M", "Automatic", "Karras"),
        ("k_dpmpp_2m_sde", "automatic", "Exponential"),
        ("Euler", "Automatic", "Uniform"),
        ("Euler", "SGMUniform", "SGM Uniform"),
        ("DPM++ 2M", "Simple", "Simple"),
    ],
)
def test_resolving_a_schedule(sampler: str, schedule: str, expected: str) -> None:
    assert resolve_schedule(sampler, schedule).label == expected


def test_unknown_names_carry_near_matches() -> None:
    with pytest.raises(UnknownName, match="'DPM\\+\\+ 2N'") as error:
        find_sampler("DPM++ 2N")
    assert "DPM++ 2M" in error.value.choices
    with pytest.raises(UnknownName) as error:
        find_schedule("exponental")
    assert "Exponential" in error.value.choices


@pytest.mark.parametrize(
    "name, expected",
    [
        ("DPM++ 2M Karras", ("DPM++ 2M", "Karras")),
        ("DPM++ 2M SDE Heun Exponential", ("DPM++ 2M SDE Heun", "Exponential")),
        ("DPM++ 2M SDE SGMUniform", ("DPM++ 2M SDE", "SGM Uniform")),
        ("DPM++ 2M SGM Uniform", ("DPM++ 2M", "SGM Uniform")),
        ("euler a karras", ("euler a", "Karras")),
        ("Euler a", ("Euler a", None)),
        ("DDIM", ("DDIM", None)),
        ("Karras", ("Karras", None)),
        ("Foo Karras", ("Foo", "Karras")),
        ("", ("", None)),
    ],
)
def test_splitting_legacy_names(name: str, expected: tuple[str, str | None]) -> None:
    assert split_legacy_sampler_name(name) == expected


def test_api_options_of_a_sampler() -> None:
    assert find_sampler("DPM++ SDE").options == {"scheduler": "karras", "second_order": True, "brownian_noise": True}
    assert find_sampler("Euler").options == {}


def test_importing_the_package_loads_no_heavy_library() -> None:
    code = "import sys, studio.samplers; print([m for m in ('torch', 'numpy', 'scipy') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"

from __future__ import annotations

from typing import get_args

import pytest

from studio.errors import SettingsError
from studio.schema.levers import LEVERS, ROUNDED_BY, LeverName, levers
from studio.settings import Settings, updated


def test_every_lever_is_described_and_known_by_its_name() -> None:
    assert tuple(LEVERS) == get_args(LeverName)
    assert levers(", ".join(LEVERS)) == frozenset(LEVERS) >= ROUNDED_BY
    assert levers("") == levers(" , ") == frozenset()
    assert levers("packing") == {"packing"}


@pytest.mark.parametrize(
    "text, told", [("pakcing", "did you mean 'packing'"), ("everything", "'everything' is not one")]
)
def test_another_name_is_refused_with_what_is_allowed(text: str, told: str) -> None:
    with pytest.raises(ValueError, match=told) as refused:
        levers(f"one-pass,{text}")
    assert all(name in str(refused.value) for name in LEVERS)
    with pytest.raises(SettingsError, match=told) as refused_setting:
        updated(Settings(), {"without": text})
    assert refused_setting.value.field == "without"

"""Sampler names of old infotexts against how A1111 read them."""

from __future__ import annotations

from typing import Any

import pytest

from studio.samplers.table import (
    AUTOMATIC,
    SAMPLERS,
    SCHEDULES,
    find_schedule,
    resolve_schedule,
    split_legacy_sampler_name,
)
from tests.vector_files import load_json


@pytest.mark.parametrize("entry", load_json("infotext.json")["sampler_names"])
def test_sampler_name_vectors(entry: dict[str, Any]) -> None:
    """Names as A1111 wrote them run as it runs them.

    Where A1111 did not know the name it silently took its first sampler; here that is an error, or a better match.
    """
    written, expected = entry["sampler"] or "", entry["run"]
    head, schedule = split_legacy_sampler_name(written)
    if expected[0] != head:
        if entry["sampler"]:
            assert expected[0] == SAMPLERS[0].name
        return
    chosen = schedule or entry["schedule"] or AUTOMATIC
    if chosen.casefold() not in {name.casefold() for s in SCHEDULES for name in (s.name, s.label, *s.aliases)}:
        assert expected[1] == AUTOMATIC
        return
    # Its rule takes the first schedule in the list that fits, so it reads "SGM Uniform" as "Uniform" and the rest as unknown.
    if schedule == "SGM Uniform" and expected[1] == "Uniform":
        return
    resolved = find_schedule(chosen).label
    assert expected[1] in {resolved, resolve_schedule(head, resolved).label}

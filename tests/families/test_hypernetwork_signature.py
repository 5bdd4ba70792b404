"""What a hypernetwork is, by its header alone."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from studio.families import describe_checkpoint, describe_hypernetwork


def header(shapes: dict[str, list[int]], notes: Any = None) -> dict[str, Any]:
    said = {} if notes is None else {"__metadata__": {"hypernetwork": json.dumps(notes)}}
    return {**said, **{key: {"dtype": "F16", "shape": shape} for key, shape in shapes.items()}}


def both(width: int, *layers: list[int]) -> dict[str, list[int]]:
    return {f"{width}.{half}.linear.{n}.weight": shape for half in "kv" for n, shape in enumerate(layers)}


def test_a_sound_one() -> None:
    shapes = {**both(768, [1536, 768], [768, 1536]), **both(320, [640, 320], [320, 640])}
    shapes |= {"768.k.norm.0.weight": [1536], "768.k.norm.0.bias": [1536], "320.v.linear.1.bias": [320]}
    found = describe_hypernetwork(header(shapes, {"activation_func": "ReLU", "activate_output": False}))
    assert found.problem is None
    assert (found.widths, found.layers, found.activation, found.activates_output) == ((320, 768), 2, "relu", False)
    assert found.family == "sd1"
    assert describe_hypernetwork(header(both(1024, [1024, 1024]))).family == "sd2"
    plain = describe_hypernetwork(header(both(768, [768, 768])))
    assert (plain.activation, plain.activates_output) == ("linear", True), "what A1111 takes"


def test_among_the_checkpoints_it_is_told_where_it_belongs() -> None:
    assert "hypernetworks folder" in (describe_checkpoint(header(both(768, [768, 768]))).problem or "")


@pytest.mark.parametrize(
    "shapes, notes, said",
    [
        ({}, None, "is no hypernetwork"),
        ({"emb_params": [3, 768]}, None, "begins with emb_params"),
        ({**both(8, [8, 8]), "x": [1]}, None, "is no hypernetwork"),
        ({"8.k.linear.0.weight": [8, 8]}, None, "8.v.linear.0.weight does not follow"),
        (
            both(8, [16, 8], [8, 8]),
            None,
            "8.k.linear.1.weight does not follow what is before it: [8, 8], where [n, 16]",
        ),
        (both(8, [16, 8]), None, "The last layer of 8.k gives 16 numbers, not 8"),
        ({**both(8, [8, 8]), "8.v.linear.0.bias": [7]}, None, "8.v.linear.0.bias does not fit"),
        ({**both(8, [8, 8]), "8.v.norm.0.bias": [8]}, None, "8.v.norm.0.weight is missing"),
        (both(8, [8, 8]), {"activation_func": "prelu"}, "'prelu' is not known"),
        (both(8, *[[8, 8]] * 21), None, "at most 20"),
    ],
)
def test_what_is_none_says_why(shapes: dict[str, list[int]], notes: Any, said: str) -> None:
    assert said in (describe_hypernetwork(header(shapes, notes)).problem or "")


KEYS = st.sampled_from([f"8.{half}.{kind}.{n}.{part}" for half in "kv" for kind in ("linear", "norm") for n in (0, 1)
                        for part in ("weight", "bias")]) | st.text(max_size=8)  # fmt: skip


@given(st.dictionaries(KEYS, st.lists(st.integers(-1, 9), max_size=3), max_size=8), st.text(max_size=9))
def test_any_header_is_judged(shapes: dict[str, list[int]], notes: str) -> None:
    odd = {**header(shapes), "__metadata__": {"hypernetwork": notes}}
    found = describe_hypernetwork(odd)
    assert found.problem is not None or (found.widths and found.layers)

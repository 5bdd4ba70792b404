"""What an embedding file is."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from studio.families import describe_embedding
from tests.library.models import LORA

Shapes = dict[str, list[int]]


def header(tensors: Shapes) -> dict[str, Any]:
    return {name: {"dtype": "F32", "shape": shape, "data_offsets": [0, 0]} for name, shape in tensors.items()}


@pytest.mark.parametrize(
    "tensors, family, keys, widths, vectors",
    [
        ({"emb_params": [4, 768]}, "sd1", ("emb_params",), (768,), 4),
        ({"emb_params": [75, 1024]}, "sd2", ("emb_params",), (1024,), 75),
        ({"<my-cat>": [768]}, "sd1", ("<my-cat>",), (768,), 1),
        ({"clip_g": [2, 1280], "clip_l": [2, 768]}, "sdxl", ("clip_l", "clip_g"), (768, 1280), 2),
        ({"clip_g": [1280], "clip_l": [768]}, "sdxl", ("clip_l", "clip_g"), (768, 1280), 1),
        ({"emb_params": [2, 128]}, "unknown", ("emb_params",), (128,), 2),
    ],
)
def test_it_is_known_by_its_widths(
    tensors: Shapes, family: str, keys: tuple[str, ...], widths: tuple[int, ...], vectors: int
) -> None:
    found = describe_embedding({"__metadata__": {"format": "pt"}, **header(tensors)})
    assert (found.family, found.keys, found.widths, found.vectors) == (family, keys, widths, vectors)
    assert found.problem is None


@pytest.mark.parametrize(
    "tensors, reason",
    [
        ({}, "no tensors"),
        (LORA, "put it into the loras folder"),
        ({"a": [1, 768], "b": [1, 768]}, "holds 2 tensors"),
        ({"clip_l": [1, 768], "clip_g": [1, 1280], "more": [1]}, "holds 3 tensors"),
        ({"clip_l": [1, 768], "clip_g": [2, 1280]}, "1 and 2 vectors"),
        ({"emb_params": [76, 768]}, "at most 75"),
        ({"emb_params": [0, 768]}, "no vectors"),
        ({"emb_params": []}, "no vectors"),
        ({"emb_params": [1, 2, 768]}, "no vectors"),
    ],
)
def test_what_is_none_says_why(tensors: Shapes, reason: str) -> None:
    assert reason in (describe_embedding(header(tensors)).problem or "")


@given(
    st.dictionaries(
        st.text(max_size=8) | st.sampled_from(["clip_l", "clip_g"]),
        st.none()
        | st.just({"shape": [1, 768]})
        | st.fixed_dictionaries({"shape": st.lists(st.integers(-1, 90), max_size=3)}),
        max_size=3,
    )
)
def test_any_header_is_judged(odd: dict[str, Any]) -> None:
    found = describe_embedding(odd)
    assert found.problem is not None or (1 <= found.vectors <= 75 and len(found.keys) == len(found.widths) >= 1)

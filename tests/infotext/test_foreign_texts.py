"""Every text of the vectors, from whatever program, becomes a request that can be asked for here."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from studio.app import Studio
from studio.building import build
from studio.engine.fake import FakeEngine
from studio.paths import Paths
from studio.schema.request import make_request
from studio.settings import Settings
from tests.vector_files import load_json

VECTORS = load_json("infotext.json")
TEXTS = [*VECTORS["texts"], *VECTORS["create"]]
NUMBERS = {"Steps": "steps", "Seed": "seed", "CFG scale": "cfg_scale", "Size-1": "width", "Size-2": "height"}


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Studio]:
    made = build(Settings(), Paths(tmp_path_factory.mktemp("data")), engine=FakeEngine(), queue=False)
    yield made
    made.close()


@pytest.mark.parametrize("case", TEXTS, ids=lambda case: repr(case["text"])[:60])
def test_vectors_become_a_request(case: dict[str, Any], studio: Studio) -> None:
    parsed = studio.read_infotext(case["text"])
    request = make_request(parsed.request)
    assert request.negative_prompt == parsed.negative_prompt
    tag = f"<hypernet:{request.hypernetwork}:{request.hypernetwork_strength}>"  # which A1111 adds, and ours keeps in its fields
    assert request.prompt.startswith(parsed.prompt.removesuffix(tag))
    assert request.hypernetwork == parsed.pairs.get("Hypernet", "")
    for key, name in NUMBERS.items():
        if key not in parsed.pairs:
            continue
        taken = name in parsed.request and float(parsed.pairs[key]) == getattr(request, name)
        assert taken or any(key in note for note in parsed.notes)


@pytest.mark.parametrize("case", TEXTS, ids=lambda case: repr(case["text"])[:60])
def test_vectors_read_again_what_was_read(case: dict[str, Any], studio: Studio) -> None:
    """A request names models as they are here, or as the text did: it can be validated, stored and read any number of times."""
    first = make_request(studio.read_infotext(case["text"]).request)
    assert make_request(first.model_dump(mode="json")) == first

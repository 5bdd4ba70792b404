"""The hypernetworks folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from studio.errors import UnknownName
from studio.library import Library
from studio.paths import Paths
from tests.library.models import EMBEDDING, save

NETWORK = {f"768.{half}.linear.0.weight": [768, 768] for half in "kv"}


def test_what_is_found_and_what_it_is(tmp_path: Path) -> None:
    paths = Paths(tmp_path)
    library = Library(paths)
    save(paths.hypernetworks / "old" / "ink.safetensors", NETWORK)
    save(paths.hypernetworks / "soft.safetensors", EMBEDDING)
    (paths.hypernetworks / "wash.pt").write_bytes(b"x")
    found = {each.name: each for each in library.hypernetworks()}
    assert list(found) == ["old/ink", "soft", "wash"]
    assert (found["old/ink"].kind, found["old/ink"].family, found["old/ink"].problem) == ("hypernetwork", "sd1", None)
    assert "is no hypernetwork" in (found["soft"].problem or "")
    assert (found["wash"].problem or "").endswith("python launch.py convert wash.pt")
    assert library.loras() == library.embeddings() == []
    assert library.hypernetwork("ink.safetensors").name == "old/ink"
    assert library.hypernetwork("ink").sha256 is not None
    with pytest.raises(UnknownName, match="no hypernetwork named 'inq'"):
        library.hypernetwork("inq")


def test_new_files_are_found_when_they_are_asked_for_or_looked_for(tmp_path: Path) -> None:
    paths = Paths(tmp_path)
    library = Library(paths)
    assert library.hypernetworks() == []
    save(paths.hypernetworks / "ink.safetensors", NETWORK)
    assert library.hypernetwork("ink").name == "ink"
    save(paths.hypernetworks / "wash.safetensors", NETWORK)
    library.refresh()
    assert [each.name for each in library.hypernetworks()] == ["ink", "wash"]
    assert [file.path.name for file in library.unhashed_files() if file.path.parent == paths.hypernetworks] == [
        "wash.safetensors"
    ]

"""The embeddings folder, and which embeddings a checkpoint takes."""

from __future__ import annotations

import base64
import hashlib
import os
from pathlib import Path
from typing import Any

import pytest

from studio.errors import UnknownName
from studio.families import EmbeddingSignature
from studio.library import Library, shelf
from studio.library.embeddings import embedding_words, fits, word_of
from studio.paths import Paths
from studio.schema.models import ModelInfo
from tests.library.models import EMBEDDING, EMBEDDING_XL, LORA, SD1, save, save_folder
from tests.vector_files import load_json


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    return Paths(tmp_path)


@pytest.fixture
def library(paths: Paths) -> Library:
    return Library(paths)


def info(name: str, **facts: Any) -> ModelInfo:
    fixed: dict[str, Any] = {"kind": "embedding", "layout": "file", "family": "sd1", "size": 1, "mtime": 0.0}
    return ModelInfo(**{**fixed, "name": name, "path": f"/e/{name}.safetensors", "text_widths": (768,), **facts})


def test_what_is_found_and_what_it_is(library: Library, paths: Paths) -> None:
    save(paths.embeddings / "Soft Wash.safetensors", EMBEDDING)
    save(paths.embeddings / "xl" / "grand.v2.safetensors", EMBEDDING_XL)
    save(paths.embeddings / "ink.safetensors", LORA)
    found = {each.name: each for each in library.embeddings()}
    assert list(found) == ["ink", "Soft Wash", "xl/grand.v2"]
    wash, grand = found["Soft Wash"], found["xl/grand.v2"]
    assert (wash.kind, wash.family, wash.vectors, wash.text_widths, wash.problem) == (
        "embedding",
        "sd1",
        3,
        (768,),
        None,
    )
    assert (grand.family, grand.vectors, grand.text_widths) == ("sdxl", 2, (768, 1280))
    assert "loras folder" in (found["ink"].problem or "")
    assert [word_of(each) for each in found.values()] == ["ink", "Soft Wash", "grand.v2"]
    assert library.loras() == []


def test_pickles_are_listed_with_how_to_convert_them_and_never_opened(
    library: Library, paths: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths.embeddings.mkdir()
    for ending in ("pt", "bin"):
        (paths.embeddings / f"old-{ending}.{ending}").write_bytes(b"x")
    monkeypatch.setattr(Path, "open", lambda *_: pytest.fail("a pickle was opened"))
    problems = [each.problem or "" for each in library.embeddings()]
    assert len(problems) == 2
    assert all("python launch.py convert old-" in problem for problem in problems)


def test_the_list_is_always_as_the_folder_is(library: Library, paths: Paths) -> None:
    assert library.embeddings() == []
    path = save(paths.embeddings / "new.safetensors", EMBEDDING)
    assert [each.vectors for each in library.embeddings()] == [3]
    save(path, {"emb_params": [5, 768]})
    assert [each.vectors for each in library.embeddings()] == [5]
    path.unlink()
    assert library.embeddings() == []


def test_nothing_is_read_again_while_no_folder_changes(
    library: Library, paths: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(paths.embeddings / "sub" / "a.safetensors", EMBEDDING)
    (paths.embeddings / "empty").mkdir()
    looked: list[Path] = []
    original = shelf.find_models
    monkeypatch.setattr(shelf, "find_models", lambda root, skip: looked.append(root) or original(root, skip))

    def long_ago() -> None:
        for folder in (paths.embeddings, paths.embeddings / "sub", paths.embeddings / "empty"):
            os.utime(folder, ns=(1, 1))

    long_ago()
    assert [len(library.embeddings()) for _ in range(3)] == [1, 1, 1]
    assert len(looked) == 1
    save(paths.embeddings / "empty" / "b.safetensors", EMBEDDING)
    assert len(library.embeddings()) == 2
    assert len(library.embeddings()) == 2, "a folder that has just changed is looked at again"
    assert len(looked) == 3
    long_ago()
    assert [len(library.embeddings()) for _ in range(2)] == [2, 2]
    assert len(looked) == 4


def test_the_hash_is_of_the_whole_file(library: Library, paths: Paths) -> None:
    path = save(paths.embeddings / "sub" / "wash.safetensors", EMBEDDING, {"sshs_model_hash": "ff" * 32})
    assert library.embeddings()[0].short_hash is None
    assert library.embedding_hashes() == {"wash": ""}
    digits = hashlib.sha256(path.read_bytes()).hexdigest()[:12]
    assert library.embedding("sub/wash").short_hash == digits
    assert library.embedding_hashes() == {"wash": digits}
    with pytest.raises(UnknownName, match="no embedding named 'wish'"):
        library.embedding("wish")


@pytest.mark.parametrize(
    "case",
    [case for case in load_json("hashes.json")["files"] if case["name"].endswith(".safetensors")],
    ids=lambda case: case["name"],
)
def test_vectors_of_hashes(
    case: dict[str, Any], library: Library, paths: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The files are no embeddings, which the hash does not depend on."""
    monkeypatch.setattr("studio.library.scan.describe_embedding", lambda header: EmbeddingSignature())
    paths.embeddings.mkdir()
    (paths.embeddings / case["name"]).write_bytes(base64.b64decode(case["base64"]))
    assert library.embedding(case["name"].removesuffix(".safetensors")).short_hash == case["ti_shorthash"]


def test_they_are_hashed_in_the_background(library: Library, paths: Paths) -> None:
    path = save(paths.embeddings / "wash.safetensors", EMBEDDING)
    library.embeddings()
    assert path in [file.path for file in library.unhashed_files()]


def test_checkpoints_tell_the_widths_of_their_text_encoders(library: Library, paths: Paths) -> None:
    save(paths.checkpoints / "a.safetensors", SD1)
    save_folder(paths.checkpoints / "f")
    assert library.checkpoint("a").text_widths == (768,)
    assert library.checkpoint("f").text_widths == ()
    (paths.checkpoints / "f" / "text_encoder" / "config.json").write_text('{"hidden_size": 128}')
    library.refresh()
    assert library.checkpoint("f").text_widths == (128,)


@pytest.mark.parametrize(
    "family, widths, expected",
    [("sd1", (768,), True), ("sd1", (128,), False), ("unknown", (768,), True), ("sd1", (), True), ("sd2", (), False)],
)
def test_widths_decide_then_the_family(family: str, widths: tuple[int, ...], expected: bool) -> None:
    checkpoint = info("c", kind="checkpoint", family=family, text_widths=widths)
    assert fits(info("e"), checkpoint) is expected


def test_of_several_with_one_word_the_uppermost_that_fits_counts() -> None:
    checkpoint = info("c", kind="checkpoint")
    wide = {"family": "sdxl", "text_widths": (768, 1280)}
    upper, lower = info("wash", **wide), [info("a/b/wash", vectors=1), info("z/wash", vectors=2)]
    words = embedding_words([*lower, upper], checkpoint)
    assert words.vectors == {"wash": 2}
    assert words.refused == {}
    words = embedding_words([upper], checkpoint)
    assert words.usable == {} and "Stable Diffusion XL" in words.refused["wash"]

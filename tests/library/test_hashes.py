"""Hashes against AUTOMATIC1111's (tests/vectors/hashes.json), and the cache."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path
from typing import Any

import pytest

from studio.library.hashes import (
    LORA_DIGITS,
    FileHashes,
    HashCache,
    file_hashes,
    folder_id,
    legacy_hash,
    lora_short_hash,
)
from studio.library.header import METADATA, read_header
from studio.library.scan import FORBIDDEN_ALIASES
from tests.vector_files import load_json

VECTORS = load_json("hashes.json")


def written(folder: Path, case: dict[str, Any]) -> Path:
    path = folder / case["name"]
    path.write_bytes(base64.b64decode(case["base64"]))
    return path


@pytest.mark.parametrize("case", VECTORS["files"], ids=lambda case: case["name"])
def test_vectors_files(case: dict[str, Any], tmp_path: Path) -> None:
    path = written(tmp_path, case)
    hashes = file_hashes(path)
    assert hashes is not None
    assert hashes.sha256 == case["sha256"]
    assert hashes.sha256[:10] == case["checkpoint"]["model_hash"]
    assert legacy_hash(path) == case["checkpoint"]["legacy_hash"]
    metadata = read_header(path).get(METADATA, {}) if case["lora"]["is_safetensors"] else {}
    assert lora_short_hash(metadata, hashes) == case["lora"]["shorthash"]
    if "addnet_hash" in case:
        assert hashes.body == case["addnet_hash"]
    assert hashes.sha256[:LORA_DIGITS] == case["ti_shorthash"]
    if case["lora_forge"] != "same" and not metadata.get("sshs_model_hash"):
        assert hashes.sha256[:12] == case["lora_forge"]["shorthash"]


@pytest.mark.parametrize("case", VECTORS["synthetic"], ids=lambda case: str(case["length"]))
def test_vectors_synthetic(case: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "model.ckpt"
    path.write_bytes(bytes((case["a"] * i + case["b"]) % 256 for i in range(case["length"])))
    hashes = file_hashes(path)
    assert hashes is not None
    assert (hashes.sha256, hashes.sha256[:10]) == (case["sha256"], case["model_hash"])
    assert legacy_hash(path) == case["legacy_hash"]


def test_vectors_forbidden_aliases() -> None:
    assert {name.casefold() for name in VECTORS["forbidden_aliases"]} == FORBIDDEN_ALIASES


def test_a_damaged_safetensors_file_is_hashed_whole(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(b"\xff" * 20)
    hashes = file_hashes(path)
    assert hashes is not None
    assert hashes.body == hashes.sha256 == hashlib.sha256(b"\xff" * 20).hexdigest()


def test_hashing_stops_when_told(tmp_path: Path) -> None:
    path = tmp_path / "x.ckpt"
    path.write_bytes(b"x" * 100)
    assert file_hashes(path, lambda: True) is None


def test_a_folder_id_does_not_depend_on_order() -> None:
    parts = [("unet/a", "1"), ("vae/b", "2")]
    assert folder_id(parts) == folder_id(parts[::-1])
    assert folder_id(parts) != folder_id([("unet/a", "2"), ("vae/b", "1")])
    assert len(folder_id(parts)) == 12


HASHES = FileHashes("ab" * 32, "cd" * 32)


def test_the_cache_survives_a_restart_and_notices_changes(tmp_path: Path) -> None:
    file, model = tmp_path / "state" / "hashes.json", tmp_path / "m.safetensors"
    HashCache(file).put(model, 5, 6, HASHES)
    assert HashCache(file).get(model, 5, 6) == HASHES
    assert HashCache(file).get(model, 5, 7) is None
    assert HashCache(file).get(model, 4, 6) is None
    assert HashCache(file).get(tmp_path / "other", 5, 6) is None


def test_two_processes_share_the_cache(tmp_path: Path) -> None:
    file = tmp_path / "hashes.json"
    one, two = HashCache(file), HashCache(file)
    one.put(tmp_path / "a", 1, 1, HASHES)
    two.put(tmp_path / "b", 1, 1, HASHES)
    assert HashCache(file).get(tmp_path / "a", 1, 1) == HashCache(file).get(tmp_path / "b", 1, 1) == HASHES


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b'{"version": 99, "files": {}}', b'{"version": 1, "files": {"a": {}}}', b"\xff", b"[" * 99_999],
)
def test_a_damaged_cache_counts_as_empty(content: bytes, tmp_path: Path) -> None:
    file = tmp_path / "hashes.json"
    file.write_bytes(content)
    cache = HashCache(file)
    assert cache.get(Path("a"), 1, 1) is None
    cache.put(Path("a"), 1, 1, HASHES)
    assert HashCache(file).get(Path("a"), 1, 1) == HASHES


def test_a_cache_that_cannot_be_written_lasts_as_long_as_the_process(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("a file where a folder should be")
    cache = HashCache(tmp_path / "state" / "hashes.json")
    cache.put(Path("a"), 1, 1, HASHES)
    assert cache.get(Path("a"), 1, 1) == HASHES

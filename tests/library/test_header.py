"""Headers of sound and of damaged files. The safetensors library itself says which is which."""

from __future__ import annotations

import json
import struct
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import safetensors
from hypothesis import given, settings
from hypothesis import strategies as st

from studio.errors import DamagedFile
from studio.library.header import data_start, read_header
from tests.library.models import encoded

SOUND = encoded({"a": [2, 3], "b": [], "empty": [0, 5]}, {"note": "ünï"})


def raw(header: Any, data: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def tensor(shape: list[Any], start: Any, end: Any, dtype: Any = "U8") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}


def accepts(data: bytes) -> bool:
    """The library's own judgement."""
    try:
        safetensors.deserialize(data)
    except safetensors.SafetensorError:
        return False
    return True


def ours(path: Path, data: bytes) -> dict[str, Any] | None:
    """Our own judgement: the header, or None."""
    path.write_bytes(data)
    with suppress(DamagedFile):
        return read_header(path)
    return None


DAMAGED = {
    "empty file": b"",
    "seven bytes": SOUND[:7],
    "cut in the header": SOUND[:40],
    "cut in the weights": SOUND[:-1],
    "bytes after the weights": SOUND + b"x",
    "header longer than allowed": struct.pack("<Q", 2**40) + SOUND[8:],
    "length that overflows": b"\xff" * 8 + SOUND[8:],
    "no JSON": raw(b"{not json"),
    "no object": raw(b'["a"]'),
    "no UTF-8": raw(b'{"\xff": {}}'),
    "nested too deeply": raw(b'{"a":' * 100_000),
    "NaN": raw(b'{"a": {"dtype": "U8", "shape": [NaN], "data_offsets": [0, 0]}}'),
    "metadata that is no text": raw({"__metadata__": {"a": 1}}),
    "entry that is no tensor": raw({"a": 5}),
    "unknown type": raw({"a": tensor([1], 0, 1, "X8")}, b"x"),
    "type missing": raw({"a": {"shape": [1], "data_offsets": [0, 1]}}, b"x"),
    "negative side": raw({"a": tensor([-1], 0, 1)}, b"x"),
    "side that is no number": raw({"a": tensor([True], 0, 1)}, b"x"),
    "shape that overflows": raw({"a": tensor([2**63, 2**63, 0], 0, 0)}),
    "side that overflows": raw({"a": tensor([2**64], 0, 0)}),
    "offsets the wrong way round": raw({"a": tensor([1], 1, 0)}, b"x"),
    "three offsets": raw({"a": {"dtype": "U8", "shape": [1], "data_offsets": [0, 1, 1]}}, b"x"),
    "size that does not fit the shape": raw({"a": tensor([2], 0, 1)}, b"x"),
    "part of a byte": raw({"a": tensor([1], 0, 0, "F4")}),
    "overlap": raw({"a": tensor([2], 0, 2), "b": tensor([2], 1, 3)}, b"xxx"),
    "gap": raw({"a": tensor([1], 0, 1), "b": tensor([1], 2, 3)}, b"xxx"),
    "weights beyond the end": raw({"a": tensor([9], 0, 9)}, b"x"),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_damage_is_named(name: str, tmp_path: Path) -> None:
    assert not accepts(DAMAGED[name])
    path = tmp_path / "model.safetensors"
    path.write_bytes(DAMAGED[name])
    with pytest.raises(DamagedFile, match=r"^model\.safetensors is damaged: .*\.$") as caught:
        read_header(path)
    assert len(caught.value.message) < 300


def test_a_name_twice_is_refused_though_the_library_takes_it(tmp_path: Path) -> None:
    entry = json.dumps(tensor([1], 0, 1))
    data = raw(f'{{"a": {entry}, "a": {entry}}}'.encode(), b"x")
    assert accepts(data)
    assert ours(tmp_path / "m.safetensors", data) is None


def test_a_sound_header_is_returned_whole(tmp_path: Path) -> None:
    header = ours(tmp_path / "m.safetensors", SOUND)
    assert header is not None
    assert header["__metadata__"] == {"note": "ünï"}
    assert header["a"]["shape"] == [2, 3]
    padded = raw(json.dumps({"a": tensor([1], 0, 1)}).encode() + b"   ", b"x")
    assert ours(tmp_path / "p.safetensors", padded) is not None
    assert data_start(tmp_path / "p.safetensors") == len(padded) - 1


@pytest.mark.parametrize(
    "dtype, bits", [("F4", 4), ("F6_E2M3", 6), ("F8_E4M3", 8), ("BF16", 16), ("F32", 32), ("C64", 64)]
)
def test_types_and_their_sizes(dtype: str, bits: int, tmp_path: Path) -> None:
    data = raw({"a": tensor([8], 0, bits, dtype)}, b"x" * bits)
    assert accepts(data)
    assert ours(tmp_path / "m.safetensors", data) is not None


@given(st.data())
@settings(deadline=2000, max_examples=300)
def test_what_we_accept_the_library_accepts(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    path = tmp_path_factory.getbasetemp() / "fuzz.safetensors"
    broken = bytearray(SOUND)
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(broken) - 1))
        broken[place] = data.draw(st.integers(0, 255) | st.sampled_from(list(b'{}[]",:0123456789')))
    file = bytes(broken[: data.draw(st.integers(0, len(broken)) | st.just(len(broken)))])
    accepted = ours(path, file) is not None
    assert accepted == accepts(file) or (not accepted and "twice" in complaint(path))


def complaint(path: Path) -> str:
    with pytest.raises(DamagedFile) as caught:
        read_header(path)
    return caught.value.message

"""The idx parser, against files made of random arrays and against files that lie."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from studio.errors import DatasetError
from studio.schema.training_data import DatasetSettings
from studio.training.data.dataset import read_dataset
from studio.training.data.formats import idx
from studio.training.data.formats.idx import images_file, read_idx
from tests.training.data import drawn

SHAPES = arrays.array_shapes(min_dims=1, max_dims=4, max_side=9)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(array=arrays.arrays(np.uint8, SHAPES), packed=st.booleans())
def test_what_was_written_is_read(array: np.ndarray, packed: bool, tmp_path: Path) -> None:
    path = tmp_path / ("a.gz" if packed else "a")
    data = drawn.idx_bytes(array)
    path.write_bytes(gzip.compress(data, 1) if packed else data)
    assert np.array_equal(read_idx(path, array.ndim), array)
    with pytest.raises(DatasetError, match="dimensions"):
        read_idx(path, array.ndim + 1)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(array=arrays.arrays(np.uint8, (2, 3, 4)), change=st.integers(-40, 40).filter(bool), packed=st.booleans())
def test_a_file_of_another_length_is_damaged(array: np.ndarray, change: int, packed: bool, tmp_path: Path) -> None:
    whole = drawn.idx_bytes(array)
    data = whole + b"x" * change if change > 0 else whole[:change]
    path = tmp_path / ("b.gz" if packed else "b")
    path.write_bytes(gzip.compress(data, 1) if packed else data)
    with pytest.raises(DatasetError, match=path.name):
        read_idx(path, 3)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.binary(max_size=200), name=st.sampled_from(["c", "c.gz"]))
def test_any_bytes_are_read_or_refused(data: bytes, name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(data)
    try:
        found = read_idx(path, 3)
    except DatasetError:
        return
    assert drawn.idx_bytes(found) == (data if name == "c" else gzip.decompress(data))


@pytest.mark.parametrize("shape", [(2**32 - 1, 28, 28), (400_000, 2000, 2000), (1, 2**31, 2**31), (600_000, 1, 1)])
def test_a_head_that_asks_for_too_much_is_refused_before_anything_is_read(
    shape: tuple[int, ...], tmp_path: Path
) -> None:
    path = tmp_path / "a.gz"
    path.write_bytes(gzip.compress(bytes([0, 0, 8, 3]) + struct.pack(">3I", *shape) + bytes(10_000_000)))
    with pytest.raises(DatasetError, match="too many"):
        read_idx(path, 3)


def test_a_packed_file_is_unpacked_no_further_than_its_head_says(tmp_path: Path) -> None:
    path = tmp_path / "a.gz"
    path.write_bytes(gzip.compress(bytes([0, 0, 8, 3]) + struct.pack(">3I", 1, 2, 2) + bytes(30_000_000), 1))
    with pytest.raises(DatasetError, match="more"):
        read_idx(path, 3)


def test_other_types_of_values_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(bytes([0, 0, 0x0D, 1]) + struct.pack(">I", 1) + bytes(4))
    with pytest.raises(DatasetError, match="unsigned bytes"):
        read_idx(tmp_path / "a", 1)


@pytest.mark.parametrize(
    "names, expected",
    [
        (["t10k-images-idx3-ubyte.gz", "train-images-idx3-ubyte.gz"], "train-images-idx3-ubyte.gz"),
        (["train-images.idx3-ubyte", "t10k-images.idx3-ubyte"], "train-images.idx3-ubyte"),
        (["emnist-letters-test-images-idx3-ubyte", "emnist-letters-train-images-idx3-ubyte"], "emnist-letters-train-images-idx3-ubyte"),
        (["t10k-images-idx3-ubyte"], "t10k-images-idx3-ubyte"),
    ],
)  # fmt: skip
def test_the_training_file_is_chosen(names: list[str], expected: str, tmp_path: Path) -> None:
    for name in names:
        (tmp_path / name).touch()
    found = images_file(tmp_path)
    assert found is not None
    assert found[0].name == expected
    assert found[1].name == expected.replace("images", "labels").replace("idx3", "idx1")


def test_labels_may_be_packed_otherwise(tmp_path: Path) -> None:
    drawn.idx(tmp_path, 4)
    labels = tmp_path / "train-labels-idx1-ubyte.gz"
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(gzip.decompress(labels.read_bytes()))
    labels.unlink()
    assert len(read_dataset(DatasetSettings(path=str(tmp_path))).items) == 4


def test_pictures_and_labels_must_agree(tmp_path: Path) -> None:
    drawn.idx(tmp_path, 4)
    (tmp_path / "train-labels-idx1-ubyte.gz").write_bytes(gzip.compress(drawn.idx_bytes(np.zeros(3, np.uint8))))
    with pytest.raises(DatasetError, match=r"4 pictures, train-labels-idx1-ubyte\.gz 3 labels"):
        read_dataset(DatasetSettings(path=str(tmp_path)))
    (tmp_path / "train-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(DatasetError, match="train-labels-idx1-ubyte"):
        read_dataset(DatasetSettings(path=str(tmp_path)))


def test_the_names_are_fashion_mnists() -> None:
    """Table 2 of arXiv:1708.07747."""
    assert idx.FASHION[0] == "T-shirt/top"
    assert idx.FASHION[7] == "Sneaker"
    assert len(idx.FASHION) == 10

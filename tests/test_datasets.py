"""Which data sets may be read, by whom."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from studio.datasets import Datasets
from studio.errors import DatasetError, InvalidRequest, NotAllowed, NotFound
from studio.paths import Paths
from studio.schema.training_data import DatasetSettings
from tests.training.data import drawn


@pytest.fixture
def datasets(tmp_path: Path) -> Datasets:
    (tmp_path / "data").mkdir()
    return Datasets(Paths(tmp_path / "data"))


def test_here_every_folder_may_be_named_elsewhere_those_below_the_data_folder(
    datasets: Datasets, tmp_path: Path
) -> None:
    inside = drawn.folder(tmp_path / "data" / "mine")
    outside = drawn.folder(tmp_path / "private")
    (tmp_path / "data" / "link").symlink_to(outside)
    assert datasets.placed(DatasetSettings(path=str(outside)), anywhere=True).path == str(outside)
    for path in (str(inside), "mine", "./mine/../mine"):
        assert datasets.placed(DatasetSettings(path=path), anywhere=False).path == str(inside)
    for path in (str(outside), "../private", "mine/../../private", "link", "/etc", "~", ".", "", "data\0"):
        with pytest.raises((NotAllowed, InvalidRequest)):
            datasets.placed(DatasetSettings(path=path), anywhere=False)


@pytest.mark.parametrize("name", ["../mine", "..", ".", "/etc", "a/../..", "x\\y", "", "C:"])
def test_an_upload_is_named_by_its_name(name: str, datasets: Datasets, tmp_path: Path) -> None:
    drawn.folder(tmp_path / "data" / "mine")
    with pytest.raises(NotAllowed):
        datasets.placed(DatasetSettings(), name, anywhere=True)
    with pytest.raises(NotFound):
        datasets.placed(DatasetSettings(), "absent", anywhere=True)
    with pytest.raises(InvalidRequest, match="one of both"):
        datasets.placed(DatasetSettings(path="mine"), "mine", anywhere=True)


def test_an_archive_without_a_data_set_leaves_nothing(datasets: Datasets, tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "a.txt").write_text("x")
    with pytest.raises(DatasetError, match="holds no data set"):
        datasets.add_archive(drawn.zipped(tmp_path / "x", tmp_path / "x.zip"), "x")
    assert datasets.uploads() == []
    assert list((tmp_path / "data" / "datasets").iterdir()) == []


def test_an_edit_is_seen_at_once(datasets: Datasets, tmp_path: Path) -> None:
    settings = DatasetSettings(path=str(drawn.folder(tmp_path / "a", 3)))
    first = datasets.captions(settings, 0, 10)
    edit = datasets.edit(settings, "000.png", ["other"])
    assert edit.former == first.entries[0].captions
    assert datasets.captions(settings, 0, 1).entries[0].captions == ("other",)


def test_the_server_reads_data_sets_without_torch(tmp_path: Path) -> None:
    import subprocess

    drawn.parquet(tmp_path, 2)
    code = (
        "import sys; from studio.datasets import Datasets; from studio.paths import Paths; from pathlib import Path\n"
        "from studio.schema.training_data import DatasetSettings as S; d = Datasets(Paths(Path(sys.argv[1])))\n"
        "d.inspect(S(path=sys.argv[1])); d.thumbnail(S(path=sys.argv[1]), 'data/train-00000-of-00002.parquet row 0')\n"
        "print([m for m in ('torch', 'transformers', 'diffusers', 'gradio') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.stdout.strip() == "[]", done.stderr

"""What all benchmarks' results begin with, and when they are kept: the machine, the code, figures of tiny models."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from studio.errors import StorageError

code, machine, result = (importlib.import_module(f"bench.{name}") for name in ("_code", "_machine", "_result"))
CPUINFO = """\
processor\t: 0
cpu family\t: 26
model\t\t: 2
model name\t: AMD EPYC
stepping\t: 1
flags\t\t: fpu avx avx2 avx512f avx512_bf16

processor\t: 1
cpu family\t: 99
"""


# -- the machine -------------------------------------------------------------------------------------------------------


@pytest.fixture
def cpuinfo(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setattr(machine, "_CPUINFO", tmp_path / "cpuinfo")
    return tmp_path / "cpuinfo"


def test_generations_of_one_name_are_told_apart(cpuinfo: Path) -> None:
    cpuinfo.write_text(CPUINFO)
    found = machine.machine()
    assert (found["processor"], found["family"], found["model"], found["stepping"]) == ("AMD EPYC", 26, 2, 1)
    assert found["flags"] == {"avx2": True, "avx512f": True, "avx512_bf16": True, "amx_bf16": False}
    assert machine.described(found) == "AMD EPYC, family 26 model 2, with avx2, avx512f, avx512_bf16"


def test_elsewhere_a_processor_is_its_name(cpuinfo: Path) -> None:
    assert machine.machine().keys() == {"platform", "python", "processor", "cores", "load_at_start"}
    cpuinfo.write_text("processor\t: 0\nCPU implementer\t: 0x41\nFeatures\t: fp asimd\n")
    assert machine.machine().keys() == {"platform", "python", "processor", "cores", "load_at_start"}
    assert machine.described({"processor": "AMD EPYC"}) == "AMD EPYC", "as results of old hold it"


# -- the code ----------------------------------------------------------------------------------------------------------


def git(folder: Path, *words: str) -> str:
    nobody = {f"GIT_{who}_{what}": "nobody" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    command = ["git", "-c", "commit.gpgsign=false", *words]
    done = subprocess.run(command, cwd=folder, env={**os.environ, **nobody}, capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.fixture
def checkout(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    folder = tmp_path / "checkout"
    for name in ("studio/a.py", "docs/speed.md", "bench/results/merging.json"):
        (folder / name).parent.mkdir(parents=True)
        (folder / name).write_text("1\n")
    git(folder, "init", "-q")
    git(folder, "add", ".")
    git(folder, "commit", "-q", "-m", "first")
    monkeypatch.setattr(code, "REPOSITORY", folder)
    return folder


def test_a_result_names_its_commit_and_whether_the_code_was_changed_since(checkout: Path) -> None:
    commit = git(checkout, "rev-parse", "HEAD")
    assert code.code() == {"commit": commit, "dirty": False}
    (checkout / "studio" / "a.py").write_text("2\n")
    assert code.code() == {"commit": commit, "dirty": True}
    assert code.named(code.code()) == f"commit {commit[:12]}, changed since"


def test_what_a_benchmark_writes_is_no_change_of_the_code(checkout: Path) -> None:
    """Else a run that is gone on with would be another's as soon as its first part is kept."""
    (checkout / "docs" / "speed.md").write_text("2\n")
    (checkout / "bench" / "results" / "merging.json").write_text("2\n")
    (checkout / "card.json").write_text("{}")
    assert code.code()["dirty"] is False


def test_outside_of_git_no_code_is_named(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(code, "REPOSITORY", checkout / "studio")
    assert code.code() is None, "a copy within another checkout is not that checkout"
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(checkout.parent))
    monkeypatch.setattr(code, "REPOSITORY", checkout.parent)
    assert code.code() is None
    monkeypatch.setattr(code, "REPOSITORY", checkout)
    monkeypatch.setenv("PATH", str(checkout))
    assert code.code() is None, "no git there"
    assert code.named(None) == "a copy that git does not know"


# -- what is kept ------------------------------------------------------------------------------------------------------


def test_a_result_says_what_it_was_measured_with() -> None:
    facts = result.facts("merging", quick=True)
    assert (facts["bench"], facts["quick"]) == ("merging", True)
    assert {"version", "code", "machine"} <= facts.keys()


@pytest.mark.parametrize(
    "name, asked",
    [
        ("generate", ["--save"]),
        ("generate", ["--save", "--peers"]),
        ("levers", ["--save"]),
        ("merging", ["--save"]),
        ("switching", ["--save"]),
        ("train", ["--save"]),
        ("sprout", ["--card"]),
    ],
)
def test_figures_of_a_check_that_it_runs_are_not_kept(
    name: str, asked: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    bench = importlib.import_module(f"bench.{name}")
    for measured in ("measure", "_measured", "measure_page"):  # nothing is measured first
        monkeypatch.delattr(bench, measured, raising=False)
    assert bench.main(["--quick", *asked]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err == f"bench {name}: --quick only shows that it runs; it has no figures to {asked[0]}\n"


def test_a_result_that_cannot_be_kept_is_printed_all_the_same(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def full(path: Path, data: bytes) -> None:
        raise StorageError("The disk is full.")

    monkeypatch.setattr(result, "atomic_write", full)
    assert result.finish({"bench": "merging"}, tmp_path / "merging.json") == 1
    said = capsys.readouterr()
    assert json.loads(said.out) == {"bench": "merging"} and said.err == "bench merging: The disk is full.\n"
    monkeypatch.undo()
    assert result.finish({"bench": "merging"}, tmp_path / "new" / "merging.json") == 0
    assert json.loads((tmp_path / "new" / "merging.json").read_text()) == {"bench": "merging"}


def test_rounds_of_merging_stand_in_its_result(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    merging = importlib.import_module("bench.merging")
    asked: list[Any] = []
    monkeypatch.setattr(merging, "_rows", lambda unet, side, rounds: asked.append(rounds) or [])
    monkeypatch.setattr(merging, "THIN", {"unet": {**merging.THIN["unet"]}})
    assert merging.main(["--quick"]) == 0
    assert json.loads(capsys.readouterr().out)["rounds"] == asked[0] == 1

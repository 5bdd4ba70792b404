"""`bench generate --peers` from its options to what is kept: parts, going on, refusals. The figures are no matter for tests."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import pytest

from bench._code import named
from bench.peers import client, command, report, runner
from studio.errors import StorageError
from tests.engine.peers import Fake, result

generate = importlib.import_module("bench.generate")
REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture
def fakes(monkeypatch: pytest.MonkeyPatch) -> None:
    Fake.asked, Fake.dies = [], set()
    monkeypatch.setattr(runner, "Process", Fake)


def test_a_folder_that_is_no_checkout_is_refused_by_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        generate.main(["--peers", "--comfyui", str(tmp_path)])
    assert "no checkout of ComfyUI: it has no nodes.py" in capsys.readouterr().err


def test_figures_of_tiny_models_are_not_kept(capsys: pytest.CaptureFixture[str]) -> None:
    assert generate.main(["--peers", "--quick", "--save"]) == 2
    assert "no figures" in capsys.readouterr().err


def test_what_comfyui_lacks_is_named(tmp_path: Path) -> None:
    (tmp_path / "comfy").mkdir()
    (tmp_path / "comfy" / "options.py").write_text("import a_package_that_is_not_there")
    process = client.Process("comfyui", tmp_path, tmp_path)
    try:
        with pytest.raises(
            client.ContenderFailed, match=r"package a_package_that_is_not_there, which .*requirements\.txt"
        ):
            process.ask(do="run", jobs=[])
    finally:
        process.close()


@pytest.fixture
def cut_off(monkeypatch: pytest.MonkeyPatch, fakes: None, tmp_path: Path) -> list[str]:
    """What asks for a run to be gone on with, after its first workload was written."""
    monkeypatch.setattr(command, "make_files", lambda plan, root: None)
    monkeypatch.setattr(command, "first_preview", lambda root, quick: {})
    asked = ["--peers", "--quick", "--contenders", "floor", "--out", str(tmp_path / "peers.json")]
    assert generate.main([*asked, "--workloads", "W2"]) == 0
    return [*asked, "--workloads", "W2", "W6"]


def test_a_run_goes_on_where_it_was_cut_off(cut_off: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    Fake.asked.clear()
    capsys.readouterr()
    assert generate.main(cut_off) == 0
    found = json.loads(capsys.readouterr().out)
    assert set(found["workloads"]) == {"W2", "W6"} and Fake.asked == ["studio", "floor", "floor", "studio"]
    assert json.loads(Path(cut_off[5]).read_text()) == found
    Fake.asked.clear()
    assert generate.main(cut_off) == 0 and Fake.asked == [], "all of it is there"
    assert generate.main([*cut_off, "--contenders", "diffusers-bf16", "floor"]) == 0
    assert Fake.asked == ["studio", "diffusers-bf16", "diffusers-bf16", "studio"] * 2, (
        "who was missing, and nobody else"
    )
    Fake.asked.clear()
    assert generate.main([*cut_off, "--contenders", "diffusers-fp32"]) == 0
    kept = json.loads(Path(cut_off[5]).read_text())["workloads"]["W2"]
    assert set(kept["contenders"]) == {"studio", "floor", "diffusers-bf16", "diffusers-fp32"}, (
        "others are left as they were"
    )
    assert set(kept["studio_against"]) == set(kept["contenders"]) - {"studio"}
    assert kept["contenders"]["studio"]["cpu_seconds_a_picture"]["runs"] == 6, "the program's of all three"
    assert kept["contenders"]["floor"] == found["workloads"]["W2"]["contenders"]["floor"]
    assert len(kept["load"]) == 6


@pytest.mark.parametrize("name, question", [("diffusers-fp32", "prove"), ("studio", "prove"), ("studio", "run")])
def test_what_fails_later_takes_no_figure_away(
    cut_off: list[str], capsys: pytest.CaptureFixture[str], name: str, question: str
) -> None:
    file = Path(cut_off[5])
    before = json.loads(file.read_text())["workloads"]["W2"]
    asked = [*cut_off[:-1], "--contenders", "diffusers-bf16"]
    Fake.dies = {(name, question)}
    capsys.readouterr()
    assert generate.main(asked) == 1
    said = capsys.readouterr()
    after = json.loads(said.out)["workloads"]["W2"]
    assert after["contenders"]["studio"] == before["contenders"]["studio"]
    assert after["contenders"]["floor"] == before["contenders"]["floor"]
    assert f"{name}: out of memory" in said.err
    Fake.dies = set()
    assert generate.main(asked) == 0, "and it is tried again"
    after = json.loads(file.read_text())["workloads"]["W2"]
    assert set(after["contenders"]) == {"studio", "diffusers-bf16", "floor"} and "rerun_error" not in after


def test_a_run_does_not_go_on_elsewhere(
    cut_off: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    here = command.facts("generate --peers", quick=True)
    before = Path(cut_off[5]).read_text()

    def refusal(**changes: Any) -> str:
        monkeypatch.setattr(command, "facts", lambda bench, quick: {**here, **changes})
        assert generate.main(cut_off) == 2
        assert Path(cut_off[5]).read_text() == before
        return capsys.readouterr().err

    machine = here["machine"]
    assert f"with cores {machine['cores']}, and this is 99" in refusal(machine={**machine, "cores": 99})
    said = refusal(machine={**machine, "family": 99})
    assert "processor family" in said and "99" in said
    others = {"commit": "0123456789abcdef", "dirty": False}
    assert f"with code {named(here['code'])}, and this is commit 0123456789ab. Name another" in refusal(code=others)


def test_a_result_that_does_not_know_its_code_is_shown_and_not_gone_on_with(
    cut_off: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    file = Path(cut_off[5])
    old = json.loads(file.read_text())
    del old["code"]
    old["machine"] = {key: old["machine"][key] for key in ("platform", "python", "processor", "cores", "load_at_start")}
    for entry in old["workloads"]["W2"]["contenders"].values():
        del entry["torch"]
    file.write_text(json.dumps(old))
    assert generate.main(cut_off) == 2
    assert "does not say with which code it was measured" in capsys.readouterr().err
    assert generate.main(["--peers", "--report", str(file)]) == 0
    said = capsys.readouterr()
    assert json.loads(said.out) == old and report.table(old) in said.err


@pytest.mark.parametrize(
    "kept", sorted((REPOSITORY / "bench" / "results").glob("peers-2*.json")), ids=lambda path: path.stem
)
def test_results_of_earlier_versions_can_be_shown(kept: Path, capsys: pytest.CaptureFixture[str]) -> None:
    generate.main(["--peers", "--report", str(kept)])
    said = capsys.readouterr()
    assert json.loads(said.out) == json.loads(kept.read_text()) and "Measured on 20" in said.err


def test_a_processors_result_is_kept_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "peers.json"
    file.write_text(json.dumps(result()))
    kept: list[Any] = []
    monkeypatch.setattr(report, "save", lambda found, text, stamp: kept.append((found, text)) or [])
    assert generate.main(["--peers", "--report", str(file), "--save"]) == 0
    assert kept == [(result(), json.dumps(result(), indent=2))]
    file.write_text(json.dumps(result() | {"quick": True}))
    assert generate.main(["--peers", "--report", str(file), "--save"]) == 2
    assert len(kept) == 1 and "no figures" in capsys.readouterr().err


def test_a_page_that_cannot_be_written_is_said_after_the_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def without_marks(found: Any, text: str, stamp: str) -> list[Path]:
        raise ValueError("the page must hold its marks once each")

    file = tmp_path / "peers.json"
    file.write_text(json.dumps(result()))
    monkeypatch.setattr(report, "save", without_marks)
    assert generate.main(["--peers", "--report", str(file), "--save"]) == 1
    said = capsys.readouterr()
    assert json.loads(said.out) == result() and "bench generate: the page must hold" in said.err


@pytest.mark.usefixtures("cut_off")
def test_a_file_that_cannot_be_written_is_known_before_anything_is_measured(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Fake.asked.clear()
    capsys.readouterr()
    (tmp_path / "no folder").write_text("")
    out = str(tmp_path / "no folder" / "peers.json")
    assert generate.main(["--peers", "--quick", "--contenders", "floor", "--workloads", "W2", "--out", out]) == 1
    said = capsys.readouterr()
    assert Fake.asked == [] and said.out == "" and said.err.startswith("bench generate: ")


def test_what_was_measured_is_printed_when_the_disk_is_full(
    cut_off: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(file: Path, found: Any) -> None:
        raise StorageError("The disk is full.")

    capsys.readouterr()
    monkeypatch.setattr(command, "write", full)
    assert generate.main(cut_off) == 1
    said = capsys.readouterr()
    assert set(json.loads(said.out)["workloads"]) == {"W2", "W6"}
    assert said.err.endswith("bench generate: broken off: The disk is full.\n")


def test_a_cards_result_is_not_gone_on_with(cut_off: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    Path(cut_off[5]).write_text('{"bench": "generate --peers --device cuda"}')
    assert generate.main(cut_off) == 2
    assert "no result of generate --peers that --out has written" in capsys.readouterr().err


@pytest.mark.slow
def test_it_runs_on_tiny_shapes(capsys: pytest.CaptureFixture[str]) -> None:
    assert generate.main(["--peers", "--quick", "--workloads", "W1", "--contenders", "floor"]) == 0
    found = json.loads(capsys.readouterr().out)
    contenders = found["workloads"]["W1"]["contenders"]
    assert set(contenders) == {"studio", "floor"}
    assert all(each["cpu_seconds_a_picture"]["runs"] >= 2 for each in contenders.values())
    assert found["first_preview"]["known_prompts"]["runs"] == 1

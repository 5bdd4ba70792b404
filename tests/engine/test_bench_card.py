"""`bench generate --peers --device cuda`, on tiny models of the processor: what is compared, what is left when it is cut off, what is said."""

from __future__ import annotations

import importlib
import json
import threading
from datetime import datetime, timezone
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
import torch
from safetensors import safe_open

from studio.engine.offload import Offload
from studio.engine.runner import DiffusersEngine
from studio.errors import StorageError

generate = importlib.import_module("bench.generate")
card, card_command, card_figures, card_files, card_report, card_runner, client, command, contender, kept, report, worker, workloads = (
    importlib.import_module(f"bench.peers.{name}")
    for name in (
        "card", "card_command", "card_figures", "card_files", "card_report", "card_runner", "client", "command", "contender", "kept", "report", "worker", "workloads",
    )
)  # fmt: skip
REPOSITORY = Path(__file__).resolve().parents[2]
CPU = torch.device("cpu")
MACHINE = {"platform": "here", "cores": 16, "processor": "one"}


# -- model files -------------------------------------------------------------------------------------------------------


def read(folder: Path) -> dict[str, torch.Tensor]:
    found = {}
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, "pt") as weights:
            found |= {key: weights.get_tensor(key) for key in weights.keys()}  # noqa: SIM118
    return found


def test_weights_are_the_same_in_however_many_shards(tmp_path: Path) -> None:
    changes = {**card_files._THIN_SDXL, "text_encoder_2": card_files._THIN_SDXL["text_encoder"]}
    for name, most in (("one", 2**30), ("many", 200_000)):
        card_files.write_checkpoint(tmp_path / name, "sdxl", CPU, changes, seed=3, shard_bytes=most)
    one, many = (read(tmp_path / name / "unet") for name in ("one", "many"))
    assert one.keys() == many.keys() and all(torch.equal(one[key], many[key]) for key in one)
    index = json.loads((tmp_path / "many" / "unet" / "diffusion_pytorch_model.safetensors.index.json").read_text())
    assert index["weight_map"].keys() == many.keys()
    files = {file.name: file.stat().st_size for file in (tmp_path / "many" / "unet").glob("*.safetensors")}
    assert set(index["weight_map"].values()) == files.keys() and len(files) > 3
    assert all(weight.dtype == torch.float16 for weight in one.values())
    inner = one["mid_block.attentions.0.transformer_blocks.0.ff.net.2.weight"]
    assert float(inner.float().std()) == pytest.approx((3 * inner.shape[1]) ** -0.5, rel=0.05)


def test_a_card_that_is_not_there_is_named(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is one")
    assert card_files.main([str(tmp_path), "tiny", "cuda", "card-sd15"]) == 1
    assert "Device 'cuda' was asked for" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


# -- contenders, in this process ---------------------------------------------------------------------------------------


class Here:
    """A contender's process without a process: the same questions, answered by `worker._answer`."""

    lock: ClassVar[threading.Lock] = threading.Lock()  # modules without weights are made by changing all of PyTorch
    asked: ClassVar[list[tuple[str, str]]] = []
    dies: ClassVar[set[tuple[str, str]]] = set()

    def __init__(self, name: str, root: Path, checkout: Path | None, device: str) -> None:
        self.name, self._contender = name, contender.create(name, root, device, checkout)

    def ask(self, **question: Any) -> dict[str, Any]:
        Here.asked.append((self.name, question["do"]))
        if (self.name, question["do"]) in Here.dies:
            raise client.ContenderFailed(f"{self.name}: out of memory")
        with Here.lock:
            return worker._answer(self._contender, question, card.NoCard())

    def close(self) -> None: ...


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    def made(plan: Any, root: Path) -> None:
        card_files.main([str(root), "tiny", "cpu", *{name for each in plan.workloads for name in each.models}])

    Here.asked, Here.dies = [], set()
    monkeypatch.setattr(card_runner, "Process", Here)
    monkeypatch.setattr(card_files, "SHARD_BYTES", 2_000_000)  # several files a part, as in the real size
    monkeypatch.setattr(card_command, "make_files", made)


@pytest.mark.usefixtures("here")
@pytest.mark.filterwarnings("ignore::DeprecationWarning:diffusers")
def test_all_paint_the_same_and_take_turns_forward_and_back(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """SDXL's own pipeline, the program eager and compiled as far as a processor compiles, and the bare calls, from files made here."""
    out = tmp_path / "card.json"
    asked = ["--peers", "--quick", "--workloads", "G3", "--out", str(out)]
    assert generate.main(asked) == 0
    found = json.loads(capsys.readouterr().out)
    assert json.loads(out.read_text()) == found
    entries = found["workloads"]["G3"]["contenders"]
    assert entries.keys() == {"studio", "diffusers", "studio-compiled", "studio-graphs"}
    assert all(entry["picture_mean_difference"] <= entry["picture_mean_allowed"] for entry in entries.values())
    assert {entry["torch"] for entry in entries.values()} == {str(torch.__version__)}
    assert all(entry["wall_seconds_a_run"]["runs"] == 2 for entry in entries.values())
    each = ["studio run", "studio bare", "diffusers run"]
    each += ["studio-compiled run", "studio-compiled bare", "studio-graphs run", "studio-graphs bare"]
    turns = [f"{name} {kind}" for name, kind in Here.asked if kind != "prove"]
    assert turns == [*each, *reversed(each)]

    Here.asked = []
    assert generate.main(asked) == 0
    assert not Here.asked, "what is there is not measured again"


@pytest.mark.usefixtures("here")
@pytest.mark.filterwarnings("ignore::DeprecationWarning:diffusers")
def test_one_that_fails_leaves_the_others_and_is_tried_again(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    out = tmp_path / "card.json"
    asked = ["--peers", "--quick", "--workloads", "G1", "--contenders", "studio-compiled", "--out", str(out)]
    Here.dies = {("studio-compiled", "bare")}
    assert generate.main(asked) == 1
    entries = json.loads(out.read_text())["workloads"]["G1"]["contenders"]
    assert entries["studio-compiled"] == {"error": "studio-compiled: out of memory"}
    assert Here.asked.count(("studio-compiled", "bare")) == 1, "who failed is not asked again"
    assert entries["studio"]["wall_seconds_a_run"]["runs"] == 2
    assert "not measured: studio-compiled: out of memory" in capsys.readouterr().err
    Here.dies = {("diffusers-fp32", "prove")}
    assert generate.main(asked) == 1
    found = json.loads(out.read_text())["workloads"]["G1"]
    assert found["rerun_error"] == "diffusers-fp32: out of memory" and found["contenders"] == entries, "figures stay"
    assert "when it was measured again that failed: diffusers-fp32: out of memory" in capsys.readouterr().err
    out.unlink()
    assert generate.main(asked) == 1
    assert json.loads(out.read_text())["workloads"]["G1"]["error"] == "diffusers-fp32: out of memory"


@pytest.mark.usefixtures("here")
@pytest.mark.filterwarnings("ignore::DeprecationWarning:diffusers")
def test_contenders_may_come_one_after_the_other(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """A card has not always room for all of them."""
    out = tmp_path / "card.json"
    asked = ["--peers", "--quick", "--workloads", "G1", "--out", str(out), "--contenders"]
    assert generate.main([*asked, "diffusers"]) == 0
    before = json.loads(out.read_text())["workloads"]["G1"]
    Here.asked = []
    assert generate.main([*asked, "diffusers", "studio-compiled"]) == 0
    assert {name for name, kind in Here.asked if kind == "run"} == {"studio", "studio-compiled"}
    after = json.loads(out.read_text())["workloads"]["G1"]
    assert list(after["contenders"]) == ["studio", "diffusers", "studio-compiled"]
    assert after["contenders"]["diffusers"] == before["contenders"]["diffusers"]
    assert after["contenders"]["studio"]["wall_seconds_a_run"]["runs"] == 4, "the program's of both"
    assert after["times_as_fast_as_diffusers"]["studio"] == before["times_as_fast_as_diffusers"]["studio"]
    assert after["apart"] == ["studio-compiled"] and len(after["load"]) == 4 and after["rounds"] == 1
    said = capsys.readouterr().err
    assert "plain diffusers, in other rounds than its (goal: 1.3)" in said and "those of one sitting" in said
    Here.asked, Here.dies = [], {("studio-graphs", "prove"), ("studio", "run")}
    assert generate.main([*asked, "studio-graphs"]) == 1
    kept = json.loads(out.read_text())["workloads"]["G1"]["contenders"]
    assert kept["studio-graphs"] == {"error": "studio-graphs: out of memory"}
    assert (
        kept["studio"].pop("rerun_error") == "studio: out of memory" and kept["studio"] == after["contenders"]["studio"]
    )


@pytest.mark.usefixtures("here")
@pytest.mark.filterwarnings("ignore::DeprecationWarning:diffusers")
def test_rounds_that_were_cut_off_are_gone_on_with(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    out = tmp_path / "card.json"
    options = ["--peers", "--device", "cuda", "--workloads", "G1", "--contenders", "diffusers", "--rounds", "2"]
    workload = workloads.CARD_WORKLOADS["G1"]
    monkeypatch.setattr(card_command, "CARD_WORKLOADS", {"G1": workload.tiny()})
    monkeypatch.setattr(card_command, "CardPlan", lambda *parts: card_runner.CardPlan(*parts[:3], "cpu", True))
    writes: list[int] = []

    def full_after_a_round(file: Path, found: Any) -> None:
        kept.write(file, found)
        writes.append(1)
        if len(writes) == 1:
            raise StorageError("The disk is full.")

    monkeypatch.setattr(card_command, "write", full_after_a_round)
    assert generate.main([*options, "--out", str(out)]) == 1
    said = capsys.readouterr()
    assert json.loads(said.out)["workloads"]["G1"]["rounds"] == 1
    assert "G1 was cut off after 1 of 2 rounds" in said.err and said.err.endswith("broken off: The disk is full.\n")
    Here.asked = []
    assert generate.main([*options, "--out", str(out)]) == 0
    found = json.loads(out.read_text())["workloads"]["G1"]
    assert Here.asked.count(("diffusers", "run")) == 2 and found["rounds"] == 2
    assert {entry["wall_seconds_a_run"]["runs"] for entry in found["contenders"].values()} == {4}
    assert found["apart"] == []


@pytest.mark.usefixtures("here")
def test_a_checkpoint_that_is_not_wholly_on_the_card_is_not_timed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its networks would wait in the processor's memory, and the bare calls be made there."""
    monkeypatch.setattr(DiffusersEngine, "load", lambda self, model: SimpleNamespace(offload=Offload.NETWORKS))
    card_files.main([str(tmp_path), "tiny", "cpu", "card-sd15"])
    ours = contender.create("studio", tmp_path, "cpu", None)
    with pytest.raises(RuntimeError, match="name fewer --contenders"):
        ours.unet(workloads.CARD_WORKLOADS["G1"].tiny().proof())


# -- figures -----------------------------------------------------------------------------------------------------------


def result(rounds: int = 3) -> dict[str, Any]:
    """As if measured on a card: seconds are made up."""
    facts = {
        "dtype": "bfloat16", "unet_rel_l2": 0.012, "picture_max_difference": 40, "picture_mean_difference": 2.5, "first_seconds": 9.0,
        "card": {"name": "A Card", "compute_capability": "9.0", "cuda": "13.0"},
    }  # fmt: skip
    runs = {
        "studio": {"wall": [2.0, 2.2, 2.1] * 2, "bare": [1.5, 1.4, 1.6] * 2, "peak": 3 * 2**30},
        "diffusers": {"wall": [3.0, 3.2, 3.1] * 2, "bare": [], "peak": 4 * 2**30},
    }
    each = {"studio": facts, "diffusers": facts, "studio-compiled": {"error": "no | compiler"}}
    workload = workloads.CARD_WORKLOADS["G2"]
    found = card_figures.figures(workload, {}, each, {"load": [1.0, 1.0], "runs": runs}) | {"rounds": rounds}
    return {
        "bench": "generate --peers --device cuda", "device": "cuda", "quick": False, "date": "2026-01-01", "rounds": 3,
        "machine": MACHINE, "code": None, "versions": {"torch": "2"},
        "card": {"name": "A Card", "driver_version": "580.1", "memory.total": "141 GiB"}, "workloads": {"G2": found},
    }  # fmt: skip


def test_figures_are_those_of_medians() -> None:
    found = result()["workloads"]["G2"]
    entry = found["contenders"]["studio"]
    assert entry["wall_seconds_a_run"] == {"median": 2.1, "min": 2.0, "max": 2.2, "runs": 6}
    assert entry["steps_a_second"] == round(20 / 2.1, 2)
    assert entry["picture_steps_a_second"] == round(80 / 2.1, 2)
    assert entry["percent_in_model_calls"] == round(100 * 1.5 / 2.1, 1)
    assert entry["card_peak_gib"] == 3.0
    assert found["times_as_fast_as_diffusers"] == {"studio": round(3.1 / 2.1, 3)}


def test_the_report_has_no_time_without_an_error_and_names_the_card() -> None:
    lines = card_report.table(result()).splitlines()
    assert len({line.count("|") for line in lines}) == 1, "the same cells in every row"
    assert all(
        part in lines[2]
        for part in ("2.100 (2.000 to 2.200, 6)", "38.1", "1.48x", "71 %", "3.00", "1.2e-02", "40 of 255")
    )
    assert "not measured: no / compiler" in lines[4]
    words = card_report.words(result(rounds=1))
    assert "A Card, 141 GiB, driver 580.1, CUDA 13.0, compute capability 9.0" in words
    assert "studio is 1.48 times as fast as plain diffusers (goal: 1.3)" in words
    assert "cut off after 1 of 3 rounds" in words and "cut off" not in card_report.words(result())


def test_saving_rewrites_its_own_section_and_nothing_else(tmp_path: Path) -> None:
    page = tmp_path / "docs" / "speed.md"
    page.parent.mkdir()
    text = (REPOSITORY / "docs" / "speed.md").read_text("utf-8")
    page.write_text(text, "utf-8")
    for _ in range(2):
        written = card_report.save(result(), "{}", "now", tmp_path)
    after = page.read_text("utf-8")
    begin, end = card_report.MARKS
    assert after.split(begin)[0] == text.split(begin)[0] and after.split(end)[1] == text.split(end)[1]
    assert card_report.table(result()) in after and "no card was at hand" not in after.split(begin)[1].split(end)[0]
    assert all(path.is_file() for path in written)
    assert (tmp_path / "bench" / "results" / "peers-card-now.json").read_text() == "{}\n"


# -- the command -------------------------------------------------------------------------------------------------------


def test_a_report_is_shown_and_measures_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "card.json"
    file.write_text(json.dumps(result()))
    assert generate.main(["--peers", "--report", str(file)]) == 1, "one contender failed"
    shown = capsys.readouterr()
    assert json.loads(shown.out) == json.loads(json.dumps(result())) and card_report.table(result()) in shown.err


@pytest.fixture
def again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, list[str]]:
    """A file that `--out` has written, and what asks for it to be gone on with on the same machine."""
    monkeypatch.setattr(card_command, "machine_card", lambda: result()["card"])
    monkeypatch.setattr(command, "versions", lambda checkout: result()["versions"])
    monkeypatch.setattr(
        card_command,
        "facts",
        lambda bench, quick: {key: result()[key] for key in ("bench", "quick", "machine", "code")},
    )
    file = tmp_path / "card.json"
    return file, ["--peers", "--device", "cuda", "--workloads", "G2", "--contenders", "diffusers", "--out", str(file)]


@pytest.mark.parametrize(
    "changes, named",
    [
        ({"rounds": 5}, "rounds 5, and this is 3"),
        ({"versions": {"torch": "1"}}, "versions "),
        ({"card": {"name": "Another"}}, "card Another, and this is A Card"),
        ({"machine": {**MACHINE, "cores": 8}}, "cores 8, and this is 16"),
        (
            {"code": {"commit": "0123456789abcdef", "dirty": True}},
            "code commit 0123456789ab, changed since, and this is a copy that git",
        ),
    ],
)
def test_parts_of_two_machines_make_no_result(
    again: tuple[Path, list[str]], capsys: pytest.CaptureFixture[str], changes: dict[str, Any], named: str
) -> None:
    file, asked = again
    file.write_text(json.dumps(result() | changes))
    assert generate.main(asked) == 2
    assert f"measured with {named}" in capsys.readouterr().err
    assert json.loads(file.read_text()) == json.loads(json.dumps(result() | changes))


def test_another_driver_is_told(again: tuple[Path, list[str]], capsys: pytest.CaptureFixture[str]) -> None:
    file, asked = again
    before = result()
    before["card"]["driver_version"] = "570.2"
    before["workloads"]["G2"]["contenders"].pop("studio-compiled")  # it failed, and is not asked for
    file.write_text(json.dumps(before))
    assert generate.main(asked) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["card"]["driver_version"] == "570.2 and 580.1"
    assert found["date"] == f"2026-01-01 to {datetime.now(timezone.utc):%Y-%m-%d}"


@pytest.mark.parametrize(
    "asked, why",
    [
        (["--workloads", "G1"], "G1: painted on a graphics card. Add --device cuda"),
        (
            ["--device", "cuda", "--workloads", "W1", "G1"],
            "--workloads W1: not on a graphics card. There: G1, G2, G3, G4.",
        ),
        (
            ["--device", "cuda", "--contenders", "floor"],
            "--contenders floor: not on a graphics card. There: diffusers, studio-compiled, studio-graphs.",
        ),
        (["--contenders", "studio-compiled"], "only on a graphics card"),
        (["--report", __file__], "is no result of generate --peers or generate --peers --device cuda or"),
        (["--contenders", "comfyui"], "say where its checkout is"),
    ],
)
def test_what_does_not_go_together_is_said(asked: list[str], why: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert generate.main(["--peers", *asked]) == 2
    assert why in capsys.readouterr().err


def test_the_machines_card_is_what_nvidia_smi_tells(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert card.machine_card() == {}
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\necho 'NVIDIA H200, 580.159.03, 143771 MiB'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    assert card.machine_card() == {"name": "NVIDIA H200", "driver_version": "580.159.03", "memory.total": "143771 MiB"}

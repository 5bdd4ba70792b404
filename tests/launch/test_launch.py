"""launch.py as a program: what it installs, what it hands over to, what it says when something fails."""

from __future__ import annotations

import argparse
import ast
import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import launch
from studio.cli import build_parser
from studio.launcher.home import LaunchError

from .conftest import ROOT, Tree

FIRST_START = [
    "install --require-hashes --no-deps --requirement TREE/requirements/installer.lock",
    "install --progress-bar raw --require-hashes --no-deps --requirement TREE/requirements/runtime.lock",
    "index versions torch --timeout 10 --retries 1",
    "install --progress-bar raw torch==2.13.0+cpu",
    "install --no-deps --no-build-isolation --editable TREE",
]


def test_first_start_installs_then_hands_over_and_the_second_installs_nothing(tree: Tree) -> None:
    first = tree.launch("--torch", "cpu", "--port", "7861")
    assert first.returncode == 0, first.stderr
    assert tree.pip_calls() == FIRST_START
    assert first.stdout.splitlines() == ["-m", "studio", "--port", "7861"]
    assert "torch, CPU build" in first.stderr
    assert "2.13.0+cpu from the default index" in first.stderr

    second = tree.launch("generate", "a red fox, 'at dawn'", "--negative", "blurry äöü", "--", "--torch")
    assert tree.pip_calls() == []
    assert second.stderr == ""
    expected = ["-m", "studio", "generate", "a red fox, 'at dawn'", "--negative", "blurry äöü", "--", "--torch"]
    assert second.stdout.splitlines() == expected


def test_the_exit_code_is_the_programs(tree: Tree) -> None:
    (tree.root / "exit_code").write_text("7", encoding="utf-8")
    assert tree.launch("models").returncode == 7


def test_a_changed_lock_file_costs_its_own_step_only(tree: Tree) -> None:
    tree.launch()
    tree.pip_calls()
    (tree.root / "requirements" / "runtime.lock").write_text("thing==1.1 \\\n", encoding="utf-8")
    tree.launch()
    assert tree.pip_calls() == [FIRST_START[1]]


def test_an_environment_whose_python_has_lost_its_home_is_damaged(tree: Tree) -> None:
    """Where the environment's Python is a copy, as on Windows, it still starts when the one it was made from is gone, and fails then."""
    tree.launch()
    stamp = tree.home.read_stamp()
    notes = tree.root / ".venv" / "pyvenv.cfg"
    notes.write_text(f"include-system-site-packages = false\nhome = {tree.root}\nversion = 3.11.7\n", encoding="utf-8")
    assert not tree.home.is_damaged(stamp)
    notes.write_text(f"home = {tree.root / 'gone'}\n", encoding="utf-8")
    assert tree.home.is_damaged(stamp)


def test_a_moved_folder_costs_the_project_step_only(tree: Tree) -> None:
    tree.launch()
    moved = Tree(tree.root.with_name("elsewhere"), environ=tree.environ)
    shutil.move(tree.root, moved.root)
    python = moved.root / ".venv" / "bin" / "python"
    python.write_text(python.read_text(encoding="utf-8").replace(str(tree.root), str(moved.root)), encoding="utf-8")
    moved.pip_calls()
    assert moved.launch("models").returncode == 0
    assert moved.pip_calls() == [FIRST_START[4]]


def test_the_test_command_installs_its_tools_once_and_runs_pytest_in_the_root(tree: Tree) -> None:
    tree.launch()
    tree.pip_calls()
    done = tree.launch("test", "-k", "x or y", "--torch")
    assert done.stdout.splitlines() == ["-m", "pytest", "-k", "x or y", "--torch"]
    assert tree.pip_calls() == [FIRST_START[1].replace("runtime", "test")]
    tree.launch("test")
    assert tree.pip_calls() == []


def test_the_build_stays_until_another_is_named(tree: Tree) -> None:
    tree.launch("--torch", "cpu")
    tree.pip_calls()
    tree.launch("--torch=auto")
    assert tree.pip_calls() == []
    done = tree.launch(STUDIO_TORCH="cuda")
    assert tree.pip_calls() == ["uninstall --yes torch", "install --progress-bar raw torch>=2.10,<2.14"]
    assert "torch, CUDA build" in done.stderr
    tree.launch()
    assert tree.pip_calls() == []


def test_xformers_is_installed_for_cuda_and_only_there(tree: Tree) -> None:
    on_cpu = tree.launch("--torch", "cpu", "--attention", "xformers")
    assert "SDPA is used" in on_cpu.stderr
    assert not any("xformers" in call for call in tree.pip_calls())
    assert on_cpu.stdout.splitlines() == ["-m", "studio", "--attention", "xformers"]

    tree.let_pip_fail("xformers", "ERROR: No matching distribution found for xformers>=0.0.34")
    failed = tree.launch("--torch", "cuda", STUDIO_ATTENTION="xformers")
    assert failed.returncode == 0
    assert "no xformers>=0.0.34 for this Python" in failed.stderr
    assert "SDPA is used" in failed.stderr

    tree.let_pip_work()
    tree.pip_calls()
    done = tree.launch(STUDIO_ATTENTION="xformers")
    assert tree.pip_calls() == ["install --no-deps --progress-bar raw xformers>=0.0.34"]
    assert "SDPA" not in done.stderr
    tree.launch(STUDIO_ATTENTION="xformers")
    assert tree.pip_calls() == []


def test_after_a_failure_the_next_start_goes_on_where_it_stopped(tree: Tree) -> None:
    tree.let_pip_fail("torch==", "ERROR: Could not install packages: [Errno 28] No space left on device")
    failed = tree.launch("--torch", "cpu")
    assert failed.returncode == 1
    assert "launch: The disk is full. Free some space" in failed.stderr
    assert failed.stdout == ""
    tree.let_pip_work()
    tree.pip_calls()
    assert tree.launch("--torch", "cpu").returncode == 0
    assert tree.pip_calls() == FIRST_START[2:]


def test_ctrl_c_ends_with_a_sentence_and_the_next_start_goes_on(tree: Tree) -> None:
    (tree.root / "pip_waits").touch()
    process = subprocess.Popen(
        tree.command(),
        env=tree.environ,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # ignored in what a script puts behind itself
    )
    deadline = time.monotonic() + 30
    while not (tree.root / "pip_is_waiting").exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGINT)
    assert process.communicate(timeout=30)[1].endswith(
        "launch: Stopped. The next `python launch.py` goes on from here.\n"
    )
    assert process.returncode == 130
    (tree.root / "pip_waits").unlink()
    assert tree.launch("models").returncode == 0


def test_two_starts_do_not_install_at_once(tree: Tree) -> None:
    with open(tree.root / ".venv.lock", "a+b") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        waiting = subprocess.Popen(
            tree.command("models"), env=tree.environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        assert waiting.stderr is not None
        assert waiting.stderr.readline() == "Another start is installing into this folder; waiting for it.\n"
        assert tree.pip_calls() == []
    output, _ = waiting.communicate(timeout=30)
    assert output.splitlines() == ["-m", "studio", "models"]


@pytest.mark.slow
def test_a_real_environment_is_made_over_a_broken_one_and_no_network_is_told(tree: Tree) -> None:
    """The one test with a real `python -m venv` and a real pip; the index is a closed port."""
    (tree.root / ".venv" / "bin" / "python").unlink()
    (tree.root / ".venv" / "stamp.json").write_text("{ half a", encoding="utf-8")
    unreachable = {"PIP_INDEX_URL": "http://127.0.0.1:9/simple", "PIP_RETRIES": "1", "PIP_CONFIG_FILE": os.devnull}
    done = tree.launch(**unreachable)
    assert done.returncode == 1
    assert "launch: The package index cannot be reached. Check the connection" in done.stderr
    assert (tree.root / ".venv" / "pyvenv.cfg").exists()
    assert "NewConnectionError" in (tree.root / ".venv" / "install.log").read_text(encoding="utf-8")
    assert json.loads((tree.root / ".venv" / "stamp.json").read_text(encoding="utf-8")) == {}


@pytest.mark.parametrize("arguments", [["--help"], ["-h"], ["help"], ["generate", "--help"], ["serve", "-h"]])
def test_help_installs_nothing(tree: Tree, arguments: list[str]) -> None:
    shutil.rmtree(tree.root / ".venv")
    done = tree.launch(*arguments)
    assert done.returncode == 0
    assert done.stdout == launch.HELP
    assert not (tree.root / ".venv").exists()


def test_help_of_a_command_comes_from_the_program_once_it_is_installed(tree: Tree) -> None:
    tree.launch()
    assert tree.launch("generate", "--help").stdout.splitlines() == ["-m", "studio", "generate", "--help"]


def test_help_names_every_command_and_every_option_of_serve() -> None:
    parser = build_parser(lambda arguments: 0)
    commands = next(action for action in parser._actions if isinstance(action, argparse._SubParsersAction)).choices
    options = {option for action in commands["serve"]._actions for option in action.option_strings}
    documented = {"-h", "--max-queue"}  # the one is --help, the other is for `serve --help`
    assert {option for option in options - documented if option not in launch.HELP} == set()
    assert {command for command in commands if command not in launch.HELP} == set()


def test_an_old_python_can_read_the_launcher() -> None:
    for path in [ROOT / "launch.py", *(ROOT / "studio" / "launcher").glob("*.py")]:
        ast.parse(path.read_text(encoding="utf-8"), feature_version=(3, 8))


def test_the_launcher_needs_the_standard_library_only() -> None:
    imported = set()
    for path in [ROOT / "launch.py", *(ROOT / "studio" / "launcher").glob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                imported |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                imported.add((node.module or "").split(".")[0])
    assert imported - {"studio"} <= sys.stdlib_module_names


@pytest.mark.parametrize(
    "argv, environ, torch, xformers, command",
    [
        ([], {}, "auto", False, []),
        (["--torch", "cpu", "serve"], {}, "cpu", False, ["serve"]),
        (["models", "--torch=rocm"], {"STUDIO_TORCH": "cpu"}, "rocm", False, ["models"]),
        ([], {"STUDIO_TORCH": "cuda"}, "cuda", False, []),
        (["--attention=xformers"], {}, "auto", True, ["--attention=xformers"]),
        (["--attention", "sdpa"], {"STUDIO_ATTENTION": "xformers"}, "auto", False, ["--attention", "sdpa"]),
        (["--torch", "cpu", "test", "--attention", "xformers"], {}, "cpu", False, ["test", "--attention", "xformers"]),
        (["generate", "test", "--torch", "cpu"], {}, "cpu", False, ["generate", "test"]),
        (["generate", "--", "--torch", "cpu"], {}, "auto", False, ["generate", "--", "--torch", "cpu"]),
    ],
)
def test_read_arguments(
    argv: list[str], environ: dict[str, str], torch: str, xformers: bool, command: list[str]
) -> None:
    assert launch.read_arguments(argv, environ) == (torch, xformers, command)


def test_settings_json_of_the_data_folder_comes_last(tmp_path: Path) -> None:
    (tmp_path / "settings.json").write_text('{"torch": "cpu", "attention": "xformers"}', encoding="utf-8")
    folder = ["--data-dir", str(tmp_path)]
    assert launch.read_arguments(folder, {}) == ("cpu", True, folder)
    assert launch.read_arguments([], {"STUDIO_DATA_DIR": str(tmp_path), "STUDIO_TORCH": "rocm"}) == ("rocm", True, [])
    (tmp_path / "settings.json").write_text("{ half a", encoding="utf-8")
    assert launch.read_arguments(folder, {}).torch == "auto"


@pytest.mark.parametrize(
    "argv, words", [(["--torch", "tpu"], "'tpu'; --torch may be auto"), (["--torch"], "needs a value")]
)
def test_a_wrong_option_ends_with_code_2(argv: list[str], words: str) -> None:
    with pytest.raises(LaunchError, match=words) as caught:
        launch.read_arguments(argv, {})
    assert caught.value.code == 2

"""The steps of the installation where something is in the way, in one process."""

from __future__ import annotations

import errno
import importlib.util
import shutil
import subprocess
import sys
from collections import namedtuple
from pathlib import Path
from typing import Any

import pytest

import launch
from studio.launcher import install as installing
from studio.launcher import torch_build
from studio.launcher.home import ESSENTIAL, LaunchError, Wanted
from studio.launcher.pip import PipError

from .conftest import Tree

WANTED = Wanted("cpu", False, ["models"])


@pytest.fixture
def fake_venv(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """`python -m venv` makes the fake environment; the calls are returned. No index can be reached."""
    calls: list[list[str]] = []
    run = subprocess.run

    def make(command: list[str], **options: Any) -> subprocess.CompletedProcess[Any]:
        if command[1:3] != ["-m", "venv"]:
            return run(command, **options)
        calls.append(command)
        tree.make_environment()
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(installing.subprocess, "run", make)
    monkeypatch.setattr(torch_build, "can_reach", lambda url: False)
    return calls


def is_complete(tree: Tree) -> bool:
    return not tree.home.is_incomplete(WANTED)


def test_without_an_environment_one_is_made(tree: Tree, fake_venv: list[list[str]]) -> None:
    shutil.rmtree(tree.root / ".venv")
    installing.install(tree.home, WANTED)
    assert fake_venv == [[sys.executable, "-m", "venv", tree.home.venv]]
    assert is_complete(tree)
    assert not (tree.root / ".venv" / "tmp").exists()


@pytest.mark.parametrize("essential", ESSENTIAL)
def test_a_package_whose_folder_is_gone_makes_the_environment_anew(
    tree: Tree, fake_venv: list[list[str]], essential: str
) -> None:
    installing.install(tree.home, WANTED)
    assert fake_venv == []
    shutil.rmtree(Path(tree.home.site_packages(), essential))
    assert not is_complete(tree)
    installing.install(tree.home, WANTED)
    assert len(fake_venv) == 1
    assert is_complete(tree)


def test_another_python_behind_the_environment_makes_it_anew(tree: Tree, fake_venv: list[list[str]]) -> None:
    installing.install(tree.home, WANTED)
    stamp = tree.home.read_stamp()
    checksum = stamp["environment"].split()[-1]
    tree.home.write_stamp({**stamp, "environment": f"/usr/bin/python3.10 {checksum}"})
    assert not is_complete(tree)
    installing.install(tree.home, WANTED)
    assert len(fake_venv) == 1


def test_a_file_in_place_of_the_environment_is_replaced(tree: Tree, fake_venv: list[list[str]]) -> None:
    shutil.rmtree(tree.root / ".venv")
    (tree.root / ".venv").write_text("", encoding="utf-8")
    installing.install(tree.home, WANTED)
    assert is_complete(tree)


def test_an_environment_in_which_pip_fails_without_a_known_reason_is_made_anew(
    tree: Tree, fake_venv: list[list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    tree.let_pip_fail("installer.lock", "No module named pip")
    make = tree.make_environment

    def make_working() -> None:
        make()
        tree.let_pip_work()

    tree.make_environment = make_working  # type: ignore[method-assign]
    installing.install(tree.home, WANTED)
    assert "The environment looks damaged: it is made anew." in capsys.readouterr().err
    assert len(fake_venv) == 1
    assert is_complete(tree)


def test_a_python_that_cannot_run_is_replaced(tree: Tree, fake_venv: list[list[str]]) -> None:
    Path(tree.home.python).write_text("#!/nowhere/python\n", encoding="utf-8")
    installing.install(tree.home, WANTED)
    assert len(fake_venv) == 1
    assert is_complete(tree)


def test_a_fresh_environment_is_not_made_twice(tree: Tree, fake_venv: list[list[str]]) -> None:
    shutil.rmtree(tree.root / ".venv")
    tree.let_pip_fail("runtime.lock", "\n".join(f"line {n}" for n in range(40)))
    with pytest.raises(PipError, match="its last words are above") as caught:
        installing.install(tree.home, WANTED)
    assert caught.value.details.splitlines()[-1] == "line 39"
    assert len(caught.value.details.splitlines()) == 12
    assert len(fake_venv) == 1


def test_the_environment_that_runs_the_launcher_is_not_removed_under_it(
    tree: Tree, fake_venv: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    Path(tree.home.python).unlink()
    monkeypatch.setattr(sys, "prefix", tree.home.venv)
    with pytest.raises(LaunchError, match="Leave it"):
        installing.install(tree.home, WANTED)
    assert (tree.root / ".venv" / "lib").is_dir()


def test_a_failing_venv_module_shows_its_words(
    tree: Tree, fake_venv: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.rmtree(tree.root / ".venv")
    failed = subprocess.CompletedProcess([], 1, "Error: ensurepip is not available\n", "")
    monkeypatch.setattr(installing.subprocess, "run", lambda *_, **__: failed)
    with pytest.raises(LaunchError, match="could not make an environment") as caught:
        installing.install(tree.home, WANTED)
    assert caught.value.details == "Error: ensurepip is not available"


@pytest.mark.parametrize("build, needed", installing.DISK_GB.items())
def test_too_little_room_is_told_before_anything_is_made(
    tree: Tree, fake_venv: list[list[str]], monkeypatch: pytest.MonkeyPatch, build: str, needed: int
) -> None:
    shutil.rmtree(tree.root / ".venv")
    usage = namedtuple("usage", "total used free")(0, 0, int(needed * 1e9) - 100_000_000)
    monkeypatch.setattr(installing.shutil, "disk_usage", lambda folder: usage)
    with pytest.raises(LaunchError, match=f"needs about {needed} GB in .*, and {needed - 0.1:.1f} GB are free"):
        installing.install(tree.home, Wanted(build, False, []))
    assert fake_venv == []


@pytest.mark.parametrize("version", [(3, 9, 18), (3, 14, 1)])
@pytest.mark.parametrize(
    "found, advice", [("python3.12", r"run `python3\.12 launch\.py`"), ("", "Install Python 3.12")]
)
def test_the_wrong_python_is_told_which_one_to_take(
    tree: Tree, monkeypatch: pytest.MonkeyPatch, version: tuple[int, int, int], found: str, advice: str
) -> None:
    shutil.rmtree(tree.root / ".venv")
    monkeypatch.setattr(sys, "version_info", version)
    monkeypatch.setattr(installing.shutil, "which", lambda name: name if name == found else None)
    sentence = r"needs Python 3.10 to 3.13, and this is {}\.{}\.{}\. .*{}".format(*version, advice)
    with pytest.raises(LaunchError, match=sentence):
        installing.install(tree.home, WANTED)
    assert not (tree.root / ".venv").exists()


@pytest.mark.parametrize("module", ["venv", "ensurepip"])
def test_a_python_without_venv_is_told_the_package_to_install(monkeypatch: pytest.MonkeyPatch, module: str) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == module else find(name))
    with pytest.raises(LaunchError, match=rf"no module {module}, .*sudo apt install python3\.\d+-venv"):
        installing.check_python()


def test_32_bits_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "maxsize", 2**31 - 1)
    with pytest.raises(LaunchError, match="64-bit"):
        installing.check_python()


@pytest.mark.parametrize("build", ["cuda", "rocm"])
def test_macos_has_no_such_build(tree: Tree, monkeypatch: pytest.MonkeyPatch, build: str) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    with pytest.raises(LaunchError, match="on macOS") as caught:
        installing.install(tree.home, Wanted(build, False, []))
    assert caught.value.code == 2


def test_an_index_without_the_build_gives_way_to_the_next(
    tree: Tree, fake_venv: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(torch_build, "can_reach", lambda url: True)
    tree.let_pip_fail("rocm7.2", "ERROR: No matching distribution found for torch<2.14,>=2.10")
    installing.install(tree.home, Wanted("rocm", False, []))
    torch_calls = [call.split("--index-url ")[1] for call in tree.pip_calls() if "--index-url" in call]
    index = torch_build.INDEX + "rocm7."
    assert torch_calls == [f"{index}2 torch>=2.10,<2.14", f"{index}1 torch>=2.10,<2.14"]


def test_a_disk_that_fills_while_the_stamp_is_written(
    tree: Tree, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", tree.home.stamp_file)

    monkeypatch.setattr(launch, "ROOT", str(tree.root))
    monkeypatch.setattr(sys, "argv", ["launch.py", "models"])
    monkeypatch.setattr(launch.Home, "write_stamp", refuse)
    assert launch.main() == 1
    assert "launch: The disk is full." in capsys.readouterr().err


def test_a_folder_that_cannot_be_written(
    tree: Tree, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", tree.home.stamp_file)

    monkeypatch.setattr(launch, "ROOT", str(tree.root))
    monkeypatch.setattr(sys, "argv", ["launch.py", "models"])
    monkeypatch.setattr(launch.Home, "write_stamp", refuse)
    assert launch.main() == 1
    assert f"launch: Cannot use {tree.home.stamp_file}: Permission denied." in capsys.readouterr().err

"""What pip says, and what is made of it."""

from __future__ import annotations

import io
import os
import sys

import pytest

from studio.launcher import pip

from .conftest import Tree

# As printed by pip 26, shortened in the middle.
FAILURES = {
    "network": [
        "WARNING: Retrying (Retry(total=0, connect=None)) after connection broken by 'NewConnectionError('<HTTPSConnection>: "
        "Failed to establish a new connection: [Errno 111] Connection refused')': /simple/torch/",
        "WARNING: Retrying (Retry(total=0)) after connection broken by 'NameResolutionError(\"Failed to resolve 'pypi.org'\")'",
        "WARNING: Retrying (Retry(total=0)) after connection broken by 'ReadTimeoutError(\"Read timed out.\")': /simple/x/",
        "Could not fetch URL https://pypi.org/simple/pip/: [SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed",
        "ERROR: Exception: ('Connection aborted.', RemoteDisconnected('Remote end closed connection'))",
    ],
    "disk": ["ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device"],
    "hash": ["ERROR: THESE PACKAGES DO NOT MATCH THE HASHES FROM THE REQUIREMENTS FILE."],
    "missing": ["ERROR: No matching distribution found for gradio==6.31.0"],
}


@pytest.mark.parametrize("kind, text", [(kind, text) for kind, texts in FAILURES.items() for text in texts])
def test_every_kind_of_failure_has_its_sentence(tree: Tree, kind: str, text: str) -> None:
    misleading = "" if kind == "missing" else "ERROR: No matching distribution found for x"
    tree.let_pip_fail("install", f"Collecting thing\n{text}\n{misleading}")
    with pytest.raises(pip.PipError) as caught:
        pip.run_pip(tree.home, pip.Display(1), ["install", "thing"])
    assert caught.value.kind == kind
    assert str(caught.value).startswith(pip.SENTENCES[kind].format(what="gradio==6.31.0"))
    assert tree.home.log_file in str(caught.value)
    assert text in (tree.root / ".venv" / "install.log").read_text(encoding="utf-8")


def test_an_unknown_failure_shows_the_last_words(tree: Tree) -> None:
    tree.let_pip_fail("install", "\n".join(f"line {n}" for n in range(30)))
    with pytest.raises(pip.PipError) as caught:
        pip.run_pip(tree.home, pip.Display(1), ["install", "thing"])
    assert caught.value.kind == "other"
    assert caught.value.details.splitlines() == [f"line {n}" for n in range(18, 30)]


def test_progress_in_words() -> None:
    installed = iter([10, 25, 60])
    progress = pip.Progress(4, lambda: next(installed))
    said = [
        ("Ignoring tomli: markers 'python_version < \"3.11\"' don't match your environment", ""),
        ("Collecting gradio==6.31.0 (from -r runtime.lock (line 3))", "1 of 3  gradio"),
        ("  Downloading gradio-6.31.0-py3-none-any.whl (42.1 MB)", ""),
        ("Progress 21000000 of 42100000", "gradio  21 of 42 MB"),
        ("Requirement already satisfied: ruamel.yaml in ./.venv", "2 of 3  ruamel.yaml"),
        ("Progress 100 of 5000", ""),
        ("", ""),
        ("Installing collected packages: " + ", ".join("abcdefghijklmnopqrst"), ""),
        ("", "unpacking 15 of 20"),
        ("", "unpacking 20 of 20"),
    ]
    assert [progress.read(line) for line, _ in said] == [detail for _, detail in said]


def test_progress_without_a_known_number() -> None:
    assert pip.Progress(0, lambda: 0).read("Collecting torch>=2.10,<2.14") == "torch"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_on_a_terminal_one_line_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", Terminal())
    monkeypatch.setenv("COLUMNS", "60")
    display = pip.Display(3)
    display.begin("Packages")
    display.update("1 of 90  " + "long" * 40)
    display.end()
    written = sys.stderr.getvalue()  # type: ignore[attr-defined]
    assert written.count("\n") == 1
    assert all(len(line) == 59 for line in written.rstrip("\n").split("\r")[1:])
    assert written.split("\r")[-1].split() == ["1/3", "Packages", "0", "s"]


def test_elsewhere_lines_are_few(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(0, 1000, 7))  # each look is 7 s after the one before
    monkeypatch.setattr(pip.time, "monotonic", lambda: float(next(clock)))
    display = pip.Display(3)
    display.begin("Packages")
    for number in range(6):
        display.update(f"{number} of 6")
    display.end("done")
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].endswith("...")
    assert [line.split()[2] for line in lines[1:-1]] == ["2", "5"]
    assert "done, " in lines[-1]


def test_pip_cannot_be_sent_elsewhere(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PIP_TARGET", "PIP_PREFIX", "PYTHONHOME", "PYTHONPATH", "PIP_USER"):
        monkeypatch.setenv(name, "1")
    monkeypatch.setenv("PIP_FIND_LINKS", "/wheels")
    environ = pip.pip_environment(tree.home)
    assert environ["PIP_USER"] == "0"
    assert environ.keys().isdisjoint({"PIP_TARGET", "PIP_PREFIX", "PYTHONHOME", "PYTHONPATH"})
    assert environ["PIP_FIND_LINKS"] == "/wheels"
    assert os.path.isdir(environ["TMPDIR"])
    assert environ["TMPDIR"].startswith(tree.home.venv)


def test_offered_versions(tree: Tree) -> None:
    assert pip.offered_versions(tree.home) == ["2.15.0", "2.13.0+cpu", "2.13.0", "2.12.1", "2.9.1+cpu"]
    tree.let_pip_fail("index", "ERROR: unknown command")
    assert pip.offered_versions(tree.home) == []

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from studio.computing import computing_environment, prepare_to_compute


def test_what_the_user_has_set_counts_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    monkeypatch.setenv("THP_MEM_ALLOC_ENABLE", "0")
    found = computing_environment()
    assert (found["OMP_WAIT_POLICY"], found["THP_MEM_ALLOC_ENABLE"]) == ("PASSIVE", "0")
    assert found["PATH"] == os.environ["PATH"]


def test_nothing_else_of_the_environment_is_touched(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a process inherits may have no name, or be empty, and cannot be written back."""
    written: dict[str, str] = {}

    class Inherited(dict[str, str]):
        def __setitem__(self, name: str, value: str) -> None:
            written[name] = value

        def setdefault(self, name: str, value: str = "") -> str:
            self[name] = value
            return value

        def update(self, *others: object, **more: str) -> None:
            raise OSError(22, "Invalid argument")

    monkeypatch.setattr(os, "environ", Inherited({"": "odd"}))
    prepare_to_compute()
    assert set(written) == {"OMP_WAIT_POLICY", "THP_MEM_ALLOC_ENABLE"}


def test_huge_pages_can_be_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("THP_MEM_ALLOC_ENABLE", raising=False)
    prepare_to_compute(("huge-pages",))
    assert "THP_MEM_ALLOC_ENABLE" not in os.environ
    prepare_to_compute()
    assert os.environ["THP_MEM_ALLOC_ENABLE"] == "1"


@pytest.mark.skipif(not os.path.exists("/sys/kernel/mm/transparent_hugepage"), reason="no Linux with huge pages")
@pytest.mark.parametrize("switch", ["1", "0"])
def test_pytorch_asks_for_huge_pages_when_it_is_told_to(switch: str) -> None:
    """The variable is PyTorch's own, and a release may rename it."""
    look = """
import torch
kept = torch.zeros(2**24)
flags = [line for line in open("/proc/self/smaps") if line.startswith("VmFlags")]
print(any(" hg" in line for line in flags))
"""
    done = subprocess.run(
        [sys.executable, "-c", look], env={**os.environ, "THP_MEM_ALLOC_ENABLE": switch}, capture_output=True, text=True, check=True
    )  # fmt: skip
    assert done.stdout.strip() == str(switch == "1")

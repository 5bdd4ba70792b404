"""Choosing the device, and telling apart the ways in which one can fail."""

from __future__ import annotations

import sys

import pytest
import torch

from studio.engine import hardware
from studio.engine.failure import error_text, explain, is_device_lost, is_out_of_memory
from studio.engine.hardware import choose_hardware, usable_cores
from studio.errors import EngineError, IncompatibleFile, OutOfMemory, SettingsError
from tests.engine.samples import resolved_request


def test_the_cpu_computes_in_float32() -> None:
    chosen = choose_hardware("cpu")
    assert (chosen.device.type, chosen.dtype, chosen.vae_dtype, chosen.attention) == (
        "cpu",
        torch.float32,
        torch.float32,
        "sdpa",
    )
    assert chosen.memory() > 10 * 2**20


@pytest.mark.parametrize(
    "capability, dtype, vae", [((8, 6), torch.bfloat16, torch.bfloat16), ((7, 5), torch.float16, torch.float32)]
)
def test_cuda_takes_bfloat16_where_it_is_fast(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], dtype: torch.dtype, vae: torch.dtype
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    chosen = choose_hardware("auto")
    assert (chosen.device.type, chosen.dtype, chosen.vae_dtype) == ("cuda", dtype, vae)


def test_a_device_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SettingsError, match=r"'cuda'.*Usable: auto, .*cpu"):
        choose_hardware("cuda")
    with pytest.raises(SettingsError, match="Allowed: auto, cpu, cuda, mps"):
        choose_hardware("tpu")  # type: ignore[arg-type]


def test_xformers_that_cannot_be_used_falls_back_with_a_note(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "CUDA devices only" in choose_hardware("cpu", "xformers").note
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    monkeypatch.setitem(sys.modules, "xformers", None)
    monkeypatch.setattr(hardware.importlib.util, "find_spec", lambda name: None)
    chosen = choose_hardware("cuda", "xformers")
    assert chosen.attention == "sdpa"
    assert "not installed" in chosen.note
    with pytest.raises(SettingsError, match="Allowed: auto, sdpa, xformers"):
        choose_hardware("cpu", "flash")  # type: ignore[arg-type]


def test_threads_are_bounded_by_what_the_process_may_use(monkeypatch: pytest.MonkeyPatch) -> None:
    assert usable_cores() >= 1
    monkeypatch.setattr(hardware, "_container_cores", lambda: 1)
    assert usable_cores() == 1


@pytest.mark.parametrize(
    "error, memory, lost",
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), True, False),
        (RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory"), True, False),
        (MemoryError(), True, False),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), False, True),
        (torch.AcceleratorError("CUDA error: unspecified launch failure"), False, True),
        (RuntimeError("shapes do not match"), False, False),
    ],
    ids=lambda value: str(value)[:24],
)
def test_failures_are_told_apart(error: Exception, memory: bool, lost: bool) -> None:
    assert (is_out_of_memory(error), is_device_lost(error)) == (memory, lost)


def test_explanations_name_what_to_change() -> None:
    request = resolved_request(batch_size=4, width=1024)
    memory = explain(MemoryError(), request, "cpu")
    assert isinstance(memory, OutOfMemory)
    assert "4 x 1024x64" in memory.message
    other = explain(RuntimeError("shapes do not match\nsecond line"), request, "cpu")
    assert isinstance(other, EngineError)
    assert "RuntimeError: shapes do not match" in other.message
    assert "second" not in other.message
    own = IncompatibleFile("as it is")
    assert explain(own, request, "cpu") is own


def test_error_text_is_one_short_line() -> None:
    assert error_text(ValueError("a\nb")) == "ValueError: a"
    assert error_text(ValueError()) == "ValueError"
    assert len(error_text(ValueError("x" * 1000))) == 300

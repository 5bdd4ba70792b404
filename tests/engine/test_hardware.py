"""Choosing the device, and telling apart the ways in which one can fail."""

from __future__ import annotations

import copy
import platform
import sys

import pytest
import torch

from studio.engine import hardware
from studio.engine.attention import KERNELS, chunked, sdpa, xformers
from studio.engine.deep_cache import DeepCacheUNet
from studio.engine.failure import explain, is_device_lost, is_out_of_memory
from studio.engine.hardware import Hardware, choose_hardware, usable_cores
from studio.engine.keeper import ModelKeeper
from studio.errors import EngineError, IncompatibleFile, OutOfMemory, SettingsError
from tests.engine.samples import resolved_request
from tests.tiny_models import tiny_components, tiny_info


@pytest.mark.parametrize(
    "fast, expected",
    [
        (True, (torch.bfloat16, torch.bfloat16, "chunked")),
        (False, (torch.float32, torch.float32, "sdpa")),
    ],
)
def test_the_cpu_takes_bfloat16_where_it_has_instructions_for_it(
    monkeypatch: pytest.MonkeyPatch, fast: bool, expected: tuple[torch.dtype, torch.dtype, str]
) -> None:
    monkeypatch.setattr(hardware, "_computes_bfloat16", lambda: fast)
    chosen = choose_hardware("cpu")
    assert (chosen.dtype, chosen.vae_dtype, chosen.attention) == expected
    assert chosen.memory() > 10 * 2**20


def test_a_precision_that_is_asked_for_is_taken() -> None:
    exact = choose_hardware("cpu", precision="fp32")
    assert (exact.dtype, exact.vae_dtype, exact.attention) == (torch.float32, torch.float32, "sdpa")
    assert "float32, sdpa" in exact.backend
    short = choose_hardware("cpu", "sdpa", "bf16")
    assert (short.dtype, short.attention) == (torch.bfloat16, "sdpa")
    with pytest.raises(SettingsError, match=r"too slowly.*auto, fp32, bf16"):
        choose_hardware("cpu", precision="fp16")
    with pytest.raises(SettingsError, match=r"'int8' is not known\. Allowed: auto, fp32, bf16, fp16"):
        choose_hardware("cpu", precision="int8")  # type: ignore[arg-type]


def test_compiling_is_for_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    here = choose_hardware("cpu", compiled="graphs")
    assert here.compiled == "off"
    assert "gains nothing on cpu" in here.note
    with pytest.raises(SettingsError, match=r"'all' is not known\. Allowed: off, blocks, graphs"):
        choose_hardware("cpu", compiled="all")  # type: ignore[arg-type]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "card")
    blocks, graphs = choose_hardware("cuda", compiled="blocks"), choose_hardware("cuda", compiled="graphs")
    assert blocks.backend.endswith("card, bfloat16, sdpa, compiled")
    assert graphs.backend.endswith("card, bfloat16, sdpa, compiled, CUDA graphs")
    compiled: list[tuple[str, str]] = []
    monkeypatch.setattr(
        torch.nn.Module, "compile", lambda self, mode, **_: compiled.append((type(self).__name__, mode))
    )
    for each in (blocks, graphs):
        each.prepare(copy.deepcopy(tiny_components("sd1")["unet"]))
    half = len(compiled) // 2
    assert set(compiled[:half]) == {("BasicTransformerBlock", "default")}
    assert set(compiled[half:]) == {("BasicTransformerBlock", "reduce-overhead")}


@pytest.mark.parametrize("interval, graphs, told", [(1, True, 3), (3, True, 3), (3, False, 0)])
def test_recorded_graphs_are_told_where_each_pass_begins(
    monkeypatch: pytest.MonkeyPatch, interval: int, graphs: bool, told: int
) -> None:
    """Also the passes of DeepCache that go through the outermost blocks only."""
    marks: list[None] = []
    monkeypatch.setattr(torch.nn.Module, "compile", lambda self, **_: None)
    monkeypatch.setattr(torch.compiler, "cudagraph_mark_step_begin", lambda: marks.append(None))
    unet = copy.deepcopy(tiny_components("sd1")["unet"])
    Hardware(
        torch.device("cpu"), torch.float32, torch.float32, "sdpa", compiled="graphs" if graphs else "blocks"
    ).prepare(unet)
    cached, x, states = DeepCacheUNet(unet, interval), torch.randn(1, 4, 16, 16), torch.randn(1, 77, 32)
    with torch.inference_mode():
        for _ in range(3):
            cached(x, torch.full((1,), 400.0), states, added_cond_kwargs=None, return_dict=False)
    assert len(marks) == told


def test_flash_attention_is_for_heads_that_it_takes() -> None:
    """On CUDA up to 256 wide: those of U-Nets, not the one of a VAE, whose steps would all be painted and then not be decoded."""
    unet, vae = (copy.deepcopy(tiny_components("sd1")[name]) for name in ("unet", "vae"))
    for name, of_vae in (("flash", sdpa), ("xformers", xformers), ("chunked", chunked)):
        Hardware(torch.device("cpu"), torch.bfloat16, torch.bfloat16, name).prepare(unet, vae)  # type: ignore[arg-type]
        assert {each.kernel for each in unet.attn_processors.values()} == {KERNELS[name]}  # type: ignore[index]
        assert {each.kernel for each in vae.attn_processors.values()} == {of_vae}


def test_channels_come_last_in_short_formats_only() -> None:
    for precision, expected in (("fp32", False), ("bf16", True)):
        loaded = ModelKeeper(choose_hardware("cpu", precision=precision)).checkpoint(tiny_info("sd1"))
        for module in (loaded.model.unet, loaded.model.vae):
            weights = [weight for weight in module.parameters() if weight.ndim == 4]
            assert all(weight.is_contiguous(memory_format=torch.channels_last) for weight in weights) is expected
    assert choose_hardware("cpu").layout(torch.float16) == torch.channels_last


def test_weights_are_packed_where_onednn_reads_them(monkeypatch: pytest.MonkeyPatch) -> None:
    def packs(machine: str, fast: bool = True, there: bool = True) -> tuple[bool, bool]:
        monkeypatch.setattr(platform, "machine", lambda: machine)
        monkeypatch.setattr(hardware, "_computes_bfloat16", lambda: fast)
        monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: there)
        return choose_hardware("cpu", precision="fp32").packs, choose_hardware("cpu", precision="bf16").packs

    assert packs("x86_64") == packs("AMD64") == (True, True)
    assert packs("x86_64", fast=False) == (True, False)  # its bfloat16 is emulated
    assert packs("arm64") == packs("aarch64") == packs("x86_64", there=False) == (False, False)
    packs("x86_64")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    assert choose_hardware("cuda").packs is False


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
    assert "CUDA devices only" in choose_hardware("cpu", "flash").note
    assert "short formats only" in choose_hardware("cuda", "flash", "fp32").note
    assert choose_hardware("cuda", "flash").attention == "flash"
    with pytest.raises(SettingsError, match="Allowed: auto, sdpa, chunked, flash, xformers"):
        choose_hardware("cpu", "fastest")  # type: ignore[arg-type]


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
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), True, False),
        (RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"), True, False),
        (RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED"), True, False),
        (RuntimeError("Invalid buffer size: 13.50 GiB"), True, False),
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

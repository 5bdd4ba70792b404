"""Choosing the device, and telling apart the ways in which one can fail."""

from __future__ import annotations

import copy
import platform
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace

import psutil  # type: ignore[import-untyped]
import pytest
import torch
import torch.utils._triton

from studio.engine import hardware
from studio.engine.attention import KERNELS, chunked, sdpa, xformers
from studio.engine.deep_cache import DeepCacheUNet
from studio.engine.failure import Work, explain, is_device_lost, is_out_of_memory
from studio.engine.hardware import Hardware, available_bytes, choose_hardware, usable_cores
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


def pretend_cuda(monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int] = (9, 0)) -> None:
    """Let there be a card, to be chosen but not to be computed on."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "card")


@pytest.fixture
def tf32() -> Iterator[Callable[[], tuple[bool, bool]]]:
    """What PyTorch may round to TF32, convolutions and products of matrices; allowed at first, and as it was afterwards."""

    def allowed() -> tuple[bool, bool]:
        return torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32

    before = allowed()
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = True
    yield allowed
    torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = before


def test_float32_on_a_card_is_float32(monkeypatch: pytest.MonkeyPatch, tf32: Callable[[], tuple[bool, bool]]) -> None:
    pretend_cuda(monkeypatch)
    for precision in ("auto", "bf16", "fp16"):
        choose_hardware("cuda", precision=precision)  # type: ignore[arg-type]
    choose_hardware("cpu", precision="fp32")
    assert tf32() == (True, True)
    choose_hardware("cuda", precision="fp32")
    assert tf32() == (False, False)


@pytest.mark.parametrize(
    "asked, expected", [("auto", torch.float16), ("fp32", torch.float32), ("bf16", torch.bfloat16)]
)
def test_apple_graphics_take_float16_with_a_vae_in_float32(
    monkeypatch: pytest.MonkeyPatch, asked: str, expected: torch.dtype
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    chosen = choose_hardware("auto", precision=asked)  # type: ignore[arg-type]
    assert (chosen.device.type, chosen.dtype, chosen.attention) == ("mps", expected, "sdpa")
    assert chosen.vae_dtype == (torch.bfloat16 if expected == torch.bfloat16 else torch.float32)
    assert not (chosen.packs or chosen.has_own_memory or chosen.overlaps)
    refused = choose_hardware("mps", "xformers", compiled="blocks")
    assert (refused.attention, refused.compiled) == ("sdpa", "off")
    assert "this is mps" in refused.note and "gains nothing on mps" in refused.note


def test_a_container_may_still_use_what_only_caches_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As after reading checkpoints: of 8 GiB the processes hold 0.9, and 6 are their files' contents."""
    gib = 2**30

    def write(
        limit: str, stat: str = f"anon {gib * 9 // 10}\nfile {6 * gib}\ninactive_file {5 * gib}\nactive_file {gib}\n"
    ) -> None:
        for name, text in (("max", limit), ("current", f"{gib * 69 // 10}\n"), ("stat", stat)):
            (tmp_path / f"memory.{name}").write_text(text)

    def told() -> float:
        return available_bytes() / gib

    monkeypatch.setattr(hardware, "CGROUP", tmp_path)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=64 * gib))
    assert told() == 64  # not in a container
    write(f"{8 * gib}\n")
    assert told() == pytest.approx(7.1)
    write(f"{6 * gib}\n", "anon 1\n")
    assert told() == 0
    write("max\n")
    assert told() == 64


def test_compiling_is_for_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware, "_why_not_compiled", lambda: "")
    here = choose_hardware("cpu", compiled="graphs")
    assert here.compiled == "off"
    assert "gains nothing on cpu" in here.note
    with pytest.raises(SettingsError, match=r"'all' is not known\. Allowed: off, blocks, graphs"):
        choose_hardware("cpu", compiled="all")  # type: ignore[arg-type]
    pretend_cuda(monkeypatch)
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
    pretend_cuda(monkeypatch)
    assert choose_hardware("cuda").packs is False


@pytest.mark.parametrize(
    "capability, dtype, vae", [((8, 6), torch.bfloat16, torch.bfloat16), ((7, 5), torch.float16, torch.float32)]
)
def test_cuda_takes_bfloat16_where_it_is_fast(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], dtype: torch.dtype, vae: torch.dtype
) -> None:
    pretend_cuda(monkeypatch, capability)
    chosen = choose_hardware("auto")
    assert (chosen.device.type, chosen.dtype, chosen.vae_dtype) == ("cuda", dtype, vae)


def test_a_device_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SettingsError, match=r"'cuda'.*Usable: auto, .*cpu"):
        choose_hardware("cuda")
    with pytest.raises(SettingsError, match="Allowed: auto, cpu, cuda, mps"):
        choose_hardware("tpu")  # type: ignore[arg-type]


def test_compiling_is_left_out_where_triton_does_not_work(monkeypatch: pytest.MonkeyPatch) -> None:
    def backend() -> None:
        raise RuntimeError("Failed to find C compiler. Please specify via CC environment variable.")

    def told(package: bool, card: bool, backend: Callable[[], object]) -> str:
        monkeypatch.setattr(torch.utils._triton, "has_triton_package", lambda: package)
        monkeypatch.setattr(torch.utils._triton, "has_triton", lambda: card)
        monkeypatch.setattr(torch.utils._triton, "triton_backend", backend)
        chosen = choose_hardware("cuda", compiled="graphs")
        assert (chosen.compiled == "off") == bool(chosen.note)
        return chosen.note

    pretend_cuda(monkeypatch)
    assert "Triton, which is not installed; it is left out" in told(False, False, backend)
    assert "does not know this card" in told(True, False, backend)
    assert "does not work here (RuntimeError: Failed to find C compiler" in told(True, True, backend)
    assert told(True, True, object) == ""


def test_kernels_that_cannot_be_used_fall_back_with_a_note(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "CUDA devices only" in choose_hardware("cpu", "xformers").note
    assert "CUDA devices only" in choose_hardware("cpu", "flash").note
    pretend_cuda(monkeypatch)
    assert "short formats only" in choose_hardware("cuda", "flash", "fp32").note
    assert choose_hardware("cuda", "flash").attention == "flash"
    with pytest.raises(SettingsError, match="Allowed: auto, sdpa, chunked, flash, xformers"):
        choose_hardware("cpu", "fastest")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "module, told",
    [
        (None, "xformers is not installed (pip install xformers); SDPA is used instead."),
        (
            ImportError("libcudart.so.12: cannot open shared object file"),
            "does not work here (ImportError: libcudart.so.12",
        ),
        (
            NotImplementedError("No operator found for `memory_efficient_attention_forward`"),
            "(NotImplementedError: No operator",
        ),
        (lambda q, k, v: q, ""),
    ],
    ids=["missing", "not loaded", "built for another PyTorch", "works"],
)
def test_xformers_is_tried_before_it_is_taken(
    monkeypatch: pytest.MonkeyPatch, module: Exception | Callable[..., object] | None, told: str
) -> None:
    class Installed(ModuleType):
        def __getattr__(self, name: str) -> object:
            if isinstance(module, ImportError):
                raise module
            return module if callable(module) else self._refuse

        def _refuse(self, *_: object) -> None:
            assert isinstance(module, Exception)
            raise module

    zeros = torch.zeros
    monkeypatch.setattr(torch, "zeros", lambda *size, device, dtype: zeros(*size, dtype=dtype))
    monkeypatch.setitem(sys.modules, "xformers", None if module is None else ModuleType("xformers"))
    if module is not None:
        monkeypatch.setitem(sys.modules, "xformers.ops", Installed("xformers.ops"))
    pretend_cuda(monkeypatch)
    chosen = choose_hardware("cuda", "xformers")
    assert chosen.attention == ("sdpa" if told else "xformers")
    assert told in chosen.note
    assert bool(chosen.note) == bool(told)


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
    request = Work.painting(resolved_request(batch_size=4, width=1024))
    memory = explain(MemoryError(), request, "cpu")
    assert isinstance(memory, OutOfMemory)
    assert "4 x 1024x64" in memory.message
    other = explain(RuntimeError("shapes do not match\nsecond line"), request, "cpu")
    assert isinstance(other, EngineError)
    assert "RuntimeError: shapes do not match" in other.message
    assert "second" not in other.message
    own = IncompatibleFile("as it is")
    assert explain(own, request, "cpu") is own

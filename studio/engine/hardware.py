"""What the machine offers, and what is used of it: device, number formats, attention kernel, threads.

| device | U-Net and text encoders | VAE | attention | why |
|---|---|---|---|---|
| cuda, compute capability 8.0 and up | bfloat16 | bfloat16 | sdpa | tensor cores; no overflow, so no NaN pictures |
| cuda, older | float16 | float32 | sdpa | no fast bfloat16; the VAEs of SDXL overflow in float16 |
| mps | float16 | float32 | sdpa | the same |
| cpu with AVX-512 BF16 or AMX | bfloat16 | bfloat16 | chunked | half the time of float32, or less |
| cpu, other | float32 | float32 | sdpa | short formats would be emulated |

That is what `auto` means. Any format may be asked for where the device can compute in it; float32 is the reference, and
the only one in which a batch equals its pictures one by one to the last bit.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

import torch

from studio.engine.attention import KernelName, install, xformers
from studio.errors import SettingsError, error_text
from studio.schema.levers import LEVERS, ROUNDED_BY, LeverName

if TYPE_CHECKING:
    from diffusers import AutoencoderKL, UNet2DConditionModel

DeviceName = Literal["auto", "cpu", "cuda", "mps"]
AttentionName = Literal["auto", "sdpa", "chunked", "flash", "xformers"]
PrecisionName = Literal["auto", "fp32", "bf16", "fp16"]
CompileName = Literal["off", "blocks", "graphs"]
COMPILED_VARIANTS = 64
"""Of a transformer block: by width, rows, and what LoRAs, hypernetworks and token merging do to it. Beyond them PyTorch goes on uncompiled."""
CGROUP = Path("/sys/fs/cgroup")
"""Where a container (cgroup v2) finds its limits."""
_DTYPES: dict[str, torch.dtype] = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Hardware:
    """The choices for one process. `note` is a sentence for the user when something else was asked for."""

    device: torch.device
    dtype: torch.dtype
    vae_dtype: torch.dtype
    attention: KernelName
    note: str = ""
    compiled: CompileName = "off"
    without: frozenset[LeverName] = frozenset()
    """Levers of speed that are left out."""
    packs: bool = False
    """Whether weights of large convolutions are packed (see `packing`); they have no gradients then."""

    @property
    def device_label(self) -> str:
        """`cpu`, or the card's name."""
        return torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else self.device.type

    @property
    def dtype_label(self) -> str:
        """`float32`, `bfloat16` ..."""
        return str(self.dtype).removeprefix("torch.")

    @property
    def backend(self) -> str:
        """What paints, as pictures name it: `torch 2.13.0+cpu, cpu, float32, sdpa`."""
        parts = [f"torch {torch.__version__}", self.device_label, self.dtype_label, self.attention]
        compiled = {"off": [], "blocks": ["compiled"], "graphs": ["compiled, CUDA graphs"]}[self.compiled]
        return ", ".join([*parts, *compiled, *(f"without {name}" for name in LEVERS if name in self._missed)])

    @property
    def _missed(self) -> frozenset[LeverName]:
        """The levers left out that would round sums otherwise here: with channels last, packing is the same to the bit."""
        idle = set[LeverName]()
        if self.layout(self.dtype) == torch.channels_last or not _packs(self.device, self.dtype):
            idle.add("packing")
        if not self._has_layouts(self.dtype):
            idle.add("channels-last")
        return (self.without & ROUNDED_BY) - idle

    @property
    def has_own_memory(self) -> bool:
        """Whether the device's memory is another than the machine's, which Apple's graphics share: else nothing is won by waiting there."""
        return self.device.type not in ("cpu", "mps")

    @property
    def overlaps(self) -> bool:
        """Whether two threads get more out of the device than one: a card, which works on two CUDA streams at once.

        Other devices are busy with one. FlashAttention is held to by switches of the whole process, which two threads would leave set
        for each other, and a U-Net may be compiled in the middle of a job: with these one thing is done at a time.
        """
        able = self.device.type == "cuda" and self.attention != "flash" and self.compiled == "off"
        return able and "decoding-beside" not in self.without

    def memory(self) -> int:
        """Bytes in use: allocated on the card for CUDA, else resident in this process."""
        if self.device.type == "cuda":
            return torch.cuda.memory_allocated(self.device)
        return resident_bytes()

    def free_memory(self) -> int:
        """Bytes that could still be used: on the card for CUDA, else of this machine, within its container's limit."""
        if self.device.type == "cuda":
            cached = torch.cuda.memory_reserved(self.device) - torch.cuda.memory_allocated(self.device)
            return torch.cuda.mem_get_info(self.device)[0] + cached
        return available_bytes()

    def free(self) -> None:
        """Give cached memory back to the device."""
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        elif self.device.type == "mps":
            torch.mps.empty_cache()
        else:
            _trim_heap()

    def layout(self, dtype: torch.dtype) -> torch.memory_format:
        """How weights of convolutions in `dtype` are to lie in memory.

        Convolutions in short formats are faster with channels last; float32 stays as the reference computes it, but for weights that are packed.
        """
        last = self._has_layouts(dtype) and "channels-last" not in self.without
        return torch.channels_last if last else torch.contiguous_format

    def _has_layouts(self, dtype: torch.dtype) -> bool:
        return dtype != torch.float32 and self.device.type in ("cpu", "cuda")

    def prepare(self, *modules: UNet2DConditionModel | AutoencoderKL, moves: bool = False) -> None:
        """Install the kernel, and compile where that was chosen; without graphs if the weights move between memories, which would record anew each time.

        FlashAttention on CUDA takes heads up to 256 wide, and a VAE's only one is 512: VAEs attend with SDPA instead.
        """
        for module in modules:
            is_unet = isinstance(module, _unet_class())
            install("sdpa" if self.attention == "flash" and not is_unet else self.attention, module)
            if self.compiled != "off" and is_unet:
                _compile(module, graphs=self.compiled == "graphs" and not moves)


def choose_hardware(
    device: DeviceName = "auto",
    attention: AttentionName = "auto",
    precision: PrecisionName = "auto",
    compiled: CompileName = "off",
    without: frozenset[LeverName] = frozenset(),
) -> Hardware:
    """Device `auto` is the first of cuda, mps, cpu that is there; for the rest see the table above.

    Raises `SettingsError` for a device that is not there, as painting on another one could take a hundred times as long, and for a
    format that the device cannot compute in. Attention is a matter of speed only, so a kernel that cannot be used
    falls back to SDPA with a `note`; `compiled` (torch.compile, with `graphs` also CUDA graphs) acts on CUDA only.

    Where float32 is chosen on CUDA, PyTorch's own rounding to TF32 is turned off in this process.
    """
    found = _find_device(device)
    dtype = _choose_dtype(precision, found)
    kernel, note = _choose_attention(attention, found, dtype)
    if compiled not in get_args(CompileName):
        known = ", ".join(get_args(CompileName))
        raise SettingsError(f"Compile {compiled!r} is not known. Allowed: {known}.", field="compile")
    if compiled != "off" and found.type != "cuda":
        note, compiled = f"{note} Compiling gains nothing on {found.type}; it is left out.".strip(), "off"
    elif compiled != "off" and (reason := _why_not_compiled()):
        note, compiled = f"{note} Compiling needs Triton, {reason}; it is left out.".strip(), "off"
    if found.type == "cuda" and dtype == torch.float32:
        _compute_exactly()
    vae_dtype = torch.float32 if dtype == torch.float16 else dtype
    packs = "packing" not in without and _packs(found, dtype)
    return Hardware(found, dtype, vae_dtype, kernel, note, compiled, without, packs)


def use_all_cores() -> None:
    """One torch thread per physical core this process may use, unless OMP_NUM_THREADS says otherwise."""
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(usable_cores())


def usable_cores() -> int:
    """Physical cores, no more than the process's CPU affinity and its container's quota allow; at least 1."""
    import psutil  # type: ignore[import-untyped]

    limits = [psutil.cpu_count(logical=False) or os.cpu_count() or 1]
    if hasattr(os, "sched_getaffinity"):
        limits.append(len(os.sched_getaffinity(0)))
    quota = _container_cores()
    return max(1, min([*limits, quota] if quota else limits))


def resident_bytes() -> int:
    """Resident memory of this process."""
    import psutil

    return int(psutil.Process().memory_info().rss)


def available_bytes() -> int:
    """Memory that this process may still take, as the machine and its container see it."""
    import psutil

    limits = [int(psutil.virtual_memory().available)]
    with contextlib.suppress(OSError, ValueError):  # no cgroup v2, or no limit ("max")
        limit, used = (int((CGROUP / f"memory.{name}").read_text()) for name in ("max", "current"))
        limits.append(limit - used + _cached_bytes())
    return max(0, min(limits))


def _compile(unet: UNet2DConditionModel, *, graphs: bool) -> None:
    """The transformer blocks, once for all places where they stand: seconds instead of minutes.

    With `graphs` PyTorch records what each launches and replays it in one go. What a block returns then lies where its next replay writes; PyTorch
    keeps it for as long as a pass goes on if it is told where passes begin. `conv_in` is the first layer of any, also of DeepCache's short ones.
    Weights must stay where they are: PyTorch records anew when they have moved.
    """
    import torch._dynamo.config

    torch._dynamo.config.skip_nnmodule_hook_guards = False  # LoRAs that change over the steps are hooks
    torch._dynamo.config.recompile_limit = COMPILED_VARIANTS
    unet.compile_repeated_blocks(dynamic=True, mode="reduce-overhead" if graphs else "default")
    if graphs:
        unet.conv_in.register_forward_pre_hook(lambda *_: torch.compiler.cudagraph_mark_step_begin())  # type: ignore[no-untyped-call]


def _compute_exactly() -> None:
    """Let float32 on CUDA be float32: PyTorch rounds what goes into convolutions to TF32, which has 10 bits of fraction, unless told otherwise.

    Beside short formats a VAE in float32 is left to that: there it is for float32's range, which TF32 has, and the latents were rounded more.
    """
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False


def _unet_class() -> type[torch.nn.Module]:
    from diffusers import UNet2DConditionModel  # seconds, which choosing a device should not take

    found: type[torch.nn.Module] = UNet2DConditionModel
    return found


def _trim_heap() -> None:
    """Hand free pages of the C library's heap back; otherwise a process that changes models keeps growing. glibc only."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)


def _find_device(name: DeviceName) -> torch.device:
    present = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        return torch.device(next(key for key, there in present.items() if there))
    if name not in present:
        raise SettingsError(f"Device {name!r} is not known. Allowed: auto, cpu, cuda, mps.", field="device")
    if not present[name]:
        usable = ", ".join(key for key, there in present.items() if there)
        raise SettingsError(
            f"Device {name!r} was asked for, but this PyTorch ({torch.__version__}) finds none here. Usable: auto, {usable}.",
            field="device",
        )
    return torch.device(name)


def _choose_attention(name: AttentionName, device: torch.device, dtype: torch.dtype) -> tuple[KernelName, str]:
    known = get_args(AttentionName)
    if name not in known:
        raise SettingsError(f"Attention {name!r} is not known. Allowed: {', '.join(known)}.", field="attention")
    if name == "auto":
        return ("chunked" if device.type == "cpu" and dtype != torch.float32 else "sdpa"), ""
    if name in ("xformers", "flash") and device.type != "cuda":
        return "sdpa", f"{name} works on CUDA devices only, and this is {device.type}; SDPA is used instead."
    if name == "flash" and dtype == torch.float32:
        return "sdpa", "FlashAttention computes in short formats only, and this is float32; SDPA is used instead."
    if name == "xformers" and (reason := _why_no_xformers(device, dtype)):
        return "sdpa", f"xformers {reason}; SDPA is used instead."
    return name, ""


def _why_no_xformers(device: torch.device, dtype: torch.dtype) -> str:
    """Nothing if it attends here. One that was built for another PyTorch is imported all the same, so it is tried."""
    try:
        little = torch.zeros(1, 1, 8, 64, device=device, dtype=dtype)
        xformers(little, little, little)
    except Exception as error:  # whatever a library that does not fit can throw
        missing = isinstance(error, ModuleNotFoundError) and (error.name or "").startswith("xformers")
        return "is not installed (pip install xformers)" if missing else f"does not work here ({error_text(error)})"
    return ""


def _why_not_compiled() -> str:
    """Nothing if Triton, which torch.compile writes its kernels for, works here; it needs a card that it knows, and a C compiler.

    PyTorch has no public questions for that; these are those that it asks itself before it compiles.
    """
    from torch.utils._triton import has_triton, has_triton_package, triton_backend

    if not has_triton_package():
        return "which is not installed"
    if not has_triton():
        return "which does not know this card"
    try:
        triton_backend()
    except Exception as error:  # whatever a compiler that is not there, or a folder that nobody may write to, can throw
        return f"which does not work here ({error_text(error)})"
    return ""


def _choose_dtype(name: PrecisionName, device: torch.device) -> torch.dtype:
    if name not in get_args(PrecisionName):
        known = ", ".join(get_args(PrecisionName))
        raise SettingsError(f"Precision {name!r} is not known. Allowed: {known}.", field="precision")
    if name == "fp16" and device.type == "cpu":
        raise SettingsError(
            "Precision 'fp16' was asked for, but processors compute in it too slowly to paint. Usable on the cpu: auto, fp32, bf16.",
            field="precision",
        )
    if name != "auto":
        return _DTYPES[name]
    if device.type == "cpu":
        return torch.bfloat16 if _computes_bfloat16() else torch.float32
    if device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 0):
        return torch.bfloat16
    return torch.float16


def _packs(device: torch.device, dtype: torch.dtype) -> bool:
    """On processors of the x86 kind that compute in the format."""
    able = platform.machine().lower() in ("x86_64", "amd64") and torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    return able and device.type == "cpu" and (dtype == torch.float32 or _computes_bfloat16())


def _computes_bfloat16() -> bool:
    """Whether this processor multiplies bfloat16 in hardware. PyTorch has no public question for that."""
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def _cached_bytes() -> int:
    """Memory of the container that only holds files' contents, of checkpoints that were read: the system drops it before it refuses any.

    What was used twice (active) goes too, only later, as in the machine's own count of available memory. Files in memory (tmpfs) are not in it.
    """
    counts = dict(line.split() for line in (CGROUP / "memory.stat").read_text().splitlines())
    return int(counts.get("inactive_file", 0)) + int(counts.get("active_file", 0))


def _container_cores() -> int | None:
    """Whole cores of the cgroup v2 quota; None when there is none."""
    try:
        quota, period = (CGROUP / "cpu.max").read_text().split()
        return max(1, int(quota) // int(period))
    except (OSError, ValueError):
        return None

"""Which build of torch, and where to take it from.

PyTorch's own index has one folder a build. Where it cannot be reached, the default index serves: pip as the user has
configured it. There the plain version stands for CUDA 13 on Linux, for the CPU on Windows, for Metal on macOS.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

OLDEST, BELOW = (2, 10), (2, 14)
REQUIREMENT = "torch>={}.{},<{}.{}".format(*OLDEST, *BELOW)
INDEX = "https://download.pytorch.org/whl/"
ROCM_FOLDERS = ("rocm7.2", "rocm7.1")
COMPUTE_CAPABILITY_MAJOR, COMPUTE_CAPABILITY_MINOR = 75, 76  # CUdevice_attribute of cuda.h


class Devices(NamedTuple):
    """NVIDIA GPUs."""

    driver: int
    """The newest CUDA the driver runs, 13000 for 13.0."""
    capabilities: list[tuple[int, int]]
    """Compute capability of each GPU."""


class Source(NamedTuple):
    """A place to take torch from."""

    place: str
    requirement: str
    arguments: tuple[str, ...]
    """Arguments for pip."""


def detect_build() -> str:
    """The build for the device found: `cuda`, `rocm` or `cpu` (on macOS, that one has Metal)."""
    if sys.platform == "darwin":
        return "cpu"
    if cuda_devices() is not None:
        return "cuda"
    has_rocm = os.path.isdir("/opt/rocm") or os.path.exists("/usr/bin/rocminfo")
    return "rocm" if has_rocm and os.path.exists("/dev/kfd") else "cpu"


def cuda_devices(library: object = None) -> Devices | None:
    """The GPUs that CUDA can use, or None.

    Asks the driver's library, as torch will: nvidia-smi can be missing where that works, and work where that does not.
    """
    import ctypes

    try:
        driver = library or ctypes.CDLL("nvcuda.dll" if os.name == "nt" else "libcuda.so.1")
    except OSError:
        return None

    def ask(function: str, *arguments: int) -> int:
        answer = ctypes.c_int()
        code = getattr(driver, function)(ctypes.byref(answer), *arguments)
        if code != 0:
            raise OSError(f"{function} gives error {code}")
        return answer.value

    def capability(device: int) -> tuple[int, int]:
        major = ask("cuDeviceGetAttribute", COMPUTE_CAPABILITY_MAJOR, device)
        return major, ask("cuDeviceGetAttribute", COMPUTE_CAPABILITY_MINOR, device)

    try:
        if getattr(driver, "cuInit")(0) != 0:  # noqa: B009
            return None
        found = [capability(device) for device in range(ask("cuDeviceGetCount"))]
        return Devices(ask("cuDriverGetVersion"), found) if found else None
    except (OSError, AttributeError):
        return None


def cuda_folder(devices: Devices | None) -> str:
    """The folder of PyTorch's index whose build runs on all `devices`; for unknown ones, the one of the default index.

    CUDA 13 needs driver 580 and Turing (7.5) or newer. The builds for CUDA 12.6 reach from Maxwell (5.0) to Hopper
    (9.0). Blackwell (10.0 and up) under an older driver has the builds for CUDA 12.8, which end at torch 2.11.
    """
    if devices is None:
        return "cu130"
    if min(devices.capabilities) < (7, 5):
        return "cu126"
    if devices.driver >= 13000:
        return "cu130"
    return "cu128" if max(devices.capabilities) >= (10, 0) else "cu126"


def sources(build: str, can_reach: Callable[[str], bool], offered: Callable[[], Sequence[str]]) -> Iterator[Source]:
    """Where to take `build` from, best first. An index is probed, and pip asked, only when its turn comes."""
    if sys.platform != "darwin":
        folders = {"cpu": ("cpu",), "rocm": ROCM_FOLDERS}.get(build) or (cuda_folder(cuda_devices()),)
        for folder in folders:
            if can_reach(INDEX + folder + "/torch/"):
                yield Source("PyTorch's index, " + INDEX + folder, REQUIREMENT, ("--index-url", INDEX + folder))
    if build == "cpu" and sys.platform == "linux":
        for version in offered():
            if version.endswith("+cpu") and OLDEST <= tuple(map(int, version.split(".")[:2])) < BELOW:
                yield Source("the default index", "torch==" + version, ())
    yield Source(_default_index(build), REQUIREMENT, ())


def _default_index(build: str) -> str:
    """The default index, with a word about what its build is for where that is not `build`."""
    holds = {"linux": "cuda", "darwin": "cpu", "win32": "cpu"}.get(sys.platform, build)
    if build == holds:
        return "the default index"
    other = "NVIDIA GPUs (it runs on the CPU too)" if holds == "cuda" else "the CPU only"
    return "the default index, whose build is for " + other


def can_reach(url: str) -> bool:
    """Whether `url` answers within five seconds, through the proxies that the environment names."""
    from urllib.request import Request, urlopen

    try:
        with urlopen(Request(url, method="HEAD"), timeout=5):
            return True
    except (OSError, ValueError):
        return False

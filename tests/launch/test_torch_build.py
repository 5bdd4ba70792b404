"""Which build of torch, from where."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

import pytest

from studio.launcher import torch_build
from studio.launcher.torch_build import INDEX, REQUIREMENT, Devices

AMPERE, HOPPER, BLACKWELL, PASCAL = (8, 6), (9, 0), (12, 0), (6, 1)
OFFERED = ["2.15.0", "2.14.0+cpu", "2.13.0+cpu", "2.13.0", "2.12.1+cpu", "2.9.1+cpu"]


class Driver:
    """CUDA's driver library, as far as it is asked. Answers are written through the reference that comes first."""

    def __init__(self, version: int, devices: list[tuple[int, int]], error: int = 0) -> None:
        self.version, self.devices, self.error = version, devices, error

    def cuInit(self, flags: int) -> int:
        return self.error

    def cuDeviceGetCount(self, answer: object) -> int:
        return self._give(answer, len(self.devices))

    def cuDriverGetVersion(self, answer: object) -> int:
        return self._give(answer, self.version)

    def cuDeviceGetAttribute(self, answer: object, attribute: int, device: int) -> int:
        return self._give(answer, self.devices[device][{75: 0, 76: 1}[attribute]])

    def _give(self, answer: object, value: int) -> int:
        answer._obj.value = value  # type: ignore[attr-defined]
        return 0


@pytest.mark.parametrize(
    "driver, found",
    [
        (Driver(13000, [HOPPER]), Devices(13000, [HOPPER])),
        (Driver(12080, [AMPERE, PASCAL]), Devices(12080, [AMPERE, PASCAL])),
        (Driver(13000, []), None),
        (Driver(13000, [HOPPER], error=100), None),
        (object(), None),
    ],
)
def test_the_driver_is_asked_for_its_gpus(driver: object, found: Devices | None) -> None:
    assert torch_build.cuda_devices(driver) == found


@pytest.mark.parametrize(
    "devices, folder",
    [
        (None, "cu130"),
        (Devices(13000, [AMPERE]), "cu130"),
        (Devices(13020, [HOPPER, BLACKWELL]), "cu130"),
        (Devices(12080, [AMPERE]), "cu126"),
        (Devices(12080, [BLACKWELL]), "cu128"),
        (Devices(13000, [PASCAL]), "cu126"),
        (Devices(13000, [AMPERE, PASCAL]), "cu126"),
        (Devices(13000, [(7, 5)]), "cu130"),
        (Devices(13000, [(7, 0)]), "cu126"),
    ],
)
def test_the_cuda_build_runs_on_every_gpu(devices: Devices | None, folder: str) -> None:
    assert torch_build.cuda_folder(devices) == folder


@pytest.mark.parametrize(
    "platform, cuda, files, build",
    [
        ("linux", True, set(), "cuda"),
        ("linux", True, {"/dev/kfd", "/opt/rocm"}, "cuda"),
        ("linux", False, {"/dev/kfd", "/opt/rocm"}, "rocm"),
        ("linux", False, {"/dev/kfd", "/usr/bin/rocminfo"}, "rocm"),
        ("linux", False, {"/opt/rocm"}, "cpu"),
        ("linux", False, {"/dev/kfd"}, "cpu"),
        ("win32", True, set(), "cuda"),
        ("win32", False, set(), "cpu"),
        ("darwin", False, set(), "cpu"),
    ],
)
def test_the_build_follows_the_device(
    monkeypatch: pytest.MonkeyPatch, platform: str, cuda: bool, files: set[str], build: str
) -> None:
    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.setattr(torch_build, "cuda_devices", lambda: Devices(13000, [HOPPER]) if cuda else None)
    monkeypatch.setattr(os.path, "exists", files.__contains__)
    monkeypatch.setattr(os.path, "isdir", files.__contains__)
    assert torch_build.detect_build() == build


def sources(build: str, can_reach: Callable[[str], bool], offered: list[str]) -> list[tuple[str, tuple[str, ...]]]:
    found = torch_build.sources(build, can_reach, lambda: offered)
    return [(source.requirement, source.arguments) for source in found]


@pytest.mark.parametrize(
    "platform, build, reachable, offered, expected",
    [
        ("linux", "cpu", True, OFFERED, [(REQUIREMENT, "cpu"), ("torch==2.13.0+cpu", ""), ("torch==2.12.1+cpu", "")]),
        ("linux", "cpu", False, OFFERED, [("torch==2.13.0+cpu", ""), ("torch==2.12.1+cpu", "")]),
        ("linux", "cpu", False, ["2.13.0"], []),
        ("win32", "cpu", False, OFFERED, []),
        ("darwin", "cpu", True, OFFERED, []),
        ("linux", "cuda", True, OFFERED, [(REQUIREMENT, "cu126")]),
        ("win32", "cuda", False, OFFERED, []),
        ("linux", "rocm", True, OFFERED, [(REQUIREMENT, "rocm7.2"), (REQUIREMENT, "rocm7.1")]),
    ],
)
def test_sources(
    monkeypatch: pytest.MonkeyPatch,
    platform: str,
    build: str,
    reachable: bool,
    offered: list[str],
    expected: list[tuple[str, str]],
) -> None:
    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.setattr(torch_build, "cuda_devices", lambda: Devices(12060, [AMPERE]))
    wanted = [(requirement, ("--index-url", INDEX + folder) if folder else ()) for requirement, folder in expected]
    assert sources(build, lambda url: reachable, offered) == [*wanted, (REQUIREMENT, ())]


def test_only_the_folder_that_answers_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    found = sources("rocm", lambda url: url == INDEX + "rocm7.1/torch/", [])
    assert found == [(REQUIREMENT, ("--index-url", INDEX + "rocm7.1")), (REQUIREMENT, ())]


@pytest.mark.parametrize(
    "platform, build, words",
    [
        ("linux", "cuda", "the default index"),
        ("linux", "cpu", "the default index, whose build is for NVIDIA GPUs (it runs on the CPU too)"),
        ("linux", "rocm", "the default index, whose build is for NVIDIA GPUs (it runs on the CPU too)"),
        ("win32", "cuda", "the default index, whose build is for the CPU only"),
        ("darwin", "cpu", "the default index"),
    ],
)
def test_the_default_index_is_named_with_what_it_holds(
    monkeypatch: pytest.MonkeyPatch, platform: str, build: str, words: str
) -> None:
    monkeypatch.setattr(sys, "platform", platform)
    assert list(torch_build.sources(build, lambda url: False, list))[-1].place == words


def test_an_index_behind_a_closed_port_cannot_be_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    assert not torch_build.can_reach("http://127.0.0.1:9/torch/")
    assert not torch_build.can_reach("no address at all")

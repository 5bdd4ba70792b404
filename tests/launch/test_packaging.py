"""pyproject.toml, the lock files and the launcher say the same."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from studio.launcher import install, torch_build

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[2]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
LOCKS = ("installer", "runtime", "test")
PYTHONS = ("3.10", "3.11", "3.12", "3.13")
MACHINES = {"linux": "x86_64", "win32": "AMD64", "darwin": "arm64"}


def locked(name: str) -> list[tuple[Requirement, int]]:
    """The requirements of a lock file, each with its number of hashes."""
    text = (ROOT / "requirements" / f"{name}.lock").read_text(encoding="utf-8")
    lines = re.sub(r"^#.*\n", "", text, flags=re.MULTILINE).replace("\\\n", " ").splitlines()
    return [(Requirement(line.split(" --hash")[0].strip()), line.count("--hash=sha256:")) for line in lines]


def installed(name: str, python: str, platform: str) -> dict[str, str]:
    """Name -> version of what a lock file installs there. Fails when a name comes twice."""
    environment = {
        "python_version": python,
        "python_full_version": f"{python}.4",
        "sys_platform": platform,
        "platform_system": {"linux": "Linux", "win32": "Windows", "darwin": "Darwin"}[platform],
        "platform_machine": MACHINES[platform],
        "os_name": "nt" if platform == "win32" else "posix",
        "implementation_name": "cpython",
        "platform_python_implementation": "CPython",
    }
    found = [item for item, _ in locked(name) if item.marker is None or item.marker.evaluate(environment)]
    versions = {canonicalize_name(item.name): str(item.specifier).removeprefix("==") for item in found}
    assert len(versions) == len(found)
    return versions


def test_torch_is_bounded_alike() -> None:
    requirements = {Requirement(text).name: text for text in PROJECT["project"]["dependencies"]}
    assert requirements["torch"] == torch_build.REQUIREMENT
    assert PROJECT["project"]["optional-dependencies"]["xformers"] == [install.XFORMERS]


def test_python_is_bounded_alike() -> None:
    bounds = SpecifierSet(PROJECT["project"]["requires-python"])
    minors = [minor for minor in range(30) if f"3.{minor}" in bounds]
    assert (3, minors[0]) == install.OLDEST
    assert (3, minors[-1]) == install.NEWEST
    assert [f"3.{minor}" for minor in minors] == list(PYTHONS)


@pytest.mark.parametrize("name", LOCKS)
def test_every_locked_requirement_is_exact_and_hashed(name: str) -> None:
    requirements = locked(name)
    assert len(requirements) > 5
    assert [str(item) for item, hashes in requirements if not hashes or not str(item.specifier).startswith("==")] == []


@pytest.mark.parametrize("name", LOCKS)
def test_nothing_that_depends_on_the_device_is_locked(name: str) -> None:
    names = {item.name for item, _ in locked(name)}
    assert {name for name in names if re.match(r"torch$|triton|nvidia-|cuda-|xformers", name)} == set()


@pytest.mark.parametrize("platform", MACHINES)
@pytest.mark.parametrize("python", PYTHONS)
def test_the_locks_satisfy_the_project(python: str, platform: str) -> None:
    runtime, test = installed("runtime", python, platform), installed("test", python, platform)
    assert test.items() >= runtime.items()
    wanted = dict.fromkeys(PROJECT["project"]["dependencies"], runtime)
    wanted |= dict.fromkeys(PROJECT["project"]["optional-dependencies"]["test"], test)
    wanted |= {text: installed("installer", python, platform) for text in PROJECT["dependency-groups"]["installer"]}
    for text, versions in wanted.items():
        requirement = Requirement(text)
        if requirement.name == "torch":
            continue
        if requirement.marker is None or requirement.marker.evaluate({"python_version": python}):
            version = versions[canonicalize_name(requirement.name)]
            assert version in requirement.specifier, f"{text}: {version} is locked"


def test_the_project_can_be_built() -> None:
    project = PROJECT["project"]
    assert (ROOT / project["readme"]).is_file()
    assert all((ROOT / name).is_file() for name in project["license-files"])
    assert (ROOT / "studio" / "py.typed").is_file()
    init = (ROOT / "studio" / "__init__.py").read_text(encoding="utf-8")
    assert f'__version__ = "{project["version"]}"' in init

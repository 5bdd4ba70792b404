"""What is installed and what is wanted: the part of the launcher that every start runs, in a few milliseconds.

`.venv/stamp.json` names the finished steps of the installation and what each was made from:

    environment   the Python it was made from and the checksum of requirements/installer.lock
    packages      the checksum of requirements/runtime.lock
    torch         the build: cpu, cuda or rocm
    project       the checksum of pyproject.toml and the folder that holds the source
    test          the checksum of requirements/test.lock            (after `launch.py test`)

A step is struck off before it begins and written when it is done, so a start after an interruption, a full disk or an
update does what is missing and no more.
"""

from __future__ import annotations

import errno
import json
import os
import zlib
from typing import NamedTuple

BUILDS = ("auto", "cpu", "cuda", "rocm")
ESSENTIAL = ("torch", "diffusers", "transformers", "gradio", "fastapi", "pydantic", "numpy", "PIL", "safetensors")
WINDOWS = os.name == "nt"


class LaunchError(Exception):
    """Ends the start with exit code `code`. The message says what is wrong, then what to do.

    `details` are the last words of a program that failed without a reason known here.
    """

    def __init__(self, message: str, code: int = 1, details: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.details = details


class Wanted(NamedTuple):
    """What the command line, the environment and settings.json ask for."""

    torch: str
    """One of `BUILDS`."""
    xformers: bool
    """Whether xformers was asked for as the attention kernel."""
    command: list[str]
    """The command and its arguments, without `--torch`; empty for the default, `serve`."""


class Home:
    """The folder of `launch.py` and the environment in it."""

    def __init__(self, root: str) -> None:
        self.root = root
        self.venv = os.path.join(root, ".venv")
        self.python = os.path.join(self.venv, *(("Scripts", "python.exe") if WINDOWS else ("bin", "python")))
        self.stamp_file = os.path.join(self.venv, "stamp.json")
        self.log_file = os.path.join(self.venv, "install.log")

    def path(self, *names: str) -> str:
        """A path below the root."""
        return os.path.join(self.root, *names)

    def read_stamp(self) -> dict[str, str]:
        """The finished steps; none when nothing is known."""
        return {step: str(value) for step, value in read_json(self.stamp_file).items()}

    def write_stamp(self, stamp: dict[str, str]) -> None:
        """Replace the stamp in one move."""
        with open(self.stamp_file + ".tmp", "w", encoding="utf-8") as stream:
            json.dump(stamp, stream, indent=1)
        os.replace(self.stamp_file + ".tmp", self.stamp_file)

    def goal(self, wanted: Wanted, build: str) -> dict[str, str]:
        """The stamp of a complete installation with torch's `build`, in the order of the steps."""
        goal = {
            "environment": self.base_python() + " " + self._checksum("requirements", "installer.lock"),
            "packages": self._checksum("requirements", "runtime.lock"),
            "torch": build,
            "project": self._checksum("pyproject.toml") + " " + self.root,
        }
        if wanted.command[:1] == ["test"]:
            goal["test"] = self._checksum("requirements", "test.lock")
        return goal

    def is_incomplete(self, wanted: Wanted) -> bool:
        """Whether something is missing or damaged."""
        stamp = self.read_stamp()
        build = wanted.torch if wanted.torch != "auto" else stamp.get("torch", "auto")
        goal = self.goal(wanted, build)
        if self.needs_xformers(wanted, build) or self.is_damaged(stamp):
            return True
        return any(stamp.get(step) != value for step, value in goal.items())

    def is_damaged(self, stamp: dict[str, str]) -> bool:
        """Whether the environment must be made anew: no Python, another Python, or the folder of a package gone."""
        if not os.access(self.python, os.X_OK):
            return True
        if "environment" in stamp and stamp["environment"].rpartition(" ")[0] != self.base_python():
            return True
        if self.base_python() == "own" and self._lacks_its_home():
            return True
        folder = self.site_packages()
        complete = "packages" in stamp and "torch" in stamp
        return complete and not all(os.path.isdir(os.path.join(folder, name)) for name in ESSENTIAL)

    def base_python(self) -> str:
        """The Python that the environment was made from: an update of the system may put another in its place."""
        path = os.path.realpath(self.python)
        return "own" if path.startswith(os.path.realpath(self.venv)) else path

    def _lacks_its_home(self) -> bool:
        """Whether the folder is gone that the environment's own Python, a copy as on Windows, needs everything else from."""
        try:
            with open(os.path.join(self.venv, "pyvenv.cfg"), encoding="utf-8") as stream:
                noted = dict(line.split(" = ", 1) for line in stream.read().splitlines() if " = " in line)
        except (OSError, ValueError):
            return False
        return "home" in noted and not os.path.isdir(noted["home"])

    def needs_xformers(self, wanted: Wanted, build: str) -> bool:
        """Whether xformers was asked for, would work, and is not there."""
        return wanted.xformers and build == "cuda" and not self.has_xformers()

    def has_xformers(self) -> bool:
        """Whether xformers is installed."""
        return os.path.isdir(os.path.join(self.site_packages(), "xformers"))

    def site_packages(self) -> str:
        """The folder of the environment's packages."""
        if WINDOWS:
            return os.path.join(self.venv, "Lib", "site-packages")
        library = os.path.join(self.venv, "lib")
        versions = [name for name in os.listdir(library) if name.startswith("python")] if os.path.isdir(library) else []
        return os.path.join(library, max(versions, default="python"), "site-packages")

    def _checksum(self, *names: str) -> str:
        with open(self.path(*names), "rb") as stream:
            return f"{zlib.crc32(stream.read()):08x}"  # tells a change; hashlib would cost as much time as all the rest


def read_json(path: str) -> dict[str, object]:
    """The object in a JSON file; an empty one when the file is missing or damaged."""
    try:
        with open(path, encoding="utf-8") as stream:
            content = json.load(stream)
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def explain(error: OSError) -> str:
    """A sentence about a file that could not be read or written."""
    if error.errno in (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC), errno.EFBIG):
        return "The disk is full. Free some space, then run launch.py again: it goes on where it stopped."
    where = " " + str(error.filename) if error.filename else ""
    return f"Cannot use{where}: {error.strerror or error}."

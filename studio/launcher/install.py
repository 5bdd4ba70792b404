"""The steps of the installation, and what can be said before they begin."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import sys
import time
from typing import IO, TYPE_CHECKING

from studio.launcher import torch_build
from studio.launcher.home import Home, LaunchError, Wanted
from studio.launcher.pip import Display, PipError, offered_versions, run_pip

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

OLDEST, NEWEST = (3, 10), (3, 13)
DISK_GB = {"cpu": 3, "cuda": 10, "rocm": 25}  # the finished environment and the largest file while it is unpacked
DISK_GB_WITHOUT_TORCH = 1
IN_NUMBERS = ("--progress-bar", "raw")  # known to the pip of installer.lock, not to every pip that comes with Python
XFORMERS = "xformers>=0.0.34"  # the first whose builds fit every torch from 2.10 on
BUILD_NAMES = {"cpu": "CPU", "cuda": "CUDA", "rocm": "ROCm"}


def install(home: Home, wanted: Wanted) -> None:
    """Do what is missing. Raises `LaunchError` with a sentence for the user; the next call goes on from there."""
    with only_one(home):
        if home.is_incomplete(wanted):  # another start may have done it while this one waited
            Installation(home, wanted).run()


class Installation:
    """One run through the steps."""

    def __init__(self, home: Home, wanted: Wanted) -> None:
        self.home = home
        self.wanted = wanted
        self.stamp = home.read_stamp()
        self.build = self._build()
        self.display = Display(0)

    def run(self) -> None:
        """Do the missing steps. When pip fails in an environment that was there before, make that anew and do all."""
        began = time.monotonic()
        fresh = self.home.is_damaged(self.stamp)
        check_disk(self.home.root, DISK_GB_WITHOUT_TORCH if self._has("torch") and not fresh else DISK_GB[self.build])
        if fresh:
            check_python()
        sys.stderr.write(f"Installing Latent Studio into {self.home.venv}\n")
        if fresh:
            self._make_environment()
        try:
            self._do_steps()
        except PipError as error:
            if fresh or error.kind != "other":
                raise
            sys.stderr.write("The environment looks damaged: it is made anew.\n")
            check_python()
            self._make_environment()
            self._do_steps()
        sys.stderr.write(f"Installed in {time.monotonic() - began:.0f} s. Details are in {self.home.log_file}\n")

    def _build(self) -> str:
        """The build of torch to have in the end."""
        if sys.platform == "darwin" and self.wanted.torch in ("cuda", "rocm"):
            raise LaunchError(f"There is no {BUILD_NAMES[self.wanted.torch]} on macOS; --torch may be auto or cpu.", 2)
        if self.wanted.torch != "auto":
            return self.wanted.torch
        return self.stamp.get("torch") or torch_build.detect_build()

    def _has(self, step: str) -> bool:
        return self.stamp.get(step) == self.home.goal(self.wanted, self.build).get(step)

    def _do_steps(self) -> None:
        steps: dict[str, tuple[str, Callable[[], str]]] = {
            "environment": ("Environment", lambda: self._install_lock("installer.lock")),
            "packages": ("Packages", lambda: self._install_lock("runtime.lock", *IN_NUMBERS)),
            "torch": (f"torch, {BUILD_NAMES[self.build]} build", self._install_torch),
            "project": ("Latent Studio", self._install_project),
            "test": ("Test tools", lambda: self._install_lock("test.lock", *IN_NUMBERS)),
        }
        missing = [step for step in self.home.goal(self.wanted, self.build) if not self._has(step)]
        needs_xformers = self.home.needs_xformers(self.wanted, self.build)
        self.display = Display(len(missing) + needs_xformers)
        for step in missing:
            title, action = steps[step]
            self.stamp.pop(step, None)
            self.home.write_stamp(self.stamp)
            self.display.begin(title)
            self.display.end(action())
            self.stamp[step] = self.home.goal(self.wanted, self.build)[step]
            self.home.write_stamp(self.stamp)
        if needs_xformers:
            self._install_xformers()
        shutil.rmtree(os.path.join(self.home.venv, "tmp"), ignore_errors=True)

    def _make_environment(self) -> None:
        """Remove what is there and make an empty environment with pip."""
        venv = self.home.venv
        if os.path.realpath(sys.prefix) == os.path.realpath(venv):
            raise LaunchError(
                "The environment in .venv must be made anew, and launch.py runs inside it. "
                "Leave it (`deactivate`), then run launch.py again."
            )
        self.stamp = {}
        try:
            if os.path.islink(venv) or os.path.isfile(venv):
                os.unlink(venv)
            elif os.path.isdir(venv):
                shutil.rmtree(venv)
        except OSError as error:
            raise LaunchError(
                f"{venv} cannot be removed ({error.strerror}). Is Latent Studio still running? "
                "Close it, then run launch.py again."
            ) from None
        done = subprocess.run(
            [sys.executable, "-m", "venv", venv],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            sentence = f"Python could not make an environment in {venv}. {without_venv()}"
            raise LaunchError(sentence, details=done.stdout.strip())

    def _install_lock(self, name: str, *options: str) -> str:
        path = self.home.path("requirements", name)
        with open(path, encoding="utf-8") as stream:
            expected = sum("==" in line and not line.startswith((" ", "#")) for line in stream)
        run_pip(
            self.home,
            self.display,
            ["install", *options, "--require-hashes", "--no-deps", "--requirement", path],
            expected,
        )
        return ""

    def _install_torch(self) -> str:
        """From the first source that has it. A torch of another build goes first: to pip it would look good enough."""
        site = self.home.site_packages()
        if os.path.isdir(os.path.join(site, "torch")):
            run_pip(self.home, self.display, ["uninstall", "--yes", "torch"])
        for source in torch_build.sources(self.build, torch_build.can_reach, lambda: offered_versions(self.home)):
            self.display.update("from " + source.place)
            try:
                run_pip(self.home, self.display, ["install", *IN_NUMBERS, *source.arguments, source.requirement])
            except PipError as error:
                if error.kind == "missing" and source.arguments:
                    continue
                raise
            break
        found = [re.fullmatch(r"torch-(.*)\.dist-info", name) for name in os.listdir(site)]
        return "{} from {}".format("".join(match.group(1) for match in found if match), source.place)

    def _install_project(self) -> str:
        run_pip(self.home, self.display, ["install", "--no-deps", "--no-build-isolation", "--editable", self.home.root])
        return ""

    def _install_xformers(self) -> None:
        """An extra: without it the program runs with torch's own attention, so a failure is told and forgotten."""
        self.display.begin("xformers")
        index = torch_build.INDEX + torch_build.cuda_folder(torch_build.cuda_devices())
        place = ["--index-url", index] if torch_build.can_reach(index + "/xformers/") else []
        try:
            run_pip(self.home, self.display, ["install", "--no-deps", *IN_NUMBERS, *place, XFORMERS])
            self.display.end()
        except PipError as error:
            self.display.end("not installed")
            sys.stderr.write(f"xformers: {error}\n")


def check_python() -> None:
    """Raise `LaunchError` when this Python cannot make the environment."""
    version = sys.version_info
    if not OLDEST <= version[:2] <= NEWEST:
        others = [f"python3.{minor}" for minor in range(NEWEST[1], OLDEST[1] - 1, -1)]
        found = next(filter(shutil.which, others), None)
        advice = "Install Python 3.12, then run launch.py with it."
        if found:
            advice = f"This machine has {found}: run `{found} launch.py`."
        raise LaunchError(
            "Latent Studio needs Python 3.10 to 3.13, and this is {}.{}.{}. ".format(*version[:3]) + advice
        )
    if sys.maxsize < 2**32:
        raise LaunchError("Latent Studio needs a 64-bit Python, and this one has 32 bits. Install one with 64 bits.")
    import importlib.util

    for module in ("venv", "ensurepip"):
        if importlib.util.find_spec(module) is None:
            raise LaunchError(f"This Python has no module {module}, which makes environments. {without_venv()}")


def without_venv() -> str:
    """What to do where Python comes without the modules that make environments."""
    package = "python{}.{}-venv".format(*sys.version_info[:2])
    return (
        f"On Debian and Ubuntu `sudo apt install {package}` helps; elsewhere install Python from python.org. "
        "Then run launch.py again."
    )


def check_disk(folder: str, needed_gb: float) -> None:
    """Raise `LaunchError` when the disk of `folder` has less than `needed_gb` free."""
    free_gb = shutil.disk_usage(folder).free / 1e9
    if free_gb < needed_gb:
        raise LaunchError(
            f"There is not enough room: installing needs about {needed_gb} GB in {folder}, and {free_gb:.1f} GB are "
            "free. Free some space, or move the folder to another disk, then run launch.py again."
        )


@contextlib.contextmanager
def only_one(home: Home) -> Iterator[None]:
    """Hold the folder's lock, so that two starts do not install at once. It ends with the process at the latest."""
    with open(home.path(".venv.lock"), "a+b") as stream:
        if not _try_lock(stream):
            sys.stderr.write("Another start is installing into this folder; waiting for it.\n")
            while not _try_lock(stream):
                time.sleep(1)
        yield


def _try_lock(stream: IO[bytes]) -> bool:
    try:
        if sys.platform == "win32":
            import msvcrt

            stream.seek(0)
            msvcrt.locking(stream.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True

"""Running pip: a calm line of progress for the user, everything pip says for the log, a sentence when it fails."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import sys
import time
from typing import IO, TYPE_CHECKING

from studio.launcher.home import LaunchError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from studio.launcher.home import Home

TAIL = 12  # lines of pip's last words shown after a failure that no sentence explains
TICK = 0.2  # seconds between two looks at what pip has said
REPORT_EVERY = 20  # seconds between two lines of progress where the output is no terminal

# The first pattern found in pip's output names the failure. Connection errors come first: after them pip goes on to
# say that it found no matching version.
FAILURES = (
    ("disk", r"No space left on device|Errno 28|not enough space on the disk|Disk quota exceeded"),
    ("hash", r"DO NOT MATCH THE HASHES"),
    (
        "network",
        r"NewConnectionError|ConnectTimeoutError|ReadTimeoutError|ProxyError|SSLError|NameResolutionError"
        r"|CERTIFICATE_VERIFY_FAILED|Connection (?:aborted|refused|reset)|Network is unreachable"
        r"|Failed to establish a new connection|Temporary failure in name resolution|getaddrinfo failed",
    ),
    ("missing", r"No matching distribution found for (?P<what>\S+)"),
)
SENTENCES = {
    "disk": "The disk is full. Free some space, then run launch.py again: it goes on where it stopped.",
    "hash": "A downloaded file is not the one in the lock file: the download was damaged or the package index holds "
    "another one. Run `pip cache purge`, then launch.py again.",
    "network": "The package index cannot be reached. Check the connection, and the proxy if there is one (`pip config "
    "list` shows what pip uses), then run launch.py again: it goes on where it stopped.",
    "missing": "The package index has no {what} for this Python and machine. Try another Python version from 3.10 to "
    "3.13.",
    "other": "pip could not install something; its last words are above.",
}


class PipError(LaunchError):
    """pip failed. `kind` is a key of `SENTENCES`."""

    def __init__(self, kind: str, what: str, log: str, details: str = "") -> None:
        super().__init__(f"{SENTENCES[kind].format(what=what)} Everything pip said is in {log}.", details=details)
        self.kind = kind


class Display:
    """One line a step, on stderr: on a terminal it changes as the step goes on, elsewhere it comes now and then."""

    def __init__(self, total: int) -> None:
        self._live = sys.stderr.isatty()
        self._total, self._number = total, 0
        self._title, self._began, self._shown = "", 0.0, 0.0

    def begin(self, title: str) -> None:
        """Start the next step."""
        self._number += 1
        self._title, self._began = title, time.monotonic()
        self._write("...", "")

    def update(self, detail: str) -> None:
        """Say how far the step is."""
        if self._live or time.monotonic() - self._shown >= REPORT_EVERY:
            self._write(detail, "")

    def end(self, detail: str = "") -> None:
        """Close the step's line with its seconds."""
        seconds = f"{time.monotonic() - self._began:.0f} s"
        self._write(f"{detail}, {seconds}" if detail else seconds, "\n")

    def _write(self, detail: str, ending: str) -> None:
        self._shown = time.monotonic()
        line = f"  {self._number}/{self._total}  {self._title:<20} {detail}"
        if self._live:
            width = shutil.get_terminal_size().columns - 1
            sys.stderr.write("\r" + line[:width].ljust(width) + ending)
        else:
            sys.stderr.write(line + "\n")
        sys.stderr.flush()


class Progress:
    """Turns pip's lines into a few words on how far it is."""

    def __init__(self, expected: int, installed: Callable[[], int]) -> None:
        """`expected` requirements to go through, 0 for unknown; `installed` counts the packages there are."""
        self._expected = expected
        self._installed = installed
        self._before = installed()
        self._unpacking = 0
        self._seen = 0
        self._name = ""

    def read(self, line: str) -> str:
        """What to show after `line`, or after silence when it is empty; empty when there is nothing new."""
        if not line and self._unpacking:
            return f"unpacking {min(self._installed() - self._before, self._unpacking)} of {self._unpacking}"
        download = re.match(r"Progress (\d+) of (\d+)", line)
        if download:
            done, size = (int(number) / 1e6 for number in download.groups())
            return f"{self._name}  {done:.0f} of {size:.0f} MB" if size >= 10 else ""
        if line.startswith("Ignoring "):  # a requirement for another Python or platform
            self._expected -= 1
        requirement = re.match(r"(?:Collecting|Requirement already satisfied:) ([\w.-]+)", line)
        if requirement:
            self._seen += 1
            self._name = requirement.group(1)
            return f"{self._seen} of {self._expected}  {self._name}" if self._expected > 0 else self._name
        if line.startswith("Installing collected packages:"):
            self._unpacking = line.count(",") + 1
        return ""


def run_pip(home: Home, display: Display, arguments: Sequence[str], expected: int = 0) -> None:
    """`pip ARGUMENTS` in the environment, with progress. Raises `PipError`.

    pip writes into the log, which is read as it grows: whatever pip started cannot hold a pipe open after Ctrl-C.
    """
    progress = Progress(expected, lambda: _count_installed(home))
    with open(home.log_file, "ab") as log:
        log.write("\n$ pip {}\n".format(" ".join(arguments)).encode())
    with open(home.log_file, "ab") as log, open(home.log_file, "rb") as said:
        began = said.seek(0, os.SEEK_END)
        process = _start(home, arguments, log)
        try:
            for line in _lines(process, said):
                detail = progress.read(line)
                if detail:
                    display.update(detail)
        finally:
            process.kill()  # does nothing to a process that has ended
            process.wait()
        said.seek(began)
        output = said.read().decode("utf-8", "replace")
    if process.returncode != 0:
        raise _failure(home, output)


def offered_versions(home: Home) -> list[str]:
    """The versions of torch that pip, as the user has configured it, is offered for this machine; newest first."""
    command = _command(home, ["index", "versions", "torch", "--timeout", "10", "--retries", "1"])
    environ = pip_environment(home)
    done = subprocess.run(
        command, env=environ, cwd=home.root, stdin=subprocess.DEVNULL, capture_output=True, check=False
    )
    listed = re.search(r"^Available versions: (.*)$", done.stdout.decode("utf-8", "replace"), re.MULTILINE)
    return listed.group(1).strip().split(", ") if listed else []


def pip_environment(home: Home) -> dict[str, str]:
    """The user's environment, without what would send packages elsewhere than into `.venv`.

    Downloads are unpacked inside `.venv`, for /tmp may be too small for torch.
    """
    temporary = os.path.join(home.venv, "tmp")
    os.makedirs(temporary, exist_ok=True)
    unwanted = {"PYTHONHOME", "PYTHONPATH", "PIP_TARGET", "PIP_PREFIX", "PIP_ROOT", "PIP_REQUIRE_HASHES", "PIP_NO_DEPS"}
    changed = {
        "TMPDIR": temporary,
        "TEMP": temporary,
        "PIP_USER": "0",
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "PYTHONUTF8": "1",
        "PYTHONUNBUFFERED": "1",
    }
    return {**{name: value for name, value in os.environ.items() if name not in unwanted}, **changed}


def _command(home: Home, arguments: Sequence[str]) -> list[str]:
    return [home.python, "-m", "pip", *arguments]


def _start(home: Home, arguments: Sequence[str], log: IO[bytes]) -> subprocess.Popen[bytes]:
    try:
        return subprocess.Popen(
            _command(home, arguments),
            env=pip_environment(home),
            cwd=home.root,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    except OSError as error:
        raise PipError("other", "", home.log_file, f"{home.python}: {error.strerror}") from None


def _lines(process: subprocess.Popen[bytes], said: IO[bytes]) -> Iterator[str]:
    """What the process adds to `said`, line by line until it ends, and an empty line for every `TICK` of silence."""
    rest = b""
    ended = False
    while not ended:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(TICK)
            ended = True
        *lines, rest = (rest + said.read()).split(b"\n")
        for line in lines or [b""]:
            yield line.decode("utf-8", "replace").strip()


def _count_installed(home: Home) -> int:
    folder = home.site_packages()
    return sum(name.endswith(".dist-info") for name in os.listdir(folder)) if os.path.isdir(folder) else 0


def _failure(home: Home, output: str) -> PipError:
    for kind, pattern in FAILURES:
        match = re.search(pattern, output)
        if match:
            return PipError(kind, match.groupdict().get("what") or "", home.log_file)
    said = [line.rstrip() for line in output.splitlines() if line.strip() and not line.startswith("Progress ")]
    return PipError("other", "", home.log_file, "\n".join(said[-TAIL:]))

"""What `--out` has written before a run was over, and going on with it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from bench._code import named
from studio.paths import atomic_write

Result = dict[str, Any]
PROCESSOR = "generate --peers"
CARDS = {device: f"generate --peers --device {device}" for device in ("cuda", "cpu")}
"""What results are called: those of the processor, and those of a card's workloads by the device that painted them."""
_SAME = ("device", "quick", "rounds", "versions")


class NotTogether(Exception):
    """Options that do not go together, or not with a file; the message says which, and what would."""


def read(file: Path, *benches: str) -> Result:
    """The result in `file`, whose entry `bench` is one of `benches`. Raises `NotTogether` for what `--out` has not written, and OSError."""
    try:
        found = json.loads(file.read_text("utf-8"))
        if found["bench"] in benches:
            return dict(found)
    except (ValueError, KeyError, TypeError):
        pass
    raise NotTogether(f"{file} is no result of {' or '.join(benches)} that --out has written.")


def write(file: Path | None, result: Result) -> None:
    """Put the result into `file`, if there is one. Raises `StorageError`."""
    if file is not None:
        atomic_write(file, json.dumps(result, indent=2).encode() + b"\n")


def begun(file: Path | None, now: Result) -> Result:
    """The result that a run adds to: `now`, which holds nothing yet, or what is in `file` already.

    It is written there at once, so that nothing is measured for a file that cannot be written. Raises `NotTogether` when what is there was
    measured otherwise (another machine, code or versions, say), `StorageError`, and `OSError` when it cannot be read.
    """
    result = _resumed(read(file, now["bench"]), now, file) if file is not None and file.exists() else now
    write(file, result)
    return result


def _resumed(before: Result, now: Result, file: Path) -> Result:
    """`before`, with the days of both. Drivers of a card may differ, and both are told."""
    then, here = _conditions(before), _conditions(now)
    for key, value in here.items():
        if key not in then:
            raise NotTogether(f"{file} does not say with which {key} it was measured. Name another file for --out.")
        if then[key] != value:
            raise NotTogether(
                f"{file} was measured with {key} {then[key]}, and this is {value}. Name another file for --out."
            )
    if "card" in now:
        drivers = [card["driver_version"] for card in (before["card"], now["card"]) if "driver_version" in card]
        if len(set(drivers)) > 1 and drivers[1] not in drivers[0].split(" and "):
            before["card"]["driver_version"] = " and ".join(drivers)
    first = before["date"].partition(" ")[0]
    return {**before, "date": first if first == now["date"] else f"{first} to {now['date']}"}


def _conditions(result: Result) -> dict[str, Any]:
    """By name, what must be equal for two parts to make one result. Results of earlier versions hold less."""
    found = {key: result[key] for key in _SAME if key in result}
    if "code" in result:
        found["code"] = named(result["code"])
    if "card" in result:
        found["card"] = result["card"].get("name")
    for key, value in result["machine"].items():
        if key != "load_at_start":
            found[f"processor {key}" if key in ("family", "model", "stepping", "flags") else key] = value
    return found

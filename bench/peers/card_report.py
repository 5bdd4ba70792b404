"""The result from a card in words: a table, the figures beside their goals, and the section of docs/speed.md that both go into."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bench.peers.contender import COMPILING, STUDIO
from bench.peers.report import cell, place, rewritten, shown, versions
from studio.paths import REPOSITORY, atomic_write

MARKS = ("<!-- card: written by bench generate --peers --report -->", "<!-- card: end -->")
GOAL_TIMES, GOAL_PERCENT = 1.3, 60
"""As fast as plain diffusers, and of the time in the model calls."""
Result = Mapping[str, Any]


def table(result: Result) -> str:
    """Markdown: a row for each workload and contender. A time stands beside its error, or not at all."""
    lines = [
        "| workload | contender | format | wall s a run, median (least to most, runs) | steps x pictures a second | steps a second | as fast as diffusers "
        "| of it in model calls | peak GiB of the card | U-Net error | picture differs by |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name, found in result["workloads"].items():
        title = f"{name}: {found['workload']['title']}"
        if "error" in found:
            lines.append(f"| {title} | all | not measured: {cell(found['error'])} | | | | | | | | |")
        for contender, entry in found.get("contenders", {}).items():
            ratio = found["times_as_fast_as_diffusers"].get(contender)
            lines.append(f"| {title} | {_row(contender, entry, ratio)} |")
            title = ""
    return "\n".join(lines) + "\n"


def _row(contender: str, entry: Result, ratio: float | None) -> str:
    if "error" in entry:
        return f"{contender} | not measured: {cell(entry['error'])} | | | | | | | |"
    wall, percent, peak = entry["wall_seconds_a_run"], entry.get("percent_in_model_calls"), entry["card_peak_gib"]
    cells = (
        contender,
        entry["dtype"],
        f"{wall['median']:.3f} ({wall['min']:.3f} to {wall['max']:.3f}, {wall['runs']})",
        f"{entry['picture_steps_a_second']:.1f}",
        f"{entry['steps_a_second']:.1f}",
        f"{ratio:.2f}x" if ratio else "",
        "" if percent is None else f"{percent:.0f} %",
        f"{peak:.2f}" if peak else "",
        shown(entry["unet_rel_l2"]),
        f"{entry['picture_max_difference']} of 255, mean {entry['picture_mean_difference']:.2f}",
    )
    return " | ".join(cells)


def figures(result: Result) -> str:
    """Markdown: of each workload how far the program is, beside the goals. Rounds that were cut off are told, and what failed since."""
    lines = []
    for name, found in result["workloads"].items():
        faster, entries = found.get("times_as_fast_as_diffusers", {}), found.get("contenders", {})
        for contender in (STUDIO, *COMPILING):
            if contender in faster:
                apart = ", in other rounds than its" if contender in found.get("apart", ()) else ""
                lines.append(
                    f"- {name}: {contender} is {faster[contender]:.2f} times as fast as plain diffusers{apart} (goal: {GOAL_TIMES})"
                )
            if (percent := entries.get(contender, {}).get("percent_in_model_calls")) is not None:
                lines.append(
                    f"- {name}: {percent:.0f} % of the time of {contender} is that of its model calls alone (goal: at least {GOAL_PERCENT} %)"
                )
        failed = {"it": found, **entries}
        lines += [
            f"- {name}: when {which} was measured again that failed: {cell(each['rerun_error'])}"
            for which, each in failed.items()
            if "rerun_error" in each
        ]
        if found["rounds"] < result["rounds"]:
            lines.append(f"- {name} was cut off after {found['rounds']} of {result['rounds']} rounds")
    return "\n".join(lines) + "\n" if lines else ""


def conditions(result: Result) -> str:
    """One paragraph: when, where, with what."""
    told = result["card"]
    entries = [entry for found in result["workloads"].values() for entry in found.get("contenders", {}).values()]
    seen: Mapping[str, Any] = next((entry["card"] for entry in entries if entry.get("card")), {})
    card = seen.get("name") or told.get("name") or "no card"
    parts = [
        told.get("memory.total"),
        told.get("driver_version") and f"driver {told['driver_version']}",
        seen.get("cuda") and f"CUDA {seen['cuda']}",
        seen.get("compute_capability") and f"compute capability {seen['compute_capability']}",
    ]
    several = any(len(found.get("parts", ())) > 1 for found in result["workloads"].values())
    turns = (
        "those of one sitting were loaded at once and took turns" if several else "were loaded at once and took turns"
    )
    return (
        f"Measured on {result['date']}, {', '.join(part for part in (card, *parts) if part)}; {place(result)}; {versions(result)}. "
        f"Contenders of a workload{': ' if several else ' '}{turns}, forward and back.\n"
    )


def has_gaps(result: Result) -> bool:
    """Whether anything that was asked for has an error instead of figures, or lacks rounds."""
    whole = [*result["workloads"].values()]
    entries = [entry for found in whole for entry in found.get("contenders", {}).values()]
    failed = any("error" in each or "rerun_error" in each for each in [*whole, *entries])
    return failed or any(found["rounds"] < result["rounds"] for found in whole)


def words(result: Result) -> str:
    """All of it."""
    return "\n".join((conditions(result), table(result), figures(result)))


def save(result: Result, text: str, stamp: str, root: Path = REPOSITORY) -> list[Path]:
    """Keep the result in bench/results/ and put it into docs/speed.md; what was written.

    `text` is the result as JSON. Raises `ValueError` as `rewritten`, before anything is written, `OSError` and `StorageError`.
    """
    page, kept = root / "docs" / "speed.md", root / "bench" / "results" / f"peers-card-{stamp}"
    section = words(result)
    contents = {
        page: rewritten(page.read_text("utf-8"), section, MARKS),
        kept.with_suffix(".json"): text + "\n",
        kept.with_suffix(".md"): section,
    }
    for path, content in contents.items():
        atomic_write(path, content.encode())
    return list(contents)

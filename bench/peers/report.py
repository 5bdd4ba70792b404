"""The result in words: a table, the figures beside it, and the section of docs/speed.md that both go into."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bench._code import named
from bench._machine import described
from bench.peers.chart import draw
from bench.peers.contender import FLOOR, PLAIN_BF16, STUDIO
from bench.peers.goals import BEYOND_CALLS, PAGE_SECONDS, goals
from studio.paths import REPOSITORY, atomic_write

BEGIN, END = "<!-- peers: written by the command above -->", "<!-- peers: end -->"
CHART = "images/speed.svg"
Result = Mapping[str, Any]


def table(result: Result) -> str:
    """Markdown: a row for each workload and contender. A time stands beside its error, or not at all."""
    lines = [
        "| workload | contender | format | processor s a picture, median (least to most, runs) | wall s | Latent Studio is | peak GiB | U-Net error | picture differs by |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name, found in result["workloads"].items():
        title = f"{name}: {found['workload']['title']}"
        if "error" in found:
            lines.append(f"| {title} | {STUDIO} | not measured: {cell(found['error'])} | | | | | | |")
            continue
        for contender, entry in found["contenders"].items():
            lines.append(f"| {title} | {_row(contender, entry, found['studio_against'].get(contender, {}))} |")
            title = ""
    return "\n".join(lines) + "\n"


def _row(contender: str, entry: Result, versus: Result) -> str:
    if reason := entry.get("error") or entry.get("skipped"):
        return f"{contender} | {'not measured' if 'error' in entry else 'left out'}: {cell(reason)} | | | | | |"
    cpu, wall = entry["cpu_seconds_a_picture"], entry["wall_seconds_a_picture"]
    seconds = f"{cpu['median']:.2f} ({cpu['min']:.2f} to {cpu['max']:.2f}, {cpu['runs']})"
    if "overhead_percent_cpu" in versus:
        ratio = f"{_from_floor(versus, 'above', 'below')} it"
    else:
        ratio = f"{versus['times_as_fast']:.2f}x as fast" if versus else ""
    largest, mean = entry.get("picture_max_difference"), entry.get("picture_mean_difference")
    picture = "no picture" if largest is None else f"{largest} of 255, mean {mean:.2f}"
    peak = f"{entry['peak_gib']:.2f}" if entry["peak_gib"] else ""
    cells = (
        contender,
        entry["dtype"],
        seconds,
        f"{wall['median']:.2f}",
        ratio,
        peak,
        shown(entry["unet_rel_l2"]),
        picture,
    )
    return " | ".join(cells)


def _from_floor(versus: Result, beyond: str, within: str) -> str:
    percent = versus["overhead_percent_cpu"]
    return f"{abs(percent):.1f} % {beyond if percent >= 0 else within}"


def shown(number: float) -> str:
    """Two digits; 0 as what it is."""
    return "0" if number == 0 else f"{number:.1e}"


def cell(text: str) -> str:
    """On one line, and in one cell of a table."""
    return " ".join(text.split()).replace("|", "/")


def figures(result: Result) -> str:
    """Markdown: the single figures, each with its goal where there is one, and what failed when a workload was gone on with."""
    lines = []
    for name, found in result["workloads"].items():
        versus = found.get("studio_against", {})
        inside = found.get("contenders", {}).get(STUDIO, {}).get("percent_beyond_model_calls")
        if inside is not None:
            goal = f" (goal: {BEYOND_CALLS[name]:g} %)" if name in BEYOND_CALLS else ""
            lines.append(
                f"- {name}: all else takes {inside:.2f} % of what the model calls of the same process take{goal}"
            )
        if floor := versus.get(FLOOR):
            switched = len(found["workload"]["models"]) > 1 or len(found["workload"]["loras"]) > 1
            extra = "loading and switching" if switched else "previews, PNG and all else"
            far = _from_floor(floor, "more", "less")
            lines.append(
                f"- {name}: with {extra} the program takes {far} processor time than the bare model calls of {FLOOR}"
            )
        if "rerun_error" in found:
            lines.append(f"- {name}: more peers were to be measured, which failed: {cell(found['rerun_error'])}")
        if memory := versus.get(PLAIN_BF16, {}).get("peak_memory"):
            lines.append(f"- {name}: peak memory is {memory:.2f} of plain diffusers' in bfloat16")
    page, preview = result.get("page", {}), result.get("first_preview", {})
    if "seconds" in page:
        of_processor = page.get("cpu_seconds")  # results of earlier versions have none
        own = f", {of_processor['median']:.2f} s of the processor (goal: {PAGE_SECONDS:g} s)" if of_processor else ""
        lines.append(f"- from starting the server to the first page: {page['seconds']['median']:.2f} s{own}")
    for kind in ("known_prompts", "new_prompts"):
        if kind in preview:
            each, goal = preview[kind], f" (goal: {preview['goal_ms']:.0f} ms)" if kind == "known_prompts" else ""
            lines.append(
                f"- from the click to the first preview, {kind.replace('_', ' ')}: {each['first_preview_seconds']:.2f} s, "
                f"a step ({each['step_seconds']:.2f} s) and {each['beyond_one_step_ms']:.0f} ms{goal}"
            )
    return "\n".join(lines) + "\n" if lines else ""


def conditions(result: Result) -> str:
    """One paragraph: when, where, with what, and how busy it was."""
    loads = [load for found in result["workloads"].values() for load in found.get("load", ()) if load is not None]
    busy = f"{min(loads):.1f} to {max(loads):.1f}" if loads else "unknown"
    return (
        f"Measured on {result['date']}, {place(result)}, {versions(result)}.{_other_torches(result)} One thread each, "
        f"order ABBA. Load average {busy}; on an otherwise idle machine it is about 1.\n"
    )


def place(result: Result) -> str:
    """The machine, in words."""
    machine = result["machine"]
    return f"{machine['platform']}, {machine['cores']} cores ({described(machine)})"


def versions(result: Result) -> str:
    """What was compared, and of this program which code, where the result knows it."""
    code = f", {named(result['code'])}" if "code" in result else ""
    return ", ".join(f"{name} {version}" for name, version in result["versions"].items()) + code


def _other_torches(result: Result) -> str:
    """A sentence on those whose process has another torch than the program's; empty if there is none, or nobody said."""
    entries = [pair for found in result["workloads"].values() for pair in found.get("contenders", {}).items()]
    ours = {entry["torch"] for name, entry in entries if name == STUDIO and "torch" in entry}
    others = {name: entry["torch"] for name, entry in entries if "torch" in entry and entry["torch"] not in ours}
    if not ours:
        return ""
    return "".join(f" {name} ran with torch {version}." for name, version in others.items())


def has_gaps(result: Result) -> bool:
    """Whether anything that was asked for has an error instead of figures."""
    parts = [result.get(part, {}) for part in ("page", "exact", "first_preview")] + [*result["workloads"].values()]
    entries = [entry for found in result["workloads"].values() for entry in found.get("contenders", {}).values()]
    return any("error" in each or "rerun_error" in each for each in parts + entries)


def words(result: Result) -> str:
    """All of it but the chart."""
    return "\n".join((conditions(result), goals(result), table(result), figures(result)))


def section(result: Result, chart: str) -> str:
    """All of it, with the chart at the address `chart`."""
    picture = f"![Speed of each contender, by workload]({chart})"
    return "\n".join((conditions(result), goals(result), picture, "", table(result), figures(result)))


def rewritten(page: str, section: str, marks: tuple[str, str] = (BEGIN, END)) -> str:
    """The text of `page` with `section` between its two marks. Raises `ValueError` when they are not there."""
    begin, end = marks
    if page.count(begin) != 1 or page.count(end) != 1:
        raise ValueError(f"the page must hold {begin} and {end} once each")
    head, rest = page.split(begin)
    return f"{head}{begin}\n\n{section}\n{end}{rest.split(end)[1]}"


def save(result: Result, text: str, stamp: str, root: Path = REPOSITORY) -> list[Path]:
    """Keep the result in bench/results/ and put it into docs/speed.md, whose chart lies in docs/images/; what was written.

    `text` is the result as JSON. Raises `ValueError` as `rewritten`, before anything is written, `OSError` and `StorageError`.
    """
    page, chart = root / "docs" / "speed.md", draw(result)
    kept = root / "bench" / "results" / f"peers-{stamp}"
    contents = {
        page: rewritten(page.read_text("utf-8"), section(result, CHART)),
        page.parent / CHART: chart,
        kept.with_suffix(".json"): text + "\n",
        kept.with_suffix(".md"): section(result, kept.with_suffix(".svg").name),
        kept.with_suffix(".svg"): chart,
    }
    for path, content in contents.items():
        atomic_write(path, content.encode())
    return list(contents)

"""Curves of a run, thinned while they are read: memory stays bounded however long the run is."""

from __future__ import annotations

import math
from typing import Any

from studio.schema.runs import Curve, RunCurves
from studio.training.runs import RunFolder, read_lines

MOST_POINTS = 600
"""Points of a curve before two neighbours become one."""
MOST_STAGES = 16
MOST_CURVES = 24
DIGITS = 5
UNUSABLE = (KeyError, TypeError, ValueError, AttributeError, OverflowError)
"""What reading an event raises that lacks something or holds something else than it should."""


class Series:
    """One measurement by step. A point stands for up to `stride` values: [last step, sum, lowest, highest, count].

    Steps that come again, after a crash, replace what was told of them before.
    """

    def __init__(self) -> None:
        self._stride = 1
        self._points: list[tuple[int, float, float, float, int]] = []

    def add(self, step: int, value: float) -> None:
        """Take the value of one step; anything but a finite number is left out."""
        if not math.isfinite(value):
            return
        while self._points and self._points[-1][0] >= step:
            self._points.pop()
        if self._points and self._points[-1][4] < self._stride:
            self._points[-1] = _joined(self._points[-1], (step, value, value, value, 1))
            return
        self._points.append((step, value, value, value, 1))
        if len(self._points) > MOST_POINTS:
            pairs = zip(self._points[::2], self._points[1::2], strict=False)
            odd = self._points[-1:] if len(self._points) % 2 else []
            self._points = [_joined(first, second) for first, second in pairs] + odd
            self._stride *= 2

    def points(self) -> list[tuple[int, float, float, float]]:
        """[last step, mean, lowest, highest] in order."""
        return [
            (step, _short(total / count), _short(low), _short(high)) for step, total, low, high, count in self._points
        ]


class CurveReader:
    """Follows one run's measurements, by stage."""

    def __init__(self, run: RunFolder) -> None:
        self._run = run
        self._offset = 0
        self._stage = ""
        self._stages: dict[str, dict[str, Series]] = {}
        self._told_steps: set[str] = set()
        self._epoch: float | None = None

    def read(self, stage: str | None = None) -> RunCurves:
        """The curves of `stage` (None, or one there is not: the newest) as of now."""
        while True:
            lines, reached = read_lines(self._run, self._offset)
            if reached == self._offset:
                break
            self._offset = reached
            for line in lines:
                self._take(line)
        shown = stage if stage in self._stages else self._stage
        curves = [Curve(name=name, points=series.points()) for name, series in self._stages.get(shown, {}).items()]
        return RunCurves(
            stage=shown, stages=list(self._stages), curves=curves, epoch_steps=self._epoch, offset=self._offset
        )

    def _take(self, event: dict[str, Any]) -> None:
        try:
            self._sort(event)
        except UNUSABLE:
            return  # an event that lacks something is passed over

    def _sort(self, event: dict[str, Any]) -> None:
        kind = event.get("kind")
        if kind == "stage":
            self._stage = str(event["stage"])
            if len(self._stages) < MOST_STAGES:
                self._stages.setdefault(self._stage, {})
        elif kind == "step":
            self._told_steps.add(self._stage)
            for name in ("loss", "rate", "norm", "memory"):
                self._add(name, event["step"], event[name])
        elif kind == "progress" and self._stage not in self._told_steps:
            for name, value in event.get("values", {}).items():
                self._add(str(name), event["step"], value)
        elif kind == "validated":
            self._add("validation", event["step"], event["loss"])
        elif kind == "measured" and event["values"].get("epoch_steps"):
            self._epoch = float(event["values"]["epoch_steps"])

    def _add(self, name: str, step: Any, value: Any) -> None:
        series = self._stages.get(self._stage)
        if series is not None and (name in series or len(series) < MOST_CURVES):
            series.setdefault(name, Series()).add(int(step), float(value))


def _joined(
    first: tuple[int, float, float, float, int], second: tuple[int, float, float, float, int]
) -> tuple[int, float, float, float, int]:
    return (
        second[0],
        first[1] + second[1],
        min(first[2], second[2]),
        max(first[3], second[3]),
        first[4] + second[4],
    )


def _short(value: float) -> float:
    return float(f"{value:.{DIGITS}g}")

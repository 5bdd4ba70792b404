"""What the program is to reach on a processor, and what a result says of each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bench.peers.contender import COMFYUI, PLAIN_BF16, PLAIN_FP32, STUDIO

Result = Mapping[str, Any]
BEYOND_CALLS = {"W1": 0.5, "W3": 0.5}
"""By workload, how much all that is not model calls may take, in per cent of these: where models are as large as what users paint with."""
PAGE_SECONDS = 4.0
"""Of the server's own process until the first page."""


@dataclass(frozen=True)
class Goal:
    """One figure: `keys` lead to it in the result; `most` or `least` is what it may be, and `shown` how it is written."""

    what: str
    keys: tuple[str, ...]
    shown: str
    least: float | None = None
    most: float | None = None

    @property
    def allowed(self) -> str:
        """In words."""
        return (
            f"at least {self.shown.format(self.least)}"
            if self.most is None
            else f"at most {self.shown.format(self.most)}"
        )

    def row(self, result: Result) -> str:
        """A row of the table."""
        found, why = self._find(result)
        if not isinstance(found, (int, float)):
            return f"| {self.what} | {self.allowed} | not measured{why} | |"
        met = (self.least is None or found >= self.least) and (self.most is None or found <= self.most)
        return f"| {self.what} | {self.allowed} | {self.shown.format(found)} | {'met' if met else 'missed'} |"

    def _find(self, result: Result) -> tuple[Any, str]:
        """The figure, and why it is not there: a contender that paints something else has an error in its place, which says by how much."""
        found: Any = result
        for key in self.keys:
            if not isinstance(found, Mapping):
                return None, ""
            if "error" in found:
                return None, f": {' '.join(str(found['error']).split())}"
            found = found.get(key)
        return found, ""


def _entry(workload: str, contender: str, *keys: str) -> tuple[str, ...]:
    return ("workloads", workload, "contenders", contender, *keys)


def _faster(workload: str, peer: str) -> tuple[str, ...]:
    return ("workloads", workload, "studio_against", peer, "times_as_fast")


GOALS = (
    Goal("pictures a second, of plain diffusers' in bfloat16, W1", _faster("W1", PLAIN_BF16), "{:.2f}x", least=1.15),
    Goal("the same, W3", _faster("W3", PLAIN_BF16), "{:.2f}x", least=1.3),
    Goal("of plain diffusers' in float32, its default, W1", _faster("W1", PLAIN_FP32), "{:.2f}x", least=2.8),
    Goal("of ComfyUI's in the formats that it chooses, W1", _faster("W1", COMFYUI), "{:.2f}x", least=2.8),
    *(
        Goal(f"all that is not model calls, in per cent of these, {name}", _entry(name, STUDIO, "percent_beyond_model_calls"), "{:.2f} %", most=most)
        for name, most in BEYOND_CALLS.items()
    ),
    Goal("from starting the server to the first page, its own processor seconds", ("page", "cpu_seconds", "median"), "{:.2f} s", most=PAGE_SECONDS),
    Goal("from the click to the first preview, beyond one step", ("first_preview", "known_prompts", "beyond_one_step_ms"), "{:.0f} ms", most=50),
    *(
        Goal(f"peak memory, of plain diffusers' in bfloat16, {name}", ("workloads", name, "studio_against", PLAIN_BF16, "peak_memory"), "{:.2f}x", most=1.1)
        for name in ("W1", "W3")
    ),
    Goal("a U-Net pass in bfloat16, relative L2 from float32", _entry("W1", STUDIO, "unet_rel_l2"), "{:.3f}", most=2e-2),
    Goal("a picture in float32, from diffusers' in float32, of 255", ("exact", "picture_max_difference"), "{:.0f}", most=1),
)  # fmt: skip


def goals(result: Result) -> str:
    """Markdown: every goal beside what was measured."""
    head = "| figure | goal | measured | |\n| --- | --- | --- | --- |\n"
    return head + "\n".join(goal.row(result) for goal in GOALS) + "\n"

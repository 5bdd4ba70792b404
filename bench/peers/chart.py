"""The result as one SVG: of every workload a bar for each contender. It brings its own ground, light or dark as the reader's screen."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from xml.sax.saxutils import escape

from bench.peers.contender import COMFYUI, FLOOR, PLAIN_BF16, PLAIN_FP32, STUDIO

WIDTH, LEFT, RIGHT = 760, 130, 170
"""Pixels: the whole, what names take, and what figures take."""
BAR, GAP, HEAD, GROUP = 16, 6, 62, 34
_CLASSES = {STUDIO: "ours", PLAIN_BF16: "peer", PLAIN_FP32: "peer", COMFYUI: "peer", FLOOR: "floor"}
_STYLE = """
text { font: 13px system-ui, -apple-system, "Segoe UI", sans-serif; fill: #1f2328 }
.title { font-size: 16px; font-weight: 600 } .group { font-weight: 600 } .small { fill: #59636e }
.ground { fill: #ffffff; stroke: #d1d9e0 } .ours { fill: #0969da } .peer { fill: #8c959f } .floor { fill: none; stroke: #59636e; stroke-dasharray: 4 3 }
@media (prefers-color-scheme: dark) {
text { fill: #f0f6fc } .small { fill: #9198a1 }
.ground { fill: #0d1117; stroke: #3d444d } .ours { fill: #4493f8 } .peer { fill: #656c76 } .floor { stroke: #9198a1 }
}
"""


def draw(result: Mapping[str, Any]) -> str:
    """The chart. A bar is as long as its contender is fast: pictures a processor second, the fastest of the workload fills the width."""
    parts: list[str] = []
    top = HEAD
    for name, found in result["workloads"].items():
        entries = {
            contender: entry
            for contender, entry in found.get("contenders", {}).items()
            if "cpu_seconds_a_picture" in entry
        }
        parts.append(_text(16, top + 14, f"{name}: {found['workload']['title']}", "group"))
        top += GROUP - GAP
        if not entries:
            parts.append(_text(16, top + 12, "not measured", "small"))
            top += BAR + GAP
            continue
        seconds = {contender: entry["cpu_seconds_a_picture"]["median"] for contender, entry in entries.items()}
        for contender, each in seconds.items():
            parts += _bar(top, contender, min(seconds.values()) / each, f"{each:.2f} s, {entries[contender]['dtype']}")
            top += BAR + GAP
        top += GAP
    head = [
        _text(16, 28, "Pictures a processor second, one thread: longer is faster", "title"),
        _text(
            16,
            48,
            "Figures: processor seconds a picture. Dashed: the bare model calls, nothing kept from step to step",
            "small",
        ),
    ]
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {top + 12}" width="{WIDTH}" height="{top + 12}" role="img">',
            "<title>Speed of each contender, by workload</title>",
            f"<style>{_STYLE}</style>",
            f'<rect class="ground" x="0.5" y="0.5" width="{WIDTH - 1}" height="{top + 11}" rx="6"/>',
            *head,
            *parts,
            "</svg>\n",
        ]
    )


def _bar(top: int, contender: str, share: float, figure: str) -> list[str]:
    length = max(share * (WIDTH - LEFT - RIGHT), 1)
    return [
        _text(LEFT - 8, top + 12, contender, "small", anchor="end"),
        f'<rect class="{_CLASSES[contender]}" x="{LEFT}" y="{top}" width="{length:.1f}" height="{BAR}" rx="2"/>',
        _text(LEFT + length + 8, top + 12, figure),
    ]


def _text(x: float, y: float, words: str, kind: str = "", anchor: str = "start") -> str:
    return f'<text class="{kind}" x="{x:.1f}" y="{y}" text-anchor="{anchor}">{escape(words)}</text>'

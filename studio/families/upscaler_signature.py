"""What an upscaler model is, from the header of its .safetensors file alone: architecture, sizes, and how it names its weights.

Two architectures, each with everything told by names and shapes:

* RRDBNet, of ESRGAN (Wang et al. 2018, arXiv:1809.00219) and Real-ESRGAN (2021, arXiv:2107.10833), in three layouts of names. Each
  doubling has one convolution. Real-ESRGAN's models for 2x and 1x fold the pixels of a square of 2x2 or 4x4 into channels first (pixel-unshuffle): they have 12
  or 48 input channels.
* SRVGGNetCompact, of Real-ESRGAN's small models: convolutions and PReLUs in turn, then a pixel shuffle.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

from studio.families.header import Header, Shapes, shapes

Architecture = Literal["rrdb", "compact", "unknown"]
COLOURS = 3
FOLDS = {COLOURS: 1, COLOURS * 4: 2, COLOURS * 16: 4}
"""Input channels -> side of the square of pixels that is folded into them."""
MOST_DOUBLINGS = 3
MOST_TIMES = 8
DENSE_BLOCKS, CONVOLUTIONS = 3, 5
"""Dense blocks of a residual block, and convolutions of each."""
WRAPPINGS = ("params_ema.", "params.", "")
"""What a training checkpoint puts before all its names; the average of the weights counts first."""
_LISTED = 3


@dataclass(frozen=True)
class UpscalerSignature:
    """`features` are the channels inside, `growth` those that a convolution of a dense block adds, `blocks` the residual blocks, of a compact
    model the convolutions between the first and the last. `names` are the file's names of the parameters of `studio.engine.esrgan`."""

    architecture: Architecture = "unknown"
    enlarges: int = 0
    features: int = 0
    growth: int = 0
    blocks: int = 0
    doublings: int = 0
    fold: int = 1
    names: dict[str, str] = field(default_factory=dict)
    problem: str | None = None


@dataclass(frozen=True)
class _Layout:
    """How a layout of RRDBNet names its convolutions; `{n}` is a block, `{d}` a dense block, `{c}` a convolution, `{up}` a doubling."""

    block: str
    trunk: str
    up: str
    first: str = "conv_first"
    high: str = "conv_hr"
    last: str = "conv_last"


_NEW = _Layout("body.{n}.rdb{d}.conv{c}", "conv_body", "conv_up{up}")
_PUBLISHED = _Layout("RRDB_trunk.{n}.RDB{d}.conv{c}", "trunk_conv", "upconv{up}", high="HRconv")
_BLOCKS = ((re.compile(r"body\.(\d{1,3})\.rdb1\.conv1\.weight"), _NEW), (re.compile(r"RRDB_trunk\.(\d{1,3})\.RDB1\.conv1\.weight"), _PUBLISHED))  # fmt: skip
_OLD_BLOCK = re.compile(r"model\.1\.sub\.(\d{1,3})\.RDB1\.conv1\.0\.weight")
_OLD_LAYER = re.compile(r"model\.(\d{1,2})\.weight")
_COMPACT_LAYER = re.compile(r"body\.(\d{1,3})\.weight")
OTHER = (
    "This is no upscaler of a kind that is known here (ESRGAN, Real-ESRGAN and relatives: RRDBNet and SRVGGNetCompact)."
)


def describe_upscaler(header: Header) -> UpscalerSignature:
    """Judge any .safetensors file of the upscalers folder by the parsed JSON of its header."""
    everything = shapes(header)
    wrapping = next(start for start in WRAPPINGS if any(key.startswith(start) for key in everything) or not start)
    found = {key.removeprefix(wrapping): shape for key, shape in everything.items() if key.startswith(wrapping)}
    try:
        signature = _compact(found) if "body.1.weight" in found else _rrdb(found)
    except ValueError as error:
        return UpscalerSignature(problem=str(error))
    names = {own: wrapping + name for own, name in signature.names.items()}
    return UpscalerSignature(**{**vars(signature), "names": names})


def _rrdb(found: Shapes) -> UpscalerSignature:
    layout, blocks, doublings = _rrdb_layout(found)
    names = dict(_rrdb_names(layout, blocks, doublings))
    _check_names(found, names)
    first, last = found[names["first.weight"]], found[names["last.weight"]]
    growth = found[names["body.0.dense.0.convs.0.weight"]]
    if len(first) != 4 or len(last) != 4 or len(growth) != 4:
        raise ValueError(OTHER)
    fold = FOLDS.get(first[1])
    if fold is None or last[0] != COLOURS:
        raise ValueError(f"This upscaler takes {first[1]} channels and gives {last[0]}: only those for RGB work here.")
    if 2**doublings % fold:
        raise ValueError("This upscaler would make pictures smaller.")
    return UpscalerSignature(
        architecture="rrdb",
        enlarges=2**doublings // fold,
        features=first[0],
        growth=growth[0],
        blocks=blocks,
        doublings=doublings,
        fold=fold,
        names=names,
    )


def _rrdb_layout(found: Shapes) -> tuple[_Layout, int, int]:
    """The layout, and the numbers of blocks and doublings. Raises ValueError where it is none of the three."""
    for pattern, layout in _BLOCKS:
        if blocks := _count(pattern, found):
            pattern = re.compile(re.escape(layout.up).replace(r"\{up\}", r"(\d)") + r"\.weight")
            return layout, blocks, _count(pattern, found)
    blocks = _count(_OLD_BLOCK, found)
    layers = sorted(int(match[1]) for key in found if (match := _OLD_LAYER.fullmatch(key)))
    if not blocks or len(layers) < 3:
        raise ValueError(OTHER)
    doublings = len(layers) - 3  # beside the first, and the two that make the picture
    layout = _Layout(
        block="model.1.sub.{n}.RDB{d}.conv{c}.0",
        trunk=f"model.1.sub.{blocks}",
        up="model.{old}",
        first="model.0",
        high=f"model.{3 * doublings + 2}",
        last=f"model.{3 * doublings + 4}",
    )
    return layout, blocks, doublings


def _rrdb_names(layout: _Layout, blocks: int, doublings: int) -> Iterable[tuple[str, str]]:
    """Our parameters and the file's."""
    if doublings > MOST_DOUBLINGS:
        raise ValueError(f"This upscaler doubles the size {doublings} times; {MOST_DOUBLINGS} are possible here.")
    pairs = [("first", layout.first), ("trunk", layout.trunk), ("high", layout.high), ("last", layout.last)]
    pairs += [(f"ups.{i}", layout.up.format(up=i + 1, old=3 * i + 3)) for i in range(doublings)]
    pairs += [
        (f"body.{n}.dense.{d}.convs.{c}", layout.block.format(n=n, d=d + 1, c=c + 1))
        for n in range(blocks)
        for d in range(DENSE_BLOCKS)
        for c in range(CONVOLUTIONS)
    ]
    return [(f"{own}.{kind}", f"{name}.{kind}") for own, name in pairs for kind in ("weight", "bias")]


def _compact(found: Shapes) -> UpscalerSignature:
    layers = _count(_COMPACT_LAYER, found)
    kinds = {i: ("weight", "bias") if i % 2 == 0 else ("weight",) for i in range(layers)}
    names = {f"body.{i}.{kind}": f"body.{i}.{kind}" for i, both in kinds.items() for kind in both}
    _check_names(found, names)
    first, last = found["body.0.weight"], found[f"body.{layers - 1}.weight"]
    if layers % 2 == 0 or layers < 3 or len(first) != 4 or len(last) != 4 or len(found["body.1.weight"]) != 1:
        raise ValueError(OTHER)
    times = math.isqrt(last[0] // COLOURS)
    if first[1] != COLOURS or last[0] != COLOURS * times * times or not 1 <= times <= MOST_TIMES:
        raise ValueError(f"This upscaler takes {first[1]} channels and gives {last[0]}: only those for RGB work here.")
    return UpscalerSignature(
        architecture="compact", enlarges=times, features=first[0], blocks=(layers - 3) // 2, names=names
    )


def _count(pattern: re.Pattern[str], found: Shapes) -> int:
    """One more than the highest number that names have at this place; 0 where no name fits. Doublings are counted from 1."""
    numbers = [int(match[1]) for key in found if (match := pattern.fullmatch(key))]
    return max(numbers) + (min(numbers) == 0) if numbers else 0


def _check_names(found: Shapes, names: dict[str, str]) -> None:
    """Raise ValueError unless these are all the weights there are, each there once."""
    wanted = set(names.values())
    if lacking := sorted(wanted - found.keys()):
        raise ValueError(f"{OTHER} It lacks {_listed(lacking)}.")
    if strange := sorted(found.keys() - wanted):
        raise ValueError(f"{OTHER} It also holds {_listed(strange)}.")


def _listed(keys: list[str]) -> str:
    return ", ".join(key[:60] for key in keys[:_LISTED]) + (" …" if len(keys) > _LISTED else "")

"""Extra-network tags, `<lora:name:0.8>`: taken out of the prompt, their arguments parsed.

Form: `<kind:arg:arg...>`, kind being word characters and an argument anything but ':' and '>'. `key=value` arguments are
named, the others positional. For kind "lora" they are name, te (text encoder weight), unet, dyn; te defaults to 1, unet
to te. For kind "hypernet" they are name and multiplier, which defaults to 1.

A weight of a LoRA may change over the steps, in the form of the extension sd-webui-loractl: `<lora:name:0@0,1@0.5>`, points
`weight@step` between ',' or ';', and `hr`, `hrte` and `hrunet` are weights of the second pass.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass

from studio.errors import InvalidRequest

HYPERNETWORK = "hypernet"
MOST_POINTS = 100
"""Of one weight."""
Course = tuple[tuple[float, float], ...]
"""A weight over the steps: (weight, step) in the order of steps; steps count from 0, or are shares of all where none is above 1."""
_POINT = re.compile("[@~]")
_TAG = re.compile(r"<(\w+):([^>]+)>")


@dataclass(frozen=True)
class NetworkTag:
    """One tag. `items` are the arguments as written, split at ':'."""

    kind: str
    items: tuple[str, ...]

    @property
    def positional(self) -> tuple[str, ...]:
        """Arguments without a name. An item with more than one '=' is one of them."""
        return tuple(item for item in self.items if item.count("=") != 1)

    @property
    def named(self) -> dict[str, str]:
        """`key=value` arguments."""
        pairs = (item.partition("=") for item in self.items if item.count("=") == 1)
        return {key: value for key, _, value in pairs}

    @property
    def name(self) -> str:
        """The network's name: the first positional argument."""
        return self.positional[0] if self.positional else ""

    def __str__(self) -> str:
        """The tag as written."""
        return f"<{self.kind}:{':'.join(self.items)}>"


def extract_networks(text: str) -> tuple[str, list[NetworkTag]]:
    """`text` without its tags, and the tags in order. White space around a tag stays.

    Linear: a '<' that no '>' follows is not searched again and again.
    """
    tags: list[NetworkTag] = []
    clean: list[str] = []
    position = 0
    for match in _TAG.finditer(text, 0, text.rfind(">") + 1):
        tags.append(_tag(match))
        clean.append(text[position : match.start()])
        position = match.end()
    clean.append(text[position:])
    return "".join(clean), tags


def replace_networks(text: str, replacement: Callable[[NetworkTag], NetworkTag]) -> str:
    """`text` with every tag written anew as `replacement` says."""
    end = text.rfind(">") + 1
    return _TAG.sub(lambda match: str(replacement(_tag(match))), text[:end]) + text[end:]


def outside_networks(text: str, change: Callable[[str], str]) -> str:
    """`text` with everything that stands between its tags changed."""
    changed: list[str] = []
    position = 0
    for match in _TAG.finditer(text, 0, text.rfind(">") + 1):
        changed += [change(text[position : match.start()]), match[0]]
        position = match.end()
    return "".join([*changed, change(text[position:])])


def lora_weights(tag: NetworkTag, *, second_pass: bool = False) -> tuple[Course, Course]:
    """Weights of a lora tag for text encoder and U-Net; one point each where they do not change. All numbers are finite.

    Raises `InvalidRequest` for what is no number, and for points that are not `weight@step`.
    """
    te, unet = _text(tag, 1, "te"), _text(tag, 2, "unet")
    unet = te if unet is None else unet
    if second_pass:
        own = tag.named.get("hr")
        te, unet = tag.named.get("hrte") or own or te, tag.named.get("hrunet") or own or unet
    return _course(tag, te), _course(tag, unet)


def hypernetwork_multiplier(tag: NetworkTag) -> float:
    """The multiplier of a hypernet tag, finite. Raises `InvalidRequest` for what is no number."""
    return _argument(tag, 1, "multiplier", 1.0)


def lora_rank(tag: NetworkTag) -> int | None:
    """The `dyn` argument: use only the first so many ranks of the LoRA; None when absent.

    Raises `InvalidRequest` for what is no whole number.
    """
    text = _text(tag, 3, "dyn")
    if text is None:
        return None
    try:
        return int(text)
    except ValueError:
        raise InvalidRequest(
            f"dyn = {_shown(text)!r} in {_shown(str(tag))} must be a whole number.", field="prompt"
        ) from None


def _tag(match: re.Match[str]) -> NetworkTag:
    return NetworkTag(match[1], tuple(match[2].split(":")))


def _course(tag: NetworkTag, text: str | None) -> Course:
    """A point without a step stands at the end, but the first one, as in sd-webui-loractl; ~ is @."""
    if text is None or not _POINT.search(text):
        return ((1.0 if text is None else _number(tag, text), 0.0),)
    pairs = [_POINT.split(point) for point in re.split("[,;]", text)]
    if len(pairs) > MOST_POINTS or len(pairs[0]) == 1 or any(len(pair) > 2 for pair in pairs):
        raise InvalidRequest(
            f"{_shown(text)!r} in {_shown(str(tag))} must be a number such as 0.8, or weights at steps such as 0@0,1@0.5 "
            f"({MOST_POINTS} at most).",
            field="prompt",
        )
    points = [(_number(tag, weight), _number(tag, step[0]) if step else 1.0) for weight, *step in pairs]
    return tuple(sorted(points, key=lambda point: point[1]))


def _argument(tag: NetworkTag, position: int, name: str, default: float) -> float:
    text = _text(tag, position, name)
    return default if text is None else _number(tag, text)


def _number(tag: NetworkTag, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise InvalidRequest(f"{_shown(text)!r} in {_shown(str(tag))} must be a number such as 0.8.", field="prompt")
    return value


def _text(tag: NetworkTag, position: int, name: str) -> str | None:
    """The named argument if there is one, else the positional one."""
    if name in tag.named:
        return tag.named[name]
    return tag.positional[position] if len(tag.positional) > position else None


def _shown(text: str) -> str:
    return text if len(text) <= 80 else f"{text[:77]}…"

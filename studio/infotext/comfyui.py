"""ComfyUI's graph as A1111 text, where it is the standard one: checkpoint -> LoRAs -> two prompts -> one KSampler -> picture.

ComfyUI puts the graph that was run into the PNG's `prompt` chunk: node id -> {"class_type", "inputs"}, where an input is a
value or a link [node id, output]. It is only read: nodes are looked up by name, links are followed a bounded number of
times, and nothing of it is ever run. A graph with more than one sampler has no one set of parameters: a note says so.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from studio.infotext.code_names import sampler_label, schedule_label
from studio.infotext.quote import quote

SAMPLERS = ("KSampler", "KSamplerAdvanced")
ENCODERS = ("CLIPTextEncode",)
SEEDS = 2**32
"""torch's CPU generator takes the last 32 bits of a seed: a larger one draws the same noise."""
MAX_LINKS = 64
REMARK = "The parameters were read from ComfyUI's graph, which weighs words in another way."
_VALUE_INPUTS = ("value", "text", "string", "seed", "noise_seed", "int", "float", "number")

Node = Mapping[str, Any]


class _Unclear(Exception):
    """The graph is not the standard one; the message says where."""


def comfyui_infotext(graph_text: str, width: int, height: int) -> tuple[str | None, list[str]]:
    """The text of a picture of `width` x `height` pixels (None where the graph is not the standard one), and notes.

    Never raises, whatever `graph_text` holds.
    """
    try:
        graph = _Graph(json.loads(graph_text))
        return _text(graph, width, height), [REMARK]
    except _Unclear as unclear:
        return None, [f"The picture holds a ComfyUI graph, but {unclear}."]
    except (ValueError, RecursionError):
        return None, ["The picture holds a ComfyUI graph that cannot be read."]


class _Graph:
    """Nodes by id."""

    def __init__(self, data: object) -> None:
        if not isinstance(data, dict):
            raise _Unclear("it has no nodes")
        self.nodes: dict[str, Node] = {
            str(key): node
            for key, node in data.items()
            if isinstance(node, dict) and isinstance(node.get("inputs"), dict)
        }

    def sampler(self) -> Node:
        """The one sampler."""
        found = [node for node in self.nodes.values() if "sampler" in _kind(node).lower() and "seed" in _names(node)]
        found += [node for node in self.nodes.values() if _kind(node) == "SamplerCustomAdvanced"]
        if len(found) != 1:
            raise _Unclear(f"it has {len(found)} samplers, so there is no one set of parameters")
        if _kind(found[0]) not in SAMPLERS:
            raise _Unclear(f"its sampler {_kind(found[0])[:60]!r} is not a standard one")
        return found[0]

    def follow(self, node: Node, name: str) -> Node | None:
        """The node that is linked to an input."""
        link = node["inputs"].get(name)
        return self.nodes.get(str(link[0])) if isinstance(link, list) and link else None

    def value(self, node: Node, name: str) -> Any:
        """The value of an input; through nodes that only hold one."""
        for _ in range(MAX_LINKS):
            value = node["inputs"].get(name)
            source = self.follow(node, name)
            if source is None:
                return None if isinstance(value, (list, dict)) else value
            names = [known for known in _VALUE_INPUTS if known in source["inputs"]]
            if len(names) != 1:
                return None
            node, name = source, names[0]
        return None

    def upwards(self, node: Node, name: str) -> list[Node]:
        """The nodes behind an input, nearest first, as long as each has an input of that name."""
        chain: list[Node] = []
        source = self.follow(node, name)
        while source is not None and len(chain) < MAX_LINKS and not any(source is node for node in chain):
            chain.append(source)
            source = self.follow(source, name)
        return chain


def _text(graph: _Graph, width: int, height: int) -> str:
    sampler = graph.sampler()
    models = graph.upwards(sampler, "model")
    positive, encoder = _prompt(graph, sampler, "positive")
    negative, _ = _prompt(graph, sampler, "negative")
    pairs: dict[str, object] = {
        "Steps": _needed(graph, sampler, "steps"),
        "Sampler": sampler_label(str(_needed(graph, sampler, "sampler_name"))),
        "Schedule type": schedule_label(str(_needed(graph, sampler, "scheduler"))),
        "CFG scale": _needed(graph, sampler, "cfg"),
        "Seed": _seed(graph, sampler),
        "Size": _size(graph, sampler) or f"{width}x{height}",
    }
    denoise = graph.value(sampler, "denoise")
    if isinstance(denoise, float) and denoise < 1:
        pairs["Denoising strength"] = denoise
    checkpoint = next((name for node in models if (name := graph.value(node, "ckpt_name"))), None)
    if checkpoint:
        pairs["Model"] = str(checkpoint).replace("\\", "/").rpartition("/")[2]
    skipped = next(
        (stop for node in graph.upwards(encoder, "clip") if (stop := graph.value(node, "stop_at_clip_layer"))), -1
    )
    if isinstance(skipped, int) and skipped < -1:
        pairs["Clip skip"] = -skipped
    pairs["RNG"] = "CPU"
    tags = "".join(f" {tag}" for node in reversed(models) if (tag := _lora(graph, node)))
    prompts = f"{positive}{tags}" + (f"\nNegative prompt: {negative}" if negative else "")
    return f"{prompts}\n" + ", ".join(f"{key}: {quote(value)}" for key, value in pairs.items())


def _prompt(graph: _Graph, sampler: Node, name: str) -> tuple[str, Node]:
    """One prompt, and the node that encodes it."""
    node = graph.follow(sampler, name)
    for _ in range(MAX_LINKS):
        if node is None:
            break
        if _kind(node) in ENCODERS:
            text = graph.value(node, "text")
            if not isinstance(text, str):
                raise _Unclear(f"its {name} prompt is made by other nodes")
            return text.strip(), node
        node = graph.follow(node, name if name in node["inputs"] else "conditioning")
    raise _Unclear(f"its {name} prompt is not a plain text")


def _size(graph: _Graph, sampler: Node) -> str | None:
    """What was painted; the picture may have been scaled afterwards."""
    latents = graph.follow(sampler, "latent_image")
    sides = [graph.value(latents, name) for name in ("width", "height")] if latents else []
    return f"{sides[0]}x{sides[1]}" if sides and all(isinstance(side, int) for side in sides) else None


def _needed(graph: _Graph, sampler: Node, name: str) -> Any:
    value = graph.value(sampler, name)
    if not isinstance(value, (str, int, float)):
        raise _Unclear(f"its {name} is made by other nodes")
    return value


def _seed(graph: _Graph, sampler: Node) -> int:
    value = _needed(graph, sampler, "seed" if "seed" in sampler["inputs"] else "noise_seed")
    if not isinstance(value, int):
        raise _Unclear("its seed is no whole number")
    return value % SEEDS


def _lora(graph: _Graph, node: Node) -> str | None:
    name = graph.value(node, "lora_name")
    if not isinstance(name, str):
        return None
    stem = name.replace("\\", "/").rpartition("/")[2].removesuffix(".safetensors")
    model = graph.value(node, "strength_model")
    clip = graph.value(node, "strength_clip") if "strength_clip" in node["inputs"] else 0
    return f"<lora:{stem}:{clip if isinstance(clip, (int, float)) else 1}:{model if isinstance(model, (int, float)) else 1}>"


def _kind(node: Node) -> str:
    return str(node.get("class_type", ""))


def _names(node: Node) -> str:
    return " ".join(str(name) for name in node["inputs"])

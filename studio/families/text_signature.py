"""What a text encoder in a file of its own is, from the header of its .safetensors file alone.

    PREFIX.embeddings.token_embedding.weight [49408, width]   transformers' CLIP text model, whatever stands before it
    PREFIX.token_embedding.weight [49408, width]              OpenCLIP's, with `transformer.resblocks` and a fused query, key and value

What else is in the file (a vision model, a U-Net) is not looked at. The width tells which text encoder of a checkpoint it can stand for.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from studio.families.header import Header, Shapes, shapes
from studio.families.layout import Source, open_clip_sources
from studio.families.lora_signature import describe_lora

VOCABULARY = 49408
"""Tokens of CLIP, which every known family reads prompts with."""
_TABLE = "token_embedding.weight"
_OURS = "embeddings."
"""What stands before the table in transformers' layout."""
_MODEL = "text_model."
_LAYERS = {"clip": "encoder.layers.", "open_clip": "transformer.resblocks."}


@dataclass(frozen=True)
class TextSignature:
    """What the file of a text encoder is. `problem` says why it cannot be used, None when it can.

    `prefix` stands before the keys of the text model; `width` is that of its token vectors.
    """

    layout: Literal["clip", "open_clip"] = "clip"
    prefix: str = ""
    width: int = 0
    layers: int = 0
    problem: str | None = None

    def sources(self, keys: Iterable[str]) -> dict[str, Source]:
        """For every parameter name of a CLIP text model, its place in the file. The projection stands beside transformers' text model."""
        if self.layout == "open_clip":
            return open_clip_sources(keys, self.prefix)
        root = self.prefix.removesuffix(_MODEL)
        bare = {key: key.removeprefix(_MODEL) for key in keys}
        return {
            key: Source((root if name.startswith("text_projection") else self.prefix) + name)
            for key, name in bare.items()
        }


def describe_text_encoder(header: Header) -> TextSignature:
    """Judge any .safetensors file of the folder of text encoders by the parsed JSON of its header."""
    found = shapes(header)
    tables = [key for key, shape in found.items() if _is_table(key) and len(shape) == 2]
    if len(tables) != 1:
        return TextSignature(problem=_no_encoder(header, found, len(tables)))
    rows, width = found[tables[0]]
    prefix = tables[0].removesuffix(_TABLE)
    layout: Literal["clip", "open_clip"] = "clip" if prefix.endswith(_OURS) else "open_clip"
    prefix = prefix.removesuffix(_OURS)
    start = prefix + _LAYERS[layout]
    layers = len({key.removeprefix(start).partition(".")[0] for key in found if key.startswith(start)})
    problem = None
    if rows != VOCABULARY:
        problem = f"Its table has {rows:,} tokens; Stable Diffusion reads prompts with CLIP's {VOCABULARY:,}."
    elif not layers:
        problem = "The file has a table of tokens but no layers of a CLIP text encoder."
    return TextSignature(layout, prefix, width, layers, problem)


def _is_table(key: str) -> bool:
    return key == _TABLE or key.endswith(f".{_TABLE}")


def _no_encoder(header: Header, found: Shapes, tables: int) -> str:
    if tables:
        return f"The file holds {tables} text encoders; put each into a file of its own."
    if describe_lora(header).modules:
        return "This is a LoRA, not a text encoder: put it into the loras folder."
    if "shared.weight" in found or any(key.startswith("encoder.block.") for key in found):
        return "This is a T5 text encoder; Stable Diffusion 1.x, 2.x and XL read prompts with CLIP's."
    first = ", ".join(sorted(found)[:3])
    return f"The file holds no CLIP text encoder; its first keys are {first[:200]}."

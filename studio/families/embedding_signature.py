"""What an embedding (textual inversion, Gal et al. 2022, arXiv:2208.01618) is, from the header of its .safetensors file alone.

    one tensor [n, width] or [width], under any name   AUTOMATIC1111, kohya ("emb_params"), diffusers ("<word>")
    clip_l [n, 768] and clip_g [n, 1280]               SDXL, one for each of its two text encoders

The width tells which checkpoints it is for.
"""

from __future__ import annotations

from dataclasses import dataclass

from studio.families.header import Header, Shapes, shapes
from studio.families.lora_signature import describe_lora
from studio.schema.models import Family

SDXL_KEYS = ("clip_l", "clip_g")
"""In the order of SDXL's text encoders."""
MAX_VECTORS = 75
"""A chunk of a prompt has this many places, and an embedding is never split."""
_FAMILIES: dict[tuple[int, ...], Family] = {(768,): "sd1", (1024,): "sd2", (768, 1280): "sdxl"}
_MAX_SHOWN = 3


@dataclass(frozen=True)
class EmbeddingSignature:
    """What an embedding file is. `problem` says why it cannot be used, None when it can.

    `keys` are its tensors, one for each text encoder, in the encoders' order; `widths` those of their vectors. The family
    "unknown" is no problem by itself: a checkpoint whose encoders have these widths takes it.
    """

    family: Family = "unknown"
    keys: tuple[str, ...] = ()
    widths: tuple[int, ...] = ()
    vectors: int = 0
    problem: str | None = None


def describe_embedding(header: Header) -> EmbeddingSignature:
    """Judge any .safetensors file of the embeddings folder by the parsed JSON of its header."""
    found = shapes(header)
    keys = SDXL_KEYS if set(SDXL_KEYS) <= found.keys() else tuple(sorted(found))
    if not found or len(keys) != len(found) or (len(keys) > 1 and keys != SDXL_KEYS):
        return EmbeddingSignature(problem=_no_embedding(header, found))
    parts = [(1, *found[key]) if len(found[key]) == 1 else found[key] for key in keys]
    if any(len(shape) != 2 or 0 in shape for shape in parts):
        listed = ", ".join(f"{key[:80]} {list(found[key])}" for key in keys)
        return EmbeddingSignature(problem=f"The file holds no vectors of one length: {listed}.")
    vectors, widths = {shape[0] for shape in parts}, tuple(shape[1] for shape in parts)
    problem = None
    if len(vectors) > 1:
        problem = f"Its two text encoders have {parts[0][0]} and {parts[1][0]} vectors; both must have as many."
    elif max(vectors) > MAX_VECTORS:
        problem = f"It has {max(vectors)} vectors; at most {MAX_VECTORS} fit into a chunk of a prompt."
    return EmbeddingSignature(_FAMILIES.get(widths, "unknown"), keys, widths, max(vectors), problem)


def _no_embedding(header: Header, found: Shapes) -> str:
    if not found:
        return "The file holds no tensors."
    if describe_lora(header).modules:
        return "This is a LoRA, not an embedding: put it into the loras folder."
    first = ", ".join(sorted(found)[:_MAX_SHOWN])
    return (
        f"The file holds {len(found)} tensors; an embedding is one, or clip_l and clip_g. The first are {first[:200]}."
    )

"""LoRAs by their hash: a picture's `<lora:name:...>` finds the local file even if that has another name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from studio.prompt.networks import NetworkTag, replace_networks


def named_hashes(text: str) -> dict[str, str]:
    """`Lora hashes`, such as "one: 0123456789ab, two: ...", by name."""
    entries = (entry.rpartition(":") for entry in text.split(","))
    return {name.strip(): short_hash.strip() for name, colon, short_hash in entries if colon}


def repoint_loras(prompt: str, hashes: Mapping[str, str], local: Mapping[str, str]) -> str:
    """`prompt` with every lora tag that has a known hash pointing at the local file with that hash.

    `hashes` is name in the tag -> hash, `local` is hash -> name of the file here.
    """

    def repointed(tag: NetworkTag) -> NetworkTag:
        name = local.get(hashes.get(tag.items[0], "")) if tag.kind == "lora" else None
        return tag if name is None else replace(tag, items=(name, *tag.items[1:]))

    return replace_networks(prompt, repointed)

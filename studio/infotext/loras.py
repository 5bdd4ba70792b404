"""LoRAs by their hash: a picture's `<lora:name:...>` finds the local file even if that has another name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from studio.infotext.dialects import NamedLora, tag_name
from studio.prompt.networks import NetworkTag, extract_networks, replace_networks

LENGTHS = (12, 10)
"""Digits that identify a LoRA: A1111's and Forge's 12, the 10 of Civitai's AutoV2. A longer hash counts by its first 12."""


def repoint_loras(prompt: str, hashes: Mapping[str, str], local: Mapping[str, str]) -> str:
    """`prompt` with every lora tag that has a known hash pointing at the local file with that hash.

    `hashes` is name in the tag -> hash, `local` is hash -> name of the file here.
    """
    known = index_hashes(local)

    def repointed(tag: NetworkTag) -> NetworkTag:
        name = local_name(hashes.get(tag.items[0], ""), known) if tag.kind == "lora" else None
        return tag if name is None else replace(tag, items=(name, *tag.items[1:]))

    return replace_networks(prompt, repointed)


def with_loras(
    prompt: str, loras: Iterable[NamedLora], local: Mapping[str, str], *, tagged_too: str = ""
) -> tuple[str, list[str]]:
    """`prompt` with its tags pointed at local files, and tags for the LoRAs a text names only outside the prompt.

    Also notes for the user. `tagged_too` is another prompt, whose tags need none here. A LoRA that is named by its hash alone gets a tag only where a local file has that hash.
    """
    loras = list(loras)
    notes: list[str] = []
    result = repoint_loras(prompt, {lora.name: lora.digits for lora in loras if lora.name}, local)
    if result != prompt:
        notes.append("LoRA tags were pointed at local files with the same hash.")
    known = index_hashes(local)
    tagged = {tag.name.casefold() for text in (prompt, result, tagged_too) for tag in extract_networks(text)[1]}
    added: list[str] = []
    for lora in loras:
        here = local_name(lora.digits, known)
        names = {name.casefold() for name in (here, lora.name) if name}
        if names & tagged:
            continue
        label = lora.name or lora.digits
        if lora.weights is None:
            notes.append(f"The text names the LoRA {label!r} without saying how strong it was; it was not used.")
        elif name := here or tag_name(lora.name):
            te, unet = (f"{weight:g}" for weight in lora.weights)
            added.append(f"<lora:{name}:{te}>" if te == unet else f"<lora:{name}:{te}:{unet}>")
            tagged |= names
        else:
            notes.append(f"There is no LoRA with the hash {label} here; it was left out.")
    if added:
        notes.append(f"LoRAs that the text names outside the prompt were added to it: {', '.join(added)}.")
    return " ".join([result, *added]) if result else " ".join(added), notes


def index_hashes(local: Mapping[str, str]) -> dict[str, str]:
    """Name by hash, at every length a hash is quoted in; `local` is short hash -> name."""
    return {short_hash[:length]: name for length in LENGTHS for short_hash, name in local.items()} | dict(local)


def local_name(digits: str, known: Mapping[str, str]) -> str | None:
    """The name of the local file with this hash, in what `index_hashes` made; None when there is none."""
    digits = digits.lower()
    length = next((length for length in LENGTHS if len(digits) >= length), len(digits))
    return known.get(digits) or known.get(digits[:length])

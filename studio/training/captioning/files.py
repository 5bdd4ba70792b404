"""What a captioner needs on this machine, told without loading anything."""

from __future__ import annotations

from pathlib import Path

BLIP_CONFIG, BLIP_WEIGHTS, BLIP_WORDS = "config.json", "model.safetensors", ("vocab.txt", "tokenizer.json")
BLIP_SOURCE = "Salesforce/blip-image-captioning-base"


def missing(name: str, models: Path) -> str:
    """What to put where before the captioner ``name`` can work, ``models`` being the folder of all of them; empty: nothing."""
    return blip_missing(models / "blip") if name == "blip" else ""


def blip_missing(folder: Path) -> str:
    """The same for the BLIP network in ``folder``."""
    absent = [name for name in (BLIP_CONFIG, BLIP_WEIGHTS) if not (folder / name).is_file()]
    if not any((folder / name).is_file() for name in BLIP_WORDS):
        absent.append(" or ".join(BLIP_WORDS))
    if not absent:
        return ""
    return f"There is no BLIP network: put {', '.join(absent)} of {BLIP_SOURCE} (huggingface.co) into {folder}."

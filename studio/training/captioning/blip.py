"""BLIP, a network that describes pictures (Li, Li, Xiong, Hoi 2022, arXiv:2201.12086), from a folder on this machine.

Three files of the folder are read, and nothing in it can run: ``config.json`` (numbers that give the shape; every other entry is ignored),
``model.safetensors``, and the words, ``vocab.txt`` or ``tokenizer.json``. Nothing is fetched.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import load_file
from transformers import BlipConfig, BlipForConditionalGeneration

from studio.errors import DamagedFile, IncompatibleFile, NotFound
from studio.training.captioning.files import BLIP_CONFIG as CONFIG
from studio.training.captioning.files import BLIP_WEIGHTS as WEIGHTS
from studio.training.captioning.files import BLIP_WORDS as WORDS
from studio.training.captioning.files import blip_missing

MAX_JSON = 32 << 20
MAX_TOKENS = 40
BEAMS = 3
MEAN = (0.48145466, 0.4578275, 0.40821073)
DEVIATION = (0.26862954, 0.26130258, 0.27577711)
"""Of CLIP's training pictures, RGB in [0, 1]; BLIP was trained with the same."""
TEXT_FIELDS = (
    "vocab_size", "hidden_size", "encoder_hidden_size", "intermediate_size", "projection_dim", "num_hidden_layers",
    "num_attention_heads", "max_position_embeddings", "layer_norm_eps", "bos_token_id", "eos_token_id", "pad_token_id", "sep_token_id",
)  # fmt: skip
VISION_FIELDS = (
    "hidden_size", "intermediate_size", "projection_dim", "num_hidden_layers", "num_attention_heads", "image_size", "patch_size",
    "layer_norm_eps",
)  # fmt: skip
_DERIVED = re.compile(r".*position_ids|text_decoder\.cls\.predictions\.decoder\.(weight|bias)")
"""Entries that files may hold or lack: they follow from others."""
_SPECIAL = re.compile(r"\[.*\]")


class BlipCaptioner:
    """As ``Captioner``. Deterministic: beam search, no sampling."""

    needs_names = False

    def __init__(self, folder: Path, device: torch.device) -> None:
        """Load the network in ``folder`` onto ``device``.

        Raises ``NotFound`` saying what to put where, ``IncompatibleFile`` for another network, ``DamagedFile``.
        """
        if lack := blip_missing(folder):
            raise NotFound(lack, field="captioner")
        config = _config(folder)
        self._size = int(config.vision_config.image_size)
        self._words = _words(folder)
        self._device = device
        self._model = _network(folder, config).eval().to(self._device)

    def caption(self, picture: Image.Image, name: str) -> str:
        """One line about ``picture``."""
        square = picture.convert("RGB").resize((self._size, self._size), Image.Resampling.BICUBIC)
        values = (np.asarray(square, np.float32) / 255 - np.array(MEAN, np.float32)) / np.array(DEVIATION, np.float32)
        pixels = torch.from_numpy(np.ascontiguousarray(values.transpose(2, 0, 1)))[None].to(self._device)
        ids = self._model.generate(pixel_values=pixels, max_new_tokens=MAX_TOKENS, num_beams=BEAMS, do_sample=False)
        return self._text(ids[0].tolist())

    def _text(self, ids: list[int]) -> str:
        """Word pieces put together: ``##`` goes on the word before, and there is no space before a full stop or comma."""
        pieces = [self._words.get(number, "[]") for number in ids]
        text = " ".join(piece for piece in pieces if not _SPECIAL.fullmatch(piece)).replace(" ##", "")
        return re.sub(r" ([.,!?'])", r"\1", text).strip()


def _config(folder: Path) -> BlipConfig:
    data = _json(folder / CONFIG)
    if data.get("model_type") != "blip":
        raise IncompatibleFile(f"{folder / CONFIG} is of the kind {data.get('model_type')!r}; 'blip' is needed.")
    parts = [
        _numbers(data.get(part), fields)
        for part, fields in (("text_config", TEXT_FIELDS), ("vision_config", VISION_FIELDS))
    ]
    try:
        return BlipConfig(text_config=parts[0], vision_config=parts[1])
    except Exception as error:  # the validators of transformers have errors of their own
        raise DamagedFile(f"{folder / CONFIG} cannot be used: {str(error)[:200]}.") from error


def _numbers(part: object, fields: tuple[str, ...]) -> dict[str, Any]:
    if not isinstance(part, dict):
        return {}
    return {name: part[name] for name in fields if isinstance(part.get(name), int | float) and part[name] >= 0}


def _words(folder: Path) -> dict[int, str]:
    """Number -> word piece."""
    plain = folder / WORDS[0]
    if plain.is_file():
        try:
            lines = plain.read_text("utf-8").split("\n")
        except (OSError, UnicodeDecodeError) as error:
            raise DamagedFile(f"{plain} cannot be read: {error}.") from error
        return {number: line.rstrip("\r") for number, line in enumerate(lines) if line}
    model = _json(folder / WORDS[1]).get("model")
    vocabulary = model.get("vocab") if isinstance(model, dict) else None
    if not isinstance(vocabulary, dict):
        raise DamagedFile(f"{folder / WORDS[1]} holds no vocabulary.")
    return {number: str(word) for word, number in vocabulary.items() if isinstance(number, int)}


def _json(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(path.read_text("utf-8")) if path.stat().st_size <= MAX_JSON else None
    except (OSError, ValueError, RecursionError) as error:
        raise DamagedFile(f"{path} cannot be read: {str(error)[:200]}.") from error
    if not isinstance(data, dict):
        raise DamagedFile(f"{path} holds no JSON object of a configuration.")
    return data


def _network(folder: Path, config: BlipConfig) -> Any:
    path = folder / WEIGHTS
    try:
        weights = load_file(path)
    except (OSError, SafetensorError) as error:
        raise DamagedFile(f"{path} is damaged: {str(error)[:200]}.") from error
    network = BlipForConditionalGeneration(config)
    try:
        missing, unknown = network.load_state_dict(weights, strict=False)
    except RuntimeError as error:
        raise IncompatibleFile(f"{path} does not fit {CONFIG}: {str(error).splitlines()[-1].strip()[:200]}.") from error
    odd = [name for name in (*missing, *unknown) if not _DERIVED.fullmatch(name)]
    if odd:
        raise IncompatibleFile(
            f"{path} does not fit {CONFIG}: {len(odd)} entries lack or are too many, {odd[0]!r} for one."
        )
    network.tie_weights()
    return network

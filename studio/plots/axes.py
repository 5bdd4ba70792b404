"""What an axis of a plot may change: how its values are read, and which field of a request they go into.

Values are written as in A1111's X/Y/Z plot: numbers by commas, `start-end`, `start-end (+step)`, `start-end [count]`; anything else as
one line of a CSV file.
"""

from __future__ import annotations

import csv
import io
import itertools
import re
from collections.abc import Callable
from typing import Any

from studio.families.faces import RESTORERS
from studio.schema.parts import Refiner, Variation
from studio.schema.request import GenerationRequest

Change = Callable[[GenerationRequest], GenerationRequest]
Values = list[tuple[str, Change]]
"""What is written beside the pictures, and what it does to a request."""
MAX_RANGE = 1000
"""Values that one range may have."""
_NUMBER = r"[+-]?\s*(?:\d+(?:\.\d*)?|\.\d+)"
_RANGE = re.compile(rf"\s*({_NUMBER})\s*-\s*({_NUMBER})\s*(?:\(\s*({_NUMBER})\s*\)|\[\s*(\d+)\s*\])?\s*")
_WHAT_ELSE = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


def axis_values(kind: str, text: str) -> Values:
    """The values of an axis of this type, one at least. Raises `ValueError` with a reason, without a full stop."""
    if kind in WORDED:
        values = WORDED[kind](words(text))
    else:
        read, path = FIELDS[kind]
        values = [(f"{value:g}" if read is decimals else str(value), _setter(path, value)) for value in read(text)]
    if not values:
        raise ValueError("there are no values")
    return values


def words(text: str) -> list[str]:
    """The entries of one line of a CSV file, without the space around them; empty ones are left out."""
    rows = csv.reader(io.StringIO(text.replace("\r", " ").replace("\n", " ")), skipinitialspace=True)
    return [entry.strip() for row in rows for entry in row if entry.strip()]


def decimals(text: str) -> list[float]:
    """Numbers and ranges of them. A step of a range is 1 where none is given; the end belongs to it if the steps hit it."""
    found: list[float] = []
    for entry in words(text):
        found += _range(entry)
    return found


def integers(text: str) -> list[int]:
    """The same, whole."""
    found = decimals(text)
    if part := next((number for number in found if number != int(number)), None):
        raise ValueError(f"{part:g} is not a whole number")
    return [int(number) for number in found]


def switches(text: str) -> list[bool]:
    """True and False, in some spellings."""
    found = words(text)
    if wrong := next((word for word in found if word.casefold() not in _WHAT_ELSE), None):
        raise ValueError(f"{wrong!r} is neither True nor False")
    return [_WHAT_ELSE[word.casefold()] for word in found]


def sizes(found: list[str]) -> list[str]:
    """Width x height, in pixels."""
    if wrong := next((word for word in found if not re.fullmatch(r"\d{1,5} *[xX×] *\d{1,5}", word)), None):
        raise ValueError(f"{wrong!r} is no size like 512x768")
    return found


def _range(entry: str) -> list[float]:
    try:
        return [float(entry)]
    except ValueError:
        match = _RANGE.fullmatch(entry)
    if match is None:
        raise ValueError(f"{entry!r} is no number, and no range like 1-10, 1-10 (+3) or 1-10 [4]")
    start, end = (float(match[i].replace(" ", "")) for i in (1, 2))
    if match[4]:
        count = int(match[4])
        if not 1 <= count <= MAX_RANGE:
            raise ValueError(f"{entry!r} asks for {count} values; a range may have 1 to {MAX_RANGE}")
        return [start + (end - start) * i / max(count - 1, 1) for i in range(count)]
    step = float(match[3].replace(" ", "")) if match[3] else (1.0 if end >= start else -1.0)
    if step == 0 or (end - start) / step < 0:
        raise ValueError(f"{entry!r} never comes to its end")
    count = int((end - start) / step + 1e-9) + 1
    if count > MAX_RANGE:
        raise ValueError(f"{entry!r} has {count} values; a range may have {MAX_RANGE}")
    return [round(start + step * i, 9) for i in range(count)]


def _replacements(found: list[str]) -> Values:
    """Prompt S/R: the first word as it stands, then each of the others in its place."""
    return [(word, _replacing(found[0], word)) for word in found]


def _replacing(wanted: str, word: str) -> Change:
    def change(request: GenerationRequest) -> GenerationRequest:
        if wanted not in request.prompt and wanted not in request.negative_prompt:
            raise ValueError(f"{wanted!r} is in neither prompt, so nothing can stand in its place")
        texts = {name: getattr(request, name).replace(wanted, word) for name in ("prompt", "negative_prompt")}
        return request.model_copy(update=texts)

    return change


def _orders(found: list[str]) -> Values:
    """Prompt order: the words in every order, in the places where they stand."""
    if len(found) > 5:
        raise ValueError(f"{len(found)} words have too many orders; 5 are possible")
    return [(", ".join(order), _ordering(order)) for order in itertools.permutations(found)]


def _ordering(order: tuple[str, ...]) -> Change:
    def change(request: GenerationRequest) -> GenerationRequest:
        missing = next((word for word in order if word not in request.prompt), None)
        if missing is not None:
            raise ValueError(f"{missing!r} is not in the prompt")
        places = sorted((request.prompt.find(word), word) for word in order)
        text, done = "", 0
        for (place, there), word in zip(places, order, strict=True):
            if place < done:
                raise ValueError("the words overlap in the prompt")
            text, done = text + request.prompt[done:place] + word, place + len(there)
        return request.model_copy(update={"prompt": text + request.prompt[done:]})

    return change


def _setter(path: str, value: Any) -> Change:
    """A change of one field. A dotted one belongs to a part; of several, to the first part that the request has."""

    def change(request: GenerationRequest) -> GenerationRequest:
        for place in path.split("|"):
            part, _, name = place.rpartition(".")
            if not part:
                return request.model_copy(update={name: value})
            whole = getattr(request, part) or MADE.get(part)
            if whole is not None:
                return request.model_copy(update={part: whole.model_copy(update={name: value})})
        missing = " and no ".join(NEEDED[place.partition(".")[0]] for place in path.split("|"))
        raise ValueError(f"the picture has no {missing}")

    return change


def _size(value: str) -> Change:
    width, height = (int(side) for side in re.split(r"[xX×]", value))
    return lambda request: request.model_copy(update={"width": width, "height": height})


def _styles(found: list[str]) -> Values:
    return [(word, lambda request, word=word: request.model_copy(update={"styles": (word,)})) for word in found]  # type: ignore[misc]


def _face_restorers(found: list[str]) -> Values:
    """Names; False and None restore nothing, True goes by the request, or by A1111's default."""
    return [(word, _restoring(word)) for word in found]


def _restoring(word: str) -> Change:
    on = False if word.casefold() == "none" else _WHAT_ELSE.get(word.casefold())

    def change(request: GenerationRequest) -> GenerationRequest:
        name = word if on is None else (request.face_restoration or RESTORERS[0]) if on else ""
        return request.model_copy(update={"face_restoration": name})

    return change


WORDED: dict[str, Callable[[list[str]], Values]] = {
    "Prompt S/R": _replacements,
    "Prompt order": _orders,
    "Face restore": _face_restorers,
    "Size": lambda found: [(word, _size(word)) for word in sizes(found)],
    "Styles": _styles,
}
"""Axes whose values are no single field's."""

_OPTIONS = "sampler_options"
FIELDS: dict[str, tuple[Callable[[str], list[Any]], str]] = {
    "Seed": (integers, "seed"),
    "Var. seed": (integers, "variation.seed"),
    "Var. strength": (decimals, "variation.strength"),
    "Steps": (integers, "steps"),
    "Hires steps": (integers, "hires.steps"),
    "CFG Scale": (decimals, "cfg_scale"),
    "Image CFG Scale": (decimals, "source.image_cfg_scale"),
    "Sampler": (words, "sampler"),
    "Hires sampler": (words, "hires.sampler"),
    "Checkpoint name": (words, "model"),
    "Negative Guidance minimum sigma": (decimals, f"{_OPTIONS}.s_min_uncond"),
    "Sigma Churn": (decimals, f"{_OPTIONS}.s_churn"),
    "Sigma min": (decimals, f"{_OPTIONS}.s_tmin"),
    "Sigma max": (decimals, f"{_OPTIONS}.s_tmax"),
    "Sigma noise": (decimals, f"{_OPTIONS}.s_noise"),
    "Schedule type": (words, "schedule"),
    "Schedule min sigma": (decimals, f"{_OPTIONS}.sigma_min"),
    "Schedule max sigma": (decimals, f"{_OPTIONS}.sigma_max"),
    "Schedule rho": (decimals, f"{_OPTIONS}.rho"),
    "Beta schedule alpha": (decimals, f"{_OPTIONS}.beta_dist_alpha"),
    "Beta schedule beta": (decimals, f"{_OPTIONS}.beta_dist_beta"),
    "Eta": (decimals, f"{_OPTIONS}.eta"),
    "Clip skip": (integers, "clip_skip"),
    "Denoising": (decimals, "hires.denoising_strength|source.denoising_strength"),
    "Initial noise multiplier": (decimals, "source.noise_multiplier"),
    "Extra noise": (decimals, "hires.extra_noise|source.extra_noise"),
    "Hires upscaler": (words, "hires.upscaler"),
    "Cond. Image Mask Weight": (decimals, "mask.conditioning_weight"),
    "VAE": (words, "vae"),
    "UniPC Order": (integers, f"{_OPTIONS}.uni_pc_order"),
    "Token merging ratio": (decimals, "token_merging_ratio"),
    "Token merging ratio high-res": (decimals, "hires.token_merging_ratio"),
    "Always discard next-to-last sigma": (switches, f"{_OPTIONS}.discard_penultimate"),
    "SGM noise multiplier": (switches, f"{_OPTIONS}.sgm_noise_multiplier"),
    "Refiner checkpoint": (words, "refiner.checkpoint"),
    "Refiner switch at": (decimals, "refiner.switch_at"),
    "RNG source": (words, "rng"),
    "FP8 mode": (words, "fp8_weight"),
}
"""How the values of the other axes are read, and the field they go into: dotted in a part, and of two the first that is there."""
MADE: dict[str, Any] = {"variation": Variation(), "refiner": Refiner()}
"""Parts that an axis may begin: they do nothing until another value says so."""
NEEDED = {"hires": "second pass (Hires. fix)", "source": "picture to begin with", "mask": "mask"}
"""Parts that must be there, and what they are called."""

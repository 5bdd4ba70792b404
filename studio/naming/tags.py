"""The tags of file-name patterns, one row each: AUTOMATIC1111's names and values.

A new tag is one row of `TAGS`. What comes out of a request is sanitised here, so a tag never holds a separator.
"""

from __future__ import annotations

import hashlib
import re
import string
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, tzinfo
from enum import Enum
from pathlib import PurePath
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones

from studio.naming.facts import PictureFacts
from studio.naming.sanitise import sanitise
from studio.samplers.table import AUTOMATIC, find_sampler, find_schedule

MAX_WORDS = 8
"""Words of `[prompt_words]`."""
HASH_LENGTH = 8
TIME_FORMAT = "%Y%m%d%H%M%S"
# What separates words. The backslash is no separator for A1111, so `\(` is a word.
_BETWEEN_WORDS = re.compile(rf"[\s{re.escape(string.punctuation.replace(chr(92), ''))}]+")


class Absent(Enum):
    """Why a tag has no text."""

    TAG_STAYS = 1
    VANISHES = 2
    """Together with the text before it."""


Filled = str | Absent
Fill = Callable[[PictureFacts, list[str]], Filled]


@dataclass(frozen=True)
class Tag:
    """One tag. `arguments` is how many it takes at most, None for any number; `usage` shows them.

    `fill` may raise `ValueError` or a `StudioError`: the tag then stays as it is.
    """

    meaning: str
    fill: Fill
    arguments: int | None = 0
    usage: str = ""


def _plain(value: Callable[[PictureFacts], object]) -> Fill:
    """A tag without arguments whose value is shown as it is; None lets the tag stay."""

    def fill(facts: PictureFacts, arguments: list[str]) -> Filled:
        found = value(facts)
        return Absent.TAG_STAYS if found is None else str(found)

    return fill


def _optional(value: Callable[[PictureFacts], object]) -> Fill:
    """As `_plain`, but None lets the tag vanish."""

    def fill(facts: PictureFacts, arguments: list[str]) -> Filled:
        found = value(facts)
        return Absent.VANISHES if found is None else str(found)

    return fill


def _text(value: Callable[[PictureFacts], str | None], *, keep_spaces: bool = True) -> Fill:
    """A tag without arguments whose text comes from outside; None lets the tag stay."""

    def fill(facts: PictureFacts, arguments: list[str]) -> Filled:
        found = value(facts)
        return Absent.TAG_STAYS if found is None else sanitise(found, keep_spaces=keep_spaces)

    return fill


def _hash_of(value: Callable[[PictureFacts], bytes], default: int | None) -> Fill:
    """SHA-256 in hex, as many digits as the argument says. Raises `ValueError` for an argument that is no number."""

    def fill(facts: PictureFacts, arguments: list[str]) -> Filled:
        length = int(arguments[0]) if arguments and arguments[0] else default
        return hashlib.sha256(value(facts)).hexdigest()[:length]

    return fill


def _schedule(facts: PictureFacts) -> str:
    """The schedule's name with a capital; Automatic is the sampler's own, by its internal name. Raises `UnknownName`."""
    name = facts.schedule
    if name == AUTOMATIC:
        own = find_sampler(facts.sampler).default_schedule
        name = find_schedule(own).name if own else AUTOMATIC
    return name.capitalize()


def _words(facts: PictureFacts) -> str:
    words = [word for word in _BETWEEN_WORDS.split(facts.prompt) if word]
    return " ".join(words[:MAX_WORDS]) or "empty"


def _styles(facts: PictureFacts) -> str:
    return ", ".join(style for style in facts.styles if style != "None") or "None"


def _without_styles(facts: PictureFacts) -> str:
    """The prompt less what its styles added, piece by piece, and less the commas that are left over."""
    rest = facts.prompt
    for style in filter(None, facts.style_prompts):
        for piece in style.split("{prompt}"):
            rest = rest.replace(piece, "").replace(", ,", ",").strip().strip(",")
        rest = rest.replace(style, "").strip().strip(",").strip()
    return rest


def _moment(facts: PictureFacts, arguments: list[str]) -> Filled:
    """The time in the format of the first argument and the zone of the second; what is not known is left at the default."""
    zone = _zone(arguments[1]) if len(arguments) > 1 else None
    moment = facts.now.astimezone(zone) if zone else facts.now
    return sanitise(_formatted(moment, (arguments[0] if arguments else "") or TIME_FORMAT))


def _formatted(moment: datetime, form: str) -> str:
    try:
        return moment.strftime(form)
    except ValueError:
        return moment.strftime(TIME_FORMAT)


def _zone(name: str) -> tzinfo | None:
    """A zone of the system's table, in any case; None when there is no such zone."""
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):  # OSError: the name of a folder of zones
        known = {zone.casefold(): zone for zone in available_timezones()}
        found = known.get(name.casefold())
        return ZoneInfo(found) if found else None


def _has_prompt(facts: PictureFacts, arguments: list[str]) -> Filled:
    """For each argument `word|else`: the word in lower case when the prompt holds it, otherwise what stands behind the bar."""
    prompt, found = facts.prompt.lower(), ""
    for argument in filter(None, arguments):
        word, *otherwise = argument.split("|")
        found += word.lower() if word.lower() in prompt else "".join(otherwise[:1])
    return sanitise(found, keep_spaces=False)


def _batch_number(facts: PictureFacts) -> int | None:
    return None if facts.batch_size == 1 or facts.zip else facts.batch_index + 1


def _generation_number(facts: PictureFacts) -> int | None:
    if facts.zip or (facts.batch_count == 1 and facts.batch_size == 1):
        return None
    return facts.iteration * facts.batch_size + facts.batch_index + 1


def _vae_name(facts: PictureFacts) -> str:
    """The file's name up to its first dot; A1111's word for none is `NoneType`."""
    if facts.vae_file is None:
        return "NoneType"
    first, *others = PurePath(facts.vae_file).name.split(".")
    return first or "".join(others[:1])


TAGS: dict[str, Tag] = {
    "seed": Tag("seed of the picture", _plain(lambda f: "" if f.seed is None else f.seed)),
    "seed_first": Tag(
        "seed of the first picture of the job", _plain(lambda f: f.seed if f.batch_size == 1 else f.seeds[0])
    ),
    "seed_last": Tag(
        "seed of the last picture of the job; vanishes with batch size 1",
        _optional(lambda f: None if f.batch_size == 1 else f.seeds[-1]),
    ),
    "steps": Tag("sampling steps", _plain(lambda f: f.steps)),
    "cfg": Tag("CFG scale", _plain(lambda f: f.cfg_scale)),
    "width": Tag("width in pixels", _plain(lambda f: f.width)),
    "height": Tag("height in pixels", _plain(lambda f: f.height)),
    "sampler": Tag("sampling method", _text(lambda f: f.sampler)),
    "scheduler": Tag("schedule that runs", _text(_schedule)),
    "sampler_scheduler": Tag("sampling method and schedule", _text(lambda f: f"{f.sampler} {_schedule(f)}")),
    "model_name": Tag("name of the checkpoint", _text(lambda f: f.model_name)),
    "model_hash": Tag("hash of the checkpoint; vanishes until it is known", _optional(lambda f: f.model_hash)),
    "vae_filename": Tag("name of the VAE file, or NoneType", _text(_vae_name)),
    "clip_skip": Tag("clip skip", _plain(lambda f: f.clip_skip)),
    "denoising": Tag(
        "denoising strength; vanishes when there is none", _optional(lambda f: f.denoising_strength or None)
    ),
    "date": Tag("date as 2026-01-31", _plain(lambda f: f.now.strftime("%Y-%m-%d"))),
    "datetime": Tag(
        "date and time, as 20260131235959 unless another format is given",
        _moment,
        None,
        "[datetime<%H-%M><Asia/Tokyo>]",
    ),
    "job_timestamp": Tag("when the job began, as 20260131235959", _plain(lambda f: f.job_timestamp)),
    "prompt": Tag("prompt, spaces as _", _text(lambda f: f.prompt, keep_spaces=False)),
    "prompt_spaces": Tag("prompt", _text(lambda f: f.prompt)),
    "prompt_words": Tag("first 8 words of the prompt", _text(_words)),
    "prompt_no_styles": Tag("prompt without what styles added", _text(_without_styles)),
    "prompt_hash": Tag(
        "hash of the prompt", _hash_of(lambda f: f.prompt.encode(), HASH_LENGTH), 1, "[prompt_hash<16>]"
    ),
    "negative_prompt_hash": Tag(
        "hash of the negative prompt",
        _hash_of(lambda f: f.negative_prompt.encode(), HASH_LENGTH),
        1,
        "[negative_prompt_hash<16>]",
    ),
    "full_prompt_hash": Tag(
        "hash of both prompts",
        _hash_of(lambda f: f"{f.prompt} {f.negative_prompt}".encode(), HASH_LENGTH),
        1,
        "[full_prompt_hash<16>]",
    ),
    "image_hash": Tag("SHA-256 of the pixels", _hash_of(lambda f: f.pixels(), None), 1, "[image_hash<10>]"),
    "hasprompt": Tag(
        "cat when the prompt holds cat, otherwise dog; several are joined", _has_prompt, None, "[hasprompt<cat|dog>]"
    ),
    "styles": Tag("names of the styles, or None", _text(_styles)),
    "batch_number": Tag("place in the batch, from 1; vanishes with batch size 1", _optional(_batch_number)),
    "batch_size": Tag("batch size", _plain(lambda f: f.batch_size)),
    "generation_number": Tag("place in the job, from 1; vanishes for a single picture", _optional(_generation_number)),
    "basename": Tag("grid for grids, otherwise img", _plain(lambda f: f.basename or "img")),
    "user": Tag("name of the user", _text(lambda f: f.user)),
    "none": Tag("nothing: the number alone", _plain(lambda f: "")),
}
"""Every tag by its name in lower case."""

"""Captions for a scene, in the phrasings people type; the short ones first and most often."""

from __future__ import annotations

import numpy as np

from studio.training.counter import choice
from studio.training.data.scenes.scene import Scene, Thing
from studio.training.data.scenes.vocabulary import (
    COUNT_WORDS,
    PLACES,
    RELATIONS,
    SIZE_WORDS,
    STYLE_LEADS,
    STYLES,
    TIMES,
    plural,
)

_PREFIXES = (
    "a picture of ",
    "a photo of ",
    "an image of ",
    "a drawing of ",
    "an illustration of ",
    "a cute picture of ",
)
_FILLERS = (
    "high quality",
    "best quality",
    "detailed",
    "masterpiece",
    "beautiful",
    "4k",
    "cute",
    "highly detailed",
    "simple",
    "sharp focus",
)
_ARTICLES = ("a", "an", "the")
_PLACE_PHRASES = {place.name: place.phrases for place in PLACES}


def write_caption(scene: Scene, rng: np.random.Generator) -> str:
    """One caption for ``scene``; words of equal meaning are drawn from ``rng``."""
    if rng.random() < 0.07 and not scene.partner and scene.count == 1:
        return _tags(scene, rng)
    text, where = _subject(scene, rng), _where(scene, rng)
    where_first = bool(where) and rng.random() < 0.04
    if where and not where_first:
        text = f"{text} {where}"
    if rng.random() < 0.06:
        text = _without_articles(text)
    if scene.style:
        text = _in_style(text, scene.style, rng)
    elif rng.random() < 0.12:
        text = choice(rng, _PREFIXES) + text
    if where_first:
        text = f"{where}, {text}"
    if rng.random() < 0.06:
        text = f"{text}, {choice(rng, _FILLERS)}"
    return text


def plain_caption(scene: Scene) -> str:
    """The canonical caption: first word of every list, nothing added. Used for evaluation."""
    return write_caption(scene, _FirstChoice())


def _subject(scene: Scene, rng: np.random.Generator) -> str:
    if scene.count > 1:
        number = choice(rng, COUNT_WORDS[scene.count])
        return " ".join(part for part in (number, scene.main.colour, plural(_noun(scene.main, rng))) if part)
    first = _noun_phrase(scene.main, scene.size, rng)
    if scene.partner is None:
        return first
    return f"{first} {choice(rng, RELATIONS[scene.relation])} {_noun_phrase(scene.partner, '', rng)}"


def _noun_phrase(thing: Thing, size: str, rng: np.random.Generator) -> str:
    words = [choice(rng, SIZE_WORDS[size])] if size else []
    text = " ".join([*words, *([thing.colour] if thing.colour else []), _noun(thing, rng)])
    draw = rng.random()
    if draw < 0.85:
        return f"{_article(text)} {text}"
    return f"the {text}" if draw > 0.95 else text


def _noun(thing: Thing, rng: np.random.Generator) -> str:
    return str(thing.kind.name if rng.random() < 0.75 else choice(rng, thing.kind.words))


def _where(scene: Scene, rng: np.random.Generator) -> str:
    """Background or place, then the time of day; each only where it is mentioned."""
    parts = []
    if scene.named:
        in_words = choice(rng, _PLACE_PHRASES[scene.background]) if scene.in_place else _on_plain(scene.background, rng)
        parts.append(in_words)
    if scene.time:
        parts.insert(0 if rng.random() < 0.1 else len(parts), choice(rng, TIMES[scene.time]))
    return " ".join(parts)


def _on_plain(background: str, rng: np.random.Generator) -> str:
    colour = "grey" if background == "gray" and rng.random() > 0.7 else background
    if rng.random() < 0.85:
        return f"on {_article(colour)} {colour} background"
    others = (
        f"on {colour}",
        f"with {_article(colour)} {colour} background",
        f"in front of {_article(colour)} {colour} background",
    )
    return str(choice(rng, others))


def _in_style(text: str, style: str, rng: np.random.Generator) -> str:
    word, draw = choice(rng, STYLES[style]), rng.random()
    if draw < 0.55:
        return f"{text}, {word}"
    if draw < 0.85:
        return f"{choice(rng, STYLE_LEADS[style])} {text}"
    return f"{word} {_without_articles(text)}"


def _tags(scene: Scene, rng: np.random.Generator) -> str:
    """Words between commas, as on the pages where prompts are traded."""
    tags = [" ".join(part for part in (scene.size, scene.main.colour, _noun(scene.main, rng)) if part)]
    if scene.named:
        tags.append(scene.background if scene.in_place else f"{scene.background} background")
    tags.extend(part for part in (scene.time, choice(rng, STYLES[scene.style]) if scene.style else "") if part)
    return ", ".join(tags)


def _without_articles(text: str) -> str:
    return " ".join(word for word in text.split() if word not in _ARTICLES)


def _article(text: str) -> str:
    return "an" if text[0] in "aeio" or text.startswith("um") else "a"


class _FirstChoice(np.random.Generator):
    """A generator whose every draw is the plainest: index 0 of a list, and 0.5 for a share."""

    def __init__(self) -> None:
        super().__init__(np.random.Philox(0))

    def integers(self, *args: object, **kwargs: object) -> int:  # type: ignore[override]
        return 0

    def random(self, *args: object, **kwargs: object) -> float:  # type: ignore[override]
        return 0.5

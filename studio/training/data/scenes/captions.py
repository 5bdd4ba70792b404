"""Captions for a scene, in the phrasings people type; the short ones first and most often."""

from __future__ import annotations

import numpy as np

from studio.training.counter import choice
from studio.training.data.scenes.scene import Scene, Thing
from studio.training.data.scenes.vocabulary import COUNT_WORDS, PLACES, RELATIONS, SIZE_WORDS, STYLES

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
_PLACE_PHRASES = {place.name: place.phrases for place in PLACES}


def write_caption(scene: Scene, rng: np.random.Generator) -> str:
    """One caption for ``scene``; words of equal meaning are drawn from ``rng``."""
    if rng.random() < 0.06 and not scene.partner and scene.count == 1:
        return _tags(scene, rng)
    text = _subject(scene, rng)
    where = _where(scene, rng)
    if where:
        text = f"{where}, {text}" if rng.random() < 0.05 else f"{text} {where}"
    if scene.style:
        word = choice(rng, STYLES[scene.style])
        text = choice(rng, (f"{text}, {word}", f"{_article(word)} {word} of {text}", f"{text} in {word} style"))
    elif rng.random() < 0.15:
        text = choice(rng, _PREFIXES) + text
    if rng.random() < 0.06:
        text = f"{text}, {choice(rng, _FILLERS)}"
    return text


def plain_caption(scene: Scene) -> str:
    """The canonical caption: first word of every list, nothing added. Used for evaluation."""
    return write_caption(scene, _FirstChoice())


def _subject(scene: Scene, rng: np.random.Generator) -> str:
    if scene.count > 1:
        number = choice(rng, COUNT_WORDS[scene.count])
        return " ".join(part for part in (number, scene.main.colour, scene.main.kind.many) if part)
    first = _noun_phrase(scene.main, scene.size, rng)
    if scene.partner is None:
        return first
    return f"{first} {choice(rng, RELATIONS[scene.relation])} {_noun_phrase(scene.partner, '', rng)}"


def _noun_phrase(thing: Thing, size: str, rng: np.random.Generator) -> str:
    noun = thing.kind.name if rng.random() < 0.8 else choice(rng, thing.kind.words)
    words = [choice(rng, SIZE_WORDS[size])] if size else []
    text = " ".join([*words, *([thing.colour] if thing.colour else []), noun])
    draw = rng.random()
    if draw < 0.8:
        return f"{_article(text)} {text}"
    return f"the {text}" if draw > 0.95 else text


def _where(scene: Scene, rng: np.random.Generator) -> str:
    if not scene.named:
        return ""
    if scene.in_place:
        return str(choice(rng, _PLACE_PHRASES[scene.background]))
    colour = "grey" if scene.background == "gray" and rng.random() > 0.7 else scene.background
    if rng.random() < 0.85:
        return f"on {_article(colour)} {colour} background"
    return str(
        choice(
            rng,
            (
                f"on {colour}",
                f"with {_article(colour)} {colour} background",
                f"in front of {_article(colour)} {colour} background",
            ),
        )
    )


def _tags(scene: Scene, rng: np.random.Generator) -> str:
    thing = scene.main
    tags = [" ".join(part for part in (scene.size, thing.colour, thing.kind.name) if part)]
    if scene.named:
        tags.append(scene.background if scene.in_place else f"{scene.background} background")
    if scene.style:
        tags.append(scene.style)
    return ", ".join(tags)


def _article(text: str) -> str:
    return "an" if text[0] in "aeiou" else "a"


class _FirstChoice(np.random.Generator):
    """A generator whose every draw is the plainest: index 0 of a list, and 0.5 for a share."""

    def __init__(self) -> None:
        super().__init__(np.random.Philox(0))

    def integers(self, *args: object, **kwargs: object) -> int:  # type: ignore[override]
        return 0

    def random(self, *args: object, **kwargs: object) -> float:  # type: ignore[override]
        return 0.5

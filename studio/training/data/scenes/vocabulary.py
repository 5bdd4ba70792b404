"""The words a drawn scene is made of: objects, colours, backgrounds, sizes, counts and styles.

Tables only. Each row carries the words a caption may use for it, the first being the canonical name, and what the painter needs to draw it.
"""

from __future__ import annotations

from dataclasses import dataclass

RGB = tuple[int, int, int]


@dataclass(frozen=True)
class ObjectKind:
    """Something to draw: an emoji glyph, or a vector shape where ``glyph`` is empty; a shape without a colour word takes ``natural``."""

    name: str
    glyph: str = ""
    aliases: tuple[str, ...] = ()
    plural: str = ""
    natural: str = ""

    @property
    def is_shape(self) -> bool:
        return not self.glyph

    @property
    def words(self) -> tuple[str, ...]:
        return (self.name, *self.aliases)

    @property
    def many(self) -> str:
        return self.plural or f"{self.name}s"


@dataclass(frozen=True)
class Place:
    """A drawn surrounding, the phrases that name it, and the height of the ground an object stands on (0 top, 1 bottom)."""

    name: str
    phrases: tuple[str, ...]
    ground: float | None


OBJECTS: tuple[ObjectKind, ...] = (
    ObjectKind("fox", "🦊", ("fox face",), "foxes"),
    ObjectKind("cat", "🐱", ("kitten", "kitty")),
    ObjectKind("dog", "🐶", ("puppy",)),
    ObjectKind("rabbit", "🐰", ("bunny",)),
    ObjectKind("bear", "🐻"),
    ObjectKind("panda", "🐼"),
    ObjectKind("lion", "🦁"),
    ObjectKind("pig", "🐷"),
    ObjectKind("frog", "🐸"),
    ObjectKind("chick", "🐤", ("baby chicken",)),
    ObjectKind("penguin", "🐧"),
    ObjectKind("owl", "🦉"),
    ObjectKind("bird", "🐦"),
    ObjectKind("duck", "🦆"),
    ObjectKind("fish", "🐟", (), "fish"),
    ObjectKind("whale", "🐳"),
    ObjectKind("octopus", "🐙", (), "octopuses"),
    ObjectKind("turtle", "🐢", ("tortoise",)),
    ObjectKind("butterfly", "🦋", (), "butterflies"),
    ObjectKind("horse", "🐎"),
    ObjectKind("elephant", "🐘"),
    ObjectKind("dinosaur", "🦕", ("dino",)),
    ObjectKind("apple", "🍎"),
    ObjectKind("banana", "🍌"),
    ObjectKind("strawberry", "🍓", (), "strawberries"),
    ObjectKind("pizza", "🍕", ("slice of pizza",)),
    ObjectKind("ice cream", "🍦", ("ice cream cone",)),
    ObjectKind("mushroom", "🍄", ("toadstool",)),
    ObjectKind("tree", "🌳"),
    ObjectKind("flower", "🌼", ("daisy",)),
    ObjectKind("rose", "🌹"),
    ObjectKind("cactus", "🌵", (), "cacti"),
    ObjectKind("house", "🏠", ("home",)),
    ObjectKind("castle", "🏰"),
    ObjectKind("car", "🚗", ("automobile",)),
    ObjectKind("bus", "🚌", (), "buses"),
    ObjectKind("boat", "⛵", ("sailboat", "ship")),
    ObjectKind("rocket", "🚀", ("spaceship",)),
    ObjectKind("bicycle", "🚲", ("bike",)),
    ObjectKind("balloon", "🎈"),
    ObjectKind("umbrella", "☂️"),
    ObjectKind("crown", "👑"),
    ObjectKind("robot", "🤖"),
    ObjectKind("snowman", "⛄", (), "snowmen"),
    ObjectKind("sun", "🌞"),
    ObjectKind("moon", "🌙", ("crescent moon",)),
    ObjectKind("heart", natural="red"),
    ObjectKind("star", natural="yellow"),
    ObjectKind("circle", aliases=("dot",), natural="blue"),
    ObjectKind("square", natural="purple"),
    ObjectKind("triangle", natural="green"),
    ObjectKind("diamond", natural="blue"),
)

COLOURS: dict[str, RGB] = {
    "red": (222, 40, 44),
    "orange": (245, 134, 28),
    "yellow": (250, 214, 46),
    "green": (58, 168, 70),
    "blue": (44, 104, 220),
    "purple": (136, 62, 190),
    "pink": (246, 132, 182),
    "brown": (132, 84, 46),
    "black": (38, 38, 42),
    "white": (244, 244, 246),
}

BACKGROUNDS: dict[str, RGB] = {
    "white": (248, 248, 248),
    "black": (14, 14, 18),
    "gray": (140, 142, 146),
    "red": (206, 52, 56),
    "orange": (246, 156, 62),
    "yellow": (252, 224, 92),
    "green": (84, 178, 96),
    "blue": (66, 128, 226),
    "purple": (142, 86, 196),
    "pink": (248, 172, 206),
}
"""Plain backgrounds; ``gray`` is the only one an object is never painted in."""

DEFAULT_BACKGROUND = "white"
"""What is painted where a caption names no background."""

PLACES: tuple[Place, ...] = (
    Place("beach", ("on a beach", "on the beach", "at the beach", "on a sandy beach"), 0.86),
    Place("sea", ("in the sea", "on the sea", "in the ocean", "in the water"), 0.74),
    Place("snow", ("in the snow", "in snow", "on the snow", "in a snowy field"), 0.86),
    Place("night", ("at night", "in the night", "under the stars", "under a night sky"), 0.88),
    Place("grass", ("on the grass", "on grass", "in a meadow", "in a green field"), 0.88),
    Place("forest", ("in a forest", "in the forest", "in the woods"), 0.90),
    Place("desert", ("in the desert", "in a desert"), 0.86),
    Place("space", ("in space", "in outer space"), None),
    Place("city", ("in a city", "in the city", "in front of a city"), 0.90),
    Place("sunset", ("at sunset", "in the sunset", "in front of a sunset"), 0.84),
    Place("sky", ("in the sky", "in the clouds", "in a blue sky"), None),
    Place("mountains", ("in the mountains", "in front of mountains", "in front of a mountain"), 0.90),
)

SIZES: dict[str, tuple[float, float]] = {"": (0.52, 0.72), "small": (0.28, 0.36), "big": (0.84, 0.96)}
"""Object height as a fraction of the picture's, by size word; no word is the usual size."""

SIZE_WORDS: dict[str, tuple[str, ...]] = {"small": ("small", "tiny", "little"), "big": ("big", "large", "huge")}

COUNT_WORDS: dict[int, tuple[str, ...]] = {2: ("two", "2"), 3: ("three", "3"), 4: ("four", "4")}

RELATIONS: dict[str, tuple[str, ...]] = {
    "left": ("to the left of", "left of"),
    "right": ("to the right of", "right of"),
    "above": ("above", "over"),
    "below": ("below", "under"),
    "and": ("and", "and", "next to", "with"),
}

STYLES: dict[str, tuple[str, ...]] = {
    "pixel art": ("pixel art",),
    "black and white": ("black and white",),
    "pencil sketch": ("pencil sketch", "pencil drawing"),
}

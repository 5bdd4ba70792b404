"""The words a drawn scene is made of: objects, colours, backgrounds, places, times of day, sizes, counts, relations and styles.

Tables only. Each row carries the words a caption may use for it, the first being the canonical name, and what the painter needs to draw it.
No word names two things: a caption that is understood at all is understood in one way.
"""

from __future__ import annotations

from dataclasses import dataclass

RGB = tuple[int, int, int]

_IRREGULAR_PLURALS = {
    "cactus": "cacti",
    "cup of coffee": "cups of coffee",
    "fish": "fish",
    "leaf": "leaves",
    "maple leaf": "maple leaves",
    "autumn leaf": "autumn leaves",
    "sheep": "sheep",
    "slice of pizza": "slices of pizza",
    "snowman": "snowmen",
}


def plural(noun: str) -> str:
    """English plural of ``noun``: the regular endings and the exceptions among the words used here."""
    if noun in _IRREGULAR_PLURALS:
        return _IRREGULAR_PLURALS[noun]
    if noun.endswith(("s", "x", "ch", "sh")):
        return f"{noun}es"
    if noun.endswith("y") and noun[-2] not in "aeiou":
        return f"{noun[:-1]}ies"
    return f"{noun}s"


@dataclass(frozen=True)
class ObjectKind:
    """Something to draw: an emoji glyph, or a vector shape where ``glyph`` is empty.

    ``natural`` is the colour word of what is drawn when no colour is asked for: a shape is painted in it, and a glyph whose own colours are
    nearly all of that one vanishes on a background of it. Empty for a glyph that is seen on every background.
    """

    name: str
    glyph: str = ""
    aliases: tuple[str, ...] = ()
    natural: str = ""

    @property
    def is_shape(self) -> bool:
        return not self.glyph

    @property
    def words(self) -> tuple[str, ...]:
        """Singular nouns, the canonical one first."""
        return (self.name, *self.aliases)

    @property
    def plurals(self) -> tuple[str, ...]:
        """Plural nouns, the canonical one first."""
        return tuple(map(plural, self.words))


@dataclass(frozen=True)
class Place:
    """A drawn surrounding, the phrases that name it, and the height of the ground an object stands on (0 top, 1 bottom; None: it floats).

    A place with ``has_times`` lies under the open sky and looks different at night, sunset and dawn.
    """

    name: str
    phrases: tuple[str, ...]
    ground: float | None
    has_times: bool = True


OBJECTS: tuple[ObjectKind, ...] = (
    # Animals, faces
    ObjectKind("fox", "🦊"),
    ObjectKind("cat", "🐱", ("kitten", "kitty")),
    ObjectKind("dog", "🐶", ("puppy",)),
    ObjectKind("rabbit", "🐰", ("bunny",)),
    ObjectKind("bear", "🐻"),
    ObjectKind("panda", "🐼", ("panda bear",)),
    ObjectKind("lion", "🦁"),
    ObjectKind("pig", "🐷", ("piglet",)),
    ObjectKind("frog", "🐸", ("toad",)),
    ObjectKind("tiger", "🐯"),
    ObjectKind("monkey", "🐵", ("ape",)),
    ObjectKind("cow", "🐮"),
    ObjectKind("unicorn", "🦄"),
    ObjectKind("dragon", "🐲"),
    # Animals, whole
    ObjectKind("penguin", "🐧"),
    ObjectKind("owl", "🦉"),
    ObjectKind("bird", "🐦", ("songbird",)),
    ObjectKind("duck", "🦆", ("mallard",)),
    ObjectKind("rooster", "🐓", ("chicken",)),
    ObjectKind("flamingo", "🦩"),
    ObjectKind("fish", "🐟"),
    ObjectKind("whale", "🐳"),
    ObjectKind("dolphin", "🐬"),
    ObjectKind("shark", "🦈"),
    ObjectKind("octopus", "🐙", natural="red"),
    ObjectKind("crab", "🦀"),
    ObjectKind("turtle", "🐢", ("tortoise",)),
    ObjectKind("snake", "🐍"),
    ObjectKind("dinosaur", "🦕", ("dino",), natural="green"),
    ObjectKind("horse", "🐎", ("pony",), natural="orange"),
    ObjectKind("elephant", "🐘", natural="gray"),
    ObjectKind("giraffe", "🦒"),
    ObjectKind("sheep", "🐑", ("lamb",), natural="white"),
    ObjectKind("bat", "🦇", natural="brown"),
    ObjectKind("snail", "🐌"),
    ObjectKind("bee", "🐝", ("bumblebee",)),
    ObjectKind("ladybug", "🐞", ("ladybird",)),
    ObjectKind("spider", "🕷️", natural="gray"),
    ObjectKind("butterfly", "🦋"),
    # Food
    ObjectKind("apple", "🍎"),
    ObjectKind("banana", "🍌"),
    ObjectKind("strawberry", "🍓"),
    ObjectKind("cherry", "🍒", natural="red"),
    ObjectKind("lemon", "🍋"),
    ObjectKind("watermelon", "🍉", ("melon",)),
    ObjectKind("pineapple", "🍍"),
    ObjectKind("carrot", "🥕"),
    ObjectKind("pizza", "🍕", ("slice of pizza",)),
    ObjectKind("hamburger", "🍔", ("burger",)),
    ObjectKind("ice cream", "🍦", ("ice cream cone",)),
    ObjectKind("donut", "🍩", ("doughnut",)),
    ObjectKind("cake", "🎂", ("birthday cake",)),
    ObjectKind("cup of coffee", "☕", ("coffee cup", "coffee"), natural="white"),
    # Plants
    ObjectKind("mushroom", "🍄", ("toadstool",)),
    ObjectKind("tree", "🌳"),
    ObjectKind("pine tree", "🌲", ("fir tree", "pine")),
    ObjectKind("palm tree", "🌴", ("palm",)),
    ObjectKind("cactus", "🌵"),
    ObjectKind("flower", "🌸", ("blossom",), natural="pink"),
    ObjectKind("sunflower", "🌻"),
    ObjectKind("rose", "🌹", natural="red"),
    ObjectKind("leaf", "🍁", ("maple leaf", "autumn leaf")),
    # Vehicles and buildings
    ObjectKind("car", "🚗", ("automobile",)),
    ObjectKind("bus", "🚌"),
    ObjectKind("truck", "🚚", ("lorry",)),
    ObjectKind("train", "🚂", ("steam train", "locomotive")),
    ObjectKind("bicycle", "🚲", ("bike",)),
    ObjectKind("motorcycle", "🏍️", ("motorbike",)),
    ObjectKind("airplane", "✈️", ("plane", "aeroplane")),
    ObjectKind("helicopter", "🚁"),
    ObjectKind("rocket", "🚀", ("spaceship",)),
    ObjectKind("ufo", "🛸", ("flying saucer",), natural="gray"),
    ObjectKind("boat", "⛵", ("sailboat", "ship")),
    ObjectKind("house", "🏠", ("home", "cottage")),
    ObjectKind("castle", "🏰", ("palace",), natural="gray"),
    ObjectKind("church", "⛪", ("chapel",)),
    # Tools and things of the house
    ObjectKind("key", "🔑", natural="yellow"),
    ObjectKind("light bulb", "💡", ("lightbulb",)),
    ObjectKind("camera", "📷"),
    ObjectKind("clock", "⏰", ("alarm clock",)),
    ObjectKind("book", "📕", natural="red"),
    ObjectKind("pencil", "✏️"),
    ObjectKind("anchor", "⚓"),
    ObjectKind("bell", "🔔"),
    ObjectKind("sword", "🗡️", ("dagger",)),
    ObjectKind("chair", "🪑"),
    ObjectKind("teapot", "🫖", natural="red"),
    ObjectKind("gift", "🎁", ("present", "gift box")),
    # Clothing
    ObjectKind("hat", "🎩", ("top hat",)),
    ObjectKind("crown", "👑"),
    ObjectKind("shoe", "👟", ("sneaker",)),
    ObjectKind("dress", "👗", natural="blue"),
    ObjectKind("shirt", "👕", ("t-shirt",), natural="white"),
    ObjectKind("umbrella", "☂️"),
    # Toys and music
    ObjectKind("balloon", "🎈", natural="red"),
    ObjectKind("teddy bear", "🧸", ("teddy",)),
    ObjectKind("soccer ball", "⚽", ("football", "ball")),
    ObjectKind("robot", "🤖", natural="gray"),
    ObjectKind("guitar", "🎸", ("electric guitar",)),
    # The sky, the seasons
    ObjectKind("sun", "☀️"),
    ObjectKind("moon", "🌙", ("crescent moon", "crescent"), natural="yellow"),
    ObjectKind("cloud", "☁️", natural="white"),
    ObjectKind("rainbow", "🌈"),
    ObjectKind("lightning bolt", "⚡", ("lightning",), natural="yellow"),
    ObjectKind("planet", "🪐", ("saturn",)),
    ObjectKind("fire", "🔥", ("flame",)),
    ObjectKind("snowman", "⛄", natural="white"),
    ObjectKind("pumpkin", "🎃", ("halloween pumpkin",)),
    ObjectKind("ghost", "👻", natural="white"),
    ObjectKind("skull", "💀", natural="white"),
    # Vector shapes
    ObjectKind("heart", natural="red"),
    ObjectKind("star", natural="yellow"),
    ObjectKind("circle", aliases=("dot",), natural="blue"),
    ObjectKind("square", natural="purple"),
    ObjectKind("triangle", natural="green"),
    ObjectKind("diamond", aliases=("rhombus",), natural="blue"),
    ObjectKind("cross", aliases=("plus sign",), natural="red"),
    ObjectKind("arrow", natural="orange"),
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

DEFAULT_BACKGROUNDS = ("white", "gray", "blue")
"""What is painted where a caption names neither background nor time: the first of these on which nothing vanishes."""

PLACES: tuple[Place, ...] = (
    Place("beach", ("on a beach", "on the beach", "at the beach", "on a sandy beach"), 0.88),
    Place("sea", ("in the sea", "on the sea", "in the ocean", "in the water"), 0.84),
    Place("underwater", ("underwater", "under water", "under the sea", "at the bottom of the sea"), None, False),
    Place("snow", ("in the snow", "in snow", "on the snow", "in a snowy field"), 0.88),
    Place("rain", ("in the rain", "in rain", "on a rainy day"), 0.88),
    Place("grass", ("on the grass", "on grass", "in a meadow", "in a green field"), 0.88),
    Place("forest", ("in a forest", "in the forest", "in the woods"), 0.90),
    Place("desert", ("in the desert", "in a desert"), 0.86),
    Place("mountains", ("in the mountains", "in front of mountains", "in front of a mountain"), 0.90),
    Place("city", ("in a city", "in the city", "in front of a city"), 0.90),
    Place("road", ("on a road", "on the road", "on the street"), 0.88),
    Place("room", ("in a room", "in a living room", "inside a room"), 0.90, False),
    Place("sky", ("in the sky", "in the clouds", "in a blue sky"), None),
    Place("space", ("in space", "in outer space"), None, False),
)

DEFAULT_PLACE = "grass"
"""What is painted where a caption names a time of day but no place."""

TIMES: dict[str, tuple[str, ...]] = {
    "night": ("at night", "in the night", "under the stars", "under a night sky", "by night"),
    "sunset": ("at sunset", "in the sunset", "during sunset", "in the evening", "at dusk"),
    "dawn": ("at dawn", "at sunrise", "in the morning", "early in the morning"),
}
"""Times of day other than plain daylight, which no caption names."""

HIDES: dict[str, tuple[str, ...]] = {
    **{name: (name,) for name in BACKGROUNDS},
    "sea": ("blue",),
    "snow": ("white",),
    "rain": ("gray",),
    "grass": ("green",),
    "night": ("black", "brown"),
}
"""By background, place or time: the colours (and the natural "gray") that cannot be told from it."""

SIZES: dict[str, tuple[float, float]] = {"": (0.52, 0.72), "small": (0.28, 0.36), "big": (0.84, 0.96)}
"""The larger side of an object as a fraction of the picture's, by size word; no word is the usual size."""

SIZE_WORDS: dict[str, tuple[str, ...]] = {"small": ("small", "tiny", "little"), "big": ("big", "large", "huge")}

COUNT_WORDS: dict[int, tuple[str, ...]] = {2: ("two", "2", "a pair of"), 3: ("three", "3"), 4: ("four", "4")}

RELATIONS: dict[str, tuple[str, ...]] = {
    "left": ("to the left of", "left of"),
    "right": ("to the right of", "right of"),
    "above": ("above", "over"),
    "below": ("below", "under"),
    "on": ("on", "on top of"),
    "and": ("and", "and", "next to", "with"),
}
"""Where the first thing is, seen from the second. ``and`` leaves it open; it is painted in reading order, the first on the left."""

SKETCH = "pencil sketch"

STYLES: dict[str, tuple[str, ...]] = {
    "flat": ("flat design", "flat style", "flat illustration"),
    SKETCH: ("pencil sketch", "pencil drawing", "sketch"),
    "pixel art": ("pixel art",),
    "watercolour": ("watercolor", "watercolour", "watercolor painting"),
    "sticker": ("sticker",),
    "black and white": ("black and white",),
}

STYLE_LEADS: dict[str, tuple[str, ...]] = {
    "flat": ("a flat illustration of", "a flat design of"),
    SKETCH: ("a pencil sketch of", "a pencil drawing of", "a sketch of"),
    "pixel art": ("pixel art of", "a pixel art picture of"),
    "watercolour": ("a watercolor painting of", "a watercolor of", "a watercolour painting of"),
    "sticker": ("a sticker of",),
    "black and white": ("a black and white picture of", "a black and white photo of"),
}
"""The styles' words before what is shown."""

COARSE_STYLES = (SKETCH, "pixel art", "watercolour")
"""Styles that leave nothing of a small thing."""

COLOURLESS_STYLES: dict[str, tuple[str, ...]] = {
    SKETCH: ("white",),
    "black and white": ("white", "black"),
}
"""Styles in which no colour word can come true and no time of day is seen, and the plain backgrounds that they can show."""

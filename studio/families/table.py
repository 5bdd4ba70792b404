"""The table of families: one row each."""

from __future__ import annotations

import functools
from collections.abc import Callable

from studio.families import sd1, sd2, sdxl, sdxl_refiner
from studio.families.spec import FamilySpec
from studio.registry import Registry

FAMILIES: Registry[Callable[[], FamilySpec]] = Registry("model family")
FAMILIES.add("sd1", sd1.spec)
FAMILIES.add("sd2", sd2.spec)
FAMILIES.add("sdxl", sdxl.spec)
FAMILIES.add("sdxl_refiner", sdxl_refiner.spec)


@functools.cache
def family(name: str) -> FamilySpec:
    """The family called `name`. Raises `UnknownName`."""
    return FAMILIES.get(name)()

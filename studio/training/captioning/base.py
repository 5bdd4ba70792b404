"""The seam of captioners."""

from __future__ import annotations

from typing import Protocol

from PIL import Image


class Captioner(Protocol):
    """Says in words what a picture shows."""

    needs_names: bool
    """Whether it reads the name and not the picture."""

    def caption(self, picture: Image.Image, name: str) -> str:
        """One line about ``picture`` (RGB) that is called ``name``; "" when there is nothing to say."""
        ...

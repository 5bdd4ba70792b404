"""The words of a picture's file name as its caption: ``0012-red_fox.png`` is ``red fox``."""

from __future__ import annotations

from PIL import Image

from studio.training.data.captions import words_of


class FileNameCaptioner:
    """As ``Captioner``."""

    needs_names = True

    def caption(self, picture: Image.Image, name: str) -> str:
        """The words of ``name``."""
        return words_of(name)

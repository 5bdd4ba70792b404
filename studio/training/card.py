"""The part of a model card that is written by a program, so that no figure in it is typed by hand."""

from __future__ import annotations

from pathlib import Path

from studio.errors import TrainingError
from studio.paths import atomic_write

BEGIN, END = "<!-- figures: begin -->", "<!-- figures: end -->"


def fill_card(card: Path, block: str) -> None:
    """Put the Markdown ``block`` between the marks of ``card``, in place of what is there. Raises ``TrainingError`` when it has no marks."""
    try:
        text = card.read_text("utf-8")
    except OSError as error:
        raise TrainingError(f"The model card {card} cannot be read: {error}.") from error
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise TrainingError(f"{card} has no marks {BEGIN} and {END} to put figures between.")
    atomic_write(card, f"{before}{begin}\n{block}\n{end}{after}".encode())

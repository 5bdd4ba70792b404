"""Importing Gradio without what it does for editors.

While it is imported, Gradio parses the source of every component and writes a type stub beside it: 40 % of the time that
the import takes, at every start, and files in its own folder. It leaves that out for a component whose source is no
file, so no file of its components is found meanwhile.
"""

from __future__ import annotations

import importlib
import inspect
from typing import Any


def import_gradio() -> None:
    """Import `gradio` as fast as it goes. It may be imported already."""
    getfile = inspect.getfile

    def no_component(what: Any) -> str:
        if isinstance(what, type) and what.__module__.startswith("gradio."):
            raise OSError("stubs of Gradio's components are not needed")
        return getfile(what)

    inspect.getfile = no_component  # type: ignore[assignment]
    try:
        importlib.import_module("gradio")
    finally:
        inspect.getfile = getfile

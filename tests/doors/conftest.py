"""Gradio is imported here as the program imports it: the files beside this one would have it write its stubs, seconds of work."""

from __future__ import annotations

from studio.ui.stubs import import_gradio

import_gradio()

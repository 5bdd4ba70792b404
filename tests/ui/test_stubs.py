"""Gradio is imported without its stubs, and without a trace of how."""

from __future__ import annotations

import subprocess
import sys

CODE = """
import ast, inspect
parsed, parse, getfile = [], ast.parse, inspect.getfile
ast.parse = lambda source, *more, **named: (parsed.append(str(source)[:4000]), parse(source, *more, **named))[1]
from studio.ui.stubs import import_gradio
import_gradio()
import gradio
print(sum("gradio" in source for source in parsed), inspect.getfile is getfile, inspect.getfile(gradio.Textbox)[-10:])
"""


def test_no_component_is_parsed() -> None:
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["0", "True", "textbox.py"]

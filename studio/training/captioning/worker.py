"""The process that writes captions for a server: ``python -m studio.training.captioning.worker JSON``.

JSON is an object of ``path``, ``format``, ``captioner``, ``models`` (the folder of captioners' models), ``device`` and ``replace``. It prints one JSON object a
line: ``done`` and ``total`` after each picture, at last ``written``, ``kept`` and ``problems``, or ``error``. It ends when nobody reads that any more.
What libraries print goes to stderr, the server's log.
"""

from __future__ import annotations

import contextlib
import json
import sys
from pathlib import Path
from typing import Any, TextIO

from studio.errors import StudioError
from studio.schema.training_data import DatasetSettings
from studio.training.captioning import CAPTIONERS, caption_dataset


def main(arguments: list[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    (text,) = sys.argv[1:] if arguments is None else arguments
    order, answers = json.loads(text), sys.stdout
    with contextlib.redirect_stdout(sys.stderr):
        return _write(order, answers)


def _write(order: dict[str, Any], answers: TextIO) -> int:
    settings = DatasetSettings(path=order["path"], format=order["format"])
    try:
        made = CAPTIONERS.get(order["captioner"], field="captioner")(Path(order["models"]), order["device"])
        done = caption_dataset(
            settings,
            made,
            replace=order["replace"],
            progress=lambda count, total: _say(answers, done=count, total=total),
        )
    except StudioError as error:
        _say(answers, error=error.message)
        return 1
    _say(answers, written=done.written, kept=done.kept, problems=done.problems)
    return 0


def _say(answers: TextIO, **facts: Any) -> None:
    answers.write(json.dumps(facts) + "\n")
    answers.flush()


if __name__ == "__main__":
    sys.exit(main())

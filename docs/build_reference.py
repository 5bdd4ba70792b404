"""Writes the reference pages of the documentation from the program itself.

    python docs/build_reference.py

A test compares the pages with what this makes, so a setting, request field, sampler, schedule, command or route cannot
exist without being documented.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

DOCS = Path(__file__).resolve().parent
sys.path.insert(0, str(DOCS.parent))

NOTE = "<!-- Made by docs/build_reference.py from the program; change it there. -->\n"


def pages() -> dict[str, str]:
    """File name to content of every reference page."""
    return {
        "reference-settings.md": _settings(),
        "reference-request.md": _request(),
        "reference-samplers.md": _samplers(),
        "reference-file-names.md": _file_names(),
        "reference-command-line.md": _commands(),
        "reference-rest.md": _routes(),
    }


def _table(head: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    titles = list(head)
    lines = [titles, ["---"] * len(titles), *rows]
    return (
        "\n".join(
            "| " + " | ".join(str(cell).replace("|", "\\|").replace("\n", " ") for cell in line) + " |"
            for line in lines
        )
        + "\n"
    )


def _allowed(field: FieldInfo) -> str:
    low = next((m.ge for m in field.metadata if hasattr(m, "ge")), None)
    high = next((m.le for m in field.metadata if hasattr(m, "le")), None)
    if low is not None and high is not None:
        return f"{low} to {high}"
    annotation = field.annotation
    parts = getattr(annotation, "__args__", ())
    if type(None) in parts:  # what may be left empty is described by its other type
        (annotation,) = (part for part in parts if part is not type(None))
    choices = getattr(annotation, "__args__", ())
    if choices and all(isinstance(choice, str) for choice in choices):
        return ", ".join(choices)
    if get_origin(annotation) is tuple:
        most = next(m.max_length for m in field.metadata if hasattr(m, "max_length"))
        return f"up to {most} names"
    return {bool: "true, false", str: "text", int: "whole number", float: "number"}.get(annotation, "")  # type: ignore[call-overload, no-any-return]


def _fields(model: type[BaseModel], skip: tuple[str, ...] = ()) -> list[tuple[str, FieldInfo]]:
    return [(name, field) for name, field in model.model_fields.items() if name not in skip]


def _default(field: FieldInfo) -> str:
    value: Any = field.get_default(call_default_factory=True)
    if value is None or isinstance(value, BaseModel):
        return ""
    return "(empty)" if value in ("", ()) else f"`{value}`"


def _settings() -> str:
    from studio.settings import Settings

    text = f"{NOTE}# Settings\n\nCommand line beats environment beats `settings.json` beats default. "
    text += "Each setting is a key of `settings.json` in the data folder and the environment variable named here. "
    text += "`STUDIO_DATA_DIR` names the data folder itself.\n"
    groups: dict[str, list[tuple[str, FieldInfo]]] = {}
    for name, field in _fields(Settings):
        groups.setdefault(str(field.json_schema_extra["group"]), []).append((name, field))  # type: ignore[index, call-overload]
    for group, fields in groups.items():
        rows = (
            [
                f"`{n}`",
                f"`STUDIO_{n.upper()}`",
                f.description,
                _allowed(f),
                _default(f),
                "yes" if f.json_schema_extra["http"] else "no",
            ]
            for n, f in fields
        )  # type: ignore[index, call-overload]
        text += f"\n## {group}\n\n" + _table(
            ("key", "environment", "meaning", "allowed", "default", "on the Settings page"), rows
        )
    return text


def _request() -> str:
    from studio.schema.parts import BranchPoint, HiresPass, Refiner, SamplerOptions, SeedResize, Variation
    from studio.schema.plot import Plot
    from studio.schema.request import GenerationRequest, RunOptions
    from studio.schema.source import Mask, Source
    from studio.schema.upscale import SdUpscale

    text = f"{NOTE}# What a request can say\n\nThe same fields make the form, the native REST body and the flags of `generate`. "
    text += "Everything that changes pixels is here, and nothing else.\n"
    for title, model in (
        ("Request", GenerationRequest),
        ("Variation (`variation`)", Variation),
        ("Seed resize (`seed_resize`)", SeedResize),
        ("Refiner (`refiner`)", Refiner),
        ("Second pass (`hires`)", HiresPass),
        ("Picture to begin with (`source`)", Source),
        ("Mask (`mask`)", Mask),
        ("Painting in tiles (`sd_upscale`)", SdUpscale),
        ("Plot (`plot`)", Plot),
        ("Branch (`branch`)", BranchPoint),
        ("Sampler options (`sampler_options`)", SamplerOptions),
        ("Run options (never change pixels)", RunOptions),
    ):
        rows = ([f"`{n}`", f.description, _allowed(f), _default(f)] for n, f in _fields(model))
        text += f"\n## {title}\n\n" + _table(("field", "meaning", "allowed", "default"), rows)
    return text + _axes()


def _axes() -> str:
    from studio.plots.axes import FIELDS, WORDED

    kinds = {"decimals": "numbers", "integers": "whole numbers", "words": "names", "switches": "True, False"}
    worded = {
        "Prompt S/R": ("words", "both prompts: each word takes the place of the first one"),
        "Prompt order": ("words, 5 at most", "the prompt: the words in every order"),
        "Face restore": ("names, None, True, False", "`face_restoration`"),
        "Size": ("512x768", "`width`, `height`"),
        "Styles": ("names", "`styles`: that one alone"),
    }
    rows = [[kind, *worded[kind]] for kind in WORDED]
    for kind, (read, path) in FIELDS.items():
        rows.append([kind, kinds[read.__name__], ", or else ".join(f"`{place}`" for place in path.split("|"))])
    head = "\n## Axes of a plot\n\nValues have the bounds of the field that they go into.\n\n"
    return head + _table(("axis", "values", "changes"), sorted(rows))


def _samplers() -> str:
    from studio.samplers import SAMPLERS, SCHEDULES

    text = f"{NOTE}# Samplers and schedules\n\nNames are A1111's; aliases are accepted wherever a name is.\n\n## Samplers\n\n"
    text += _table(
        ("sampler", "aliases", "default schedule"),
        ([s.name, ", ".join(s.aliases), s.default_schedule or "Uniform"] for s in SAMPLERS),
    )
    text += "\n## Schedules\n\n"
    return text + _table(
        ("schedule", "REST name", "aliases"), ([s.label, f"`{s.name}`", ", ".join(s.aliases)] for s in SCHEDULES)
    )


def _file_names() -> str:
    from studio.naming import TAGS, ZIP_PATTERN

    text = f"{NOTE}# Patterns of file names\n\nFor the settings `samples_filename_pattern` and `directories_filename_pattern`; "
    text += (
        "tags and results are A1111's. Names of tags are read in any case; what is no tag stays as it is. A tag that "
    )
    text += "*vanishes* takes the text between it and the tag before along. Text of prompts is cut to 128 characters a tag.\n\n"
    text += _table(
        ("tag", "with arguments", "meaning"),
        ([f"`[{n}]`", t.usage and f"`{t.usage}`", t.meaning] for n, t in TAGS.items()),
    )
    return f"{text}\nArchives of several pictures are named `{ZIP_PATTERN}.zip`.\n"


def _commands() -> str:
    from studio.cli import build_parser

    parser = build_parser(lambda arguments: 0)
    text = f"{NOTE}# Command line\n\n`python launch.py [COMMAND] [options]`; without a command the studio is started.\n"
    action = next(a for a in parser._actions if isinstance(a, argparse._SubParsersAction))
    summaries = {choice.dest: choice.help for choice in action._choices_actions}
    for name, command in action.choices.items():
        rows = (
            [
                f"`{', '.join(a.option_strings) or a.metavar or a.dest}`",
                (a.help or "").replace("%%", "%").removesuffix(f": {', '.join(map(str, a.choices or ()))}"),
                ", ".join(map(str, a.choices or ())),
            ]
            for a in command._actions
            if not isinstance(a, argparse._HelpAction)
        )
        text += f"\n## {name}\n\n{summaries[name]}\n\n" + _table(("argument", "meaning", "choices"), rows)
    return text + "\n## test\n\n`python launch.py test [pytest arguments]` runs the checks and the test suite.\n"


def _routes() -> str:
    from studio.api.server import create_app
    from studio.building import build
    from studio.engine.fake import FakeEngine
    from studio.paths import Paths
    from studio.settings import Settings

    with tempfile.TemporaryDirectory() as folder:
        studio = build(Settings(), Paths(Path(folder)), engine=FakeEngine())
        schema = create_app(studio).openapi()
        studio.close()
    rows = []
    for path, methods in schema["paths"].items():
        rows += [
            [f"`{method.upper()} {path}`", (facts.get("description") or facts.get("summary", "")).split("\n\n")[0]]
            for method, facts in methods.items()
        ]
    text = f"{NOTE}# REST\n\nOpenAPI with try-out at `/docs`, the schema at `/openapi.json`. "
    return (
        text
        + "`/sdapi/v1` is A1111's API, `/studio/v1` the native one.\n\n"
        + _table(("route", "what it does"), sorted(rows))
    )


def main() -> None:
    """Write all pages."""
    for name, text in pages().items():
        (DOCS / name).write_text(text, "utf-8")


if __name__ == "__main__":
    main()

"""`models`: what the library holds, without loading anything."""

from __future__ import annotations

import argparse
import json

from studio.cli.options import add_common, open_settings
from studio.library import Library
from studio.schema.models import ModelInfo


def add(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> argparse.ArgumentParser:
    """The parser of `models`."""
    parser = subparsers.add_parser(
        "models", help="list checkpoints, VAEs, text encoders, LoRAs, embeddings, hypernetworks and upscalers"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    add_common(parser, ())
    parser.set_defaults(run=run)
    return parser


def run(arguments: argparse.Namespace) -> int:
    """Print the library. Files that cannot be used are listed with the reason."""
    _, paths, _ = open_settings(arguments)
    library = Library(paths)
    groups = {
        "checkpoints": library.checkpoints(),
        "vaes": library.vaes(),
        "text encoders": library.text_encoders(),
        "loras": library.loras(),
        "embeddings": library.embeddings(),
        "hypernetworks": library.hypernetworks(),
        "upscalers": library.upscalers(),
    }
    library.close()
    if arguments.json:
        print(
            json.dumps(
                {name: [m.model_dump(exclude={"metadata"}) for m in models] for name, models in groups.items()},
                indent=2,
            )
        )
        return 0
    for name, models in groups.items():
        print(f"{name} ({len(models)})")
        for model in models:
            print(f"  {_line(model)}")
    return 0


def _line(model: ModelInfo) -> str:
    size = f"{model.size / 1e9:.1f} GB" if model.size >= 1e9 else f"{model.size / 1e6:.0f} MB"
    vectors = [f"{model.vectors} vector{'' if model.vectors == 1 else 's'}"] if model.vectors else []
    kind = f"{model.enlarges}x" if model.kind == "upscaler" else model.family
    facts = [model.title, kind, size, *vectors] + ([f"unusable: {model.problem}"] if model.problem else [])
    return "  ".join(facts)

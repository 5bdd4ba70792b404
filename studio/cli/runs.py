"""`runs`: the training runs of the data folder, without starting anything."""

from __future__ import annotations

import argparse
import json

from studio.cli.options import add_common, open_settings
from studio.runs import RunManager
from studio.schema.runs import RunRecord


def add(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> argparse.ArgumentParser:
    """The parser of `runs`."""
    parser = subparsers.add_parser("runs", help="list training runs and how they do")
    parser.add_argument("--json", action="store_true", help="print one JSON array")
    add_common(parser, ())
    parser.set_defaults(run=run)
    return parser


def run(arguments: argparse.Namespace) -> int:
    """Print the runs, newest first; those of other processes are seen as well."""
    settings, paths, _ = open_settings(arguments)
    records = RunManager(paths, lambda: settings).runs()
    if arguments.json:
        print(json.dumps([record.model_dump(mode="json") for record in records], indent=2))
        return 0
    for record in records:
        print(_line(record))
    if not records:
        print(f"There is no training run in {paths.runs}.")
    return 0


def _line(record: RunRecord) -> str:
    summary = record.summary
    where = f"{summary.stage} {summary.step}/{summary.total}" if summary.total else ""
    loss = f"loss {summary.values['loss']:.4g}" if "loss" in summary.values else ""
    made = f"<lora:{record.lora}:1>" if record.lora else summary.model
    facts = [record.id, record.state, record.method, where, loss, record.problem or summary.message or made]
    return "  ".join(fact for fact in facts if fact)

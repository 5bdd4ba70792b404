"""`train CONFIG.toml`: run or resume a training recipe. Ctrl-C saves and stops; the same command goes on later."""

from __future__ import annotations

import argparse
from pathlib import Path

from studio.cli.interrupt import interruptible
from studio.cli.options import add_common, open_settings, say
from studio.errors import NotFound
from studio.runs import RunManager
from studio.trainer import TrainingSession


def add(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> argparse.ArgumentParser:
    """The parser of `train`."""
    parser = subparsers.add_parser("train", help="run or resume a training recipe")
    parser.add_argument("config", metavar="CONFIG.toml", help="a recipe, for example recipes/sprout.toml")
    add_common(parser, ["device"])
    parser.set_defaults(run=run)
    return parser


def run(arguments: argparse.Namespace) -> int:
    """Train until the end, a failure or Ctrl-C; 0 when finished or stopped."""
    recipe = Path(arguments.config).expanduser().resolve()
    if not recipe.is_file():
        raise NotFound(f"There is no recipe {str(recipe)!r}.", field="config")
    settings, paths, _ = open_settings(arguments)
    RunManager(paths, lambda: settings).tidy()
    session = TrainingSession(recipe, paths.runs, settings.device)
    say(f"run folder: {session.run.path}")
    with interruptible(session.stop, "saving; Ctrl-C again leaves without waiting"):
        return _follow(session)


def _follow(session: TrainingSession) -> int:
    """Show the events of a sitting as progress bars, one a stage."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    code = 1
    columns = (
        TextColumn("{task.description:12}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=Console(stderr=True)) as bars:
        task = None
        for event in session.events():
            if event.kind == "stage":
                task = bars.add_task(event.stage, total=event.total, completed=event.step, note="")
            elif event.kind == "progress" and task is not None:
                values = " ".join(f"{name} {value:.4g}" for name, value in event.values.items())
                note = f"{event.per_second:.1f}/s  {_clock(event.eta_s)} left  {values}"
                bars.update(task, completed=event.step, total=event.total, note=note)
            elif event.kind == "measured":
                bars.print(
                    f"{event.stage}: " + ", ".join(f"{name} {value:.4g}" for name, value in event.values.items())
                )
            elif event.kind == "validated":
                bars.print(f"step {event.step}: validation loss {event.loss:.5g}{' (best)' if event.best else ''}")
            elif event.kind == "skipped":
                bars.print(f"step {event.step} skipped: {event.reason}")
            elif event.kind == "note":
                bars.print(event.message)
            elif event.kind == "finished":
                bars.print(f"finished: {event.model}")
                code = 0
            elif event.kind == "stopped":
                bars.print("stopped and saved; the same command goes on from here")
                code = 0
            elif event.kind == "failed":
                bars.print(f"failed: {event.message}")
    return code


def _clock(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}"

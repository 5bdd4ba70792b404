"""Export what a run has learned so far, without ending it.

    python -m studio.training.methods.scratch.snapshot RUN_DIR

Takes the averaged weights of the newest checkpoint; safe beside a running worker.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from diffusers import AutoencoderKL

from studio.training.context import TrainingContext
from studio.training.methods.scratch.diffusion import averaged_networks
from studio.training.methods.scratch.export import export_model
from studio.training.methods.scratch.lessons import open_lessons
from studio.training.methods.scratch.pool import open_pool
from studio.training.runs import RunFolder


def main(arguments: list[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m studio.training.methods.scratch.snapshot", description="Export a run's newest checkpoint."
    )
    parser.add_argument("run_dir", type=Path)
    run = RunFolder(parser.parse_args(arguments).run_dir)
    context = TrainingContext(run.config(), run)
    pool = open_pool(run.path / "pool")
    networks, step = averaged_networks(context, pool)
    vae = AutoencoderKL.from_pretrained(run.path / "autoencoder").eval()
    folder = export_model(context, open_lessons(context), vae, networks, pool)
    sys.stdout.write(f"Step {step} exported to {folder}\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

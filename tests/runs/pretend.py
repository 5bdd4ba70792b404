"""A trainer without a model: it sits down at a run, obeys its wishes and writes its events, with a process of its own.

`python -m tests.runs.pretend RUN_DIR [--seconds S] [--how HOW]`; HOW is "deaf" (never stops when asked), "early" (ends before it sits
down), "fail" (fails at step 3) or nothing.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from PIL import Image

from studio.paths import atomic_write
from studio.schema.training import TrainingConfig
from studio.schema.training_tuning import LoraMethod
from studio.training.runs import (
    CommandDone,
    RunFailed,
    RunFinished,
    RunFolder,
    RunStopped,
    SamplePainted,
    StageStarted,
    StepDone,
    Validated,
)
from studio.training.sitting import claim


def trainer(seconds: float = 0.02, how: str = "") -> Callable[[RunFolder, str], list[str]]:
    """What a `RunManager` takes as its command."""

    def command(run: RunFolder, device: str) -> list[str]:
        return [sys.executable, "-m", "tests.runs.pretend", str(run.path), "--seconds", str(seconds), "--how", how]

    return command


def configuration(
    pictures: Path, name: str = "duotone", steps: int = 40, trigger: str = "", **method: Any
) -> TrainingConfig:
    """A LoRA run over the folder `pictures`."""
    data = {"path": str(pictures), "trigger": trigger}
    facts = {"kind": "lora", "model": "sprout-v1", "data": data, "steps": steps, **method}
    return TrainingConfig.model_validate({"name": name, "method": facts})


def step_done(step: int, seconds: float = 0.1) -> StepDone:
    """A step whose loss falls with its number."""
    loss = 0.2 / (1 + step / 20) + 0.03 * abs(math.sin(step * 12.9898))
    return StepDone(time=time.time(), step=step, loss=loss, rate=1e-3 * (1 - step / 1000), norm=0.5 + 0.1 * math.sin(step), seconds=seconds, memory=1 << 30)  # fmt: skip


def paint(run: RunFolder, step: int, prompts: int) -> None:
    """A flat picture for each prompt, redder with each step."""
    for index in range(prompts):
        name = f"step-{step:08d}-{index:02d}.png"
        run.samples.mkdir(exist_ok=True)
        Image.new("RGB", (32, 32), (min(255, 40 + step), 60 + 50 * index, 120)).save(run.samples / name)
        run.append(SamplePainted(time=time.time(), step=step, index=index, file=f"samples/{name}"))


@contextmanager
def seated(run: RunFolder) -> Iterator[None]:
    """This very process sits at the run for the block; afterwards it looks as if it had died."""
    try:
        with claim(run):
            yield
    finally:
        file = run.path / "process.json"
        file.write_text(json.dumps({**json.loads(file.read_text()), "started": 1.0, "birth": ""}))


class Trainer:
    """One sitting."""

    def __init__(self, run: RunFolder, seconds: float, how: str) -> None:
        self.run, self.seconds, self.how = run, seconds, how
        method = run.config().method
        assert isinstance(method, LoraMethod)
        self.method = method
        self.state = run.path / "step.txt"
        self.step = int(self.state.read_text()) if self.state.exists() else 0

    def train(self) -> None:
        self.run.append(StageStarted(time=time.time(), stage="train", step=self.step, total=self.method.steps))
        if self.step == 0:
            paint(self.run, 0, len(self.method.samples.prompts))
        while self.step < self.method.steps:
            time.sleep(self.seconds)
            self.step += 1
            print(f"step {self.step}", flush=True)
            self.run.append(step_done(self.step, self.seconds))
            if self.step % 10 == 0:
                self.run.append(Validated(time=time.time(), step=self.step, loss=0.2 / (1 + self.step / 20), best=True))
            if self.how == "fail" and self.step == 3:
                self.run.append(RunFailed(time=time.time(), message="The disk is full."))
                sys.exit(1)
            if self.obey():
                atomic_write(self.state, str(self.step).encode())
                self.run.append(RunStopped(time=time.time()))
                return
        file = self.run.root / "loras" / f"{self.method.output.name or self.run.config().name}.safetensors"
        atomic_write(file, b"\2\0\0\0\0\0\0\0{}")
        self.run.append(RunFinished(time=time.time(), model=str(file)))

    def obey(self) -> bool:
        """Meet the wishes; whether to stop."""
        if self.run.asked("save"):
            atomic_write(self.state, str(self.step).encode())
            self.run.withdraw("save")
            self.run.append(CommandDone(time=time.time(), name="saved", step=self.step))
        if self.run.asked("sample"):
            paint(self.run, self.step, len(self.method.samples.prompts))
            self.run.withdraw("sample")
            self.run.append(CommandDone(time=time.time(), name="sampled", step=self.step))
        if self.run.asked("pause"):
            self.run.append(CommandDone(time=time.time(), name="paused", step=self.step))
            while self.run.asked("pause") and not self.run.asked("stop"):
                time.sleep(0.02)
            self.run.append(CommandDone(time=time.time(), name="resumed", step=self.step))
        return self.how != "deaf" and self.run.asked("stop")


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser()
    parser.add_argument("run", type=Path)
    parser.add_argument("--seconds", type=float, default=0.02)
    parser.add_argument("--how", default="")
    options = parser.parse_args()
    if options.how == "early":
        sys.exit("there is no torch")
    run = RunFolder(options.run)
    with claim(run):
        Trainer(run, options.seconds, options.how).train()


if __name__ == "__main__":
    main()

"""Pictures that a run paints while it trains: `samples/step-00000100-00.png` is that of the first prompt after 100 steps."""

from __future__ import annotations

import re

from studio.errors import NotFound
from studio.runs.folder import RunView
from studio.schema.runs import RunSample
from studio.schema.training_tuning import TuningMethod

_NAME = re.compile(r"step-(\d{1,10})-(\d{1,4})\.png")


def samples_of(view: RunView) -> list[RunSample]:
    """All of them, by step and prompt."""
    method = view.config.method if view.config else None
    prompts = method.samples.prompts if isinstance(method, TuningMethod) else ()
    found = []
    for file in view.folder.samples.glob("step-*.png"):
        match = _NAME.fullmatch(file.name)
        if match is None:
            continue
        step, index = int(match[1]), int(match[2])
        url = f"/studio/v1/training/runs/{view.folder.id}/samples/{file.name}"
        prompt = prompts[index] if index < len(prompts) else ""
        found.append(RunSample(step=step, index=index, prompt=prompt, url=url, time=file.stat().st_mtime))
    return sorted(found, key=lambda sample: (sample.step, sample.index))


def sample_bytes(view: RunView, name: str) -> bytes:
    """The PNG file called `name`. Raises `NotFound`."""
    try:
        if _NAME.fullmatch(name) is None:
            raise OSError
        return (view.folder.samples / name).read_bytes()
    except OSError:
        raise NotFound(f"Run {view.folder.id} has no sample {name[:80]!r}.") from None

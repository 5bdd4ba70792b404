"""What every contender is asked to paint. Standard library only: a contender's process may lack everything else."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

GUIDANCE = 7.0
"""CFG scale. Sampler and schedule are Euler on Uniform everywhere: no noise is drawn after the start, so pictures can be compared."""
FIRST_SEED = 1000
SD15 = ("sd15-a", "sd15-b")
LORAS = ("lora-a", "lora-b")
SPROUT = "sprout-v1"
CARD_SD15, CARD_SDXL = "card-sd15", "card-sdxl"
CHECKPOINTS, SINGLE_FILES, LORA_FILES = "checkpoints", "single", "loras"
"""Folders of the model files."""
SINGLE = "single"
"""Asks for checkpoints as single files too."""


@dataclass(frozen=True)
class Job:
    """`batch_count` batches of `batch_size` square pictures of `side` pixels. Picture i has the seed `seed` + i; `lora` "" is none."""

    model: str
    prompt: str
    negative: str
    seed: int
    side: int
    steps: int
    batch_size: int = 1
    batch_count: int = 1
    lora: str = ""

    @classmethod
    def parse(cls, values: Mapping[str, Any]) -> Job:
        """From what `asdict` made, through JSON."""
        return cls(**values)

    @property
    def batches(self) -> list[list[int]]:
        """The seeds of every batch."""
        size = self.batch_size
        return [[self.seed + batch * size + i for i in range(size)] for batch in range(self.batch_count)]


@dataclass(frozen=True)
class Workload:
    """A row of the table: one job, or one for each of its models or LoRAs in turn, `turns` times."""

    name: str
    title: str
    side: int
    steps: int
    batch_size: int = 1
    batch_count: int = 1
    models: tuple[str, ...] = SD15[:1]
    loras: tuple[str, ...] = ("",)
    turns: int = 1

    @property
    def pictures(self) -> int:
        """How many pictures one run makes."""
        return self.turns * len(self.models) * len(self.loras) * self.batch_size * self.batch_count

    @property
    def long(self) -> bool:
        """Whether it paints more than the first workload, counted in steps times pixels: float32 takes hours for it."""
        return self.pictures * self.steps * self.side**2 > 8 * 256**2

    def jobs(self, number: int) -> list[Job]:
        """Run `number`: its prompts are its own, so that no run finds those of another encoded. Within a run they are equal."""
        job = Job(
            model="", prompt=f"a red fox on a beach, number {number}", negative=f"blurry, number {number}", seed=FIRST_SEED,
            side=self.side, steps=self.steps, batch_size=self.batch_size, batch_count=self.batch_count,
        )  # fmt: skip
        parts = [(model, lora) for model in self.models for lora in self.loras] * self.turns
        return [replace(job, model=model, lora=lora, seed=job.seed + 100 * i) for i, (model, lora) in enumerate(parts)]

    def proof(self) -> Job:
        """The job whose pictures are compared: the first batch of run 0."""
        return replace(self.jobs(0)[0], batch_count=1)

    def tiny(self) -> Workload:
        """The same in a size that takes seconds, for a check that all of it runs.

        No smaller: at 64 pixels the middle of the thin U-Net is one pixel, a group of its norms has two numbers, and rounding decides.
        """
        return replace(self, title=f"{self.title} (tiny)", side=128, steps=2, batch_count=min(self.batch_count, 2))

    def facts(self) -> dict[str, Any]:
        """For the result."""
        return {**asdict(self), "pictures": self.pictures}


WORKLOADS = {
    each.name: each
    for each in (
        Workload("W1", "256 px, 8 steps", 256, 8),
        Workload("W2", "256 px, 8 steps, batch of 4", 256, 8, batch_size=4),
        Workload("W3", "512 px, 4 steps", 512, 4),
        Workload("W4", "8 pictures of one prompt, 256 px, 8 steps", 256, 8, batch_count=8),
        Workload("W5", "two checkpoints in turn, 4 pictures, 256 px, 4 steps", 256, 4, models=SD15, turns=2),
        Workload("W6", "two LoRAs in turn, 4 pictures, 256 px, 4 steps", 256, 4, loras=LORAS, turns=2),
        Workload("W7", "sprout-v1, 128 px, 20 steps", 128, 20, models=(SPROUT,)),
    )
}

CARD_WORKLOADS = {
    each.name: each
    for each in (
        Workload("G1", "Stable Diffusion 1.5, 512 px, 20 steps", 512, 20, models=(CARD_SD15,)),
        Workload(
            "G2", "Stable Diffusion 1.5, 512 px, 20 steps, batch of 4", 512, 20, batch_size=4, models=(CARD_SD15,)
        ),
        Workload("G3", "SDXL, 1024 px, 20 steps", 1024, 20, models=(CARD_SDXL,)),
        Workload("G4", "SDXL, 1024 px, 20 steps, batch of 4", 1024, 20, batch_size=4, models=(CARD_SDXL,)),
    )
}
"""What is painted on a graphics card. Each has one model, which its contenders hold all at once."""

"""Writes docs/accuracy.md: how near every sampler and schedule comes to the program it is compared with.

    python docs/build_accuracy.py

The cases are those of tests/vectors. A test measures again and compares: with another processor the last digit may move.
"""

from __future__ import annotations

import sys
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

DOCS = Path(__file__).resolve().parent
sys.path.insert(0, str(DOCS.parent))

PAGE = DOCS / "accuracy.md"
REFERENCES = {True: "A1111 1.8.0", False: "Forge 2.0.1"}
HEAD = """<!-- Made by docs/build_accuracy.py from tests/vectors; change it there. -->
# Accuracy

What is compared, and how near it comes. Everything here is measured by the test suite at every run.

## Samplers

Final latents of a denoiser that is known in closed form (a mixture of Gaussians), 3 pictures at once, float32 on a CPU, beside those of
the reference: Forge's samplers are A1111 1.10's; where Forge differs from A1111 (UniPC, LCM), A1111's own are taken. The latents reach
about {scale:.0f}. The first difference is with the reference's noise, the second with noise drawn here. The SDE samplers follow a
Brownian path, which is rough: a sigma that differs in its seventh digit moves the noise by about 0.01.

"""
SCHEDULES = """
## Schedules

Every noise level, beside those of A1111 (Forge's copy of them): the largest relative difference of the levels above 0.

"""
TAIL = """
## Pictures

| what | beside | difference allowed |
| --- | --- | --- |
| Euler on Uniform, DPM++ 2M on Karras, DDIM: noise prediction | diffusers' own pipeline on the same weights and noise, SD 1.5 design | 2 of 255 |
| Euler: v-prediction, zero terminal SNR | the same | 2 of 255 |
| Euler, SDXL with size and crop ids | diffusers' SDXL pipeline | 2 of 255 |
| SDXL handing over to its refiner | the two U-Nets run by hand | 6e-05 in the latents |
| hires. fix on SDXL: both passes, fresh noise, size ids, a prompt that changes in the second | the same by hand, on the U-Net itself | 2e-04 in the latents |
| upscalers on latents | the kernels as matrices | 1e-05 in the latents |
| a request painted again on the same machine | itself | none: the same bytes |
| a batch of pictures, every sampler but DPM adaptive: the sampler's own arithmetic and noise | each picture alone | none: bit for bit |
| the same through a U-Net on a CPU, whose kernels add in another order for another batch size | each picture alone | 2 of 255 |

DPM adaptive chooses its steps by the error of the whole batch, as in A1111: its pictures depend on their neighbours.

All of this is float32 (`--precision fp32`). Where a processor or card computes in bfloat16, pictures are painted in it unless told otherwise, and
differ by rounding; [Speed](speed.md) has by how much. The infotext's `Backend` says which it was.
"""


@dataclass
class Row:
    """What was measured of one sampler. Differences are the largest of any value of any picture of any case."""

    references: Counter[str] = field(default_factory=Counter)
    recorded: float = 0.0
    own: float = 0.0
    scale: float = 0.0


def samplers() -> dict[str, Row]:
    """Every sampler of the vectors, measured."""
    from studio.samplers import SAMPLERS
    from tests.samplers.vector_runs import VECTORS, Run

    rows = {spec.name: Row() for spec in SAMPLERS}
    for case in VECTORS["cases"]:
        run = Run(case)
        recorded, _ = run.recorded()
        if run.undecided():
            continue
        row = rows[case["sampler"]]
        row.references[REFERENCES[run.from_a1111]] += 1
        row.recorded = max(row.recorded, float((recorded - run.expected).abs().max()))
        row.own = max(row.own, float((Run(case).own() - run.expected).abs().max()))
        row.scale = max(row.scale, float(run.expected.abs().max()))
    return rows


def schedules() -> dict[str, tuple[int, float]]:
    """Every schedule of the vectors: how many cases, and the largest relative difference."""
    from studio.samplers import NoiseTable, find_schedule
    from studio.samplers.schedules import sigma_schedule
    from studio.schema.parts import SamplerOptions
    from tests.vector_files import load_json

    vectors = load_json("sigmas.json")
    found: dict[str, tuple[int, float]] = {}
    for case in vectors["cases"] + vectors["parameter_cases"]:
        table = NoiseTable.scaled_linear(sdxl=case["model"] == "sdxl")
        options = SamplerOptions(**case.get("params", {}))
        sigmas = sigma_schedule(find_schedule(case["schedule"]), case["steps"], table, options)
        apart = max(abs(a - b) / b for a, b in zip(sigmas, case["sigmas"], strict=True) if b > 0)
        count, worst = found.get(case["schedule"], (0, 0.0))
        found[case["schedule"]] = count + 1, max(worst, apart)
    return found


def shown(number: float) -> str:
    """One digit, rounded; 0 as what it is."""
    return "0" if number == 0 else f"{number:.0e}"


def page(rows: dict[str, Row], levels: dict[str, tuple[int, float]]) -> str:
    """The whole page."""
    lines = [
        "| sampler | reference (cases) | max difference, its noise | max difference, own noise |",
        "| --- | --- | --- | --- |",
    ]
    for name, row in rows.items():
        references = ", ".join(f"{reference} ({count})" for reference, count in row.references.items())
        lines.append(f"| {name} | {references} | {shown(row.recorded)} | {shown(row.own)} |")
    text = HEAD.format(scale=max(row.scale for row in rows.values())) + "\n".join(lines) + "\n" + SCHEDULES
    lines = ["| schedule | cases | max relative difference |", "| --- | --- | --- |"]
    lines += [f"| {name} | {count} | {shown(worst)} |" for name, (count, worst) in levels.items()]
    return text + "\n".join(lines) + "\n" + TAIL


def main() -> None:
    """Measure and write."""
    PAGE.write_text(page(samplers(), schedules()), "utf-8")


if __name__ == "__main__":
    main()

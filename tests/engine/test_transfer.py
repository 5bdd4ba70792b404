"""Steps on their way to the processor."""

from __future__ import annotations

import torch

from studio.engine.transfer import bring, lag, soon
from studio.samplers.types import Step


def test_on_the_cpu_a_step_is_there_at_once() -> None:
    step = Step(3, 2.0, 1.0, torch.ones(1, 4, 2, 2), torch.zeros(1, 4, 2, 2))
    assert lag(torch.device("cpu")) == 0
    assert lag(torch.device("cuda")) == 1
    assert soon(step.x)()[0] is step.x
    found = bring(step)()
    assert (found.index, found.sigma, found.sigma_next) == (3, 2.0, 1.0)
    assert torch.equal(found.x, step.x)
    assert torch.equal(found.denoised, step.denoised)

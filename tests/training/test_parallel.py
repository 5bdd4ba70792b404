"""A team of two processes: parts of a batch, mean gradients, and one's wish to stop heard by both."""

from __future__ import annotations

import json

import pytest
import torch

from studio.training.parallel import Team
from tests.training.processes import pair

MEMBER = """
import json, sys, torch
from studio.training.parallel import Team
torch.set_num_threads(1)
team = Team.from_environment()
weights = [torch.nn.Parameter(torch.zeros(3)), torch.nn.Parameter(torch.zeros(2, 2)), torch.nn.Parameter(torch.zeros(1))]
weights[0].grad = torch.full((3,), float(team.rank))
weights[1].grad = torch.arange(4.0).view(2, 2) * (team.rank + 1)
team.average_gradients(weights)
team.wait()
heard = [team.any(team.rank == 1), team.any(False)]
print(json.dumps([weights[0].grad.tolist(), weights[1].grad.tolist(), weights[2].grad is None, heard, team.leads]))
"""


def test_alone_everything_is_the_identity(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    team = Team.from_environment()
    weight = torch.nn.Parameter(torch.zeros(2))
    weight.grad = torch.ones(2)
    team.average_gradients([weight])
    team.wait()
    assert team == Team(0, 1) and team.leads
    assert torch.equal(weight.grad, torch.ones(2))
    assert team.any(True) and not team.any(False)


@pytest.mark.parametrize("size", [1, 2, 3])
def test_the_parts_of_a_batch_cover_it_once(size: int) -> None:
    items = list(range(10))
    assert [item for rank in range(size) for item in items[Team(rank, size).part(10)]] == items


def test_two_processes_average_their_gradients_and_hear_each_other() -> None:
    members = pair(MEMBER)
    answers = [json.loads(member.communicate(timeout=100)[0].splitlines()[-1]) for member in members]
    for rank, (first, second, missing, heard, leads) in enumerate(answers):
        assert first == [0.5, 0.5, 0.5]
        assert second == [[0.0, 1.5], [3.0, 4.5]]
        assert missing and heard == [True, False] and leads == (rank == 0)

"""The judge at work: what it sees in pictures, and its folder of weights and configuration."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import load_file, save

from studio.errors import TrainingError
from studio.paths import atomic_write
from studio.training.methods.judge.network import JudgeNetwork, kind_centres, kind_scores
from studio.training.methods.judge.questions import KINDS, QUESTIONS

Picture = npt.NDArray[np.uint8]
_WEIGHTS, _CONFIG = "model.safetensors", "config.json"
_BATCH = 64


@dataclass(frozen=True)
class Seen:
    """What the judge sees in one picture.

    ``shares`` (kinds,) sum to 1: how much speaks for each kind of object; ``centres`` (kinds, 2) say where, x and y from 0 to 1, y down;
    ``answers`` has one for each question of ``QUESTIONS``.
    """

    shares: npt.NDArray[np.float32]
    centres: npt.NDArray[np.float32]
    answers: dict[str, str]

    def likeliest(self, count: int) -> tuple[str, ...]:
        """The ``count`` likeliest kinds of object, the likeliest first."""
        return tuple(KINDS[i] for i in np.argsort(-self.shares, kind="stable")[:count])

    def centre(self, kind: str) -> tuple[float, float]:
        """Where ``kind`` is if it is anywhere."""
        x, y = self.centres[KINDS.index(kind)]
        return float(x), float(y)


class Judge:
    """A trained network and the side of the pictures it looks at."""

    def __init__(self, network: JudgeNetwork, channels: Sequence[int], side: int) -> None:
        self.network = network.eval()
        self._channels = tuple(channels)
        self._side = side

    @classmethod
    def load(cls, folder: Path) -> Judge:
        """The judge saved in ``folder``. Raises ``TrainingError`` when there is none, or when it was trained on other words."""
        try:
            config: dict[str, Any] = json.loads((folder / _CONFIG).read_text("utf-8"))
            weights = load_file(folder / _WEIGHTS)
        except (OSError, ValueError, SafetensorError) as error:
            raise TrainingError(f"There is no judge in {folder}: {error}. recipes/judge.toml makes one.") from error
        if config.get("kinds") != list(KINDS) or config.get("questions") != _listed(QUESTIONS):
            raise TrainingError(
                f"The judge in {folder} was trained on other objects or words than scenes are drawn with now. Train it again: recipes/judge.toml."
            )
        network = build_network(config["channels"])
        network.load_state_dict({name: value.float() for name, value in weights.items()})
        return cls(network, config["channels"], config["side"])

    def save(self, folder: Path, facts: Mapping[str, Any]) -> None:
        """Write weights in 16 bits and the configuration with ``facts`` added, e.g. how often the judge is right."""
        weights = {name: value.detach().half().contiguous().cpu() for name, value in self.network.state_dict().items()}
        config = {"channels": list(self._channels), "side": self._side, **facts}
        config |= {"kinds": list(KINDS), "questions": _listed(QUESTIONS)}
        folder.mkdir(parents=True, exist_ok=True)
        atomic_write(folder / _WEIGHTS, save(weights))
        atomic_write(folder / _CONFIG, json.dumps(config, indent=2).encode() + b"\n")

    def look(self, pictures: Sequence[Picture]) -> list[Seen]:
        """What it sees in each RGB picture (h, w, 3); pictures of another size are resized."""
        device = next(self.network.parameters()).device
        found: list[Seen] = []
        with torch.inference_mode():
            for start in range(0, len(pictures), _BATCH):
                batch = np.stack([self._fitting(picture) for picture in pictures[start : start + _BATCH]])
                found.extend(_read(*self.network(to_tensor(batch).to(device))))
        return found

    def _fitting(self, picture: Picture) -> Picture:
        if picture.shape[:2] == (self._side, self._side):
            return picture
        return np.asarray(Image.fromarray(picture).resize((self._side, self._side), Image.Resampling.BOX))


def build_network(channels: Sequence[int]) -> JudgeNetwork:
    """A fresh network for today's tables."""
    return JudgeNetwork(channels, len(KINDS), sum(map(len, QUESTIONS.values())))


def split_answers(scores: torch.Tensor) -> dict[str, torch.Tensor]:
    """Scores (n, answers) of all questions together -> (n, choices) by question."""
    return dict(
        zip(QUESTIONS, torch.split(scores, [len(choices) for choices in QUESTIONS.values()], dim=1), strict=True)
    )


def to_tensor(pictures: npt.NDArray[np.uint8]) -> torch.Tensor:
    """uint8 (n, h, w, 3) -> float (n, 3, h, w) in [-1, 1], in the memory order in which convolutions are fastest on a CPU."""
    return torch.from_numpy(pictures).permute(0, 3, 1, 2).float().div_(127.5).sub_(1)


def _read(maps: torch.Tensor, scores: torch.Tensor) -> Iterator[Seen]:
    shares, centres = kind_scores(maps).exp().cpu().numpy(), kind_centres(maps).cpu().numpy()
    chosen = {question: part.argmax(dim=1).tolist() for question, part in split_answers(scores).items()}
    for row in range(len(shares)):
        yield Seen(
            shares[row], centres[row], {question: QUESTIONS[question][chosen[question][row]] for question in QUESTIONS}
        )


def _listed(questions: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    return {question: list(choices) for question, choices in questions.items()}

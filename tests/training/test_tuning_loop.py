"""What a run does between its steps: commands, bad losses, validation, early stop; and that it learns."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from studio.errors import DatasetError, TrainingError
from studio.runs.curves import CurveReader
from studio.training.context import StopTraining, TrainingContext
from studio.training.runs import RunFolder
from studio.training.tuning import loop
from studio.training.tuning.validation import Validator
from tests.tiny_models import read_header, tiny_components
from tests.training.miniature import eager_polling
from tests.training.tuning import events, run_in, settings, studio, train


def new(root: Path, **method: Any) -> RunFolder:
    return run_in(studio(root), settings(**{"validation": {"share": 0}, **method}))


class Losses:
    """Stands in for the loss: `at` maps the number of a call to what it is multiplied with."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, at: dict[int, float]) -> None:
        self.calls = 0
        real = loop.picture_losses

        def changed(*arguments: Any) -> torch.Tensor:
            self.calls += 1
            return real(*arguments) * at.get(self.calls, 1.0)

        monkeypatch.setattr(loop, "picture_losses", changed)


def test_a_step_without_numbers_changes_nothing_and_the_run_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Losses(monkeypatch, {2: float("nan"), 3: float("inf"), 5: float("nan")})
    run = new(tmp_path / "s")
    train(run)
    assert [event.step for event in events(run, "skipped")] == [2, 3, 5]
    assert [event.step for event in events(run, "step")] == [1, 4, 6]


def test_three_such_steps_in_a_row_end_the_run_and_keep_what_was_saved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Losses(monkeypatch, {3: float("nan"), 4: float("nan"), 5: float("nan")})
    run = run_in(studio(tmp_path / "s"), settings(validation={"share": 0}) | {"save_minutes": 1e-9})
    with pytest.raises(
        TrainingError, match=r"3 steps in a row, up to step 5, gave no numbers .* checkpoint of step 4 is kept"
    ):
        train(run)
    saved = TrainingContext(run.config(), run).store("train").latest()
    assert saved is not None and all(bool(value.isfinite().all()) for value in saved.tensors.values())
    assert saved.facts["bad"] == 2
    assert not (run.root / "loras").exists()


def test_a_huge_loss_is_clipped_in_the_loop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Losses(monkeypatch, dict.fromkeys(range(1, 10), 1e6))
    norms: list[float] = []
    real = torch.optim.AdamW.step

    def watched(self: torch.optim.AdamW, *rest: Any) -> Any:
        gradients = [each.grad for group in self.param_groups for each in group["params"] if each.grad is not None]
        norms.append(float(torch.stack([gradient.square().sum() for gradient in gradients]).sum().sqrt()))
        return real(self, *rest)

    monkeypatch.setattr(torch.optim.AdamW, "step", watched)
    run = new(tmp_path / "s", steps=2)
    train(run)
    assert min(event.norm for event in events(run, "step")) > 1000
    assert norms and max(norms) <= 1.0 + 1e-4


def test_save_sample_and_pause_are_obeyed_between_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = new(tmp_path / "s", samples={"prompts": ["a fox"], "steps": 1, "every": 100})
    for command in ("save", "sample", "pause"):
        run.ask(command)

    def release() -> None:
        _wait(run, "paused")
        time.sleep(0.3)
        run.withdraw("pause")

    freed = threading.Thread(target=release)
    freed.start()
    train(run)
    freed.join()
    told = events(run, "command")
    assert [(event.name, event.step) for event in told] == [("saved", 1), ("sampled", 1), ("paused", 1), ("resumed", 1)]
    assert told[3].time - told[2].time >= 0.3
    assert [event.step for event in events(run, "sample")] == [0, 1, 6]
    assert not run.asked("save") and not run.asked("sample")
    now, final = run.root / "loras" / "tiny-step000001.safetensors", run.root / "loras" / "tiny.safetensors"
    assert read_header(now)["__metadata__"]["ss_steps"] == "1" and read_header(final)["__metadata__"]["ss_steps"] == "6"


def test_a_pause_whose_asker_was_killed_ends(tmp_path: Path) -> None:
    run = new(tmp_path / "s")
    asker = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    run.ask("pause", "painting", until_gone=asker.pid)
    assert run.why_asked("pause") == "painting" and not run.abandoned("pause")

    def kill() -> None:
        _wait(run, "paused")
        asker.kill()
        asker.communicate()

    killer = threading.Thread(target=kill)
    killer.start()
    with eager_polling():
        train(run)
    killer.join()
    assert [event.name for event in events(run, "command")] == ["paused", "resumed"]
    assert not run.asked("pause")


def test_a_paused_run_can_be_stopped(tmp_path: Path) -> None:
    run = new(tmp_path / "s")
    run.ask("pause")
    watcher = threading.Thread(target=lambda: (_wait(run, "paused"), run.ask("stop")))
    watcher.start()
    with eager_polling(), pytest.raises(StopTraining):
        train(run)
    watcher.join()
    assert [event.name for event in events(run, "command")] == ["paused", "resumed"]


def _wait(run: RunFolder, name: str) -> None:
    while not any(event.name == name for event in events(run, "command")):
        time.sleep(0.02)


def test_early_stop_takes_the_best_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scripted = iter([5.0, 3.0, 4.0, 4.5, 1.0])
    monkeypatch.setattr(Validator, "loss", lambda self, latents, texts: next(scripted))
    kept: list[torch.Tensor] = []
    real = loop.Loop._look

    def watched(self: loop.Loop, step: int) -> None:
        real(self, step)
        kept.append(next(iter(self._learner.copies().values())))

    monkeypatch.setattr(loop.Loop, "_look", watched)
    run = new(tmp_path / "s", steps=50, validation={"every": 1, "patience": 2})
    path = train(run)
    assert [(event.step, event.best) for event in events(run, "validated")] == [
        (0, True),
        (1, True),
        (2, False),
        (3, False),
    ]
    from safetensors.torch import load_file

    saved = load_file(path)
    assert any(torch.equal(value, kept[1]) for value in saved.values())  # of step 1
    assert not any(torch.equal(value, kept[3]) for value in saved.values())


def test_the_validation_loss_falls_by_forty_percent_and_the_text_decides(tmp_path: Path) -> None:
    """Of all layers with rank 8 and rate 1e-3 in 60 steps; on fixed noise, since the loss of a step says nothing."""
    run = new(
        tmp_path / "s",
        steps=60,
        batch=4,
        network={"rank": 8, "layers": "attention+feed-forward+conv"},
        optimizer={"learning_rate": 2e-3},
        loss={"min_snr_gamma": 0},
        validation={"share": 0.4, "every": 60, "draws": 8},
    )
    train(run)
    first, last = events(run, "validated")
    assert last.loss <= 0.6 * first.loss


def test_a_run_learns_at_the_noise_it_is_told_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    real = loop.picture_losses

    def watched(context: Any, base: Any, objective: Any, batch: Any) -> torch.Tensor:
        seen.extend(batch.timesteps.tolist())
        return real(context, base, objective, batch)

    monkeypatch.setattr(loop, "picture_losses", watched)
    train(new(tmp_path / "s", loss={"snr_mean": -20, "snr_deviation": 0.1}))
    assert seen and set(seen) == {999}, "the noisiest there is"


def test_the_base_is_the_same_to_the_bit_afterwards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from studio.training.methods.lora import method as lora_method

    bases: list[Any] = []
    real = lora_method.load_base
    monkeypatch.setattr(lora_method, "load_base", lambda *rest, **more: bases.append(real(*rest, **more)) or bases[-1])
    train(new(tmp_path / "s"))
    now = {
        name.replace(".base_layer", ""): value
        for name, value in bases[0].unet.state_dict().items()
        if "lora_" not in name
    }
    before = tiny_components("sprout")["unet"].state_dict()
    assert now.keys() == before.keys()
    assert all(torch.equal(now[name], value) for name, value in before.items())


def test_a_file_that_is_not_what_was_trained_is_not_passed_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from studio.training.methods.lora import result

    real = result.save_file

    def damaged(tensors: Any, file: Path, metadata: Any) -> None:
        real(
            {key: value * 1.5 if key.endswith("up.weight") else value for key, value in tensors.items()}, file, metadata
        )

    monkeypatch.setattr(result, "save_file", damaged)
    with pytest.raises(TrainingError, match="is not what was trained"):
        train(new(tmp_path / "s", steps=1))


def test_a_wrong_alpha_in_the_file_is_found_by_its_output(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a converter does that writes the rank for alpha: equal tensors, another strength."""
    from studio.training.methods.lora import result

    real = result.kohya_tensors

    def converter(*arguments: Any) -> Any:
        return {
            key: torch.full_like(value, 4.0) if key.endswith(".alpha") else value
            for key, value in real(*arguments).items()
        }

    monkeypatch.setattr(result, "kohya_tensors", converter)
    with pytest.raises(TrainingError, match="Its output differs"):
        train(new(tmp_path / "s", steps=3, optimizer={"learning_rate": 3e-2}))


def test_a_damaged_latent_is_made_again_and_sound_ones_are_used(tmp_path: Path) -> None:
    root = studio(tmp_path / "s")
    train(run_in(root, settings(steps=1), "first"))
    files = sorted((root / "outputs" / ".studio" / "training" / "latents").rglob("*.safetensors"))
    assert len(files) == 6
    files[0].write_bytes(files[0].read_bytes()[:100])
    run = run_in(root, settings(steps=1), "second")
    train(run)
    assert [(event.stage, event.total) for event in events(run, "stage")] == [("latents", 1), ("train", 1)]


def test_no_pictures_is_told_with_what_was_looked_for(tmp_path: Path) -> None:
    root = studio(tmp_path / "s", pictures=0)
    with pytest.raises(DatasetError, match=r"pictures holds no data set. Looked for: .*pictures"):
        train(run_in(root, settings()))


def test_a_run_tells_once_how_many_steps_a_pass_over_its_data_takes(tmp_path: Path) -> None:
    root = studio(tmp_path / "s")
    run = run_in(root, settings(steps=2, optimizer={"accumulate": 2}, validation={"share": 0.15}))
    train(run)
    (measured,) = events(run, "measured")
    assert (measured.stage, measured.values) == ("train", {"epoch_steps": 1.5})  # five pictures, three batches of two
    assert CurveReader(run).read().epoch_steps == 1.5

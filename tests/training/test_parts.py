"""The pieces of the scratch method, each against a closed form or a second way to compute it."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch

from studio.schema.training import AutoencoderPart, DiffusionPart
from studio.training.checkpoint import Checkpoint, CheckpointStore, optimizer_tensors, restore_optimizer
from studio.training.counter import generator
from studio.training.methods.scratch.average import WeightAverage
from studio.training.methods.scratch.diffusion import learning_rate_share
from studio.training.methods.scratch.models import build_autoencoder, build_scheduler, latent_scale
from studio.training.methods.scratch.objective import Objective
from studio.training.methods.scratch.text import CompactVocabulary, insert_unknown, load_tokenizer, tokenize

PART = DiffusionPart()


def test_noised_latents_and_v_give_back_the_clean_latents_and_the_noise() -> None:
    alphas = build_scheduler(PART).alphas_cumprod
    objective = Objective(alphas, PART)
    clean, noise = torch.randn(3, 4, 8, 8), torch.randn(3, 4, 8, 8)
    t = torch.tensor([0, 500, 999])
    x, v = objective.noised(clean, noise, t), objective.target(clean, noise, t)
    alpha, sigma = alphas[t].sqrt().view(-1, 1, 1, 1), (1 - alphas[t]).sqrt().view(-1, 1, 1, 1)
    assert torch.allclose(alpha * x - sigma * v, clean, atol=1e-5)
    assert torch.allclose(sigma * x + alpha * v, noise, atol=1e-5)


def test_timesteps_follow_the_normal_distribution_of_log_snr() -> None:
    part = DiffusionPart(snr_mean=-1.0, snr_deviation=1.2, uniform_share=0.0)
    alphas = build_scheduler(part).alphas_cumprod.double().numpy()
    drawn = Objective(torch.from_numpy(alphas), part).timesteps(generator(0, "test", 0), 20_000)
    log_snr = np.log(alphas[drawn] / (1 - alphas[drawn]))
    assert abs(log_snr.mean() + 1.0) < 0.05
    assert abs(log_snr.std() - 1.2) < 0.05


def test_uniform_timesteps_fill_the_whole_range() -> None:
    part = DiffusionPart(uniform_share=1.0)
    drawn = Objective(build_scheduler(part).alphas_cumprod, part).timesteps(generator(0, "test", 0), 20_000)
    assert drawn.min() < 5 and drawn.max() > 994 and abs(drawn.mean() - 499.5) < 10


def test_the_learning_rate_rises_stays_and_falls_to_zero() -> None:
    part = DiffusionPart(steps=1000, warmup=100, decay_share=0.4)
    shares = [learning_rate_share(step, part) for step in range(1000)]
    assert shares[0] == pytest.approx(0.01) and shares[100] == shares[599] == 1.0
    assert shares[800] == pytest.approx(0.5) and shares[999] < 1e-4
    assert all(a >= b for a, b in itertools.pairwise(shares[100:]))


def test_the_linear_start_of_the_autoencoder_already_carries_the_picture() -> None:
    torch.manual_seed(0)
    part = AutoencoderPart(channels=(8, 16, 16))
    vae = build_autoencoder(part, 32)
    flat = torch.full((1, 3, 32, 32), 0.5)
    other = torch.full((1, 3, 32, 32), -0.5)
    with torch.no_grad():
        first, second = (vae.encode(x).latent_dist for x in (flat, other))
    assert first.mode().shape == (1, 4, 32 // latent_scale(part), 32 // latent_scale(part))
    assert (first.mode() - second.mode()).abs().mean() > 0.01
    assert float(first.logvar.mean()) == pytest.approx(-5, abs=0.5)


def test_a_compact_vocabulary_expands_to_equal_vectors() -> None:
    ids = tokenize(load_tokenizer(), ["a red fox on a beach", ""])
    assert ids.shape == (2, 77) and ids[1, 0] == 49406 and (ids[1, 1:] == 49407).all()
    vocabulary = CompactVocabulary.of(ids)
    table = torch.randn(vocabulary.size, 4)
    full = vocabulary.expand(table, 49408)
    assert torch.equal(full[torch.from_numpy(ids).long()], table[torch.from_numpy(vocabulary.compact(ids)).long()])
    assert torch.equal(full[1234], table[vocabulary.unknown])
    assert (vocabulary.compact(np.array([1234], dtype=np.int32)) == vocabulary.unknown).all()


def test_an_unknown_word_is_put_in_and_nothing_else_changes() -> None:
    ids = tokenize(load_tokenizer(), ["a red fox", "two hearts"])
    changed = insert_unknown(ids, [0], 7, 49407, generator(0, "test", 0))
    assert np.array_equal(changed[1], ids[1])
    at = int(np.flatnonzero(changed[0] == 7)[0])
    assert 1 <= at <= 4
    assert np.array_equal(np.delete(changed[0], at), ids[0][:-1])


def test_the_average_of_constant_weights_is_constant_and_it_follows_a_change() -> None:
    model = torch.nn.Linear(2, 2)
    average = WeightAverage(model, 0.9)
    start = model.weight.detach().clone()
    average.update(model)
    assert torch.allclose(average.tensors["weight"], start)
    with torch.no_grad():
        model.weight += 1
    for _ in range(200):
        average.update(model)
    average.copy_to(model)
    assert torch.allclose(model.weight, start + 1, atol=1e-4)


def test_checkpoints_are_pruned_and_unfinished_ones_ignored(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path, keep=2)
    assert store.latest() is None
    for step in (1, 2, 3):
        store.save(Checkpoint(step, {"x": torch.full((2,), float(step))}, {"note": step}))
    (tmp_path / "step-00000009").mkdir()
    (tmp_path / "step-00000008.tmp").mkdir()
    latest = store.latest()
    assert latest is not None and latest.step == 3 and latest.facts == {"note": 3}
    assert torch.equal(latest.tensors["x"], torch.full((2,), 3.0))
    assert not (tmp_path / "step-00000001").exists() and (tmp_path / "step-00000002").exists()


def test_a_restored_optimizer_takes_the_same_next_step() -> None:
    def run(
        steps: int, saved: dict[str, torch.Tensor] | None, weights: torch.Tensor
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        parameter = torch.nn.Parameter(weights.clone())
        optimizer = torch.optim.AdamW([parameter], lr=0.1)
        if saved is not None:
            restore_optimizer(optimizer, saved)
        for _ in range(steps):
            torch.autograd.backward((parameter**2).sum())
            optimizer.step()
            optimizer.zero_grad()
        return parameter.detach(), {name: value.clone() for name, value in optimizer_tensors(optimizer).items()}

    start = torch.tensor([1.0, -2.0, 3.0])
    whole, _ = run(6, None, start)
    half, state = run(3, None, start)
    resumed, _ = run(3, state, half)
    assert torch.equal(whole, resumed)

"""The parts of the methods that train a checkpoint further, each against a closed form or a second way to compute it."""

from __future__ import annotations

import itertools
import math
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDPMScheduler
from diffusers.training_utils import compute_snr
from PIL import Image
from safetensors.torch import load_file, save_file

from studio.errors import StorageError, TrainingError
from studio.schema.training_data import DatasetSettings
from studio.schema.training_tuning import LossPart, NetworkPart, OptimizerPart, RatePart
from studio.training.checkpoint import Checkpoint, CheckpointStore
from studio.training.counter import generator
from studio.training.data.dataset import Dataset, read_dataset
from studio.training.methods.lora.adapter import BatchPlace, PlacedDropout, add_adapter, text_layers, unet_layers
from studio.training.noise_levels import log_snr_table, nearest_timesteps
from studio.training.schedule import rate_share
from studio.training.tuning.batches import Order, split
from studio.training.tuning.loop import clipped
from studio.training.tuning.objective import Objective
from studio.training.tuning.optimizers import build_optimizer, load_optimizer, save_optimizer, set_rates
from studio.training.tuning.publish import claim
from tests.tiny_models import tiny_components
from tests.training.tuning import run_in, settings, studio, train

CPU = torch.device("cpu")


# -- loss --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_noise_targets_and_min_snr_are_those_of_diffusers(prediction: Any) -> None:
    scheduler = DDPMScheduler(
        beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012, prediction_type=prediction
    )
    objective = Objective(scheduler.alphas_cumprod.double(), prediction, LossPart(min_snr_gamma=5))
    rng = torch.Generator().manual_seed(0)
    clean, noise = torch.randn(4, 4, 3, 3, generator=rng), torch.randn(4, 4, 3, 3, generator=rng)
    t = torch.tensor([0, 17, 500, 999])
    assert torch.allclose(objective.noised(clean, noise, t), scheduler.add_noise(clean, noise, t), atol=1e-6)
    target = noise if prediction == "epsilon" else scheduler.get_velocity(clean, noise, t)
    assert torch.allclose(objective.target(clean, noise, t), target, atol=1e-6)
    snr = compute_snr(scheduler, t)
    divisor = snr if prediction == "epsilon" else snr + 1
    assert torch.allclose(objective.weights(t), snr.clamp(max=5) / divisor, rtol=1e-4)


def test_without_gamma_and_offset_nothing_is_weighed_or_added() -> None:
    objective = Objective(torch.linspace(0.99, 0.01, 10, dtype=torch.float64), "epsilon", LossPart(min_snr_gamma=0))
    noise = torch.randn(2, 4, 3, 3)
    assert torch.equal(objective.weights(torch.tensor([0, 9])), torch.ones(2))
    assert objective.offset(noise, torch.ones(2, 4, 1, 1)) is noise
    shifted = Objective(torch.linspace(0.99, 0.01, 10, dtype=torch.float64), "epsilon", LossPart(noise_offset=0.1))
    assert torch.allclose(shifted.offset(noise, torch.ones(2, 4, 1, 1)), noise + 0.1)


def test_timesteps_are_drawn_evenly_or_by_their_log_snr() -> None:
    alphas = DDPMScheduler(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012).alphas_cumprod.double()
    rng = generator(0, "test", 0)
    even = Objective(alphas, "epsilon", LossPart())
    drawn = np.array([even.draw(rng) for _ in range(4000)])
    assert drawn.min() < 10 and drawn.max() > 990 and abs(drawn.mean() - 499.5) < 20
    normal = Objective(alphas, "epsilon", LossPart(snr_mean=-1.5, snr_deviation=0.7))
    chosen = alphas.numpy()[[normal.draw(rng) for _ in range(4000)]]
    log_snr = np.log(chosen / (1 - chosen))
    assert abs(log_snr.mean() + 1.5) < 0.05 and abs(log_snr.std() - 0.7) < 0.05


def test_timesteps_by_log_snr_hold_where_a_schedule_ends_in_pure_noise() -> None:
    alphas = torch.linspace(1, 0, 11, dtype=torch.float64)
    table = log_snr_table(alphas)
    assert np.isfinite(table).all()
    assert nearest_timesteps(table, table).tolist() == list(range(11))
    assert nearest_timesteps(table, np.array([99.0, -99.0])).tolist() == [0, 10]


def test_a_huge_loss_still_gives_a_norm_of_at_most_one() -> None:
    """A filter object that the optimizer has used up would leave nothing to clip."""
    layer = torch.nn.Linear(8, 8)
    torch.autograd.backward(1e8 * layer(torch.ones(1, 8)).square().sum())
    parameters = list(layer.parameters())
    assert clipped(parameters, 1.0) > 1e6
    norm = math.sqrt(sum(float(parameter.grad.square().sum()) for parameter in parameters))
    assert 0.99 < norm <= 1.0 + 1e-5


# -- rates and optimizers ----------------------------------------------------------------------------------------------


def test_rates_rise_and_follow_their_course() -> None:
    def course(**part: Any) -> list[float]:
        return [rate_share(RatePart(**part), step, 100) for step in range(100)]

    constant = course(name="constant", warmup=0.1)
    assert constant[0] == pytest.approx(0.1) and constant[9:] == [1.0] * 91
    linear = course(name="linear", warmup=0, final=0.2)
    assert linear[0] == 1.0 and linear[50] == pytest.approx(0.6) and all(a > b for a, b in itertools.pairwise(linear))
    cosine = course(name="cosine", warmup=0)
    assert cosine[50] == pytest.approx(0.5) and cosine[99] < 0.001
    restarts = course(name="cosine-restarts", warmup=0, cycles=2)
    assert restarts[50] == 1.0 and restarts[49] < 0.01 and restarts[25] == pytest.approx(0.5)


def weights() -> list[torch.nn.Parameter]:
    rng = torch.Generator().manual_seed(1)
    return [torch.nn.Parameter(torch.randn(shape, generator=rng)) for shape in ((4, 3), (5,))]


def advance(parameters: list[torch.nn.Parameter], optimizer: torch.optim.Optimizer, steps: range) -> None:
    for step in steps:
        set_rates(optimizer, 1 / (step + 1))
        for index, parameter in enumerate(parameters):
            parameter.grad = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(100 * step + index))
        optimizer.step()


def build(parameters: list[torch.nn.Parameter], name: Any) -> torch.optim.Optimizer:
    part = OptimizerPart(name=name, learning_rate=0.1, weight_decay=0.01)
    return build_optimizer(
        [{"params": [each], "peak": 0.1 * (index + 1)} for index, each in enumerate(parameters)], part, CPU
    )


@pytest.mark.parametrize("name", ["adamw", "lion", "adafactor"])
def test_an_optimizer_goes_on_exactly_where_it_was_saved(name: str) -> None:
    whole, broken = weights(), weights()
    advance(whole, build(whole, name), range(6))
    first = build(broken, name)
    advance(broken, first, range(3))
    second = build(broken, name)
    load_optimizer(second, {key: value.clone() for key, value in save_optimizer(first).items()})
    advance(broken, second, range(3, 6))
    for left, right, start in zip(whole, broken, weights(), strict=True):
        assert torch.equal(left, right) and not torch.equal(left, start)


def test_lion_is_the_paper_s_algorithm() -> None:
    weight = torch.nn.Parameter(torch.tensor([1.0, -2.0]))
    optimizer = build([weight], "lion")
    theta, momentum = torch.tensor([1.0, -2.0]), torch.zeros(2)
    for gradient in (torch.tensor([0.3, -0.1]), torch.tensor([-4.0, 0.2])):
        weight.grad = gradient
        set_rates(optimizer, 1.0)
        optimizer.step()
        theta = theta - 0.1 * ((0.9 * momentum + 0.1 * gradient).sign() + 0.01 * theta)
        momentum = 0.99 * momentum + 0.01 * gradient
        assert torch.allclose(weight.detach(), theta, atol=1e-6)


def test_numbers_that_an_optimizer_keeps_for_a_group_are_saved_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """As Prodigy does with its estimate of the distance; the library is stood in for."""

    class Estimating(torch.optim.SGD):
        def __init__(self, params: Any, lr: float, **_: Any) -> None:
            super().__init__(params, lr)
            for group in self.param_groups:
                group.update(d=1e-6, k=0)

        def step(self, closure: Any = None) -> None:  # type: ignore[override]
            for group in self.param_groups:
                group["d"] *= 3.0
                group["k"] += 1
                group["d_hat"] = group.get("d_hat", 0.0) + 1.0  # there only from the first step on
                for parameter in group["params"]:
                    self.state[parameter]["step"] = group["k"]
                    parameter.data.add_(parameter.grad, alpha=-group["d"] * group["d_hat"] * group["lr"])

    library = ModuleType("prodigyopt")
    library.Prodigy = Estimating  # type: ignore[attr-defined]
    library.__spec__ = type(sys.__spec__)("prodigyopt", None)
    monkeypatch.setitem(sys.modules, "prodigyopt", library)
    whole, broken = weights(), weights()
    advance(whole, build(whole, "prodigy"), range(4))
    first = build(broken, "prodigy")
    advance(broken, first, range(2))
    second = build(broken, "prodigy")
    load_optimizer(second, save_optimizer(first))
    assert second.param_groups[0]["k"] == 2 and isinstance(second.param_groups[0]["k"], int)
    advance(broken, second, range(2, 4))
    assert all(torch.equal(left, right) for left, right in zip(whole, broken, strict=True))


def test_prodigy_has_one_rate_for_text_encoder_and_unet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It refuses others; the library is stood in for."""
    rates: list[set[float]] = []

    class OneRate(torch.optim.SGD):
        def __init__(self, params: Any, lr: float, **_: Any) -> None:
            super().__init__(params, lr)

        def step(self, closure: Any = None) -> None:  # type: ignore[override]
            rates.append({group["lr"] for group in self.param_groups})
            assert len(self.param_groups) == 2

    library = ModuleType("prodigyopt")
    library.Prodigy = OneRate  # type: ignore[attr-defined]
    library.__spec__ = type(sys.__spec__)("prodigyopt", None)
    monkeypatch.setitem(sys.modules, "prodigyopt", library)
    optimizer = {"name": "prodigy", "learning_rate": 1.0}
    train(run_in(studio(tmp_path / "s"), settings(steps=2, text_encoder=True, optimizer=optimizer)))
    assert [len(each) for each in rates] == [1, 1]


def test_a_state_is_taken_from_where_the_optimizer_works(tmp_path: Path) -> None:
    """As of bitsandbytes: small numbers, one table for all of them, and a `state_dict` that hides both."""

    class Eight(torch.optim.SGD):
        table = torch.linspace(-1, 1, 256)

        def state_dict(self) -> dict[str, Any]:
            return {"state": {}, "param_groups": super().state_dict()["param_groups"]}

        def step(self, closure: Any = None) -> None:  # type: ignore[override]
            for group in self.param_groups:
                for parameter in group["params"]:
                    state = self.state[parameter]
                    if not state:
                        state.update(step=0, state1=torch.zeros(parameter.shape, dtype=torch.uint8), qmap1=self.table)
                    state["step"] += 1
                    state["state1"] = (state["state1"] * 3 + (parameter.grad > 0)).to(torch.uint8)
                    parameter.data.sub_(state["qmap1"][state["state1"].long()], alpha=group["lr"] / state["step"])

    def made(parameters: list[torch.nn.Parameter]) -> torch.optim.Optimizer:
        return Eight([{"params": [each], "peak": 0.1} for each in parameters], 0.1)

    whole, broken = weights(), weights()
    advance(whole, made(whole), range(4))
    first = made(broken)
    advance(broken, first, range(2))
    save_file(save_optimizer(first), tmp_path / "state.safetensors")
    second = made(broken)
    load_optimizer(second, load_file(tmp_path / "state.safetensors"))
    advance(broken, second, range(2, 4))
    assert all(torch.equal(left, right) for left, right in zip(whole, broken, strict=True))


@pytest.mark.parametrize(
    "name, words",
    [("prodigy", "prodigyopt, which is not installed"), ("adamw-8bit", "CUDA devices only, and this is cpu")],
)
def test_an_optimizer_that_cannot_be_had_says_why(name: str, words: str) -> None:
    with pytest.raises(TrainingError, match=words):
        build(weights(), name)


# -- adapters ----------------------------------------------------------------------------------------------------------


def test_the_layers_are_those_of_sd_scripts() -> None:
    """On SD 1.5's own U-Net: 128 of attention, 192 with feed-forward and projections, as LoRA files of sd-scripts have."""
    from diffusers import UNet2DConditionModel

    from studio.families.configs import shipped_config

    with torch.device("meta"):
        unet = UNet2DConditionModel.from_config(shipped_config("sd1", "unet"))
    attention, none = unet_layers(unet, NetworkPart(layers="attention"))
    inner, _ = unet_layers(unet, NetworkPart(layers="attention+feed-forward"))
    same, blocks = unet_layers(unet, NetworkPart(layers="attention+feed-forward+conv"))
    assert (len(attention), len(none), len(inner)) == (128, 0, 192)
    assert attention < inner == same and not blocks & inner
    assert (
        "down_blocks.0.resnets.0.conv1" in blocks
        and "up_blocks.0.upsamplers.0.conv" in blocks
        and "conv_in" not in blocks
    )
    deaf, others = unet_layers(unet, NetworkPart(layers="attention+feed-forward+conv", cross_attention=False))
    assert len(deaf) == 192 - 64 and others == blocks
    assert {name for name in inner if ".attn2." in name} == inner - deaf
    unfed, again = unet_layers(unet, NetworkPart(layers="attention+conv"))
    assert again == blocks and attention < unfed and inner - unfed == {name for name in inner if ".ff." in name}
    assert len(unfed) == 192 - 32
    encoder = tiny_components("sd1")["text_encoder"]
    assert len(text_layers(encoder)) == 6 * 3


def test_an_adapter_changes_nothing_before_it_has_learned_and_only_it_learns() -> None:
    import copy

    unet = copy.deepcopy(tiny_components("sprout")["unet"]).to(torch.bfloat16)
    x, text = torch.randn(1, 4, 8, 8).bfloat16(), torch.randn(1, 5, 32).bfloat16()
    with torch.no_grad():
        before = unet(x, 3, text).sample
        layers = add_adapter(
            unet,
            "unet",
            unet_layers(unet, part := NetworkPart(rank=2, alpha=6, layers="attention")),
            part,
            1,
            BatchPlace(),
        )
        assert torch.equal(unet(x, 3, text).sample, before)
    learning = [name for name, value in unet.named_parameters() if value.requires_grad]
    assert len(learning) == 2 * len(layers) and all("lora_" in name for name in learning)
    assert {layer.alpha for layer in layers} == {6.0} and {layer.down.dtype for layer in layers} == {torch.float32}
    other = copy.deepcopy(tiny_components("sprout")["unet"]).to(torch.bfloat16)
    again = add_adapter(other, "unet", unet_layers(other, part), part, 1, BatchPlace())
    assert all(torch.equal(left.down, right.down) for left, right in zip(layers, again, strict=True))


def test_dropout_is_a_function_of_the_batch_and_its_rows() -> None:
    place = BatchPlace()
    dropout = PlacedDropout(0.5, "key", place).train()
    x = torch.ones(4, 100)
    place.move(7, slice(0, 4), 4)
    whole = dropout(x)
    assert (
        torch.equal(dropout(x), whole) and 0.4 < float((whole == 0).float().mean()) < 0.6 and float(whole.max()) == 2.0
    )
    place.move(7, slice(2, 4), 4)
    assert torch.equal(dropout(x[2:]), whole[2:])
    place.move(8, slice(0, 4), 4)
    assert not torch.equal(dropout(x), whole)
    assert dropout.eval()(x) is x


# -- data --------------------------------------------------------------------------------------------------------------


def dataset(folder: Path, sizes: list[tuple[int, int]], **more: Any) -> tuple[Dataset, DatasetSettings]:
    folder.mkdir()
    for index, size in enumerate(sizes):
        Image.new("RGB", size, (index, 0, 0)).save(folder / f"{index}.png")
    options = DatasetSettings(path=str(folder), resolution=128, **more)
    return read_dataset(options), options


def test_an_epoch_shows_every_picture_and_a_batch_has_one_size(tmp_path: Path) -> None:
    found, options = dataset(tmp_path / "d", [(128, 128)] * 5 + [(256, 64)] * 3, buckets=True, repeats=2)
    order = Order(found.items, options, 4, seed=1)
    assert order.batches_per_epoch == math.ceil(10 / 4) + math.ceil(6 / 4)
    for epoch in range(3):
        batches = [order.batch(epoch * order.batches_per_epoch + number) for number in range(order.batches_per_epoch)]
        assert {len(batch) for batch in batches} == {4}
        shown = [index for batch in batches for index in batch]
        assert {index: shown.count(index) >= 2 for index in range(8)} == dict.fromkeys(range(8), True)
        assert all(len({found.items[index].size for index in batch}) == 1 for batch in batches)
    assert order.batch(7) == Order(found.items, options, 4, seed=1).batch(7)
    assert [order.batch(n) for n in range(5)] != [Order(found.items, options, 4, seed=2).batch(n) for n in range(5)]


def test_some_pictures_are_kept_back_whatever_their_order(tmp_path: Path) -> None:
    found, _ = dataset(tmp_path / "d", [(64, 64)] * 10)
    parts = split(found, 0.2, 1)
    assert len(parts.held) == 2 and len(parts.train) == 8 and set(parts.held).isdisjoint(parts.train)
    backwards = Dataset(found.items[::-1], (), found.digest)
    assert set(split(backwards, 0.2, 1).held) == set(parts.held)
    assert split(found, 0.0, 1).held == () and len(split(found, 0.01, 1).held) == 1
    assert split(Dataset(found.items[:1], (), ""), 0.5, 1).held == ()


# -- files -------------------------------------------------------------------------------------------------------------


def test_a_name_is_claimed_once_and_metadata_are_in_order(tmp_path: Path) -> None:
    from safetensors import safe_open
    from safetensors.torch import save_file

    entries = {f"{letter} é": f'"{index}"' for index, letter in enumerate("qhzbx")}

    def make(value: float) -> Any:
        return lambda file: save_file({"b": torch.full((3,), value), "a": torch.ones(2)}, file, entries)

    def same(old: Path, new: Path) -> bool:
        return old.read_bytes() == new.read_bytes()

    assert claim(tmp_path / "new", "a", "run", make(1), same).name == "a.safetensors"
    assert claim(tmp_path / "new", "a", "run", make(2), same).name == "a-1.safetensors"
    assert claim(tmp_path / "new", "a", "run", make(1), same).name == "a.safetensors"
    assert sorted(file.name for file in (tmp_path / "new").iterdir()) == ["a-1.safetensors", "a.safetensors"]
    with safe_open(tmp_path / "new" / "a-1.safetensors", "pt") as file:
        assert file.metadata() == entries
        assert torch.equal(file.get_tensor("b"), torch.full((3,), 2.0)) and torch.equal(
            file.get_tensor("a"), torch.ones(2)
        )
    raw = (tmp_path / "new" / "a.safetensors").read_bytes()
    places = [raw.index(f'"{letter} '.encode()) for letter in "bhqxz"]
    assert places == sorted(places)
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError):
        claim(tmp_path / "file", "a", "run", make(1), same)


def test_a_full_disk_leaves_the_older_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import safetensors.torch

    from studio.training import checkpoint

    store = CheckpointStore(tmp_path / "c", keep=1)
    store.save(Checkpoint(1, {"a": torch.ones(2)}, {"note": "x"}))

    def full(tensors: Any, path: Path) -> None:
        safetensors.torch.save_file(tensors, path)
        raise safetensors.SafetensorError("I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(checkpoint, "save_file", full)
    with pytest.raises(StorageError, match="disk is full"):
        store.save(Checkpoint(2, {"a": torch.zeros(2)}, {}))
    kept = store.latest()
    assert (
        kept is not None
        and (kept.step, kept.facts) == (1, {"note": "x"})
        and torch.equal(kept.tensors["a"], torch.ones(2))
    )
    assert store.latest_step() == 1 and len(list((tmp_path / "c").iterdir())) == 1


def test_saving_the_same_step_again_replaces_it(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path / "c", keep=1)
    for value in (1.0, 2.0):
        store.save(Checkpoint(5, {"a": torch.full((2,), value)}, {}))
    kept = store.latest()
    assert kept is not None and np.array_equal(kept.tensors["a"].numpy(), [2.0, 2.0])

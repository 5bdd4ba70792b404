"""Hypernetworks against modules of torch put in front of diffusers' own attention; nothing left behind by the job before."""

from __future__ import annotations

import copy
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers.models.attention_processor import Attention, AttnProcessor2_0
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn

import studio.engine.passes
from studio.conversion.child import convert
from studio.engine.attention import KERNELS, KernelName, TextProjections, install
from studio.engine.hypernetwork import ACTIVATE, KEPT_FILES, HypernetworkFiles, acts_in, set_hypernetworks
from studio.engine.runner import DiffusersEngine
from studio.engine.token_merging import set_merging
from studio.errors import DamagedFile, IncompatibleFile, NotFound
from studio.families.hypernetwork_signature import ACTIVATIONS
from studio.schema.engine import CancelToken
from studio.schema.events import ImageReady, Status
from studio.schema.models import ModelInfo
from studio.schema.resolved import HypernetworkUse, RefinerPlan, ResolvedRequest
from tests.engine.samples import resolved_request
from tests.tiny_models import tiny_components, tiny_file, tiny_info

MODULES = {"relu": nn.ReLU, "swish": nn.Hardswish, "tanh": nn.Tanh, "linear": nn.Identity, "mish": nn.Mish}


class Old(nn.Module):
    """A module of A1111's hypernetwork, as the documentation of its format says."""

    def __init__(self, width: int, structure: list[float], activation: str, norm: bool, last: bool) -> None:
        super().__init__()
        row: list[nn.Module] = []
        for i in range(len(structure) - 1):
            row.append(nn.Linear(int(width * structure[i]), int(width * structure[i + 1])))
            if activation != "linear" and (last or i < len(structure) - 2):
                row.append(MODULES[activation]())
            if norm:
                row.append(nn.LayerNorm(int(width * structure[i + 1])))
            if i == 0 and len(structure) > 3:
                row.append(nn.Dropout(0.3))
        self.linear = nn.Sequential(*row)

    def forward(self, x: Tensor, multiplier: float) -> Tensor:
        out: Tensor = x + self.linear(x) * multiplier
        return out


class Before(nn.Module):
    """A linear layer behind modules that change what it reads."""

    def __init__(self, modules: list[tuple[Old, float]], layer: nn.Module) -> None:
        super().__init__()
        self.parts, self.layer = modules, layer

    def forward(self, x: Tensor) -> Tensor:
        for module, multiplier in self.parts:
            x = module(x, multiplier)
        out: Tensor = self.layer(x)
        return out


def made(seed: int, structure: list[float], activation: str, norm: bool, last: bool, widths: tuple[int, ...]) -> Any:
    """{width: (module for keys, module for values)}"""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return {width: tuple(Old(width, structure, activation, norm, last).eval() for _ in "kv") for width in widths}


def saved(path: Path, modules: Any, **notes: Any) -> HypernetworkUse:
    """The modules as A1111 writes them, converted; used at 0.7."""
    torch.save({width: tuple(half.state_dict() for half in pair) for width, pair in modules.items()} | notes, path)
    with path.with_suffix(".safetensors").open("wb") as stream:
        convert(path, stream)
    return use_of(path.with_suffix(".safetensors"))


def use_of(path: Path, multiplier: float = 0.7) -> HypernetworkUse:
    info = ModelInfo(
        kind="hypernetwork", name=path.stem, path=str(path), layout="file", family="unknown", size=1, mtime=0
    )
    return HypernetworkUse(name=path.stem, model=info, multiplier=multiplier, tagged=True)


def files() -> HypernetworkFiles:
    return HypernetworkFiles(torch.device("cpu"), torch.float32)


def noise_of(unet: Any, **kwargs: Any) -> Tensor:
    generator = torch.Generator().manual_seed(5)
    x, states = torch.randn(2, 4, 8, 8, generator=generator), torch.randn(2, 77, 32, generator=generator)
    with torch.inference_mode():
        out: Tensor = unet(x, 400, states, cross_attention_kwargs=kwargs or None, return_dict=False)[0]
    return out


def by_hand(networks: list[tuple[Any, float]]) -> Tensor:
    unet = copy.deepcopy(tiny_components("sd1")["unet"])
    unet.set_attn_processor(AttnProcessor2_0())
    for attn in [module for module in unet.modules() if isinstance(module, Attention)]:
        width = attn.to_k.in_features
        parts = [(network[width], multiplier) for network, multiplier in networks if width in network]
        attn.to_k = Before([(pair[0], multiplier) for pair, multiplier in parts], attn.to_k)
        attn.to_v = Before([(pair[1], multiplier) for pair, multiplier in parts], attn.to_v)
    return noise_of(unet)


def fresh(kernel: KernelName = "sdpa") -> Any:
    unet = copy.deepcopy(tiny_components("sd1")["unet"])
    install(kernel, unet)
    return unet


def off(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


FORMS = {
    "plain": ([1, 2, 1], "linear", False, True),
    "activated": ([1, 2, 1], "relu", False, False),
    "activated to the end": ([1, 1.5, 1], "swish", False, True),
    "with normalisation": ([1, 2, 1], "tanh", True, False),
    "with dropout": ([1, 2, 2, 1], "mish", True, True),
}


@pytest.mark.parametrize("form", FORMS)
def test_it_is_modules_in_front_of_keys_and_values(form: str, tmp_path: Path) -> None:
    structure, activation, norm, last = FORMS[form]
    modules = made(1, structure, activation, norm, last, (32, 64))
    use = saved(tmp_path / "a.pt", modules, activation_func=activation, activate_output=last, is_layer_norm=norm)
    unet = fresh()
    plain = noise_of(unet)
    set_hypernetworks(unet, files().load([use]))
    expected = by_hand([(modules, 0.7)])
    assert off(noise_of(unet), expected) < 1e-5
    assert off(plain, expected) > 1e-3


@pytest.mark.parametrize("kernel", ["sdpa", "chunked"])
def test_several_act_one_after_the_other_with_every_kernel(kernel: KernelName, tmp_path: Path) -> None:
    """The second one for one width only. With projections that are kept, as a pass has them, it is the same.

    Two networks make what kernels round differently larger, up to 1.7e-5 on one of the processors that this ran on; their order makes 8e-2.
    """
    assert kernel in KERNELS
    one, two = made(1, [1, 2, 1], "linear", False, True, (32, 64)), made(2, [1, 2, 1], "relu", False, True, (32,))
    uses = [saved(tmp_path / "a.pt", one), saved(tmp_path / "b.pt", two, activation_func="relu")]
    unet = fresh(kernel)
    set_hypernetworks(unet, files().load([uses[0], uses[1].model_copy(update={"multiplier": 0.3})]))
    expected = by_hand([(one, 0.7), (two, 0.3)])
    assert off(noise_of(unet), expected) < 1e-4
    assert off(noise_of(unet, projections=TextProjections()), expected) < 1e-4
    assert off(by_hand([(two, 0.3), (one, 0.7)]), expected) > 1e-2, "the order makes a difference"


def test_nothing_leaves_the_unet_as_it_was_built(tmp_path: Path) -> None:
    active = files().load([saved(tmp_path / "a.pt", made(1, [1, 2, 1], "linear", False, True, (32, 64)))])
    unet = fresh()
    before = noise_of(unet)
    set_hypernetworks(unet, active)
    changed = noise_of(unet)
    processors = dict(unet.attn_processors)
    set_hypernetworks(unet, ())
    assert torch.equal(noise_of(unet), before) and not torch.allclose(changed, before)
    set_hypernetworks(unet, [(active[0][0], 0.0)])
    assert torch.equal(noise_of(unet), before), "of no strength"
    assert all(processor is not processors[name] for name, processor in unet.attn_processors.items())


def test_layers_of_other_widths_keep_their_processor(tmp_path: Path) -> None:
    (active,) = files().load([saved(tmp_path / "a.pt", made(1, [1, 2, 1], "linear", False, True, (64,)))])
    (other,) = files().load([saved(tmp_path / "b.pt", made(1, [1, 2, 1], "linear", False, True, (7,)))])
    unet = fresh()
    before = dict(unet.attn_processors)
    set_hypernetworks(unet, [active])
    wide = {name for name, processor in unet.attn_processors.items() if processor is not before[name]}
    assert wide and all("attn1" in name for name in wide), "the text's states are 32 wide"
    assert acts_in(unet, active) and not acts_in(unet, other)


def test_it_acts_on_merged_tokens_whatever_was_set_first(tmp_path: Path) -> None:
    active = files().load([saved(tmp_path / "a.pt", made(1, [1, 2, 1], "linear", False, True, (32, 64)))])
    one, two = fresh(), fresh()
    merged = fresh()
    set_merging(merged, 0.5, 8, 8)
    set_hypernetworks(one, active)
    set_merging(one, 0.5, 8, 8)
    set_merging(two, 0.5, 8, 8)
    set_hypernetworks(two, active)
    assert torch.equal(noise_of(one), noise_of(two))
    assert off(noise_of(merged), noise_of(one)) > 1e-3
    set_hypernetworks(two, ())
    assert torch.equal(noise_of(two), noise_of(merged))


def test_every_activation_has_a_name() -> None:
    assert tuple(ACTIVATE) == ACTIVATIONS
    x = torch.linspace(-3, 3, 13)
    for name, activate in ACTIVATE.items():
        kind = next((each for each in dir(nn) if each.lower() == {"swish": "hardswish"}.get(name, name)), "Identity")
        module = nn.Identity() if name == "linear" else getattr(nn, kind)()
        assert torch.equal(activate(x), module(x)), name


def test_a_file_is_read_again_when_it_changed(tmp_path: Path) -> None:
    keeper, use = files(), saved(tmp_path / "a.pt", made(1, [1, 2, 1], "linear", False, True, (32,)))
    (first,) = keeper.load([use])
    assert keeper.load([use])[0][0] is first[0]
    for number in range(KEPT_FILES):
        keeper.load([saved(tmp_path / f"{number}.pt", made(1, [1, 2, 1], "linear", False, True, (8,)))])
    assert keeper.load([use])[0][0] is not first[0]
    saved(tmp_path / "a.pt", made(1, [1, 1, 1], "linear", False, True, (32,)))
    assert keeper.load([use])[0][0][32][0].layers[0].weight.shape == (32, 32)


def test_files_that_are_none_are_refused(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="'gone' is not there any more"):
        files().load([use_of(tmp_path / "gone.safetensors")])
    (tmp_path / "a.pt").write_bytes(b"x")
    with pytest.raises(IncompatibleFile, match=r"convert a\.pt"):
        files().load([use_of(tmp_path / "a.pt")])
    save_file({"32.k.linear.0.weight": torch.ones(32, 32)}, tmp_path / "half.safetensors")
    with pytest.raises(IncompatibleFile, match=r"32\.v\.linear\.0\.weight"):
        files().load([use_of(tmp_path / "half.safetensors")])
    nan = {f"32.{half}.linear.0.weight": torch.full((32, 32), torch.nan) for half in "kv"}
    save_file(nan, tmp_path / "nan.safetensors")
    with pytest.raises(DamagedFile):
        files().load([use_of(tmp_path / "nan.safetensors")])


# -- whole jobs --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def ink(tmp_path_factory: pytest.TempPathFactory) -> HypernetworkUse:
    return saved(tmp_path_factory.mktemp("networks") / "ink.pt", made(1, [1, 2, 1], "linear", False, True, (32, 64)))


def painted(engine: DiffusersEngine, resolved: ResolvedRequest) -> np.ndarray[Any, Any]:
    found = [event for event in engine.run(resolved, CancelToken()) if isinstance(event, ImageReady)]
    return np.stack([np.asarray(Image.open(io.BytesIO(each.png))).astype(int) for each in found])


def asked(*uses: HypernetworkUse, **changes: Any) -> ResolvedRequest:
    return resolved_request(tiny_info("sd1"), hypernetworks=uses, steps=2, **changes)


def test_the_next_job_is_as_if_there_had_been_none(engine: DiffusersEngine, ink: HypernetworkUse) -> None:
    before = painted(engine, asked())
    with_it = painted(engine, asked(ink))
    assert np.array_equal(painted(engine, asked()), before)
    assert not np.array_equal(with_it, before)
    assert np.array_equal(painted(engine, asked(ink)), with_it)


def test_in_a_batch_each_picture_is_as_alone(engine: DiffusersEngine, ink: HypernetworkUse) -> None:
    both = painted(engine, asked(ink, batch_size=2, cfg_scale=5.0))
    for index, picture in enumerate(both):
        assert np.abs(picture - painted(engine, asked(ink, seed=7 + index, cfg_scale=5.0))[0]).max() <= 1


def test_the_refiner_has_it_too(engine: DiffusersEngine, ink: HypernetworkUse, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[int] = []
    monkeypatch.setattr(studio.engine.passes, "set_hypernetworks", lambda unet, active: said.append(len(active)))
    painted(engine, asked(ink, refiner=RefinerPlan(model=tiny_info(tiny_file("sd1")), switch_at=0.1)))
    assert said == [1, 1]


def test_one_that_fits_nothing_is_told(engine: DiffusersEngine, tmp_path: Path) -> None:
    use = saved(tmp_path / "odd.pt", made(1, [1, 2, 1], "linear", False, True, (7,)))
    told = [event.message for event in engine.run(asked(use), CancelToken()) if isinstance(event, Status)]
    assert any(message.startswith("odd fits no layer of") for message in told)

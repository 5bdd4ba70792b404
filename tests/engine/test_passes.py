"""What a pass tells beside its latents."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from studio.engine.hardware import choose_hardware
from studio.engine.keeper import ModelKeeper
from studio.engine.passes import TextToImage, batch_noise, blank_inpaint_channels
from studio.engine.saving import Saving
from studio.errors import InvalidRequest
from studio.schema.request import SeedResize
from studio.schema.resolved import VariationPlan
from tests.engine.samples import resolved_request
from tests.tiny_models import tiny_info

HARDWARE = choose_hardware("cpu", precision="fp32")


@pytest.fixture(scope="module")
def keeper() -> Iterator[ModelKeeper]:
    found = ModelKeeper(HARDWARE)
    yield found
    found.drop()


def test_sigmas_fall_to_zero_and_latents_have_the_models_shape(keeper: ModelKeeper) -> None:
    info = tiny_info("sprout")
    request = resolved_request(info, steps=3, width=96, height=64)
    painting = TextToImage(keeper.checkpoint(info), request, HARDWARE, Saving())
    steps = list(painting.steps([1, 2]))
    assert painting.total == len(steps) == 3
    assert steps[0].sigma == pytest.approx(float(keeper.checkpoint(info).table.sigma_max), rel=1e-5)
    assert [step.sigma_next for step in steps[:-1]] == [step.sigma for step in steps[1:]]
    assert steps[-1].sigma_next == 0
    assert steps[-1].x.shape == (2, 4, 16, 24)  # 4 pixels a latent
    assert steps[-1].x.dtype == torch.float32


def test_inpainting_models_see_an_empty_grey_canvas(keeper: ModelKeeper) -> None:
    model = keeper.checkpoint(tiny_info("sd1-inpaint")).model
    with torch.no_grad():
        channels = blank_inpaint_channels(model, (4, 8, 12))
        grey = model.vae.encode(torch.zeros(1, 3, 64, 96)).latent_dist.mean
    assert channels.shape == (1, 5, 8, 12)
    assert (channels[:, 0] == 1).all()
    torch.testing.assert_close(channels[:, 1:], grey * model.latent.scaling_factor)


def test_too_deep_a_clip_skip_is_refused(keeper: ModelKeeper) -> None:
    info = tiny_info("sd1")
    with pytest.raises(InvalidRequest, match="clip_skip = 12"):
        TextToImage(keeper.checkpoint(info), resolved_request(info, clip_skip=12), HARDWARE, Saving())


def test_a_variation_leads_from_one_seeds_latents_to_the_others(keeper: ModelKeeper) -> None:
    info = tiny_info("sprout")

    def latents(seed: int, subseed: int | None = None, strength: float = 1.0) -> torch.Tensor:
        variation = None if subseed is None else VariationPlan(seeds=(subseed,), strength=strength)
        request = resolved_request(info, variation=variation)
        subseeds = [] if subseed is None else [subseed]
        return list(TextToImage(keeper.checkpoint(info), request, HARDWARE, Saving()).steps([seed], subseeds))[-1].x

    one, other = latents(1), latents(5)
    torch.testing.assert_close(latents(1, 5), other, rtol=1e-3, atol=1e-3)
    near, far = latents(1, 5, 0.1), latents(1, 5, 0.9)
    assert (near - one).norm() < (near - other).norm()
    assert (far - other).norm() < (far - one).norm()


def test_a_resized_seed_has_the_old_noise_in_its_middle() -> None:
    """Pixels are counted in the model's own latents: 4 pixels each here."""
    request = resolved_request(width=96, height=64, seed_resize=SeedResize(width=64, height=128))
    noise = batch_noise(request, [3], [], (4, 16, 24), 4, torch.device("cpu"))
    old = torch.randn((4, 32, 16), generator=torch.Generator().manual_seed(3))
    assert torch.equal(noise.start()[0, :, :, 4:20], old[:, 8:24])
    plain = torch.randn((4, 16, 24), generator=torch.Generator().manual_seed(3))
    assert torch.equal(noise.start()[0, :, :, :4], plain[:, :, :4])


def test_a_request_may_end_the_schedule_in_pure_noise(keeper: ModelKeeper) -> None:
    """Sigma stays finite: the last alpha is a stand-in for zero."""
    info = tiny_info("sd1")
    loaded = keeper.checkpoint(info)
    request = resolved_request(info, noise_schedule="Zero Terminal SNR", prediction_type="v_prediction", steps=2)
    first, last = TextToImage(loaded, request, HARDWARE, Saving()).steps([1])
    assert first.sigma == pytest.approx(4518.7, rel=1e-3)
    assert torch.isfinite(last.x).all()
    assert loaded.table_for("Default") is loaded.table
    assert loaded.table.sigma_max == pytest.approx(14.6146, rel=1e-4)


def test_what_is_asked_for_overrules_what_a_checkpoint_says_it_predicts(keeper: ModelKeeper) -> None:
    says_v, says_epsilon = tiny_info("sd2"), tiny_info("sd1")
    assert keeper.checkpoint(says_v).prediction("Automatic") == "v_prediction"
    assert keeper.checkpoint(says_v).prediction("epsilon") == "epsilon"
    assert keeper.checkpoint(says_epsilon).prediction("Automatic") == "epsilon"
    assert keeper.checkpoint(says_epsilon).prediction("v_prediction") == "v_prediction"

"""What a pass tells beside its latents."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from studio.engine.hardware import choose_hardware
from studio.engine.keeper import ModelKeeper
from studio.engine.passes import TextToImage, blank_inpaint_channels
from studio.errors import InvalidRequest
from tests.engine.samples import resolved_request
from tests.tiny_models import tiny_info

HARDWARE = choose_hardware("cpu")


@pytest.fixture(scope="module")
def keeper() -> Iterator[ModelKeeper]:
    found = ModelKeeper(HARDWARE)
    yield found
    found.drop()


def test_sigmas_fall_to_zero_and_latents_have_the_models_shape(keeper: ModelKeeper) -> None:
    info = tiny_info("sprout")
    request = resolved_request(info, steps=3, width=96, height=64)
    painting = TextToImage(keeper.checkpoint(info), request, HARDWARE)
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
        TextToImage(keeper.checkpoint(info), resolved_request(info, clip_skip=12), HARDWARE)

"""Painting over a picture on tiny random models: against the same thing done by hand, and what a mask keeps."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from studio.engine.encode import encoded
from studio.engine.hardware import choose_hardware
from studio.engine.keeper import ModelKeeper
from studio.engine.loading import LoadedVae
from studio.engine.passes import DenoisingPass, Lift, plain_noise
from studio.engine.runner import DiffusersEngine
from studio.engine.saving import Saving
from studio.engine.source import MaskedDenoiser, SourceLatents, source_latents
from studio.errors import InvalidRequest
from studio.library.init_images import InitImages
from studio.resolve import fixed, resolve
from studio.samplers.table import SAMPLERS
from studio.schema.engine import CancelToken
from studio.schema.events import Event, ImageReady, Progress
from studio.schema.parts import BranchPoint
from studio.schema.request import RunOptions, make_request
from studio.schema.resolved import InitImage, RefinerPlan, ResolvedRequest
from tests.engine.test_canvas import PICTURE, spot
from tests.engine.test_hires import PLAIN, Library, drawn, levels, walked
from tests.library.test_init_images import file_of
from tests.tiny_models import tiny_file, tiny_info

HARDWARE = choose_hardware("cpu", precision="fp32")


class Desk(Library):
    """The tiny checkpoints, and a folder of pictures to begin with."""

    kept = InitImages(Path("/nowhere"), Path("/nowhere"))

    def init_image(self, name: str) -> InitImage:
        return self.kept.find(name)


@pytest.fixture(scope="module", autouse=True)
def pictures_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    Desk.kept = InitImages(folder := tmp_path_factory.mktemp("init-images"), folder)
    yield
    Desk.kept = InitImages(Path("/nowhere"), Path("/nowhere"))


def asked(
    family: str = "sd1",
    *,
    mask: Image.Image | dict[str, Any] | None = None,
    source: dict[str, Any] | None = None,
    **changes: Any,
) -> ResolvedRequest:
    """64x64 over PICTURE; a dictionary as `mask` are its other fields, for a spot."""
    part: dict[str, Any] | None = None
    if mask is not None:
        drawn_mask, more = (mask, {}) if isinstance(mask, Image.Image) else (spot(), mask)
        part = {"image": Desk.kept.keep_mask(file_of(drawn_mask)).name, "blur": 0, **more}
    given = {"image": Desk.kept.keep(file_of(PICTURE)).name, "denoising_strength": 0.5, **(source or {})}
    keep = changes.pop("keep", False)
    request = make_request({**PLAIN, "width": 64, "height": 64, "source": given, "mask": part, **changes})
    return resolve(request, Desk(family), lambda: 1, options=RunOptions(preview_every=1, keep_latents=keep))


def paint(engine: DiffusersEngine, resolved: ResolvedRequest) -> list[Event]:
    return list(engine.run(resolved, CancelToken()))


def pictures(events: list[Event]) -> list[np.ndarray[Any, Any]]:
    found = [event for event in events if isinstance(event, ImageReady)]
    return [np.asarray(Image.open(io.BytesIO(picture.png))).astype(int) for picture in found]


def steps_of(events: list[Event]) -> int:
    return max(event.step for event in events if isinstance(event, Progress))


def vae_of(family: str) -> LoadedVae:
    loaded = ModelKeeper(HARDWARE).checkpoint(tiny_info(family))
    return LoadedVae(loaded.model.vae, loaded.model.latent)


# -- by hand ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("exact, run", [(False, 3), (True, 4)])
def test_it_is_the_end_of_a_schedule_by_hand(exact: bool, run: int) -> None:
    """SDXL and Euler: the picture's latents with the seed's noise, at the level where the last steps begin."""
    source = {"denoising_strength": 0.5, "exact_steps": exact, "noise_multiplier": 1.25}
    resolved = asked("sdxl", steps=4, source=source)
    loaded = ModelKeeper(HARDWARE).checkpoint(resolved.model)
    vae = LoadedVae(loaded.model.vae, loaded.model.latent)
    clean = encoded(PICTURE.resize((64, 64), Image.Resampling.LANCZOS), vae)[None]
    given = SourceLatents(clean, None, None, "original", 1.25)
    painting = DenoisingPass(loaded, resolved, HARDWARE, Saving(), lift=Lift(0.5, exact_steps=exact), source=given)
    *_, last = painting.steps([7, 8])
    assert last.index + 1 == painting.total == run
    times, sigmas = levels(8 if exact else 4)
    for latents, seed in zip(last.x, (7, 8), strict=True):
        noisy = clean + 1.25 * drawn(seed, 8, 8) * sigmas[-run - 1]
        want = walked(noisy, times[-run:], sigmas[-run - 1 :], ["a fox"] * run, 2.0)
        torch.testing.assert_close(latents[None], want, rtol=0, atol=2e-4)


def test_latents_are_the_picture_s(tmp_path: Path) -> None:
    """Encoding is undone by decoding as well as a VAE can; here only that it is the VAE's mode, scaled, of the resized picture."""
    from studio.engine.canvas import prepare

    resolved, vae = asked(), vae_of("sd1")
    assert resolved.source is not None
    canvas = prepare(resolved.source, None, (64, 64))
    found = source_latents(canvas, resolved, vae, inpaint=False, device=torch.device("cpu"))
    sample = torch.from_numpy(np.array(canvas.picture)).permute(2, 0, 1)[None].float() / 127.5 - 1
    with torch.no_grad():
        want = vae.module.encode(sample).latent_dist.mode() * vae.latent.scaling_factor
    torch.testing.assert_close(found.latents, want)
    assert (found.mask, found.channels) == (None, None)


def test_latents_are_enlarged_instead_of_the_picture() -> None:
    from studio.engine.canvas import prepare

    resolved, vae = asked(source={"resize_mode": "Just resize (latent upscale)"}, width=256, height=128), vae_of("sd1")
    assert resolved.source is not None
    found = source_latents(
        prepare(resolved.source, None, (256, 128)), resolved, vae, inpaint=False, device=torch.device("cpu")
    )
    small = encoded(PICTURE, vae)[None]
    want = torch.nn.functional.interpolate(small, size=(16, 32), mode="bilinear")
    assert torch.equal(found.latents, want)


# -- masks ------------------------------------------------------------------------------------------------------------


def outside(picture: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Where a spot's mask, at this picture's size, has nothing at all."""
    height, width = picture.shape[:2]
    return np.asarray(spot().resize((width, height), Image.Resampling.LANCZOS)) == 0


@pytest.mark.parametrize("sampler", [spec.name for spec in SAMPLERS])
def test_every_sampler_leaves_what_is_not_masked(engine: DiffusersEngine, sampler: str) -> None:
    (found,) = pictures(paint(engine, asked(mask={}, sampler=sampler, steps=4, source={"denoising_strength": 0.8})))
    want = np.asarray(PICTURE.resize((64, 64), Image.Resampling.LANCZOS)).astype(int)
    kept = outside(found)
    assert (found[kept] == want[kept]).all()
    assert np.abs(found - want)[~kept].max() > 20


@pytest.mark.parametrize("sampler", ["Euler", "DPM++ 2M", "DDIM", "UniPC", "DPM fast"])
def test_the_latents_outside_are_the_picture_s_own(sampler: str) -> None:
    resolved = asked(sampler=sampler, steps=6)
    loaded = ModelKeeper(HARDWARE).checkpoint(resolved.model)
    clean, mask = torch.randn(1, 4, 8, 8), torch.zeros(1, 1, 8, 8)
    mask[..., 2:6, 2:6] = 1
    given = SourceLatents(clean, mask, None, "original", 1.0)
    painting = DenoisingPass(loaded, resolved, HARDWARE, Saving(), lift=Lift(0.8, exact_steps=False), source=given)
    *_, last = painting.steps([7])
    found, kept = painting.settled(last.x), mask.expand(1, 4, 8, 8) == 0
    assert torch.equal(found[kept], clean[kept])
    assert torch.equal(found[~kept], last.x[~kept])


def flat(x: Tensor, sigma: float) -> Tensor:
    """A model that sees grey everywhere."""
    return torch.zeros_like(x)


class Grey:
    """The same with guidance; remembers what it was shown."""

    def __init__(self) -> None:
        self.shown: list[Tensor] = []

    def __call__(self, x: Tensor, sigma: float) -> Tensor:
        self.shown.append(x)
        return flat(x, sigma)

    def guided_and_uncond(self, x: Tensor, sigma: float) -> tuple[Tensor, Tensor]:
        return self(x, sigma), flat(x, sigma) + 1


def test_samplers_on_sigmas_get_a_prediction_in_which_the_picture_stands() -> None:
    init, mask, x = (
        torch.full((2, 4, 2, 2), 5.0),
        torch.tensor([[0.0, 1.0], [0.25, 1.0]])[None, None],
        torch.randn(2, 4, 2, 2),
    )
    model = Grey()
    masked = MaskedDenoiser(model, init, mask, before=False)
    assert torch.equal(masked(x, 3.0), init * (1 - mask))
    guided, uncond = masked.guided_and_uncond(x, 3.0)
    assert torch.equal(guided, init * (1 - mask)) and torch.equal(uncond, torch.ones_like(x))
    assert all(torch.equal(shown, x) for shown in model.shown)


def test_samplers_on_timesteps_have_it_put_into_what_the_model_is_shown() -> None:
    """In their own units x / sqrt(1 + sigma²) the model is shown the clean latents there; what it calls noise is theirs as it is."""
    init, mask, x, sigma = torch.randn(1, 4, 2, 2), torch.tensor([[0.0, 1.0]])[None, None], torch.randn(1, 4, 2, 2), 3.0
    model = Grey()
    masked = MaskedDenoiser(model, init, mask, before=True)
    found = masked(x, sigma)
    unit = model.shown[0] / (1 + sigma**2) ** 0.5
    torch.testing.assert_close(unit[..., 0], init[..., 0])
    torch.testing.assert_close(unit[..., 1], (x / (1 + sigma**2) ** 0.5)[..., 1])
    torch.testing.assert_close((x - found) / sigma, (model.shown[0] - flat(x, sigma)) / sigma)
    guided, uncond = masked.guided_and_uncond(x, sigma)
    assert torch.equal(guided, found)
    torch.testing.assert_close(uncond - guided, torch.ones_like(x))


def test_the_masked_part_may_begin_with_noise_or_nothing() -> None:
    clean, mask = torch.randn(1, 4, 2, 2), torch.tensor([[0.0, 1.0], [0.0, 1.0]])[None, None]
    noise = torch.randn(2, 4, 2, 2)

    def begun(content: str, mask: Tensor | None = mask) -> Tensor:
        return SourceLatents(clean, mask, None, content, 1.0).init(noise)

    assert torch.equal(begun("latent noise"), torch.where(mask == 1, noise, clean))
    assert torch.equal(begun("latent nothing"), torch.where(mask == 1, torch.zeros_like(noise), clean))
    for content in ("original", "fill"):
        assert torch.equal(begun(content), clean.expand(2, -1, -1, -1))
    assert torch.equal(begun("latent noise", None), clean.expand(2, -1, -1, -1))


def test_noise_in_the_masked_part_is_the_seed_s_own() -> None:
    resolved = asked(mask={"content": "latent noise"}, variation={"seed": 3, "strength": 0.5})
    found = plain_noise(resolved, [7, 8], (4, 8, 8), torch.device("cpu"))
    assert torch.equal(found, torch.cat([drawn(7, 8, 8), drawn(8, 8, 8)]))


def test_the_latent_mask_has_two_values_unless_greys_count() -> None:
    from studio.engine.canvas import prepare

    for rounding in (True, False):
        resolved = asked(mask={"blur": 8, "rounding": rounding})
        assert resolved.source is not None
        canvas = prepare(resolved.source, resolved.mask, (64, 64))
        found = source_latents(canvas, resolved, vae_of("sd1"), inpaint=False, device=torch.device("cpu")).mask
        assert found is not None and found.shape == (1, 1, 8, 8)
        assert set(found.unique().tolist()) <= {0.0, 1.0} if rounding else len(found.unique()) > 4


def test_inpainting_checkpoints_are_told_what_is_hidden() -> None:
    from studio.engine.canvas import prepare

    vae = vae_of("sd1-inpaint")
    seen = {}
    for weight in (1.0, 0.0):
        resolved = asked("sd1-inpaint", mask={"conditioning_weight": weight}, width=128, height=96)
        assert resolved.source is not None
        canvas = prepare(resolved.source, resolved.mask, (128, 96))
        channels = source_latents(canvas, resolved, vae, inpaint=True, device=torch.device("cpu")).channels
        assert channels is not None and channels.shape == (1, 5, 12, 16)
        assert channels[0, 0].sum() == channels[0, 0, 4:8, 5:10].sum() == 20, (
            "1 at the latents whose first pixel is masked"
        )
        seen[weight] = channels[:, 1:]
    hidden = PICTURE.copy()
    pixels = torch.from_numpy(np.array(hidden)).permute(2, 0, 1).float() / 127.5 - 1
    inside = torch.from_numpy(np.asarray(spot()).copy()) == 255
    torch.testing.assert_close(seen[1.0], encoded(torch.where(inside, torch.zeros(()), pixels), vae)[None])
    torch.testing.assert_close(seen[0.0], encoded(PICTURE, vae)[None])


def test_without_a_mask_inpainting_checkpoints_are_told_to_paint_all() -> None:
    from studio.engine.canvas import prepare
    from studio.engine.passes import blank_inpaint_channels

    loaded = ModelKeeper(HARDWARE).checkpoint(tiny_info("sd1-inpaint"))
    resolved = asked("sd1-inpaint")
    assert resolved.source is not None
    canvas = prepare(resolved.source, None, (64, 64))
    vae = LoadedVae(loaded.model.vae, loaded.model.latent)
    with torch.no_grad():
        channels = source_latents(canvas, resolved, vae, inpaint=True, device=torch.device("cpu")).channels
        assert channels is not None
        torch.testing.assert_close(channels, blank_inpaint_channels(vae, (4, 8, 8)))


# -- the whole way ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["sd1", "sd2", "sdxl", "sd1-inpaint", "sd1-edit", "sprout"])
@pytest.mark.parametrize("mask", [None, {}, {"area": "Only masked", "padding": 4}])
def test_every_family_paints_over_a_picture(engine: DiffusersEngine, family: str, mask: dict[str, Any] | None) -> None:
    (found,) = pictures(paint(engine, asked(family, mask=mask)))
    assert found.shape == ((96, 128, 3) if mask else (64, 64, 3)) if mask != {} else (64, 64, 3)


def test_a_batch_equals_single_pictures(engine: DiffusersEngine) -> None:
    mask = {"content": "latent noise", "blur": 4}
    together = pictures(paint(engine, asked(mask=mask, batch_size=2)))
    alone = [pictures(paint(engine, asked(mask=mask, seed=seed)))[0] for seed in (7, 8)]
    assert all(np.abs(one - other).max() <= 1 for one, other in zip(together, alone, strict=True)), "batched kernels"
    assert np.abs(together[0] - together[1]).max() > 20


def test_strength_decides_the_steps_and_how_much_stays(engine: DiffusersEngine) -> None:
    want = np.asarray(PICTURE.resize((64, 64), Image.Resampling.LANCZOS)).astype(int)
    far, counts = [], []
    for strength in (0.0, 0.4, 1.0):
        events = paint(engine, asked(steps=10, source={"denoising_strength": strength}))
        counts.append(steps_of(events))
        far.append(np.abs(pictures(events)[0] - want).mean())
    assert counts == [1, 5, 10]
    assert far[0] < far[1] < far[2]


def test_a_refiner_counts_the_steps_that_are_run(engine: DiffusersEngine) -> None:
    refiner = {"checkpoint": "twin", "switch_at": 0.5, "by_steps": True}
    resolved = asked(steps=10, source={"denoising_strength": 0.5}, refiner=refiner, mask={})
    assert resolved.refiner is not None and resolved.refiner.from_call == 3, "half of the 6 that are run"
    assert pictures(paint(engine, resolved))


@pytest.mark.parametrize("strength", [0, 1e-9, 0.01, 0.0199])
def test_a_schedule_that_ends_in_so_many_steps_may_not_be_endless(strength: float) -> None:
    with pytest.raises(InvalidRequest) as caught:
        asked(steps=20, source={"denoising_strength": strength, "exact_steps": True})
    assert caught.value.field == "source.denoising_strength"
    for words in (f"= {strength:g} is too small for 20 steps", "1,000 are possible", "0.02 or more"):
        assert words in caught.value.message
    assert asked(steps=20, source={"denoising_strength": strength}).source
    assert asked(steps=20, source={"denoising_strength": 0.02, "exact_steps": True}).source


def finished_by_itself(resolved: ResolvedRequest, switch_at: float = 0.6) -> ResolvedRequest:
    """With a refiner that is another file of the same weights."""
    twin = tiny_info(tiny_file(resolved.model.name.removesuffix("-folder")))
    return resolved.model_copy(update={"refiner": RefinerPlan(model=twin, switch_at=switch_at)})


@pytest.mark.parametrize("mask", [None, {}, {"area": "Only masked", "padding": 4, "content": "latent noise"}])
@pytest.mark.parametrize("family", ["sd1-inpaint", "sd1-edit"])
def test_a_refiner_is_told_of_the_picture_too(
    engine: DiffusersEngine, family: str, mask: dict[str, Any] | None
) -> None:
    """Made for inpainting it knows what is hidden; made for instructions it knows what they are about."""
    resolved = asked(family, mask=mask, steps=6, batch_size=2, source={"image_cfg_scale": 1.2})
    alone, both = (pictures(paint(engine, one)) for one in (resolved, finished_by_itself(resolved)))
    assert all(np.array_equal(*pair) for pair in zip(alone, both, strict=True))


def test_a_refiner_is_told_of_its_tile(engine: DiffusersEngine) -> None:
    tiles = {"upscaler": "None", "overlap": 16, "scale_factor": 1}
    resolved = asked("sd1-edit", steps=6, batch_size=2, sd_upscale=tiles)
    alone, both = (pictures(paint(engine, one))[0] for one in (resolved, finished_by_itself(resolved)))
    assert np.array_equal(alone, both)


def test_a_refiner_made_for_inpainting_is_told_what_a_first_one_cannot_be(engine: DiffusersEngine) -> None:
    """What the mask leaves to be seen is another thing, so the picture is another one."""

    def painted(weight: float) -> np.ndarray[Any, Any]:
        resolved = asked("sd1", mask={}, steps=6)
        assert resolved.mask is not None
        finishing = RefinerPlan(model=tiny_info("sd1-inpaint"), switch_at=0.6)
        mask = resolved.mask.model_copy(update={"conditioning_weight": weight})
        (found,) = pictures(paint(engine, resolved.model_copy(update={"refiner": finishing, "mask": mask})))
        return found

    assert not np.array_equal(painted(1.0), painted(0.0))


@pytest.mark.parametrize("exact", [False, True])
def test_the_negative_prompt_is_left_out_of_a_part_of_the_steps_that_are_run(
    engine: DiffusersEngine, exact: bool
) -> None:
    """Of 11 at strength 0.5 the first 7; whichever checkpoint paints them."""
    source = {"denoising_strength": 0.5, "exact_steps": exact}
    common: dict[str, Any] = {"steps": 20, "source": source, "cfg_scale": 3, "negative_prompt": "a house"}
    resolved = asked(sampler_options={"skip_early_cond": 0.6}, **common)
    alone, refined = (pictures(paint(engine, one))[0] for one in (resolved, finished_by_itself(resolved, 0.7)))
    assert np.array_equal(alone, refined)
    without = asked(sampler_options={"skip_early_cond": 1}, **common)
    assert not np.array_equal(alone, pictures(paint(engine, without))[0])


def test_a_branch_goes_on_over_the_same_picture(engine: DiffusersEngine) -> None:
    origin = asked(mask={}, steps=6, keep=True)
    (first,) = [event for event in paint(engine, origin) if isinstance(event, ImageReady)]
    request = make_request(
        {**PLAIN, "width": 64, "height": 64, "steps": 6, "branch": BranchPoint(step=2, origin=first.infotext)}
    )
    branch = resolve(request, Desk("sd1"), lambda: 1)
    assert (branch.source, branch.mask) == (origin.source, origin.mask)
    stored = fixed(request, branch)
    assert stored.source is not None and stored.mask is not None, "what is kept of the order names the picture too"
    (found,) = pictures(paint(engine, branch))
    (whole,) = pictures([first])
    assert np.array_equal(found[outside(found)], whole[outside(whole)])
    assert np.abs(found - whole).max() <= 24, "float16 on the way; the same prompt gives nearly the same picture"


def test_a_branch_of_another_picture_is_refused(engine: DiffusersEngine) -> None:
    origin = asked(steps=6)
    (first,) = [event for event in paint(engine, origin) if isinstance(event, ImageReady)]
    other = Desk.kept.keep(file_of(PICTURE.transpose(Image.Transpose.ROTATE_180))).name
    point = BranchPoint(step=2, origin=first.infotext)
    size = {"width": 64, "height": 64}
    with pytest.raises(InvalidRequest, match="picture to begin with") as caught:
        resolve(make_request({**PLAIN, **size, "branch": point, "source": {"image": other}}), Desk("sd1"), lambda: 1)
    assert caught.value.field == "source"
    with pytest.raises(InvalidRequest, match="Hires"):
        resolve(make_request({**PLAIN, **size, "branch": point, "hires": {}}), Desk("sd1"), lambda: 1)


def test_an_empty_mask_ends_the_job_with_a_sentence(engine: DiffusersEngine) -> None:
    with pytest.raises(InvalidRequest, match="nothing would be painted"):
        paint(engine, asked(mask=spot(grey=0)))

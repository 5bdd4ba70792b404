"""The reproduce check with an engine that paints by seed: what is equal, what is not, and which causes are named."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from studio.app import Studio
from studio.engine.fake import FakeEngine
from studio.errors import DamagedFile, InvalidRequest
from studio.infotext import encode_png, write_infotext
from studio.reproduce import Reproduction
from studio.schema.engine import CancelToken
from studio.schema.events import ImageReady
from studio.schema.parts import BranchPoint, HiresPass
from studio.schema.request import GenerationRequest, RunOptions
from tests.api.stand_in import make_studio

ASKED = GenerationRequest(prompt="a fox <lora:ink:0.5>", seed=40, steps=2, width=64, height=64, cfg_scale=7)


@pytest.fixture
def studio(tmp_path: Path) -> Iterator[Studio]:
    engine = FakeEngine(infotext=lambda resolved, index: write_infotext(resolved, index, "v1", "torch 9, cpu"))
    made = make_studio(tmp_path, engine)
    yield made
    made.close()


def painted(studio: Studio, request: GenerationRequest = ASKED) -> ImageReady:
    events = studio.paint(studio.resolve(request, RunOptions(save=False, preview_every=0)), CancelToken())
    return next(event for event in events if isinstance(event, ImageReady))


def check(studio: Studio, data: bytes) -> Reproduction:
    found = studio.reproduce(data, CancelToken())
    assert found is not None
    return found


def changed(
    picture: ImageReady, *, pixel: int | None = None, text: str | None = None, side: int | None = None
) -> bytes:
    """The file with one value moved by `pixel`, another text, or another size."""
    image = Image.open(io.BytesIO(picture.png)).convert("RGB")
    values = np.asarray(image.resize((side, side)) if side else image).copy()
    if pixel:
        values[20, 30, 2] += pixel
    return encode_png(Image.fromarray(values), text if text is not None else picture.infotext)


def test_a_picture_of_this_studio_comes_out_the_same(studio: Studio) -> None:
    picture = painted(studio)
    found = check(studio, picture.png)
    assert (found.equal, found.largest, found.similarity, found.causes) == (True, 0, 1.0, ())
    assert found.png == picture.png and found.infotext == picture.infotext
    assert "every pixel is equal" in found.words


def test_one_changed_value_is_found(studio: Studio) -> None:
    found = check(studio, changed(painted(studio), pixel=5))
    assert (found.equal, found.largest) == (False, 5)
    assert found.similarity is not None and 0.9 < found.similarity < 1
    assert found.causes == ("The parameters agree; the file may have been edited or saved anew with loss.",)
    assert "up to 5 of 255" in found.words
    assert "batch" in check(studio, changed(painted(studio), pixel=1)).causes[0]


@pytest.mark.parametrize(
    "old, new, cause",
    [
        ("torch 9, cpu", "torch 8, cuda", "Backend: torch 8, cuda in the picture, torch 9, cpu here."),
        ("RNG: CPU, ", "RNG: NV, ", None),
        ("Latent Studio v1", "v1.10.1", "The picture was painted by v1.10.1, this one by Latent Studio v1."),
        ("Model hash: 0123456789", "Model hash: ffff000000", "Model hash: ffff000000 in the picture, 0123456789 here."),
        ("Steps: 2", "Hires upscale: 2, Steps: 2", "Hires upscale: 2 in the picture; not known or not used here."),
    ],
)
def test_causes_are_what_the_texts_do_not_agree_on(studio: Studio, old: str, new: str, cause: str | None) -> None:
    picture = painted(studio)
    assert old in picture.infotext
    found = check(studio, changed(picture, pixel=9, text=picture.infotext.replace(old, new)))
    if cause is None:  # a field of the request is obeyed, so it is no cause
        assert all("RNG" not in each for each in found.causes)
        assert "RNG: NV" in found.infotext
    else:
        assert cause in found.causes


@pytest.mark.parametrize("more", ["User: Ada", "TI: soft", "Conditional mask weight: 1"])
def test_what_changes_no_pixels_is_no_cause(studio: Studio, more: str) -> None:
    picture = painted(studio)
    found = check(studio, changed(picture, pixel=9, text=f"{picture.infotext}, {more}"))
    assert not found.equal
    assert not [cause for cause in found.causes if cause.startswith(more.partition(":")[0] + ":")]


def test_missing_models_are_named_and_done_without(studio: Studio) -> None:
    picture = painted(studio)
    text = picture.infotext.replace("<lora:ink:0.5>", "<lora:gone:0.5> <lora:ink:0.5>")
    text = text.replace("Model hash: 0123456789", "Model hash: 9999999999").replace("Model: sprout", "Model: elsewhere")
    text = text.replace(
        "Steps: 2",
        "Refiner: polish, Refiner switch at: 0.5, Face restoration: CodeFormer, CodeFormer weight: 0.2, Steps: 2",
    )
    found = check(studio, changed(picture, pixel=9, text=text))
    assert "Refiner 'polish' is not here: painted without it." in found.causes
    assert "LoRA 'gone' is not here: painted without it." in found.causes
    assert "Face restorer 'CodeFormer' is not here: painted without it." in found.causes
    assert any(cause.startswith("Checkpoint 'elsewhere [9999999999]' is not here") for cause in found.causes)
    assert "<lora:ink:0.5>" in found.infotext and "gone" not in found.infotext


def test_a_missing_or_another_hypernetwork_is_named(studio: Studio) -> None:
    request = ASKED.model_copy(update={"prompt": "a <hypernet:anime:0.5>", "hypernetwork": "anime"})
    picture = painted(studio, request)
    assert check(studio, picture.png).equal
    assert check(studio, changed(picture, pixel=9)).causes == (
        "Hypernetwork 'anime' here may be another file: the picture knows only its name.",
    )
    text = picture.infotext.replace("<hypernet:anime:0.5>", "<hypernet:gone:0.5>")
    text = text.replace("Seed: 40", "Seed: 40, Hypernet: lost")
    found = check(studio, changed(picture, pixel=9, text=text))
    assert "Hypernetwork 'gone' is not here: painted without it." in found.causes
    assert "Hypernetwork 'lost' is not here: painted without it." in found.causes
    assert "gone" not in found.infotext and "lost" not in found.infotext


def test_a_picture_of_two_passes_is_checked_at_its_own_size(studio: Studio) -> None:
    hires = HiresPass(scale=1.5, prompt="an owl <lora:ink:1>", sampler="Euler a")
    picture = painted(studio, ASKED.model_copy(update={"hires": hires}))
    assert (picture.width, picture.height) == (96, 96)
    assert check(studio, picture.png).equal
    text = picture.infotext.replace("owl <lora:ink:1>", "owl <lora:gone:1>").replace(
        "upscaler: Latent", "upscaler: 4x-Gone, Hires checkpoint: elm [9999999999]"
    )
    found = check(studio, changed(picture, pixel=9, text=text))
    assert "LoRA 'gone' is not here: painted without it." in found.causes
    assert "Upscaler '4x-Gone' is not here: enlarged with Lanczos." in found.causes
    assert "Hires upscaler: 4x-Gone in the picture, Lanczos here." in found.causes
    assert "gone" not in found.infotext
    assert "Hires checkpoint 'elm [9999999999]' is not here: both passes painted with the same one." in found.causes
    assert "Hires checkpoint" not in found.infotext


def test_missing_text_encoders_and_vaes_are_named_and_done_without(studio: Studio) -> None:
    picture = painted(studio, ASKED.model_copy(update={"hires": HiresPass(scale=1.5)}))
    more = "Steps: 2, Module 1: clip_l, Module 2: gone, Hires Module 1: soft, FP8 weight: Enable"
    found = check(studio, changed(picture, pixel=9, text=picture.infotext.replace("Steps: 2", more)))
    assert "Text encoder 'gone' is not here: painted with the checkpoint's own." in found.causes
    assert "Hires text encoder 'soft' is not here: painted with the checkpoint's own." in found.causes
    assert "Module 2: gone in the picture; not known or not used here." in found.causes
    assert "Module 1: clip_l" in found.infotext and "FP8 weight: Enable, Cache" in found.infotext
    assert "Hires Module 1: soft in the picture, Built-in here." in found.causes


def test_another_size_is_no_comparison(studio: Studio) -> None:
    found = check(studio, changed(painted(studio), side=96))
    assert (found.equal, found.largest, found.similarity) == (False, None, None)
    assert found.causes[0] == "The picture has 96x96 pixels, its parameters make 64x64."


def test_what_cannot_be_checked_is_said(studio: Studio) -> None:
    with pytest.raises(InvalidRequest, match="no generation parameters"):
        check(studio, changed(painted(studio), text=""))
    with pytest.raises(DamagedFile):
        check(studio, b"no picture")


def test_a_cancelled_check_has_no_outcome(studio: Studio) -> None:
    cancel = CancelToken()
    cancel.interrupt()
    assert studio.reproduce(painted(studio).png, cancel) is None


def test_a_branched_picture_is_checked_like_any_other(studio: Studio) -> None:
    origin = painted(studio, ASKED.model_copy(update={"steps": 6}))
    point = BranchPoint(step=2, origin=origin.infotext)
    branch = painted(studio, studio.default_request(branch=point).model_copy(update={"prompt": "an owl, at night"}))
    assert "Branch step: 2, Branch origin: " in branch.infotext
    found = check(studio, branch.png)
    assert (found.equal, found.causes, found.infotext) == (True, (), branch.infotext)
    ran = studio.engine.runs[-1] if isinstance(studio.engine, FakeEngine) else None
    assert ran is not None and ran.branch is not None
    assert (ran.branch.step, ran.branch.text, ran.positive.text) == (2, origin.infotext, "an owl, at night")
    moved = branch.infotext.replace("Branch step: 2", "Branch step: 7")
    with pytest.raises(InvalidRequest, match="one at least must be left"):
        check(studio, changed(branch, text=moved))

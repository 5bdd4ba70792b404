"""A1111's img2img: its fields to ours, and on a running server as its clients use it."""

from __future__ import annotations

import base64
import json
import threading
import time
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from studio.api.a1111.bodies import Img2ImgBody, Txt2ImgBody
from studio.api.a1111.img2img import img2img_order
from studio.api.a1111.names import in_their_words
from studio.api.a1111.translate import Context, Order
from studio.api.a1111.txt2img import txt2img_order
from studio.api.guard import JSON_LIMIT
from studio.app import Studio
from studio.engine.fake import FakeEngine
from studio.errors import DamagedFile, InvalidRequest, NotFound, UnknownName
from studio.infotext import read_picture
from studio.library.init_images import InitImages
from studio.schema.parts import HiresPass, Variation
from studio.schema.request import GenerationRequest
from studio.schema.source import Mask, Source
from studio.schema.upscale import SdUpscale
from tests.api.stand_in import make_studio, serving

API = "/sdapi/v1"


def encoded(image: Image.Image, kind: str = "PNG") -> str:
    file = BytesIO()
    image.save(file, kind)
    return base64.b64encode(file.getvalue()).decode()


FOX = encoded(Image.new("RGB", (72, 64), (200, 90, 20)))
HOLE = encoded(Image.new("L", (72, 64), 255))
DEFAULTS = GenerationRequest(model="sprout", vae="sharp", clip_skip=2, emphasis="No norm", rng="NV", steps=9, width=128)
TOLD = {
    "prompt": "told",
    "source": {"image": "0" * 32, "denoising_strength": 0.3, "resize_mode": "Crop and resize", "exact_steps": True},
    "mask": {"image": "1" * 32, "blur": 9, "content": "original", "area": "Whole picture", "padding": 12},
    "variation": {"seed": 5, "strength": 0.5},
}
"""What stands in for an infotext."""


@pytest.fixture
def keeper(tmp_path: Path) -> InitImages:
    return InitImages(tmp_path, tmp_path)


@pytest.fixture
def order(keeper: InitImages) -> Callable[..., Order]:
    def understand(**fields: Any) -> Order:
        body = Img2ImgBody.model_validate({"init_images": [FOX], **fields})
        return img2img_order(body, Context(DEFAULTS, lambda text: TOLD, 2), keeper)

    return understand


SOURCE = {"denoising_strength": 0.75}
MASK = {"blur": 4, "content": "fill", "area": "Only masked", "padding": 0}


@pytest.mark.parametrize(
    "fields, source, mask",
    [
        ({}, {}, None),
        ({"denoising_strength": None, "resize_mode": None, "mask": None, "initial_noise_multiplier": None}, {}, None),
        ({"mask": "", "mask_blur": 9, "mask_blur_x": 1, "inpainting_fill": 2}, {}, None),
        ({"denoising_strength": 0.4, "initial_noise_multiplier": 0.9}, {"denoising_strength": 0.4, "noise_multiplier": 0.9}, None),
        *(({"resize_mode": number}, {"resize_mode": name}, None) for number, name in enumerate(
            ("Just resize", "Crop and resize", "Resize and fill", "Just resize (latent upscale)"))),
        ({"override_settings": {"img2img_fix_steps": True, "initial_noise_multiplier": 1.1, "img2img_extra_noise": 0.2}},
         {"exact_steps": True, "noise_multiplier": 1.1, "extra_noise": 0.2}, None),
        ({"initial_noise_multiplier": 0.8, "override_settings": {"initial_noise_multiplier": 1.1}}, {"noise_multiplier": 0.8}, None),
        ({"mask": HOLE}, {}, {}),
        ({"mask": HOLE, "mask_blur": None, "mask_blur_x": None, "mask_round": None, "inpainting_fill": None,
          "inpaint_full_res": None, "inpaint_full_res_padding": None, "inpainting_mask_invert": None}, {}, {}),
        *(({"mask": HOLE, "inpainting_fill": number}, {}, {"content": name}) for number, name in enumerate(
            ("fill", "original", "latent noise", "latent nothing"))),
        ({"mask": HOLE, "mask_blur": 7}, {}, {"blur": 7}),
        ({"mask": HOLE, "mask_blur": 0}, {}, {"blur": 0}),
        ({"mask": HOLE, "mask_blur_x": 6, "mask_blur_y": 6}, {}, {"blur": 6}),
        ({"mask": HOLE, "mask_blur": 7, "mask_blur_x": 6, "mask_blur_y": 2}, {}, {"blur": 7}),
        ({"mask": HOLE, "inpaint_full_res": False, "inpaint_full_res_padding": 16, "inpainting_mask_invert": 1,
          "mask_round": False}, {}, {"area": "Whole picture", "padding": 16, "inverted": True, "rounding": False}),
        ({"mask": HOLE, "inpaint_full_res": 0, "inpainting_mask_invert": True}, {},
         {"area": "Whole picture", "inverted": True}),
        ({"mask": HOLE, "override_settings": {"inpainting_mask_weight": 0.5}}, {}, {"conditioning_weight": 0.5}),
    ],
)  # fmt: skip
def test_a_body_means_a_picture_and_a_mask(
    order: Callable[..., Order],
    keeper: InitImages,
    fields: dict[str, Any],
    source: dict[str, Any],
    mask: dict[str, Any] | None,
) -> None:
    found = order(**fields)
    kept = keeper.keep(base64.b64decode(FOX)).name
    assert found.request.source == Source(image=kept, **{**SOURCE, **source})
    hole = keeper.keep_mask(base64.b64decode(HOLE)).name
    assert found.request.mask == (None if mask is None else Mask(image=hole, **{**MASK, **mask}))
    assert found.warnings == []


def test_the_rest_is_as_in_txt2img(order: Callable[..., Order]) -> None:
    same = {
        "prompt": "a",
        "sampler_name": "DPM++ 2M Karras",
        "seed": 7,
        "subseed": 9,
        "subseed_strength": 0.3,
        "refiner_checkpoint": "oak",
        "s_churn": 2,
        "tiling": True,
        "save_images": True,
        "override_settings": {"CLIP_stop_at_last_layers": 1, "eta_ddim": 0.5, "lora_color": "red"},
        "override_settings_restore_afterwards": False,
        "alwayson_scripts": {"ADetailer": {"args": []}},
        "hologram": 1,
    }
    found = order(**same)
    plain = txt2img_order(Txt2ImgBody.model_validate(same), Context(DEFAULTS, lambda text: TOLD, 2))
    assert found.request.model_copy(update={"source": None}) == plain.request
    assert (found.options, found.persistent, found.warnings) == (plain.options, plain.persistent, plain.warnings)
    assert len(found.warnings) == 3


def test_what_the_text_says_is_there_where_nothing_is_given(order: Callable[..., Order], keeper: InitImages) -> None:
    kept = keeper.keep(base64.b64decode(FOX)).name
    told = order(infotext="x")
    assert told.request.source == Source(
        image=kept, denoising_strength=0.3, resize_mode="Crop and resize", exact_steps=True
    )
    assert (told.request.mask, told.request.prompt) == (None, "told")
    assert told.request.variation == Variation(seed=5, strength=0.5)
    given = order(infotext="x", denoising_strength=0.6, override_settings={"img2img_fix_steps": False}, mask=HOLE)
    assert given.request.source == Source(image=kept, denoising_strength=0.6, resize_mode="Crop and resize")
    hole = keeper.keep_mask(base64.b64decode(HOLE)).name
    assert given.request.mask == Mask(image=hole, blur=9, content="original", area="Whole picture", padding=12)
    mixed = order(infotext="x", mask=HOLE, mask_blur=2, inpaint_full_res=True)
    assert mixed.request.mask == Mask(image=hole, blur=2, content="original", area="Only masked", padding=12)


def test_texts_of_the_other_kind_are_read_with_a_warning(keeper: InitImages) -> None:
    text = Txt2ImgBody(infotext="x")
    found = txt2img_order(text, Context(DEFAULTS, lambda text: TOLD, 2))
    assert (found.request.source, found.request.mask, found.request.prompt) == (None, None, "told")
    assert ["/sdapi/v1/img2img" in warning for warning in found.warnings] == [True]
    body = Img2ImgBody(init_images=[FOX], infotext="x")
    second = img2img_order(body, Context(DEFAULTS, lambda text: {"hires": {"scale": 2.0}}, 2), keeper)
    assert second.request.hires is None
    assert ["second pass" in warning for warning in second.warnings] == [True]
    hires = txt2img_order(text, Context(DEFAULTS, lambda text: {"hires": {"scale": 3.0}}, 2))
    assert hires.request.hires == HiresPass(scale=3.0)


@pytest.mark.parametrize(
    "overrides, ratio",
    [
        ({"token_merging_ratio": 0.2}, 0.2),
        ({"token_merging_ratio_img2img": 0.4}, 0.4),
        ({"token_merging_ratio": 0.2, "token_merging_ratio_img2img": 0.4}, 0.2),
        ({"token_merging_ratio": 0, "token_merging_ratio_img2img": 0.4}, 0.4),
        ({"token_merging_ratio_img2img": 0}, 0.0),
    ],
)
def test_token_merging_has_a_setting_of_its_own(
    order: Callable[..., Order], overrides: dict[str, Any], ratio: float
) -> None:
    found = order(override_settings=overrides)
    assert (found.request.token_merging_ratio, found.warnings) == (ratio, [])


def test_a_scale_of_pix2pix_is_one_of_the_picture(order: Callable[..., Order]) -> None:
    for said, scale in ((2, 2.0), (None, 1.5)):
        found = order(image_cfg_scale=said)
        assert found.request.source is not None
        assert (found.request.source.image_cfg_scale, found.warnings) == (scale, [])
    assert order(enable_hr=True).warnings == ["enable_hr is not known here and was ignored."]


@pytest.mark.parametrize(
    "fields, field, said",
    [
        ({"denoising_strength": 1.5}, "denoising_strength", "denoising_strength = 1.5 is not possible: should be from 0 to 1"),
        ({"denoising_strength": float("nan")}, "denoising_strength", "denoising_strength = nan"),
        ({"resize_mode": 4}, "resize_mode", "resize_mode = 4 is not possible: should be one of 0 (Just resize), 1 (Crop"),
        ({"resize_mode": -1}, "resize_mode", "resize_mode = -1"),
        ({"initial_noise_multiplier": 2}, "initial_noise_multiplier", "initial_noise_multiplier = 2"),
        ({"override_settings": {"img2img_extra_noise": 2}}, "override_settings.img2img_extra_noise", "override_settings.img2img_extra_noise = 2"),
        ({"override_settings": {"img2img_fix_steps": "often"}}, "override_settings.img2img_fix_steps", "override_settings.img2img_fix_steps = 'often'"),
        ({"mask": HOLE, "inpainting_fill": 4}, "inpainting_fill", "one of 0 (fill), 1 (original), 2 (latent noise), 3 (latent nothing)"),
        ({"mask": HOLE, "inpainting_mask_invert": 2}, "inpainting_mask_invert", "inpainting_mask_invert = 2"),
        ({"mask": HOLE, "inpaint_full_res_padding": 300}, "inpaint_full_res_padding", "inpaint_full_res_padding = 300 is not possible: should be from 0 to 256"),
        ({"mask": HOLE, "mask_blur": 65}, "mask_blur", "mask_blur = 65 is not possible: should be from 0 to 64"),
        ({"mask": HOLE, "mask_blur_x": 3}, "mask_blur_x", "mask_blur_x = 3 and mask_blur_y = 4 are not possible: both should be the same"),
        ({"mask": HOLE, "override_settings": {"inpainting_mask_weight": 1.5}}, "override_settings.inpainting_mask_weight", "override_settings.inpainting_mask_weight = 1.5"),
        ({"steps": 0}, "steps", "steps = 0"),
        ({"init_images": [FOX, FOX]}, "init_images", "init_images: 2 pictures at once"),
        ({"init_images": ["%%%"]}, "init_images", "init_images is not base64"),
        ({"init_images": ["http://127.0.0.1/x.png"]}, "init_images", "init_images: addresses are not fetched"),
        ({"mask": "%%%"}, "mask", "mask is not base64"),
        ({"latent_mask": HOLE}, "latent_mask", "latent_mask: "),
        ({"script_name": "Loopback"}, "script_name", "script_name: "),
        ({"disable_extra_networks": True}, "disable_extra_networks", "disable_extra_networks: "),
    ],
)  # fmt: skip
def test_what_is_not_possible_is_refused_by_their_name(
    order: Callable[..., Order], fields: dict[str, Any], field: str, said: str
) -> None:
    with pytest.raises(InvalidRequest) as caught:
        order(**fields)
    assert caught.value.field == field
    assert said in caught.value.message


@pytest.mark.parametrize("data", [b"no picture", base64.b64decode(FOX)[:60]])
def test_a_damaged_picture_is_refused_by_name(order: Callable[..., Order], data: bytes) -> None:
    text = base64.b64encode(data).decode()
    for field, fields in (("init_images", {"init_images": [text]}), ("mask", {"mask": text})):
        with pytest.raises(DamagedFile, match=f"^{field}: ") as caught:
            order(**fields)
        assert caught.value.field == field
    with pytest.raises(DamagedFile, match=r"^init_images: "):
        order(init_images=[""])


def test_a_picture_that_was_cut_off_is_said_to_be(order: Callable[..., Order]) -> None:
    text = base64.b64encode(base64.b64decode(FOX)[:60]).decode()
    with pytest.raises(DamagedFile, match=r"is damaged or cut off \(.+\)\. Save or download it again\.$"):
        order(init_images=[text])


@pytest.mark.parametrize("images", [None, []])
def test_no_picture_is_theirs_to_say(order: Callable[..., Order], images: Any) -> None:
    with pytest.raises(NotFound, match=r"^Init image not found$"):
        order(init_images=images)


# -- a running server ---------------------------------------------------------------------------------------------------

SMALL = {"prompt": "a fox", "width": 64, "height": 64, "steps": 3, "seed": 5}
WEBUIAPI = {
    "resize_mode": 0, "denoising_strength": 0.6, "mask_blur": 4, "inpainting_fill": 0, "inpaint_full_res": True,
    "inpaint_full_res_padding": 0, "inpainting_mask_invert": 0, "initial_noise_multiplier": 1, "prompt": "cute cat",
    "styles": [], "seed": 5555, "subseed": -1, "subseed_strength": 0, "seed_resize_from_h": 0, "seed_resize_from_w": 0,
    "batch_size": 1, "n_iter": 1, "steps": 20, "cfg_scale": 6.5, "image_cfg_scale": 1.5, "width": 512, "height": 512,
    "restore_faces": False, "tiling": False, "do_not_save_samples": False, "do_not_save_grid": False,
    "negative_prompt": "", "eta": 1.0, "s_churn": 0, "s_tmax": 0, "s_tmin": 0, "s_noise": 1, "override_settings": {},
    "override_settings_restore_afterwards": True, "sampler_name": "Euler a", "sampler_index": "Euler a",
    "include_init_images": False, "script_name": None, "script_args": [], "send_images": True, "save_images": False,
    "alwayson_scripts": {},
}  # fmt: skip
"""The names and values that webuiapi sends besides the pictures, which it sends as data URIs."""


def newest(studio: Studio) -> GenerationRequest:
    return studio.queue.jobs(limit=1)[0].request


def test_what_curl_sends(client: httpx.Client, studio: Studio) -> None:
    answer = client.post(f"{API}/img2img", json={**SMALL, "init_images": [FOX]})
    assert answer.status_code == 200, answer.text
    found = answer.json()
    assert set(found) == {"images", "parameters", "info"}
    info = json.loads(found["info"])
    assert (info["denoising_strength"], info["all_seeds"], len(found["images"])) == (0.75, [5], 1)
    assert "warnings" not in info
    picture = read_picture(base64.b64decode(found["images"][0], validate=True))
    assert (picture.width, picture.height, picture.infotext) == (64, 64, info["infotexts"][0])
    assert found["parameters"]["init_images"] is None
    assert found["parameters"]["denoising_strength"] == 0.75
    source = newest(studio).source
    assert source is not None
    kept = studio.library.init_image(source.image)
    assert (kept.width, kept.height) == (72, 64)
    assert Path(kept.path).parent == studio.paths.waiting_images, "nothing was saved"
    client.post(f"{API}/img2img", json={**SMALL, "init_images": [FOX], "save_images": True})
    assert Path(studio.library.init_image(source.image).path).parent == studio.paths.outputs / "init-images"


def test_what_webuiapi_sends(client: httpx.Client, studio: Studio) -> None:
    uri = "data:image/png;base64,"
    answer = client.post(f"{API}/img2img", json={**WEBUIAPI, "init_images": [uri + FOX], "mask": uri + HOLE})
    assert answer.status_code == 200, answer.text
    info = json.loads(answer.json()["info"])
    assert "warnings" not in info
    assert (info["denoising_strength"], info["sampler_name"], info["width"]) == (0.6, "Euler a", 512)
    request = newest(studio)
    assert (request.prompt, request.cfg_scale, request.seed, request.steps) == ("cute cat", 6.5, 5555, 20)
    assert request.source == Source(image=request.source.image if request.source else "", denoising_strength=0.6)
    assert request.mask is not None
    assert (request.mask.content, request.mask.area, request.mask.padding) == ("fill", "Only masked", 0)
    assert {"mask", "init_images"} <= {name for name, value in answer.json()["parameters"].items() if value is None}


def test_pictures_are_echoed_where_that_is_asked(client: httpx.Client) -> None:
    asked = {**SMALL, "init_images": [FOX], "mask": HOLE, "include_init_images": True}
    parameters = client.post(f"{API}/img2img", json=asked).json()["parameters"]
    assert (parameters["init_images"], parameters["mask"]) == ([FOX], HOLE)


def test_other_formats_and_many_pixels(client: httpx.Client, studio: Studio) -> None:
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (1500, 1500, 3), np.uint8))
    text = encoded(image)
    assert len(text) > JSON_LIMIT
    answer = client.post(f"{API}/img2img", json={**SMALL, "init_images": [text]})
    assert answer.status_code == 200, answer.text
    for kind in ("JPEG", "WEBP", "GIF"):
        answer = client.post(f"{API}/img2img", json={**SMALL, "init_images": [encoded(image.resize((80, 64)), kind)]})
        assert answer.status_code == 200, answer.text
        source = newest(studio).source
        assert source is not None
        assert studio.library.init_image(source.image).width == 80


@pytest.mark.parametrize(
    "fields, status, field",
    [
        ({}, 404, "init_images"),
        ({"init_images": []}, 404, "init_images"),
        ({"init_images": None}, 404, "init_images"),
        ({"init_images": FOX}, 422, "init_images"),
        ({"init_images": [None]}, 422, "init_images.0"),
        ({"init_images": ["aGVsbG8="]}, 422, "init_images"),
        ({"init_images": [FOX], "mask": "aGVsbG8="}, 422, "mask"),
        ({"init_images": [FOX], "denoising_strength": 2}, 422, "denoising_strength"),
        ({"init_images": [FOX], "denoising_strength": "much"}, 422, "denoising_strength"),
        ({"init_images": [FOX], "resize_mode": 9}, 422, "resize_mode"),
        ({"init_images": [FOX], "mask": HOLE, "mask_blur_y": 8}, 422, "mask_blur_x"),
        ({"init_images": [FOX], "sampler_name": "Eular"}, 400, "sampler_name"),
    ],
)
def test_errors_name_their_field(client: httpx.Client, fields: dict[str, Any], status: int, field: str) -> None:
    answer = client.post(f"{API}/img2img", json={**SMALL, **fields})
    assert (answer.status_code, answer.json()["error"]["field"]) == (status, field)
    assert isinstance(answer.json()["detail"], str)
    if status == 404:
        assert answer.json()["detail"] == "Init image not found"


THEIR_TEXT = (
    "an owl\nNegative prompt: blurry\nSteps: 7, Sampler: Euler, Schedule type: Automatic, CFG scale: 4, Seed: 9, Size: 64x64, "
    "Model hash: 0123456789, Model: sprout, Denoising strength: 0.35, Mask mode: Inpaint not masked, Mask blur: 6, "
    "Inpaint area: Only masked, Masked area padding: 48, Version: v1.10.1"
)


def test_a_text_of_theirs_fills_what_is_not_given(client: httpx.Client, studio: Studio) -> None:
    """It does not name its pictures; those of the body are taken."""
    for fields, source, mask in (
        ({}, {"denoising_strength": 0.35}, {"blur": 6, "area": "Only masked", "padding": 48, "inverted": True}),
        (
            {"denoising_strength": 0.5, "mask_blur": 2, "inpaint_full_res": False, "inpainting_mask_invert": 0},
            {"denoising_strength": 0.5},
            {"blur": 2},  # the padding does not act on the whole picture
        ),
    ):
        body = {"init_images": [FOX], "mask": HOLE, "infotext": THEIR_TEXT, **fields}
        answer = client.post(f"{API}/img2img", json=body)
        assert answer.status_code == 200, answer.text
        request = newest(studio)
        assert (request.prompt, request.steps, request.seed, request.width) == ("an owl", 7, 9, 64)
        assert request.source is not None
        assert request.mask is not None
        assert request.source == Source(image=request.source.image, **source)
        assert request.mask == Mask(image=request.mask.image, **mask)
        assert "0" * 32 not in (request.source.image, request.mask.image)


def test_an_answers_text_paints_the_same_again(client: httpx.Client, studio: Studio) -> None:
    first = {**SMALL, "init_images": [FOX], "mask": HOLE, "denoising_strength": 0.3, "mask_blur": 9, "resize_mode": 2,
             "inpaint_full_res": False, "inpaint_full_res_padding": 32}  # fmt: skip
    text = json.loads(client.post(f"{API}/img2img", json=first).json()["info"])["infotexts"][0]
    request = newest(studio)
    assert client.post(f"{API}/img2img", json={"init_images": [FOX], "mask": HOLE, "infotext": text}).status_code == 200
    assert newest(studio) == request


def test_a_branch_begins_with_its_origins_picture(client: httpx.Client, studio: Studio) -> None:
    asked = {**SMALL, "steps": 8, "init_images": [FOX]}
    text = json.loads(client.post(f"{API}/img2img", json=asked).json()["info"])["infotexts"][0]
    origin = newest(studio).source
    branch = {"step": 2, "origin": text}
    answer = client.post(f"{API}/txt2img", json={"prompt": "an owl", "branch": branch})
    assert answer.status_code == 200, answer.text
    assert newest(studio).source == origin
    assert "warnings" not in json.loads(answer.json()["info"])
    answer = client.post(f"{API}/img2img", json={"prompt": "an owl", "branch": branch, "init_images": [FOX]})
    assert answer.status_code == 200, answer.text
    assert newest(studio).source == origin
    other = client.post(f"{API}/img2img", json={"branch": branch, "init_images": [HOLE]})
    assert (other.status_code, other.json()["error"]["field"]) == (422, "init_images")
    second = client.post(f"{API}/txt2img", json={"branch": branch, "enable_hr": True})
    assert (second.status_code, second.json()["error"]["field"]) == (422, "enable_hr")


def test_a_picture_that_is_gone_has_their_name() -> None:
    for ours, theirs in (("source", "init_images"), ("source.image", "init_images"), ("mask.image", "mask")):
        assert in_their_words(UnknownName("It is gone.", field=ours)).field == theirs


def test_progress_names_the_kind_of_job(folder: Path) -> None:
    with (
        serving(make_studio(folder, FakeEngine(step_seconds=0.05))) as url,
        httpx.Client(base_url=url, timeout=30) as client,
    ):
        body = {**SMALL, "steps": 60, "init_images": [FOX]}
        thread = threading.Thread(target=lambda: httpx.post(f"{url}{API}/img2img", json=body, timeout=30))
        thread.start()
        while not (state := client.get(f"{API}/progress").json()["state"])["sampling_step"]:
            time.sleep(0.01)
        assert state["job"] == "img2img"
        client.post(f"{API}/interrupt")
        thread.join(20)


def test_txt2img_sends_pictures_to_img2img(client: httpx.Client) -> None:
    for fields in ({"init_images": [FOX]}, {"mask": HOLE}):
        answer = client.post(f"{API}/txt2img", json={**SMALL, **fields})
        assert answer.status_code == 422
        assert "/sdapi/v1/img2img" in answer.json()["detail"]


def test_the_native_route_takes_the_parts_as_they_are(client: httpx.Client, studio: Studio) -> None:
    name = studio.library.init_images.keep(base64.b64decode(FOX)).name
    hole = studio.library.init_images.keep_mask(base64.b64decode(HOLE)).name
    parts = {"source": {"image": name, "denoising_strength": 0.5}, "mask": {"image": hole, "area": "Only masked"}}
    answer = client.post("/studio/v1/generate", json={**SMALL, **parts})
    assert answer.status_code < 300, answer.text
    request = studio.queue.job(answer.json()["id"]).request
    assert request.source == Source(image=name, denoising_strength=0.5)
    assert request.mask == Mask(image=hole, area="Only masked")
    for wrong, field in (
        ({"mask": {"image": hole}}, "mask"),
        ({"source": {"image": "../x"}}, "source.image"),
        ({"source": {"image": name, "denoising_strength": 3}}, "source.denoising_strength"),
    ):
        refused = client.post("/studio/v1/generate", json={**SMALL, **wrong})
        assert (refused.status_code, refused.json()["error"]["field"]) == (422, field)


# -- the script SD upscale ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments, expected",
    [
        ([], SdUpscale(upscaler="None")),
        ([None, 32, "R-ESRGAN 2x+", 1.5], SdUpscale(upscaler="R-ESRGAN 2x+", overlap=32, scale_factor=1.5)),
        (["", 64, 1], SdUpscale(upscaler="Lanczos")),
    ],
)
def test_its_arguments_mean_a_part(order: Callable[..., Order], arguments: list[Any], expected: SdUpscale) -> None:
    assert order(script_name="SD upscale", script_args=arguments).request.sd_upscale == expected


def test_without_the_script_there_are_no_tiles_but_those_of_the_text(keeper: InitImages) -> None:
    told = {"source": {"image": "0" * 32}, "sd_upscale": {"upscaler": "Lanczos", "overlap": 16}}

    def request(**fields: Any) -> GenerationRequest:
        body = Img2ImgBody.model_validate({"init_images": [FOX], "infotext": "x", **fields})
        return img2img_order(body, Context(DEFAULTS, lambda text: told, 2), keeper).request

    assert request().sd_upscale == SdUpscale(upscaler="Lanczos", overlap=16)
    assert request(script_name="sd upscale", script_args=[None, 8]).sd_upscale == SdUpscale(upscaler="None", overlap=8)
    body = Txt2ImgBody.model_validate({"infotext": "x"})
    assert txt2img_order(body, Context(DEFAULTS, lambda text: told, 2)).request.sd_upscale is None


@pytest.mark.parametrize(
    "arguments, field, words",
    [
        ([None, 64, 9, 2], "script_args.upscaler", "no upscaler 9; numbers go from 0 to 2"),
        ([None, 64, True, 2], "script_args.upscaler", "no upscaler True"),
        ([None, 300], "script_args.overlap", "script_args.overlap = 300"),
        ([None, 64, "None", 5], "script_args.scale_factor", "4"),
        ([None] * 5, "script_args", "takes 4 at most"),
    ],
)
def test_arguments_that_are_not_possible(
    order: Callable[..., Order], arguments: list[Any], field: str, words: str
) -> None:
    with pytest.raises(InvalidRequest) as caught:
        order(script_name="SD upscale", script_args=arguments)
    assert caught.value.field == field
    assert words in caught.value.message


def test_tiles_over_http(client: httpx.Client, studio: Studio) -> None:
    """A number counts in the list of the upscalers; the answer's text has A1111's keys."""
    script = {"script_name": "SD upscale", "script_args": [None, 16, 4, 2], "n_iter": 2, "batch_size": 2}
    body = {"prompt": "a fox", "steps": 2, "seed": 5, "width": 64, "height": 64, "init_images": [FOX], **script}
    answer = client.post(f"{API}/img2img", json=body)
    assert answer.status_code == 200, answer.text
    assert len(answer.json()["images"]) == 2
    info = json.loads(answer.json()["info"])
    assert info["all_seeds"] == [5, 6]
    assert (
        "SD upscale overlap: 16, SD upscale upscaler: R-ESRGAN 2x+, SD upscale scale factor: 2.0"
        in info["infotexts"][0]
    )
    request = studio.queue.jobs(limit=1)[0].request
    assert request.sd_upscale == SdUpscale(upscaler="sub/RealESRGAN_x2plus", overlap=16)
    refused = client.post(f"{API}/txt2img", json={"script_name": "SD upscale"})
    assert (refused.status_code, refused.json()["error"]["field"]) == (422, "script_name")
    gone = client.post(f"{API}/img2img", json={**body, "script_args": [None, 16, "8x-Gone", 2]})
    assert (gone.status_code, gone.json()["error"]["field"]) == (400, "script_args.upscaler")

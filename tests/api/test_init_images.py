"""Pictures to begin with over HTTP: kept, named, given back."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from studio.api import guard
from studio.app import Studio
from tests.api.test_native import V1, ended, generate

KEPT = f"{V1}/init-images"


def encoded(image: Image.Image, kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return buffer.getvalue()


def keep(client: httpx.Client, data: bytes, kind: str = "image/png", **query: Any) -> httpx.Response:
    return client.post(KEPT, content=data, headers={"Content-Type": kind}, params=query)


def pixels(client: httpx.Client, name: str) -> np.ndarray[Any, np.dtype[np.uint8]]:
    with Image.open(io.BytesIO(client.get(f"{KEPT}/{name}.png").content)) as image:
        return np.asarray(image)


def test_a_picture_is_kept_and_given_back(client: httpx.Client, studio: Studio) -> None:
    asked = np.random.default_rng(3).integers(0, 256, (40, 24, 3), dtype=np.uint8)
    answer = keep(client, encoded(Image.fromarray(asked)))
    assert answer.status_code == 200
    told = answer.json()
    assert (told["width"], told["height"]) == (24, 40)
    assert (studio.paths.waiting_images / f"{told['name']}.png").is_file()
    np.testing.assert_array_equal(pixels(client, told["name"]), asked)
    assert keep(client, encoded(Image.fromarray(asked), "WEBP"), "image/webp").json().keys() == told.keys()
    bare = keep(client, encoded(Image.fromarray(asked), "BMP"), "application/octet-stream")
    assert bare.status_code == 422, "a format that is not taken"


def test_a_mask_is_kept_as_its_transparency_or_its_brightness(client: httpx.Client) -> None:
    painted = np.zeros((8, 8, 4), np.uint8)
    painted[2:4, 2:4] = (255, 0, 0, 255)
    name = keep(client, encoded(Image.fromarray(painted)), mask=True).json()["name"]
    expected = np.zeros((8, 8), np.uint8)
    expected[2:4, 2:4] = 255
    np.testing.assert_array_equal(pixels(client, name), expected)
    assert keep(client, encoded(Image.fromarray(expected)), mask=True).json()["name"] == name
    assert keep(client, encoded(Image.fromarray(expected))).json()["name"] != name, "as a picture it has three channels"


def test_a_finished_picture_becomes_one_to_begin_with(client: httpx.Client) -> None:
    image = ended(client, generate(client)["id"])["images"][0]
    told = client.post(f"{KEPT}/from-image/{image['id']}").json()
    assert (told["width"], told["height"]) == (64, 64)
    with Image.open(Path(image["path"])) as file:
        np.testing.assert_array_equal(pixels(client, told["name"]), np.asarray(file.convert("RGB")))
    gone = client.post(f"{KEPT}/from-image/999999")
    assert (gone.status_code, gone.json()["error"]["code"]) == (404, "not_found")


def test_it_is_served_like_other_pictures(client: httpx.Client) -> None:
    name = keep(client, encoded(Image.new("RGB", (8, 8)))).json()["name"]
    answer = client.get(f"{KEPT}/{name}.png")
    assert answer.headers["content-type"] == "image/png"
    assert answer.headers["content-security-policy"] == "default-src 'none'; sandbox"
    assert answer.headers["cache-control"] == "private, no-cache"
    again = client.get(f"{KEPT}/{name}.png", headers={"If-None-Match": answer.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")


def test_one_that_is_gone_is_said(client: httpx.Client, studio: Studio) -> None:
    name = keep(client, encoded(Image.new("RGB", (9, 9)))).json()["name"]
    tag = {"If-None-Match": f'"{name}"'}
    (studio.paths.waiting_images / f"{name}.png").unlink()
    answer = client.get(f"{KEPT}/{name}.png", headers=tag)
    assert answer.status_code == 404
    assert answer.json()["error"]["message"] == f"The picture {name} is not kept any more."


@pytest.mark.parametrize("name", ["x", "0" * 31, "0" * 33, "A" * 32, "..%2f..%2f" + "0" * 22, "%00" + "0" * 31])
def test_only_names_are_looked_up(client: httpx.Client, name: str) -> None:
    answer = client.get(f"{KEPT}/{name}.png")
    assert answer.status_code in (404, 422)
    assert answer.json()["error"]["message"]


@pytest.mark.parametrize("query", [{}, {"mask": True}])
@pytest.mark.parametrize("body", [b"", b"no picture at all", b"\x89PNG\r\n\x1a\n" + b"x" * 40])
def test_what_is_no_picture_is_refused(
    client: httpx.Client, studio: Studio, body: bytes, query: dict[str, Any]
) -> None:
    before = list(studio.paths.init_images.glob("*"))
    answer = keep(client, body, **query)
    assert answer.status_code == 422
    assert answer.json()["error"]["code"] == "damaged_file"
    assert list(studio.paths.init_images.glob("*")) == before


def test_forms_of_other_pages_cannot_send_any(client: httpx.Client) -> None:
    assert keep(client, b"a=1", "application/x-www-form-urlencoded").status_code == 415
    assert guard.INTAKES[KEPT] is guard.PICTURE_INTAKE

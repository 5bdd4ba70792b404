"""Data sets over HTTP: an upload, its report, its captions; and who may not read what."""

from __future__ import annotations

import time
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image

from studio.api import guard
from studio.api.native import datasets as routes
from studio.app import Studio
from tests.api.stand_in import make_studio, serving
from tests.training.data import drawn

V1 = "/studio/v1/training/datasets"
ZIP = {"Content-Type": "application/zip"}


def send(client: httpx.Client, data: bytes, name: str = "foxes.zip") -> httpx.Response:
    return client.post(f"{V1}/upload", params={"name": name}, content=data, headers=ZIP)


def packed(folder: Path) -> bytes:
    return drawn.zipped(drawn.kohya(folder / "set"), folder / "set.zip").read_bytes()


def test_from_the_upload_to_the_edited_caption(client: httpx.Client, studio: Studio, folder: Path) -> None:
    answer = send(client, packed(folder))
    assert answer.status_code == 200, answer.text
    name = answer.json()["upload"]
    assert name in client.get(V1).json()
    report = client.post(f"{V1}/inspect", json={"upload": name, "resolution": 256, "epochs": 2, "batch": 4}).json()
    assert (report["format"], report["pictures"], report["problems"]) == ("kohya", 3, [])
    assert report["expectation"]["steps"] == 2 * 6
    assert Path(report["path"]) == studio.paths.datasets / name
    page = client.get(f"{V1}/captions", params={"upload": name, "offset": 1, "limit": 1}).json()
    assert page["total"] == 3
    entry = page["entries"][0]
    assert (entry["name"], entry["captions"]) == ("10_sks dog/b.png", ["sks dog"])
    edit = client.put(f"{V1}/captions", json={"upload": name, "name": entry["name"], "captions": ["new"]})
    assert edit.json() == {"name": entry["name"], "former": []}
    again = client.get(f"{V1}/captions", params={"upload": name, "offset": 1, "limit": 1}).json()
    assert again["entries"][0]["captions"] == ["new"]
    small = client.get(f"{V1}/thumbnail", params={"upload": name, "name": entry["name"]})
    assert small.headers["content-type"] == "image/jpeg"
    assert "sandbox" in small.headers["content-security-policy"]
    assert Image.open(BytesIO(small.content)).size == (48, 48)
    assert client.get(f"{V1}/thumbnail", params={"upload": name, "name": "../x"}).status_code == 404
    assert not list(studio.paths.uploads.glob("*.zip"))


def test_captions_by_a_captioner(client: httpx.Client, folder: Path) -> None:
    root = folder / "named"
    drawn.save(root / "7-red_fox.png", 1)
    named = {one["name"]: one["problem"] for one in client.get(f"{V1}/captioners").json()}
    assert named["file-name"] == ""
    missing = client.post(f"{V1}/captioning", json={"path": str(root), "captioner": "blip"})
    assert (missing.status_code, missing.json()["error"]["message"]) == (404, named["blip"])
    started = client.post(f"{V1}/captioning", json={"path": str(root), "captioner": "file-name"})
    assert started.json()["state"] == "running"
    deadline = time.monotonic() + 60
    while (task := client.get(f"{V1}/captioning").json())["state"] == "running":
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert (task["state"], task["written"]) == ("finished", 1)
    assert (root / "7-red_fox.txt").read_text().strip() == "red fox"
    assert client.delete(f"{V1}/captioning").json() == task


@pytest.mark.parametrize(
    "body, status, said",
    [
        ({}, 422, "one of both"),
        ({"path": "/no/such/folder"}, 422, "no data set"),
        ({"upload": "../../etc"}, 403, "not"),
        ({"upload": "absent"}, 404, "absent"),
        ({"path": "x", "resolution": 20}, 422, "multiple of 8"),
        ({"path": "x", "colour": 1}, 422, "colour"),
        ({"path": "x", "format": "parket"}, 422, "no data set"),
        ({"path": "x", "epochs": 0}, 422, "epochs"),
        ({"path": "x" * 5000}, 422, "path"),
        ({"path": "a\0b"}, 422, "path"),
        ({"path": "\ud800"}, 422, "path"),
    ],
)
def test_what_is_not_possible(client: httpx.Client, body: dict[str, Any], status: int, said: str) -> None:
    import json

    content = json.dumps(body).encode()
    answer = client.post(f"{V1}/inspect", content=content, headers={"Content-Type": "application/json"})
    assert answer.status_code == status, answer.text
    assert said in answer.json()["detail"]


def test_a_folder_anywhere_for_a_caller_at_this_machine(client: httpx.Client, folder: Path) -> None:
    drawn.folder(folder / "private", 2)
    answer = client.post(f"{V1}/inspect", json={"path": str(folder / "private")})
    assert answer.json()["pictures"] == 2


@pytest.fixture(scope="module")
def exposed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[httpx.Client, Studio]]:
    """A server that others may reach."""
    studio = make_studio(tmp_path_factory.mktemp("exposed"))
    studio.exposed = True
    with serving(studio) as url, httpx.Client(base_url=url, timeout=30) as http:
        yield http, studio


def test_others_reach_the_data_folder_only(exposed: tuple[httpx.Client, Studio], folder: Path) -> None:
    client, studio = exposed
    drawn.folder(folder / "private", 2)
    drawn.folder(studio.paths.root / "shared", 2)
    (studio.paths.root / "link").symlink_to(folder / "private")
    for path in (str(folder / "private"), "link", f"../{folder.name}/private"):
        refused = [
            client.post(f"{V1}/inspect", json={"path": path}),
            client.get(f"{V1}/captions", params={"path": path}),
            client.get(f"{V1}/thumbnail", params={"path": path, "name": "000.png"}),
            client.put(f"{V1}/captions", json={"path": path, "name": "000.png", "captions": ["x"]}),
            client.post(f"{V1}/captioning", json={"path": path, "captioner": "file-name", "replace": True}),
        ]
        assert [answer.status_code for answer in refused] == [403] * 5, path
    assert client.post(f"{V1}/inspect", json={"path": "shared"}).json()["pictures"] == 2
    assert (folder / "private" / "000.txt").read_text() == drawn.caption(0)


def test_a_table_cannot_show_files_of_others(exposed: tuple[httpx.Client, Studio], folder: Path) -> None:
    client, studio = exposed
    secret = drawn.save(folder / "secret.png", 1)
    root = studio.paths.root / "table"
    drawn.save(root / "a.png", 2)
    (root / "metadata.csv").write_text(f"file_name,text\na.png,x\n{secret},x\n../../{folder.name}/secret.png,x\n")
    report = client.post(f"{V1}/inspect", json={"path": "table"}).json()
    assert (report["pictures"], report["problem_count"]) == (1, 2)


def test_uploads_that_are_refused_leave_nothing(client: httpx.Client, studio: Studio, folder: Path) -> None:
    before = client.get(V1).json()
    import zipfile

    out = BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as bomb:
        bomb.writestr("a.bmp", bytes(100_000_000))
    assert send(client, out.getvalue()).status_code == 422
    assert send(client, b"no zip").status_code == 422
    assert send(client, b"").status_code == 422
    for kind in ("text/plain", "multipart/form-data; boundary=x", "application/x-www-form-urlencoded"):
        answer = client.post(f"{V1}/upload", content=b"x", headers={"Content-Type": kind})
        assert answer.status_code == 415
    assert client.get(V1).json() == before
    assert not list(studio.paths.uploads.glob("*.zip"))


@pytest.mark.parametrize("name", ["../../evil", "/etc/x", "a\\b", "CON", "<img src=x>", "x" * 150, "", "..zip"])
def test_any_name_of_an_upload_is_a_name_in_the_folder(
    name: str, client: httpx.Client, studio: Studio, folder: Path
) -> None:
    given = send(client, packed(folder), name).json()["upload"]
    assert (studio.paths.datasets / given).is_dir()
    assert not set(given) & set("/\\<>:")


def test_an_upload_above_the_limit(client: httpx.Client, studio: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    small = guard.Intake(1000, ("application/zip",))
    monkeypatch.setitem(guard.INTAKES, f"{V1}/upload", small)

    def body() -> Iterator[bytes]:
        yield from (b"x" * 400 for _ in range(10))

    assert client.post(f"{V1}/upload", content=b"x" * 1001, headers=ZIP).status_code == 413
    assert client.post(f"{V1}/upload", content=body(), headers=ZIP).status_code == 413
    assert not list(studio.paths.uploads.glob("*.zip"))


def test_an_upload_that_the_disk_does_not_hold(
    client: httpx.Client, studio: Studio, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(routes, "SPARE", 1 << 60)
    answer = send(client, b"x" * 1000)
    assert answer.status_code == 507
    assert "too full" in answer.json()["detail"]
    assert not list(studio.paths.uploads.glob("*.zip"))


def test_captions_that_cannot_be_stored(client: httpx.Client, folder: Path) -> None:
    root = drawn.folder(folder / "set", 2)
    for captions in (["a\nb"], ["x" * 10_001], ["x"] * 65):
        body = {"path": str(root), "name": "000.png", "captions": captions}
        assert client.put(f"{V1}/captions", json=body).status_code == 422
    missing = client.put(f"{V1}/captions", json={"path": str(root), "name": "no.png", "captions": ["x"]})
    assert missing.status_code == 404
    assert (root / "000.txt").read_text() == drawn.caption(0)

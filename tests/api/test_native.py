"""The studio's own API on a running server."""

from __future__ import annotations

import io
import subprocess
import time
import zipfile
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import save

from studio.app import Studio
from studio.engine.fake import FakeEngine
from studio.errors import StorageError
from studio.jobs import JobStore
from studio.paths import Paths
from studio.schema.models import ModelInfo
from tests.api.stand_in import make_studio, serving

V1 = "/studio/v1"
SMALL = {"prompt": "a fox", "width": 64, "height": 64, "steps": 3, "seed": 5}


def generate(client: httpx.Client, **fields: Any) -> dict[str, Any]:
    answer = client.post(f"{V1}/generate", json={**SMALL, **fields})
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def ended(client: httpx.Client, job_id: int) -> dict[str, Any]:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        job = client.get(f"{V1}/jobs/{job_id}").json()
        if job["status"] not in ("queued", "running"):
            return dict(job)
        time.sleep(0.02)
    raise AssertionError(f"job {job_id} did not end")


def test_from_the_request_to_the_file(client: httpx.Client, studio: Studio) -> None:
    job = generate(client, batch_size=2)
    assert job["source"] == "api"
    done = ended(client, job["id"])
    assert done["status"] == "done"
    assert done["request"]["model"] == "sprout"
    first = done["images"][0]
    picture = client.get(first["url"])
    assert picture.headers["content-type"] == "image/png"
    assert picture.content == Path(first["path"]).read_bytes()
    assert "sandbox" in picture.headers["content-security-policy"]
    again = client.get(first["url"], headers={"If-None-Match": picture.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    small = client.get(f"{V1}/images/{first['id']}/small")
    assert (small.content, small.headers["etag"]) == (picture.content, picture.headers["etag"])  # 64 pixels fit a tile
    again = client.get(f"{V1}/images/{first['id']}/small", headers={"If-None-Match": small.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    saved = client.get(first["url"], params={"download": 1})
    assert saved.headers["content-disposition"] == f'attachment; filename="{Path(first["path"]).name}"'
    listed = client.get(f"{V1}/images", params={"limit": 1}).json()
    assert listed == [done["images"][1]]
    assert client.get(f"{V1}/images", params={"limit": 1, "before": listed[0]["id"]}).json() == [first]
    steps = client.get(f"{V1}/jobs/{job['id']}/progress").json()
    assert [step["step"] for step in steps] == [1, 2, 3]
    preview = client.get(steps[1]["preview_urls"][1])
    assert preview.headers["content-type"] == "image/jpeg"
    assert preview.content[:2] == b"\xff\xd8"


@pytest.mark.parametrize("kind, content_type", [("jpg", "image/jpeg"), ("webp", "image/webp"), ("avif", "image/avif")])
def test_a_picture_is_served_in_the_format_it_was_saved_in(client: httpx.Client, kind: str, content_type: str) -> None:
    job = generate(client, options={"file_format": kind})
    record = ended(client, job["id"])["images"][0]
    assert record["path"].endswith(f".{kind}")
    picture = client.get(record["url"], params={"download": 1})
    assert picture.headers["content-type"] == content_type
    assert f'{kind}"' in picture.headers["content-disposition"]
    answer = client.post(f"{V1}/picture-info", content=picture.content, headers={"Content-Type": content_type}).json()
    assert answer["infotext"] == record["infotext"]


def test_what_is_not_given_is_what_a_fresh_form_shows(client: httpx.Client) -> None:
    job = client.post(f"{V1}/generate", json={"prompt": "x"}).json()
    request = job["request"]
    assert (request["width"], request["sampler"], request["steps"]) == (128, "DPM++ 2M", 20)
    other = client.post(f"{V1}/generate", json={"model": "oak/old", "steps": 1}).json()
    assert (other["request"]["width"], other["request"]["model"]) == (512, "oak/old")
    assert (
        client.post(f"{V1}/generate", json={"steps": 1, "options": {"save": False}}).json()["options"]["save"] is False
    )


@pytest.mark.parametrize(
    "fields, status, field",
    [
        ({"steps": 0}, 422, "steps"),
        ({"width": 63}, 422, "width"),
        ({"height": 100_000}, 422, "height"),
        ({"cfg_scale": "nan"}, 422, "cfg_scale"),
        ({"steps": "many"}, 422, "steps"),
        ({"sampler": "Eular"}, 400, "sampler"),
        ({"schedule": "Karas"}, 400, "schedule"),
        ({"model": "sprot"}, 404, "model"),
        ({"model": "broken"}, 422, "model"),
        ({"prompt": "<lora:inc:1>"}, 400, "prompt"),
        ({"prompt": "x" * 50_001}, 422, "prompt"),
        ({"hologram": True}, 422, "hologram"),
        ({"options": {"output_dir": "/etc"}}, 403, "options.output_dir"),
        ({"width": 2048, "height": 2048, "batch_size": 16}, 422, "batch_size"),
    ],
)
def test_bad_requests_name_the_field(client: httpx.Client, fields: dict[str, Any], status: int, field: str) -> None:
    answer = client.post(f"{V1}/generate", json={**SMALL, **fields})
    assert answer.status_code == status
    error = answer.json()["error"]
    assert error["field"] == field
    assert answer.json()["detail"] == error["message"]
    assert len(error["message"]) < 500


def test_a_large_picture_comes_small_for_a_tile(client: httpx.Client) -> None:
    image = ended(client, generate(client, width=1024, height=512)["id"])["images"][0]
    small = client.get(f"{V1}/images/{image['id']}/small")
    assert small.headers["content-type"] == "image/jpeg"
    assert Image.open(io.BytesIO(small.content)).size == (384, 192)
    assert "sandbox" in small.headers["content-security-policy"]


def test_near_matches_are_told(client: httpx.Client) -> None:
    error = client.post(f"{V1}/generate", json={"sampler": "Eular"}).json()["error"]
    assert "Euler" in error["choices"]
    assert "'Euler'" in error["message"]


@pytest.mark.parametrize(
    "method, path, status",
    [
        ("GET", "/jobs/999", 404),
        ("GET", "/jobs/99999999999999999999", 404),
        ("GET", "/jobs/x", 422),
        ("POST", "/jobs/999/cancel", 404),
        ("POST", "/jobs/999/retry", 404),
        ("GET", "/jobs/999/progress", 404),
        ("GET", "/images/999.png", 404),
        ("GET", "/images/-999.png", 404),
        ("GET", "/images/999/small", 404),
        ("GET", "/images/..%2f..%2fetc%2fpasswd.png", 404),
        ("GET", "/images.zip?ids=1,x", 422),
        ("GET", "/images.zip?ids=999", 404),
        ("GET", "/images?limit=0", 422),
        ("GET", "/jobs/1/previews/0/0/../../../x.jpg", 404),
        ("GET", "/jobs/1/previews/0/99/0.jpg", 404),
        ("GET", "/loras/preview?name=nope", 400),
        ("GET", "/loras/preview?name=ink", 404),
        ("GET", "/no/such/route", 404),
        ("DELETE", "/jobs/1", 405),
        ("GET", "/form/..%2f..%2fx", 404),
        ("GET", "/form/a%20b", 422),
    ],
)
def test_what_is_not_there(client: httpx.Client, method: str, path: str, status: int) -> None:
    answer = client.request(method, f"{V1}{path}")
    assert answer.status_code == status or (status == 405 and answer.status_code == 404)
    assert answer.json()["error"]["message"]


def test_a_picture_is_painted_again_and_compared(client: httpx.Client) -> None:
    image = ended(client, generate(client)["id"])["images"][0]
    png = client.get(image["url"]).content
    begun = client.post(f"{V1}/reproduce", content=png, headers={"Content-Type": "image/png"})
    assert begun.status_code == 200 and begun.json()["outcome"] is None
    job = begun.json()["job"]
    assert (job["source"], job["options"]["save"]) == ("reproduce", False)
    ended(client, job["id"])
    outcome = client.get(f"{V1}/reproduce/{job['id']}").json()["outcome"]
    assert (outcome["equal"], outcome["largest_difference"], outcome["causes"]) == (True, 0, [])
    other = client.get(f"{V1}/reproduce/{image['job_id']}")
    assert (other.status_code, other.json()["error"]["code"]) == (404, "not_found")
    bare = client.post(f"{V1}/reproduce", content=b"no picture", headers={"Content-Type": "image/png"})
    assert bare.status_code == 422


def test_a_zip_of_pictures(client: httpx.Client) -> None:
    images = ended(client, generate(client, batch_count=3)["id"])["images"]
    answer = client.get(f"{V1}/images.zip", params={"ids": ",".join(str(image["id"]) for image in images)})
    assert answer.headers["content-type"] == "application/zip"
    assert "_[sprout]_5-7.zip" in answer.headers["content-disposition"]
    with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
        assert len(archive.namelist()) == 3
        assert all(Path(name).name == name for name in archive.namelist())
        assert archive.read(archive.namelist()[0]) == client.get(images[0]["url"]).content


def test_a_picture_tells_its_request(client: httpx.Client) -> None:
    image = ended(client, generate(client, prompt="a fox, 日本語")["id"])["images"][0]
    png = client.get(image["url"]).content
    answer = client.post(f"{V1}/picture-info", content=png, headers={"Content-Type": "image/png"}).json()
    assert answer["infotext"] == image["infotext"]
    assert answer["request"]["prompt"] == "a fox, 日本語"
    assert answer["request"]["seed"] == 5
    text = client.post(f"{V1}/infotext", json={"text": image["infotext"]}).json()
    assert text["request"] == answer["request"]
    broken = client.post(f"{V1}/picture-info", content=b"GIF89a" + b"x" * 50, headers={"Content-Type": "image/png"})
    assert broken.status_code == 422
    empty = client.post(f"{V1}/picture-info", content=b"", headers={"Content-Type": "image/png"})
    assert empty.status_code == 422


def test_tokens_forms_and_settings(client: httpx.Client, studio: Studio) -> None:
    assert client.post(f"{V1}/tokens", json={"text": "a red fox"}).json() == {"used": 3, "limit": 75}
    assert client.get(f"{V1}/form/tab-1").json() is None
    client.put(f"{V1}/form/tab-1", json={"prompt": "x"})
    assert client.get(f"{V1}/form/tab-1").json() == {"prompt": "x"}
    answer = client.get(f"{V1}/settings").json()
    assert "auth" not in answer["values"]
    assert answer["fields"]["default_steps"]["maximum"] == 150
    changed = client.patch(f"{V1}/settings", json={"default_steps": 7, "sd_model_checkpoint": "sprout [0123456789]"})
    assert changed.json()["default_steps"] == 7
    assert studio.settings.sd_model_checkpoint == "sprout"
    client.patch(f"{V1}/settings", json={"default_steps": 20})


@pytest.mark.parametrize(
    "changes, status",
    [
        *[({name: value}, 403) for name, value in
          {"host": "0.0.0.0", "port": 1, "listen": True, "share": True, "auth": "a:b", "max_queue": 5, "browser": False}.items()],
        ({"default_steps": 0}, 422), ({"theme": "pink"}, 422), ({"no_such": 1}, 400), ({"sd_model_checkpoint": "nope"}, 404),
        ({"default_sampler": "Eular"}, 400), ({"sd_vae": "nope"}, 404), ({"default_steps": 9, "host": "x"}, 403),
    ],
)  # fmt: skip
def test_settings_that_are_refused_change_nothing(
    client: httpx.Client, studio: Studio, changes: dict[str, Any], status: int
) -> None:
    before = studio.settings
    answer = client.patch(f"{V1}/settings", json=changes)
    assert answer.status_code == status
    assert answer.json()["error"]["field"] or status == 404
    assert studio.settings == before


def test_lists_and_state(client: httpx.Client, studio: Studio) -> None:
    assert [model["name"] for model in client.get(f"{V1}/models").json()] == ["sprout", "oak/old", "broken"]
    assert client.get(f"{V1}/vaes").json()[0]["name"] == "sharp"
    assert [each["kind"] for each in client.get(f"{V1}/text-encoders").json()] == ["text_encoder"]
    assert client.get(f"{V1}/loras").json()[0]["alias"] == "ink-style"
    assert [each["name"] for each in client.get(f"{V1}/embeddings").json()] == ["soft/wash", "grand", "pickled"]
    assert [each["name"] for each in client.get(f"{V1}/hypernetworks").json()] == ["anime", "cracked"]
    assert "Euler a" in [sampler["name"] for sampler in client.get(f"{V1}/samplers").json()]
    assert {"name": "karras", "label": "Karras", "aliases": []} in client.get(f"{V1}/schedules").json()
    before = studio.library.refreshed  # type: ignore[attr-defined]
    assert client.post(f"{V1}/refresh").json() == {"ok": True}
    assert studio.library.refreshed == before + 1  # type: ignore[attr-defined]
    state = client.get(f"{V1}/state").json()
    assert state["engine"]["state"] == "ready"
    assert state["checkpoint"] == "sprout [0123456789]"
    assert (state["running"], state["waiting"], state["exposed"]) == (None, 0, False)


def test_a_preview_beside_a_lora_is_served_by_its_content(
    client: httpx.Client, studio: Studio, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.api.stand_in import model

    file = folder / "ink.preview.png"
    monkeypatch.setattr(studio.library, "lora", lambda name: model("lora", "ink", preview=str(file)))
    file.write_bytes(b"\x89PNG\r\n\x1a\n...")
    answer = client.get(f"{V1}/loras/preview", params={"name": "ink"})
    assert (answer.status_code, answer.headers["content-type"]) == (200, "image/png")
    file.write_bytes(b"<html><script>alert(1)</script>")
    assert client.get(f"{V1}/loras/preview", params={"name": "ink"}).status_code == 404


def test_embeddings_have_previews_too(
    client: httpx.Client, studio: Studio, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.api.stand_in import model

    file = folder / "wash.png"
    file.write_bytes(b"\x89PNG\r\n\x1a\n...")
    monkeypatch.setattr(studio.library, "embedding", lambda name: model("embedding", name, preview=str(file)))
    answer = client.get(f"{V1}/embeddings/preview", params={"name": "soft/wash"})
    assert (answer.status_code, answer.headers["content-type"]) == (200, "image/png")
    file.unlink()
    answer = client.get(f"{V1}/embeddings/preview", params={"name": "soft/wash"})
    assert (answer.status_code, "Embedding 'soft/wash'" in answer.text) == (404, True)


def test_embeddings_count_and_tell_when_they_are_not_used(client: httpx.Client) -> None:
    assert client.post(f"{V1}/tokens", json={"text": "a wash fox"}).json() == {"used": 6, "limit": 75}
    assert client.post(f"{V1}/tokens", json={"text": "(wash:1.2.3)"}).json()["used"] > 4, "a weight being typed"
    answer = generate(client, prompt="a wash fox, grand")
    assert ["'grand' was made for Stable Diffusion XL" in note for note in answer["notes"]] == [True]
    assert client.get(f"{V1}/jobs/{answer['id']}").json()["notes"] == []


def test_open_folder_takes_ids_and_no_shell(
    client: httpx.Client, monkeypatch: pytest.MonkeyPatch, studio: Studio
) -> None:
    image = ended(client, generate(client)["id"])["images"][0]
    calls: list[Any] = []
    monkeypatch.setattr("studio.api.native.files.shutil.which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(subprocess, "Popen", lambda command, **kwargs: calls.append((command, kwargs)))
    assert client.post(f"{V1}/open-folder", json={"image": image["id"]}).json() == {"ok": True}
    assert client.post(f"{V1}/open-folder").json() == {"ok": True}
    assert [command[1] for command, _ in calls] == [str(Path(image["path"]).parent), str(studio.paths.outputs)]
    assert all("shell" not in kwargs for _, kwargs in calls)


def test_an_exposed_studio_opens_no_folders(folder: Path) -> None:
    with (
        serving(make_studio(folder, listen=True, auth="a:b")) as url,
        httpx.Client(base_url=url, auth=("a", "b")) as client,
    ):
        assert client.get(f"{V1}/state").json()["exposed"] is True
        assert client.post(f"{V1}/open-folder").status_code == 403


def test_a_queue_of_three_with_one_cancelled_one_skipped_one_interrupted(folder: Path) -> None:
    with (
        serving(make_studio(folder, FakeEngine(step_seconds=0.02), max_queue=2)) as url,
        httpx.Client(base_url=url) as client,
    ):
        first = generate(client, batch_count=2, steps=30)["id"]
        while client.get(f"{V1}/jobs/{first}").json()["step"] == 0:
            time.sleep(0.01)
        second, third = generate(client, steps=100)["id"], generate(client)["id"]
        active = client.get(f"{V1}/jobs", params={"active": True}).json()
        assert [(job["id"], job["position"]) for job in active] == [(first, None), (second, 1), (third, 2)]
        full = client.post(f"{V1}/generate", json=SMALL)
        assert (full.status_code, full.json()["error"]["code"]) == (429, "queue_full")
        assert client.post(f"{V1}/jobs/{third}/cancel").json()["status"] == "cancelled"
        client.post(f"{V1}/skip")
        assert [image["index"] for image in ended(client, first)["images"]] == [1]
        while client.get(f"{V1}/jobs/{second}").json()["step"] == 0:
            time.sleep(0.01)
        client.post(f"{V1}/interrupt")
        assert ended(client, second)["status"] == "cancelled"
        again = client.post(f"{V1}/jobs/{third}/retry").json()
        assert ended(client, again["id"])["status"] == "done"


def test_a_full_disk_keeps_the_picture_downloadable(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, data: bytes) -> None:
        raise StorageError(f"The disk is full: nothing more can be written to {path.parent}.")

    monkeypatch.setattr("studio.jobs.saving.atomic_write", full)
    with serving(make_studio(folder)) as url, httpx.Client(base_url=url) as client:
        image = ended(client, generate(client)["id"])["images"][0]
        assert image["path"] is None
        answer = client.get(image["url"], params={"download": 1})
        assert answer.content[:4] == b"\x89PNG"
        assert answer.headers["content-disposition"] == 'attachment; filename="00000-5.png"'


def test_start_up_notes_reach_the_page(folder: Path) -> None:
    JobStore(Paths(folder).database).close()
    Paths(folder).database.write_bytes(b"rubbish" * 1000)
    with serving(make_studio(folder)) as url:
        assert "damaged" in httpx.get(f"{url}{V1}/state").json()["notes"][0]


def test_the_documentation_needs_no_other_host(client: httpx.Client) -> None:
    page = client.get("/docs").text
    assert "http" not in page.replace("https://", "http").split("<script")[1]
    assert "openapi.json" in page
    schema = client.get("/openapi.json").json()
    for path, methods in schema["paths"].items():
        for method, about in methods.items():
            assert about.get("description"), f"{method} {path} has no description"
    steps = schema["components"]["schemas"]["GenerateBody"]["properties"]["steps"]
    assert (steps["minimum"], steps["maximum"]) == (1, 150)


def test_a_route_that_breaks_tells_no_details(folder: Path) -> None:
    studio = make_studio(folder)

    def breaking(app: Any) -> Any:
        @app.get("/breaks")
        def breaks() -> None:
            raise RuntimeError("secret detail")

        return app

    with serving(studio, breaking) as url:
        answer = httpx.get(f"{url}/breaks")
        assert answer.status_code == 500
        assert "secret" not in answer.text
        assert answer.json()["error"]["code"] == "engine"


def test_styles_are_kept_and_thrown_away(folder: Path) -> None:
    with serving(make_studio(folder)) as address, httpx.Client(base_url=address) as client:
        assert client.get(f"{V1}/styles").json() == []
        style = {"name": "a/b, c", "prompt": "ink {prompt}", "negative_prompt": ""}
        assert client.put(f"{V1}/styles", json=style).json() == style
        assert client.get(f"{V1}/styles").json() == [style]
        job = generate(client, styles=["a/b, c"])
        assert (job["request"]["prompt"], job["request"]["styles"]) == ("ink a fox", [])
        assert client.put(f"{V1}/styles", json={"name": "# no"}).status_code == 422
        assert client.delete(f"{V1}/styles/a%2Fb, c").json() == {"ok": True}
        assert client.get(f"{V1}/styles").json() == []
        assert client.delete(f"{V1}/styles/a%2Fb, c").status_code == 400
        (folder / "styles.csv").write_bytes(b"name,prompt\nx,\xff\n")
        damaged = client.get(f"{V1}/styles")
        assert damaged.status_code == 422
        assert "styles.csv cannot be read, line 2" in damaged.json()["detail"]


def test_a_drawn_prompt_keeps_its_template_through_the_queue(folder: Path) -> None:
    (folder / "wildcards").mkdir()
    (folder / "wildcards" / "colour.txt").write_text("red\nblue\n")
    with serving(make_studio(folder)) as address, httpx.Client(base_url=address) as client:
        assert client.get(f"{V1}/wildcards").json() == ["colour"]
        job = generate(client, prompt="a __colour__ {fox|owl}", batch_size=2)
        prompt = job["request"]["prompt"]
        assert prompt in {"a red fox", "a red owl", "a blue fox", "a blue owl"}
        (folder / "wildcards" / "colour.txt").write_text("green\n")
        done = ended(client, job["id"])
        for image in done["images"]:
            assert image["infotext"].startswith(f"{prompt}\n")
            assert "Template: a __colour__ {fox|owl}" in image["infotext"]
        again = client.post(f"{V1}/jobs/{job['id']}/retry").json()
        assert again["request"]["prompt"] == prompt
        unknown = client.post(f"{V1}/generate", json={**SMALL, "negative_prompt": "__color__"})
        assert (unknown.status_code, unknown.json()["error"]["field"]) == (400, "negative_prompt")


KEPT = {"keep_latents": True}


def test_a_step_is_decoded_as_long_as_its_latents_are_kept(client: httpx.Client, studio: Studio) -> None:
    job = ended(client, generate(client, batch_size=2, options=KEPT)["id"])
    steps = client.get(f"{V1}/jobs/{job['id']}/progress").json()
    assert [step["kept"] for step in steps] == [True] * 3
    url = f"{V1}/jobs/{job['id']}/steps/0/2"
    one, other = client.get(f"{url}/0.png"), client.get(f"{url}/1.png", params={"download": 1})
    assert one.headers["content-type"] == "image/png" and "sandbox" in one.headers["content-security-policy"]
    assert one.content != other.content
    assert (
        client.post(f"{V1}/picture-info", content=one.content, headers={"content-type": "image/png"}).json()["infotext"]
        is None
    )
    assert other.headers["content-disposition"] == f'attachment; filename="job-{job["id"]}-batch-0-step-2-1.png"'
    (studio.paths.latents / str(job["id"]) / "0-2.safetensors").unlink()
    gone = client.get(f"{url}/0.png")
    assert (gone.status_code, gone.json()["error"]["code"]) == (404, "not_found")
    assert "step 2 of batch 0" in gone.json()["error"]["message"]
    plain = ended(client, generate(client)["id"])
    assert client.get(f"{V1}/jobs/{plain['id']}/steps/0/2/0.png").status_code == 404
    assert client.get(f"{V1}/jobs/{plain['id']}/progress").json()[0]["kept"] is False


def test_a_refined_picture_is_decoded_by_the_checkpoint_that_painted_last(
    client: httpx.Client, studio: Studio, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def decode(model: ModelInfo, *rest: Any) -> bytes:
        asked.append(model.name)
        return b"png"

    monkeypatch.setattr(studio.engine, "decode", decode)
    refiner = {"checkpoint": "oak/old", "switch_at": 0.5}
    for part, painter in ((refiner, "oak/old"), (refiner, "sprout"), ({}, "oak/old")):
        job = ended(client, generate(client, refiner=part or None, options=KEPT)["id"])
        path = studio.library.checkpoint(painter).path
        monkeypatch.setattr(studio.queue, "last_painter", lambda *key, path=path: path)
        assert client.get(f"{V1}/jobs/{job['id']}/steps/0/2/0.png").content == b"png"
    assert asked == ["oak/old", "sprout", "sprout"]


def test_a_step_is_decoded_by_its_own_painter_where_the_second_pass_has_another_checkpoint(
    client: httpx.Client, studio: Studio, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def decode(model: ModelInfo, *rest: Any) -> bytes:
        asked.append(model.name)
        return b"png"

    monkeypatch.setattr(studio.engine, "decode", decode)
    hires = {"checkpoint": "oak/old", "upscaler": "None", "steps": 1}
    job = ended(client, generate(client, hires=hires, options=KEPT)["id"])
    for painter in ("sprout", "oak/old"):
        facts = {"painter": studio.library.checkpoint(painter).path}
        latents = save({"x": np.zeros(1)}, facts)
        monkeypatch.setattr(studio.queue, "step_latents", lambda *key, latents=latents: latents)
        assert client.get(f"{V1}/jobs/{job['id']}/steps/0/1/0.png").content == b"png"
    assert asked == ["sprout", "oak/old"]


def test_a_step_of_the_second_pass_is_decoded_by_its_vae(
    client: httpx.Client, studio: Studio, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str | None] = []

    def decode(model: ModelInfo, vae: ModelInfo | None, *rest: Any) -> bytes:
        asked.append(vae and vae.name)
        return b"png"

    monkeypatch.setattr(studio.engine, "decode", decode)
    monkeypatch.setattr(studio.queue, "step_latents", lambda *key: b"")
    job = ended(client, generate(client, steps=2, hires={"vae": "sharp", "steps": 1}, options=KEPT)["id"])
    for step in (2, 3):
        assert client.get(f"{V1}/jobs/{job['id']}/steps/0/{step}/0.png").content == b"png"
    assert asked == [None, "sharp"]


def test_a_branch_is_its_origin_but_for_what_is_said(client: httpx.Client, studio: Studio) -> None:
    job = ended(client, generate(client, sampler="Euler", options=KEPT)["id"])
    origin = client.get(f"{V1}/jobs/{job['id']}/origin/0").json()
    assert origin["text"] == job["images"][0]["infotext"]
    assert origin["request"]["seed"] == 5
    body = {"branch": {"step": 2, "origin": origin["text"]}, "prompt": "an owl"}
    answer = client.post(f"{V1}/generate", json=body)
    assert answer.status_code == 200, answer.text
    branched = ended(client, answer.json()["id"])
    request = branched["request"]
    assert {**request, "branch": None, "prompt": "a fox"} == {**job["request"]}
    assert request["branch"] == body["branch"]
    engine = studio.engine
    assert isinstance(engine, FakeEngine)
    assert engine.kept[-1] == b"5/2"
    refused = client.post(f"{V1}/generate", json={**body, "height": 128})
    assert (refused.status_code, refused.json()["error"]["field"]) == (422, "height")
    assert client.get(f"{V1}/jobs/{job['id']}/origin/7").status_code == 404
    assert client.get(f"{V1}/jobs/999/origin/0").status_code == 404


def test_the_size_of_a_plot_is_told_before_it_is_asked_for(client: httpx.Client) -> None:
    plot = {"x_type": "CFG Scale", "x_values": "5-9 (+2)", "z_type": "Sampler", "z_values": "Euler, Heun"}
    told = client.post(f"{V1}/plot/size", json={"prompt": "a fox", "plot": plot})
    assert told.status_code == 200
    assert told.json() == {"axes": [3, 1, 2], "pictures": 6, "problem": "", "field": None}
    wrong = client.post(f"{V1}/plot/size", json={"batch_size": 2, "plot": plot}).json()
    assert (wrong["pictures"], wrong["field"]) == (0, "batch_size")
    assert "set batch count and batch size to 1" in wrong["problem"]
    assert client.post(f"{V1}/plot/size", json={}).json()["pictures"] == 0
    assert client.post(f"{V1}/plot/size", json={"plot": {"x_type": "Hope"}}).status_code == 422
    before = client.get(f"{V1}/jobs?limit=1").json()
    lists = client.get(f"{V1}/plot/choices").json()
    assert lists["RNG source"] == ["CPU", "GPU", "NV"]
    assert client.get(f"{V1}/jobs?limit=1").json() == before, "nothing is painted by asking"


def test_a_plot_is_one_job_of_many_pictures(client: httpx.Client) -> None:
    plot = {"x_type": "CFG Scale", "x_values": "5, 7", "y_type": "Seed", "y_values": "-1, 9"}
    done = ended(client, generate(client, plot=plot)["id"])
    assert (done["status"], len(done["images"])) == ("done", 4)
    drawn, fixed = done["images"][0]["seed"], done["request"]["plot"]["y_values"]
    assert fixed == f"{drawn}, 9"
    assert [image["seed"] for image in done["images"]] == [drawn, drawn, 9, 9]
    sheet = client.get(f"{V1}/jobs/{done['id']}/grid", params={"download": True})
    assert sheet.content == Path(done["grid"]).read_bytes()
    assert Path(done["grid"]).name in sheet.headers["content-disposition"]

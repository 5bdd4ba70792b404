"""A1111's API on a running server, as its clients use it."""

from __future__ import annotations

import base64
import json
import threading
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from studio.app import Studio
from studio.engine.fake import FakeEngine
from studio.infotext import read_picture
from tests.api.stand_in import make_studio, serving
from tests.engine.faces.made import made_file

API = "/sdapi/v1"
SMALL = {"prompt": "a fox", "negative_prompt": "b", "width": 64, "height": 64, "steps": 3, "seed": 5}
IDLE = {"skipped": False, "interrupted": False, "stopping_generation": False, "job": "", "job_count": 0,
        "job_timestamp": "0", "job_no": 0, "sampling_step": 0, "sampling_steps": 0}  # fmt: skip
INFO_KEYS = {
    "prompt", "all_prompts", "negative_prompt", "all_negative_prompts", "seed", "all_seeds", "subseed", "all_subseeds",
    "subseed_strength", "width", "height", "sampler_name", "cfg_scale", "steps", "batch_size", "restore_faces",
    "face_restoration_model", "sd_model_name", "sd_model_hash", "sd_vae_name", "sd_vae_hash", "seed_resize_from_w",
    "seed_resize_from_h", "denoising_strength", "extra_generation_params", "index_of_first_image", "infotexts", "styles",
    "job_timestamp", "clip_skip", "is_using_inpainting_conditioning", "version",
}  # fmt: skip


def txt2img(client: httpx.Client, **fields: Any) -> httpx.Response:
    return client.post(f"{API}/txt2img", json={**SMALL, **fields})


def test_txt2img(client: httpx.Client, studio: Studio) -> None:
    answer = txt2img(client, batch_size=2, n_iter=2, sampler_name="Euler a", hologram=1).json()
    assert set(answer) == {"images", "parameters", "info"}
    info = json.loads(answer["info"])
    assert set(info) == INFO_KEYS | {"warnings"}
    assert info["all_seeds"] == [5, 6, 7, 8]
    assert (info["sampler_name"], info["sd_model_name"], info["sd_model_hash"]) == ("Euler a", "sprout", "0123456789")
    assert len(info["infotexts"]) == len(answer["images"]) == 4
    assert answer["parameters"]["prompt"] == "a fox"
    assert answer["parameters"]["cfg_scale"] == 7.0
    for image, text in zip(answer["images"], info["infotexts"], strict=True):
        assert read_picture(base64.b64decode(image, validate=True)).infotext == text
    assert "Sampler: Euler a" in info["infotexts"][0]
    assert not (studio.paths.outputs / "txt2img-images").exists()


def test_variation_and_seed_resize_are_told(client: httpx.Client) -> None:
    plain = json.loads(txt2img(client, batch_size=2).json()["info"])
    assert (plain["subseed"], plain["all_subseeds"], plain["subseed_strength"]) == (-1, [-1, -1], 0)
    assert (plain["seed_resize_from_w"], plain["seed_resize_from_h"]) == (-1, -1)
    asked = {"subseed": 2**32 - 2, "subseed_strength": 0.2, "seed_resize_from_w": 72, "seed_resize_from_h": 96}
    info = json.loads(txt2img(client, **asked, batch_size=2, n_iter=2).json()["info"])
    assert info["all_seeds"] == [5, 5, 5, 5]
    assert info["all_subseeds"] == [2**32 - 2, 2**32 - 1, 0, 1]
    assert {name: info[name] for name in asked} == asked
    assert "Variation seed: 1, Variation seed strength: 0.2, Seed resize from: 72x96" in info["infotexts"][3]
    drawn = json.loads(txt2img(client, subseed_strength=0.2).json()["info"])
    assert drawn["all_subseeds"] == [drawn["subseed"]]
    assert drawn["subseed"] >= 0


def test_the_grid_comes_first_when_pictures_are_saved(client: httpx.Client, studio: Studio) -> None:
    answer = txt2img(client, batch_size=3, save_images=True).json()
    info = json.loads(answer["info"])
    assert info["index_of_first_image"] == 1
    assert (len(answer["images"]), len(info["infotexts"]), len(info["all_seeds"])) == (4, 4, 3)
    grid = read_picture(base64.b64decode(answer["images"][0]))
    assert (grid.width, grid.height, grid.infotext) == (128, 128, info["infotexts"][0])
    assert info["infotexts"][0] == info["infotexts"][1]
    grids = list((studio.paths.outputs / "txt2img-grids").rglob("grid-0000.png"))
    assert [grid.read_bytes() for grid in grids] == [base64.b64decode(answer["images"][0])]
    assert grids[0].parent.name == time.strftime("%Y-%m-%d")
    newest = client.get("/studio/v1/jobs", params={"limit": 1}).json()[0]
    served = client.get(f"/studio/v1/jobs/{newest['id']}/grid", params={"download": True})
    assert (served.content, served.headers["content-type"]) == (grids[0].read_bytes(), "image/png")
    assert served.headers["content-disposition"] == 'attachment; filename="grid-0000.png"'


@pytest.mark.parametrize(
    "fields, images",
    [
        ({"batch_size": 2}, 2),
        ({"batch_size": 2, "save_images": True, "do_not_save_grid": True}, 2),
        ({"save_images": True}, 1),
        ({"batch_size": 2, "save_images": True, "do_not_save_samples": True}, 3),
    ],
)
def test_when_the_answer_has_a_grid(client: httpx.Client, fields: dict[str, Any], images: int) -> None:
    answer = txt2img(client, **fields).json()
    assert len(answer["images"]) == images
    count = fields.get("batch_size", 1)
    assert json.loads(answer["info"])["index_of_first_image"] == images - count


def test_images_that_are_saved_or_not_sent(client: httpx.Client) -> None:
    answer = txt2img(client, save_images=True, send_images=False).json()
    assert answer["images"] == []
    assert set(json.loads(answer["info"])) == INFO_KEYS
    newest = client.get("/studio/v1/images", params={"limit": 1}).json()[0]
    assert newest["infotext"] == json.loads(answer["info"])["infotexts"][0]


def test_the_model_of_one_picture_and_the_model_from_now_on(client: httpx.Client, studio: Studio) -> None:
    once = txt2img(client, override_settings={"sd_model_checkpoint": "oak/old"}).json()
    assert json.loads(once["info"])["sd_model_name"] == "oak/old"
    assert client.get(f"{API}/options").json()["sd_model_checkpoint"] == "sprout [0123456789]"
    kept = txt2img(
        client, override_settings={"sd_model_checkpoint": "oak/old"}, override_settings_restore_afterwards=False
    )
    assert kept.status_code == 200
    assert client.get(f"{API}/options").json()["sd_model_checkpoint"] == "oak/old"
    client.post(f"{API}/options", json={"sd_model_checkpoint": "sprout [0123456789]"})
    assert studio.settings.sd_model_checkpoint == "sprout"


@pytest.mark.parametrize(
    "fields, status, field",
    [
        ({"steps": 0}, 422, "steps"),
        ({"width": 63}, 422, "width"),
        ({"n_iter": 101}, 422, "n_iter"),
        ({"steps": "x"}, 422, "steps"),
        ({"enable_hr": True, "hr_checkpoint_name": "other"}, 404, "hr_checkpoint_name"),
        ({"enable_hr": True, "hr_scale": 5}, 422, "hr_scale"),
        ({"enable_hr": True, "hr_upscaler": "4x-Ultra"}, 400, "hr_upscaler"),
        ({"enable_hr": True, "hr_sampler_name": "Eular"}, 400, "hr_sampler_name"),
        ({"enable_hr": True, "hr_resize_x": 4096, "width": 64, "height": 128}, 422, "hr_resize_x"),
        ({"sampler_name": "Eular"}, 400, "sampler_name"),
        ({"scheduler": "Karas"}, 400, "scheduler"),
        ({"override_settings": {"sd_model_checkpoint": "sprot"}}, 404, "override_settings.sd_model_checkpoint"),
        ({"override_settings": {"sd_vae": "nope"}}, 404, "override_settings.sd_vae"),
        ({"prompt": "<lora:nope:1>"}, 400, "prompt"),
    ],
)
def test_errors_name_their_field(client: httpx.Client, fields: dict[str, Any], status: int, field: str) -> None:
    answer = txt2img(client, **fields)
    assert answer.status_code == status
    assert answer.json()["error"]["field"] == field
    assert isinstance(answer.json()["detail"], str)


def test_nan_is_refused_and_never_echoed(client: httpx.Client) -> None:
    for body in ('{"cfg_scale": NaN}', '{"cfg_scale": Infinity}', '{"eta": NaN}'):
        assert (
            client.post(f"{API}/txt2img", content=body, headers={"Content-Type": "application/json"}).status_code == 422
        )
    body = '{"steps": 1, "width": 64, "height": 64, "script_args": [NaN]}'
    answer = client.post(f"{API}/txt2img", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == 200
    assert "NaN" not in answer.text


def test_progress_idle_and_running(folder: Path) -> None:
    with (
        serving(make_studio(folder, FakeEngine(step_seconds=0.05))) as url,
        httpx.Client(base_url=url, timeout=30) as client,
    ):
        idle = client.get(f"{API}/progress").json()
        assert idle == {
            "progress": 0,
            "eta_relative": 0,
            "state": IDLE,
            "current_image": None,
            "textinfo": None,
            "current_task": None,
        }
        answers: list[httpx.Response] = []
        body = {**SMALL, "steps": 40, "n_iter": 2, "force_task_id": "task(mine)"}
        thread = threading.Thread(target=lambda: answers.append(client.post(f"{API}/txt2img", json=body)))
        thread.start()
        with httpx.Client(base_url=url) as other:
            while (found := other.get(f"{API}/progress").json())["state"]["sampling_step"] < 2:
                time.sleep(0.01)
            assert 0 < found["progress"] < 0.5
            assert found["eta_relative"] > 0
            assert found["current_task"] == "task(mine)"
            assert (found["state"]["job_count"], found["state"]["sampling_steps"]) == (2, 40)
            assert base64.b64decode(found["current_image"])[:2] == b"\xff\xd8"
            short = other.get(f"{API}/progress", params={"skip_current_image": True}).json()
            assert short["current_image"] is None
            assert other.post(f"{API}/skip").json() == {}
            while (found := other.get(f"{API}/progress").json())["state"]["job_no"] < 1:
                time.sleep(0.01)
            assert found["progress"] >= 0.5
            assert other.post(f"{API}/interrupt").json() == {}
        thread.join(20)
        assert answers[0].status_code == 200
        assert answers[0].json()["images"] == []
        assert client.get(f"{API}/progress").json()["state"] == IDLE


def test_many_calls_at_once_hold_no_threads(folder: Path) -> None:
    """More waiting calls than the server has threads, and it still answers."""
    many = httpx.Limits(max_connections=100)
    with (
        serving(make_studio(folder, FakeEngine(step_seconds=0.01))) as url,
        httpx.Client(limits=many, timeout=60) as client,
    ):
        found: list[int] = []

        def ask(seed: int) -> None:
            body = {**SMALL, "seed": seed, "steps": 2}
            answer = client.post(f"{url}{API}/txt2img", json=body).json()
            found.extend(json.loads(answer["info"])["all_seeds"] if len(answer["images"]) == 1 else [-1])

        threads = [threading.Thread(target=ask, args=(seed,)) for seed in range(60)]
        for thread in threads:
            thread.start()
        began = time.monotonic()
        assert client.get(f"{url}{API}/progress").status_code == 200
        assert time.monotonic() - began < 5
        for thread in threads:
            thread.join(60)
        assert sorted(found) == list(range(60))


def test_a_failed_job_is_an_error(folder: Path) -> None:
    from studio.errors import OutOfMemory

    with serving(make_studio(folder, FakeEngine(fail_with=OutOfMemory("The device is full.")))) as url:
        answer = httpx.post(f"{url}{API}/txt2img", json=SMALL, timeout=20)
        assert (answer.status_code, answer.json()["detail"]) == (503, "The device is full.")


def test_options_whole_and_back(client: httpx.Client, studio: Studio) -> None:
    before = studio.settings
    whole = client.get(f"{API}/options").json()
    assert {"sd_model_checkpoint", "sd_vae", "CLIP_stop_at_last_layers", "samples_format", "randn_source"} <= set(whole)
    assert "forge_preset" not in whole
    assert client.post(f"{API}/options", json={**whole, "unknown_key": 3, "samples_format": "jpg"}).json() == {}
    assert studio.settings == before
    changed = client.post(f"{API}/options", json={**whole, "CLIP_stop_at_last_layers": 2, "sd_vae": "sharp"})
    assert changed.status_code == 200
    assert (studio.settings.CLIP_stop_at_last_layers, studio.settings.sd_vae) == (2, "sharp")
    client.post(f"{API}/options", json={"CLIP_stop_at_last_layers": 1, "sd_vae": "Automatic"})


def test_options_name_files_and_never_lead_out(folder: Path) -> None:
    studio = make_studio(folder)
    options = {
        "directories_filename_pattern": "../../[seed]",
        "samples_filename_pattern": "日本/[prompt]",
        "grid_save": False,
    }
    with serving(studio) as url, httpx.Client(base_url=url) as client:
        assert client.post(f"{API}/options", json=options).json() == {}
        assert {**client.get(f"{API}/options").json(), **options} == client.get(f"{API}/options").json()
        assert txt2img(client, save_images=True, batch_size=2).status_code == 200
        image = client.get("/studio/v1/images", params={"limit": 1}).json()[0]
        path = Path(image["path"]).relative_to(studio.paths.outputs).as_posix()
        assert path == "txt2img-images/6/00000-日本_a_fox.png"
        saved = client.get(image["url"], params={"download": 1})
        assert saved.headers["content-disposition"] == (
            "attachment; filename*=UTF-8''00000-%E6%97%A5%E6%9C%AC_a_fox.png"
        )
        assert not (studio.paths.outputs / "txt2img-grids").exists()


@pytest.mark.parametrize(
    "changes, status",
    [({"outdir_txt2img_samples": "/etc"}, 403), ({"outdir_samples": "/"}, 403), ({"outdir_grids": "/x"}, 403), ({"auth": "a:b"}, 403),
     ({"host": "0.0.0.0"}, 403), ({"port": 7861}, 403), ({"share": True}, 403), ({"temp_dir": "/x"}, 403), ({"models_path": "/x"}, 403),
     ({"sd_model_checkpoint": "nope"}, 404), ({"CLIP_stop_at_last_layers": 99}, 422),
     ({"CLIP_stop_at_last_layers": 2, "outdir_samples": "/"}, 403), ({"CLIP_stop_at_last_layers": 2, "sd_vae": "nope"}, 404)],
)  # fmt: skip
def test_options_that_are_refused_change_nothing(
    client: httpx.Client, studio: Studio, changes: dict[str, Any], status: int
) -> None:
    before = studio.settings
    assert client.post(f"{API}/options", json=changes).status_code == status
    assert studio.settings == before


def test_the_lists(client: httpx.Client) -> None:
    models = client.get(f"{API}/sd-models").json()
    assert [entry["model_name"] for entry in models] == ["sprout", "oak/old"]
    assert set(models[0]) == {"title", "model_name", "hash", "sha256", "filename", "config"}
    assert models[0]["title"] == "sprout [0123456789]"
    samplers = {entry["name"]: entry for entry in client.get(f"{API}/samplers").json()}
    assert samplers["DPM++ SDE"]["aliases"] == ["k_dpmpp_sde"]
    assert samplers["DPM++ SDE"]["options"] == {"scheduler": "karras", "second_order": "True", "brownian_noise": "True"}
    schedulers = {entry["name"]: entry for entry in client.get(f"{API}/schedulers").json()}
    assert schedulers["sgm_uniform"] == {"name": "sgm_uniform", "label": "SGM Uniform", "aliases": ["SGMUniform"],
                                         "default_rho": -1.0, "need_inner_model": True}  # fmt: skip
    modules = client.get(f"{API}/sd-modules").json()
    assert [module["model_name"] for module in modules] == ["sharp", "clip_l"]
    assert client.get(f"{API}/sd-vae").json() == [{"model_name": "sharp", "filename": "/models/sharp.safetensors"}]
    assert set(client.get(f"{API}/loras").json()[0]) == {"name", "alias", "path", "metadata"}
    upscalers = client.get(f"{API}/upscalers").json()
    assert [entry["name"] for entry in upscalers] == ["None", "Lanczos", "Nearest", "4x-Sharp", "R-ESRGAN 2x+"]
    assert upscalers[-1] == {"name": "R-ESRGAN 2x+", "model_name": "sub/RealESRGAN_x2plus", "model_url": None, "scale": 2,
                             "model_path": "/models/sub/RealESRGAN_x2plus.safetensors"}  # fmt: skip
    modes = [entry["name"] for entry in client.get(f"{API}/latent-upscale-modes").json()]
    assert (modes[0], len(modes), modes[-1]) == ("Latent", 6, "Latent (nearest-exact)")
    assert client.get(f"{API}/hypernetworks").json() == [{"name": "anime", "path": "/models/anime.safetensors"}]
    for empty in ("face-restorers", "realesrgan-models"):
        assert client.get(f"{API}/{empty}").json() == []
    nothing = {"step": None, "sd_checkpoint": None, "sd_checkpoint_name": None}
    assert client.get(f"{API}/embeddings").json() == {
        "loaded": {"wash": {**nothing, "shape": 768, "vectors": 4}},
        "skipped": {"grand": {**nothing, "shape": 2048, "vectors": 2}},
    }
    for refresh in ("checkpoints", "loras", "vae", "embeddings"):
        assert client.post(f"{API}/refresh-{refresh}").json() == {}


def test_an_embedding_for_another_family_is_a_warning(client: httpx.Client) -> None:
    answer = txt2img(client, prompt="a wash fox", negative_prompt="grand").json()
    (warning,) = json.loads(answer["info"])["warnings"]
    assert "'grand' was made for Stable Diffusion XL" in warning
    assert 'TI hashes: "wash: fedcba987654"' in json.loads(answer["info"])["infotexts"][0]


def test_png_info(client: httpx.Client) -> None:
    image = txt2img(client).json()["images"][0]
    for sent in (image, f"data:image/png;base64,{image}"):
        answer = client.post(f"{API}/png-info", json={"image": sent}).json()
        assert answer["info"].startswith("a fox\nNegative prompt: b\nSteps: 3")
        assert (answer["parameters"]["Prompt"], answer["parameters"]["Steps"]) == ("a fox", "3")
    for bad in ("", "!!!", "http://127.0.0.1:1/x.png", base64.b64encode(b"no picture").decode()):
        assert client.post(f"{API}/png-info", json={"image": bad}).status_code == 422


def test_styles_are_listed_and_used(folder: Path) -> None:
    (folder / "styles.csv").write_text("name,prompt,negative_prompt\nink,ink {prompt},photo\n")
    with serving(make_studio(folder)) as address, httpx.Client(base_url=address) as client:
        styles = client.get(f"{API}/prompt-styles").json()
        assert styles == [{"name": "ink", "prompt": "ink {prompt}", "negative_prompt": "photo"}]
        answer = txt2img(client, styles=["ink", "None"])
        assert answer.status_code == 200, answer.text
        info = json.loads(answer.json()["info"])
        assert (info["prompt"], info["negative_prompt"], info["styles"]) == ("ink a fox", "b, photo", ["ink"])
        wrong = txt2img(client, styles=["inc"])
        assert wrong.status_code == 400
        assert wrong.json()["error"]["field"] == "styles"
        assert "'ink'" in wrong.json()["detail"]


def test_faces(tmp_path: Path) -> None:
    studio = make_studio(tmp_path)
    body = {"prompt": "a fox", "steps": 1, "width": 64, "height": 64, "restore_faces": True}
    with serving(studio) as address, httpx.Client(base_url=address) as client:
        refused = client.post(f"{API}/txt2img", json=body)
        assert refused.status_code == 404 and "restore_faces" in refused.text
        assert str(studio.paths.face_restoration) in refused.text and "codeformer.safetensors" in refused.text
        for network in ("GFPGAN", "RetinaFace"):
            made_file(studio.paths.face_restoration, network, network)
        listed = client.get(f"{API}/face-restorers").json()
        assert listed == [{"name": "GFPGAN", "cmd_dir": str(studio.paths.face_restoration)}]
        assert client.post(f"{API}/options", json={"face_restoration_model": "GFPGAN"}).status_code == 200
        assert client.get(f"{API}/options").json()["face_restoration_model"] == "GFPGAN"
        info = json.loads(client.post(f"{API}/txt2img", json=body).json()["info"])
        assert (info["restore_faces"], info["face_restoration_model"]) == (True, "GFPGAN")
        assert "Face restoration: GFPGAN" in info["infotexts"][0]

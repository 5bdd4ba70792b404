"""The real thing: a server process, its worker with the embedded model, files on disk. One server for all tests here."""

from __future__ import annotations

import base64
import io
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file, save_file

ROOT = Path(__file__).resolve().parents[2]
FOX: dict[str, Any] = {"prompt": "a (red:1.2) fox on a beach", "steps": 6, "width": 128, "height": 128, "seed": 7}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Server:
    """`python -m studio serve` on a data folder."""

    def __init__(self, data: Path) -> None:
        self.data, self.port = data, free_port()
        words = [
            sys.executable,
            "-m",
            "studio",
            "serve",
            "--no-browser",
            "--port",
            str(self.port),
            "--data-dir",
            str(data),
        ]
        self.process = subprocess.Popen(words, cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"})
        self.http = httpx.Client(base_url=f"http://127.0.0.1:{self.port}", timeout=120)
        deadline = time.monotonic() + 60
        while True:
            try:
                self.http.get("/studio/v1/state").raise_for_status()
                return
            except httpx.TransportError:
                assert self.process.poll() is None, "the server ended"
                assert time.monotonic() < deadline
                time.sleep(0.1)

    def paint(self, **body: Any) -> dict[str, Any]:
        answer = self.http.post("/sdapi/v1/txt2img", json=body)
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    def wait(self, job: int) -> dict[str, Any]:
        deadline = time.monotonic() + 90
        while time.monotonic() < deadline:
            record = self.http.get(f"/studio/v1/jobs/{job}").json()
            if record["status"] not in ("queued", "running"):
                return dict(record)
            time.sleep(0.1)
        raise AssertionError(f"job {job} did not end")

    def stop(self) -> int:
        self.http.close()
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(20)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("data"))
    yield server
    server.stop()


def pixels(png: bytes) -> bytes:
    with Image.open(io.BytesIO(png)) as image:
        return image.convert("RGB").tobytes()


def test_a_picture_knows_how_it_was_made_and_comes_out_again(server: Server) -> None:
    answer = server.paint(**FOX, sampler_name="Euler a", save_images=True)
    png = base64.b64decode(answer["images"][0])
    read = server.http.post("/sdapi/v1/png-info", json={"image": answer["images"][0]}).json()
    assert read["info"] == json.loads(answer["info"])["infotexts"][0]
    request = server.http.post("/studio/v1/picture-info", content=png, headers={"content-type": "image/png"}).json()
    job = server.http.post("/studio/v1/generate", json=request["request"]).json()
    image = server.wait(job["id"])["images"][0]
    again = Path(image["path"])
    assert again.read_bytes() != b""
    assert pixels(again.read_bytes()) == pixels(png)
    assert re.fullmatch(
        r"outputs/txt2img-images/\d{4}-\d\d-\d\d/\d{5}-7\.png", again.relative_to(server.data).as_posix()
    )


def test_a_batch_of_four_is_four_single_pictures(server: Server) -> None:
    four = server.paint(**FOX, batch_size=4)["images"]
    assert len(four) == 4
    for number, picture in enumerate(four):
        alone = server.paint(**{**FOX, "seed": 7 + number})["images"][0]
        together, single = pixels(base64.b64decode(picture)), pixels(base64.b64decode(alone))
        assert max(abs(a - b) for a, b in zip(together, single, strict=True)) <= 1


def test_prompt_steers_the_picture(server: Server) -> None:
    red, blue = (
        pixels(base64.b64decode(server.paint(**{**FOX, "prompt": p})["images"][0]))
        for p in ("a red apple", "a blue apple")
    )
    assert red != blue


def write_lora(path: Path) -> None:
    """A kohya LoRA of rank 2 for one attention layer of the embedded U-Net."""
    weights = load_file(ROOT / "checkpoints" / "sprout-v1" / "unet" / "diffusion_pytorch_model.safetensors")
    name = next(key for key in weights if key.endswith("attn2.to_q.weight"))
    rows, columns = weights[name].shape
    module = "lora_unet_" + name.removesuffix(".weight").replace(".", "_")
    draw = np.random.default_rng(1).standard_normal
    path.parent.mkdir(exist_ok=True)
    tensors = {
        f"{module}.lora_down.weight": draw((2, columns)).astype(np.float32),
        f"{module}.lora_up.weight": draw((rows, 2)).astype(np.float32),
        f"{module}.alpha": np.array(2.0, np.float32),
    }
    save_file(tensors, path)


def test_a_lora_changes_the_picture_and_leaves_no_trace_in_the_next(server: Server) -> None:
    write_lora(server.data / "loras" / "ink.safetensors")
    server.http.post("/sdapi/v1/refresh-loras", json={}).raise_for_status()
    plain = server.paint(**FOX)
    inked = server.paint(**{**FOX, "prompt": FOX["prompt"] + " <lora:ink:1>"})
    again = server.paint(**FOX)
    assert re.search(r'Lora hashes: "ink: [0-9a-f]{12}"', json.loads(inked["info"])["infotexts"][0])
    first, changed, last = (pixels(base64.b64decode(a["images"][0])) for a in (plain, inked, again))
    assert changed != first
    assert last == first


def test_a_second_pass_enlarges_and_paints(server: Server) -> None:
    """The object stays where it was while it is painted anew, and the picture reproduces from its own text."""
    larger = {**FOX, "enable_hr": True, "hr_scale": 1.5, "hr_second_pass_steps": 4, "denoising_strength": 0.3}
    small = server.paint(**FOX)
    plain, again = (server.paint(**larger, hr_upscaler="Lanczos") for _ in range(2))
    (first,), (second,), (third,) = (answer["images"] for answer in (small, plain, again))
    assert first != second == third
    picture = Image.open(io.BytesIO(base64.b64decode(second)))
    assert picture.size == (192, 192)
    enlarged = Image.open(io.BytesIO(base64.b64decode(first))).resize((192, 192), Image.Resampling.LANCZOS)
    difference = np.abs(np.asarray(picture, float) - np.asarray(enlarged, float)).mean()
    assert 1 < difference < 40
    text = json.loads(plain["info"])["infotexts"][0]
    assert "Size: 128x128" in text and "Denoising strength: 0.3" in text
    assert "Hires upscale: 1.5, Hires steps: 4, Hires upscaler: Lanczos" in text
    assert server.paint(infotext=text, prompt=FOX["prompt"])["images"] == [second]


def test_the_server_process_never_loads_torch(server: Server) -> None:
    maps = Path(f"/proc/{server.process.pid}/maps")
    if not maps.exists():
        pytest.skip("needs /proc")
    worker = server.http.get("/studio/v1/state").json()["engine"]["pid"]
    assert "libtorch" in Path(f"/proc/{worker}/maps").read_text()
    assert "libtorch" not in maps.read_text()


def test_a_killed_worker_costs_its_job_and_nothing_else(server: Server) -> None:
    job = server.http.post("/studio/v1/generate", json={**FOX, "steps": 150}).json()["id"]
    after = server.http.post("/studio/v1/generate", json=FOX).json()["id"]
    while server.http.get(f"/studio/v1/jobs/{job}").json()["step"] < 1:
        time.sleep(0.02)
    os.kill(server.http.get("/studio/v1/state").json()["engine"]["pid"], signal.SIGKILL)
    failed = server.wait(job)
    assert failed["status"] == "failed"
    assert failed["error"]["code"] == "worker_died"
    assert server.wait(after)["status"] == "done"


def test_bad_requests_are_answered_in_words(server: Server) -> None:
    unknown = server.http.post("/sdapi/v1/txt2img", json={**FOX, "sampler_name": "Eular"})
    assert (unknown.status_code, "'Euler'" in unknown.text) == (400, True)
    steps = server.http.post("/sdapi/v1/txt2img", json={**FOX, "steps": 0})
    assert (steps.status_code, "steps" in steps.json()["error"]["field"]) == (422, True)
    model = server.http.post("/studio/v1/generate", json={**FOX, "model": "gone"})
    assert (model.status_code, "gone" in model.text) == (404, True)
    (server.data / "checkpoints").mkdir(exist_ok=True)
    (server.data / "checkpoints" / "cut.safetensors").write_bytes(b'\x10\x00\x00\x00\x00\x00\x00\x00{"a": 1')
    server.http.post("/sdapi/v1/refresh-checkpoints", json={})
    cut = server.http.post("/studio/v1/generate", json={**FOX, "model": "cut"})
    assert (cut.status_code, "cut" in cut.text) == (422, True)


def test_one_command_paints_a_file(tmp_path: Path) -> None:
    words = ["generate", "a red fox on a beach", "--steps", "3", "--seed", "7", "--json"]
    done = subprocess.run(
        [sys.executable, "-m", "studio", *words, "--output-dir", str(tmp_path / "pictures"), "--data-dir", str(tmp_path)],
        cwd=ROOT, capture_output=True, text=True, timeout=120, check=False, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["seed"] == 7
    assert result["infotext"].startswith("a red fox on a beach\nSteps: 3, Sampler: DPM++ 2M")
    assert Path(result["paths"][0]).parent == tmp_path / "pictures"
    with Image.open(result["paths"][0]) as image:
        assert image.text["parameters"] == result["infotext"]  # type: ignore[attr-defined]


def test_it_ends_quickly_and_in_order(server: Server) -> None:
    started = time.monotonic()
    assert server.stop() == 0
    assert time.monotonic() - started < 10

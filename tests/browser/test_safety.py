"""What others wrote (file names, pictures, prompts) stays text; what is not the page's to read stays unread."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from playwright.sync_api import Page, expect

from studio.ui.static import assets_url
from tests.browser.conftest import EVIL, Open, Server
from tests.browser.steps import NEGATIVE, PROMPT, done, drop, generate, set_number, tab

CANARY = "canary-5d1f"


def unharmed(page: Page) -> None:
    page.wait_for_timeout(150)
    assert page.evaluate("window.hit") is None
    assert page.locator("img[src='x'], [onerror]").count() == 0


@pytest.fixture
def evil_picture(tmp_path: Path) -> Path:
    file = tmp_path / "evil.png"
    chunks = PngInfo()
    chunks.add_text(
        "parameters",
        f"{EVIL}\nNegative prompt: {EVIL}\nSteps: 3, Sampler: {EVIL}, CFG scale: 5, Seed: 1, Model: {EVIL}",
    )
    chunks.add_text("Comment", EVIL)
    Image.new("RGB", (16, 16)).save(file, pnginfo=chunks)
    return file


def test_hostile_text_is_shown_as_text(open_page: Open, server: Server, evil_picture: Path) -> None:
    page = open_page()
    expect(page.locator(".ls-lora", has_text=EVIL)).to_be_visible()
    tab(page, "PNG Info")
    page.locator("#pnginfo_image").set_input_files(evil_picture)
    expect(page.locator("#pnginfo_text")).to_contain_text(EVIL)
    expect(page.locator("[data-panel=pnginfo]")).to_contain_text("Comment")
    unharmed(page)
    page.locator("#pnginfo_send").click()
    expect(page.locator(PROMPT)).to_have_value(EVIL)
    drop(page, PROMPT, evil_picture)
    unharmed(page)
    set_number(page, "steps", 3)
    page.locator(NEGATIVE).fill(EVIL)
    generate(page, f"{EVIL} one")
    done(page, server)
    expect(page.locator("#txt2img_stage .ls-info")).to_contain_text(EVIL)
    generate(page, f"fail {EVIL}")
    expect(page.locator(".ls-job.bad").first).to_contain_text(EVIL)
    unharmed(page)
    generate(page, f"<lora:{EVIL[1:-1]}:1>")
    expect(page.locator(".ls-toast.bad").first).to_be_visible()
    unharmed(page)
    tab(page, "Library")
    page.locator(".ls-gallery .ls-tile").first.click()
    page.locator("#library_embeddings").click()
    expect(page.locator(".ls-model", has_text=EVIL).first).to_be_visible()
    page.locator("#library_loras").click()
    expect(page.locator(".ls-model", has_text=EVIL)).to_be_visible()
    unharmed(page)


def test_the_browser_keeps_no_prompts(page: Page, server: Server) -> None:
    set_number(page, "steps", 2)
    generate(page, "a secret surprise")
    done(page, server)
    page.wait_for_timeout(700)
    kept = page.evaluate(
        """async () => JSON.stringify([{...localStorage}, {...sessionStorage}, document.cookie,
            (await indexedDB.databases()).map((each) => each.name)])"""
    )
    assert "secret" not in kept
    names = set(page.evaluate("Object.keys(localStorage)"))
    assert names <= {"latent-studio-browser", "latent-studio-theme", "latent-studio-put-aside"}


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, timeout=30) as http:
        yield http


@pytest.fixture
def canary(server: Server, tmp_path: Path) -> list[Path]:
    """Files that nobody may read: beside the data, in the temporary folder, and what every machine has."""
    root = server.studio.paths.root
    files = [
        root / "secret.txt",
        root / "settings.json",
        server.studio.paths.outputs / "notes.txt",
        tmp_path / "outside.txt",
    ]
    for file in files:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(CANARY)
    return [*files, Path("/etc/hostname"), Path(__file__).resolve().parents[2] / "pyproject.toml"]


def cached(content: bytes) -> list[Path]:
    """Copies of a file in the folder from which Gradio serves."""
    from gradio.utils import get_upload_folder  # only once the page is there: it imports Gradio without writing stubs

    folder = Path(get_upload_folder())
    assert folder.name == "uploads" and Path(tempfile.gettempdir()) / "gradio" not in (folder, *folder.parents)
    return (
        [file for file in folder.rglob("*") if file.is_file() and file.read_bytes() == content]
        if folder.is_dir()
        else []
    )


def test_no_endpoint_of_gradio_reads_a_file_that_was_not_uploaded(
    server: Server, client: httpx.Client, canary: list[Path]
) -> None:
    config = client.get("/config").json()
    listeners = [each for each in config["dependencies"] if each["backend_fn"]]
    assert len(listeners) > 10
    for file in canary[:2]:
        claim = {"path": str(file), "meta": {"_type": "gradio.FileData"}, "orig_name": file.name}
        for listener in listeners:
            body: dict[str, Any] = {
                "data": [claim] * len(listener["inputs"]),
                "fn_index": listener["id"],
                "session_hash": "x",
            }
            for path in ("/gradio_api/run/predict", "/gradio_api/api/predict", "/gradio_api/queue/join"):
                answer = client.post(path, json=body)
                assert CANARY not in answer.text, (path, listener["id"])
    assert cached(CANARY.encode()) == []


def test_no_route_serves_a_file_by_its_path(client: httpx.Client, canary: list[Path]) -> None:
    for file in canary:
        for route in ("/gradio_api/file=", "/file=", "/gradio_api/proxy=", f"{assets_url()}/", "/gradio_api/stream/"):
            for path in (str(file), f"/../..{file}", f"file://{file}"):
                answer = client.get(route + path)
                assert CANARY not in answer.text
                assert not file.is_file() or file.read_text() not in answer.text, (route, path)


def test_the_hole_would_be_seen(tmp_path: Path) -> None:
    """The same request against a page with a picture input and without our fix does copy the file: the test can fail."""
    import gradio as gr
    from fastapi import FastAPI
    from fastapi.testclient import TestClient

    from studio.ui.mount import in_own_loop

    secret = tmp_path / "hole.txt"
    secret.write_text("canary-of-the-hole")

    def made(launched: bool) -> FastAPI:
        with gr.Blocks(analytics_enabled=False) as blocks:
            blocks.load(lambda value: None, inputs=[gr.File()], outputs=[])
        app = gr.mount_gradio_app(FastAPI(), blocks, path="/")
        blocks.has_launched = launched
        return app

    claim = {"path": str(secret), "meta": {"_type": "gradio.FileData"}, "orig_name": "hole.txt"}
    body = {"data": [claim], "fn_index": 0, "session_hash": "x"}
    copies = {}
    for launched in (True, False):
        with TestClient(in_own_loop(made, launched)) as client:
            client.post("/gradio_api/run/predict", json=body)
        copies[launched] = cached(b"canary-of-the-hole")
    for copy in copies[False]:
        copy.unlink()
    assert copies[True] == []
    assert copies[False] != []


def test_nothing_is_listed_for_clients(client: httpx.Client) -> None:
    described = client.get("/gradio_api/info").json()
    assert described == {"named_endpoints": {}, "unnamed_endpoints": {}}


def test_pages_of_other_sites_get_nothing(client: httpx.Client) -> None:
    foreign = {"origin": "https://evil.example"}
    assert client.get("/config", headers={"host": "evil.example"}).status_code == 403
    for path in ("/gradio_api/run/predict", "/gradio_api/upload", "/studio/v1/interrupt"):
        assert client.post(path, headers=foreign, content=json.dumps({})).status_code == 403

"""One Chromium and one server for all browser tests; every test gets a fresh browser profile.

Without a Chromium these tests skip, unless STUDIO_REQUIRE_BROWSER=1 says that there must be one.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, Playwright, expect, sync_playwright

from studio.app import Studio
from studio.building import build
from studio.paths import Paths
from studio.settings import Settings
from studio.ui.mount import mount_page
from studio.ui.static import assets_url
from tests.api.stand_in import serving
from tests.browser.painter import PaintingEngine
from tests.library import models

NAMES = (
    *("chromium-headless-shell", "chrome-headless-shell"),  # the same engine without a window: a quarter less work
    *("chromium", "chromium-browser", "google-chrome-stable", "google-chrome", "chrome"),
)
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
             "--disable-component-update", "--disable-sync",
             "--renderer-process-limit=1"]  # fmt: skip  # it keeps the page's compiled script: loading takes two thirds
EVIL = "<img src=x onerror=window.hit=1>"
READY = "html[data-ready=yes]"
STEP_SECONDS = 0.01
expect.set_options(timeout=20_000)  # a busy machine is slow; what never comes true fails all the same


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "/tests/browser/" in item.path.as_posix():
            item.add_marker(pytest.mark.browser)


@pytest.fixture(scope="session")
def playwright() -> Iterator[Playwright]:
    with sync_playwright() as started:
        yield started


@pytest.fixture(scope="session")
def browser(playwright: Playwright) -> Iterator[Browser]:
    path = os.environ.get("STUDIO_CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)
    if path is None:
        words = f"no Chromium was found (looked for {', '.join(NAMES)})"
        if os.environ.get("STUDIO_REQUIRE_BROWSER") == "1":
            pytest.fail(words)
        pytest.skip(words)
    started = playwright.chromium.launch(executable_path=path, headless=True, args=ARGUMENTS)
    yield started
    started.close()


@dataclass
class Server:
    """The running server, and what is behind it."""

    url: str
    studio: Studio
    engine: PaintingEngine

    @property
    def pictures(self) -> list[Path]:
        """The saved files, oldest first."""
        return sorted((self.studio.paths.outputs / "txt2img-images").rglob("*.png"))

    @property
    def failed(self) -> list[int]:
        """The jobs of earlier tests that failed: a new visitor has put them aside."""
        return [job.id for job in self.studio.queue.jobs(limit=1000) if job.status in ("failed", "interrupted")]

    def settle(self) -> None:
        """Nothing runs, waits or is held any more."""
        for job in self.studio.queue.jobs(active=True):
            self.studio.queue.cancel(job.id)
        for job in self.studio.queue.jobs(limit=5):
            self.studio.queue.wait(job.id, 10)
        self.engine.go_on()
        self.engine.step_seconds = STEP_SECONDS


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("studio")
    paths = Paths(folder)
    models.save_folder(paths.checkpoints / "oak")
    models.save(paths.checkpoints / "ash.safetensors", models.SD1)
    models.save(paths.vae / "sharp.safetensors", models.VAE)
    for number, name in enumerate(["ink", "duotone", "pencil", "styles/pastel", EVIL]):
        models.save(
            paths.loras / f"{name}.safetensors", models.LORA, {"ss_output_name": name, "ss_tag_frequency": "{}"}, number
        )
    models.save(paths.embeddings / "soft (v2).safetensors", models.EMBEDDING)
    models.save(paths.embeddings / "xl" / "grand.safetensors", models.EMBEDDING_XL)
    models.save(paths.embeddings / f"{EVIL}.pt", {})
    engine = PaintingEngine(step_seconds=STEP_SECONDS)
    studio = build(Settings(sd_model_checkpoint="oak"), paths, engine=engine)
    with serving(studio, lambda app: mount_page(app, studio)) as url:
        yield Server(url, studio, engine)


Open = Callable[..., Page]


@pytest.fixture(scope="session")
def profile(browser: Browser) -> Iterator[BrowserContext]:
    """A browser profile that keeps its cache from test to test, but nothing else: loading takes half the time."""
    context = browser.new_context(accept_downloads=True)
    yield context
    context.close()


@pytest.fixture
def open_page(browser: Browser, profile: BrowserContext, server: Server) -> Iterator[Open]:
    """Open the page as a new visitor; at the end of the test nothing may have gone wrong in any of them.

    `theme`, `width` and `height` are as given; `other` opens it in another browser, `touch` on a phone; `expected` are parts of complaints
    that the test provokes.
    """
    visits: list[tuple[Page, list[str], tuple[str, ...]]] = []

    def opened(
        *,
        theme: str | None = None,
        width: int = 1440,
        height: int = 960,
        other: bool = False,
        touch: bool = False,
        expected: tuple[str, ...] = (),
    ) -> Page:
        page = (browser.new_context(has_touch=touch, is_mobile=touch) if other or touch else profile).new_page()
        page.set_viewport_size({"width": width, "height": height})
        page.set_default_timeout(45_000)  # a page takes seconds to load, on busy machines many
        complaints: list[str] = []
        visits.append((page, complaints, expected))
        page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: complaints.append(f"page error: {error}"))
        page.on("dialog", lambda dialog: (complaints.append(f"dialog: {dialog.message}"), dialog.dismiss()))
        page.on("request", lambda request: _local(request.url, server.url, complaints))
        forget(page, server.url)
        page.evaluate("(ids) => localStorage.setItem('latent-studio-put-aside', JSON.stringify(ids))", server.failed)
        if theme:
            page.add_init_script(f"localStorage.setItem('latent-studio-theme', '{theme}')")
        page.goto(server.url)
        page.wait_for_selector(READY, state="attached")
        return page

    server.settle()
    yield opened
    server.settle()
    for page, complaints, expected in visits:
        page.close()
        if page.context is not profile:
            page.context.close()
        assert [said for said in complaints if not any(part in said for part in expected)] == []


def forget(page: Page, url: str) -> None:
    """Make the browser a stranger: nothing stored is left."""
    page.goto(f"{url}{assets_url()}/favicon.png")
    page.evaluate("localStorage.clear()")


def _local(url: str, own: str, complaints: list[str]) -> None:
    if not url.startswith((own, "data:", "blob:")):
        complaints.append(f"asked another server: {url}")


@pytest.fixture
def page(open_page: Open) -> Page:
    return open_page()

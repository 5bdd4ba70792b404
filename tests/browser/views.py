"""How the page is looked at: wide and narrow, dark and light, and what may never happen in any of them.

With STUDIO_SCREENSHOTS=FOLDER the tests leave pictures of the page there; a full picture takes a second, so otherwise none is made.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from playwright.sync_api import Locator, Page

VIEWS = {
    "dark": ("dark", 1440, 960),
    "light": ("light", 1440, 960),
    "tablet": ("dark", 820, 1180),
    "phone": ("light", 420, 900),
    "narrow": ("light", 375, 800),
}
"""Name -> theme, width and height of the window in CSS pixels."""
DEVICES = {"desk": ("dark", "light"), "hand": ("phone", "narrow", "tablet")}
"""What a person holds -> the views of it; the page is opened and used in the first, and looked at in all."""

THEME = """(theme) => {
    localStorage.setItem("latent-studio-theme", theme);
    document.dispatchEvent(new Event("latent-studio-theme"));
}"""


def fits(page: Page) -> None:
    """Nothing makes the page wider than the window."""
    wide = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    assert wide <= 0


def picture(of: Page | Locator, name: str, **wishes: Any) -> None:
    """A screenshot `name`.png, if they are wanted."""
    if folder := os.environ.get("STUDIO_SCREENSHOTS"):
        of.screenshot(path=Path(folder) / f"{name}.png", **wishes)


def look(page: Page, device: str, name: str) -> None:
    """Look at the page as it is, in every view of the device: it fits."""
    first, *_ = views = DEVICES[device]
    for view in (*views[1:], first):
        theme, width, height = VIEWS[view]
        page.set_viewport_size({"width": width, "height": height})
        page.evaluate(THEME, theme)
        page.wait_for_timeout(150)
        assert page.evaluate("document.documentElement.dataset.theme") == theme
        fits(page)
        picture(page, f"{name}-{view}", full_page=True)

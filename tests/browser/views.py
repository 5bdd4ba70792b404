"""How the page is looked at: wide and narrow, dark and light, and what may never happen in any of them.

The screenshots lie in the folder named by STUDIO_SCREENSHOTS, or in pytest's temporary one.
"""

from __future__ import annotations

from pathlib import Path

from playwright.sync_api import Page

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


def shoot(page: Page, folder: Path, device: str, name: str) -> None:
    """Look at the page as it is, in every view of the device: it fits, and a picture of it is kept."""
    first, *_ = views = DEVICES[device]
    for view in (*views[1:], first):
        theme, width, height = VIEWS[view]
        page.set_viewport_size({"width": width, "height": height})
        page.evaluate(THEME, theme)
        page.wait_for_timeout(150)
        assert page.evaluate("document.documentElement.dataset.theme") == theme
        fits(page)
        page.screenshot(path=folder / f"{name}-{view}.png", full_page=True)

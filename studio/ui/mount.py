"""Putting the page into the server's application.

Gradio is imported here and not before: the command line and the tests of everything below never pay for it.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from studio.ui.stubs import import_gradio

if TYPE_CHECKING:
    from fastapi import FastAPI
    from starlette.responses import Response

    from studio.app import Studio

P = ParamSpec("P")
T = TypeVar("T")

MAX_UPLOAD = 64 * 1024 * 1024
"""Bytes of one upload through Gradio. The page itself uploads nothing that way."""


def mount_page(app: FastAPI, studio: Studio) -> FastAPI:
    """Serve the page at `/` and its scripts and stylesheets below `/studio/page`. Call it after all other routes are there."""
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ["GRADIO_TEMP_DIR"] = str(studio.paths.uploads)  # its default is one folder for all users of the machine
    return in_own_loop(_mount, app, studio)


def in_own_loop(work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call `work` in a thread that has a running event loop, and close that loop.

    Where none runs, every Gradio application that is built makes event loops of its own and never closes them.
    """

    async def call() -> T:
        return work(*args, **kwargs)

    with ThreadPoolExecutor(1, thread_name_prefix="page") as pool:
        return pool.submit(asyncio.run, call()).result()


def _mount(app: FastAPI, studio: Studio) -> FastAPI:
    import_gradio()
    import gradio as gr
    from starlette.staticfiles import StaticFiles

    from studio.ui.blocks import build_blocks, folds
    from studio.ui.folded import folded
    from studio.ui.handlers import http_settings
    from studio.ui.looks import LOOKS, number_fields
    from studio.ui.static import ASSETS, assets_url
    from studio.ui.theme import make_head, make_theme

    class Assets(StaticFiles):
        """Files that the browser keeps without asking again: an update has another address."""

        def file_response(self, *args: Any, **kwargs: Any) -> Response:
            response = super().file_response(*args, **kwargs)
            response.headers["Cache-Control"] = "public, max-age=31536000, immutable"
            return response

    app.mount(assets_url(), Assets(directory=ASSETS), name="page-assets")
    blocks = build_blocks(studio)
    sections = folds(blocks)
    config = {
        "version": studio.version,
        "exposed": studio.exposed,
        "settings": http_settings(studio.settings),
        "numbers": number_fields(),
        "fields": {name: look.elem_id for name, look in LOOKS.items()},
        "folds": sections,
        "folded": folded(sections),
        "folder": "" if studio.exposed else str(studio.paths.root),
    }
    mounted: FastAPI = gr.mount_gradio_app(
        app,
        blocks,
        path="/",
        footer_links=[],
        run_history=False,
        allowed_paths=[],  # pictures are served by id, by the API; Gradio serves no file of ours
        blocked_paths=[str(studio.paths.root)],
        max_file_size=MAX_UPLOAD,
        show_error=False,
        ssr_mode=False,
        enable_monitoring=False,
        pwa=False,
        mcp_server=False,
        theme=make_theme(),
        head=make_head(config),
        favicon_path=str(ASSETS / "favicon.png"),
    )
    # Only `launch` sets this, and without it Gradio does not check whether a path a client names was ever uploaded: any
    # file the process can read could be asked for.
    blocks.has_launched = True
    return mounted

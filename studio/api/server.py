"""`create_app`: routes, documentation, error answers, and the guard and login around all of it, the mounted page included."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from importlib.resources import files

from fastapi import FastAPI
from starlette.responses import HTMLResponse

from studio.api import a1111, native
from studio.api.answers import install_handlers
from studio.api.auth import Auth, Login
from studio.api.guard import Guard, HostPolicy
from studio.api.login import login_routes
from studio.app import Studio
from studio.errors import NotFound

DESCRIPTION = """The studio over HTTP. `/studio/v1` is its own interface; `/sdapi/v1` is AUTOMATIC1111's.

Every error has the form `{"error": {"code", "message", "field", "choices"}, "detail": message}`.
Bodies are JSON. When the server has a login, send it as HTTP Basic."""


def create_app(
    studio: Studio, mount: Callable[[FastAPI], FastAPI] | None = None, *, host: str | None = None
) -> FastAPI:
    """The whole server as one ASGI application. It starts and closes nothing: the caller owns `studio`.

    `mount` adds the page and returns the application to serve; `host` is the address that will be bound (default: the
    settings'). `app.state.hosts.allow(name)` adds a public name later, when a share link is made.
    """
    app = FastAPI(
        title="Latent Studio",
        version=studio.version,
        description=DESCRIPTION,
        docs_url=None,
        redoc_url=None,
        openapi_url="/openapi.json",
    )
    login = Login(studio.settings.auth) if studio.settings.auth else None
    hosts = HostPolicy.of(host or ("0.0.0.0" if studio.settings.listen else studio.settings.host))
    app.state.studio, app.state.hosts, app.state.boot = studio, hosts, secrets.token_hex(4)
    install_handlers(app)
    app.include_router(login_routes(login))
    app.include_router(native.router)
    app.include_router(a1111.router)
    _add_documentation(app)
    _close_prefixes(app)
    if mount is not None:
        app = mount(app)
    app.add_middleware(Auth, login=login)
    app.add_middleware(Guard, hosts=hosts)  # the last one added is the outermost
    return app


def _add_documentation(app: FastAPI) -> None:
    page = files("studio.api").joinpath("docs.html").read_text("utf-8")

    @app.get("/docs", include_in_schema=False)
    def documentation() -> HTMLResponse:
        return HTMLResponse(page)


def _close_prefixes(app: FastAPI) -> None:
    """Unknown API routes get our JSON answer; without this a mounted page would answer with its HTML."""

    @app.api_route("/studio/v1/{rest:path}", methods=["GET", "POST", "PUT", "PATCH", "DELETE"], include_in_schema=False)
    @app.api_route("/sdapi/{rest:path}", methods=["GET", "POST", "PUT", "PATCH", "DELETE"], include_in_schema=False)
    def unknown(rest: str) -> None:
        raise NotFound("There is no such route; /docs lists all of them.")

"""Starting the server: the one place that knows every face.

Binds the port, builds the studio, puts API and page into one application behind one guard, prints the address and
opens the browser once the page answers. No torch here: the worker warms up in its own process meanwhile.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import socket
import threading
import webbrowser
from types import FrameType
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from studio.cli.options import ENGINE_FIELDS, open_settings, say
from studio.cli.serve import SERVER_FIELDS
from studio.errors import SettingsError, StudioError
from studio.settings import Settings

if TYPE_CHECKING:
    from fastapi import FastAPI

PORTS_TO_TRY = 20
SHUTDOWN_SECONDS = 3
"""How long open event streams may hold up the end; they reconnect to the next server."""


def serve(arguments: argparse.Namespace) -> int:
    """Run until Ctrl-C or SIGTERM; returns the exit code. Raises `StudioError` for anything that prevents a start."""
    settings, paths, notes = open_settings(arguments, (*SERVER_FIELDS, *ENGINE_FIELDS))
    exact_port = "port" in settings.model_fields_set

    from studio.api.auth import bound_host, is_exposed, require_auth

    settings, login = require_auth(settings)
    listener = bind(bound_host(settings), settings.port, exact=exact_port)
    try:
        from studio.building import build

        studio = build(settings, paths, exposed=is_exposed(settings))
        try:
            for line in (*notes, *studio.notes, *login):
                say(line)

            from studio.api.server import create_app
            from studio.ui.mount import mount_page

            app = create_app(studio, lambda inner: mount_page(inner, studio), host=bound_host(settings))
            studio.start()
            _run(app, listener, settings)
        finally:
            studio.close()
    finally:
        listener.close()
    return 0


def bind(host: str, port: int, *, exact: bool) -> socket.socket:
    """A listening socket on `port`, or on the next free one unless `exact`.

    Raises `SettingsError` naming address and port when none is free or the address is not of this machine.
    """
    last: OSError | None = None
    for candidate in [port] if exact else range(port, min(port + PORTS_TO_TRY, 65536)):
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        # asyncio sends small answers at once (TCP_NODELAY) only where the protocol is named; else each may wait 40 ms
        listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        if os.name == "posix":  # elsewhere it would let two servers share the port
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, candidate))
            listener.listen(2048)
        except OSError as error:
            listener.close()
            last = error
        else:
            return listener
    reason = (last.strerror or str(last)) if last else "no port left"
    tried = f"port {port}" if exact else f"ports {port} to {port + PORTS_TO_TRY - 1}"
    raise SettingsError(f"{host} {tried} cannot be used: {reason}. Choose another with --port.", field="port")


def address(settings: Settings, listener: socket.socket) -> str:
    """The URL for a browser on this machine."""
    host, port = listener.getsockname()[:2]
    name = "127.0.0.1" if host in ("0.0.0.0", "::") else f"[{host}]" if ":" in host else host
    return f"http://{name}:{port}/"


def _run(app: FastAPI, listener: socket.socket, settings: Settings) -> None:
    """Serve until told to stop; announce the address as soon as requests are answered."""
    import uvicorn

    url = address(settings, listener)

    class Server(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            if self.started:
                threading.Thread(target=_announce, args=(app, url, settings), daemon=True).start()

        def handle_exit(self, sig: int, frame: FrameType | None) -> None:
            app.state.studio.queue.events.close()  # streams end, and with them what would hold up the shutdown
            app.state.studio.queue.sketches.close()
            super().handle_exit(sig, frame)

    config = uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=SHUTDOWN_SECONDS,
        proxy_headers=False,
    )
    with contextlib.suppress(KeyboardInterrupt):  # uvicorn repeats the signal when it has shut down
        previous = signal.signal(signal.SIGTERM, signal.default_int_handler)
        try:
            Server(config).run(sockets=[listener])
        finally:
            signal.signal(signal.SIGTERM, previous)


def _announce(app: FastAPI, url: str, settings: Settings) -> None:
    """Say where the page is, open it, and make the public link when one was asked for."""
    say(f"Latent Studio is at {url}")
    if settings.browser:
        webbrowser.open(url)
    if settings.share:
        from studio.ui.share import open_share_link

        parts = urlsplit(url)
        try:
            public = open_share_link(parts.hostname or "127.0.0.1", parts.port or 80)
        except StudioError as error:
            say(error.message)
        else:
            app.state.hosts.allow(urlsplit(public).hostname)
            say(f"Public link: {public}")

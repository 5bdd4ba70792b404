"""The public Gradio link: a tunnel from Gradio's server to this one. The only part that talks to the network."""

from __future__ import annotations

import secrets

from studio.errors import StudioError


def open_share_link(host: str, port: int) -> str:
    """Ask Gradio for a public address that leads to this server; it lives as long as this process.

    Downloads Gradio's tunnel program on first use. Raises `StudioError` when there is no way out to the network.
    """
    from gradio import networking

    try:
        return str(networking.setup_tunnel(host, port, secrets.token_urlsafe(32), None, None))
    except (
        Exception
    ) as error:  # whatever the tunnel's program, the download or the server raise: the page works without
        raise StudioError(f"No public link could be made: {error}") from error

"""Where the server listens."""

from __future__ import annotations

import socket

import pytest

from studio.errors import SettingsError
from studio.serve import bind


def test_small_answers_go_out_at_once() -> None:
    """asyncio sets TCP_NODELAY on connections of a socket that names its protocol, and on no others."""
    with bind("127.0.0.1", 0, exact=True) as listener:
        assert listener.proto == socket.IPPROTO_TCP


def test_a_port_that_is_taken_is_named() -> None:
    with bind("127.0.0.1", 0, exact=True) as listener:
        port = listener.getsockname()[1]
        with pytest.raises(SettingsError, match=f"127.0.0.1 port {port} cannot be used"):
            bind("127.0.0.1", port, exact=True)

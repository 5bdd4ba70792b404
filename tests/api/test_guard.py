"""What web pages of others try, over a real connection."""

from __future__ import annotations

import http.client
import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from fastapi import FastAPI
from hypothesis import given
from hypothesis import strategies as st
from starlette.types import Message, Receive, Scope, Send

from studio.api.guard import JSON_LIMIT, Guard, HostPolicy, is_loopback
from tests.api.stand_in import make_studio, serving
from tests.coroutines import run_alone

Answer = tuple[int, dict[str, str], bytes]


async def inner(scope: Scope, receive: Receive, send: Send) -> None:
    """A page mounted behind the guard that answers anything, with a generous CORS header."""
    await send({"type": "http.response.start", "status": 200, "headers": [(b"access-control-allow-origin", b"*")]})
    await send({"type": "http.response.body", "body": b"mounted"})


def mount(app: FastAPI) -> FastAPI:
    app.mount("/", inner)
    return app


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with serving(make_studio(tmp_path_factory.mktemp("guard")), mount) as url:
        yield url


def ask(address: str, method: str, path: str, headers: dict[str, str], body: bytes | None = None) -> Answer:
    """One request with exactly these headers (`Host` is the real one unless given)."""
    target = urlsplit(address)
    connection = http.client.HTTPConnection(target.hostname or "", target.port, timeout=10)
    headers = {"Host": target.netloc, **headers}
    connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
    for name, value in headers.items():
        connection.putheader(name, value)
    if body is not None and "Transfer-Encoding" not in headers:
        connection.putheader("Content-Length", str(len(body)))
    connection.endheaders(body)
    answer = connection.getresponse()
    found = answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
    connection.close()
    return found


EVIL = "https://evil.example"
JSON = {"Content-Type": "application/json"}
CROSS = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "image"}


@pytest.mark.parametrize("path", ["/", "/sdapi/v1/interrupt", "/studio/v1/interrupt", "/gradio_api/queue/join"])
@pytest.mark.parametrize(
    "headers, body, status",
    [
        ({"Host": "rebind.evil:7860"}, b"", 403),
        ({"Host": "evil.localhost.example"}, b"", 403),
        ({"Host": "127.0.0.1.evil.example"}, b"", 403),
        ({"Host": "192.168.0.7"}, b"", 403),
        ({"Host": ""}, b"", 403),
        ({"Host": "localhost:80:80"}, b"", 403),
        ({"Host": "user@localhost"}, b"", 403),
        ({"Origin": EVIL}, b"", 403),
        ({"Origin": EVIL, **JSON}, b"{}", 403),
        ({"Origin": "null"}, b"", 403),
        ({"Origin": "http://127.0.0.1:1"}, b"", 403),
        ({"Origin": "http://localhost"}, b"", 403),
        ({"Sec-Fetch-Site": "cross-site"}, b"", 403),
        ({"Content-Type": "text/plain"}, b'{"prompt": "x"}', 415),
        ({"Content-Type": "text/plain"}, b"", 415),
        ({"Content-Type": "application/x-www-form-urlencoded"}, b"a=b", 415),
        ({"Content-Type": "multipart/form-data; boundary=x"}, b"--x--", 415),
        ({}, b"{}", 415),
        ({**JSON, "Content-Length": str(JSON_LIMIT + 1)}, None, 413),
        ({**JSON, "Content-Length": "9" * 30}, None, 400),
    ],
)
def test_posts_of_others_are_refused(
    address: str, path: str, headers: dict[str, str], body: bytes | None, status: int
) -> None:
    found, answered, content = ask(address, "POST", path, headers, body)
    if headers.get("Content-Length", "").startswith("99"):
        assert found in (400, 413)  # the HTTP parser may be first
        return
    assert found == status
    assert "error" in json.loads(content)
    assert answered["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize(
    "path", ["/", "/docs", "/sdapi/v1/options", "/studio/v1/state", "/gradio_api/file=/etc/passwd"]
)
@pytest.mark.parametrize(
    "headers", [{"Host": "rebind.evil"}, {"Origin": EVIL}, {"Origin": "null"}, CROSS, {"Sec-Fetch-Site": "cross-site"}]
)
def test_reads_of_others_are_refused(address: str, path: str, headers: dict[str, str]) -> None:
    assert ask(address, "GET", path, headers)[0] == 403
    assert ask(address, "OPTIONS", path, {**headers, "Access-Control-Request-Method": "POST"})[0] == 403


def test_a_link_leads_to_the_page_and_nowhere_else(address: str) -> None:
    link = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}
    assert ask(address, "GET", "/", link)[0] == 200
    assert ask(address, "GET", "/?__theme=dark", link)[0] == 200
    assert ask(address, "GET", "/studio/v1/images/1.png", link)[0] == 403
    assert ask(address, "GET", "/", {**link, "Sec-Fetch-Dest": "iframe"})[0] == 403
    assert ask(address, "POST", "/", {**link, **JSON}, b"{}")[0] == 403


def test_our_own_page_and_programs_get_through(address: str) -> None:
    netloc = urlsplit(address).netloc
    own = {"Origin": address, "Sec-Fetch-Site": "same-origin", **JSON}
    assert ask(address, "POST", "/sdapi/v1/interrupt", own, b"{}")[0] == 200
    assert ask(address, "POST", "/sdapi/v1/interrupt", {})[0] == 200
    assert (
        ask(address, "POST", "/studio/v1/tokens", {"Content-Type": "application/json; charset=utf-8"}, b'{"text":""}')[
            0
        ]
        == 200
    )
    for host in ("localhost", "LOCALHOST:9", "127.0.0.1", "127.9.9.9:1", "[::1]:7860", "studio.localhost"):
        assert ask(address, "GET", "/sdapi/v1/samplers", {"Host": host})[0] == 200, host
    status, headers, content = ask(address, "GET", "/anything", {"Origin": f"http://{netloc}"})
    assert (status, content) == (200, b"mounted")
    assert "access-control-allow-origin" not in headers
    assert "frame-ancestors 'self'" in headers["content-security-policy"]
    upload = {"Content-Type": "multipart/form-data; boundary=x", "Origin": address}
    assert ask(address, "POST", "/gradio_api/upload", upload, b"--x--")[0] == 200


def test_a_request_keeps_its_id(address: str) -> None:
    assert ask(address, "GET", "/sdapi/v1/samplers", {"X-Request-ID": "abc-1"})[1]["x-request-id"] == "abc-1"
    made = ask(address, "GET", "/sdapi/v1/samplers", {"X-Request-ID": "a b\tc"})[1]["x-request-id"]
    assert made not in ("", "a b\tc")


def test_a_large_body_is_refused_before_it_is_read(address: str) -> None:
    target = urlsplit(address)
    with socket.create_connection((target.hostname, target.port), timeout=10) as connection:
        head = f"POST /studio/v1/tokens HTTP/1.1\r\nHost: {target.netloc}\r\nContent-Type: application/json\r\n"
        connection.sendall(f"{head}Content-Length: {10 << 20}\r\n\r\n".encode())
        assert connection.recv(20).startswith(b"HTTP/1.1 413")


def test_a_chunked_body_is_counted(address: str) -> None:
    def chunks() -> Iterator[bytes]:
        for _ in range(9):
            yield b" " * (1 << 20)

    with httpx.Client(timeout=20) as client:
        answer = client.post(f"{address}/studio/v1/tokens", content=chunks(), headers=JSON)
        assert answer.status_code == 413
        assert "8192 kB" in answer.json()["detail"]


@pytest.mark.parametrize(
    "body", [b"[" * 200_000, b'{"text": "\\ud800"}', b'{"text": "a\\u0000b"}', b"\xff\xfe", b'{"text": 1}', b""]
)
def test_bodies_that_make_parsers_stumble(address: str, body: bytes) -> None:
    began = time.monotonic()
    status, _, content = ask(address, "POST", "/studio/v1/tokens", JSON, body)
    assert status in (400, 422)
    assert json.loads(content)["detail"]
    assert time.monotonic() - began < 3


@pytest.mark.parametrize(
    "method, path, body",
    [
        ("POST", "/sdapi/v1/txt2img", {"steps": 1, "force_task_id": "\ud800"}),
        ("POST", "/sdapi/v1/img2img", {"steps": 1, "alwayson_scripts": {"x": {"args": ["\ud800"]}}}),
        ("PUT", "/studio/v1/form/half", {"prompt": "\ud800"}),
    ],
)
def test_half_a_character_is_refused_where_it_would_be_echoed(
    address: str, method: str, path: str, body: dict[str, Any]
) -> None:
    status, _, content = ask(address, method, path, JSON, json.dumps(body).encode())
    assert status == 422
    assert "surrogate" in json.loads(content)["detail"]


@pytest.mark.parametrize(
    "headers, accepted",
    [
        ({"host": "127.0.0.1:7860"}, True),
        ({"host": "127.0.0.1:7860", "origin": "http://127.0.0.1:7860"}, True),
        ({"host": "127.0.0.1:7860", "origin": EVIL}, False),
        ({"host": "127.0.0.1:7860", "origin": "null"}, False),
        ({"host": "rebind.evil"}, False),
        ({"host": "127.0.0.1:7860", "sec-fetch-site": "cross-site"}, False),
    ],
)
def test_websockets_pass_the_same_guard(headers: dict[str, str], accepted: bool) -> None:
    sent: list[Message] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "websocket.accept"})

    async def receive() -> Message:
        return {"type": "websocket.connect"}

    async def send(message: Message) -> None:
        sent.append(message)

    raw = [(name.encode(), value.encode()) for name, value in headers.items()]
    run_alone(
        Guard(app, HostPolicy.of("127.0.0.1"))({"type": "websocket", "path": "/ws", "headers": raw}, receive, send)
    )
    assert [message["type"] for message in sent] == ["websocket.accept" if accepted else "websocket.close"]


def test_a_listening_server_knows_the_addresses_and_names_of_its_machine() -> None:
    policy = HostPolicy.of("0.0.0.0")
    for host in (
        "192.168.1.5:7860",
        "[2001:db8::1]:7860",
        f"{socket.gethostname()}:7860",
        "localhost",
        "host.docker.internal",
    ):
        assert policy.accepts(host), host
    for host in ("evil.example", "192.168.1.5.evil.example", "", "[::1", "a" * 300):
        assert not policy.accepts(host), host
    policy.allow("Abc.gradio.live")
    assert policy.accepts("abc.gradio.live")
    assert not HostPolicy.of("127.0.0.1").accepts("192.168.1.5")


@given(st.text(max_size=60))
def test_only_loopback_names_mean_a_loopback_server(host: str) -> None:
    name = host.lower().split(":")[0].rstrip(".")
    if HostPolicy.of("127.0.0.1").accepts(host):
        assert name.endswith("localhost") or name.startswith(("127.", "[")), host


@pytest.mark.parametrize(
    "host, loopback",
    [("127.0.0.1", True), ("localhost", True), ("::1", True), ("[::1]", True), ("127.1.2.3", True),
     ("0.0.0.0", False), ("::", False), ("", False), ("192.168.1.5", False), ("no-such-host.invalid", False)],
)  # fmt: skip
def test_what_only_this_machine_can_reach(host: str, loopback: bool) -> None:
    assert is_loopback(host) == loopback


def test_a_share_name_works_when_it_is_known(tmp_path: Path) -> None:
    apps: list[FastAPI] = []
    studio = make_studio(tmp_path)
    with serving(studio, lambda app: apps.append(app) or app) as url:
        assert ask(url, "GET", "/docs", {"Host": "abc.gradio.live"})[0] == 403
        apps[0].state.hosts.allow("abc.gradio.live")
        share = {"Host": "abc.gradio.live", "Origin": "https://abc.gradio.live", **JSON}
        assert ask(url, "GET", "/docs", share)[0] == 200
        assert ask(url, "POST", "/studio/v1/skip", share, b"{}")[0] == 200

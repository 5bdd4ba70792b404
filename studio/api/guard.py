"""The guard in front of everything, HTTP and WebSocket, API and mounted page alike.

A web page in the user's browser can send requests to a server on the user's machine. What it cannot do is choose the
`Host`, `Origin` and `Sec-Fetch-Site` headers, and that is what is checked here:

- `Host` must be a name of this server, so a foreign domain that resolves to it (DNS rebinding) gets nothing;
- `Origin`, where there is one, must be the server itself, on every method; `null` is nobody;
- `Sec-Fetch-Site: cross-site` is refused, except for following a link to a page;
- bodies must be JSON, except on the few upload routes, because forms can be posted from anywhere;
- bodies have a size limit, checked before anything reads them.

Every answer gets the security headers.
"""

from __future__ import annotations

import ipaddress
import logging
import re
import secrets
import socket
from dataclasses import dataclass, field

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from studio.api.answers import error_response
from studio.errors import InvalidRequest, NotAllowed, StudioError

log = logging.getLogger(__name__)

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
JSON_LIMIT = 8 << 20
UPLOAD_LIMIT = 64 << 20
ARCHIVE_LIMIT = 4 << 30
PAGES = frozenset({"/", "/login", "/docs"})
"""Where a link on another site may lead."""

_HOST = re.compile(r"(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9_.-]{1,253})(?::\d{1,5})?")
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_HEADERS = {
    "x-content-type-options": "nosniff",
    "x-frame-options": "SAMEORIGIN",
    "referrer-policy": "same-origin",  # "no-referrer" would make browsers send Origin: null with our own forms
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "content-security-policy": (
        "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; style-src 'self' 'unsafe-inline'; "
        "img-src 'self' data: blob:; media-src 'self' data: blob:; font-src 'self' data:; connect-src 'self' data: blob:; "
        "worker-src 'self' blob:; object-src 'none'; base-uri 'self'; form-action 'self'; frame-ancestors 'self'"
    ),
}


@dataclass(frozen=True)
class Intake:
    """What a route takes besides JSON, and how much of it. `types` are content types; `image/*` is any image."""

    limit: int
    types: tuple[str, ...] = ()

    def takes(self, content_type: str) -> bool:
        """Whether a body of this type may come in."""
        kind = content_type.split(";")[0].strip().lower()
        major = kind.split("/")[0]
        return kind == "application/json" or kind in self.types or f"{major}/*" in self.types


DEFAULT_INTAKE = Intake(JSON_LIMIT)
PICTURE_INTAKE = Intake(UPLOAD_LIMIT, ("image/*", "application/octet-stream"))
INTAKES = {
    "/login": Intake(8 << 10, ("application/x-www-form-urlencoded",)),
    "/gradio_api/upload": Intake(UPLOAD_LIMIT, ("multipart/form-data",)),
    "/studio/v1/picture-info": PICTURE_INTAKE,
    "/studio/v1/reproduce": PICTURE_INTAKE,
    "/studio/v1/init-images": PICTURE_INTAKE,
    "/sdapi/v1/png-info": Intake(UPLOAD_LIMIT),
    "/sdapi/v1/img2img": Intake(UPLOAD_LIMIT),
    "/studio/v1/training/datasets/upload": Intake(
        ARCHIVE_LIMIT, ("application/zip", "application/x-zip-compressed", "application/octet-stream")
    ),
}


@dataclass
class HostPolicy:
    """Which `Host` headers mean this server. `names` are lower case, without port."""

    names: set[str] = field(default_factory=set)
    any_address: bool = False
    """Accept every IP address: rebinding needs a name, and a server behind NAT does not know all of its addresses."""

    @classmethod
    def of(cls, bound: str) -> HostPolicy:
        """For a server bound to `bound`: loopback names only, or all names and addresses of this machine."""
        policy = cls({"localhost", bound.strip("[]").lower()})
        if not is_loopback(bound):
            own = socket.gethostname().lower()
            policy.names |= {
                own,
                f"{own}.local",
                socket.getfqdn().lower(),
                "host.docker.internal",
                "host.containers.internal",
            }
            policy.any_address = True
        return policy

    def allow(self, name: str) -> None:
        """Accept one more name, such as the public one of a share link."""
        self.names.add(name.lower())

    def accepts(self, header: str) -> bool:
        """Whether a `Host` header (with or without port) is one of ours."""
        match = _HOST.fullmatch(header)
        if match is None:
            return False
        name = match[1].strip("[]").lower().rstrip(".")
        if name in self.names:
            return True
        try:
            address = ipaddress.ip_address(name)
        except ValueError:
            return name.endswith(".localhost")
        return self.any_address or address.is_loopback


def is_loopback(host: str) -> bool:
    """Whether a server bound to `host` can be reached from this machine only."""
    name = host.strip("[]").lower()
    if name == "localhost":
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        pass
    try:
        found = socket.getaddrinfo(name, None) if name else []
    except OSError:
        found = []
    return bool(found) and all(ipaddress.ip_address(str(entry[4][0]).split("%")[0]).is_loopback for entry in found)


class Guard:
    """ASGI middleware; see the module. Also gives every request its id (`X-Request-ID`)."""

    def __init__(self, app: ASGIApp, hosts: HostPolicy) -> None:
        self.app = app
        self.hosts = hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Check, then hand on."""
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        request_id = _request_id(headers)
        scope.setdefault("state", {})["request_id"] = request_id
        send = _with_headers(send, request_id)
        refusal = self._origin_problem(scope, headers) or _body_problem(scope, headers)
        if refusal is None:
            await _limited(self.app, scope, receive, send, _intake(scope).limit)
            return
        error, status = refusal
        log.warning("refused %s %s: %s", scope.get("method", scope["type"]), scope["path"], error.message)
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
        else:
            await error_response(error, status)(scope, receive, send)

    def _origin_problem(self, scope: Scope, headers: Headers) -> tuple[StudioError, int] | None:
        host, origin = headers.get("host", ""), headers.get("origin")
        if len(headers.getlist("host")) != 1 or len(headers.getlist("origin")) > 1:
            return InvalidRequest("A request needs one Host header and at most one Origin."), 400
        if not self.hosts.accepts(host):
            return NotAllowed(f"This server is not {host[:100]!r}. Use the address it printed when it started."), 403
        if origin is not None and origin.lower() not in (f"http://{host.lower()}", f"https://{host.lower()}"):
            return NotAllowed(f"Requests from pages of {origin[:100]!r} are refused."), 403
        if headers.get("sec-fetch-site", "").lower() == "cross-site" and not _follows_link(scope, headers):
            return NotAllowed("Requests from pages of other sites are refused."), 403
        return None


def _follows_link(scope: Scope, headers: Headers) -> bool:
    """A browser that opens one of our pages in a tab, however it got there."""
    opens = headers.get("sec-fetch-mode") == "navigate" and headers.get("sec-fetch-dest") == "document"
    return opens and scope.get("method") == "GET" and scope["path"] in PAGES


def _intake(scope: Scope) -> Intake:
    return INTAKES.get(scope["path"], DEFAULT_INTAKE)


def _body_problem(scope: Scope, headers: Headers) -> tuple[StudioError, int] | None:
    if scope["type"] != "http":
        return None
    length, intake = headers.get("content-length"), _intake(scope)
    if length is not None and not (length.isascii() and length.isdigit() and len(length) < 20):
        return InvalidRequest("Content-Length is not a number."), 400
    if length is not None and int(length) > intake.limit:
        return _too_large(intake.limit), 413
    if scope["method"] in SAFE_METHODS:
        return None
    content_type = headers.get("content-type")
    has_body = int(length or 0) > 0 or "transfer-encoding" in headers
    if (content_type is None and has_body) or (content_type is not None and not intake.takes(content_type)):
        wanted = " or ".join(("application/json", *intake.types))
        return InvalidRequest(f"Content-Type {content_type!r} is not taken here; send {wanted}."), 415
    return None


def _too_large(limit: int) -> StudioError:
    return InvalidRequest(f"The body is larger than the {limit >> 10} kB this route takes.")


async def _limited(app: ASGIApp, scope: Scope, receive: Receive, send: Send, limit: int) -> None:
    """Run `app`, counting the bytes of a body that did not say its length."""
    received, exceeded, started = 0, False, False

    async def counted() -> Message:
        nonlocal received, exceeded
        message = await receive()
        if message["type"] == "http.request":
            received += len(message.get("body", b""))
            if received > limit:
                exceeded = True
                raise _too_large(limit)
        return message

    async def watched(message: Message) -> None:
        nonlocal started
        if exceeded and not started:
            return  # whatever the application makes of its broken body, the answer is ours
        started = True
        await send(message)

    try:
        await app(scope, counted, watched)
    except Exception:
        if not exceeded or started:
            raise
    if exceeded and not started:
        await error_response(_too_large(limit), 413)(scope, receive, send)


def _request_id(headers: Headers) -> str:
    given = headers.get("x-request-id", "")
    return given if _REQUEST_ID.fullmatch(given) else secrets.token_hex(8)


def _with_headers(send: Send, request_id: str) -> Send:
    """`send` that adds our headers where the answer has none of its own."""

    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in _HEADERS.items():
                headers.setdefault(name, value)
            headers["x-request-id"] = request_id
            for name in [name for name in headers if name.startswith("access-control-")]:
                del headers[name]  # no other origin ever gets to read an answer, whatever a mounted application says
        await send(message)

    return sending

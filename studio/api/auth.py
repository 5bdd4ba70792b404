"""One login for page, API, documentation and files.

With `settings.auth` set, `Auth` lets a request pass when it carries the session cookie of our login page or HTTP Basic
credentials (which A1111 clients send); everything else, also a route that somebody adds tomorrow, is closed. Without it
`Auth` lets all pass, and `require_auth` sees to it that such a server is reachable from this machine only.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import hashlib
import hmac
import secrets
import time
from collections import deque
from urllib.parse import quote

from starlette.datastructures import Headers
from starlette.requests import HTTPConnection
from starlette.responses import RedirectResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from studio.api.answers import error_response
from studio.api.guard import is_loopback
from studio.errors import NotAllowed, SettingsError, TooManyTries, Unauthorized
from studio.settings import Settings

LOGIN = "/login"
SESSION_SECONDS = 30 * 24 * 3600
TRIES_PER_ADDRESS, TRIES_IN_ALL, TRY_SECONDS = 10, 60, 60.0


def bound_host(settings: Settings) -> str:
    """The address the server listens on."""
    return "0.0.0.0" if settings.listen else settings.host


def is_exposed(settings: Settings) -> bool:
    """Whether anybody but this machine can reach the server, judged by the bound address."""
    return settings.share or not is_loopback(bound_host(settings))


def require_auth(settings: Settings) -> tuple[Settings, list[str]]:
    """Settings a server may start with, and lines to show.

    A shared server without a password gets one, which the lines tell. Raises `SettingsError` when a server would be
    reachable from other machines without a password, or `auth` is not USER:PASSWORD.
    """
    if settings.auth:
        _split(settings.auth)
        return settings, []
    if settings.share:
        password = secrets.token_urlsafe(12)
        lines = [f"The shared page asks for a login. User: studio   Password: {password}"]
        return settings.model_copy(update={"auth": f"studio:{password}"}), lines
    if is_exposed(settings):
        raise SettingsError(
            f"Listening on {bound_host(settings)} lets other machines use this studio: give it a login with "
            "--auth USER:PASSWORD (or STUDIO_AUTH), or listen on 127.0.0.1.",
            field="auth",
        )
    return settings, []


class Login:
    """Checks passwords and session cookies. Keeps a salted scrypt hash of the password, never the password.

    Sessions are signed with a key of this process: a restart ends them.
    """

    def __init__(self, auth: str) -> None:
        """Take USER:PASSWORD. Raises `SettingsError` when it is not that."""
        user, password = _split(auth)
        self._user = user.encode()
        self._salt = secrets.token_bytes(16)
        self._hash = self._scrypt(password.encode())
        self._key = secrets.token_bytes(32)
        self._known_basic = b""
        self._tries: dict[str, deque[float]] = {}

    async def check(self, user: str, password: str, address: str) -> bool:
        """Whether these are right; every wrong try counts against `address`. Raises `TooManyTries`."""
        mine = self._begin_try(address)
        found = await asyncio.to_thread(self._scrypt, password.encode("utf-8", "surrogatepass"))
        right_user = hmac.compare_digest(user.encode("utf-8", "surrogatepass"), self._user)
        right = hmac.compare_digest(found, self._hash) and right_user
        if right:
            with contextlib.suppress(KeyError, ValueError):
                self._tries[address].remove(mine)
        return right

    async def check_basic(self, header: str, address: str) -> bool:
        """The same for an `Authorization` header; one that was right before is not hashed again. Raises `TooManyTries`."""
        seen = self._sign(b"basic", header.encode())
        if hmac.compare_digest(seen, self._known_basic):
            return True
        scheme, _, value = header.partition(" ")
        try:
            user, colon, password = base64.b64decode(value.strip(), validate=True).decode().partition(":")
        except (binascii.Error, ValueError):
            return False
        if scheme.lower() != "basic" or not colon or not await self.check(user, password, address):
            return False
        self._known_basic = seen
        return True

    def session(self) -> str:
        """A new session's cookie value."""
        begun = f"{time.monotonic():.0f}.{secrets.token_urlsafe(12)}"
        return f"{begun}.{self._sign(b'session', begun.encode()).hex()}"

    def check_session(self, value: str) -> bool:
        """Whether `value` came from `session` less than 30 days ago."""
        begun, _, signature = value.rpartition(".")
        expected = self._sign(b"session", begun.encode("utf-8", "surrogatepass")).hex()
        if not hmac.compare_digest(signature.encode("utf-8", "surrogatepass"), expected.encode()):
            return False
        return time.monotonic() - float(begun.partition(".")[0]) < SESSION_SECONDS

    def _begin_try(self, address: str) -> float:
        now = time.monotonic()
        for known, times in list(self._tries.items()):
            while times and now - times[0] > TRY_SECONDS:
                times.popleft()
            if not times:
                del self._tries[known]
        mine = self._tries.setdefault(address, deque())
        if len(mine) >= TRIES_PER_ADDRESS or sum(map(len, self._tries.values())) >= TRIES_IN_ALL:
            raise TooManyTries("Too many wrong logins; wait a minute.")
        mine.append(now)
        return now

    def _scrypt(self, password: bytes) -> bytes:
        return hashlib.scrypt(password, salt=self._salt, n=2**14, r=8, p=1, maxmem=64 << 20, dklen=32)

    def _sign(self, purpose: bytes, data: bytes) -> bytes:
        return hmac.digest(self._key, purpose + b"\0" + data, "sha256")


class Auth:
    """ASGI middleware: nothing but the login page without a login. `login` None lets all pass."""

    def __init__(self, app: ASGIApp, login: Login | None) -> None:
        self.app = app
        self.login = login

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Check, then hand on."""
        if self.login is None or scope["type"] == "lifespan" or (scope["type"] == "http" and scope["path"] == LOGIN):
            await self.app(scope, receive, send)
            return
        refusal = await self._refusal(self.login, scope)
        if refusal is None:
            await self.app(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
        else:
            await refusal(scope, receive, send)

    async def _refusal(self, login: Login, scope: Scope) -> Response | None:
        connection = HTTPConnection(scope)
        if login.check_session(connection.cookies.get(cookie_name(scope), "")):
            return None
        basic = connection.headers.get("authorization")
        try:
            if basic is not None and await login.check_basic(basic, client_address(scope)):
                return None
        except TooManyTries as error:
            return error_response(error, headers={"retry-after": "60"})
        if basic is None and _is_navigation(scope, connection.headers):
            query = f"?{scope['query_string'].decode('latin-1')}" if scope["query_string"] else ""
            return RedirectResponse(f"{LOGIN}?next={quote(scope['path'] + query, safe='')}", 303)
        # A browser would pop up its own password window at this header, in the middle of our page.
        challenge = (
            {}
            if "sec-fetch-mode" in connection.headers
            else {"www-authenticate": 'Basic realm="Latent Studio", charset="UTF-8"'}
        )
        return error_response(Unauthorized("This server needs a login."), headers=challenge)


def cookie_name(scope: Scope) -> str:
    """Browsers share cookies between ports, so two studios on one machine need two names."""
    server = scope.get("server") or ("", 0)
    return f"latent_studio_{server[1]}"


def client_address(scope: Scope) -> str:
    """The address of the other end, for counting wrong logins."""
    client = scope.get("client")
    return str(client[0]) if client else ""


def _is_navigation(scope: Scope, headers: Headers) -> bool:
    """A browser opening a page, as opposed to a script asking for data."""
    wants_page = "text/html" in headers.get("accept", "") and headers.get("sec-fetch-mode", "navigate") == "navigate"
    return wants_page and scope.get("method") == "GET" and not scope["path"].startswith(("/sdapi/", "/studio/"))


def _split(auth: str) -> tuple[str, str]:
    user, _, password = auth.partition(":")
    if not user or not password or not auth.isprintable():
        raise SettingsError("auth must be USER:PASSWORD, with neither of them empty.", field="auth")
    return user, password


def is_from_here(scope: Scope, *, exposed: bool) -> bool:
    """Whether the request comes from the machine the server runs on, whose folders are the caller's, and nobody else can reach it."""
    address = client_address(scope)
    return not exposed and bool(address) and is_loopback(address)


def only_from_here(scope: Scope, *, exposed: bool) -> None:
    """Raise `NotAllowed` unless the request `is_from_here`."""
    if not is_from_here(scope, exposed=exposed):
        raise NotAllowed("This works only on the machine the studio runs on, while it is not open to others.")

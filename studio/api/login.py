"""The login page: plain HTML, works without JavaScript, in the studio's dark colours."""

from __future__ import annotations

from html import escape
from urllib.parse import parse_qs

from fastapi import APIRouter, Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from studio.api.auth import LOGIN, SESSION_SECONDS, Login, client_address, cookie_name
from studio.errors import TooManyTries

_CSP = "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>Latent Studio: login</title><style>
:root {{ color-scheme: dark; font: 14px/1.5 Inter, system-ui, sans-serif }}
body {{ margin: 0; min-height: 100vh; display: grid; place-items: center; background: #15171b; color: #e6e8ec }}
form {{ width: min(320px, 90vw); display: grid; gap: 12px; padding: 24px; background: #1c1f25; border: 1px solid #2e333d; border-radius: 10px }}
h1 {{ margin: 0 0 4px; font-size: 18px; font-weight: 650 }}
label {{ display: grid; gap: 4px; color: #98a0ad; font-size: 12px }}
input, button {{ font: inherit; color: #e6e8ec; background: #242830; border: 1px solid #2e333d; border-radius: 8px; padding: 8px 10px }}
input:focus-visible, button:focus-visible {{ outline: 2px solid #7aa2ff; outline-offset: 1px }}
button {{ background: #4f8cff; border-color: #4f8cff; color: #0b1020; font-weight: 650; cursor: pointer }}
p {{ margin: 0; color: #ff9a9a }}
</style></head><body><form method="post" action="{action}">
<h1>Latent Studio</h1>{message}
<label>User<input name="user" autocomplete="username" autofocus required></label>
<label>Password<input name="password" type="password" autocomplete="current-password" required></label>
<input type="hidden" name="next" value="{next}">
<button>Log in</button></form></body></html>
"""


def login_routes(login: Login | None) -> APIRouter:
    """GET and POST /login, POST /logout."""
    router = APIRouter(tags=["login"])

    @router.get(LOGIN, include_in_schema=False)
    def page(next: str = "/") -> Response:
        return RedirectResponse("/", 303) if login is None else _page(next)

    @router.post(LOGIN, include_in_schema=False)
    async def submit(request: Request) -> Response:
        if login is None:
            return RedirectResponse("/", 303)
        fields = parse_qs((await request.body()).decode("utf-8", "replace"), keep_blank_values=True)
        user, password, wanted = (fields.get(name, [""])[0] for name in ("user", "password", "next"))
        try:
            right = await login.check(user, password, client_address(request.scope))
        except TooManyTries as error:
            return _page(wanted, error.message, error.status)
        if not right:
            return _page(wanted, "User or password is wrong.", 401)
        response = RedirectResponse(_local(wanted), 303)
        secure = request.headers.get("origin", "").startswith("https:")
        response.set_cookie(
            cookie_name(request.scope), login.session(), max_age=SESSION_SECONDS, httponly=True, samesite="strict", secure=secure
        )  # fmt: skip
        return response

    @router.post("/logout")
    def logout(request: Request) -> Response:
        """Forget this browser's session."""
        response = RedirectResponse(LOGIN, 303)
        response.delete_cookie(cookie_name(request.scope), httponly=True, samesite="strict")
        return response

    return router


def _page(wanted: str, message: str = "", status: int = 200) -> HTMLResponse:
    shown = f'<p role="alert">{escape(message)}</p>' if message else ""
    html = _PAGE.format(action=LOGIN, next=escape(_local(wanted)), message=shown)
    return HTMLResponse(html, status, {"content-security-policy": _CSP, "cache-control": "no-store"})


def _local(wanted: str) -> str:
    """`wanted` when it is a path of this server, else the page: a login must not forward to another site."""
    local = (
        wanted.startswith("/") and not wanted.startswith(("//", "/\\")) and wanted.isprintable() and "\\" not in wanted
    )
    return wanted if local else "/"

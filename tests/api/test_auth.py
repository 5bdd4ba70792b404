"""One login in front of everything."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from studio.api.auth import Auth, Login, is_exposed, require_auth
from studio.api.server import create_app
from studio.errors import SettingsError, TooManyTries
from studio.settings import Settings
from tests.api.stand_in import make_studio, serving
from tests.coroutines import run_alone

USER, PASSWORD = "ann", "pass:wörd"
SECRET_PAGE = "the mounted page"


def mount(app: FastAPI) -> FastAPI:
    app.mount("/", PlainTextResponse(SECRET_PAGE))
    return app


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with serving(make_studio(tmp_path_factory.mktemp("auth"), auth=f"{USER}:{PASSWORD}"), mount) as url:
        yield url


@pytest.fixture
def client(address: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=address, timeout=20) as http:
        yield http


def log_in(client: httpx.Client, user: str = USER, password: str = PASSWORD, wanted: str = "/") -> httpx.Response:
    return client.post(
        "/login", data={"user": user, "password": password, "next": wanted}, headers={"Origin": str(client.base_url)}
    )


def every_route(app: FastAPI) -> set[tuple[str, str]]:
    """Method and path of what the documentation lists and of what it does not."""
    listed = {(method.upper(), path) for path, methods in app.openapi()["paths"].items() for method in methods}
    plain = {
        (method, route.path) for route in app.routes if isinstance(route, Route) for method in route.methods or {"GET"}
    }
    return {(method, re.sub(r"\{[^}]*\}", "1", path)) for method, path in listed | plain}


def test_every_route_is_closed_without_a_login(client: httpx.Client, tmp_path: Path) -> None:
    studio = make_studio(tmp_path, auth="a:b")
    app = create_app(studio)

    @app.get("/studio/v1/added-tomorrow")
    def added() -> str:
        return "secret"

    routes = every_route(app)
    studio.close()
    paths = {path for _, path in routes}
    assert {"/studio/v1/state", "/sdapi/v1/txt2img", "/docs", "/openapi.json", "/studio/v1/added-tomorrow"} <= paths
    assert len(paths) > 40
    extra = [
        ("GET", path)
        for path in (
            "/",
            "/config",
            "/gradio_api/info",
            "/gradio_api/file=/etc/passwd",
            "/theme.css",
            "/login/",
            "//login",
            "/LOGIN",
        )
    ]
    for method, path in [*sorted(routes), *extra]:
        if path == "/login":
            continue
        answer = client.request(method, path, json={} if method not in ("GET", "HEAD") else None)
        assert answer.status_code == 401, (method, path)
        assert SECRET_PAGE not in answer.text


def test_a_new_route_needs_a_login(tmp_path: Path) -> None:
    studio = make_studio(tmp_path, auth="a:b")

    def added(app: FastAPI) -> FastAPI:
        app.get("/added-tomorrow")(lambda: "secret")
        return app

    with serving(studio, added) as url:
        assert httpx.get(f"{url}/added-tomorrow").status_code == 401
        assert httpx.get(f"{url}/added-tomorrow", auth=("a", "b")).json() == "secret"


def test_a_browser_is_led_to_the_login_page_and_back(client: httpx.Client) -> None:
    browser = {"Accept": "text/html,*/*", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Site": "none"}
    answer = client.get("/some/page?x=1&y=%22", headers=browser)
    assert answer.status_code == 303
    page = client.get(answer.headers["location"], headers=browser)
    assert page.status_code == 200
    assert "script" not in page.text
    assert 'value="/some/page?x=1&amp;y=%22"' in page.text
    assert "default-src 'none'" in page.headers["content-security-policy"]
    done = log_in(client, wanted="/some/page?x=1")
    assert (done.status_code, done.headers["location"]) == (303, "/some/page?x=1")
    cookie = done.headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=strict" in cookie
    assert "secure" not in cookie
    assert client.get("/some/page").text == SECRET_PAGE
    assert client.get("/studio/v1/state").status_code == 200
    assert client.post("/logout", json={}).headers["location"] == "/login"
    assert client.get("/studio/v1/state").status_code == 401


@pytest.mark.parametrize(
    "wanted",
    ["https://evil.example", "//evil.example", "/\\evil.example", "javascript:alert(1)", "/a\r\nSet-Cookie: x=1", ""],
)
def test_the_login_leads_to_no_other_site(client: httpx.Client, wanted: str) -> None:
    assert log_in(client, wanted=wanted).headers["location"] == "/"


def test_the_login_page_escapes(client: httpx.Client) -> None:
    page = client.get("/login", params={"next": '/"><img src=x onerror=alert(1)>'})
    assert "<img" not in page.text


def test_basic_for_programs(client: httpx.Client) -> None:
    assert client.get("/sdapi/v1/options", auth=(USER, PASSWORD)).status_code == 200
    refused = client.get("/sdapi/v1/options", auth=(USER, "wrong"))
    assert refused.status_code == 401
    assert refused.headers["www-authenticate"].startswith("Basic")
    assert refused.json()["error"]["code"] == "unauthorized"
    for header in ("Basic", "Basic !!!", "Basic YQ==", "Bearer abc", "Basic /w=="):
        assert client.get("/sdapi/v1/options", headers={"Authorization": header}).status_code == 401
    fetched = client.get("/studio/v1/state", headers={"Sec-Fetch-Mode": "cors", "Sec-Fetch-Site": "same-origin"})
    assert fetched.status_code == 401
    assert "www-authenticate" not in fetched.headers


@pytest.mark.parametrize("value", ["", "x", "1.a.b", "999999999.x." + "0" * 64, "..", "é"])
def test_made_up_sessions_are_refused(value: str) -> None:
    login = Login("a:b")
    assert not login.check_session(value)
    good = login.session()
    assert login.check_session(good)
    assert not login.check_session(good[:-1] + ("0" if good[-1] != "0" else "1"))
    assert not Login("a:b").check_session(good)


def test_guessing_is_slowed_down_but_sessions_go_on(tmp_path: Path) -> None:
    with (
        serving(make_studio(tmp_path, auth="ann:right")) as url,
        httpx.Client(base_url=url) as client,
        httpx.Client(base_url=url) as known,
    ):
        assert log_in(known, "ann", "right").status_code == 303
        found = [log_in(client, "ann", f"{n}").status_code for n in range(12)]
        assert found == [401] * 10 + [429] * 2
        assert client.get("/studio/v1/state", auth=("ann", "right")).status_code == 429
        assert known.get("/studio/v1/state").status_code == 200


def test_right_passwords_do_not_count_as_guesses() -> None:
    login = Login("a:b")

    async def many() -> None:
        for _ in range(15):
            assert await login.check("a", "b", "here")
        for _ in range(10):
            assert not await login.check("b", "b", "here")
        with pytest.raises(TooManyTries):
            await login.check("a", "b", "here")
        assert await login.check("a", "b", "elsewhere")

    run_alone(many())


@pytest.mark.parametrize(
    "settings, exposed",
    [({}, False), ({"host": "localhost"}, False), ({"host": "::1"}, False), ({"listen": True}, True), ({"share": True}, True),
     ({"host": "0.0.0.0"}, True), ({"host": "::"}, True), ({"host": "192.168.1.5"}, True), ({"host": ""}, True)],
)  # fmt: skip
def test_exposure_is_judged_by_the_address(settings: dict[str, object], exposed: bool) -> None:
    chosen = Settings.model_validate(settings)
    assert is_exposed(chosen) == exposed
    if not exposed:
        assert require_auth(chosen) == (chosen, [])
    elif chosen.share:
        made, lines = require_auth(chosen)
        user, password = made.auth.split(":")
        assert user in lines[0]
        assert password in lines[0]
        assert len(password) >= 12
        assert made.model_fields_set == {"share", "auth"}
    else:
        with pytest.raises(SettingsError, match="--auth"):
            require_auth(chosen)
    with_login = chosen.model_copy(update={"auth": "a:b"})
    assert require_auth(with_login) == (with_login, [])


@pytest.mark.parametrize("auth", ["ann", ":x", "ann:", "a\n:b"])
def test_a_login_that_is_none_is_refused_without_telling_it(auth: str) -> None:
    with pytest.raises(SettingsError) as caught:
        require_auth(Settings(auth=auth))
    assert auth not in caught.value.message


def test_the_password_is_nowhere(client: httpx.Client) -> None:
    for path in ("/studio/v1/settings", "/sdapi/v1/options", "/studio/v1/state", "/openapi.json", "/docs"):
        answer = client.get(path, auth=(USER, PASSWORD))
        assert answer.status_code == 200
        assert PASSWORD not in answer.text
    login = Login(f"{USER}:{PASSWORD}")
    assert PASSWORD.encode() not in repr(vars(login)).encode()


def test_websockets_need_a_login_too() -> None:
    sent: list[dict[str, object]] = []

    async def app(*_: object) -> None:
        raise AssertionError("the application was reached")

    async def receive() -> dict[str, object]:
        return {"type": "websocket.connect"}

    async def send(message: object) -> None:
        sent.append(dict(message))  # type: ignore[call-overload]

    scope = {"type": "websocket", "path": "/login", "headers": [], "client": ("1.2.3.4", 5), "query_string": b""}
    run_alone(Auth(app, Login("a:b"))(scope, receive, send))
    assert [message["type"] for message in sent] == ["websocket.close"]

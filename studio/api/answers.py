"""How errors look over HTTP, the same from every route and from the middleware:

{"error": {"code": …, "message": …, "field": …, "choices": […]}, "detail": message}
"""

from __future__ import annotations

import logging
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse

from studio.errors import EngineError, InvalidRequest, StudioError

log = logging.getLogger(__name__)


def error_response(
    error: StudioError, status: int | None = None, headers: dict[str, str] | None = None
) -> JSONResponse:
    """`error` as JSON with its own status, or `status` where HTTP has a better one."""
    content = {"error": error.to_dict(), "detail": error.message}
    return JSONResponse(content, status or error.status, headers)


def install_handlers(app: FastAPI) -> None:
    """Turn every exception of a route into that form."""

    async def studio_error(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, StudioError)
        return error_response(error)

    async def invalid(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, RequestValidationError)
        return error_response(_first_complaint(error.errors()))

    async def http_error(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, HTTPException)
        return error_response(StudioError(str(error.detail)), error.status_code, dict(error.headers or {}))

    async def unexpected(request: Request, error: Exception) -> JSONResponse:
        log.error("%s %s failed", request.method, request.url.path, exc_info=error)
        return error_response(EngineError("Something went wrong in the server; its log says what."))

    app.add_exception_handler(StudioError, studio_error)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(HTTPException, http_error)
    app.add_exception_handler(Exception, unexpected)


def _first_complaint(errors: Any) -> InvalidRequest:
    """One sentence with field, value and what is allowed; the outer "body", "query" or "path" is left away."""
    first = errors[0]
    field = ".".join(str(part) for part in first["loc"][1:])
    reason = str(first["msg"]).removeprefix("Value error, ").removeprefix("Input ").rstrip(".")
    if first["type"] == "json_invalid":
        return InvalidRequest(f"The body is not JSON: {first.get('ctx', {}).get('error', reason)}.")
    if not field:
        return InvalidRequest(f"The body is not what this route takes: {reason[:1].lower()}{reason[1:]}.")
    value = repr(first.get("input"))
    shown = value if len(value) <= 80 else value[:77] + "…"
    if first["type"] == "missing":
        return InvalidRequest(f"{field} is missing.", field=field)
    return InvalidRequest(f"{field} = {shown} is not possible: {reason[:1].lower()}{reason[1:]}.", field=field)

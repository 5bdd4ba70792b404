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
from studio.schema.complaint import complaint

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
        return error_response(_first_complaint(error.errors(), _body(request)))

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


def _first_complaint(errors: Any, body: Any) -> InvalidRequest:
    """One sentence with field, value and what is allowed; the outer "body", "query" or "path" is left away.

    `body` is the annotation of what the route takes as its body, None where it takes none.
    """
    first = errors[0]
    if first["type"] == "json_invalid":
        return InvalidRequest(f"The body is not JSON: {first.get('ctx', {}).get('error', first['msg'])}.")
    said = complaint({**first, "loc": first["loc"][1:]}, body if first["loc"][0] == "body" else None)
    if not said.field:
        return InvalidRequest(f"The body is not what this route takes: {said.reason}.")
    return InvalidRequest(said.sentence("body"), field=said.field)


def _body(request: Request) -> Any:
    """The annotation of the body of the route that was asked."""
    field = getattr(request.scope.get("route"), "body_field", None)
    return field.field_info.annotation if field is not None else None

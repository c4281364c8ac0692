"""The web page at `/`: files of this package alone, under a policy that lets nothing else in."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from provenn.api import demo
from provenn.api.settings import Settings
from provenn.api.web import SERVICE, File, files
from provenn.verifier.version import provenn_version

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; connect-src 'self'; "
    "frame-ancestors 'none'; base-uri 'none'; form-action 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'"
)
"""No script, style or address but the service's own, none written into the page, and no HTML made from text."""


def install(app: FastAPI, settings: Settings) -> None:
    """Serves every file of the page, and what it needs to know of this service."""
    for path, file in files().items():
        app.add_route(path, _serving(file), include_in_schema=False)

    async def service(_: Request) -> Response:
        about = {"authentication": settings.authentication, "demo": demo.available(), "version": provenn_version()}
        return JSONResponse(about)

    app.add_route(SERVICE, service, include_in_schema=False)


def _serving(file: File) -> Callable[[Request], Awaitable[Response]]:
    """Browsers keep the file and ask whether it is still the same: after an upgrade it is not."""
    headers = {"ETag": file.etag, "Cache-Control": "no-cache", "Content-Security-Policy": POLICY}

    async def serve(request: Request) -> Response:
        known = request.headers.get("if-none-match", "")
        if file.etag in {tag.strip().removeprefix("W/") for tag in known.split(",")}:
            return Response(status_code=304, headers=headers)
        return Response(file.data, media_type=file.type, headers=headers)

    return serve

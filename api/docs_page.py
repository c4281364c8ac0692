"""The page to try the API: off unless asked for, because its code comes from a public network."""

from __future__ import annotations

import base64
import hashlib
import re

from fastapi import FastAPI
from fastapi.openapi.docs import get_swagger_ui_html
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

PATH = "/docs"
SOURCE = "https://cdn.jsdelivr.net"
SCRIPT = re.compile(rb"<script>(.*?)</script>", re.DOTALL)


def install(app: FastAPI) -> None:
    """Serves the page. It may load code from SOURCE and run the one script it holds, and talk to this service alone."""
    page = get_swagger_ui_html(openapi_url="/openapi.json", title=app.title, swagger_favicon_url="data:,")
    hashes = [base64.b64encode(hashlib.sha256(code).digest()).decode() for code in SCRIPT.findall(bytes(page.body))]
    scripts = " ".join(f"'sha256-{value}'" for value in hashes)
    policy = (
        f"default-src 'none'; script-src {SOURCE} {scripts}; style-src {SOURCE} 'unsafe-inline'; img-src data:; "
        "connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
    )

    async def docs(_: Request) -> Response:
        return HTMLResponse(page.body, headers={"Content-Security-Policy": policy})

    app.add_route(PATH, docs, include_in_schema=False)

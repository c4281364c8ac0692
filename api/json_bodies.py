"""Bodies in JSON, of which every object has each member once: of two of one name nobody can say which is meant."""

from __future__ import annotations

import json
from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import HTTPException, Request, Response
from fastapi.routing import APIRoute

from provenn.verifier.errors import InvalidSpecification
from provenn.verifier.spec_json import unique


class JsonRoute(APIRoute):
    """Refuses a body in which an object has a member twice; the framework would take the last one."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The framework's, for a request that reads its body so."""
        handle = super().get_route_handler()

        async def handler(request: Request) -> Response:
            return await handle(_Unique(request.scope, request.receive))

        return handler


class _Unique(Request):
    """A request, whose body is read as that."""

    async def json(self) -> Any:
        """Raises: HTTPException naming the member that is there twice."""
        try:
            return json.loads(await self.body(), object_pairs_hook=unique)
        except InvalidSpecification as error:
            raise HTTPException(400, f"the body is ambiguous: {error}") from None

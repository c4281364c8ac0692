"""Pages: newest first; a cursor is the id of the last row seen."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from fastapi import Query
from fastapi_problem.error import Problem

from provenn.api.problems import INVALID_REQUEST, problem
from provenn.api.tables import DatasetRow, JobRow, ModelRow

Limit = Annotated[int, Query(ge=1, le=100, description="how many at most")]
Cursor = Annotated[str | None, Query(pattern="^[0-9a-f]{32,64}$", description="`next` of the page before")]


def unknown_cursor(cursor: str) -> Problem:
    """422: nothing that can be seen has this id."""
    detail = "there is nothing with this id: begin again without a cursor"
    return problem(INVALID_REQUEST, f"cursor: {detail}", errors=[{"pointer": "cursor", "detail": detail}])


def next_cursor(rows: Sequence[JobRow] | Sequence[ModelRow] | Sequence[DatasetRow], limit: int) -> str | None:
    """Where the next page begins, unless this one was not full."""
    return rows[-1].id if len(rows) == limit else None

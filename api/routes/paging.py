"""Pages: newest first; a cursor is the sequence number of the last row seen."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from fastapi import Query

from provenn.api.database import JobRow, ModelRow

Limit = Annotated[int, Query(ge=1, le=100, description="how many at most")]
Cursor = Annotated[int | None, Query(ge=1, description="`next` of the page before")]


def next_cursor(rows: Sequence[JobRow] | Sequence[ModelRow], limit: int) -> str | None:
    """Where the next page begins, unless this one was not full."""
    return str(rows[-1].sequence) if len(rows) == limit else None

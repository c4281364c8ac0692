"""The methods that there are, as a child tells them: the server itself loads none."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any

from provenn.api.jobs.asking import ListBackends
from provenn.api.jobs.task import Task
from provenn.api.schemas import BackendInfo
from provenn.verifier.errors import BackendError


class Backends:
    """ask: has a task done in a child. It is asked once: what is installed stays the same."""

    def __init__(self, ask: Callable[[Task], dict[str, Any]]) -> None:
        self._ask = ask

    @cached_property
    def listed(self) -> list[BackendInfo]:
        """All of them.   Raises: a problem where no child answers."""
        return [BackendInfo.model_validate(each) for each in self._ask(ListBackends())["backends"]]

    def require(self, name: str) -> None:
        """Raises: BackendError naming the known ones, or what to install."""
        status = {backend.name: backend.status for backend in self.listed}
        if name not in status:
            raise BackendError(name, f"unknown method; known methods: {', '.join(status)}")
        if status[name] != "available":
            raise BackendError(name, status[name])

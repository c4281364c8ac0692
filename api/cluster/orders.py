"""What is to be placed where: plain values that travel from the command to the placement and on to the nodes."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from provenn.api.settings import Settings

PASSED = (
    "database", "blobs", "blob_endpoint", "blob_region", "cache_mb", "device", "workers", "threads", "memory_limit_mb",
    "grace_seconds", "lease_seconds", "poll_seconds", "drain_seconds", "part_items", "part_seconds", "require_sandbox",
    "log_format", "log_level", "trace_endpoint",
)  # fmt: skip
"""Settings that nodes take over where their own environment says nothing."""


@dataclass(frozen=True)
class Order:
    """One supervisor on each node of the cluster at `address`, with settings.

    cpus, gpus: of the node's, for each; None: all it has. seconds: between two looks. end: end them all instead.
    """

    address: str
    settings: dict[str, Any]
    cpus: float | None = None
    gpus: float | None = None
    seconds: float = 5.0
    end: bool = False


def passed(settings: Settings) -> dict[str, Any]:
    """Those settings that somebody has given, as JSON."""
    return settings.model_dump(mode="json", include=set(PASSED) & settings.model_fields_set)


def of_node(given: Mapping[str, Any], cpus: float, gpus: float, variables: Mapping[str, str] = os.environ) -> Settings:
    """The settings of a supervisor that has so much of its node, whose own variables come first.

    Secrets in them (the database's password) need not travel, then.   Raises: pydantic's ValidationError.
    """
    own = {name for name in Settings.model_fields if f"PROVENN_{name.upper()}" in variables}
    found = Settings(**{name: value for name, value in given.items() if name not in own})
    said = own | given.keys()
    chosen: dict[str, Any] = {}
    if "device" not in said:
        chosen["device"] = "cuda" if gpus else "cpu"
    if "threads" not in said:
        chosen["threads"] = max(1, int(cpus) // max(1, found.workers))
    return found.model_copy(update=chosen)

"""What is known of a question: a verdict an item, each with the digest of the certificate that proves it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

PROVED = ("checked", "deployed")
"""Assurances that a certificate stands behind."""


@dataclass(frozen=True)
class Item:
    """One input at one radius (None: the input as it is), or the whole of a question.

    index, name: of the input, in the data; predicted: its class; rival: that of the counterexample; lower, upper: of
    a Lipschitz constant; certificate: SHA-256 of its zip; proved_at: the larger radius that it is about, where it is;
    shown: what contradicts, in words.
    """

    verdict: str
    assurance: str | None = None
    certificate: str | None = None
    reason: str | None = None
    index: int = 0
    name: str = ""
    radius: str | None = None
    label: int | None = None
    predicted: int | None = None
    rival: int | None = None
    margin: float | None = None
    lower: float | None = None
    upper: float | None = None
    shown: str | None = None
    proved_at: str | None = None

    @property
    def proved(self) -> bool:
        """Verified, with a certificate that the trusted checker has accepted."""
        return self.verdict == "verified" and self.assurance in PROVED and self.certificate is not None

    @property
    def refuted(self) -> bool:
        """Contradicted, be it by the input as it is, whoever says what of those around it."""
        return self.verdict == "falsified" or self.predicted != self.label

    @property
    def vacuous(self) -> bool:
        """Verified because no input is allowed: no certificate says so."""
        return self.verdict == "verified" and self.assurance == "vacuous"

    @property
    def late(self) -> bool:
        """Undecided because the time ended."""
        return self.verdict == "timeout"


@dataclass(frozen=True, eq=False)
class Found:
    """The items of a question; certificates: zips, by their SHA-256."""

    items: tuple[Item, ...]
    certificates: Mapping[str, bytes]

    @property
    def late(self) -> bool:
        """Whether more time might find more."""
        return any(item.late for item in self.items)

    def as_json(self) -> list[dict[str, Any]]:
        """The items, without what is None."""
        return [{name: value for name, value in asdict(item).items() if value is not None} for item in self.items]


def items_of(content: Any) -> tuple[Item, ...]:
    """What `as_json` wrote.   Raises: ValueError for anything else."""
    known = {field.name for field in fields(Item)}
    if not isinstance(content, list):
        raise ValueError("no list of items")
    for each in content:
        if not isinstance(each, dict) or not known >= each.keys() or not isinstance(each.get("verdict"), str):
            raise ValueError("not an item")
    return tuple(Item(**each) for each in content)


def sha256(data: bytes) -> str:
    """In hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


def canonical(content: Mapping[str, Any] | Sequence[Any]) -> bytes:
    """The same bytes for the same content."""
    return json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()

"""One input and radius, and what is known of it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from math import isfinite
from typing import Any

import numpy as np

from provenn.api.batch.numbers import Array

VERDICTS = ("verified", "falsified", "unknown", "timeout")
SECONDS = "seconds"
"""The one member that is measured: a leaf of a bundle is without it, so that the same run has the same root."""

KINDS: dict[str, tuple[type, ...]] = {
    "index": (int,),
    "name": (str,),
    "label": (int,),
    "predicted": (int,),
    "epsilon": (float, type(None)),
    "verdict": (str,),
    "margin": (float, type(None)),
    "method": (str,),
    "assurance": (str, type(None)),
    SECONDS: (float,),
    "reason": (str, type(None)),
    "certificate": (str, type(None)),
    "certified": (float, type(None)),
    "attacked": (float, type(None)),
    "counterexample": (list, type(None)),
    "input_sha256": (str,),
}
"""What each member of a row in JSON is."""


@dataclass(frozen=True)
class Row:
    """What is known of one input at one radius; or, where the largest radius was asked for, of one input.

    index, name: of the input in the data; predicted: the class that the executor gives it; epsilon: the radius as a
    float, None where radii are bracketed; verdict, margin, method, assurance, reason: as of `certification.ItemResult`;
    certificate: sha256 of its zip; certified: the largest radius that was verified, the certificate being about it, and
    attacked: the smallest one with a counterexample that the executor has replayed, or None; counterexample: that
    input, flat; input_sha256: as `input_digest` says.
    """

    index: int
    name: str
    label: int
    predicted: int
    epsilon: float | None
    verdict: str
    margin: float | None
    method: str
    assurance: str | None
    seconds: float
    reason: str | None
    certificate: str | None
    certified: float | None
    attacked: float | None
    counterexample: tuple[float, ...] | None
    input_sha256: str

    def as_json(self) -> dict[str, Any]:
        """Every member by its name."""
        return asdict(self)

    def line(self) -> bytes:
        """Canonical JSON of everything, with its line's end."""
        return canonical(self.as_json()) + b"\n"

    def leaf(self) -> bytes:
        """Canonical JSON of what is claimed: all but the seconds."""
        return canonical({name: value for name, value in self.as_json().items() if name != SECONDS})

    @classmethod
    def from_json(cls, text: bytes | str) -> Row:
        """What `line` or `leaf` wrote; a leaf took no time.   Raises: ValueError for anything else."""
        content: Any = json.loads(text, parse_constant=_no_number)
        if not isinstance(content, dict):
            raise ValueError("a row is an object")
        content = {SECONDS: 0.0, **content}
        if content.keys() != KINDS.keys():
            raise ValueError(f"a row has the members {', '.join(KINDS)}")
        for name, kinds in KINDS.items():
            value = content[name]
            if type(value) not in kinds:
                raise ValueError(f"{name!r} is {json.dumps(value)[:40]}")
            if isinstance(value, float) and not isfinite(value):
                raise ValueError(f"{name!r} is not finite")
        if content["verdict"] not in VERDICTS:
            raise ValueError(f"the verdict is one of {', '.join(VERDICTS)}")
        shown = content["counterexample"]
        if shown is not None:
            if not all(type(value) is float and isfinite(value) for value in shown):
                raise ValueError("'counterexample' holds something else than finite numbers")
            content["counterexample"] = tuple(shown)
        return cls(**content)


def canonical(content: Mapping[str, Any]) -> bytes:
    """JSON in ASCII with sorted keys and no spaces; every float as the shortest decimal that reads back as it."""
    return json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def exact_values(values: Array) -> np.ndarray:
    """As float64, zeros without a sign: what specifications state."""
    plain: np.ndarray = np.ascontiguousarray(values, dtype=np.float64) + 0.0
    return plain


def input_digest(values: Array) -> str:
    """sha256 of an input's `exact_values`, little-endian, in C order."""
    return hashlib.sha256(exact_values(values).astype("<f8").tobytes()).hexdigest()


def _no_number(text: str) -> float:
    raise ValueError(f"{text} is no number of JSON")

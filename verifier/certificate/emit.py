"""Derives every claim of a certificate with the kernel's own code, from the claims before it as they will be written.

Claimed intervals are float32, rounded outward and loosened a little beyond that, so that a checker whose matrix
products round differently still proves them.
"""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from provenn.verifier.certificate.payload import write_payload
from provenn.verifier.check.claims import MANIFEST, read_cases, row_margins, slopes_of
from provenn.verifier.check.manifest import FORMAT, sealed
from provenn.verifier.check.network import Affine, Elementwise, MaxPool, Network
from provenn.verifier.check.rounding import CertificateRejected
from provenn.verifier.check.rows import Bounds, Box
from provenn.verifier.check.specification import Case
from provenn.verifier.spec import Specification

PAYLOAD = "payload.safetensors"
RELATIVE, ABSOLUTE = 2.0**-22, 2.0**-30
"""How much a claimed bound is loosened: relative to itself, and to the largest bound of its step."""

METHODS = {"ibp": ("interval",), "crown": ("crown", "interval")}
"""Method of the search -> methods of its claims, the first one preferred."""


@dataclass
class _Draft:
    """Claims and payload so far."""

    claims: list[dict[str, Any]] = field(default_factory=list)
    tensors: dict[str, NDArray[Any]] = field(default_factory=dict)

    def add(self, **content: Any) -> int:
        """Appends a claim and gives it the next id."""
        self.claims.append({"id": len(self.claims), **content})
        return len(self.claims) - 1


def emit(
    network: Network,
    specification: Specification,
    method: str,
    produced_by: Mapping[str, str],
    slopes: Mapping[str, NDArray[Any]] | None = None,
) -> dict[str, bytes]:
    """The bundle's files. method: "ibp" or "crown"; slopes: ReLU step -> lower slopes [n] for the crown claims, uint8
    (value / 255) or floats in [0, 1].

    Raises: CertificateRejected if a clause cannot be proved this way; ValueError for an unknown method.
    """
    if method not in METHODS:
        raise ValueError(f"method {method!r} makes no certificates; known: {', '.join(METHODS)}")
    text = specification.text
    text = gzip.decompress(text) if text[:2] == b"\x1f\x8b" else text
    draft = _Draft()
    stored = {name: f"slopes.{i}" for i, name in enumerate(slopes or {})} if method == "crown" else {}
    draft.tensors |= {stored[name]: np.asarray(values) for name, values in (slopes or {}).items() if stored}
    chosen = slopes_of(network, stored, draft.tensors)
    with np.errstate(all="ignore"):
        for number, case in enumerate(read_cases(text, specification.form, network)):
            bounds = Bounds(network, *case.region())
            bounds.choose(chosen)
            uses = _intervals(draft, bounds, number, method, stored)
            _margins(draft, bounds, (number, case), method, (uses, stored))
    name = f"specification.{specification.form}"
    payload = write_payload(draft.tensors)
    content = {
        "format": FORMAT,
        "semantics": "real",
        "verdict": "verified",
        "model": {"sha256_file": network.sha256},
        "specification": {"file": name, "form": specification.form, "sha256_file": hashlib.sha256(text).hexdigest()},
        "payload": {"file": PAYLOAD, "sha256": hashlib.sha256(payload).hexdigest()},
        "claims": draft.claims,
        "produced_by": dict(produced_by),
        "statistics": {"claims": len(draft.claims)},
    }
    return {MANIFEST: sealed(content), name: text, PAYLOAD: payload}


def _intervals(draft: _Draft, bounds: Bounds, number: int, method: str, stored: Mapping[str, str]) -> list[int]:
    """One interval claim for every step that a nonlinear one reads: their ids."""
    uses: list[int] = []
    for node, index in bounds.network.bounded.items():
        box = bounds.box(index)
        by_rows = method == "crown" and _improvable(bounds, index)
        if by_rows:
            box = _improved(bounds, index, box)
        lower, upper = loosened(box)
        name = f"c{number}.{len(uses)}"
        draft.tensors |= {f"{name}.lower": lower, f"{name}.upper": upper}
        claim: dict[str, Any] = {"kind": "interval", "case": number, "node": node, "uses": list(uses)}
        claim |= {"method": "crown" if by_rows else "interval", "lower": f"{name}.lower", "upper": f"{name}.upper"}
        uses.append(draft.add(**claim, **({"slopes": dict(stored)} if by_rows and stored else {})))
        bounds.accept(index, Box(lower.astype(np.float64), upper.astype(np.float64)))
    return uses


def _improvable(bounds: Bounds, index: int) -> bool:
    """Whether rows can beat interval arithmetic: more than one matrix lies before the step, or the region is a ball."""
    steps, needed = bounds.network.steps, {index}
    for i in range(index, 0, -1):
        needed.update(steps[i].sources if i in needed else ())
    linear = sum(isinstance(steps[i], Affine) for i in needed)
    return linear > 1 or (linear > 0 and bounds.ball is not None)


def _improved(bounds: Bounds, index: int, box: Box) -> Box:
    """The box cut by rows for the neurons whose tighter bounds could matter."""
    lower, upper = box.lower.copy(), box.upper.copy()
    open_ = np.flatnonzero(_matters(bounds.network, index, box))
    lower[open_] = np.fmax(lower[open_], bounds.neuron_bounds(index, open_, 1))
    upper[open_] = np.fmin(upper[open_], -bounds.neuron_bounds(index, open_, -1))
    return Box(lower, upper)


def _matters(network: Network, index: int, box: Box) -> NDArray[np.bool_]:
    """Neurons whose function is not one line over the box; for pooling, all that are not points."""
    matters = np.zeros(len(box.lower), bool)
    for step in network.steps:
        if isinstance(step, MaxPool) and step.sources[0] == index:
            matters |= box.lower < box.upper
        elif isinstance(step, Elementwise) and step.sources[0] == index:
            enclosure = step.function(box.lower, box.upper)
            (below, low), (above, high) = enclosure.line(1), enclosure.line(-1)
            gap = (above - below) * (box.lower / 2 + box.upper / 2) + high - low
            matters |= gap > ABSOLUTE * np.maximum(box.largest, 2.0**-100)
    return matters


def _margins(
    draft: _Draft, bounds: Bounds, case: tuple[int, Case], method: str, shared: tuple[list[int], Mapping[str, str]]
) -> None:
    """One margin claim a clause: its best row, by the best method.   Raises: CertificateRejected if none is above 0."""
    number, clauses = case[0], case[1].clauses
    keys = [(k, i) for k, clause in enumerate(clauses) for i in range(len(clause.bound))]
    rows = [(clauses[k].matrix[i], clauses[k].bound[i]) for k, i in keys]
    best: dict[int, tuple[Fraction, int, str]] = {}
    for way in METHODS[method]:
        for (k, i), margin in zip(keys, row_margins(bounds, rows, way), strict=True):
            if margin is not None and (k not in best or margin > best[k][0]):
                best[k] = (margin, i, way)
        if len(best) == len(clauses) and min(margin for margin, _, _ in best.values()) > 0:
            break
    for k in range(len(clauses)):
        margin, row, way = best.get(k, (Fraction(-1), 0, ""))
        if margin <= 0:
            raise CertificateRejected(
                "claims", f"clause {k} of case {number}: margin {float(margin):.6g} is not above 0"
            )
        content = {"kind": "margin", "case": number, "clause": k, "row": row, "method": way, "uses": list(shared[0])}
        extra = {"slopes": dict(shared[1])} if way == "crown" and shared[1] else {}
        draft.add(**content, above=(0.0).hex(), **extra)


def loosened(box: Box) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The box in float32, rounded outward and loosened by RELATIVE and ABSOLUTE."""
    reach = ABSOLUTE * box.largest.max(initial=0.0)
    lower = box.lower - RELATIVE * np.abs(box.lower) - reach
    upper = box.upper + RELATIVE * np.abs(box.upper) + reach
    return _single(lower, -np.inf), _single(upper, np.inf)


def _single(values: NDArray[np.float64], toward: float) -> NDArray[np.float32]:
    near = values.astype(np.float32)
    inward = near > values if toward < 0 else near < values
    return np.where(inward, np.nextafter(near, np.float32(toward)), near)

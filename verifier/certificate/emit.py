"""Derives every claim of a certificate with the kernel's own code, from the claims before it as they will be written.

Claimed intervals are float32, rounded outward and loosened a little beyond that, so that a checker whose matrix
products round differently still proves them.
"""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from provenn.verifier.certificate.payload import write_payload
from provenn.verifier.certificate.slopes import CaseSlopes, NeuronBound, Slopes
from provenn.verifier.certificate.trees import Trees, write_tree
from provenn.verifier.certificate.trees import claim as tree_claim
from provenn.verifier.check.claims import MANIFEST, cut_by_rows, read_cases, row_margins, slopes_of
from provenn.verifier.check.manifest import FORMAT, entries, sealed
from provenn.verifier.check.network import Affine, Elementwise, MaxPool, Network
from provenn.verifier.check.rounding import CertificateRejected
from provenn.verifier.check.rows import Bounds, Box, Semantics
from provenn.verifier.check.specification import Case
from provenn.verifier.spec import Specification

PAYLOAD = "payload.safetensors"
RELATIVE, ABSOLUTE = 2.0**-22, 2.0**-30
"""How much a claimed bound is loosened: relative to itself, and to the largest bound of its step."""

WORTHWHILE = 2.0**-10
"""How much of its width a neuron's interval must gain for a claim of its own."""

Single = NDArray[np.float32]

METHODS = {"ibp": ("interval",), "crown": ("crown", "interval"), "alpha-crown": ("crown", "interval")}
METHODS |= {"lp": ("crown", "interval"), "branch-and-bound": ("crown", "interval")}
"""Method of the search -> methods of its claims, the first one preferred."""


class NotProved(CertificateRejected):
    """The best margin of a clause is not above 0 (-1 where no row has a finite bound)."""

    def __init__(self, case: int, clause: int, margin: float) -> None:
        self.case, self.clause, self.margin = case, clause, margin
        super().__init__("claims", f"clause {clause} of case {case}: margin {margin:.6g} is not above 0")


@dataclass
class Draft:
    """Claims and payload so far."""

    claims: list[dict[str, Any]] = field(default_factory=list)
    tensors: dict[str, NDArray[Any]] = field(default_factory=dict)
    stored: dict[tuple[str, bytes], str] = field(default_factory=dict)

    def add(self, **content: Any) -> int:
        """Appends a claim and gives it the next id."""
        self.claims.append({"id": len(self.claims), **content})
        return len(self.claims) - 1

    def store(self, slopes: Slopes) -> dict[str, str]:
        """Names of payload entries that hold the slopes, by step; equal ones are stored once."""
        names = {}
        for step, values in slopes.items():
            array = np.asarray(values)
            name = self.stored.setdefault((array.dtype.str, array.tobytes()), f"slopes.{len(self.stored)}")
            self.tensors[name], names[step] = array, name
        return names

    def copy(self) -> Draft:
        """One to go on with; this one stays as it is."""
        return Draft(list(self.claims), dict(self.tensors), dict(self.stored))

    def bundle(
        self, network: Network, statement: tuple[str, bytes], semantics: str, produced_by: Mapping[str, str]
    ) -> dict[str, bytes]:
        """The manifest, the specification file and the payload. statement: its form, and its text."""
        (form, text), payload = statement, write_payload(self.used())
        name = f"specification.{'vnnlib' if form == 'vnnlib' else 'json'}"
        content = {
            "format": FORMAT,
            "semantics": semantics,
            "verdict": "verified",
            "model": {"sha256_file": network.sha256},
            "specification": {"file": name, "form": form, "sha256_file": hashlib.sha256(text).hexdigest()},
            "payload": {"file": PAYLOAD, "sha256": hashlib.sha256(payload).hexdigest()},
            "claims": self.claims,
            "produced_by": dict(produced_by),
            "statistics": {"claims": len(self.claims)},
        }
        return {MANIFEST: sealed(content), name: text, PAYLOAD: payload}

    def used(self) -> dict[str, NDArray[Any]]:
        """The payload: what some claim names."""
        names = set[str]().union(*map(entries, self.claims))
        return {name: tensor for name, tensor in self.tensors.items() if name in names}


def emit(
    network: Network,
    specification: Specification,
    method: str,
    produced_by: Mapping[str, str],
    slopes: Sequence[CaseSlopes] = (),
    semantics: Semantics = "real",
    trees: Trees | None = None,
) -> dict[str, bytes]:
    """The bundle's files. method: "ibp", "crown", "alpha-crown", "lp" or "branch-and-bound".

    slopes: for the last three, those of every case; semantics: of what is proved, the network in real arithmetic or all
    its float32 executions; trees: for branch-and-bound, of the cases that were split.
    Raises: CertificateRejected if a clause cannot be proved this way, or float32 executions of some operator are not
    covered; LeavesUnproved where proofs of a tree do not hold; ProofTooLarge above the trees' budget; ValueError for
    an unknown method.
    """
    if method not in METHODS:
        raise ValueError(f"method {method!r} makes no certificates; known: {', '.join(METHODS)}")
    text = specification.text
    text = gzip.decompress(text) if text[:2] == b"\x1f\x8b" else text
    draft, chunks, proofs = Draft(), dict[str, bytes](), trees or Trees()
    with np.errstate(all="ignore"):
        for number, case in enumerate(read_cases(text, specification.form, network)):
            bounds = Bounds(network, *case.region(), semantics)
            bounds.tick = proofs.tick
            own = slopes[number] if slopes else CaseSlopes()
            uses = intervals(draft, bounds, number, method, own)
            if number in proofs.cases:
                for place, tree in enumerate(proofs.cases[number]):
                    asked = tuple(range(len(case.clauses))) if tree.asked is None else tree.asked
                    left = proofs.budget - sum(map(len, chunks.values()))
                    files = write_tree(
                        bounds, case.clauses, (number, place), replace(tree, asked=asked), left, proofs.halvings
                    )
                    draft.add(**tree_claim(files, tree), case=number, clauses=list(asked), uses=list(uses))
                    chunks |= files
            else:
                _margins(draft, bounds, (number, case), method, (uses, own))
    return draft.bundle(network, (specification.form, text), semantics, produced_by) | chunks


def intervals(draft: Draft, bounds: Bounds, number: int, method: str, own: CaseSlopes) -> list[int]:
    """One interval claim for every step that a nonlinear one reads, more for neurons with slopes of their own."""
    uses: list[int] = []
    shared = draft.store(own.shared) if method != "ibp" else {}
    for node, index in bounds.network.bounded.items():
        bounds.choose(slopes_of(bounds.network, shared, draft.tensors))
        box = bounds.box(index)
        by_rows = method != "ibp" and _improvable(bounds, index)
        claim: dict[str, Any] = {"kind": "interval", "case": number, "node": node}
        claim |= {"method": "crown" if by_rows else "interval", "slopes": shared if by_rows else {}}
        if by_rows:
            box = _improved(bounds, index, box)
            readers = [s.name for s in bounds.network.steps if isinstance(s, Elementwise) and s.sources[0] == index]
            wanted = [bound for reader in readers for bound in own.neurons.get(reader, ())]
            rows, slopes, box = _own_rows(bounds, index, box, wanted)
            if len(rows):
                entry = f"c{number}.{len(uses)}.rows"
                draft.tensors[entry] = rows
                claim |= {"rows": entry, "own": draft.store(slopes)}
        _claim_box(draft, bounds, claim, uses, loosened(box))
    return uses


def _claim_box(
    draft: Draft, bounds: Bounds, claim: Mapping[str, Any], uses: list[int], claimed: tuple[Single, Single]
) -> None:
    """Adds an interval claim, whose bounds count as proved from then on."""
    name = f"c{claim['case']}.{len(uses)}"
    draft.tensors |= {f"{name}.lower": claimed[0], f"{name}.upper": claimed[1]}
    content = {k: v for k, v in claim.items() if v != {}}
    uses.append(draft.add(**content, uses=list(uses), lower=f"{name}.lower", upper=f"{name}.upper"))
    index = bounds.network.bounded[claim["node"]]
    bounds.accept(index, Box(claimed[0].astype(np.float64), claimed[1].astype(np.float64)))


def _own_rows(
    bounds: Bounds, index: int, box: Box, wanted: Sequence[NeuronBound]
) -> tuple[NDArray[np.int32], dict[str, NDArray[Any]], Box]:
    """Rows of open neurons that their own slopes make worthwhile, these slopes, and the box cut by them.

    Rows and slopes are in the form of an interval claim; slopes are 0 where no ReLU is open.
    """
    wanted = [bound for bound in wanted if box.lower[bound.neuron] < 0 < box.upper[bound.neuron]]
    steps = {step.name: step for step in bounds.network.steps}
    slopes: dict[str, NDArray[Any]] = {}
    for name in set.intersection(*(set(bound.slopes) for bound in wanted)) if wanted else ():
        before = bounds.box(steps[name].sources[0])
        values = np.stack([bound.slopes[name] for bound in wanted])
        values = values if values.dtype == np.uint8 else np.rint(255 * values).astype(np.uint8)
        slopes[name] = np.where((before.lower < 0) & (before.upper > 0), values, np.uint8(0))
    rows = np.array([bound.sign * (bound.neuron + 1) for bound in wanted], np.int32)
    cut = cut_by_rows(bounds, index, rows, {name: values.ravel() for name, values in slopes.items()})
    gained = WORTHWHILE * (box.upper - box.lower)
    up, down = cut.lower - box.lower > gained, box.upper - cut.upper > gained
    worth = np.array([(up if row > 0 else down)[abs(row) - 1] for row in rows], bool)
    kept = {name: values[worth].ravel() for name, values in sorted(slopes.items())}
    return rows[worth], kept, Box(np.where(up, cut.lower, box.lower), np.where(down, cut.upper, box.upper))


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
    draft: Draft, bounds: Bounds, case: tuple[int, Case], method: str, shared: tuple[list[int], CaseSlopes]
) -> None:
    """One margin claim a clause: its best row, by the best method.   Raises: CertificateRejected if none is above 0."""
    (number, (uses, own)), clauses = (case[0], shared), case[1].clauses
    keys = [(k, i) for k, clause in enumerate(clauses) for i in range(len(clause.bound))]
    best: dict[int, tuple[Fraction, int, str]] = {}
    for way in METHODS[method]:
        alone = [key for key in keys if way == "crown" and key in own.rows]
        together = [key for key in keys if key not in alone]
        for some in [together, *([key] for key in alone)]:
            slopes = own.rows[some[0]] if some and some[0] in alone else own.shared
            bounds.choose(slopes_of(bounds.network, draft.store(slopes), draft.tensors))
            rows = [(clauses[k].matrix[i], clauses[k].bound[i]) for k, i in some]
            for (k, i), margin in zip(some, row_margins(bounds, rows, way), strict=True):
                if margin is not None and (k not in best or margin > best[k][0]):
                    best[k] = (margin, i, way)
        if len(best) == len(clauses) and min(margin for margin, _, _ in best.values()) > 0:
            break
    for k in range(len(clauses)):
        margin, row, way = best.get(k, (Fraction(-1), 0, ""))
        if margin <= 0:
            raise NotProved(number, k, float(margin))
        content = {"kind": "margin", "case": number, "clause": k, "row": row, "method": way, "uses": list(uses)}
        stored = draft.store(own.rows.get((k, row), own.shared)) if way == "crown" else {}
        draft.add(**content, above=(0.0).hex(), **({"slopes": stored} if stored else {}))


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

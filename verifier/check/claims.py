"""The check: every claim again, from the network and the claims before it."""

import hashlib
import platform
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from fractions import Fraction
from itertools import groupby
from math import lcm
from typing import Any, NamedTuple

import numpy as np
import onnx
import scipy.sparse
from numpy.typing import NDArray

from provenn.verifier.check.functions import RELU
from provenn.verifier.check.lipschitz import Units, prove, prove_entries
from provenn.verifier.check.manifest import ASSURANCES, Tensors, entries, read_manifest, read_payload
from provenn.verifier.check.network import Network
from provenn.verifier.check.onnx_reader import decompressed, read_network
from provenn.verifier.check.passes import whole
from provenn.verifier.check.rounding import Array, float_below, require, require_float64
from provenn.verifier.check.rows import Bounds, Box, Semantics
from provenn.verifier.check.specification import (
    Case,
    Vector,
    number,
    read_jacobian,
    read_json,
    read_lipschitz,
    read_vnnlib,
)
from provenn.verifier.check.trees import Tree, read_chunk

MANIFEST = "manifest.json"
ATTESTATION = "attestation.json"  # who says it: a file that a bundle may have, and that is not read here
Claim = Mapping[str, Any]


@dataclass(frozen=True)
class Report:
    """An accepted certificate: margins by case and clause, rounded down; or of a Lipschitz statement `uppers`.

    uppers: its numbers, rounded up; there are no margins then, and the smallest, `margin`, is 0. entries: of a Jacobian
    (row, column, lower, upper), rounded outward, None where no bound is stated.
    assurance: "checked" in semantics "real", arithmetic on the exact weights; "deployed" in "float32", every execution
    in that format that single.py describes.
    """

    verdict: str
    semantics: str
    assurance: str
    margin: float
    margins: tuple[tuple[float, ...], ...]
    claims: int
    model_sha256: str
    specification_sha256: str
    versions: Mapping[str, str]
    seconds: float
    uppers: tuple[float, ...] = ()
    entries: tuple[tuple[int, int, float | None, float | None], ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def check(
    files: Mapping[str, bytes],
    model: bytes | Network,
    specification: bytes | None = None,
    tick: Callable[[], object] | None = None,
) -> Report:
    """Proves a certificate's claims again. files: the bundle, by name; specification: the file it must be about.

    tick: called now and then; what it raises ends the check.
    Raises: CertificateRejected(claim, reason) unless every claim is understood and proved.
    """
    start = time.perf_counter()
    require_float64()
    content = read_manifest(files.get(MANIFEST, b""))
    stated, claims, digest = content["specification"], content["claims"], content["model"]["sha256_file"]
    local = stated["form"] in ("lipschitz", "jacobian")
    network = model if isinstance(model, Network) else read_network(model, slopes=local)
    require(network.sha256 == digest, "model", f"the certificate is about another model, of sha256 {digest}")
    text = _file(files, "specification", stated["file"], stated["sha256_file"])
    same = specification is None or decompressed(specification, "specification") == text
    require(same, "specification", "the certificate is about another specification")
    tensors = read_payload(_file(files, "payload", content["payload"]["file"], content["payload"]["sha256"]))
    chunks = [name for claim in claims for name, _ in claim.get("chunks", ())]
    every = [MANIFEST, stated["file"], content["payload"]["file"], *chunks]
    require(
        files.keys() - {ATTESTATION} == set(every) and len(set(every)) == len(every), "bundle", "it holds other files"
    )
    named = set[str]().union(*map(entries, claims))
    require(named == tensors.keys(), "payload", "its entries are not those that the claims name")
    kind, least = content["semantics"], 0.0
    margins, found = tuple[tuple[float, ...], ...](), dict[str, Any]()
    with np.errstate(all="ignore"):
        if local:
            require(kind == "real", "manifest", "claims about derivatives are about real arithmetic")
            prove_all = _lipschitz if stated["form"] == "lipschitz" else _jacobian
            found = prove_all(network, text, claims, _Given(tensors, files, tick))
        else:
            cases = read_cases(text, stated["form"], network)
            mine: list[list[Claim]] = [[] for _ in cases]
            for claim in claims:
                require(0 <= claim["case"] < len(cases), claim["id"], f"there is no case {claim['case']}")
                mine[claim["case"]].append(claim)
            regions = [_bounds(network, case, kind, tick) for case in cases]
            each = zip(regions, cases, mine, strict=True)
            margins = tuple(_Case(bounds, case, tensors, files).margins(own) for bounds, case, own in each)
            least = min(map(min, margins))
    versions = {"python": platform.python_version(), "numpy": np.__version__, "scipy": scipy.__version__}
    about = (len(claims), digest, stated["sha256_file"], {**versions, "onnx": onnx.__version__})
    return Report("verified", kind, ASSURANCES[kind], least, margins, *about, time.perf_counter() - start, **found)


def _bounds(network: Network, case: Case, semantics: Semantics, tick: Callable[[], object] | None) -> Bounds:
    bounds = Bounds(network, *case.region(), semantics)
    bounds.tick = tick or bounds.tick
    return bounds


class _Given(NamedTuple):
    """The payload's arrays, the bundle's files, what is called now and then."""

    tensors: Tensors
    files: Mapping[str, bytes]
    tick: Callable[[], object] | None

    def chunks(self, claim: Claim) -> Iterator[Tensors]:
        """Of a claim's tree."""
        return (read_chunk(_file(self.files, "tree", name, digest)) for name, digest in claim["chunks"])


def _lipschitz(network: Network, text: bytes, claims: Sequence[Claim], given: _Given) -> dict[str, Any]:
    """Proves a Lipschitz statement: its numbers, rounded up."""
    stated, bounds = read_lipschitz(text, network.steps[0].length, network.steps[network.output].length), None
    require(all(claim["case"] == 0 for claim in claims), "claims", "a Lipschitz statement has one case")
    if stated.region:
        bounds = _bounds(network, stated.region, "real", given.tick)
        claims = _Case(bounds, stated.region, given.tensors, {}).intervals(claims)
    own = all(claim["kind"].startswith("lipschitz") and (bounds or not claim["uses"]) for claim in claims)
    require(own, "claims", "a Lipschitz statement has claims of its own kind, and of intervals if it has a region")
    prove(Units(network, bounds), bounds, stated, claims, given.tensors, given.chunks, given.tick or (lambda: None))
    return {"uppers": tuple(-float_below(-upper) for upper in stated.upper)}


def _jacobian(network: Network, text: bytes, claims: Sequence[Claim], given: _Given) -> dict[str, Any]:
    """Proves a statement about entries of Jacobians, region by region: its entries, rounded outward."""
    stated = read_jacobian(text, network.steps[0].length, network.steps[network.output].length)
    require(all(0 <= claim["case"] < len(stated.regions) for claim in claims), "claims", "there is no such case")
    for case, region in enumerate(stated.regions):
        bounds = _bounds(network, region, "real", given.tick)
        own = [claim for claim in claims if claim["case"] == case]
        mine = _Case(bounds, region, given.tensors, {}).intervals(own)
        require(all(claim["kind"] == "entries" for claim in mine), "claims", "one is of another kind")
        proved = prove_entries(Units(network, bounds), bounds, stated, mine, given.chunks)
        require(len(proved) == len(stated.entries), "claims", f"an entry has no claim in case {case}")
    below = [None if e.lower is None else float_below(e.lower) for e in stated.entries]
    above = [None if e.upper is None else -float_below(-e.upper) for e in stated.entries]
    rounded = zip(stated.entries, below, above, strict=True)
    return {"entries": tuple((e.row, e.column, low, high) for e, low, high in rounded)}


def _file(files: Mapping[str, bytes], what: str, name: str, digest: str) -> bytes:
    data = files.get(name, b"")
    require(
        hashlib.sha256(data).hexdigest() == digest, what, f"file {name!r} does not have sha256 {digest}, or is missing"
    )
    return data


def read_cases(text: bytes, form: str, network: Network) -> tuple[Case, ...]:
    """The specification, in form "json" or "vnnlib".

    Raises: CertificateRejected if it is not understood, says nothing, or does not fit the network.
    """
    require(form in ("json", "vnnlib"), "specification", f"form {form!r} is not understood")
    cases = read_json(text) if form == "json" else read_vnnlib(text)
    require(cases and all(case.clauses for case in cases), "specification", "there is nothing to prove")
    inputs, outputs = network.steps[0].length, network.steps[network.output].length
    for case in cases:
        sizes = {len(case.lower), len(case.upper), len(case.ball[0] if case.ball else case.lower)}
        require(sizes == {inputs}, "specification", f"it does not have {inputs} inputs")
        ordered = all(low <= high for low, high in zip(case.lower, case.upper, strict=True))
        require(ordered, "specification", "a lower bound of an input is above the upper bound")
        for clause in case.clauses:
            fits = {outputs}.issuperset(map(len, clause.matrix)) and len(clause.matrix) == len(clause.bound)
            require(fits, "specification", f"it does not have {outputs} outputs, or C and d differ in length")
    return cases


def row_margins(bounds: Bounds, rows: Sequence[tuple[Vector, Fraction]], method: str) -> list[Fraction | None]:
    """Proved lower bounds of d - C v, exact rationals, for rows (C, d); None where nothing finite was proved.

    Rows are multiplied by their denominators; raises CertificateRejected if a float cannot hold a numerator then.
    """
    scales = [lcm(*(c.denominator for c in row)) for row, _ in rows]
    scaled = [[c * scale for c in row] for (row, _), scale in zip(rows, scales, strict=True)]
    require(all(abs(c) < 2**53 for row in scaled for c in row), "specification", "a clause has too many digits")
    matrix = -np.array([[float(c) for c in row] for row in scaled])
    lower = bounds.lower_bounds(bounds.network.output, matrix, constant=method == "interval")
    found = zip(lower, scales, rows, strict=True)
    return [Fraction(float(low)) / scale + d if np.isfinite(low) else None for low, scale, (_, d) in found]


def slopes_of(network: Network, names: Mapping[str, str], tensors: Tensors) -> dict[str, Array]:
    """Lower slopes of ReLU steps, uint8 standing for value / 255; raises CertificateRejected for anything else."""
    sizes = {step.name: step.length for step in network.steps if getattr(step, "function", None) is RELU}
    stored = {step: tensors[name] for step, name in names.items()}
    slopes = {step: a.astype(np.float64) / (255 if a.dtype == np.uint8 else 1) for step, a in stored.items()}
    for step, values in slopes.items():
        require(sizes.get(step) == len(values), "slopes", f"{step} is not a ReLU of {len(values)} neurons")
        require(((values >= 0) & (values <= 1)).all(), "slopes", f"{step}: slopes outside their domain [0, 1]")
    return slopes


def cut_by_rows(bounds: Bounds, index: int, rows: NDArray[np.int32], own: Tensors) -> Box:
    """The box of a step, cut by rows j + 1 (lower bound of neuron j) and -(j + 1) (upper), each with slopes of its own.

    own: name of a ReLU step -> uint8 [rows x length], value / 255.   Raises: CertificateRejected if they do not fit.
    """
    neurons, side, box = np.abs(rows) - 1, np.sign(rows), bounds.box(index)
    relus = {s.name: i for i, s in enumerate(bounds.network.steps) if getattr(s, "function", None) is RELU}
    lengths = {name: bounds.network.steps[relus.get(name, 0)].length for name in own}
    fits = rows.dtype == np.int32 and relus.keys() >= own.keys() and all(v.dtype == np.uint8 for v in own.values())
    inside = bool(((neurons >= 0) & (neurons < len(box.lower))).all())
    fits = fits and inside and all(len(own[name]) == len(rows) * length for name, length in lengths.items())
    require(fits, "slopes", "rows of neurons, or their slopes, do not fit")
    slopes = {relus[name]: (np.arange(n), own[name].reshape(len(rows), n)) for name, n in lengths.items()}
    passes, parts = whole(bounds, len(rows), index)
    matrix = scipy.sparse.csr_array(
        (side.astype(np.float64), (np.arange(len(rows)), neurons)), (len(rows), len(box.lower))
    )
    proved, cut = passes.lower_bounds(index, matrix, parts, slopes), Box(box.lower.copy(), box.upper.copy())
    np.fmax.at(cut.lower, neurons[side > 0], proved[side > 0])
    np.fmin.at(cut.upper, neurons[side < 0], -proved[side < 0])
    return cut


class _Case:
    """The claims of one case."""

    def __init__(self, bounds: Bounds, case: Case, tensors: Tensors, files: Mapping[str, bytes]) -> None:
        self.network, self.bounds, self.case = bounds.network, bounds, case
        self.tensors, self.files = tensors, files

    def margins(self, claims: Sequence[Claim]) -> tuple[float, ...]:
        """Proves interval claims in order, then trees and margin claims: the margins by clause.

        Raises: CertificateRejected naming the first claim that is missing, out of order or not proved.
        """
        claims = self.intervals(claims)
        found: dict[int, Fraction] = {}
        for claim in (claim for claim in claims if claim["kind"] == "tree"):
            self._tree(claim, found)
        plain = [claim for claim in claims if claim["kind"] == "margin"]
        require(all(claim["kind"] in ("tree", "margin") for claim in claims), "claims", "one is of another kind")
        for (method, _), group in groupby(plain, key=lambda c: (c["method"], c["slopes"])):
            self._margins(method, list(group), found)
        for k in range(len(self.case.clauses)):
            require(k in found, "claims", f"clause {k} of a case has no margin claim")
        return tuple(float_below(found[k]) for k in range(len(self.case.clauses)))

    def intervals(self, claims: Sequence[Claim]) -> Sequence[Claim]:
        """Proves the interval claims in order, and returns the others, which must all use exactly them."""
        ids = [claim["id"] for claim in claims if claim["kind"] == "interval"]
        for position, claim in enumerate(claims):
            ordered = (claim["kind"] == "interval") == (position < len(ids)) and claim["uses"] == ids[:position]
            require(ordered, claim["id"], "it must use exactly the interval claims of its case before it, margins last")
        for claim in claims[: len(ids)]:
            self._interval(claim)
        missing = self.network.bounded.keys() - {claim["node"] for claim in claims[: len(ids)]}
        require(not missing, "claims", f"a case has no interval claim for {', '.join(sorted(missing))}")
        return claims[len(ids) :]

    def _interval(self, claim: Claim) -> None:
        """Proves by rows what interval arithmetic does not already imply, and takes the claimed box."""
        index, node = self.network.bounded.get(claim["node"], -1), claim["node"]
        lower, upper = self.tensors[claim["lower"]], self.tensors[claim["upper"]]
        fits = len(lower) == len(upper) == self.network.steps[index].length and lower.dtype == upper.dtype == np.float32
        require(index >= 0 and fits, claim["id"], f"{node} is not to be bounded, or not by such numbers")
        box = self.bounds.box(index)
        require(claim["rows"] or not claim["own"], claim["id"], "slopes of rows that are not there")
        if claim["rows"]:
            own = {step: self.tensors[name] for step, name in claim["own"].items()}
            box = cut_by_rows(self.bounds, index, self.tensors[claim["rows"]], own)
        self.bounds.choose(slopes_of(self.network, claim["slopes"], self.tensors))
        claimed = Box(lower.astype(np.float64), upper.astype(np.float64))
        self.bounds.take(index, claimed, box, claim["method"] == "crown", claim["id"])

    def _tree(self, claim: Claim, found: dict[int, Fraction]) -> None:
        """Puts the smallest margins, by clause, of a tree that proves some clauses into `found`."""
        asked, count = claim["clauses"], len(self.case.clauses)
        known = all(type(k) is int and 0 <= k < count and k not in found for k in asked) and len({*asked}) == len(asked)
        require(known and asked, claim["id"], "it proves clauses that are not there, or proved twice, or none")
        tree, margins = Tree(self.bounds, claim["steps"], self.case.clauses, asked), np.full(count, np.inf)
        for (name, _), chunk in zip(claim["chunks"], _Given({}, self.files, None).chunks(claim), strict=True):
            nodes = tree.grown(chunk)
            proved = tree.margins(nodes, chunk)
            wrong = np.flatnonzero(~(proved > 0))
            require(not len(wrong), claim["id"], f"{name}: proof {wrong[:1]} does not hold")
            np.minimum.at(margins, chunk["clause"][chunk["clause"] >= 0], proved[chunk["clause"] >= 0])
            tree.close(nodes, chunk)
        require(not tree.waiting, claim["id"], "parts of its tree are missing")
        found |= {k: Fraction(min(margins[k], np.finfo(np.float64).max)) for k in asked}

    def _margins(self, method: str, claims: list[Claim], found: dict[int, Fraction]) -> None:
        """Puts the proved margins, by clause, of claims with one method and one choice of slopes into `found`."""
        rows, clauses = [], self.case.clauses
        for claim in claims:
            k, i = claim["clause"], claim["row"]
            known = 0 <= k < len(clauses) and 0 <= i < len(clauses[k].bound)
            require(known, claim["id"], f"there is no clause {k} with a row {i}")
            rows.append((clauses[k].matrix[i], clauses[k].bound[i]))
        self.bounds.choose(slopes_of(self.network, claims[0]["slopes"], self.tensors))
        for claim, margin in zip(claims, row_margins(self.bounds, rows, method), strict=True):
            k, above = claim["clause"], number(claim["above"])
            proved = margin is not None and k not in found and margin > above >= 0
            require(
                proved, claim["id"], f"the margin of clause {k} is not above {claim['above']} >= 0, or claimed twice"
            )
            found[k] = Fraction(margin or 0)

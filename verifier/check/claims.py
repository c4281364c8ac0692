"""The check: every claim again, from the network and the claims before it."""

from __future__ import annotations

import hashlib
import platform
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from fractions import Fraction
from math import lcm
from typing import Any

import numpy as np
import onnx
import scipy

from provenn.verifier.check.functions import RELU
from provenn.verifier.check.manifest import read_manifest, threshold
from provenn.verifier.check.network import Network
from provenn.verifier.check.onnx_reader import read_network
from provenn.verifier.check.payload import Tensors, read_payload
from provenn.verifier.check.rejected import require
from provenn.verifier.check.rounding import Array, float_below, require_float64
from provenn.verifier.check.rows import Bounds, Box
from provenn.verifier.check.specification import Case, Vector, read_json
from provenn.verifier.check.tensors import decompressed
from provenn.verifier.check.vnnlib_text import read_vnnlib

VERSION = "1"
MANIFEST = "manifest.json"

Claim = Mapping[str, Any]


@dataclass(frozen=True)
class Report:
    """An accepted certificate: margins by case and clause, rounded down; real arithmetic on the exact weights."""

    verdict: str
    semantics: str
    assurance: str
    margins: tuple[tuple[float, ...], ...]
    claims: int
    model_sha256: str
    specification_sha256: str
    versions: Mapping[str, str]
    seconds: float

    @property
    def margin(self) -> float:
        """The smallest margin."""
        return min(min(clauses) for clauses in self.margins)

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {**asdict(self), "margin": self.margin}


def check(files: Mapping[str, bytes], model: bytes | Network, specification: bytes | None = None) -> Report:
    """Proves a certificate's claims again. files: the bundle, by name; specification: the file it must be about.

    Raises: CertificateRejected(claim, reason) unless every claim is understood and proved.
    """
    start = time.perf_counter()
    with np.errstate(all="ignore"):
        require_float64()
        require(MANIFEST in files, "manifest", f"{MANIFEST} is missing")
        content = read_manifest(files[MANIFEST])
        network = model if isinstance(model, Network) else read_network(model)
        digest = content["model"]["sha256_file"]
        require(network.sha256 == digest, "model", f"the certificate is about another model, of sha256 {digest}")
        stated, payload = content["specification"], content["payload"]
        text = _file(files, "specification", stated["file"], stated["sha256_file"])
        same = specification is None or decompressed(specification, "specification") == text
        require(same, "specification", "the certificate is about another specification")
        tensors = read_payload(_file(files, "payload", payload["file"], payload["sha256"]))
        names = {MANIFEST, stated["file"], payload["file"]}
        require(len(names) == 3 and files.keys() == names, "bundle", f"its files are not {', '.join(sorted(names))}")
        cases = read_cases(text, stated["form"], network)
        claims = content["claims"]
        used = {name for c in claims for name in (c.get("lower"), c.get("upper"), *c.get("slopes", {}).values())}
        require(used - {None} == tensors.keys(), "payload", "its entries are not those that the claims name")
        for claim in claims:
            require(0 <= claim["case"] < len(cases), claim["id"], f"there is no case {claim['case']}")
        by_case = [[c for c in claims if c["case"] == number] for number in range(len(cases))]
        proved = [_Case(network, case, tensors).margins(mine) for case, mine in zip(cases, by_case, strict=True)]
    versions = {"checker": VERSION, "python": platform.python_version(), "numpy": np.__version__}
    versions |= {"scipy": scipy.__version__, "onnx": onnx.__version__}
    seconds = time.perf_counter() - start
    digests = (network.sha256, stated["sha256_file"])
    return Report("verified", "real", "checked", tuple(proved), len(claims), *digests, versions, seconds)


def _file(files: Mapping[str, bytes], what: str, name: str, digest: str) -> bytes:
    require(name in files, what, f"file {name!r} is missing")
    require(hashlib.sha256(files[name]).hexdigest() == digest, what, f"file {name!r} does not have sha256 {digest}")
    return files[name]


def read_cases(text: bytes, form: str, network: Network) -> tuple[Case, ...]:
    """The specification, in form "json" or "vnnlib".

    Raises: CertificateRejected if it is not understood, says nothing, or does not fit the network.
    """
    require(form in ("json", "vnnlib"), "specification", f"form {form!r} is not understood")
    cases = read_json(text) if form == "json" else read_vnnlib(text)
    for case in cases:
        sizes = {len(case.lower), len(case.upper)} | ({len(case.ball[0])} if case.ball else set())
        require(sizes == {network.inputs}, "specification", f"it does not have {network.inputs} inputs")
        ordered = all(low <= high for low, high in zip(case.lower, case.upper, strict=True))
        require(ordered, "specification", "a lower bound lies above its upper bound")
        require(case.clauses, "specification", "a case has nothing to prove")
        fits = all(len(row) == network.outputs for clause in case.clauses for row in clause.matrix)
        require(fits, "specification", f"it does not have {network.outputs} outputs")
        square = all(len(clause.matrix) == len(clause.bound) for clause in case.clauses)
        require(square, "specification", "C and d of a clause differ in length")
    return cases


def row_margins(bounds: Bounds, rows: Sequence[tuple[Vector, Fraction]], method: str) -> list[Fraction | None]:
    """Proved lower bounds of d - C v, exact rationals, for rows (C, d); None where nothing finite was proved.

    A row that is not of floats is multiplied by its denominators.   Raises: CertificateRejected if it then is not.
    """
    scales = [1 if all(_is_float(c) for c in row) else lcm(*(c.denominator for c in row)) for row, _ in rows]
    scaled = [[c * scale for c in row] for (row, _), scale in zip(rows, scales, strict=True)]
    exact = all(_is_float(c) for row in scaled for c in row)
    require(exact, "specification", "coefficients of a clause have no common multiple that floats can hold")
    matrix = -np.array([[float(c) for c in row] for row in scaled]).reshape(len(rows), bounds.network.outputs)
    lower = bounds.lower_bounds(len(bounds.network.steps) - 1, matrix, constant=method == "interval")
    found = zip(lower, scales, rows, strict=True)
    return [Fraction(float(low)) / scale + d if np.isfinite(low) else None for low, scale, (_, d) in found]


def _is_float(x: Fraction) -> bool:
    return abs(x) < 2**300 and Fraction(float(x)) == x


def slopes_of(network: Network, named: Mapping[str, Array]) -> dict[str, Array]:
    """Stored lower slopes of ReLU steps as floats: uint8 stands for value / 255.

    Raises: CertificateRejected if one lies outside [0, 1], or belongs to no ReLU step.
    """
    sizes = {step.name: step.length for step in network.steps if getattr(step, "function", None) is RELU}
    slopes = {name: np.asarray(a, np.float64) / (255 if a.dtype == np.uint8 else 1) for name, a in named.items()}
    for name, values in slopes.items():
        require(sizes.get(name) == len(values), "slopes", f"{name} is not a ReLU of {len(values)} neurons")
        require(((values >= 0) & (values <= 1)).all(), "slopes", f"{name}: slopes outside their domain [0, 1]")
    return slopes


class _Case:
    """The claims of one case."""

    def __init__(self, network: Network, case: Case, tensors: Tensors) -> None:
        self.network, self.case, self.tensors = network, case, tensors
        self.bounds = Bounds(network, *case.region())

    def margins(self, claims: Sequence[Claim]) -> tuple[float, ...]:
        """Proves interval claims in order, then margin claims: the margins by clause.

        Raises: CertificateRejected naming the first claim that is missing, out of order or not proved.
        """
        count = sum(claim["kind"] == "interval" for claim in claims)
        ids = [claim["id"] for claim in claims[:count]]
        for position, claim in enumerate(claims):
            require((claim["kind"] == "interval") == (position < count), claim["id"], "a margin claim before intervals")
            require(claim["uses"] == ids[:position], claim["id"], "uses must list the case's interval claims before it")
        for claim in claims[:count]:
            self._interval(claim)
        missing = self.network.bounded.keys() - {claim["node"] for claim in claims[:count]}
        require(not missing, "claims", f"a case has no interval claim for {', '.join(sorted(missing))}")
        groups: dict[str, list[Claim]] = {}
        for claim in claims[count:]:
            groups.setdefault(repr((claim["method"], claim.get("slopes"))), []).append(claim)
        margins: dict[int, Fraction] = {}
        for group in groups.values():
            for claim, margin in zip(group, self._margins(group), strict=True):
                k = claim["clause"]
                require(k not in margins, claim["id"], f"clause {k} has two margin claims")
                proved = margin is not None and margin > Fraction(threshold(claim))
                require(
                    proved, claim["id"], f"the margin of clause {k}, row {claim['row']} is not above {claim['above']}"
                )
                margins[k] = margin or Fraction(0)
        for k in range(len(self.case.clauses)):
            require(
                k in margins, "claims", f"clause {k} of case {claims[0]['case'] if claims else 0} has no margin claim"
            )
        return tuple(float_below(margins[k]) for k in range(len(self.case.clauses)))

    def _choose(self, claim: Claim) -> None:
        named = claim.get("slopes", {})
        self.bounds.choose(slopes_of(self.network, {step: self.tensors[name] for step, name in named.items()}))

    def _interval(self, claim: Claim) -> None:
        """Recomputes what interval arithmetic does not already imply by rows, and takes the claimed box."""
        index = self.network.bounded.get(claim["node"], -1)
        lower, upper = self.tensors[claim["lower"]], self.tensors[claim["upper"]]
        fits = index >= 0 and lower.dtype == upper.dtype == np.float32
        fits = fits and len(lower) == len(upper) == self.network.steps[index].length
        require(fits, claim["id"], f"{claim['node']} is no input of a nonlinear step, or its bounds do not fit")
        require((lower <= upper).all(), claim["id"], f"{claim['node']}: a lower bound lies above its upper bound")
        box = self.bounds.box(index)
        proved = {1: box.lower.copy(), -1: -box.upper}
        if claim["method"] == "crown":
            self._choose(claim)
            for sign, claimed in ((1, lower), (-1, -upper)):
                open_ = np.flatnonzero(~(proved[sign] >= claimed))
                proved[sign][open_] = self.bounds.neuron_bounds(index, open_, sign)
        for side, claimed, sign in (("lower", lower, 1), ("upper", -upper, -1)):
            wrong = np.flatnonzero(~(proved[sign] >= claimed))
            reason = f"the {side} bound of neuron {wrong[:1]} of {claim['node']} is tighter than what is proved"
            require(not len(wrong), claim["id"], reason)
        self.bounds.accept(index, Box(lower.astype(np.float64), upper.astype(np.float64)))

    def _margins(self, claims: Sequence[Claim]) -> list[Fraction | None]:
        """Of margin claims with one method and one choice of slopes."""
        rows = []
        for claim in claims:
            known = 0 <= claim["clause"] < len(self.case.clauses)
            known = known and 0 <= claim["row"] < len(self.case.clauses[claim["clause"]].bound)
            require(known, claim["id"], f"there is no clause {claim['clause']} with a row {claim['row']}")
            clause = self.case.clauses[claim["clause"]]
            rows.append((clause.matrix[claim["row"]], clause.bound[claim["row"]]))
        self._choose(claims[0])
        return row_margins(self.bounds, rows, claims[0]["method"])

"""Is a batch true: its root recomputed, every certificate re-proved, and each about exactly its row.

Nothing here loads torch: certificates are checked by the trusted kernel, counterexamples run by onnxruntime.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from provenn.api.batch.bundle import Bundle, Manifest, opened
from provenn.api.batch.data import Data
from provenn.api.batch.digests import Digest
from provenn.api.batch.merkle import leaf_hash, root, root_by_path
from provenn.api.batch.numbers import Array
from provenn.api.batch.rows import Row, exact_values, input_digest
from provenn.verifier.certificate.bundle import load_zip
from provenn.verifier.check import CertificateRejected, Network, check, read_network
from provenn.verifier.check.manifest import ASSURANCES, read_manifest
from provenn.verifier.errors import InvalidSpecification
from provenn.verifier.numbers import exact, spoken, written
from provenn.verifier.spec import Specification
from provenn.verifier.spec_json import robustness

LOST = 1e-9
"""By what share, at most, a margin that is proved again may be below the one that was stated: another computer sums in
another order. It is not what a verdict rests on: that it is above 0 is proved again."""


class Executor(Protocol):
    """What runs a network."""

    def run(self, inputs: np.ndarray) -> np.ndarray:
        """float32 inputs [batch, *input_shape] -> float32 outputs [batch, *output_shape]."""
        ...


@dataclass(frozen=True, eq=False)
class Given:
    """The data that a batch is said to be about, and what runs the network on it; shape: of one input."""

    data: Data
    executor: Executor
    shape: tuple[int, ...]


@dataclass(frozen=True)
class BatchReport:
    """An accepted batch. rows: how many were looked at; verdicts: of them, by radius where radii were asked for;
    certificates: proved again; replayed: counterexamples run again, which needs the data; margin: the smallest one.
    first: the number of the first input in the data; inputs, data_sha256: of the whole batch, None where one row alone
    was looked at without the data, which its path to the root says nothing of.
    """

    rows: int
    first: int
    inputs: int | None
    root: str
    model_sha256: str
    data_sha256: str | None
    norm: str
    clip: tuple[float, float] | None
    semantics: str
    verdicts: Mapping[str, Mapping[str, int]]
    certificates: int
    replayed: int | None
    margin: float | None
    seconds: float
    versions: Mapping[str, str] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def check_batch(
    path: Path,
    model: bytes | Network,
    given: Given | None = None,
    item: int | None = None,
    tick: Callable[[int, int], object] | None = None,
) -> BatchReport:
    """Checks every row of a batch; or of a bundle with one row that row, which its path joins to the root.

    given: the data; then what the network predicts and every counterexample is run again too. item: of a whole batch,
    only this row's certificate. tick: called with (rows done, rows).
    Raises: CertificateRejected if anything is not as it says; OSError if the file cannot be read.
    """
    start = time.perf_counter()
    with opened(path) as bundle:
        network = model if isinstance(model, Network) else read_network(model)
        manifest = bundle.manifest
        _require(
            manifest.model_sha256 == network.sha256, f"it is about another model, of sha256 {manifest.model_sha256}"
        )
        first = _require_complete(bundle, given)
        wanted = _wanted(bundle, item)
        checker = Checker(bundle, network, given, first)
        for number, leaf in _numbered(bundle):
            if number in wanted:
                checker.check(number, leaf)
            if tick is not None:
                tick(number, manifest.rows)
        unused = bundle.certificates - checker.named
        _require(item is not None or not unused, f"it holds {len(unused)} certificates that no row names")
    return checker.report(time.perf_counter() - start)


def _wanted(bundle: Bundle, item: int | None) -> range | tuple[int, ...]:
    """The numbers of the rows to check."""
    if bundle.item is not None:
        number = bundle.item[0]
        _require(item is None or item == number, f"it holds row {number} alone, not row {item}")
        return (number,)
    if item is None:
        return range(bundle.manifest.rows)
    _require(0 <= item < bundle.manifest.rows, f"it has no row {item}, but {bundle.manifest.rows} rows")
    return (item,)


def _numbered(bundle: Bundle) -> Iterator[tuple[int, bytes]]:
    first = 0 if bundle.item is None else bundle.item[0]
    for place, leaf in enumerate(bundle.leaves()):
        yield first + place, leaf


def _require_complete(bundle: Bundle, given: Given | None) -> int:
    """Every row is there, and the root is theirs, and so are the data; the number of their first input in the data."""
    manifest = bundle.manifest
    radii = max(1, len(manifest.question.radii))
    _require(manifest.rows == manifest.inputs * radii, "it has not one row an input and radius")
    hashes: list[bytes] = []
    digest, first, known = Digest(), 0, None
    for number, leaf in _numbered(bundle):
        row = read_row(leaf, number)
        first = first if hashes else row.index - number // radii
        hashes.append(leaf_hash(leaf))
        own = (row.input_sha256, row.label, row.name, row.predicted)
        if number % radii == 0:
            digest.add(row.input_sha256, row.label)
        same = known in (None, own) or number % radii == 0
        _require(same, "it is about another input, label, name or class than the first radius", f"row {number}")
        known = own
    if bundle.item is not None:
        number, path = bundle.item
        found = root_by_path(hashes[0], number, manifest.rows, path)
        _require(found is not None and manifest.over(found) == manifest, "the path does not lead to the root")
    else:
        rooted = manifest.over(root(hashes)) == manifest
        _require(rooted, "the rows and the manifest do not have the root that it states")
        _require(digest.hex() == manifest.data_sha256, "the rows are not about the data that the manifest states")
    if given is not None:
        about = given.data.part(first, first + manifest.inputs) if first >= 0 else given.data
        _require(Digest.of(about).hex() == manifest.data_sha256, "it is about other data")
    return first


def read_row(leaf: bytes, number: int) -> Row:
    """A leaf's row.   Raises: CertificateRejected if it is not canonical."""
    try:
        row = Row.from_json(leaf)
    except (ValueError, RecursionError) as error:
        raise CertificateRejected(f"row {number}", f"it is not a row: {error}") from error
    if row.leaf() != leaf:
        raise CertificateRejected(f"row {number}", "it is not canonical JSON")
    return row


class Checker:
    """Checks rows, one after the other, and counts. named: the certificates that they name."""

    def __init__(self, bundle: Bundle, network: Network, given: Given | None, first: int) -> None:
        self._bundle, self._network, self._given, self._first = bundle, network, given, first
        self._manifest: Manifest = bundle.manifest
        self._verdicts: dict[str, Counter[str]] = {}
        self._rows = self._replayed = 0
        self._margins: list[float] = []
        self._versions: Mapping[str, str] = {}
        self.named: set[str] = set()

    def check(self, number: int, leaf: bytes) -> None:
        """One row.   Raises: CertificateRejected."""
        row = read_row(leaf, number)
        self._rows += 1
        radius = self._placed(number, row)
        try:
            if row.certificate is not None:
                self._proved(row, radius)
            if self._given is not None:
                self._executed(row, self._given)
        except CertificateRejected as refusal:
            raise CertificateRejected(f"row {number}", f"{refusal.claim}: {refusal.reason}") from refusal
        asked = "radius" if row.epsilon is None or radius is None else written(radius)
        self._verdicts.setdefault(asked, Counter())[row.verdict] += 1

    def report(self, seconds: float) -> BatchReport:
        """Of all that were checked."""
        manifest, covered = self._manifest, self._bundle.item is None or self._given is not None
        return BatchReport(
            self._rows,
            self._first,
            manifest.inputs if covered else None,
            manifest.root,
            manifest.model_sha256,
            manifest.data_sha256 if covered else None,
            manifest.question.norm,
            manifest.question.clip,
            manifest.semantics,
            {radius: dict(counted) for radius, counted in self._verdicts.items()},
            len(self._margins),
            None if self._given is None else self._replayed,
            min(self._margins, default=None),
            seconds,
            self._versions,
        )

    def _placed(self, number: int, row: Row) -> Fraction | None:
        """The radius that the row's certificate must be about; the row is where it should be, and makes sense."""
        where, question = f"row {number}", self._manifest.question
        radii = question.radii
        place, index = number % max(1, len(radii)), self._first + number // max(1, len(radii))
        _require(row.index == index >= 0, f"it is about input {row.index}, not {index}", where)
        proved = ASSURANCES[self._manifest.semantics]
        verified = row.verdict == "verified"
        sure = (row.certificate is not None) == verified == (row.assurance == proved)
        told = "unproved: " + (row.reason or f"the assurance is {row.assurance}")
        _require(sure, f"it says {row.verdict} and has {'a' if row.certificate else 'no'} certificate; {told}", where)
        _require(not verified or (row.margin is not None and row.margin > 0), "it is verified without a margin", where)
        if row.verdict == "falsified":
            _require(row.counterexample is not None, "it is falsified without a counterexample", where)
        if radii:
            same = row.epsilon == float(radii[place]) and row.certified is None and row.attacked is None
            _require(same, f"it is not about radius {written(radii[place])} alone", where)
            known = (row.counterexample is not None) == (row.verdict == "falsified")
            _require(known, "it has a counterexample and is not falsified", where)
            return radii[place]
        _require(row.epsilon is None, "it is about one radius, where radii were searched for", where)
        _require((row.attacked is None) == (row.counterexample is None), "its counterexample has no radius", where)
        _require((row.certified is None) != verified, "it is verified, but no radius is certified", where)
        ends = (row.certified or 0.0, row.attacked)
        most = question.largest or 0.0
        nothing = row.certified is None and ends == (0, 0)
        ordered = 0 <= ends[0] <= most and (ends[1] is None or ends[0] < ends[1] <= most or nothing)
        _require(ordered, f"its bracket {row.certified} to {row.attacked} is none", where)
        return None if row.certified is None else spoken(row.certified)

    def _proved(self, row: Row, radius: Fraction | None) -> None:
        """Its certificate proves exactly what the row says.   Raises: CertificateRejected."""
        assert row.certificate is not None
        assert radius is not None
        data = self._bundle.certificate(row.certificate)
        _require(hashlib.sha256(data).hexdigest() == row.certificate, "it has another sha256", "certificate")
        files = load_zip(data)
        values = self._input(files)
        _require(input_digest(values) == row.input_sha256, "it is about another input", "certificate")
        stated = self._specification(values, row.label, radius)
        report = check(files, self._network, stated.text)
        same = report.semantics == self._manifest.semantics and report.assurance == row.assurance
        _require(same, f"it proves semantics {report.semantics}", "certificate")
        margin = row.margin or 0.0
        _require(report.margin >= margin * (1 - LOST), f"it proves a margin of {report.margin} alone", "certificate")
        self.named.add(row.certificate)
        self._margins.append(report.margin)
        self._versions = report.versions

    def _input(self, files: Mapping[str, bytes]) -> Array:
        """The input that a certificate's specification is about, as it states it."""
        stated = read_manifest(files.get("manifest.json", b""))["specification"]
        try:
            content = json.loads(files.get(stated["file"], b""))
            return exact_values(np.array([float(exact(str(number))) for number in content["input"]]))
        except (ValueError, TypeError, KeyError, RecursionError, InvalidSpecification) as error:
            raise CertificateRejected("certificate", "it is not about robustness around an input") from error

    def _specification(self, values: Array, label: int, radius: float | Fraction) -> Specification:
        question = self._manifest.question
        outputs = self._network.steps[self._network.output].length
        try:
            return robustness(
                values, label=label, epsilon=radius, outputs=outputs, norm=question.norm, clip=question.clip
            )
        except InvalidSpecification as error:
            raise CertificateRejected("row", f"its label or its radius makes no sense: {error}") from error

    def _executed(self, row: Row, given: Given) -> None:
        """The input is that of the data, the executor predicts what the row says, and what is unsafe is unsafe."""
        values = exact_values(given.data.inputs[row.index])
        known = (row.input_sha256, row.label, row.name) == (
            input_digest(values),
            given.data.labels[row.index],
            given.data.names[row.index],
        )
        _require(known, "it is about another input or label, or has another name", "data")
        predicted = int(self._run(given, values.astype(np.float32)).argmax())
        _require(predicted == row.predicted, f"the network predicts class {predicted}", "execution")
        if row.counterexample is None:
            return
        radius = row.attacked if row.epsilon is None else row.epsilon
        radii = self._manifest.question.radii
        exactly = next((r for r in radii if float(r) == radius), None)
        case = self._specification(values, row.label, exactly if exactly is not None else radius or 0.0).cases[0]
        witness = np.array(row.counterexample, dtype=np.float32)
        same = witness.astype(np.float64).tolist() == list(row.counterexample)
        _require(same and case.inputs.contains(witness), "it is outside of the region", "counterexample")
        outputs = self._run(given, witness)
        finite = bool(np.isfinite(outputs).all())
        unsafe = finite and any(c.holds([Fraction(float(v)) for v in outputs.ravel()]) for c in case.clauses)
        _require(unsafe, "the network classifies it rightly", "counterexample")
        self._replayed += 1

    def _run(self, given: Given, point: np.ndarray) -> np.ndarray:
        return given.executor.run(point.reshape(1, *given.shape))


def _require(condition: bool, reason: str, claim: str = "batch") -> None:
    if not condition:
        raise CertificateRejected(claim, reason)

"""The certificates of an answer, proved again here by the trusted kernel, each as one about what was asked.

So nothing that a cache or a server says has to be believed: what these functions accept is proved, whoever found it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import inf
from typing import Any

from provenn.api.batch.data import Data
from provenn.api.gate.answers import classified
from provenn.api.gate.found import Found, Item, sha256
from provenn.api.gate.questions import Constant, Difference, Property, Question, Robustness, Trend
from provenn.api.gate.statements import Subject, around, differences, stated_property, statement, trends
from provenn.verifier.certificate.bundle import load_zip
from provenn.verifier.check import CertificateRejected, Network, Report, check, read_network
from provenn.verifier.check.claims import MANIFEST
from provenn.verifier.check.manifest import read_manifest
from provenn.verifier.numbers import exact


def rejected(question: Question, subject: Subject, found: Found) -> str | None:
    """Why a certificate does not prove its item, or None.   Raises: as `Subject.of` and its methods."""
    if not any(item.proved for item in found.items):
        return None
    try:
        network = read_network(subject.data, slopes=isinstance(question, Constant | Trend))
        match question:
            case Constant():
                _constant(question, subject, network, found)
            case Trend():
                _trend(question, subject, network, found)
            case _:
                texts = _texts(question, subject, found.items)
                for item, text in zip(found.items, texts, strict=True):
                    if item.proved:
                        check(_files(item, found.certificates), network, text)
    except CertificateRejected as refusal:
        return f"a certificate was rejected: {refusal.reason}"
    return None


def _texts(question: Question, subject: Subject, items: Sequence[Item]) -> list[bytes]:
    """The specification of every item; empty for one that is not about a radius."""
    match question:
        case Robustness():
            data = subject.sample(question.sample)
            return [_around(question, subject, data, item) for item in items]
        case Property():
            return [stated_property(question, subject).text]
        case Difference():
            return [specification.text for _, _, specification in differences(question, subject)]
    raise AssertionError(question)


def _around(question: Robustness, subject: Subject, data: Data, item: Item) -> bytes:
    """Raises: CertificateRejected for a smaller radius than was asked about."""
    if item.radius is None:
        return b""
    proved = item.proved_at or item.radius
    if exact(proved) < exact(item.radius):
        raise CertificateRejected("specification", "it is about a smaller radius")
    return around(question, data, item.index, proved, subject.outputs).text


def _files(item: Item, certificates: Mapping[str, bytes]) -> Mapping[str, bytes]:
    """The bundle of an item, by the digest that it is named by.   Raises: CertificateRejected."""
    data = certificates.get(item.certificate or "", b"")
    if sha256(data) != item.certificate:
        raise CertificateRejected("bundle", "it is missing, or holds other bytes than its name says")
    return load_zip(data)


def _stated(files: Mapping[str, bytes]) -> dict[str, Any]:
    """The statement of an accepted certificate, as its JSON says it."""
    content: dict[str, Any] = json.loads(files[read_manifest(files[MANIFEST])["specification"]["file"]])
    return content


def _constant(question: Constant, subject: Subject, network: Network, found: Found) -> None:
    """Raises: CertificateRejected if it is about other rows or norms, or proves a larger number."""
    (item,) = found.items
    files = _files(item, found.certificates)
    report, asked = check(files, network), statement(question, subject)
    wanted, said = json.loads(asked.text([])), _stated(files)
    del wanted["upper"], said["upper"]
    if said != wanted or item.upper is None or max(report.uppers) > item.upper:
        raise CertificateRejected("specification", "it is about another Lipschitz constant")


def _trend(question: Trend, subject: Subject, network: Network, found: Found) -> None:
    """Raises: CertificateRejected if it is about other regions or rows, or leaves a dependence open."""
    (item,) = found.items
    files, asked = _files(item, found.certificates), trends(question, subject)
    report, said = check(files, network), _stated(files)
    regions = json.loads(json.dumps([place.stated for place in asked.places]))
    if said["regions"] != regions or said["outputs"] != [[float(c).hex() for c in row] for row in asked.rows]:
        raise CertificateRejected("specification", "it is about other regions or rows")
    ends = _ends(report)
    for row in range(len(asked.rows)):
        for column in asked.columns:
            low, high = ends.get((row, column), (-inf, inf))
            if not (low >= 0 if question.expect == "increasing" else high <= 0):
                raise CertificateRejected("specification", "it does not say all that was asked")


def _ends(report: Report) -> dict[tuple[int, int], tuple[float, float]]:
    """Proved bounds of every entry."""
    found: dict[tuple[int, int], tuple[float, float]] = {}
    for row, column, low, high in report.entries:
        before = found.get((row, column), (-inf, inf))
        lower, upper = -inf if low is None else low, inf if high is None else high
        found[row, column] = (max(before[0], lower), min(before[1], upper))
    return found


def believed(question: Question, subject: Subject, found: Found) -> Found:
    """What somebody else has found, with what its certificates do not prove called undecided."""
    why = rejected(question, subject, found)
    if why is None:
        return found
    lost = {"verdict": "unknown", "assurance": None, "certificate": None, "reason": why}
    return Found(tuple(replace(item, **lost) if item.proved else item for item in found.items), {})  # type: ignore[arg-type]


def proved_again(question: Question, subject: Subject, found: Found) -> tuple[Item, ...] | None:
    """The items of which what is not proved by certificates is taken as refuted; None if one of those is rejected.

    None too if these are not the items of the question, or the executor says another thing of an input.
    """
    if not _complete(question, subject, found.items) or rejected(question, subject, found) is not None:
        return None
    return tuple(
        item if item.proved or (item.radius is None and isinstance(question, Robustness)) else _refuted(item)
        for item in found.items
    )


def _refuted(item: Item) -> Item:
    return replace(item, verdict="falsified", lower=None, upper=None)


def _complete(question: Question, subject: Subject, items: Sequence[Item]) -> bool:
    """One item for each thing that is asked, in order."""
    match question:
        case Robustness():
            plain = classified(subject, subject.sample(question.sample))
            radii = (None, *question.radii)
            places = [(item.index, item.radius) for item in items]
            known = [item for item in items if item.radius is None]
            return known == plain and places == [(one.index, radius) for one in plain for radius in radii]
        case Difference():
            return len(items) == sum(1 for _ in differences(question, subject))
    return len(items) == 1

"""From a search's verdict to a certificate that the trusted kernel accepts, or to why there is none."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch

from provenn.solvers.base import Budget, Outcome
from provenn.solvers.branch_and_bound.proof import CaseProof
from provenn.solvers.linear_programme import RowSlopes
from provenn.verifier.certificate.emit import NotProved, emit
from provenn.verifier.certificate.slopes import CaseSlopes, NeuronBound, function_names, optimised_slopes, relu_names
from provenn.verifier.certificate.trees import ProofTooLarge, Trees
from provenn.verifier.check import CertificateRejected, Network, Report, check
from provenn.verifier.check.rows import Semantics
from provenn.verifier.graph import Graph
from provenn.verifier.spec import Case, Specification
from provenn.verifier.version import provenn_version

PROOFS = ("ibp", "crown", "alpha-crown")
"""Methods of certificates that need nothing of a search, each proving more than the ones before it."""

BRANCHED = "branch-and-bound"
"""The method of certificates whose trees a search has left."""

SEARCHED = ("alpha-crown", "lp", BRANCHED)
"""Methods of certificates with slopes, of a search or found anew."""


@dataclass(frozen=True, eq=False)
class Claimed:
    """What a search says is verified: a specification of a graph, as the kernel reads the network; an outcome a case.

    semantics: of what is to be proved.
    """

    graph: Graph
    network: Network
    specification: Specification
    outcomes: Sequence[Outcome]
    semantics: Semantics = "real"


@dataclass(frozen=True, eq=False)
class Proof:
    """A certificate that was accepted, and the CPU seconds that making and checking it took."""

    files: dict[str, bytes]
    report: Report
    making: float
    checking: float


class OutOfTime(Exception):
    """The time ended before a proof was made and checked."""

    def __init__(self) -> None:
        super().__init__("the time ended before its proof was made and checked")


def proved(claimed: Claimed, methods: Sequence[str], budget: Budget) -> Proof | dict[str, CertificateRejected]:
    """The first method's certificate that the kernel accepts, or by method why none was.

    Raises: OutOfTime; ProofTooLarge; Unbounded.
    """
    refusals: dict[str, CertificateRejected] = {}
    for method in methods:
        start = time.process_time()
        try:
            files = certificate(claimed, method, budget)
            made = time.process_time()
            report = check(files, claimed.network, tick=_until(budget))
        except CertificateRejected as refusal:
            refusals[method] = refusal
        else:
            return Proof(files, report, made - start, time.process_time() - made)
    return refusals


def _until(budget: Budget) -> Callable[[], None]:
    def tick() -> None:
        if budget.left <= 0:
            raise OutOfTime

    return tick


def certificate(claimed: Claimed, method: str, budget: Budget) -> dict[str, bytes]:
    """The bundle's files.   Raises: CertificateRejected; ProofTooLarge; OutOfTime."""
    made_by = {"provenn": provenn_version(), "torch": torch.__version__}
    graph, network = claimed.graph.to("cpu", torch.float32), claimed.network
    names = relu_names(graph, network)
    slopes: list[CaseSlopes] = []
    trees = Trees(tick=_until(budget))
    if method in SEARCHED:
        found = [outcome.proof for outcome in claimed.outcomes]
        cases = claimed.specification.cases
        slopes = [_slopes(proof, graph, case, names, budget) for proof, case in zip(found, cases, strict=True)]
    if method == BRANCHED:
        if any(isinstance(proof, CaseProof) and not proof.complete for proof in found):
            raise ProofTooLarge(trees.budget)
        functions = function_names(graph, network)
        try:
            own = {i: p.trees(functions, names) for i, p in enumerate(found) if isinstance(p, CaseProof)}
        except KeyError as unnamed:
            what = f"values that node {unnamed} of the graph reads are split, and the checker has no step for it"
            raise CertificateRejected("tree", what) from unnamed
        except ValueError as unfit:
            raise CertificateRejected("tree", str(unfit)) from unfit
        trees = replace(trees, cases=own)
    return emit(network, claimed.specification, method, made_by, slopes, claimed.semantics, trees)


def _slopes(proof: object, graph: Graph, case: Case, names: Mapping[int, str], budget: Budget) -> CaseSlopes:
    """What a search has left for a case, by the checker's names; found anew where it has left nothing."""
    if isinstance(proof, RowSlopes):
        rows = {key: {names[i]: s.ravel() for i, s in own.items() if i in names} for key, own in proof.rows.items()}
        return CaseSlopes(rows=rows)
    if isinstance(proof, CaseProof):
        return _rooted(proof, names)
    return optimised_slopes(graph, case, names, lambda: budget.left <= 0)


def _rooted(proof: CaseProof, names: Mapping[int, str]) -> CaseSlopes:
    """The slopes of the whole region's bounds, by the checker's names."""
    neurons: dict[str, list[NeuronBound]] = {}
    for rows in proof.rows:
        if rows.reader not in names:
            continue
        stored = {names[i]: values.flatten(1).cpu().numpy() for i, values in rows.slopes.items() if i in names}
        ends = zip(rows.index.tolist(), rows.sign.tolist(), strict=True)
        neurons.setdefault(names[rows.reader], []).extend(
            NeuronBound(j, int(sign), {name: values[n] for name, values in stored.items()})
            for n, (j, sign) in enumerate(ends)
        )
    return CaseSlopes(neurons)


def lost(claimed: Claimed, refusals: Mapping[str, CertificateRejected], budget: Budget) -> str | None:
    """Why a proof in real arithmetic does not hold for float32 executions; None if there is no such proof.

    refusals: of certificates for float32, by method.   Raises: ProofTooLarge; OutOfTime.
    """
    real = Claimed(claimed.graph, claimed.network, claimed.specification, claimed.outcomes)
    for method, refusal in refusals.items():
        try:
            report = check(certificate(real, method, budget), claimed.network, tick=_until(budget))
        except CertificateRejected:
            continue
        why = refusal.reason
        if isinstance(refusal, NotProved):
            penalty = report.margins[refusal.case][refusal.clause] - refusal.margin
            why = f"rounding may cost clause {refusal.clause} {penalty:.3g}, {-refusal.margin:.3g} more than it has"
        shown = f"proved in real arithmetic with margin {report.margin:.4g}, but not for float32 executions"
        return f"{shown}: {why}; semantics real certifies the former"
    return None

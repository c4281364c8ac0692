"""The path every request takes, in process or in a worker: model and specifications in, verdicts and certificates out.

A case that the float engine calls verified is believed only after the trusted kernel has re-proved it (`checked`),
or, for a network whose ops the kernel does not read, after a second run in float64 (`computed`).
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from provenn.api.proofs import BRANCHED, PROOFS, Claimed, OutOfTime, Proof, lost, proved
from provenn.api.results import Counterexample as Counterexample
from provenn.api.results import ItemResult as ItemResult
from provenn.models.limits import Limits
from provenn.models.onnx_bytes import decompressed
from provenn.models.parametrization import Parametrized
from provenn.models.reading import Executor, read_model
from provenn.solvers.attack import Replayed, replay
from provenn.solvers.base import Budget, Outcome, Problem, Progress, Result, Verdict, silent
from provenn.solvers.portfolio import BACKENDS, backend
from provenn.solvers.room import Room
from provenn.verifier.bounds.backward import crown
from provenn.verifier.bounds.interval import propagate
from provenn.verifier.certificate.trees import ProofTooLarge
from provenn.verifier.check import CertificateRejected, Network, read_network
from provenn.verifier.check.rows import Bounds, Box, Semantics
from provenn.verifier.check.specification import read_vnnlib
from provenn.verifier.errors import BackendError, Unbounded
from provenn.verifier.graph import Graph
from provenn.verifier.interval import Interval
from provenn.verifier.ops.base import Op
from provenn.verifier.ops.gate import Gate
from provenn.verifier.ops.steps import Step
from provenn.verifier.region import Region
from provenn.verifier.spec import Case, Specification

FAR = "onnxruntime's outputs are far from real arithmetic on the file's numbers"
RANDOM_POINTS = 16
CONSTRAINED = "the checker reads boxes and balls of inputs, not linear constraints over several inputs"
CONFIRMING_MARGIN, CONFIRMING_SHARE = 1e-6, 1e-10
"""What a float64 margin must exceed, itself and as a share of the largest bound of any value in the network, to be
called `computed` where no certificate can be made: above what float64 can lose on the way."""
TRIED = 32
"""Points of a case that the executor runs before anything is called `computed`."""

AGAIN = 0.5
"""Of the time that is left, for a search after a proof that failed: other specifications wait."""


@dataclass(frozen=True)
class Options:
    """How to certify: method name, wall-clock seconds for everything, torch device, seed, whether to make proofs.

    semantics: what a verified network keeps the specification in: real arithmetic, or every float32 execution, which
    only a certificate can prove. state: a file that keeps an unfinished search, and from which it goes on.
    """

    method: str = "auto"
    seconds: float = 60.0
    device: str = "cpu"
    seed: int = 0
    certificates: bool = True
    semantics: Semantics = "real"
    state: Path | None = None


@dataclass(frozen=True, eq=False)
class LoadedModel:
    """One uploaded file, as the engine, the executor and the trusted kernel read it, each for itself.

    network is None where the kernel refuses the file, or bounds no values of it (unless slopes were all that was asked
    for); `unreadable` says why. Where not `trusted`, the executor's outputs are far from real arithmetic, and nothing
    is called verified. sha256: of the (uncompressed) file.
    """

    graph: Graph
    executor: Executor
    network: Network | None
    unreadable: str | None = None
    trusted: bool = True
    sha256: str = ""


def load_model(data: bytes, slopes: bool = False, given: bytes | None = None) -> LoadedModel:
    """Reads a file three times, independently, and compares the readings at a random point.

    slopes: for Lipschitz claims: the kernel also reads functions of which it knows slopes alone, and implicit layers,
    and compares where it has intervals. given: the network that the file is composed with, if it begins with a layer of
    parameters: what is executed is that network, at the inputs that the layer makes.
    Raises: InvalidModel, UnsupportedOp, ResourceLimit.
    """
    model = _read_thrice(data, slopes)
    executor = Parametrized.of(data, given)
    return model if executor is None else replace(model, executor=executor)


def _read_thrice(data: bytes, slopes: bool) -> LoadedModel:
    graph, executor = read_model(data)
    digest = hashlib.sha256(decompressed(data, Limits())).hexdigest()
    x, exact = _random_point(graph)
    computed = executor.run(x).astype(np.float64).ravel()
    if not _near(computed, exact, exact):
        return LoadedModel(graph, executor, None, FAR, trusted=False, sha256=digest)
    point = x.astype(np.float64).ravel()
    network: Network | None = None
    try:
        network = read_network(data, slopes)
        box = Bounds(network, Box(point, point)).box(network.output)
    except CertificateRejected as refusal:
        return LoadedModel(graph, executor, network if slopes else None, refusal.reason, sha256=digest)
    if not _near(computed, box.lower, box.upper):
        return LoadedModel(graph, executor, None, FAR, trusted=False, sha256=digest)
    return LoadedModel(graph, executor, network, sha256=digest)


def _random_point(graph: Graph) -> tuple[np.ndarray, np.ndarray]:
    """A float32 input [1, *input] and the network's outputs there; the first of some where those are numbers.

    A logarithm or a root makes most points of a network senseless, often all that have negative coordinates.
    """
    generator = np.random.default_rng(0)
    for number in range(RANDOM_POINTS):
        lowest = 0.0 if number % 2 else -1.0
        x = generator.uniform(lowest, 1, (1, *graph.input_shape)).astype(np.float32)
        exact = graph.forward(torch.from_numpy(x).double()).numpy().ravel()
        if np.isfinite(exact).all():
            break
    return x, exact


def _near(computed: np.ndarray, lower: np.ndarray, upper: np.ndarray) -> bool:
    """Whether computed outputs lie in the interval, or within 1e-3 of the largest output from it.

    A guard against a file that two readers read differently, and against networks whose rounding errors matter more
    than that: for neither is a proof in real arithmetic worth its name.
    """
    if computed.shape != lower.shape or not (np.isfinite(computed).all() and np.isfinite(lower).all()):
        return False
    slack = 1e-3 * (1 + np.abs(computed).max())
    return bool(((lower - slack <= computed) & (computed <= upper + slack)).all())


def certify(
    model: LoadedModel, specifications: Sequence[Specification], options: Options, progress: Progress = silent
) -> list[ItemResult]:
    """One result a specification, all bounded together; one that allows no input is verified without that.

    Raises: InvalidSpecification if one does not fit the network; BackendError for an unknown method or device.
    """
    inputs, outputs = (torch.Size(s).numel() for s in (model.graph.input_shape, model.graph.output_shape))
    for specification in specifications:
        specification.require_fits(inputs, outputs)
    budget = Budget(options.seconds)
    problem = Problem(
        model.graph,
        [case for s in specifications for case in s.cases],
        model.executor,
        require_device(options.device),
        seed=options.seed,
        state=options.state,
    )
    chosen = backend(options.method)
    result = chosen.solve(problem, budget, progress) if problem.cases else Result(())
    items, start = [], 0
    for done, specification in enumerate(specifications):
        if not specification.cases:
            items.append(_vacuous(specification, options))
            continue
        outcomes = result.outcomes[start : start + len(specification.cases)]
        start += len(specification.cases)
        item = replace(combined(outcomes), stats=result.stats, semantics=options.semantics)
        item = replace(item, warnings=specification.warnings)
        if item.verdict == Verdict.VERIFIED:
            part = replace(problem, cases=specification.cases)
            item = _confirmed(model, specification, (item, outcomes), part, budget, options)
            progress(done + 1, len(specifications), "certificate")
        items.append(_seen(model.executor, item))
    return items


def _seen(executor: Executor, item: ItemResult) -> ItemResult:
    """Of a counterexample in parameters also the input of the given network that they make."""
    found = item.counterexample
    if found is None or not isinstance(executor, Parametrized):
        return item
    point = np.array(found.input, np.float32).reshape(1, *executor.input_shape)
    return replace(item, counterexample=replace(found, original=executor.image(point).ravel().tolist()))


def require_device(name: str) -> str:
    """`name` if torch can compute there.   Raises: BackendError saying what is available."""
    known = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
    if name.split(":")[0] not in known:
        raise BackendError(name, f"this device is not available here; available: {', '.join(known)}")
    return name


def _vacuous(specification: Specification, options: Options) -> ItemResult:
    """Verified: no input is allowed, exactly; unless the kernel's own reading of the text says that some are."""
    reason = f"vacuously true: {'; '.join(specification.warnings)}"
    item = ItemResult(str(Verdict.VERIFIED), "none", None, 0.0, "vacuous", reason, semantics=options.semantics)
    try:
        disputed = bool(read_vnnlib(specification.text))
    except CertificateRejected:  # a form or a constraint that the kernel does not read: then it says nothing
        disputed = False
    if disputed:
        reason = f"the trusted checker finds inputs where the search finds none: {reason}"
        return replace(item, verdict=str(Verdict.UNKNOWN), assurance=None, reason=reason)
    return replace(item, warnings=(reason,))


def combined(outcomes: Sequence[Outcome]) -> ItemResult:
    """A specification is falsified by one case and verified by all; its margin is the smallest."""
    verdicts = {o.verdict for o in outcomes}
    order = (Verdict.FALSIFIED, Verdict.TIMEOUT, Verdict.UNKNOWN)
    verdict = next((v for v in order if v in verdicts), Verdict.VERIFIED)
    deciding = [o for o in outcomes if o.verdict == verdict]
    margin = min(o.margin for o in outcomes)
    method = max((o.method for o in deciding), key=list(BACKENDS).index)
    witness = next((o for o in outcomes if o.witness is not None), None)
    return ItemResult(
        verdict=str(verdict),
        method=method,
        margin=margin if np.isfinite(margin) else None,
        seconds=sum(o.seconds for o in outcomes),
        assurance="replayed" if witness else None,
        reason=next((o.reason for o in deciding if o.reason), None),
        counterexample=_counterexample(witness) if witness else None,
    )


def _counterexample(outcome: Outcome) -> Counterexample:
    assert outcome.witness is not None
    assert outcome.output is not None
    return Counterexample(outcome.witness.ravel().tolist(), outcome.output.ravel().tolist())


def _confirmed(
    model: LoadedModel,
    specification: Specification,
    found: tuple[ItemResult, Sequence[Outcome]],
    problem: Problem,
    budget: Budget,
    options: Options,
) -> ItemResult:
    """The item with its certificate, or a weaker verdict with the reason."""
    item, outcomes = found
    if budget.left <= 0:
        return replace(item, verdict=str(Verdict.TIMEOUT), reason="the time ended before the proof was made")
    if not model.trusted:
        return replace(item, verdict=str(Verdict.UNKNOWN), reason=FAR)
    start = time.monotonic()
    why = _why_not(model, specification, item, options)
    if options.semantics == "float32" and why is not None:
        reason = f"only a certificate proves float32 executions, and there is none: {why}"
        confirmed = replace(item, verdict=str(Verdict.UNKNOWN), reason=reason)
    elif model.network is None or why is not None:
        confirmed = _computed(problem, item, budget, why)
    else:
        claimed = Claimed(model.graph, model.network, specification, outcomes, options.semantics)
        confirmed = _checked(claimed, item, problem, options, budget)
    return replace(confirmed, seconds=item.seconds + time.monotonic() - start)


def _why_not(model: LoadedModel, specification: Specification, item: ItemResult, options: Options) -> str | None:
    """Why there can be no certificate, or None."""
    if model.network is None:
        return model.unreadable
    if any(case.inputs.constraints for case in specification.cases):
        return CONSTRAINED
    if not options.certificates:
        return "no certificate was asked for"
    return None if BACKENDS[item.method].certificate else f"method {item.method} makes no certificates"


def _checked(claimed: Claimed, item: ItemResult, problem: Problem, options: Options, budget: Budget) -> ItemResult:
    """The item with its certificate; where `auto` chose a method whose proof fails, with that of a stronger one.

    Branch and bound that rigor does not confirm is searched again in float64, in the time that is left.
    """
    methods: Sequence[str] = [BACKENDS[item.method].certificate or ""]
    if options.method == "auto" and methods[0] in PROOFS:
        methods = PROOFS[PROOFS.index(methods[0]) :]
    try:
        found = proved(claimed, methods, budget)
        if isinstance(found, Proof):
            spent = {"proof_seconds": found.making, "check_seconds": found.checking}
            sure = replace(item, margin=found.report.margin, assurance=found.report.assurance, certificate=found.files)
            return replace(sure, stats=item.stats | spent)
        reason = lost(claimed, found, budget) if options.semantics == "float32" else None
        reason = reason or f"bounded in floating point, but not proved: {list(found.values())[-1]}"
    except (ProofTooLarge, OutOfTime) as limit:
        reason = str(limit)
    if budget.left <= 0:
        return replace(item, verdict=str(Verdict.TIMEOUT), reason=reason)
    if item.method == BRANCHED and options.semantics == "real":
        return _computed(problem, item, budget, reason)
    if item.method != BRANCHED and options.method == "auto":
        return _searched(claimed, replace(item, reason=reason), problem, options, budget)
    return replace(item, verdict=str(Verdict.UNKNOWN), reason=reason)


def _searched(claimed: Claimed, item: ItemResult, problem: Problem, options: Options, budget: Budget) -> ItemResult:
    """What branch and bound makes of an item whose proof failed; that item, unknown, where it is not decided."""
    result = backend(BRANCHED).solve(problem, Budget(AGAIN * budget.left))
    found = replace(combined(result.outcomes), stats=item.stats | result.stats)
    found = replace(found, semantics=item.semantics, warnings=item.warnings)
    if found.verdict == Verdict.VERIFIED:
        found = _checked(replace(claimed, outcomes=result.outcomes), found, problem, options, budget)
    decided = found.certificate is not None or found.verdict == Verdict.FALSIFIED
    return found if decided else replace(item, verdict=str(Verdict.UNKNOWN))


def _computed(problem: Problem, item: ItemResult, budget: Budget, why: str | None) -> ItemResult:
    """Bounded again in float64, and tried at points of every case: the executor may know better."""
    found = next((hit for case in problem.cases if (hit := _tried(problem, case)) is not None), None)
    if found is not None:
        shown = Counterexample(found.witness.ravel().tolist(), found.output.ravel().tolist())
        return replace(item, verdict=str(Verdict.FALSIFIED), assurance="replayed", counterexample=shown)
    again = replace(problem, dtype=torch.float64, state=None)
    lost = CONFIRMING_SHARE * _largest(again)
    again = replace(again, graph=_loosened(problem.graph, lost))
    margin = min(o.margin for o in backend(item.method).solve(again, budget).outcomes)
    if margin > max(CONFIRMING_MARGIN, lost):
        return replace(item, margin=margin, assurance="computed", reason=f"floating point only: {why}")
    return replace(item, verdict=str(Verdict.UNKNOWN), reason="bounded in float32, but not confirmed in float64")


def _loosened(graph: Graph, slack: float) -> Graph:
    """The same network, which holds its jumps to be this near: what passes one by a rounding is off by all of it."""
    return Graph(tuple(node if node.op is None else replace(node, op=_loose(node.op, slack)) for node in graph.nodes))


def _loose(op: Op, slack: float) -> Op:
    if isinstance(op, Step):
        return replace(op, slack=slack)
    return replace(op, slack=slack) if isinstance(op, Gate) else op


def _every_bound(graph: Graph, region: Region) -> list[Interval]:
    try:
        return propagate(graph, region.box)
    except Unbounded:
        with torch.no_grad():
            return crown(graph, region).bounds


def _tried(problem: Problem, case: Case) -> Replayed | None:
    """A counterexample among the centre, corners and random points of a case's box, moved into its input set."""
    assert problem.executor is not None
    unit = np.random.default_rng(problem.seed).random((TRIED, len(case.inputs.lower)))
    unit[0], unit[1 : TRIED // 2] = 0.5, unit[1 : TRIED // 2].round()
    points = case.inputs.lower + unit * (case.inputs.upper - case.inputs.lower)
    shaped = torch.as_tensor(points.astype(np.float32)).reshape(-1, *problem.graph.input_shape)
    every = torch.zeros(TRIED, dtype=torch.long)
    region = Region.of([case.inputs], problem.graph.input_shape, "cpu", torch.float32).select(every)
    return replay(problem.executor, case, Room.of([case] * TRIED, region).project(shaped).numpy())


def _largest(problem: Problem) -> float:
    """The largest absolute value that interval bounds allow anywhere in the network, in any case.

    Where they allow anything, because a function may leave its domain, CROWN's take their place.   Raises: Unbounded.
    """
    regions = [Region.of([case.inputs], problem.graph.input_shape, "cpu", torch.float64) for case in problem.cases]
    bounds = (bound for region in regions for bound in _every_bound(problem.graph, region))
    return max(float(torch.maximum(b.lower.abs(), b.upper.abs()).max()) for b in bounds)

"""The path every Lipschitz request takes, in process or in a worker: a question in, a proved number out.

A solver's number is only where the proof begins. What is said is what the trusted kernel has proved, twice: once to
find the least number that it accepts, once more from the finished certificate (`checked`). Without that there is none.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import fsum, prod

import torch

from provenn.api import lipschitz_jacobian
from provenn.api.certification import load_model
from provenn.api.lipschitz_channels import proofs, wanted
from provenn.api.lipschitz_lower import Lower
from provenn.api.lipschitz_question import Question
from provenn.api.lipschitz_rows import RowGroup
from provenn.api.proofs import OutOfTime
from provenn.api.results import LipschitzResult as LipschitzResult
from provenn.api.timing import Clock, overdue
from provenn.solvers.base import Budget, Phase, Progress, Verdict, silent
from provenn.solvers.lipsdp import conic, methods
from provenn.solvers.lipsdp.layout import METHOD
from provenn.solvers.lipsdp.task import Point, Task
from provenn.verifier.bounds.interval import propagate
from provenn.verifier.bounds.quadratic import Program, read
from provenn.verifier.certificate.lipschitz import Proved, Prover, Statement
from provenn.verifier.check import CertificateRejected, Network, check
from provenn.verifier.errors import BackendError, InvalidModel, Unbounded
from provenn.verifier.graph import Graph
from provenn.verifier.interval import Interval
from provenn.verifier.ops.implicit import Implicit
from provenn.verifier.region import Region
from provenn.verifier.version import provenn_version

METHODS = methods.METHODS | lipschitz_jacobian.NAMED
"""What `--method` may name, and what it says."""

CLOSED = ("norm-product", "eclipse-fast")
"""Methods that take milliseconds and end."""

PROOFS = 4.0
"""Time that is kept for proving and checking every group, in units of the first proof's."""

PROOF_CUBIC = 4.5e-11
"""Seconds of a proof by multipliers over the cube of the coordinates, on one core: where it would not end in time
`auto` leaves it at bounds of the Jacobian."""

SEARCH, SEARCH_SHARE = 1.0, 0.1
"""Seconds for the bound from below, and the largest share of all seconds that it takes."""

POSED = "no multipliers were found that prove that the implicit layer has one fixed point for every input"
LARGE = "no valid multipliers were found: the network's gains may be beyond what float64 holds"
INTERRUPTED = "interrupted: more time may find a smaller bound"


class Contradiction(RuntimeError):
    """A proved bound says otherwise than inputs show: our mistake, and a grave one."""


@dataclass(frozen=True)
class Options:
    """How to bound: method and, for lipsdp-conic, solver name; wall-clock seconds for everything; seed of the search.

    Raises: BackendError for an unknown method or solver, or one that is not available.
    """

    method: str = "auto"
    solver: str | None = None
    seconds: float = 60.0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise BackendError(self.method, f"no such method; there are {', '.join(METHODS)}")
        if self.solver is not None and self.method != "lipsdp-conic":
            raise BackendError(self.method, "it takes no solver: that is for lipsdp-conic")
        if self.method == "lipsdp-conic" and (status := conic.availability(self.conic)) != "available":
            raise BackendError(f"lipsdp-conic, {self.conic}", status)

    @property
    def conic(self) -> str:
        """The solver of lipsdp-conic."""
        return self.solver or "clarabel"


@dataclass(frozen=True, eq=False)
class Readings:
    """One file as the search and the kernel read it; network None, and why, where there can be no proof."""

    graph: Graph
    network: Network | None
    unreadable: str | None = None

    @property
    def implicit(self) -> bool:
        """Whether there are implicit layers."""
        return any(isinstance(node.op, Implicit) for node in self.graph.nodes)


def load(data: bytes) -> Readings:
    """Reads a file, ONNX or with implicit layers; one whose layers have no solution is read, and never proved.

    Raises: InvalidModel, UnsupportedOp, ResourceLimit.
    """
    from provenn.models.reading import read as read_graph

    try:
        model = load_model(data, slopes=True)
    except InvalidModel as error:
        found = Readings(read_graph(data), None, str(error))
        if found.implicit:
            return found
        raise
    return Readings(model.graph, model.network, model.unreadable if model.network is None else None)


def bound(model: Readings, question: Question, options: Options, progress: Progress = silent) -> LipschitzResult:
    """The least number that the method finds in the time and the kernel proves. Ctrl-C ends the search, not the proof.

    Raises: InvalidSpecification for a question that does not fit; UnsupportedOp naming the node without finite slopes;
    BackendError where the method does not take the network; ResourceLimit; Contradiction.
    """
    sizes = prod(model.graph.input_shape), prod(model.graph.output_shape)
    return bound_statement(model, question, question.statement(*sizes), options, progress)


def bound_statement(
    model: Readings, question: Question, statement: Statement, options: Options, progress: Progress = silent
) -> LipschitzResult:
    """As `bound`, for the rows of a statement."""
    run = _Run(model, question, statement, options, progress)
    try:
        return run.answer()
    except CertificateRejected as refusal:
        return run.nothing(Verdict.UNKNOWN, f"not proved: {refusal.reason}")
    except OutOfTime as end:
        return run.nothing(Verdict.TIMEOUT, str(end))


class _Run:
    """One question, from the first closed form to the checked certificate."""

    def __init__(
        self, model: Readings, question: Question, statement: Statement, options: Options, progress: Progress
    ) -> None:
        self.model, self.question, self.statement, self.options = model, question, statement, options
        self.progress, self.budget = progress, Budget(options.seconds)
        self.groups: list[RowGroup] = []
        self.stats: dict[str, float] = {}
        self.interrupted = False
        self.methods: list[str] = []
        self.lowers: list[float] = []

    def answer(self) -> LipschitzResult:
        """Raises: CertificateRejected, OutOfTime, where there is nothing to say."""
        network = self.model.network
        if network is None:
            self._require_slopes()
            return self.nothing(Verdict.UNKNOWN, f"no proof is possible: {self.model.unreadable}", self.model.implicit)
        graph, region, method = self.model.graph, self._region(), self.options.method
        own = lipschitz_jacobian.own_slopes(network, graph, region, method, self.budget)
        prover = Prover(network, self.statement, self._tick, own)
        if wanted(prover, method):
            found = self._channels(prover)
            return self._sealed(prover, network, found) if found else self.nothing(Verdict.UNKNOWN, LARGE)
        local = lipschitz_jacobian.Local(prover, self.budget, self.progress)
        enough = self._locally(local)
        if local.proved and (enough or not self._affordable(prover)):
            self.methods = local.methods if method == "auto" else [method]
            return self._sealed(prover, network, local.proved)
        if not self._begin(self._program(prover.boxes(graph)), local.known):
            reason = POSED if self.model.implicit else LARGE
            return self.nothing(Verdict.UNKNOWN, reason, self.model.implicit)
        start = time.monotonic()
        self._proved(prover, self.groups[0])
        reserve = (time.monotonic() - start) * PROOFS * len(self.groups) + self._search_seconds
        try:
            self._improve(reserve)
        except KeyboardInterrupt:
            self.interrupted = True
        proved: list[Proved] = []
        with self._timed("proof_seconds"):
            for number, group in enumerate(self.groups):
                self.progress(number, len(self.groups), "proof")
                proved.append(self._proved(prover, group))
        return self._sealed(prover, network, proved)

    def _locally(self, local: lipschitz_jacobian.Local) -> bool:
        """Bounds of the Jacobian, where the method has some; whether they are all that is asked for, or exact."""
        method, euclidean = self.options.method, self.statement.norm == "2"
        only = method in lipschitz_jacobian.METHODS or (method == "auto" and local.columns)
        if not only and (method != "auto" or (euclidean and self.question.region is None)):
            return False
        with self._timed("proof_seconds"):
            if method != "auto":
                local.bound(method)
            else:
                last = local.columns or not (euclidean or self._affordable(local.prover))
                if not local.bound_in(lipschitz_jacobian.ALONE if last else lipschitz_jacobian.SHARE):
                    return False
        if method != "bab" and not (method == "auto" and local.divisible):
            return only
        lowers = self._lowers()
        share = lipschitz_jacobian.LEFT if only else lipschitz_jacobian.BRANCHING
        try:
            with self._timed("branch_seconds"):
                done, points = local.branch(lowers, share)
        except BackendError:
            if method == "bab":
                raise
            return only
        if points:
            self.lowers = list(map(max, lowers, self._lower.beside(points)))
        return done or only

    def _affordable(self, prover: Prover) -> bool:
        """Whether proofs by multipliers would end in the time."""
        try:
            size: int = prover.units.increments.end
        except CertificateRejected:
            return False
        return PROOFS * PROOF_CUBIC * size**3 * len(self.statement.groups) <= self.budget.left

    def _sealed(self, prover: Prover, network: Network, proved: Sequence[Proved]) -> LipschitzResult:
        """The certificate, checked again, and the bound from below."""
        files = prover.bundle(proved, {"provenn": provenn_version(), "torch": torch.__version__})
        with self._timed("check_seconds"):
            uppers = check(files, network, tick=self._tick).uppers
        return self._verified(uppers, files, prover.well_posed)

    def _channels(self, prover: Prover) -> list[Proved] | None:
        """Frequency by frequency."""
        self.stats |= {"coordinates": prover.units.increments.end, "groups": len(self.statement.groups)}
        self.methods = [METHOD]
        with self._timed("solve_seconds"):
            return proofs(self.model.graph, prover, self.budget.left - self._search_seconds, self.progress)

    def nothing(self, verdict: Verdict, reason: str, ill_posed: bool = False) -> LipschitzResult:
        """The result without a number; ill_posed: because implicit layers may not have one fixed point."""
        about, posed = self._about(str(verdict)), False if ill_posed else None
        return LipschitzResult(**about, well_posed=posed, reason=reason, stats=self.stats)  # type: ignore[arg-type]

    def _about(self, verdict: str) -> dict[str, str | float]:
        groups = sorted(self.groups, key=lambda group: -group.value)[: 1 if self.statement.output == "inf" else None]
        named = dict.fromkeys([*self.methods, *(group.method for group in groups if group.method)])
        method = ", ".join(named) or self.options.method
        seconds = self.options.seconds - self.budget.left
        asked = self.question
        about = {"norm": asked.norm, "output_norm": asked.outward, "rows": asked.rows}
        return {"verdict": verdict, "method": method, "seconds": seconds, **about}

    def _verified(self, uppers: Sequence[float], files: dict[str, bytes], posed: bool) -> LipschitzResult:
        each = self.statement.output == "each"
        lowers = self._lowers()
        for upper, lower in zip(uppers, lowers, strict=True):
            if lower > upper:
                raise Contradiction(f"the proved bound {upper!r} is below {lower!r}, which a pair of inputs shows")
        reason = INTERRUPTED if self.interrupted else None
        return LipschitzResult(
            **self._about(str(Verdict.VERIFIED)),  # type: ignore[arg-type]
            upper=list(uppers) if each else uppers[0],
            lower=lowers if each else lowers[0],
            gap=self._gap(uppers),
            assurance="checked",
            certificate=files,
            well_posed=True if posed else None,
            reason=reason,
            stats=self.stats,
        )

    def _gap(self, uppers: Sequence[float]) -> float | None:
        if not self.groups:
            return None
        least = [group.least for group in self.groups]
        match self.statement.output:
            case "inf":
                pairs = [(max(least), uppers[0])]
            case "1":
                pairs = [(fsum(least) if all(least) else 0.0, uppers[0])]
            case _:
                pairs = list(zip(least, uppers, strict=True))
        if not all(low > 0 for low, _ in pairs):
            return None
        return max(max(0.0, 1 - low / upper) for low, upper in pairs)

    def _program(self, boxes: dict[int, Interval]) -> Program:
        graph, scale = self.model.graph, self.statement.scale
        outputs = torch.eye(prod(graph.output_shape), dtype=torch.float64)
        weights = None if scale is None else torch.tensor(scale, dtype=torch.float64)
        return read(graph, outputs, weights, boxes)

    def _require_slopes(self) -> None:
        """Raises: UnsupportedOp where increments have no rule, whether or not the kernel reads the file."""
        boxes: dict[int, Interval] = {}
        region = self._region()
        try:
            if region is not None:
                boxes = dict(enumerate(propagate(self.model.graph, region.box)))
        except Unbounded:
            return
        self._program(boxes)

    def _region(self) -> Region | None:
        around = self.question.region
        if around is None:
            return None
        return Region.of([around.inputs()], self.model.graph.input_shape, "cpu", torch.float64)

    def _begin(self, program: Program, known: Mapping[tuple[int, ...], Proved]) -> bool:
        """Makes the groups, each with a closed form; False if one has none."""
        shared = self.options.method == "lipsdp-layer"
        self.stats |= {"coordinates": program.size, "units": sum(program.sizes[1:]), "groups": 0}
        with self._timed("solve_seconds"):
            for rows in self.statement.groups:
                chosen = torch.tensor([self.statement.rows[i] for i in rows], dtype=torch.float64)
                output = {k: chosen @ matrix for k, matrix in program.output.items()}
                task = Task(program.with_output(output), "inf" if self.statement.norm == "inf" else "2", shared)
                group = RowGroup(rows, task, jacobian=known.get(tuple(rows)))
                self.groups.append(group)
                self._tick()
                self.progress(len(self.groups) - 1, len(self.statement.groups), "closed forms")
                if not self._first(group):
                    return False
        self.stats["groups"] = len(self.groups)
        return True

    def _first(self, group: RowGroup) -> bool:
        group.first, group.method = methods.closed_form(group.task, self.options.method)
        group.point = group.first
        return group.point is not None

    def _improve(self, reserve: float) -> None:
        """Group after group, the largest first and longest; of a maximum only those that may decide it.

        Where a share of the time was too short for any step, fewer groups share what is left.
        """
        if self.options.method in CLOSED:
            return
        rest = sorted(self.groups, key=lambda group: -group.value)
        largest = 0.0
        with self._timed("solve_seconds"):
            while rest and (left := self.budget.left - reserve) > 0:
                group, *rest = rest
                if self.statement.output == "inf" and group.value <= largest:
                    break
                share = group.value / (fsum(other.value for other in rest) + group.value or 1.0)
                before = group.value
                self._solve(group, left * share)
                largest = max(largest, group.value)
                if rest and group.value == before and not group.least:
                    rest = [group, *rest[: len(rest) // 2]]

    def _solve(self, group: RowGroup, seconds: float) -> None:
        method, calls, found = self.options.method, 0, group.point
        assert found is not None
        name = method if method == "lipsdp-layer" else "lipsdp-neuron"

        def watch(point: Point) -> None:
            nonlocal calls
            calls += 1
            group.found(point, name if calls > 1 else group.method)
            value = self._value()
            words = Phase(f"{name}: at most about {value:.6g}", value)
            self.progress(self.groups.index(group), len(self.groups), words)

        start = (found, group.method)
        solved = methods.solve(group.task, method, Budget(seconds), watch, self.options.conic, start)
        if solved is not None:
            group.found(solved.point, solved.method)
            if method == "lipsdp-conic" and group.method == name:
                group.method = solved.method

    def _value(self) -> float:
        """What the groups' points are about, together."""
        values = [group.value for group in self.groups]
        return fsum(values) if self.statement.output == "1" else max(values)

    def _proved(self, prover: Prover, group: RowGroup) -> Proved:
        """From the best point, or else from the closed form; or what bounds of the Jacobian prove, if that is less.

        Raises: CertificateRejected if nothing is proved.
        """
        for point in (group.point, group.first):
            assert point is not None
            values = (point.metric.numpy(), point.multipliers.numpy())
            if (found := prover.least(group.rows, group.task.program, values)) is not None:
                if group.jacobian is None or found.upper < group.jacobian.upper:
                    return found
                break
        if group.jacobian is not None:
            group.method = lipschitz_jacobian.method_name(group.jacobian)
            return group.jacobian
        raise CertificateRejected("lipschitz", "rounding outweighs what the multipliers found have to spare")

    @property
    def _search_seconds(self) -> float:
        return min(SEARCH, SEARCH_SHARE * self.options.seconds)

    @property
    def _lower(self) -> Lower:
        return Lower(self.model.graph, self.statement, self._region(), self.options.seed, self.progress)

    def _lowers(self) -> list[float]:
        """By search: one number, or one a row; once."""
        if not self.lowers:
            with self._timed("search_seconds"):
                self.lowers = self._lower.searched(max(0.0, min(self._search_seconds, self.budget.left)))
        return self.lowers

    def _tick(self) -> None:
        if overdue(self.budget):
            raise OutOfTime

    def _timed(self, name: str) -> Clock:
        return Clock(self.stats, name)

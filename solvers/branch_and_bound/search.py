"""Branch and bound as a backend: the parts of every case, worst bound first, until none is open or the time is over."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

from provenn.solvers.ascent import polish
from provenn.solvers.attack import Replayed, replay
from provenn.solvers.base import Backend, Budget, Outcome, Problem, Progress, Result, Verdict, silent
from provenn.solvers.branch_and_bound.input_split import InputSplit
from provenn.solvers.branch_and_bound.neuron_split import NeuronSplit
from provenn.solvers.branch_and_bound.queue import MEMORY, Queue
from provenn.solvers.branch_and_bound.record import Record
from provenn.solvers.branch_and_bound.rooted import Root
from provenn.solvers.branch_and_bound.space import Expanded, Space
from provenn.solvers.branch_and_bound.state import State, key_of
from provenn.solvers.goal import Goal
from provenn.solvers.packing import Packed, pack
from provenn.solvers.room import Room
from provenn.verifier.errors import BackendError, Unbounded
from provenn.verifier.graph import Graph
from provenn.verifier.spec import Case

FEW_INPUTS = 8
"""Inputs of some width up to which the input is split rather than neurons."""

PATIENCE, LEAST = 0.3, 0.05
"""After this share of its time a way of splitting that has decided less than that share of the region gives way."""

STEPS = 2
"""Of the attack inside parts, from where their bounds are worst."""

REPLAYED = 8
"""Points of one step that the executor runs at most: the first ones are the best."""


@dataclass(eq=False)
class Tally:
    """What the search of one case did."""

    domains: int = 0
    discarded: int = 0
    stuck: int = 0
    closed: float = 0.0


@dataclass(frozen=True)
class BranchAndBound(Backend):
    """Splits the input where it has few coordinates, else arguments of nonlinear ops; complete for both given time.

    split: "input" (of boxes only), "neuron", or "auto", which changes over when little has been decided. memory: MiB of
    open parts before some go to disk.
    """

    split: str = "auto"
    memory: float = MEMORY

    name = "branch-and-bound"
    summary = "splits inputs or neurons until every part is proved (CROWN, beta-CROWN) or a counterexample is found"
    verdicts = frozenset(Verdict)
    certificate = "branch-and-bound"

    def solve(self, problem: Problem, budget: Budget, progress: Progress = silent) -> Result:
        """One case after another, each with an equal share of the time that is left.

        Verified where every part is proved; falsified where the executor confirms an unsafe point; else unknown or
        timeout, the margin being the smallest bound of any open part.   Source: Bunel et al. 2020, Wang et al. 2021.
        """
        graph = problem.graph.to(problem.device, problem.dtype)
        began, outcomes, stats = time.monotonic(), [], {"domains": 0.0, "discarded": 0.0}
        for number, case in enumerate(problem.cases):
            share = Budget(max(budget.left, 0) / (len(problem.cases) - number))
            search = _Search(self, problem, graph, case, share, _numbered(problem, number))
            outcome, tally = search.run(progress, (number, len(problem.cases)))
            outcomes.append(outcome)
            stats["domains"] += tally.domains
            stats["discarded"] += tally.discarded
            progress(number + 1, len(problem.cases), self.name)
        stats = {f"{self.name}_{key}": value for key, value in stats.items()}
        return Result(tuple(outcomes), stats | {f"{self.name}_seconds": time.monotonic() - began})


def _numbered(problem: Problem, number: int) -> Path | None:
    """The file of one case."""
    if problem.state is None or len(problem.cases) == 1:
        return problem.state
    return problem.state.with_name(f"{problem.state.name}.{number}")


@dataclass(eq=False)
class _Search:
    """One case."""

    backend: BranchAndBound
    problem: Problem
    graph: Graph
    case: Case
    budget: Budget
    state: Path | None
    tally: Tally = field(default_factory=Tally)
    whole: bool = True
    trouble: str | None = None

    def run(self, progress: Progress, place: tuple[int, int]) -> tuple[Outcome, Tally]:
        """The outcome, and what was done for it."""
        start = time.monotonic()
        packed = pack(self.graph, [self.case], self.problem.device, self.problem.dtype)
        if not (packed.matrix.isfinite().all() and packed.bound.isfinite().all()):
            reason = f"the specification has numbers beyond the range of {self.problem.dtype}"
            return Outcome(Verdict.UNKNOWN, -float("inf"), self.backend.name, reason=reason), self.tally
        try:
            with torch.no_grad():
                outcome = self._decided(packed, lambda: progress(*place, self._line()))
        except Unbounded as error:
            outcome = Outcome(Verdict.UNKNOWN, -float("inf"), self.backend.name, reason=str(error))
        outcome = replace(outcome, seconds=time.monotonic() - start, reason=outcome.reason or self.trouble)
        return outcome, self.tally

    def _line(self) -> str:
        return f"{self.backend.name}: {self.tally.domains} parts, {self.tally.closed:.1%} decided"

    def _over(self) -> bool:
        return self.budget.left <= 0

    def _decided(self, packed: Packed, report: Callable[[], None]) -> Outcome:
        """By the first way of splitting that decides the case, or as far as the last one got."""
        outcome = Outcome(Verdict.TIMEOUT, -float("inf"), self.backend.name)
        saved = self._saved()
        ways = self._ways() if saved is None else [saved.way]
        for number, way in enumerate(ways):
            rest = Budget(self.budget.left * PATIENCE) if number + 1 < len(ways) else None
            space = self._space(way, packed, Record() if saved is None else saved.record)
            outcome = self._split((way, space, saved), packed, rest, report)
            if outcome.verdict in (Verdict.VERIFIED, Verdict.FALSIFIED) or self._over():
                break
        return outcome

    def _ways(self) -> list[str]:
        """Ways of splitting, the likeliest first; only boxes are cut: beside a ball or constraint one may be empty."""
        if self.case.inputs.ball is not None or self.case.inputs.constraints:
            return ["neuron"]
        if self.backend.split != "auto":
            return [self.backend.split]
        few = int((self.case.inputs.lower < self.case.inputs.upper).sum()) <= FEW_INPUTS
        return ["input", "neuron"] if few else ["neuron"]

    def _space(self, way: str, packed: Packed, record: Record) -> Space:
        if way == "input":
            return InputSplit(self.graph, packed, record)
        return NeuronSplit(self.graph, packed, record, Root.of(self.graph, packed, self._over))

    def _split(
        self, chosen: tuple[str, Space, State | None], packed: Packed, rest: Budget | None, report: Callable[[], None]
    ) -> Outcome:
        """Expands parts, worst bound first, until none is left, a point is confirmed, or time or patience end.

        rest: how long patience lasts. However it ends, what is open is saved.
        """
        way, space, saved = chosen
        tally, name = self.tally, self.backend.name
        with Queue(self.backend.memory) as queue:
            found = self._begun(space, queue, packed, saved)
            try:
                while found is None and len(queue):
                    if self._over() or (rest is not None and rest.left <= 0 and tally.closed < LEAST):
                        break
                    found = self._step(space, queue, packed)
                    report()
            finally:
                bound, left = min(queue.lowest, 0.0), len(queue)
                self._save(way, space, queue, found)
        if found is not None:
            return Outcome(Verdict.FALSIFIED, -float("inf"), name, witness=found.witness, output=found.output)
        if not left and not tally.stuck and space.decided(tally.closed):
            return Outcome(Verdict.VERIFIED, space.least, name, proof=space.proof())
        return Outcome(Verdict.TIMEOUT if self._over() else Verdict.UNKNOWN, bound, name)

    def _step(self, space: Space, queue: Queue, packed: Packed) -> Replayed | None:
        """Expands the worst parts; if that is interrupted, they are open as before."""
        parts, mark, whole = queue.pop(space.batch), space.record.mark(), False
        self.whole = False
        try:
            found = self._taken(space.expand(parts, self._over), queue, packed)
            whole = True
        finally:
            if not whole:
                space.record.back_to(mark)
                queue.push(parts)
            self.whole = True
        self.tally.domains += len(parts)
        return found

    def _begun(self, space: Space, queue: Queue, packed: Packed, saved: State | None) -> Replayed | None:
        """The whole region, or what was open when the search was saved."""
        tally = self.tally
        tally.closed, tally.stuck = 0.0, 0
        if saved is None:
            return self._taken(space.start(self._over), queue, packed)
        tally.closed, tally.domains, tally.stuck, space.least = saved.counts
        queue.push(saved.open)
        return None

    def _saved(self) -> State | None:
        """What the file holds, if it is there.   Raises: BackendError if it is of another case, or cannot be there."""
        if self.state is not None and not self.state.parent.is_dir():
            raise BackendError(self.backend.name, f"there is no folder {self.state.parent} to keep the search in")
        if self.state is None or not self.state.exists():
            return None
        return State.load(self.state, key_of(self.graph, self.case, self.problem.dtype), self.problem.device)

    def _save(self, way: str, space: Space, queue: Queue, found: Replayed | None) -> None:
        """Puts an undecided search into its file, and removes that of a decided one."""
        if self.state is None or not self.whole:
            return
        parts = queue.everything()
        if found is not None or parts is None:
            self.state.unlink(missing_ok=True)
            return
        counts = (self.tally.closed, self.tally.domains, self.tally.stuck, space.least)
        state = State(way, parts, space.record, counts)
        try:
            state.save(self.state, key_of(self.graph, self.case, self.problem.dtype))
        except OSError as error:
            self.trouble = f"the search could not be kept: {error}"

    def _taken(self, new: Expanded, queue: Queue, packed: Packed) -> Replayed | None:
        """Queues what is open; an unsafe point that the executor confirms."""
        found = self._attacked(new, packed)
        if new.domains is not None:
            queue.push(new.domains)
        self.tally.closed += new.closed
        self.tally.stuck += new.stuck
        return found

    def _attacked(self, new: Expanded, packed: Packed) -> Replayed | None:
        """An unsafe point near those that the parts' bounds point at."""
        if not len(new.points) or self.problem.executor is None:
            return None
        goal = Goal.of(self.graph, packed, Room.of([self.case], packed.region))
        with torch.enable_grad():
            points = polish(goal, new.points, new.box.lower, new.box.upper, STEPS)[:REPLAYED]
        found = replay(self.problem.executor, self.case, points)
        self.tally.discarded += len(points) if found is None else 0
        return found

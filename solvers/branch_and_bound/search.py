"""Branch and bound as a backend: the parts of every case, worst bound first, until none is open or the time is over."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TypeVar

import torch

from provenn.solvers.ascent import polish
from provenn.solvers.attack import Replayed, replay
from provenn.solvers.base import Backend, Budget, Outcome, Phase, Problem, Progress, Result, Verdict, silent
from provenn.solvers.branch_and_bound.descent import Descent
from provenn.solvers.branch_and_bound.exhaustion import require_exhausted
from provenn.solvers.branch_and_bound.input_split import InputSplit
from provenn.solvers.branch_and_bound.kept import Kept, network_of
from provenn.solvers.branch_and_bound.neuron_split import NeuronSplit
from provenn.solvers.branch_and_bound.queue import MEMORY, Queue
from provenn.solvers.branch_and_bound.record import Record
from provenn.solvers.branch_and_bound.rooted import Root
from provenn.solvers.branch_and_bound.space import Expanded, Space
from provenn.solvers.branch_and_bound.state import State, Tally
from provenn.solvers.goal import Goal
from provenn.solvers.packing import Packed, pack
from provenn.solvers.room import Room
from provenn.verifier.errors import Unbounded
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

LONGEST = 0.5
"""Seconds of the time left in which no step is begun that may last as long as the one before it, at most."""

GRACE = 0.1
"""Seconds after the time has ended for which a relaxation of the whole region is still waited for."""

T = TypeVar("T")


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
        timeout, the margin being the smallest bound of any open part. Where the problem has a file, the search is kept
        there, now and then and however it ends undecided.   Source: Bunel et al. 2020, Wang et al. 2021.
        """
        graph = problem.graph.to(problem.device, problem.dtype)
        began, outcomes, stats = time.monotonic(), [], {"domains": 0.0, "discarded": 0.0}
        network = network_of(graph, problem.dtype) if problem.state is not None else ""
        for number, case in enumerate(problem.cases):
            share = Budget(max(budget.left, 0) / (len(problem.cases) - number))
            alone = len(problem.cases) == 1
            kept = Kept.at(problem.state, network, case, alone) if problem.state is not None else None
            search = _Search(self, problem, graph, case, share, kept)
            outcome, tally = search.run(progress, (number, len(problem.cases)))
            outcomes.append(outcome)
            stats["domains"] += tally.domains
            stats["discarded"] += tally.discarded
            progress(number + 1, len(problem.cases), self.name)
        stats = {f"{self.name}_{key}": value for key, value in stats.items()}
        return Result(tuple(outcomes), stats | {f"{self.name}_seconds": time.monotonic() - began})


@dataclass(eq=False)
class _Search:
    """One case. reason: why the last thing tried came to nothing; exhausted: because the memory did.

    left: seconds when the time was last looked at; ended: it did not suffice for another step; last: no other way of
    splitting would be tried after this one; queue: the open parts of the way that is being tried.
    """

    backend: BranchAndBound
    problem: Problem
    graph: Graph
    case: Case
    budget: Budget
    kept: Kept | None
    tally: Tally = field(default_factory=Tally)
    reason: str | None = None
    exhausted: bool = False
    left: float | None = None
    ended: bool = False
    last: bool = False
    queue: Queue | None = None

    def run(self, progress: Progress, place: tuple[int, int]) -> tuple[Outcome, Tally]:
        """The outcome, and what was done for it."""
        start = time.monotonic()
        with torch.no_grad():
            outcome = self._caught(lambda: self._decided(lambda: progress(*place, self._line())))
        outcome = outcome or self._nothing(self.reason)
        reasons = [outcome.reason, self.kept.trouble if self.kept is not None else None]
        reason = "; ".join(reason for reason in reasons if reason) or None
        return replace(outcome, seconds=time.monotonic() - start, reason=reason), self.tally

    def _line(self) -> str:
        words = f"{self.backend.name}: {self.tally.domains} parts, {self.tally.closed:.1%} decided"
        divisible = self.kept is not None and (self.last or self.tally.closed >= LEAST)
        lowest = None if self.queue is None else min(self.queue.lowest, self.tally.lowest, 0.0)
        return Phase(words, lowest, self.tally.domains, self.tally.closed, divisible)

    def _over(self) -> bool:
        """Whether the time has ended, but for what saving and the step before took."""
        left = self.budget.left - (self.kept.pace.cost if self.kept is not None else 0)
        step, self.left = 0.0 if self.left is None else self.left - left, left
        self.ended = self.ended or left <= min(step, LONGEST)
        return self.ended

    def _late(self) -> bool:
        """Whether the time has ended.   Raises: TimeoutError if it did so GRACE ago."""
        if self.budget.left < -GRACE:
            raise TimeoutError
        return self._over()

    def _caught(self, work: Callable[[], T]) -> T | None:
        """What the work gives; None where an op may leave its domain or the memory ran out, and `reason` says so.

        Once it is caught the error holds nothing of what it interrupted.
        """
        try:
            return work()
        except Unbounded as error:
            self.reason = str(error)
        except (MemoryError, RuntimeError) as error:
            self.reason, self.exhausted = require_exhausted(error), True
        return None

    def _nothing(self, reason: str | None) -> Outcome:
        return Outcome(Verdict.UNKNOWN, -float("inf"), self.backend.name, reason=reason)

    def _decided(self, report: Callable[[], None]) -> Outcome:
        """By the first way of splitting that decides the case, else as far as the last one got that began."""
        packed = pack(self.graph, [self.case], self.problem.device, self.problem.dtype)
        if not (packed.matrix.isfinite().all() and packed.bound.isfinite().all()):
            return self._nothing(f"the specification has numbers beyond the range of {self.problem.dtype}")
        outcome = Outcome(Verdict.TIMEOUT, -float("inf"), self.backend.name)
        saved = self.kept.load() if self.kept is not None else None
        ways = self._ways(saved)
        for number, way in enumerate(ways):
            rest = Budget(self.budget.left * PATIENCE) if number + 1 < len(ways) else None
            new = self._tried((way, saved if number == 0 else None), packed, rest, report)
            if new.verdict in (Verdict.VERIFIED, Verdict.FALSIFIED):
                return new
            outcome = replace(new, margin=max(outcome.margin, new.margin))
            if self._over() or self.exhausted:
                break
        return outcome

    def _ways(self, saved: State | None) -> list[str]:
        """Ways of splitting, the likeliest first; of a saved search its own and those after it.

        Only boxes are cut: beside a ball or constraint one may be empty.
        """
        ways = [self.backend.split]
        if self.case.inputs.ball is not None or self.case.inputs.constraints:
            ways = ["neuron"]
        elif ways == ["auto"]:
            few = int((self.case.inputs.lower < self.case.inputs.upper).sum()) <= FEW_INPUTS
            ways = ["input", "neuron"] if few else ["neuron"]
        if saved is None:
            return ways
        whole = saved.way in ways and not self.problem.part
        return ways[ways.index(saved.way) :] if whole else [saved.way]

    def _space(self, way: str, packed: Packed, record: Record) -> Space:
        if way == "input":
            return InputSplit(self.graph, packed, record)
        return NeuronSplit(self.graph, packed, record, Root.of(self.graph, packed, self._late))

    def _tried(
        self, chosen: tuple[str, State | None], packed: Packed, rest: Budget | None, report: Callable[[], None]
    ) -> Outcome:
        """By one way of splitting, from where the search was saved. rest: how long patience lasts.

        However it ends, what is open is saved.
        """
        way, saved = chosen
        self.reason, self.last = None, rest is None
        self.tally = Tally(self.tally.domains, self.tally.discarded) if saved is None else saved.tally
        try:
            space = self._caught(lambda: self._space(way, packed, Record() if saved is None else saved.record))
        except TimeoutError:
            return Outcome(Verdict.TIMEOUT, -float("inf"), self.backend.name)
        if space is None:
            return self._nothing(self.reason)
        with Queue(self.backend.memory) as queue:
            self.queue = queue
            attack = partial(self._attacked, packed)
            descent = Descent(way, space, queue, self.tally, attack, self._over, self.kept)
            found = self._caught(lambda: descent.begin(saved, packed.bound.device))
            if self.reason is not None:  # not all that is open may be in the queue: whatever was saved stays
                return self._nothing(self.reason)
            try:
                found = found or self._caught(lambda: descent.run(partial(self._gives_way, rest), report))
            finally:
                bound, left = min(queue.lowest, self.tally.lowest, 0.0), len(queue)
                if found is None and (left or self.problem.part):
                    descent.save()
        if self.kept is not None and not self.problem.part and (found is not None or not left):
            self.kept.remove()
        return self._outcome(space, found, bound, left)

    def _gives_way(self, rest: Budget | None) -> bool:
        return rest is not None and rest.left <= 0 and self.tally.closed < LEAST

    def _outcome(self, space: Space, found: Replayed | None, bound: float, left: int) -> Outcome:
        """Falsified by what was found; verified where no part is open or stuck, and every one is proved."""
        name = self.backend.name
        if found is not None:
            return Outcome(Verdict.FALSIFIED, -float("inf"), name, witness=found.witness, output=found.output)
        if self.reason is not None:
            return Outcome(Verdict.UNKNOWN, bound, name, reason=self.reason)
        if not left and not self.tally.stuck and space.decided(self.tally.closed):
            return Outcome(Verdict.VERIFIED, space.least, name, proof=space.proof())
        return Outcome(Verdict.TIMEOUT if self._over() else Verdict.UNKNOWN, bound, name)

    def _attacked(self, packed: Packed, new: Expanded) -> Replayed | None:
        """An unsafe point near those that the parts' bounds point at."""
        if not len(new.points) or self.problem.executor is None:
            return None
        goal = Goal.of(self.graph, packed, Room.of([self.case], packed.region))
        with torch.enable_grad():
            points = polish(goal, new.points, new.box.lower, new.box.upper, STEPS)[:REPLAYED]
        found = replay(self.problem.executor, self.case, points)
        self.tally.discarded += len(points) if found is None else 0
        return found

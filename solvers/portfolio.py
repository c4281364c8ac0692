"""Attack, IBP, CROWN or something cheaper, attack again, alpha-CROWN, branch and bound: on the cases still open."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from provenn.solvers.alpha_crown import AlphaCrown
from provenn.solvers.attack import Attack
from provenn.solvers.auto_lirpa import AutoLirpaAlphaCrown, AutoLirpaCrown
from provenn.solvers.base import Backend, Budget, Outcome, Problem, Progress, Result, Verdict, silent
from provenn.solvers.branch_and_bound import BranchAndBound
from provenn.solvers.crown import Crown
from provenn.solvers.crown_ibp import CrownIbp
from provenn.solvers.forward import Forward, ForwardBackward
from provenn.solvers.ibp import Ibp
from provenn.solvers.linear_programme import LinearProgramme
from provenn.solvers.linear_programme import worthwhile as programmed
from provenn.solvers.top_k_attack import TopKAttack, worthwhile
from provenn.verifier.bounds.auto import choose
from provenn.verifier.errors import BackendError

LINEAR: dict[str, type[Backend]] = {"crown": Crown, "forward-backward": ForwardBackward, "crown-ibp": CrownIbp}
"""What `choose` names."""

BRIEF = Attack(steps=4, restarts=4, rounds=1, lines=0)
"""Enough for what is plainly false (a misclassified input needs no step at all)."""

LONGER = Attack(rounds=2, lines=8)
"""Before dear bounds: more of it finds hardly more than branch and bound does, which attacks within its parts."""


TOWARD = TopKAttack(LONGER.steps, LONGER.restarts, LONGER.rounds, LONGER.lines)
"""The same where several rows have to be met at once: it finds more of long lists of labels (docs/top_k.md)."""


class Portfolio(Backend):
    """The default: cheap methods on everything, dear ones only on what is left."""

    name = "auto"
    summary = (
        "a brief attack -> ibp -> crown (a cheaper linear bound where that would take minutes, or longer than is left) "
        "-> a longer attack -> alpha-crown where there are several cases, lp where one has clauses of several rows "
        "-> branch-and-bound, each on the cases still undecided"
    )
    verdicts = frozenset(Verdict)

    def solve(self, problem: Problem, budget: Budget, progress: Progress = silent) -> Result:
        """The first decisive outcome a case; otherwise the largest margin any method reached.

        Branch and bound begins with alpha-CROWN's bounds itself; several cases take them together, before it.
        """
        rows = max((sum(len(clause.bound) for clause in case.clauses) for case in problem.cases), default=0)
        bounds: list[Backend] = [Ibp(), LINEAR[choose(problem.graph, len(problem.cases), rows, budget.left)]()]
        bounds += [AlphaCrown()] if len(problem.cases) > 1 else [LinearProgramme()] if programmed(problem) else []
        if problem.executor is None:
            return run([*bounds, BranchAndBound()], problem, budget, progress)
        longer = TOWARD if worthwhile(problem) else LONGER
        return run([BRIEF, *bounds[:2], longer, *bounds[2:], BranchAndBound()], problem, budget, progress)


def run(phases: Sequence[Backend], problem: Problem, budget: Budget, progress: Progress) -> Result:
    """Runs the phases in order on the cases that are still open; the stats carry each phase's seconds."""
    total = len(problem.cases)
    outcomes: list[Outcome | None] = [None] * total
    stats: dict[str, float] = {}
    for phase in phases:
        todo = [i for i, o in enumerate(outcomes) if o is None or _is_open(o)]
        if not todo or budget.left <= 0:
            break
        closed = total - len(todo)
        part = replace(problem, cases=[problem.cases[i] for i in todo])
        report = _after(progress, closed, total)
        result = phase.solve(part, budget, report)
        for name, value in result.stats.items():
            stats[name] = stats.get(name, 0.0) + value
        for index, new in zip(todo, result.outcomes, strict=True):
            outcomes[index] = merged(outcomes[index], new)
    late = Outcome(Verdict.TIMEOUT, -float("inf"), phases[0].name)
    return Result(tuple(o if o is not None else late for o in outcomes), stats)


def merged(old: Outcome | None, new: Outcome) -> Outcome:
    """The decisive outcome, else the one with the larger margin; seconds add up."""
    if old is None:
        return new
    keep = new if not _is_open(new) or new.margin >= old.margin else old
    verdict = new.verdict if _is_open(new) else keep.verdict
    return replace(keep, verdict=verdict, seconds=old.seconds + new.seconds)


def _is_open(outcome: Outcome) -> bool:
    return outcome.verdict in (Verdict.UNKNOWN, Verdict.TIMEOUT)


def _after(progress: Progress, closed: int, total: int) -> Progress:
    """Reports a phase's progress over all cases: those closed before it count as done."""
    return lambda done, _, phase: progress(closed + done, total, phase)


BACKENDS: dict[str, type[Backend]] = {
    b.name: b
    for b in (
        Portfolio,
        Ibp,
        CrownIbp,
        Forward,
        ForwardBackward,
        Crown,
        AlphaCrown,
        LinearProgramme,
        BranchAndBound,
        Attack,
        TopKAttack,
        AutoLirpaCrown,
        AutoLirpaAlphaCrown,
    )
}


def described() -> list[dict[str, Any]]:
    """Every method, in words and sorted lists: what it can do here."""
    return [
        {
            "name": backend.name,
            "summary": backend.summary,
            "verdicts": sorted(backend.verdicts),
            "norms": sorted(backend.norms),
            "gpu": backend.gpu,
            "status": backend.status(),
        }
        for backend in BACKENDS.values()
    ]


def backend(name: str) -> Backend:
    """The backend of that name.   Raises: BackendError naming the known ones, or what to install."""
    if name not in BACKENDS:
        raise BackendError(name, f"unknown method; known methods: {', '.join(BACKENDS)}")
    chosen = BACKENDS[name]
    if chosen.status() != "available":
        raise BackendError(name, chosen.status())
    return chosen()

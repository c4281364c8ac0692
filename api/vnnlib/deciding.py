"""A query and its files in, a verdict and an assignment out: trial, the kernel, then the ordinary path."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING

from provenn.api.vnnlib.deadline import Deadline
from provenn.api.vnnlib.trying import Trial, holds, trial
from provenn.models.query.binding import bind
from provenn.models.query.replaying import Execution, Replay
from provenn.verifier.errors import EmptyRegion, InvalidModel, ResourceLimit, UnsupportedOp
from provenn.verifier.query.meaning import Layout, Meaning, layout, meaning
from provenn.verifier.query.query import Query

if TYPE_CHECKING:
    from provenn.api.certification import LoadedModel
    from provenn.api.vnnlib.proving import Candidate, Point

ROOM = Fraction(1, 10**6)
"""How much easier a query of floats is made before it is called unsat: its files round, a proof over reals does not."""

SLACKS = (Fraction(0), Fraction(1, 10**6), Fraction(1, 10**3))
"""How much further inside a witness is looked for, where the nearest one only touches a condition."""

TOUCHING = "points that meet the query up to roundings, or with its conditions closed, but none that meets it exactly"

NOTHING = "neither a proof nor a witness was found"


@dataclass(frozen=True)
class Decision:
    """The standard's word, what should be said besides, and the execution that satisfies the query for `sat`."""

    verdict: str
    notes: tuple[str, ...] = ()
    execution: Execution | None = None


def decide(query: Query, files: Mapping[str, bytes], deadline: Deadline) -> Decision:
    """Whether some inputs satisfy the query.   files: ONNX files by network name.

    Raises: InvalidSpecification, InvalidModel where query and files do not fit each other or are not sound themselves.
    """
    implementations = bind(query, files)
    where = layout(query)
    try:
        meant = meaning(query, where, -ROOM if any(t.dtype.startswith("float") for t in query.tensors) else Fraction(0))
    except EmptyRegion as empty:
        return Decision("unsat", (f"warning: vacuously unsat: no input is allowed ({empty})",))
    except ResourceLimit as limit:
        return Decision("unknown", (str(limit),))
    question = _Question(query, where, meant, Replay(implementations, where), deadline)
    tried = trial(query, question.replay, meant.specification.cases, deadline)
    if tried.witness is not None:
        return Decision("sat", (), tried.witness)
    from provenn.api.vnnlib.proving import candidates

    notes: list[str] = []
    try:
        for candidate in candidates(implementations, where):
            decision = question.asked(candidate, tried, notes)
            if decision is not None:
                return decision
    except (UnsupportedOp, InvalidModel, ResourceLimit) as refusal:
        notes.append(str(refusal))
    return question.open(notes)


@dataclass(frozen=True, eq=False)
class _Question:
    """What stays the same from candidate to candidate."""

    query: Query
    where: Layout
    meant: Meaning
    replay: Replay
    deadline: Deadline

    def asked(self, candidate: Candidate, tried: Trial, notes: list[str]) -> Decision | None:
        """The decision by this candidate; None if it cannot be read, which is noted."""
        from provenn.api.vnnlib.proving import loaded, proved_by_kernel, searched

        bounded = not self.meant.missing
        if bounded and proved_by_kernel(candidate, self.meant, self.where, tried.seen):
            return Decision("unsat")
        try:
            model = loaded(candidate, self.where, tried.seen)
        except (UnsupportedOp, InvalidModel) as refusal:
            notes.append(str(refusal))
            return None
        notes.clear()
        verdict, point, reason = searched(model, candidate.asked(self.meant, self.where), self.deadline)
        if verdict == "verified" and bounded:
            return Decision("unsat")
        if verdict != "falsified":
            return self.open([reason] if reason else [])
        for slack in (None, *SLACKS):
            if slack is not None:
                point = self._further(model, candidate, slack)
            if point is not None and holds(self.query, execution := self.replay.run(point)):
                return Decision("sat", (), execution)
        return self.open([TOUCHING])

    def _further(self, model: LoadedModel, candidate: Candidate, slack: Fraction) -> Point | None:
        """A point that meets every condition with some slack, as the engine and the executor see it."""
        from provenn.api.vnnlib.proving import searched

        try:
            meant = candidate.asked(meaning(self.query, self.where, slack), self.where)
        except EmptyRegion:
            return None
        return searched(model, meant, self.deadline, "attack").point

    def open(self, notes: list[str]) -> Decision:
        """No answer: for want of time, or else."""
        if self.deadline.left <= 0:
            return Decision("timed-out", tuple(notes))
        missing = (f"{', '.join(self.meant.missing[:3])}: only looked for a witness",) if self.meant.missing else ()
        return Decision("unknown", (*notes, *missing) or (NOTHING,))

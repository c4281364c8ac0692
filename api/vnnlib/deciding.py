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
from provenn.verifier.check.rows import Semantics
from provenn.verifier.errors import (
    BackendError,
    EmptyRegion,
    InvalidBounds,
    InvalidModel,
    ResourceLimit,
    UnsupportedOp,
)
from provenn.verifier.query.meaning import Layout, Meaning, covering, layout, meaning
from provenn.verifier.query.query import Query

if TYPE_CHECKING:
    from provenn.api.certification import LoadedModel
    from provenn.api.vnnlib.proving import Candidate, Errors, Point

ROOM = Fraction(1, 10**6)
"""How much easier a query of floats is made, at least, before it is called unsat: its files round, a proof over reals
does not."""

SEEN = 4
"""How often the largest rounding errors seen at some points must fit into that room."""

SLACKS = (Fraction(0), Fraction(1, 10**6), Fraction(1, 10**3))
"""How much further inside a witness is looked for, where the nearest one only touches a condition."""

TOUCHING = "points that meet the query up to roundings, or with its conditions closed, but none that meets it exactly"

NOTHING = "neither a proof nor a witness was found"

SURE = {
    "checked": "unsat in real arithmetic, proved by the trusted checker's code (assurance: checked)",
    "deployed": "unsat in every float32 execution, proved by the trusted checker's code (assurance: deployed)",
    "computed": "unsat in real arithmetic, by floating-point bounds alone (assurance: computed)",
}
"""What each assurance says."""

ROUNDS, ASKS = "for roundings of the declared floats there is room, but no proof", "--semantics float32 asks for one"


@dataclass(frozen=True)
class Decision:
    """The standard's word, what should be said besides, and the execution that satisfies the query for `sat`.

    assurance: of `unsat`, as docs/index.md explains the words.
    """

    verdict: str
    notes: tuple[str, ...] = ()
    execution: Execution | None = None
    assurance: str | None = None


def decide(query: Query, files: Mapping[str, bytes], deadline: Deadline, semantics: Semantics = "real") -> Decision:
    """Whether some inputs satisfy the query.   files: ONNX files by network name.

    semantics: what `unsat` is proved of: the files in real arithmetic, with room for roundings where floats are
    declared, or all their float32 executions, which needs no room.
    Raises: InvalidSpecification, InvalidModel where query and files do not fit each other or are not sound themselves.
    """
    implementations = bind(query, files)
    where = layout(query)
    rounds = semantics == "real" and any(t.dtype.startswith("float") for t in query.tensors)
    try:
        meant = meaning(query, where, -ROOM if rounds else Fraction(0))
    except EmptyRegion as empty:
        return Decision("unsat", (f"warning: vacuously unsat: no input is allowed ({empty})",), assurance="vacuous")
    except ResourceLimit as limit:
        return Decision("unknown", (str(limit),))
    narrow = [(part.network.name, part.rounding) for part in implementations if part.rounding is not None]
    only = (*(f"network '{n}' is declared float64 and rounds '{v}' to less" for n, v in narrow), *meant.missing)
    question = _Question(query, where, meant, Replay(implementations, where), deadline, semantics, only)
    tried = trial(query, question.replay, meant.specification.cases, deadline)
    if tried.witness is not None:
        return question.decided("sat", (), tried.witness)
    from provenn.api.vnnlib.proving import candidates

    notes: list[str] = []
    try:
        for candidate in candidates(implementations, where):
            decision = question.asked(candidate, tried, notes)
            if decision is not None:
                return decision
    except (InvalidModel, InvalidBounds, ResourceLimit, BackendError) as refusal:
        notes.append(str(refusal))
    except (MemoryError, RuntimeError) as failure:  # torch's and onnxruntime's own, out of memory among them
        notes.append(f"{type(failure).__name__}: {str(failure)[:300]}")
    return question.open(notes)


@dataclass(frozen=True, eq=False)
class _Question:
    """What stays the same from candidate to candidate; only: why a witness alone can be looked for, if so."""

    query: Query
    where: Layout
    meant: Meaning
    replay: Replay
    deadline: Deadline
    semantics: Semantics
    only: tuple[str, ...]

    def asked(self, candidate: Candidate, tried: Trial, notes: list[str]) -> Decision | None:
        """The decision by this candidate; None if it cannot be read, which is noted."""
        from provenn.api.vnnlib.proving import loaded, searched

        provable = not self.only and (self.semantics == "real" or not candidate.rewritten)
        if provable and (sure := self._proved(candidate, tried)) is not None:
            return self._unsat(sure)
        try:
            model, errors = loaded(candidate, self.where, tried.seen)
        except (UnsupportedOp, InvalidModel) as refusal:
            notes.append(str(refusal))
            return None
        notes.clear()
        meant = candidate.asked(self._roomy(errors), self.where)
        verdict, point, assurance, reason = searched(model, meant, self.deadline, semantics=self.semantics)
        if verdict == "verified" and provable:
            return self._unsat(assurance or "computed")
        if verdict != "falsified":
            return self.open([reason] if reason else [])
        for slack in (None, *SLACKS):
            if slack is not None:
                point = self._further(model, candidate, slack)
            if point is not None and holds(self.query, execution := self.replay.run(point)):
                return self.decided("sat", (), execution)
        return self.open([TOUCHING])

    def _proved(self, candidate: Candidate, tried: Trial) -> str | None:
        """The assurance with which the kernel alone, without torch, proves it; the stronger one if both."""
        from provenn.api.vnnlib.proving import few, proved_by_kernel, read_by_kernel

        read = read_by_kernel(candidate, self.where, tried.seen) if few(self.meant) else None
        if read is None:
            return None
        exact = meaning(self.query, self.where) if self._rounds else self.meant
        if read.itself and proved_by_kernel(read.network, candidate.asked(exact, self.where), "float32"):
            return "deployed"
        meant = candidate.asked(self._roomy(read.errors), self.where)
        return "checked" if self.semantics == "real" and proved_by_kernel(read.network, meant, "real") else None

    @property
    def _rounds(self) -> bool:
        """Whether room is left for roundings."""
        return self.semantics == "real" and any(t.dtype.startswith("float") for t in self.query.tensors)

    def _roomy(self, errors: Errors) -> Meaning:
        """What is to be proved: with more room for roundings where those that were seen would not fit four times."""
        room = SEEN * covering(self.query, self.where, errors.tolist()) if self._rounds else ROOM
        return self.meant if room <= ROOM else meaning(self.query, self.where, -room)

    def _unsat(self, assurance: str) -> Decision:
        rounds = self._rounds and assurance != "deployed"
        single = all(tensor.dtype != "float64" for tensor in self.query.tensors)
        said = [SURE[assurance], *([ROUNDS] if rounds else ()), *([ASKS] if rounds and single else ())]
        return self.decided("unsat", ("; ".join(said),), None, assurance)

    def decided(
        self, verdict: str, notes: tuple[str, ...], execution: Execution | None = None, assurance: str | None = None
    ) -> Decision:
        """A decision, with the warnings of the query before its notes."""
        warnings = (f"warning: {warning}" for warning in self.meant.specification.warnings)
        return Decision(verdict, (*warnings, *notes), execution, assurance)

    def _further(self, model: LoadedModel, candidate: Candidate, slack: Fraction) -> Point | None:
        """A point that meets every condition with some slack, as the engine and the executor see it."""
        from provenn.api.vnnlib.proving import searched

        try:
            meant = candidate.asked(meaning(self.query, self.where, slack), self.where)
        except EmptyRegion:
            return None
        return searched(model, meant, self.deadline, method="attack").point

    def open(self, notes: list[str]) -> Decision:
        """No answer: for want of time, or else."""
        if self.deadline.left <= 0:
            return self.decided("timed-out", tuple(notes))
        only = (f"{', '.join(self.only[:3])}: only looked for a witness",) if self.only else ()
        return self.decided("unknown", (*notes, *only) or (NOTHING,))

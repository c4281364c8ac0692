"""The report of a gate: a line a check, the outcome of all, and the exit code that follows from it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

from provenn.api.gate.thresholds import Outcome, overall

AGAIN = "the same inputs as above"
WORDS = {Outcome.PASSED: "passed", Outcome.FAILED: "failed", Outcome.UNKNOWN: "undecided"}


class GateCode(IntEnum):
    """The contract of `provenn gate` with whatever runs it: docs/gate.md lists these."""

    PASSED = 0
    FAILED = 1
    USAGE = 2
    INCONCLUSIVE = 3
    INFRASTRUCTURE = 4


@dataclass(frozen=True)
class Line:
    """One check; measured, needed: in words; reason: why it is undecided; examples: inputs that speak against it.

    file: the model's; line: where its threshold is in the configuration; cached: found by an earlier run.
    """

    model: str
    file: str
    key: str
    line: int
    title: str
    needed: str
    outcome: Outcome
    measured: str
    reason: str | None
    examples: tuple[str, ...]
    seconds: float
    cached: bool

    def __post_init__(self) -> None:
        for name in ("model", "file", "title", "needed", "measured", "reason"):
            value = getattr(self, name)
            object.__setattr__(self, name, None if value is None else printable(value))
        object.__setattr__(self, "examples", tuple(map(printable, self.examples)))

    @property
    def beside(self) -> tuple[str, ...]:
        """The reason, if it is undecided, and the examples."""
        return (*((self.reason,) if self.reason else ()), *self.examples)


@dataclass(frozen=True)
class Report:
    """All lines; config: the file, as a reader of the repository names it; tolerant: undecided checks pass.

    notes: what else a reader has to know.
    """

    config: str
    lines: tuple[Line, ...]
    tolerant: bool
    seconds: float
    notes: tuple[str, ...] = ()

    @property
    def outcome(self) -> Outcome:
        """Failed if a check has; else unknown if one is undecided and that is not to pass, or if there is none."""
        found = overall([line.outcome for line in self.lines])
        passes = self.tolerant and bool(self.lines)
        return Outcome.PASSED if found == Outcome.UNKNOWN and passes else found

    @property
    def code(self) -> GateCode:
        """What the command ends with."""
        codes = {Outcome.FAILED: GateCode.FAILED, Outcome.UNKNOWN: GateCode.INCONCLUSIVE}
        return codes.get(self.outcome, GateCode.PASSED)

    @property
    def summary(self) -> str:
        """One sentence."""
        counts = [f"{count} {word}" for outcome, word in WORDS.items() if (count := self.count(outcome))]
        verdict = {
            Outcome.PASSED: "the gate passed",
            Outcome.FAILED: "the gate failed",
            Outcome.UNKNOWN: "the gate is inconclusive",
        }
        return f"{verdict[self.outcome]}: {', '.join(counts)}"

    def count(self, outcome: Outcome) -> int:
        """How many checks have it."""
        return sum(line.outcome == outcome for line in self.lines)

    @property
    def details(self) -> list[tuple[Line, tuple[str, ...]]]:
        """What has not passed, with what is beside it; inputs that were told of another check are not told again."""
        found: list[tuple[Line, tuple[str, ...]]] = []
        told: set[tuple[str, tuple[str, ...]]] = set()
        for line in self.lines:
            if line.outcome == Outcome.PASSED or not line.beside:
                continue
            again = bool(line.examples) and (line.model, line.examples) in told
            reason = (line.reason,) if line.reason else ()
            found.append((line, (*reason, AGAIN) if again else line.beside))
            told.add((line.model, line.examples))
        return found

    def of(self, model: str) -> Sequence[Line]:
        """The lines of a model."""
        return [line for line in self.lines if line.model == model]

    @property
    def models(self) -> tuple[str, ...]:
        """Their names, in order."""
        return tuple(dict.fromkeys(line.model for line in self.lines))


def printable(text: str) -> str:
    """Without characters that a terminal or a file of XML cannot have; names of inputs may have them."""
    return "".join(c if c.isprintable() else "\ufffd" for c in text)

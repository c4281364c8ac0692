"""Answers beside a second opinion: auto_LiRPA's bounds, and points of the regions, on the same questions."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice

from provenn.api.certification import ItemResult, LoadedModel, Options, require_device
from provenn.solvers.auto_lirpa import AutoLirpaCrown
from provenn.solvers.base import Budget, Problem, Verdict
from provenn.solvers.cross_check import ROUNDED, Comparison, above, compare
from provenn.verifier.errors import BackendError, ProvennError
from provenn.verifier.spec import Specification

CHUNK = 64
"""Questions compared together."""


class Disagreement(ProvennError):
    """Bounds that cannot all be true, of the questions at `index` (0-based) and maybe of others."""

    def __init__(self, index: int, messages: Sequence[str]) -> None:
        self.index = index
        more = f" (and {len(messages) - 1} more)" if len(messages) > 1 else ""
        super().__init__(f"cross-check, item {index}: {messages[0]}{more}. One of the two is wrong: please report it")


@dataclass(frozen=True)
class CrossCheck:
    """How many cases were compared, and what contradicts what: (index of the question, message)."""

    cases: int
    disagreements: tuple[tuple[int, str], ...]

    @property
    def error(self) -> Disagreement | None:
        """The disagreements as one error."""
        if not self.disagreements:
            return None
        return Disagreement(self.disagreements[0][0], [message for _, message in self.disagreements])


def require_second_opinion() -> None:
    """Raises: BackendError saying what to do if auto_LiRPA cannot be imported."""
    if (status := AutoLirpaCrown.status()) != "available":
        raise BackendError(AutoLirpaCrown.name, status)


def cross_check(
    model: LoadedModel, specifications: Iterable[Specification], results: Sequence[ItemResult], options: Options
) -> CrossCheck:
    """Compares in float64, with as many seconds as the answers had.

    Raises: BackendError if auto_LiRPA has no rule for the network.
    """
    budget, remaining = Budget(options.seconds), iter(specifications)
    cases, found = 0, []
    for start in range(0, len(results), CHUNK):
        chunk = list(islice(remaining, CHUNK))
        flat = [case for specification in chunk for case in specification.cases]
        problem = Problem(model.graph, flat, device=require_device(options.device), seed=options.seed)
        comparisons = iter(compare(problem, budget) if flat else ())
        for index, specification in enumerate(chunk, start):
            own = list(islice(comparisons, len(specification.cases)))
            found += [(index, message) for message in (_messages(results[index], own) if own else ())]
        cases += len(flat)
    return CrossCheck(cases, tuple(found))


def _messages(result: ItemResult, comparisons: Sequence[Comparison]) -> list[str]:
    """The cases' own disagreements, then those with the answer: its margin, or its counterexample."""
    messages = [message for comparison in comparisons for message in comparison.disagreements()]
    smallest = min(comparison.found for comparison in comparisons)
    if result.margin is not None and (wrong := above(result.margin, smallest, ROUNDED)):
        messages.append(f"the answer's {wrong}")
    if result.verdict == Verdict.FALSIFIED:
        for name in comparisons[0].bounds:
            bound = min(comparison.bounds[name] for comparison in comparisons)
            if bound > ROUNDED:
                messages.append(f"a counterexample was replayed, but {name} gives a margin of {bound:.9g}")
    return messages

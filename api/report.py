"""From what the pipeline found to the result that a client reads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from provenn.api.certification import ItemResult
from provenn.api.lipschitz import LipschitzResult
from provenn.api.schemas import Counterexample, Counts, Item, JobResult, Lipschitz
from provenn.solvers.base import Verdict


@dataclass(frozen=True)
class Point:
    """Which input and radius an item is about; None for both: the job's specification."""

    input: int | None
    epsilon: float | None


def report(
    points: Sequence[Point],
    results: Sequence[ItemResult],
    certificates: Sequence[str | None],
    stats: dict[str, float],
) -> JobResult:
    """Items in order, the verdict over all of them, counts a radius, and the numbers of the run."""
    rows = zip(points, results, certificates, strict=True)
    items = [_item(index, *row) for index, row in enumerate(rows)]
    return JobResult(
        verdict=overall([item.verdict for item in items]),
        items=items,
        summary=[_counts(epsilon, items) for epsilon in dict.fromkeys(p.epsilon for p in points)],
        stats=stats | _run_stats(results),
    )


def lipschitz_report(result: LipschitzResult, certificate: str | None, stats: dict[str, float]) -> JobResult:
    """One item without an input."""
    item = Item(
        index=0,
        input=None,
        epsilon=None,
        verdict=result.verdict,
        method=result.method,
        margin=None,
        seconds=result.seconds,
        assurance=result.assurance,
        semantics="real",
        reason=result.reason,
        warnings=[],
        certificate=certificate,
        counterexample=None,
        lipschitz=Lipschitz.model_validate(result),
    )
    counts = [_counts(None, [item])]
    return JobResult(verdict=item.verdict, items=[item], summary=counts, stats=stats | result.stats)


def overall(verdicts: Sequence[str]) -> str:
    """Verified if all are; otherwise falsified before timeout before unknown."""
    order = (Verdict.FALSIFIED, Verdict.TIMEOUT, Verdict.UNKNOWN)
    return str(next((v for v in order if v in verdicts), Verdict.VERIFIED))


def _item(index: int, point: Point, result: ItemResult, certificate: str | None) -> Item:
    found = result.counterexample
    return Item(
        index=index,
        input=point.input,
        epsilon=point.epsilon,
        verdict=result.verdict,
        method=result.method,
        margin=result.margin,
        seconds=result.seconds,
        assurance=result.assurance,
        semantics=result.semantics,
        reason=result.reason,
        warnings=list(result.warnings),
        certificate=certificate,
        counterexample=None if found is None else Counterexample(input=found.input, output=found.output),
        lipschitz=None,
    )


def _counts(epsilon: float | None, items: Sequence[Item]) -> Counts:
    verdicts = [item.verdict for item in items if item.epsilon == epsilon]
    return Counts(
        epsilon=epsilon,
        verified=verdicts.count(Verdict.VERIFIED),
        falsified=verdicts.count(Verdict.FALSIFIED),
        unknown=verdicts.count(Verdict.UNKNOWN),
        timeout=verdicts.count(Verdict.TIMEOUT),
    )


def _run_stats(results: Sequence[ItemResult]) -> dict[str, float]:
    """Summed over the runs; the items of one run share one table."""
    total: dict[str, float] = {}
    for stats in {id(r.stats): r.stats for r in results}.values():
        for name, value in stats.items():
            total[name] = total.get(name, 0.0) + value
    return total

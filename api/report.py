"""From what the pipeline found to the result that a client reads."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from provenn.api.certification import ItemResult
from provenn.api.jacobian import JacobianResult
from provenn.api.lipschitz import LipschitzResult
from provenn.api.monotonicity import Dependence as Found
from provenn.api.monotonicity import MonotonicityResult
from provenn.api.pattern_schemas import Patterns, Radius
from provenn.api.schemas import Change, Counterexample, Counts, Dependence, Item, Jacobian, JobResult, Lipschitz
from provenn.api.tightness_schemas import Tightness
from provenn.solvers.base import Verdict
from provenn.solvers.trend import Pair

MEASURED = "measured"
"""In place of a verdict, where nothing is proved or refuted."""


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
    return joined([_item(index, *row) for index, row in enumerate(rows)], stats | _run_stats(results))


def joined(items: Sequence[Item], stats: dict[str, float]) -> JobResult:
    """The result that has these items."""
    return JobResult(
        verdict=overall([item.verdict for item in items]),
        items=list(items),
        summary=[_counts(epsilon, items) for epsilon in dict.fromkeys(item.epsilon for item in items)],
        stats=stats,
        batch=None,
    )


def lipschitz_report(result: LipschitzResult, certificate: str | None, stats: dict[str, float]) -> JobResult:
    """One item without an input."""
    item = _alone(result, result.verdict, certificate, lipschitz=Lipschitz.model_validate(result))
    return _of_one(item, stats | result.stats)


def monotonicity_report(
    result: MonotonicityResult, names: Sequence[str], certificate: str | None, stats: dict[str, float]
) -> JobResult:
    """The same. names: of the features, in the order of the question."""
    told = [_dependence(each, names[k % len(names)]) for k, each in enumerate(result.dependences)]
    return _of_one(_alone(result, result.verdict, certificate, monotonicity=told), stats | result.stats)


def jacobian_report(result: JacobianResult, rows: str, certificate: str | None, stats: dict[str, float]) -> JobResult:
    """The same, of derivatives."""
    lower, upper = (None if ends is None else ends.tolist() for ends in (result.lower, result.upper))
    seen = [[list(map(_finite, row)) for row in ends.tolist()] for ends in (result.seen.lower, result.seen.upper)]
    told = Jacobian(rows=rows, lower=lower, upper=upper, seen_lower=seen[0], seen_upper=seen[1])
    return _of_one(_alone(result, result.verdict, certificate, jacobian=told), stats | result.stats)


def measured_report(seconds: float, found: Tightness | Patterns, stats: dict[str, float]) -> JobResult:
    """One item without a verdict."""
    item = Item(
        index=0,
        input=None,
        epsilon=None,
        verdict=MEASURED,
        method="tightness" if isinstance(found, Tightness) else "patterns",
        margin=None,
        seconds=seconds,
        assurance=None,
        semantics="real",
        reason=None,
        warnings=[],
        certificate=None,
        counterexample=None,
        lipschitz=None,
        monotonicity=None,
        jacobian=None,
        tightness=found if isinstance(found, Tightness) else None,
        patterns=found if isinstance(found, Patterns) else None,
        radius=None,
    )
    return _of_one(item, stats)


def radius_report(result: ItemResult, found: Radius, certificate: str | None, stats: dict[str, float]) -> JobResult:
    """One item, about the largest radius with a proof; result: the answer there."""
    item = _item(0, Point(None, found.verified or None), result, certificate)
    return _of_one(item.model_copy(update={"radius": found}), stats | result.stats)


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
        counterexample=None if found is None else Counterexample.model_validate(found),
        lipschitz=None,
        monotonicity=None,
        jacobian=None,
        tightness=None,
        patterns=None,
        radius=None,
    )


def _alone(
    result: LipschitzResult | MonotonicityResult | JacobianResult,
    verdict: str,
    certificate: str | None,
    lipschitz: Lipschitz | None = None,
    monotonicity: list[Dependence] | None = None,
    jacobian: Jacobian | None = None,
) -> Item:
    """The one item of a job that is not about inputs; falsified: by pairs that were executed."""
    return Item(
        index=0,
        input=None,
        epsilon=None,
        verdict=verdict,
        method=result.method,
        margin=None,
        seconds=result.seconds,
        assurance=result.assurance or ("replayed" if verdict == Verdict.FALSIFIED else None),
        semantics="real",
        reason=result.reason,
        warnings=[],
        certificate=certificate,
        counterexample=None,
        lipschitz=lipschitz,
        monotonicity=monotonicity,
        jacobian=jacobian,
        tightness=None,
        patterns=None,
        radius=None,
    )


def _of_one(item: Item, stats: dict[str, float]) -> JobResult:
    return JobResult(
        verdict=item.verdict, items=[item], summary=[_counts(item.epsilon, [item])], stats=stats, batch=None
    )


def _dependence(found: Found, name: str) -> Dependence:
    return Dependence(
        row=found.row,
        column=found.column,
        feature=name,
        trend=found.trend.value,
        lower=_finite(found.lower),
        upper=_finite(found.upper),
        fall=_change(found.fall),
        rise=_change(found.rise),
    )


def _change(pair: Pair | None) -> Change | None:
    if pair is None:
        return None
    return Change(first=pair.first.ravel().tolist(), second=pair.second.ravel().tolist(), change=pair.change)


def _finite(value: float) -> float | None:
    """None for what JSON has no number for."""
    return value if math.isfinite(value) else None


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

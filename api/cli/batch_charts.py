"""What a batch looks like: accuracy against radius with its confidence, and how radii or margins are distributed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise

import numpy as np

from provenn.api.batch.question import Question
from provenn.api.batch.rows import Row
from provenn.api.batch.summary import Share, Summary
from provenn.api.cli.chart import Band, Chart, Line, axis
from provenn.api.statements import DISTANCE

BINS = 20


def curve(summary: Summary, asked: Question, name: str) -> Chart:
    """Certified accuracy and accuracy under attack against the radius, with Wilson's intervals at 95 %."""
    radii = [each.epsilon for each in summary.radii]
    certified, attacked = [each.certified for each in summary.radii], [each.attacked for each in summary.radii]
    how_far, what = f"radius ({DISTANCE[asked.norm]})", "accuracy, %"
    clean = 100 * summary.clean.value
    lines = [
        Line("certified", [(r, 100 * share.value) for r, share in zip(radii, certified, strict=True)]),
        Line("under attack", [(r, 100 * share.value) for r, share in zip(radii, attacked, strict=True)], hue=1),
        Line("clean", [(r, clean) for r in radii], dashed=True, marked=False),
    ]
    bands = [
        Band("95 % of certified", _interval(radii, certified)),
        Band("95 % under attack", _interval(radii, attacked), hue=1),
    ]
    return Chart(
        f"{name}: accuracy against the radius",
        f"Of {summary.clean.total} inputs, {clean:.3g} % are classified rightly. The accuracy against the worst inputs "
        "within a radius lies between the share that is certified and the share without a known counterexample.",
        axis(how_far, radii, [f"{r:.4g}" for r in radii]),
        axis(what, [0.0, 100.0]),
        lines,
        bands,
        (how_far, "certified", "95 %", "under attack", "95 %"),
        [(f"{each.epsilon:.6g}", *_shown(each.certified), *_shown(each.attacked)) for each in summary.radii],
    )


def histogram(rows: Iterable[Row], asked: Question, name: str) -> Chart | None:
    """Of the ends of the brackets; or of the margins at the smallest radius. None where there is no number."""
    if asked.largest is not None:
        ends = [(row.certified, row.attacked) for row in rows]
        shown = {"certified radius": [c for c, _ in ends], "attacked radius": [a for _, a in ends]}
        across, title = f"radius ({DISTANCE[asked.norm]})", "radii of the inputs"
    else:
        least = min(map(float, asked.radii))
        shown = {"margin": [row.margin for row in rows if row.epsilon == least]}
        across, title = f"proved lower bound of the margin at radius {least:g}", "margins of the inputs"
    kept = {what: [v for v in values if v is not None] for what, values in shown.items()}
    kept = {what: values for what, values in kept.items() if values}
    if not kept:
        return None
    edges = np.histogram_bin_edges(np.concatenate(list(kept.values())), BINS)
    counts = {what: np.histogram(values, edges)[0].tolist() for what, values in kept.items()}
    places = list(pairwise(edges.tolist()))
    return Chart(
        f"{name}: {title}",
        f"How many inputs have a value in each of {BINS} ranges: "
        + "; ".join(f"{len(v)} {k}" for k, v in kept.items()),
        axis(across, [float(edges[0]), float(edges[-1])]),
        axis("inputs", [0.0, float(max(map(max, counts.values())))]),
        [Line(what, _outline(places, each), hue, marked=False) for hue, (what, each) in enumerate(counts.items())],
        [Band(what, _filled(places, each), hue) for hue, (what, each) in enumerate(counts.items())],
        (across, *counts),
        [(f"{a:.5g} to {b:.5g}", *(str(each[k]) for each in counts.values())) for k, (a, b) in enumerate(places)],
    )


def _outline(places: Sequence[tuple[float, float]], counts: Sequence[int]) -> list[tuple[float, float | None]]:
    """Of the bars, closed at both ends."""
    corners = [corner for (a, b), n in zip(places, counts, strict=True) for corner in ((a, float(n)), (b, float(n)))]
    return [(places[0][0], 0.0), *corners, (places[-1][1], 0.0)]


def _filled(places: Sequence[tuple[float, float]], counts: Sequence[int]) -> list[tuple[float, float, float]]:
    return [corner for (a, b), n in zip(places, counts, strict=True) for corner in ((a, 0.0, n), (b, 0.0, n))]


def _interval(radii: Sequence[float], shares: Sequence[Share]) -> list[tuple[float, float | None, float | None]]:
    return [(r, 100 * share.low, 100 * share.high) for r, share in zip(radii, shares, strict=True)]


def _shown(share: Share) -> tuple[str, str]:
    return f"{100 * share.value:.2f} %", f"{100 * share.low:.1f} to {100 * share.high:.1f}"

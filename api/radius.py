"""Robustness from Lipschitz constants: how far every input may move before another class can win.

If |(f_k - f_j)(x) - (f_k - f_j)(y)| <= L_kj |x - y| and (f_k - f_j)(x) >= m_kj, class k wins wherever |x - y| is below
min over j of m_kj / L_kj. The constants have a certificate; the margins m are the trusted kernel's interval arithmetic
at the input, in this process. No certificate of the kernel's joins the two.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from provenn.api.certification import ItemResult, LoadedModel
from provenn.api.lipschitz import LipschitzResult, Options, Readings, bound_statement
from provenn.api.lipschitz_question import Question, differences
from provenn.solvers.base import Progress, Verdict, silent
from provenn.verifier.certificate.lipschitz import Statement
from provenn.verifier.check import CertificateRejected, Network
from provenn.verifier.check.claims import row_margins
from provenn.verifier.check.rounding import float_below
from provenn.verifier.check.rows import Bounds, Box
from provenn.verifier.errors import BackendError

LIPSCHITZ = "lipschitz"
"""The name of this method among those of `provenn certify`."""

TINY = Fraction(1, 2**200)
"""Constants count as this at least: nothing is divided by zero."""

HOW = (
    "the certificate proves the Lipschitz constants of the differences of outputs; the margin at the input is rigorous "
    "interval arithmetic by the checker's own code, which `provenn check` does not repeat"
)
WRONG = "the margin at the input itself is not above 0: another class may win there"
Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Batch:
    """Inputs [n, inputs], finite, and the class of each that must win; norm of the radius: "2" or "inf"; target: the
    one class that must not win, or None for any.
    """

    inputs: Array
    labels: Sequence[int]
    norm: str = "2"
    target: int | None = None

    def rivals(self, label: int, classes: int) -> list[int]:
        """The classes that must not win."""
        return [j for j in (range(classes) if self.target is None else (self.target,)) if j != label]


@dataclass(frozen=True, eq=False)
class Radii:
    """One radius an input, 0 where nothing is proved; every input closer than that is classified as its label.

    gaps: for every input, by rival class, (its margin, the constant); empty where a margin is not finite.
    constants: the proof that they are made with; seconds: of everything.
    """

    radii: list[float]
    gaps: list[list[tuple[Fraction, Fraction]]]
    constants: LipschitzResult
    seconds: float

    def certified(self, epsilons: Sequence[Fraction]) -> list[ItemResult]:
        """One result an input and radius, all radii of an input first."""
        share = self.seconds / max(1, len(self.gaps) * len(epsilons))
        return [self._item(gaps, epsilon, share) for gaps in self.gaps for epsilon in epsilons]

    def _item(self, gaps: list[tuple[Fraction, Fraction]], epsilon: Fraction, seconds: float) -> ItemResult:
        found = self.constants
        if found.verdict != Verdict.VERIFIED or not gaps:
            verdict = found.verdict if found.verdict != Verdict.VERIFIED else str(Verdict.UNKNOWN)
            return ItemResult(verdict, LIPSCHITZ, None, seconds, reason=found.reason or WRONG, stats=found.stats)
        margin = min(gap - constant * epsilon for gap, constant in gaps)
        if margin > 0:
            proof, stats = found.certificate, found.stats
            sure = (str(Verdict.VERIFIED), LIPSCHITZ, float_below(margin), seconds, "checked", HOW)
            return ItemResult(*sure, certificate=proof, stats=stats)
        reason = WRONG if min(gap for gap, _ in gaps) <= 0 else "the Lipschitz constants do not reach so far"
        return ItemResult(
            str(Verdict.UNKNOWN), LIPSCHITZ, float_below(margin), seconds, reason=reason, stats=found.stats
        )

    def curve(self) -> list[dict[str, float]]:
        """Certified accuracy against radius: at every radius where it falls, the share of inputs that reach it."""
        ordered = sorted(radius for radius in self.radii if radius > 0)
        count = len(self.radii)
        rows = [{"radius": 0.0, "accuracy": len(ordered) / count}]
        steps = {radius: (len(ordered) - k) / count for k, radius in reversed(list(enumerate(ordered)))}
        return rows + [{"radius": radius, "accuracy": steps[radius]} for radius in sorted(steps)]

    def as_json(self) -> dict[str, Any]:
        """Everything but the certificate."""
        found = self.constants
        told = {"verdict": found.verdict, "norm": found.norm, "method": found.method, "seconds": self.seconds}
        told |= {"assurance": found.assurance, "reason": found.reason or (HOW if found.assurance else None)}
        return {**told, "radii": self.radii, "curve": self.curve(), "stats": found.stats}


def radii(model: LoadedModel, batch: Batch, options: Options, progress: Progress = silent) -> Radii:
    """Bounds the constants of all pairs with a label that occurs, once, then every input's margins.

    Raises: BackendError where the kernel has no intervals of the network; all that `bound` raises.
    """
    start = time.monotonic()
    if model.network is None:
        reason = f"margins at inputs need the trusted checker's intervals, and it has none: {model.unreadable}"
        raise BackendError(LIPSCHITZ, reason)
    classes = prod(model.graph.output_shape)
    asked = {(label, j) for label in batch.labels for j in batch.rivals(label, classes)}
    pairs = sorted({(min(pair), max(pair)) for pair in asked})
    if not pairs:
        raise BackendError(LIPSCHITZ, "there is no other class than the label")
    readings = Readings(model.graph, model.network)
    statement = Statement(differences(pairs, classes), batch.norm, "each")
    found = bound_statement(readings, Question(batch.norm, "each", "pairs"), statement, options, progress)
    uppers = found.upper if isinstance(found.upper, list) else []
    constants = {pair: max(TINY, Fraction(upper)) for pair, upper in zip(pairs, uppers, strict=False)}
    gaps: list[list[tuple[Fraction, Fraction]]] = []
    for number, (x, label) in enumerate(zip(batch.inputs.astype(np.float64), batch.labels, strict=True)):
        progress(number, len(batch.labels), "margins")
        rivals = batch.rivals(label, classes) if constants else []
        known = _margins(model.network, x, label, rivals)
        each = [
            (m, constants[min(label, j), max(label, j)]) for j, m in zip(rivals, known, strict=True) if m is not None
        ]
        gaps.append(each if len(each) == len(rivals) else [])
    return Radii([_radius(each) for each in gaps], gaps, found, time.monotonic() - start)


def _margins(network: Network, x: Array, label: int, rivals: Sequence[int]) -> list[Fraction | None]:
    """Proved lower bounds of f_label - f_j at a point, by rival j; None where nothing finite was proved."""
    outputs = network.steps[network.output].length
    rows = [tuple(Fraction((i == j) - (i == label)) for i in range(outputs)) for j in rivals]
    try:
        with np.errstate(all="ignore"):
            return row_margins(Bounds(network, Box(x, x)), [(row, Fraction(0)) for row in rows], "interval")
    except CertificateRejected as refusal:
        raise BackendError(LIPSCHITZ, f"the trusted checker has no intervals here: {refusal.reason}") from refusal


def _radius(gaps: Sequence[tuple[Fraction, Fraction]]) -> float:
    """Rounded down."""
    if not gaps:
        return 0.0
    return max(0.0, float_below(min(gap / constant for gap, constant in gaps)))

"""What is known of one question, whether it was answered in this process or by a service; a notebook shows it.

Imports no torch: a client that only checks certificates needs none.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from provenn.api.notebook import Bars, Card, Figure, Intervals, Picture, Table, short
from provenn.verifier.certificate.bundle import to_zip
from provenn.verifier.check.rows import Semantics

SHOWN = 8
"""Coordinates, or rows, of which a notebook shows the numbers."""
IMAGE = range(4, 513)
"""Heights and widths of what is shown as an image."""


@dataclass(frozen=True)
class Counterexample:
    """An input inside the region and the executor's unsafe output, flat, as float32 values.

    original: where the network begins with a layer of parameters, which are its inputs: the input of the network behind
    that layer, such as a perturbed image, at which it was executed.
    """

    input: list[float]
    output: list[float]
    original: list[float] | None = None


@dataclass(frozen=True, eq=False)
class Asked:
    """What robustness was asked about: the input [*input], its label, and the radius as it was given, in a norm."""

    input: NDArray[Any]
    label: int
    epsilon: float | str
    norm: str


@dataclass(frozen=True)
class Origin:
    """Which service has answered: its URL and the job; the model, and the certificate if there is one, by SHA-256.

    converted: the model is a canonical file that was made of what was uploaded, not the upload itself; `Client.file`
    has it, and a certificate is about that file.
    """

    url: str
    job: str
    model: str
    certificate: str | None = None
    converted: bool = False


@dataclass(frozen=True, eq=False)
class ItemResult:
    """What is known of one specification.

    margin: the largest proved lower bound (None if nothing was bounded); assurance: `checked` (re-proved by the
    kernel), `deployed` (so too, for every float32 execution), `computed` (floating point only), `replayed` (a
    counterexample, executed), `vacuous` (no input is allowed, so nothing was computed), or None; certificate: the
    bundle's files; semantics: those that were asked for; warnings: which sets of inputs are empty. asked: for what is
    shown, where one input was asked about; origin: where a service has answered.
    """

    verdict: str
    method: str
    margin: float | None
    seconds: float
    assurance: str | None = None
    reason: str | None = None
    counterexample: Counterexample | None = None
    certificate: dict[str, bytes] | None = None
    stats: dict[str, float] = field(default_factory=dict)
    semantics: Semantics = "real"
    warnings: tuple[str, ...] = ()
    asked: Asked | None = None
    origin: Origin | None = None

    def _repr_html_(self) -> str:
        """For notebooks: the verdict, what it is about, and a counterexample beside the original."""
        facts = [] if self.asked is None else _question(self.asked)
        facts += [("margin", short(self.margin))] if self.margin is not None else []
        facts += described(self.method, self.seconds, self.assurance)
        facts += [("arithmetic", self.semantics), *traced(self.certificate, self.origin)]
        notes = [text for text in (self.reason, *self.warnings) if text]
        return Card("Robustness", self.verdict, facts, self._figures(), notes).html()

    def _figures(self) -> list[Figure]:
        if self.asked is None or self.counterexample is None:
            return []
        given, found = self.asked.input.astype(float), np.array(self.counterexample.input)
        figures = pictures(given, found.reshape(given.shape)) or [_changes(given.ravel(), found)]
        return [*figures, Bars("outputs at the counterexample", self.counterexample.output, self.asked.label)]


@dataclass(frozen=True, eq=False)
class LipschitzResult:
    """What is known of one question.

    upper: proved, rounded up, None unless verified; lower: from a pair of inputs, in float64; for the output norm
    "each" both are lists, one number a row. gap: by how much of `upper` the best number of this kind of method may lie
    below it, as the solver has it; None if unknown. assurance: `checked` (re-proved by the kernel) or None;
    certificate: the bundle's files; well_posed: whether it is proved that implicit layers have one fixed point
    everywhere, None without such layers; verdict: verified, unknown or timeout, with the reason. origin: where a
    service has answered; `lower` and `gap` are then what it says.
    """

    verdict: str
    method: str
    norm: str
    output_norm: str
    rows: str
    seconds: float
    upper: float | list[float] | None = None
    lower: float | list[float] | None = None
    gap: float | None = None
    assurance: str | None = None
    certificate: dict[str, bytes] | None = None
    well_posed: bool | None = None
    reason: str | None = None
    stats: dict[str, float] = field(default_factory=dict)
    origin: Origin | None = None

    def _repr_html_(self) -> str:
        """For notebooks: the proved bound beside what inputs show."""
        facts = [("norms", f"{self.norm} to {self.output_norm}"), ("rows", self.rows)]
        uppers, lowers = _each(self.upper), _each(self.lower)
        if len(uppers) == 1:
            facts += [("at most", short(uppers[0]))]
            facts += [("at least", short(lowers[0]))] if lowers else []
        facts += [("well posed", "yes" if self.well_posed else "no")] if self.well_posed is not None else []
        facts += [*described(self.method, self.seconds, self.assurance), *traced(self.certificate, self.origin)]
        spans = [(lowers[i] if i < len(lowers) else 0.0, upper) for i, upper in enumerate(uppers)]
        figures = [Intervals("from what inputs show to what is proved, a row", spans)] if spans else []
        return Card("Lipschitz constant", self.verdict, facts, figures, [self.reason] if self.reason else []).html()


def described(method: str, seconds: float, assurance: str | None) -> list[tuple[str, str]]:
    """How a result came about."""
    return [("assurance", assurance or "none"), ("method", method), ("seconds", f"{seconds:.2f}")]


def traced(certificate: Mapping[str, bytes] | None, origin: Origin | None) -> list[tuple[str, str]]:
    """Which certificate, which model, which service."""
    facts = []
    if certificate is not None:
        known = origin.certificate if origin is not None else None
        facts.append(("certificate", f"sha256 {known or hashlib.sha256(to_zip(certificate)).hexdigest()}"))
    if origin is not None:
        what = "sha256 of the canonical file" if origin.converted else "sha256"
        facts += [("model", f"{what} {origin.model}"), ("job", f"{origin.job} at {origin.url}")]
    return facts


def pictures(given: NDArray[np.float64], found: NDArray[np.float64]) -> list[Figure]:
    """The original, the counterexample and their difference side by side; nothing if the input is no image."""
    first, second = image(given), image(found)
    if first is None or second is None:
        return []
    low, high = _range(first, second)
    both = [Picture(name, each, low, high) for name, each in (("original", first), ("counterexample", second))]
    return [*both, Picture("difference", second - first, None, None)]


def image(values: NDArray[np.float64]) -> NDArray[np.float64] | None:
    """[height, width, 1 or 3] of an input of rows, of channels of rows, or of rows of pixels; None for any other."""
    if values.ndim == 2:
        values = values[:, :, None]
    if values.ndim != 3:
        return None
    if values.shape[0] in (1, 3) and values.shape[2] not in (1, 3):
        values = np.moveaxis(values, 0, 2)
    shown = values.shape[2] in (1, 3) and all(side in IMAGE for side in values.shape[:2])
    return values if shown and np.isfinite(values).all() else None


def _range(*images: NDArray[np.float64]) -> tuple[float, float]:
    """What is black and what is white: 0 and 1 or 255 where all values fit, or else the least and the greatest."""
    low, high = min(float(each.min()) for each in images), max(float(each.max()) for each in images)
    if low >= 0 and high <= 255:
        return 0.0, 1.0 if high <= 1 else 255.0
    return low, high


def _question(asked: Asked) -> list[tuple[str, str]]:
    shape = " x ".join(map(str, asked.input.shape))
    return [("label", str(asked.label)), ("radius", f"{asked.epsilon} in norm {asked.norm}"), ("input", shape)]


def _changes(given: NDArray[np.float64], found: NDArray[np.float64]) -> Table:
    """The coordinates that differ most."""
    order = np.argsort(-np.abs(found - given), kind="stable")[:SHOWN].tolist()
    rows = [[str(i), *map(short, (given[i], found[i], found[i] - given[i]))] for i in order]
    more = f" (of {prod(given.shape)})" if given.size > SHOWN else ""
    return Table(f"inputs that change most{more}", ["input", "original", "counterexample", "change"], rows)


def _each(values: float | Sequence[float] | None) -> list[float]:
    if values is None:
        return []
    return list(values) if isinstance(values, Sequence) else [values]

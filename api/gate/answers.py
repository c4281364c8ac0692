"""From results to items: what every kind of answer says, whoever gave it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from provenn.api.batch.data import Data
from provenn.api.gate.found import Found, Item, sha256
from provenn.api.gate.questions import Trend
from provenn.api.gate.shown import moved
from provenn.api.gate.statements import Subject, Trends
from provenn.api.results import LipschitzResult
from provenn.verifier.certificate.bundle import to_zip

if TYPE_CHECKING:
    from provenn.api.monotonicity import Dependence, MonotonicityResult

SHOWN = 3
"""Pairs of inputs that are told."""


def constant_found(result: LipschitzResult) -> Found:
    """Of a Lipschitz constant; of several rows the largest numbers."""
    digest, certificates = kept(result.certificate)
    lower, upper = _largest(result.lower), _largest(result.upper)
    item = Item(result.verdict, result.assurance, digest, result.reason, lower=lower, upper=upper)
    return Found((item,), certificates)


def trend_found(question: Trend, asked: Trends, result: MonotonicityResult) -> Found:
    """Of dependences on features: contradicted by a pair, or all as expected, or undecided."""
    against = _contradictions(question, asked, result.dependences)
    if against:
        return Found((Item("falsified", "replayed", shown="; ".join(against[:SHOWN])),), {})
    if all(each.trend in (question.expect, "constant") for each in result.dependences):
        digest, certificates = kept(result.certificate)
        return Found((Item("verified", result.assurance, digest),), certificates)
    return Found((Item("timeout" if result.timed_out else "unknown", reason=result.reason),), {})


def classified(subject: Subject, data: Data) -> list[Item]:
    """What the executor makes of every input."""
    points = np.asarray(data.inputs, np.float32).reshape(-1, *subject.executor.input_shape)
    classes = subject.executor.run(points).reshape(len(points), -1).argmax(axis=1).tolist()
    rows = zip(data.names, data.labels, classes, strict=True)
    return [
        Item("verified" if label == own else "falsified", "executed", None, None, i, name, label=label, predicted=own)
        for i, (name, label, own) in enumerate(rows)
    ]


def at_radius(
    subject: Subject, data: Data, plain: Sequence[Item], radius: str, told: tuple[Item, Sequence[float] | None]
) -> Item:
    """An input's item at a radius, of what is told of it: a verdict, and a counterexample if there is one."""
    item, values = told
    own = plain[item.index]
    about = replace(item, name=own.name, radius=radius, label=own.label, predicted=own.predicted)
    if values is None:
        return about
    point = np.array(values, np.float32)
    outputs = subject.executor.run(point.reshape(1, *subject.executor.input_shape)).ravel()
    outputs[data.labels[item.index]] = -np.inf  # a tie is unsafe, too
    return replace(about, rival=int(outputs.argmax()), shown=moved(data.inputs[item.index], point))


def _largest(ends: float | list[float] | None) -> float | None:
    """Of the numbers of several rows."""
    return max(ends) if isinstance(ends, list) else ends


def _contradictions(question: Trend, asked: Trends, dependences: Sequence[Dependence]) -> list[str]:
    """Pairs of inputs that differ in one feature and change an output the wrong way."""
    rising = question.expect == "increasing"
    word = "falls" if rising else "rises"
    return [
        f"output row {each.row} {word} by {abs(pair.change):.6g} where {asked.names[each.column]} goes from "
        f"{pair.first.flat[each.column]:.6g} to {pair.second.flat[each.column]:.6g}"
        for each in dependences
        if (pair := each.fall if rising else each.rise) is not None
    ]


def kept(files: Mapping[str, bytes] | None) -> tuple[str | None, dict[str, bytes]]:
    """(digest, zips by digest) of a certificate."""
    if files is None:
        return None, {}
    data = to_zip(files)
    return sha256(data), {sha256(data): data}

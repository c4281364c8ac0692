"""Verdicts at some radii, for a chunk: the smallest first, for a counterexample is one at every larger radius."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np

from provenn.api.batch.chunk import Answered, Chunk, Radii, Told, later
from provenn.api.certification import ItemResult, certify
from provenn.solvers.base import Budget, Verdict


def verdicts(chunk: Chunk, budget: Budget, told: Told) -> Answered:
    """One row an input and radius, in the order asked.

    Every radius has an even share of the time that is left; what was too late is tried once more in the end.
    """
    question = chunk.asked.question
    ascending = sorted(question.radii)
    known = [chunk.point(place) if chunk.misclassified(place) else None for place in range(len(chunk))]
    found: dict[Fraction, list[ItemResult]] = {}
    for number, radius in enumerate(ascending):
        share = max(0.0, budget.left / (len(ascending) - number))
        found[radius] = _at(chunk, radius, known, share, later(told, number * len(chunk)))
        for place, item in enumerate(found[radius]):
            if known[place] is None and item.verdict == Verdict.FALSIFIED and item.counterexample is not None:
                point = np.array(item.counterexample.input, dtype=np.float32)
                known[place] = point.reshape(chunk.asked.model.graph.input_shape)
    _again(chunk, found, budget, told)
    answered = Answered()
    for place in range(len(chunk)):
        for radius in question.radii:
            answered.add(chunk, place, found[radius][place], Radii(float(radius)))
    return answered


def _again(chunk: Chunk, found: dict[Fraction, list[ItemResult]], budget: Budget, told: Told) -> None:
    """What was too late gets the time that all others have left."""
    late = [(r, k) for r, items in found.items() for k, item in enumerate(items) if item.verdict == Verdict.TIMEOUT]
    if not late or budget.left <= 0:
        return
    done = len(found) * len(chunk) - len(late)
    specifications = [chunk.specification(place, radius) for radius, place in late]
    options = replace(chunk.asked.options, seconds=budget.left)
    items = certify(chunk.asked.model, specifications, options, lambda ready, _, phase: told(done + ready, phase))
    for (radius, place), item in zip(late, items, strict=True):
        found[radius][place] = replace(item, seconds=item.seconds + found[radius][place].seconds)


def _at(chunk: Chunk, radius: Fraction, known: list[np.ndarray | None], seconds: float, told: Told) -> list[ItemResult]:
    """Of every input at one radius; known: for some inputs a point that may be a counterexample."""
    specifications = [chunk.specification(place, radius) for place in range(len(chunk))]
    items: dict[int, ItemResult] = {}
    for place, point in enumerate(known):
        item = None if point is None else chunk.replayed(specifications[place], point)
        if item is not None:
            items[place] = item
    todo = [place for place in range(len(chunk)) if place not in items]
    if todo:
        options = replace(chunk.asked.options, seconds=seconds)
        wanted = [specifications[place] for place in todo]
        after = later(told, len(items))
        answers = certify(chunk.asked.model, wanted, options, lambda done, _, phase: after(done, phase))
        items |= dict(zip(todo, answers, strict=True))
    return [items[place] for place in range(len(chunk))]

"""From the options of `provenn certify` to what is asked of the network: one question an input and radius."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from typer import BadParameter

from provenn.api.certification import ItemResult, LoadedModel, Options, certify
from provenn.api.cli.progress import Bar
from provenn.api.cli.request import Robustness
from provenn.api.files import read_inputs, read_labels
from provenn.api.lipschitz import Options as LipschitzOptions
from provenn.api.radius import LIPSCHITZ, Batch, radii
from provenn.api.report import Point
from provenn.models.specification import top_k
from provenn.models.specification.stated import Stated
from provenn.solvers.base import Budget
from provenn.verifier.errors import ProvennError, in_file
from provenn.verifier.numbers import exact, written
from provenn.verifier.spec import Specification
from provenn.verifier.spec_json import FORMAT, robustness

CHUNK = 256
"""Questions certified together: bounds the memory that exact rationals of many images take."""


@dataclass(frozen=True, eq=False)
class Questions:
    """What is asked, point by point, in the order of the answers: all radii of an input, then the next input.

    batch: the inputs of robustness questions. said: in words, what was asked so far with --top-k.
    """

    points: tuple[Point, ...]
    specifications: Iterator[Specification]
    batch: Batch | None = None
    said: Sequence[str] = ()


def from_stated(path: Path, stated: Stated, model: LoadedModel) -> Questions:
    """One question: what a file states of the network, which it must fit.   Raises: InvalidSpecification naming it."""
    found = stated.specification
    try:
        found.require_fits(math.prod(model.graph.input_shape), math.prod(model.graph.output_shape))
    except ProvennError as error:
        raise in_file(path, error) from None
    warnings = tuple(f"{path}: {warning}" for warning in found.warnings)
    return Questions((Point(None, None),), iter([replace(found, warnings=warnings)]))


def from_options(asked: Robustness, model: LoadedModel) -> Questions:
    """Robustness of every input at every radius.

    Raises: InvalidFile, typer.BadParameter naming the option; while iterating: InvalidSpecification.
    """
    classes = math.prod(model.graph.output_shape)
    inputs = read_inputs(asked.inputs, model.graph.input_shape)
    points = tuple(Point(i, float(exact(e))) for i in range(len(inputs)) for e in asked.epsilons)
    if asked.top is not None:
        said: list[str] = []
        return Questions(points, _of_top(asked, asked.top, inputs, model, said), said=said)
    try:
        labels = read_labels(asked.labels or "", len(inputs))
    except ValueError as reason:
        raise BadParameter(str(reason), param_hint="--label") from None
    for label in labels:
        require_class(label, classes, "--label")
    if asked.target is not None:
        require_class(asked.target, classes, "--target")

    def specifications() -> Iterator[Specification]:
        for values, label in zip(inputs.tolist(), labels, strict=True):
            for epsilon in asked.epsilons:
                yield robustness(
                    values,
                    label=label,
                    epsilon=epsilon,
                    norm=asked.norm,
                    outputs=classes,
                    clip=asked.clip,
                    target=asked.target,
                )

    return Questions(points, specifications(), Batch(inputs, labels, asked.norm, asked.target))


def _of_top(
    asked: Robustness, k: int, inputs: NDArray[np.floating], model: LoadedModel, said: list[str]
) -> Iterator[Specification]:
    """The k labels that the network has at each input stay; said gets each in words.   Raises: InvalidSpecification."""
    about = {"format": FORMAT, "kind": "top-k", "k": k, "ordered": asked.ordered}
    about |= {"norm": asked.norm, "clip": asked.clip}
    for values in inputs.tolist():
        centre = tuple(map(Fraction, values))
        for epsilon in asked.epsilons:
            document = top_k.Document.model_validate({**about, "input": centre, "epsilon": exact(epsilon)})
            specification, labels = top_k.specified(document, model.executor)
            cut = "" if document.clip is None else f" with values in [{', '.join(map(written, document.clip))}]"
            near = f"at most {epsilon} from the input in the norm {asked.norm}{cut}"
            said.append(f"{top_k.stay(document, labels)}, for all inputs {near}.")
            yield specification


def answer(model: LoadedModel, questions: Questions, options: Options, bar: Bar) -> list[ItemResult]:
    """One result a question, certified in chunks that share the time evenly."""
    if options.method == LIPSCHITZ and questions.batch is not None:
        for _ in questions.specifications:  # each is read: what makes no sense is refused
            continue
        epsilons = [exact(str(p.epsilon)) for p in questions.points if p.input == 0]
        found = radii(model, questions.batch, LipschitzOptions(seconds=options.seconds, seed=options.seed), bar)
        return found.certified(epsilons)
    budget = Budget(options.seconds)
    results: list[ItemResult] = []
    bar.total = len(questions.points)
    while len(results) < bar.total:
        chunk = list(islice(questions.specifications, CHUNK))
        share = budget.left * len(chunk) / (bar.total - len(results))
        bar.offset = len(results)
        results += certify(model, chunk, replace(options, seconds=max(0.0, share)), bar)
    return results


def require_class(number: int, classes: int, option: str) -> None:
    """Raises: BadParameter naming the option if there is no such class."""
    if not 0 <= number < classes:
        reason = f"{number} is not a class of this network; the classes are 0 to {classes - 1}"
        raise BadParameter(reason, param_hint=option)

"""The network of a query, and whether its unsafe set is excluded: by the kernel alone, without torch, where it can.

Two candidates for the network: the joined one, and that with choices and casts written with steps. A candidate must
agree with what the files compute at points of the query before anything it proves is believed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple, TypedDict, Unpack

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto

from provenn.api.vnnlib.deadline import Deadline
from provenn.api.vnnlib.trying import terms
from provenn.models.query.binding import Implementation
from provenn.models.query.joining import joined, serialised
from provenn.models.query.matrices import with_matrices
from provenn.models.query.replaying import Execution
from provenn.models.query.stepping import written_with_steps
from provenn.verifier.check import CertificateRejected, Network, read_network
from provenn.verifier.check.claims import row_margins
from provenn.verifier.check.rows import Bounds, Box, Semantics
from provenn.verifier.check.specification import Case, read_json
from provenn.verifier.errors import InvalidModel
from provenn.verifier.query.meaning import Layout, Meaning, Watched, watching

if TYPE_CHECKING:
    from provenn.api.certification import LoadedModel

Samples = Sequence[tuple["Point", Execution]]

Point = NDArray[np.float32]
Errors = NDArray[np.float64]


class How(TypedDict, total=False):
    """Options of `searched`."""

    method: str
    semantics: Semantics


class Found(NamedTuple):
    """A verdict on the network of the query, the point of its counterexample, how sure it is, and why no more."""

    verdict: str
    point: Point | None
    assurance: str | None
    reason: str | None


class Read(NamedTuple):
    """A candidate as the kernel reads it, `itself` or rewritten for it.

    errors [terms]: how far what the files compute was from real arithmetic on their numbers, at the samples.
    """

    network: Network
    errors: Errors
    itself: bool


LONGEST = 1e6
"""Seconds that are as good as no limit."""

NEAR = 1e-3
"""How far a candidate may be from what the files compute, relative to 1 + the largest value."""

SMALL, ROWS, FEW = 1 << 20, 64, 1 << 16
"""Numbers in matrices, rows of a specification, and bytes of a network to be written with matrices, up to which the
kernel is asked before torch is loaded."""


UNWATCHED = Watched()


@dataclass(frozen=True, eq=False)
class Candidate:
    """A network that computes the terms of the layout, and more outputs that a proof must watch.

    rewritten: it does not execute the files' own operations.
    """

    content: bytes
    watched: Watched = UNWATCHED
    rewritten: bool = False

    def asked(self, meant: Meaning, where: Layout) -> Meaning:
        """The specification of this network."""
        return meant if self.watched == UNWATCHED else watching(meant, len(where.terms), self.watched)


def candidates(implementations: Sequence[Implementation], where: Layout) -> Iterator[Candidate]:
    """The joined network, then the one written with steps.   Raises: InvalidModel, UnsupportedOp."""
    together = joined(implementations, where)
    yield Candidate(serialised(together))
    stepped = written_with_steps(together)
    yield Candidate(serialised(stepped.model), stepped.watched, rewritten=True)


def read_by_kernel(candidate: Candidate, where: Layout, samples: Samples) -> Read | None:
    """The candidate as the trusted kernel reads it: small networks of its operators.

    None where it does not, or not the function that the files compute at the samples.
    """
    try:
        network, itself = _network(candidate.content)
    except (CertificateRejected, InvalidModel):
        return None
    sizes = [step.length for step in network.steps]
    if sum(a * b for a, b in pairwise(sizes)) > SMALL:
        return None
    boxes = []
    for point, _ in samples:
        exact = point.astype(np.float64)
        boxes.append(Bounds(network, Box(exact, exact)).box(network.output))
    errors = deviations(samples, where, [(box.lower, box.upper) for box in boxes])
    return None if errors is None else Read(network, errors, itself and not candidate.rewritten)


def proved_by_kernel(network: Network, meant: Meaning, semantics: Semantics) -> bool:
    """Whether the trusted kernel's own bounds exclude every clause, of few rows.   False says nothing."""
    try:
        with np.errstate(all="ignore"):
            return few(meant) and all(_excluded(network, c, semantics) for c in read_json(meant.specification.text))
    except CertificateRejected:
        return False


def few(meant: Meaning) -> bool:
    """Whether its clauses have few enough rows to be tried so."""
    return sum(len(clause.bound) for case in meant.specification.cases for clause in case.clauses) <= ROWS


def _network(content: bytes) -> tuple[Network, bool]:
    """As the kernel reads it; a small network that it refuses also with matrices for what copies and adds entries.

    Raises: CertificateRejected, InvalidModel.
    """
    try:
        return read_network(content), True
    except CertificateRejected:
        if len(content) > FEW:
            raise
    return read_network(with_matrices(ModelProto.FromString(content)).SerializeToString()), False


def deviations(samples: Samples, where: Layout, exact: Sequence[tuple[Errors, Errors]]) -> Errors | None:
    """How far the files' values of each term were from intervals of the exact ones, at most, at the samples.

    The intervals may have more outputs after the terms. None where a value is not finite, or further away than NEAR of
    1 + the largest value: the candidate is another function.
    """
    found = np.zeros(len(where.terms))
    for (_, execution), ends in zip(samples, exact, strict=True):
        values = terms(execution, where)
        lower, upper = (end[: len(values)] for end in ends)
        if not all(np.isfinite(part).all() for part in (values, lower, upper)):
            return None
        gap = np.maximum(np.abs(values - lower), np.abs(values - upper))
        if (np.maximum(lower - values, values - upper) > NEAR * (1 + np.abs(values).max())).any():
            return None
        found = np.maximum(found, gap)
    return found if samples else None


def _excluded(network: Network, case: Case, semantics: Semantics) -> bool:
    """Whether every clause has a row with a proved margin above 0.   Raises: CertificateRejected."""
    bounds = Bounds(network, *case.region(), semantics)
    open_ = dict(enumerate(case.clauses))
    for way in ("interval", "crown"):
        rows = [(k, row, d) for k, clause in open_.items() for row, d in zip(*clause, strict=True)]
        margins = row_margins(bounds, [(row, d) for _, row, d in rows], way) if rows else []
        for (k, _, _), margin in zip(rows, margins, strict=True):
            if margin is not None and margin > Fraction(0):
                open_.pop(k, None)
    return not open_


def loaded(candidate: Candidate, where: Layout, samples: Samples) -> tuple[LoadedModel, Errors]:
    """The candidate as the engine reads it, and the errors of what the files compute.

    Raises: InvalidModel if it does not agree with what the files compute at the samples; UnsupportedOp, ResourceLimit.
    """
    import torch

    from provenn.api.certification import load_model

    model = load_model(candidate.content)
    exact = []
    for point, _ in samples:
        shaped = torch.from_numpy(point).double().reshape(1, *model.graph.input_shape)
        values = model.graph.forward(shaped).numpy().ravel()
        exact.append((values, values))
    errors = deviations(samples, where, exact)
    if errors is None:
        raise InvalidModel("the network of the query does not compute what its files do; nothing is proved of it")
    return model, errors


def searched(model: LoadedModel, meant: Meaning, deadline: Deadline, **how: Unpack[How]) -> Found:
    """What the ordinary path finds in the time left."""
    from provenn.api.certification import Options, certify

    seconds = min(max(deadline.left, 0.0), LONGEST)
    (found,) = certify(model, [meant.specification], Options(seconds=seconds, **how))
    shown = found.counterexample
    point = None if shown is None else np.array(shown.input, np.float32)
    return Found(found.verdict, point, found.assurance, found.reason)

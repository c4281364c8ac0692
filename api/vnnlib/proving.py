"""The network of a query, and whether its unsafe set is excluded: by the kernel alone, without torch, where it can.

Two candidates for the network: the joined one, and that with choices and casts written with steps. A candidate must
agree with what the files compute at points of the query before anything it proves is believed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

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
from provenn.verifier.check.rows import Bounds, Box
from provenn.verifier.check.specification import Case, read_json
from provenn.verifier.errors import InvalidModel
from provenn.verifier.query.meaning import Layout, Meaning, Watched, watching

if TYPE_CHECKING:
    from provenn.api.certification import LoadedModel

Samples = Sequence[tuple["Point", Execution]]

Point = NDArray[np.float32]


class Found(NamedTuple):
    """A verdict on the network of the query, the point of its counterexample, and why there is no more."""

    verdict: str
    point: Point | None
    reason: str | None


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
    """A network that computes the terms of the layout, and more outputs that a proof must watch."""

    content: bytes
    watched: Watched = UNWATCHED

    def asked(self, meant: Meaning, where: Layout) -> Meaning:
        """The specification of this network."""
        return meant if self.watched == UNWATCHED else watching(meant, len(where.terms), self.watched)


def candidates(implementations: Sequence[Implementation], where: Layout) -> Iterator[Candidate]:
    """The joined network, then the one written with steps.   Raises: InvalidModel, UnsupportedOp."""
    together = joined(implementations, where)
    yield Candidate(serialised(together))
    stepped = written_with_steps(together)
    yield Candidate(serialised(stepped.model), stepped.watched)


def proved_by_kernel(candidate: Candidate, meant: Meaning, where: Layout, samples: Samples) -> bool:
    """Whether the trusted kernel's own bounds exclude every clause: small networks of the operators it reads.

    False says nothing.
    """
    try:
        network = _network(candidate.content)
        cases = read_json(candidate.asked(meant, where).specification.text)
    except (CertificateRejected, InvalidModel):
        return False
    sizes = [network.steps[i].length for i in range(len(network.steps))]
    rows = sum(len(clause.bound) for case in cases for clause in case.clauses)
    if sum(a * b for a, b in pairwise(sizes)) > SMALL or rows > ROWS or not _agrees(network, where, samples):
        return False
    with np.errstate(all="ignore"):
        return all(_excluded(network, case) for case in cases)


def _network(content: bytes) -> Network:
    """As the kernel reads it; a small network that it refuses also with matrices for what copies and adds entries.

    Raises: CertificateRejected, InvalidModel.
    """
    try:
        return read_network(content)
    except CertificateRejected:
        if len(content) > FEW:
            raise
    return read_network(with_matrices(ModelProto.FromString(content)).SerializeToString())


def _agrees(network: Network, where: Layout, samples: Samples) -> bool:
    """Whether the kernel's network has at the samples what the files compute there."""
    for point, execution in samples:
        exact = point.astype(np.float64)
        box = Bounds(network, Box(exact, exact)).box(network.output)
        if not near(terms(execution, where), box.lower, box.upper):
            return False
    return bool(samples)


def near(values: NDArray[np.float64], lower: NDArray[np.float64], upper: NDArray[np.float64]) -> bool:
    """Whether values lie within NEAR of an interval; the interval may have more outputs after them."""
    lower, upper = lower[: len(values)], upper[: len(values)]
    if not all(np.isfinite(part).all() for part in (values, lower, upper)):
        return False
    slack = NEAR * (1 + np.abs(values).max())
    return bool(((lower - slack <= values) & (values <= upper + slack)).all())


def _excluded(network: Network, case: Case) -> bool:
    """Whether every clause has a row with a proved margin above 0."""
    bounds = Bounds(network, *case.region())
    open_ = dict(enumerate(case.clauses))
    for way in ("interval", "crown"):
        rows = [(k, row, d) for k, clause in open_.items() for row, d in zip(*clause, strict=True)]
        try:
            margins = row_margins(bounds, [(row, d) for _, row, d in rows], way) if rows else []
        except CertificateRejected:
            return False
        for (k, _, _), margin in zip(rows, margins, strict=True):
            if margin is not None and margin > Fraction(0):
                open_.pop(k, None)
    return not open_


def loaded(candidate: Candidate, where: Layout, samples: Samples) -> LoadedModel:
    """The candidate as the engine reads it.

    Raises: InvalidModel if it does not agree with what the files compute at the samples; UnsupportedOp, ResourceLimit.
    """
    import torch

    from provenn.api.certification import load_model

    model = load_model(candidate.content)
    for point, execution in samples:
        shaped = torch.from_numpy(point).double().reshape(1, *model.graph.input_shape)
        exact = model.graph.forward(shaped).numpy().ravel()
        if not near(terms(execution, where), exact, exact):
            raise InvalidModel("the network of the query does not compute what its files do; nothing is proved of it")
    return model


def searched(model: LoadedModel, meant: Meaning, deadline: Deadline, method: str = "auto") -> Found:
    """What the ordinary path finds in the time left."""
    from provenn.api.certification import Options, certify

    seconds = min(max(deadline.left, 0.0), LONGEST)
    (found,) = certify(model, [meant.specification], Options(method=method, seconds=seconds))
    shown = found.counterexample
    return Found(found.verdict, None if shown is None else np.array(shown.input, np.float32), found.reason)

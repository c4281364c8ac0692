"""What is believed of a service's answer about derivatives: signs and bounds that a certificate proves here, and pairs
of inputs that the local executor has run. What else it says of them is dropped, or marked as its word.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import inf
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from provenn.api import jacobian, monotonicity
from provenn.api.client.errors import UnexpectedAnswer
from provenn.api.client.evidence import UNPROVED, VERIFIED, Answer, require_same, single, statement
from provenn.api.domain import Place
from provenn.api.jacobian import JacobianResult
from provenn.api.lipschitz_question import matrix
from provenn.api.monotonicity import Dependence, MonotonicityResult
from provenn.api.schemas import Change
from provenn.api.schemas import Dependence as Told
from provenn.solvers.ranges import Ranges
from provenn.solvers.trend import SIGNIFICANT, Pair
from provenn.verifier.check import CertificateRejected, Network, check, read_network
from provenn.verifier.check.specification import read_jacobian

if TYPE_CHECKING:
    from provenn.models.reading import Executor

Numbers = NDArray[np.float64]
Ends = Mapping[tuple[int, int], tuple[float, float]]
"""(row, column) -> the proved lower and upper end of a derivative, infinite where there is none."""
CONTRADICTED = "a pair of inputs that was executed here says otherwise"
WORD = "the service says more than its certificate, and pairs executed here, show"


@dataclass(frozen=True, eq=False)
class Trends:
    """A question about monotonicity, for inputs of a shape."""

    question: monotonicity.Question
    shape: tuple[int, ...]

    def judged(self, answer: Answer) -> MonotonicityResult:
        """Raises: CertificateRejected for a certificate that is none of this; UnexpectedAnswer; InvalidModel."""
        item, asked = answer.item, self.question
        told = {(each.row, each.column): each for each in item.monotonicity or ()}
        network = read_network(answer.model, slopes=True)
        rows = matrix(asked.rows, network.steps[network.output].length)
        keys = [(row, column) for row in range(len(rows)) for column in asked.columns]
        if told.keys() != set(keys):
            raise UnexpectedAnswer("the service's answer is not about the rows and features that were asked about")
        ends = _proved(answer.files, network, rows, asked.places)
        witnesses = _Witnesses(self, answer.model, np.array(rows))
        found = [_dependence(told[key], key, ends.get(key, (-inf, inf)), witnesses) for key in keys]
        short = any(each.trend != told[each.row, each.column].trend for each in found)
        reason = f"{WORD}; {item.reason}" if short and item.reason else WORD if short else item.reason
        files = answer.files if ends else None
        about = (tuple(found), item.method, item.seconds, "checked" if ends else None, files, reason)
        late = answer.undecided == "timeout"
        return MonotonicityResult(*about, timed_out=late, origin=answer.origin, expected=asked.expected)


class _Witnesses:
    """Pairs of inputs, executed here."""

    def __init__(self, asked: Trends, model: bytes, rows: Numbers) -> None:
        self._asked, self._model, self._rows = asked, model, rows
        self._executor: Executor | None = None

    def replayed(self, change: Change | None, row: int, column: int, sign: int) -> Pair | None:
        """The pair, if both inputs lie in one region, differ in this coordinate alone, and the row changes this way."""
        first, second = (None if c is None else single(c, self._asked.shape) for c in _ends(change))
        if first is None or second is None or not self._are_pair(first, second, column):
            return None
        outputs = self._run(np.stack([first, second])).reshape(2, -1).astype(np.float64) @ self._rows[row]
        moved, size = float(outputs[1] - outputs[0]), float(np.abs(self._rows[row]).sum() * np.abs(outputs).max())
        return Pair(first, second, moved) if sign * moved > SIGNIFICANT * size else None

    def _are_pair(self, first: NDArray[np.float32], second: NDArray[np.float32], column: int) -> bool:
        away = (second.astype(np.float64) - first).ravel()
        alone = away[column] > 0 and not np.delete(away, column).any()
        return bool(alone) and any(_allows(place, first, second) for place in self._asked.question.places)

    def _run(self, inputs: NDArray[np.float32]) -> NDArray[np.float32]:
        from provenn.models.reading import executor

        self._executor = self._executor or executor(self._model)
        return self._executor.run(inputs)


def _ends(change: Change | None) -> tuple[list[float] | None, list[float] | None]:
    return (None, None) if change is None else (change.first, change.second)


def _allows(place: Place, first: NDArray[np.float32], second: NDArray[np.float32]) -> bool:
    """Whether both inputs lie in the region, and have values that features of a few values take."""
    taken = all(float(x.ravel()[c]) in values for c, values in place.values.items() for x in (first, second))
    return taken and place.set.contains(first) and place.set.contains(second)


def _dependence(told: Told, key: tuple[int, int], ends: tuple[float, float], witnesses: _Witnesses) -> Dependence:
    """Raises: CertificateRejected where a pair contradicts what was proved."""
    fall, rise = (witnesses.replayed(pair, *key, sign) for pair, sign in ((told.fall, -1), (told.rise, 1)))
    found = Dependence(*key, *ends, fall, rise)
    if (fall and found.lower >= 0) or (rise and found.upper <= 0):
        raise CertificateRejected(f"output row {key[0]}, input {key[1]}", CONTRADICTED)
    return found


@dataclass(frozen=True, eq=False)
class Derivatives:
    """A question about the derivatives over one region."""

    question: jacobian.Question

    def judged(self, answer: Answer) -> JacobianResult:
        """Raises: CertificateRejected for a certificate that is none of this; UnexpectedAnswer."""
        item, told, asked = answer.item, answer.item.jacobian, self.question
        network = read_network(answer.model, slopes=True)
        rows = matrix(asked.rows, network.steps[network.output].length)
        shape = len(rows), network.steps[0].length
        seen = None if told is None else _seen(told.seen_lower, told.seen_upper, shape)
        if seen is None:
            raise UnexpectedAnswer("the service's answer says nothing of the derivatives that were asked about")
        about = (answer.undecided, item.method, item.seconds, seen)
        known = JacobianResult(*about, reason=item.reason, origin=answer.origin)
        if item.verdict != VERIFIED or answer.files is None:
            return replace(known, reason=UNPROVED if item.verdict == VERIFIED else item.reason)
        ends = _proved(answer.files, network, rows, [asked.place])
        both = np.array([[ends.get((i, j), (-inf, inf)) for j in range(shape[1])] for i in range(shape[0])])
        if not np.isfinite(both).all():
            raise CertificateRejected("entries", "it does not bound every derivative that was asked about")
        proved = replace(known, verdict=VERIFIED, lower=both[..., 0], upper=both[..., 1])
        return replace(proved, assurance="checked", certificate=answer.files)


def _seen(lower: list[list[float | None]], upper: list[list[float | None]], shape: tuple[int, int]) -> Ranges | None:
    """What the service says of points of the region; nothing if it is of another shape."""
    ends = [
        np.array([[default if value is None else value for value in row] for row in given], float)
        if {len(row) for row in given} == {shape[1]}
        else np.zeros(0)
        for given, default in ((lower, inf), (upper, -inf))
    ]
    return Ranges(*ends) if all(end.shape == shape for end in ends) else None


def _proved(
    files: Mapping[str, bytes] | None, network: Network, rows: Sequence[Sequence[float]], places: Sequence[Place]
) -> Ends:
    """What the certificate proves of these rows over all of these regions.   Raises: CertificateRejected."""
    if files is None:
        return {}
    report = check(files, network)
    sizes = network.steps[0].length, network.steps[network.output].length
    stated, wanted = (read_jacobian(text, *sizes) for text in (statement(files), _asked(rows, places)))
    require_same((stated.rows, stated.regions) == (wanted.rows, wanted.regions))
    found: dict[tuple[int, int], tuple[float, float]] = {}
    for row, column, low, high in report.entries:
        known = found.get((row, column), (-inf, inf))
        found[row, column] = (max(known[0], -inf if low is None else low), min(known[1], inf if high is None else high))
    return found


def _asked(rows: Sequence[Sequence[float]], places: Sequence[Place]) -> bytes:
    """A statement about these rows over these regions, as a certificate has it."""
    content: dict[str, Any] = {"format": "provenn-specification/1", "kind": "jacobian"}
    content |= {"outputs": [[float(c).hex() for c in row] for row in rows], "entries": [[0, 0, None, None]]}
    return json.dumps(content | {"regions": [place.stated for place in places]}).encode()

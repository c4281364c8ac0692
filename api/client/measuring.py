"""Measurements that a service makes: there is nothing to check about them, and nobody has to believe them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from provenn.api.client.errors import UnexpectedAnswer
from provenn.api.client.evidence import Answer
from provenn.api.tightness_schemas import TightnessRequest

if TYPE_CHECKING:
    from provenn.api.tightness import Question, TightnessResult


def requested(question: Question) -> TightnessRequest:
    """The question as a request has it."""
    return TightnessRequest(
        inputs=question.inputs.reshape(len(question.inputs), -1).tolist(),
        labels=None if question.labels is None else question.labels.tolist(),
        epsilon=question.epsilon,
        clip=question.clip,
        layers=question.layers,
    )


@dataclass(frozen=True, eq=False)
class Measured:
    """Who reads the answer."""

    question: Question

    def judged(self, answer: Answer) -> TightnessResult:
        """What the service says.   Raises: UnexpectedAnswer if it is about something else."""
        from provenn.api.tightness import LayerTightness, TightnessResult

        told = answer.item.tightness
        rows: NDArray[np.float64] = np.array([] if told is None else told.outputs)
        if told is None or rows.ndim != 2 or len(rows) != len(self.question.inputs):
            raise UnexpectedAnswer("the service has not measured the tightness at these inputs")
        layers = tuple(LayerTightness(each.name, each.op, each.tightness) for each in told.layers)
        return TightnessResult(told.tightness, rows, layers, answer.item.seconds, answer.origin)

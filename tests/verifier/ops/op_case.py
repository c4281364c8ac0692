"""What a row of the table is made of."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from provenn.verifier.interval import Interval
from provenn.verifier.ops.base import Op


@dataclass(frozen=True, eq=False)
class OnnxNode:
    """The ONNX node that the op is read from; an operand None stands for the next graph input."""

    op_type: str
    operands: tuple[Any, ...] = (None,)
    attributes: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Case:
    name: str
    op: Op
    shapes: tuple[tuple[int, ...], ...]
    node: OnnxNode | None
    """None where ONNX, which aligns shapes from the right with the batch axis in them, has no single node for it."""
    domain: tuple[float, float] = (-float("inf"), float("inf"))
    """Of functions that are not defined everywhere, or overflow."""

    def inputs(self, batch: int, seed: int, dtype: torch.dtype = torch.float64) -> tuple[Tensor, ...]:
        generator = torch.Generator().manual_seed(seed)
        drawn = (torch.randn((batch, *s), generator=generator, dtype=dtype) for s in self.shapes)
        low, high = self.domain
        return tuple(low + 1 + x.abs() if low >= 0 and high > 9 else x.clamp(low + 1, high - 1) for x in drawn)

    def within(self, box: Interval) -> Interval:
        """The box, moved and cut until it lies in the domain."""
        low, high = self.domain
        if low >= 0:
            box = Interval(torch.minimum(low + box.lower.abs(), low + box.upper.abs()), low + 2 * box.upper.abs())
        return Interval(box.lower.clamp(low, high), torch.maximum(box.lower, box.upper).clamp(low, high))


def numbers(*shape: int) -> Tensor:
    """Deterministic, exact in float32, so that both precisions hold the same op."""
    generator = torch.Generator().manual_seed(sum(shape) + 31 * len(shape))
    return torch.randn(shape, generator=generator, dtype=torch.float32).double()


def integers(*values: int) -> np.ndarray:
    return np.array(values, dtype=np.int64)


def scalar(value: float) -> Tensor:
    return torch.tensor(value, dtype=torch.float64)

"""The ATen operators that are read, each by one function: (writer, call) -> what its results stand for."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from provenn.models.onnx_writer import Writer
from provenn.models.pt2.call import Call, Held
from provenn.models.pt2.operators import layers, movement, pointwise, products, reductions

Reader = Callable[[Writer, Call], Sequence[Held]]

OPERATORS: dict[str, Reader] = {
    **layers.TABLE,
    **movement.TABLE,
    **pointwise.TABLE,
    **products.TABLE,
    **reductions.TABLE,
}
"""By torch's name without "torch.ops.aten."."""

VIEWS = movement.VIEWS
"""Operators whose result shares memory with their first argument, or may do so."""

IN_PLACE = tuple(pointwise.TABLE)
"""Operators whose variant with an underscore, which overwrites its first argument, is read too."""

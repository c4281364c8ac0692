"""Linear bounds of a node over the network's input, as forward mode carries them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from provenn.verifier.interval import Interval


def scale(dtype: torch.dtype) -> float:
    """The power of two by which coefficients are held larger than they are.

    An affine op's offset that is added to them and subtracted again leaves an error of eps^3 offset: none.
    """
    return torch.finfo(dtype).eps ** -2


@dataclass(frozen=True, eq=False)
class Form:
    """middle x - radius x <= node <= middle x + radius x  for every x of the region, where x ends with a 1.

    middle, radius [columns, batch, *node]: one column for every coordinate of the input, which holds `scale` times the
    coefficients, and the constant last; or the constant alone, the other columns being zero. Coefficients have any
    sign, but radius x is not negative over the region. radius None stands for zero; batch is 1 where all regions share
    the form.
    """

    middle: Tensor
    radius: Tensor | None

    @classmethod
    def between(cls, middle: Tensor, radius: Tensor, lower: Tensor, upper: Tensor) -> Form:
        """From columns that are the caller's alone, and a constant for either bound that is added to them."""
        middle[-1:] += (lower + upper) / 2
        radius[-1:] += (upper - lower) / 2
        return cls(middle, radius)

    @classmethod
    def constant(cls, box: Interval) -> Form:
        """The bounds of a box [batch, *node], whatever the input."""
        return cls(((box.lower + box.upper) / 2).unsqueeze(0), ((box.upper - box.lower) / 2).unsqueeze(0))

    def lower(self) -> Tensor:
        """The form that bounds from below: [columns, batch, *node]."""
        return self.middle if self.radius is None else self.middle - self.radius

    def upper(self) -> Tensor:
        """The form that bounds from above."""
        return self.middle if self.radius is None else self.middle + self.radius


def common(forms: Sequence[Form]) -> list[Form]:
    """The forms with as many columns and regions each, and either all or none with a radius."""
    columns, batch = (max(f.middle.shape[axis] for f in forms) for axis in (0, 1))
    exact = all(f.radius is None for f in forms)

    def stretched(x: Tensor) -> Tensor:
        if x.shape[0] < columns:
            x = torch.cat([x.new_zeros((columns - x.shape[0], *x.shape[1:])), x])
        return x.expand(columns, batch, *x.shape[2:])

    def radius(form: Form) -> Tensor | None:
        if exact:
            return None
        zero = form.middle.new_zeros(()).expand(form.middle.shape)
        return stretched(zero if form.radius is None else form.radius)

    return [Form(stretched(form.middle), radius(form)) for form in forms]


def combined(
    lower: tuple[Sequence[Tensor], Tensor | None], upper: tuple[Sequence[Tensor], Tensor | None], forms: Sequence[Form]
) -> Form:
    """The form of a flat node with  sum_i A_i z_i + a <= node <= sum_i B_i z_i + b, from (A, a), (B, b) and forms of z.

    A_i, B_i: [rows, batch, *input_i], the node being [rows]; a, b: [rows, batch] or None for zero. The forms have
    columns and batch in common. With z = m + e, |e| <= r:  A z >= A m - |A| r.
    """
    low, high = _least(lower[0], forms, -1), _least(upper[0], forms, 1)
    below, above = (torch.zeros_like(low[-1]) if c is None else c.T for c in (lower[1], upper[1]))
    return Form.between((low + high) / 2, (high - low) / 2, below, above)


def _least(rows: Sequence[Tensor], forms: Sequence[Form], sign: int) -> Tensor:
    """Sum of A m + sign |A| r: [columns, batch, rows], from A [rows, batch, *input]."""
    total: Tensor | None = None
    for some, form in zip(rows, forms, strict=True):
        flat = some.reshape(*some.shape[:2], -1)
        part = _applied(flat, form.middle)
        part = part if form.radius is None else part + sign * _applied(flat.abs(), form.radius)
        total = part if total is None else total + part
    assert total is not None
    return total


def _applied(rows: Tensor, columns: Tensor) -> Tensor:
    flat = columns.reshape(*columns.shape[:2], -1).expand(-1, rows.shape[1], -1)
    return torch.einsum("sbn,cbn->cbs", rows, flat)

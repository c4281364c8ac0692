"""Rows pulled back through two lines a coordinate, with a derivative that stores one tensor of their size."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor


def pull(
    coefficients: Tensor, low: Tensor, low_intercept: Tensor | None, high: Tensor, high_intercept: Tensor
) -> tuple[Tensor, Tensor]:
    """(B, c) with  B z + c = A+ (low z + low_intercept) + A- (high z + high_intercept).

    A [spec, batch, *node]; lines [batch, *node] or [spec, batch, *node]; B as A, c [spec, batch]. As A = A+ + A-,
    A low + A- (high - low) needs one pass less; it rounds like the steeper of the two lines.
    """
    negative = coefficients.clamp(max=0)
    pulled = (coefficients * low).addcmul_(negative, high - low)
    constant = weighed(negative, high_intercept)
    if low_intercept is not None:
        constant = constant + weighed(coefficients.clamp(min=0), low_intercept)
    return pulled, constant


def weighed(coefficients: Tensor, values: Tensor) -> Tensor:
    """Sum over the node of coefficients [spec, batch, *node] times values [(spec,) batch, *node]: [spec, batch]."""
    if values.dim() == coefficients.dim():
        return (coefficients * values).reshape(*coefficients.shape[:2], -1).sum(2)
    rows = coefficients.reshape(*coefficients.shape[:2], -1)
    return torch.einsum("sbn,bn->sb", rows, values.reshape(values.shape[0], -1))


def vector_jacobian(
    function: Callable[..., Tensor], zeros: Sequence[Tensor], rows: Tensor, live: bool = False
) -> tuple[Tensor, ...]:
    """The rows [rows, *output] times the matrices of a function that is affine in inputs like `zeros` [rows, *input_i].

    Differentiable in the rows where they ask for it; live: and in the function's parameters. torch.func.vjp is the same
    after an import of 1.8 s.
    """
    follow = torch.is_grad_enabled() and (live or rows.requires_grad)
    with torch.enable_grad():
        leaves = [zero.detach().requires_grad_() for zero in zeros]
        value = function(*leaves)
        return torch.autograd.grad(value, leaves, rows, create_graph=follow, materialize_grads=True)


class Pull(torch.autograd.Function):
    """`pull` from A, differentiable in A and in all lines. Stores A and the lines."""

    @staticmethod
    def through(coefficients: Tensor, *lines: Tensor | None) -> tuple[Tensor, Tensor]:
        """`pull` of the coefficients."""
        pulled: tuple[Tensor, Tensor] = Pull.apply(coefficients, *lines)  # type: ignore[no-untyped-call]
        return pulled

    @staticmethod
    def forward(  # noqa: D102 -- torch's interface
        ctx: Any, coefficients: Tensor, low: Tensor, low_intercept: Tensor | None, high: Tensor, high_intercept: Tensor
    ) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(coefficients, low, low_intercept, high, high_intercept)
        return pull(coefficients, low, low_intercept, high, high_intercept)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:  # noqa: D102 -- torch's interface
        coefficients, low, low_intercept, high, high_intercept = ctx.saved_tensors
        value, weight = grads[0], grads[1].reshape(*grads[1].shape, *(1,) * (coefficients.dim() - 2))
        positive = coefficients.clamp(min=0)
        wanted = ctx.needs_input_grad
        out: list[Tensor | None] = [None] * 5
        if wanted[0]:
            is_low = torch.sign(positive)
            slope = torch.lerp(high.expand_as(is_low), low.expand_as(is_low), is_low)
            is_high = (1 - is_low) * weight
            out[0] = torch.addcmul(is_high * high_intercept, value, slope)
            if low_intercept is not None:
                out[0] = out[0] + is_low * weight * low_intercept
        out[1] = summed(positive * value, low) if wanted[1] else None
        out[2] = summed(positive * weight, low_intercept) if wanted[2] else None
        negative = coefficients - positive if wanted[3] or wanted[4] else positive
        out[3] = summed(negative * value, high) if wanted[3] else None
        out[4] = summed(negative * weight, high_intercept) if wanted[4] else None
        return tuple(out)


def summed(gradient: Tensor, like: Tensor) -> Tensor:
    """A gradient [spec, batch, *node] for lines that were repeated over the rows or other axes."""
    return gradient.sum_to_size(like.shape)

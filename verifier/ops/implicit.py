"""A layer that is the solution of an equation: an equilibrium, or implicit, layer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from provenn.verifier.errors import InvalidModel, Unbounded
from provenn.verifier.interval import Interval
from provenn.verifier.ops.base import Op
from provenn.verifier.ops.increments import Increments, Scope
from provenn.verifier.ops.relu import Relu
from provenn.verifier.ops.sigmoid import Sigmoid
from provenn.verifier.ops.tanh import Tanh

FUNCTIONS = (Relu, Tanh, Sigmoid)

TOLERANCE = 1e-12
"""Largest residual |z - phi(W z + u)| of a solution, relative to 1 + |z|, in the largest coordinate."""

SMOOTHING = tuple(10.0**-k for k in range(9))
"""Widths over which relu is smoothed where Newton's method stalls, relative to 1 + |u|."""

NEWTON_STEPS = 50
HALVINGS = 25
ARMIJO = 1e-4
"""Share of the decrease that a linear G would have, below which a Newton step is shortened."""

CELLS = 1 << 22
"""Numbers in the Jacobians that are held at a time."""


@dataclass(frozen=True)
class Implicit(Op):
    """The fixed point z = phi(W z + u) of u [.., n]: weight W [n, n], function phi one of Relu, Tanh, Sigmoid.

    It exists and is unique wherever some diagonal T > 0 has 2 T - T W - W'T > 0 (Winston and Kolter 2020 for T = 1);
    this is not asked for here, and is proved by every certificate of a Lipschitz bound. There is no interval rule
    and no linear bound.
    """

    weight: Tensor
    function: Op

    onnx = ()

    def __post_init__(self) -> None:
        if self.weight.dim() != 2 or self.weight.shape[0] != self.weight.shape[1]:
            raise InvalidModel(f"the weight of an implicit layer must be square, not {tuple(self.weight.shape)}")
        if not isinstance(self.function, FUNCTIONS):
            raise InvalidModel(f"an implicit layer of {type(self.function).__name__}; it must be relu, tanh or sigmoid")

    def forward(self, *inputs: Tensor) -> Tensor:
        """The solution, found in float64 whatever the dtype of u.   Raises: InvalidModel if none is found.

        Its derivative is (1 - D W)^-1 D, with D that of phi (implicit function theorem); there is no second one.
        """
        (u,) = inputs
        flat = u.double().reshape(-1, u.shape[-1])
        with torch.no_grad():
            z = self._solved(flat.detach())
        if flat.requires_grad:
            z = _Equation(self.weight.double(), self.function, flat, torch.zeros_like(flat[..., :1])).improved(z)
        return z.reshape(u.shape).to(u.dtype)

    def increments(self, inputs: Sequence[Increments], scope: Scope) -> Increments:
        """Units  w = phi(W w + u)."""
        return scope.fixed_point(self.weight, inputs[0])

    def interval(self, *inputs: Interval) -> Interval:
        """None is known.   Raises: Unbounded."""
        raise self._unbounded()

    def backward(self, coefficients: Tensor, inputs: Sequence[Interval]) -> tuple[tuple[Tensor, ...], Tensor | None]:
        """None is known.   Raises: Unbounded."""
        raise self._unbounded()

    def _solved(self, u: Tensor) -> Tensor:
        """The fixed points for u [count, n], float64.

        Damped Newton steps on G(z) = z - phi(W z + u). Where such a T exists, 1 - D W is regular for every diagonal D
        in [0, 1], its inverse bounded: so for a smooth phi the steps converge from everywhere. For relu they may
        stall at a kink: one then goes along the solutions for (v + sqrt(v^2 + 4 e^2)) / 2, whose slopes are in
        (0, 1), with falling e; close to the solution a step of the piecewise linear G is exact.
        """
        weight = self.weight.double()
        z = self.function.forward(u)
        missing = torch.arange(len(u), device=u.device)
        scale = 1 + u.abs().amax(-1, keepdim=True)
        for width in (0.0, *SMOOTHING):
            sources, widths = u[missing], scale[missing]
            if width:
                z[missing] = _Equation(weight, self.function, sources, width * widths).solved(z[missing])
            equation = _Equation(weight, self.function, sources, 0 * widths)
            found = equation.solved(z[missing])
            done = equation.settled(found)
            z[missing[done]] = found[done]
            missing = missing[~done]
            if not len(missing):
                return z
        raise InvalidModel(
            f"an implicit layer did not converge for {len(missing)} of {len(u)} inputs, after {1 + len(SMOOTHING)} "
            f"times {NEWTON_STEPS} Newton steps: it may have no fixed point there, since perhaps no diagonal T > 0 "
            "makes 2 T - T W - W'T positive definite"
        )

    def _unbounded(self) -> Unbounded:
        return Unbounded(
            "implicit layers have Lipschitz bounds only (provenn lipschitz): no intervals, no linear bounds"
        )


@dataclass(frozen=True, eq=False)
class _Equation:
    """G(z) = z - phi(W z + u) for u [count, n], relu smoothed over a width [count, 1]."""

    weight: Tensor
    function: Op
    source: Tensor
    width: Tensor

    def solved(self, z: Tensor) -> Tensor:
        """The last points of damped Newton steps from z, in parts whose Jacobians fit."""
        size = max(1, CELLS // max(1, self.weight.numel()))
        parts = []
        for first in range(0, len(z), size):
            rows = slice(first, first + size)
            part = _Equation(self.weight, self.function, self.source[rows], self.width[rows])
            parts.append(part._newton(z[rows]))
        return torch.cat(parts) if parts else z

    def gap(self, z: Tensor) -> Tensor:
        """G(z)."""
        value, _ = self._function(self._argument(z))
        return z - value

    def improved(self, z: Tensor) -> Tensor:
        """Z after one whole Newton step, through which the derivative by the source is that of the solution."""
        slope = self._function(self._argument(z))[1].detach()
        eye = torch.eye(len(self.weight), dtype=z.dtype, device=z.device)
        improved: Tensor = z - torch.linalg.solve(eye - slope.unsqueeze(-1) * self.weight, self.gap(z))
        return improved

    def settled(self, z: Tensor) -> Tensor:
        """Whether the residual is within the tolerance: [count]."""
        return self.gap(z).abs().amax(-1) <= TOLERANCE * (1 + z.abs().amax(-1))

    def _newton(self, z: Tensor) -> Tensor:
        eye = torch.eye(len(self.weight), dtype=z.dtype, device=z.device)
        for _ in range(NEWTON_STEPS):
            if self.settled(z).all():
                break
            gap, slope = self.gap(z), self._function(self._argument(z))[1]
            step, wrong = torch.linalg.solve_ex(eye - slope.unsqueeze(-1) * self.weight, gap)
            step = torch.where((wrong == 0).unsqueeze(-1) & step.isfinite(), step, gap)
            moved = self._shortened(z, step, gap.norm(dim=-1))
            if torch.equal(moved, z):
                break
            z = moved
        return z

    def _shortened(self, z: Tensor, step: Tensor, size: Tensor) -> Tensor:
        """Z less the longest of step, step / 2, step / 4, .. that makes |G| smaller than `size`; z where none does."""
        length, open_ = torch.ones_like(size), torch.ones_like(size, dtype=torch.bool)
        moved = z
        for _ in range(HALVINGS):
            tried = z - length.unsqueeze(-1) * step
            closer = open_ & (self.gap(tried).norm(dim=-1) <= (1 - ARMIJO * length) * size)
            moved = torch.where(closer.unsqueeze(-1), tried, moved)
            open_, length = open_ & ~closer, length / 2
            if not open_.any():
                break
        return moved

    def _argument(self, z: Tensor) -> Tensor:
        return z @ self.weight.T + self.source

    def _function(self, v: Tensor) -> tuple[Tensor, Tensor]:
        """Phi and its slope, one of the one-sided ones at a kink."""
        match self.function:
            case Tanh():
                return torch.tanh(v), self.function.slope(v)
            case Sigmoid():
                return torch.sigmoid(v), self.function.slope(v)
        root = torch.sqrt(v * v + 4 * self.width**2)
        slope = torch.where(self.width > 0, (1 + v / root.clamp(min=torch.finfo(v.dtype).tiny)) / 2, (v > 0).to(v))
        return (v + root) / 2, slope

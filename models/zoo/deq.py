"""Monotone deep equilibrium layers: z = phi(W z + U x + b) with a W that makes z unique (Winston and Kolter 2020)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from provenn.verifier.errors import InvalidModel

TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-11}
"""Largest residual |z - phi(W z + U x + b)| of a solution, relative to 1 + |z|, in the largest coordinate."""

ITERATIONS = 1000
FUNCTIONS = {"relu": torch.relu, "tanh": torch.tanh, "sigmoid": torch.sigmoid}


class MonotoneDEQ(nn.Module):
    """z = phi(W z + U x + b), W = (1 - m) 1 - A'A + B - B': then 1 - W >= m > 0, so that z exists and is unique.

    Parameters: A, B [width, width], U [width, inputs], b [width]; function phi `relu`, `tanh` or `sigmoid`; margin m.
    Raises: InvalidModel for another function or a margin that is not positive.
    """

    def __init__(self, inputs: int, width: int, function: str = "relu", margin: float = 0.5) -> None:
        super().__init__()
        if function not in FUNCTIONS:
            raise InvalidModel(f"no function '{function}'; there are: {', '.join(FUNCTIONS)}")
        if not 0 < margin < float("inf"):
            raise InvalidModel(f"the margin is {margin}; it must be positive")
        self.function, self.margin = function, margin
        self.symmetric = nn.Parameter(torch.randn(width, width) / (2 * width**0.5))
        self.skew = nn.Parameter(torch.randn(width, width) / (2 * width**0.5))
        self.input = nn.Linear(inputs, width)

    def weight(self) -> Tensor:
        """W [width, width]."""
        eye = torch.eye(len(self.skew), dtype=self.skew.dtype, device=self.skew.device)
        return (1 - self.margin) * eye - self.symmetric.T @ self.symmetric + self.skew - self.skew.T

    def forward(self, x: Tensor) -> Tensor:
        """[.., inputs] -> [.., width].   Raises: InvalidModel if the iteration does not converge.

        Its derivative is that of the solution, (1 - D W)^-1 D with D that of phi (implicit function theorem): the
        iterations are not stored.
        """
        u, weight = self.input(x), self.weight()
        with torch.no_grad():
            z = self._solved(u, weight)
        v = z @ weight.T + u
        eye = torch.eye(len(weight), dtype=v.dtype, device=v.device)
        system = eye - self._slope(v).unsqueeze(-1) * weight.detach()
        # One Newton step: z hardly moves, and the derivative is that of the solution.
        improved: Tensor = z - torch.linalg.solve(system, z - FUNCTIONS[self.function](v))
        return improved

    def _solved(self, u: Tensor, weight: Tensor) -> Tensor:
        """Peaceman-Rachford splitting of  0 in (1 - W) z - u + (phi^-1 - 1)(z),  whose resolvents are known at step 1.

        That of the affine part is (2 - W)^-1 (. + u), that of the other is phi. It converges linearly from everywhere,
        since 1 - W is strongly monotone and Lipschitz.
        """
        function, tolerance = FUNCTIONS[self.function], TOLERANCE.get(u.dtype, 1e-2)
        resolvent = torch.linalg.inv(2 * torch.eye(len(weight), dtype=u.dtype, device=u.device) - weight)
        z = point = torch.zeros_like(u)
        for _ in range(ITERATIONS):
            mirrored = 2 * z - point
            point = 2 * (mirrored + u) @ resolvent.T - mirrored
            z = function(point)
            gap = (z - function(z @ weight.T + u)).abs().amax(-1)
            if (gap <= tolerance * (1 + z.abs().amax(-1))).all():
                return z
        raise InvalidModel(
            f"a monotone equilibrium layer did not converge in {ITERATIONS} iterations; "
            "a larger margin or smaller weights make it converge faster"
        )

    def _slope(self, v: Tensor) -> Tensor:
        """phi'(v)."""
        with torch.enable_grad():
            at = v.detach().requires_grad_()
            (slope,) = torch.autograd.grad(FUNCTIONS[self.function](at).sum(), at)
        return slope

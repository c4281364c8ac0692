"""A car that follows a circle by a small network, in continuous time: trained, and its region of attraction proved.

    d' = v sin theta,   theta' = v (u + w) - v c cos theta / (1 - c d),   |u| <= 0.5 / m,   |w| <= 0.01 / m

d is the distance from the path of curvature c, theta the heading against it, u the curvature that is steered and w how
far the steering is off, which may be anything at any time. V is convex, so that differences prove its fall (see
docs/stability.md). Run it by `python examples/path_tracking.py --output path`.
"""

from __future__ import annotations

import numpy as np
import torch
from controllers import Candidate, Controller, System, certify, options, train
from scipy.linalg import solve_continuous_are
from torch import Tensor, nn

SPEED, CURVATURE, LIMIT, OFF, AHEAD = 2.0, 0.1, 0.5, 0.01, 0.05
BOX = torch.tensor([2.0, 1.2])
DOCUMENT = {
    "format": "provenn-specification/1",
    "kind": "lyapunov",
    "time": "continuous",
    "step": "0.05",
    "dynamics": "dynamics.onnx",
    "candidate": "candidate.onnx",
    "lower": ["-2", "-1.2"],
    "upper": ["2", "1.2"],
    "small": ["0.2", "0.12"],
    "decrease": "0.02",
    "disturbances": [["-0.01", "0.01"]],
    "pieces": 32,
}


def velocity(given: Tensor) -> Tensor:
    """(d, theta, u, w) [batch, 4] to (d', theta')."""
    distance, heading, steered, off = (given[:, i : i + 1] for i in range(4))
    along = torch.cos(heading) / (1 - CURVATURE * distance)
    return torch.cat([SPEED * torch.sin(heading), SPEED * (steered + off) - SPEED * CURVATURE * along], 1)


def change(controller: nn.Module, candidate: nn.Module, x: Tensor) -> Tensor:
    """(V(x + h f(x, w)) - V(x)) / h, w at either end."""
    off = OFF * (2 * torch.rand(len(x), 1) - 1).sign()
    moved = velocity(torch.cat([x, controller(x), off], 1))
    return (candidate(x + AHEAD * moved) - candidate(x)) / AHEAD


def leaves(controller: nn.Module, x: Tensor) -> Tensor:
    """Nothing: in continuous time no state jumps over a face."""
    return x.new_zeros(len(x), 1)


def main() -> int:
    """0 if a region was proved."""
    given = options(__doc__)
    a, b = np.array([[0, SPEED], [-SPEED * CURVATURE**2, 0]]), np.array([[0], [SPEED]])
    riccati = solve_continuous_are(a, b, np.diag([1, 0.5]), 4 * np.eye(1))
    system = System("path_tracking", BOX, 0.3, change, leaves, DOCUMENT)
    controller = Controller(b.T @ riccati / 4, BOX, LIMIT, resting=CURVATURE)
    candidate = Candidate(riccati, BOX, bent=False)
    train(system, controller, candidate, given.steps)
    networks = {"controller": (controller, 2), "dynamics": (velocity, 4), "candidate": (candidate, 2)}
    return certify(system, networks, given.output)


if __name__ == "__main__":
    raise SystemExit(main())

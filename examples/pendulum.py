"""An inverted pendulum with limited torque, balanced by a small network: trained, and its region of attraction proved.

    theta'' = (g / l) sin theta - b / (m l^2) theta' + u / (m l^2),   |u| <= 1 N m,   by Euler steps of 0.05 s

Both networks, a controller and a Lyapunov function, are trained here in seconds. Then the largest {V <= rho} is found
of which it is certain, for sin itself (enclosed by broken lines with their errors), that every trajectory from it comes
to rest near the top. Run it by `python examples/pendulum.py --output pendulum`.
"""

from __future__ import annotations

import numpy as np
import torch
from controllers import Candidate, Controller, System, certify, options, train
from scipy.linalg import solve_discrete_are
from torch import Tensor, nn

GRAVITY, LENGTH, MASS, FRICTION, STEP, TORQUE = 9.81, 0.5, 0.15, 0.1, 0.05, 1.0
INERTIA = MASS * LENGTH**2
BOX = torch.tensor([2.5, 8.0])
DOCUMENT = {
    "format": "provenn-specification/1",
    "kind": "lyapunov",
    "time": "discrete",
    "dynamics": "dynamics.onnx",
    "candidate": "candidate.onnx",
    "lower": ["-2.5", "-8"],
    "upper": ["2.5", "8"],
    "small": ["0.1", "0.4"],
    "decrease": "0.001",
    "pieces": 128,
}


def following(given: Tensor) -> Tensor:
    """(theta, theta', u) [batch, 3] to the next (theta, theta')."""
    angle, speed, torque = given[:, :1], given[:, 1:2], given[:, 2:]
    acceleration = (GRAVITY / LENGTH) * torch.sin(angle) - (FRICTION / INERTIA) * speed + (1 / INERTIA) * torque
    return torch.cat([angle + STEP * speed, speed + STEP * acceleration], 1)


def change(controller: nn.Module, candidate: nn.Module, x: Tensor) -> Tensor:
    """V(f(x)) - V(x)."""
    return candidate(following(torch.cat([x, controller(x)], 1))) - candidate(x)


def leaves(controller: nn.Module, x: Tensor) -> Tensor:
    """By how much the next state is outside the box."""
    reached = following(torch.cat([x, controller(x)], 1))
    return torch.relu(reached.abs() / BOX - 1).sum(1, keepdim=True)


def main() -> int:
    """0 if a region was proved."""
    given = options(__doc__)
    a = np.array([[1, STEP], [STEP * GRAVITY / LENGTH, 1 - STEP * FRICTION / INERTIA]])
    b, q, r = np.array([[0], [STEP / INERTIA]]), np.diag([1, 0.1]), np.eye(1)
    riccati = solve_discrete_are(a, b, q, r)
    gain = np.linalg.solve(r + b.T @ riccati @ b, b.T @ riccati @ a)
    system = System("pendulum", BOX, 0.02, change, leaves, DOCUMENT)
    controller, candidate = Controller(gain, BOX, TORQUE), Candidate(riccati, BOX, bent=True)
    train(system, controller, candidate, given.steps)
    networks = {"controller": (controller, 2), "dynamics": (following, 3), "candidate": (candidate, 2)}
    return certify(system, networks, given.output)


if __name__ == "__main__":
    raise SystemExit(main())

"""What the two examples of stability share: small networks, their training, and what is done with what was trained."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from torch import Tensor, nn

import provenn
from provenn.api.cli.attraction import as_object, view
from provenn.api.cli.region_png import png
from provenn.models.closed_loop import exported
from provenn.verifier.certificate.bundle import to_zip

HIDDEN, NORMS, BATCH = 8, 8, 2048
RATE = 3e-3
console = Console(highlight=False)


class Controller(nn.Module):
    """u = clip(u_0 - K x + phi(x) - phi(0), -limit, limit), phi one layer of relu."""

    def __init__(self, gain: np.ndarray, box: Tensor, limit: float, resting: float = 0.0) -> None:
        super().__init__()
        self.limit, self.resting = limit, resting
        self.linear = nn.Linear(len(box), 1, bias=False)
        self.hidden, self.last = nn.Linear(len(box), HIDDEN), nn.Linear(HIDDEN, 1, bias=False)
        with torch.no_grad():
            self.linear.weight.copy_(torch.from_numpy(-gain))
            self.hidden.weight.div_(box)
            self.last.weight.mul_(0.1)

    def forward(self, x: Tensor) -> Tensor:
        """The control."""
        at_rest = self.last(torch.relu(self.hidden.bias))
        u = self.resting + self.linear(x) + self.last(torch.relu(self.hidden(x))) - at_rest
        return torch.clamp(u, -self.limit, self.limit)


class Candidate(nn.Module):
    """V = |R x|_1 + |phi(x) - phi(0)|, the second term only where `bent`: without it V is convex.

    R begins as directions all round of the square root of a Riccati equation's solution, so that V begins as nearly a
    multiple of the root of the linear problem's Lyapunov function.
    """

    def __init__(self, riccati: np.ndarray, box: Tensor, bent: bool) -> None:
        super().__init__()
        root = np.linalg.cholesky(riccati).T
        angles = np.pi * np.arange(NORMS) / NORMS
        rows = np.stack([np.cos(angles), np.sin(angles)], 1) @ root / np.linalg.norm(root) * 2 / NORMS
        self.rows, self.sum = nn.Linear(2, NORMS, bias=False), nn.Linear(NORMS, 1, bias=False)
        self.bent = bent
        self.hidden, self.last = nn.Linear(2, HIDDEN), nn.Linear(HIDDEN, 1, bias=False)
        with torch.no_grad():
            self.rows.weight.copy_(torch.from_numpy(rows))
            self.sum.weight.fill_(1)
            self.hidden.weight.div_(box)
            self.last.weight.mul_(0.05)
        self.sum.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        """V."""
        value = self.sum(torch.abs(self.rows(x)))
        if not self.bent:
            return value
        return value + torch.abs(self.last(torch.relu(self.hidden(x))) - self.last(torch.relu(self.hidden.bias)))


@dataclass(frozen=True, eq=False)
class System:
    """What is to be controlled.

    box: half its widths; rate: how fast V should fall besides, as a share of V a step, or a unit of time; change: of V,
    at states, given both networks; leaves: by how much states leave the box next, given the controller.
    """

    name: str
    box: Tensor
    rate: float
    change: Callable[[nn.Module, nn.Module, Tensor], Tensor]
    leaves: Callable[[nn.Module, Tensor], Tensor]
    document: dict[str, Any]


def train(system: System, controller: nn.Module, candidate: nn.Module, steps: int) -> None:
    """Both networks: V shall fall wherever it is below its least value on the faces, and be low in most of the box."""
    least, small = float(system.document["decrease"]), torch.tensor([float(r) for r in system.document["small"]])
    parameters = [p for net in (controller, candidate) for p in net.parameters() if p.requires_grad]
    optimiser, start = torch.optim.Adam(parameters, RATE), time.monotonic()
    for step in range(steps):
        x = (2 * torch.rand(BATCH, 2) - 1) * system.box
        x = torch.cat([x, 0.2 * x[: BATCH // 4], 3 * small * x[: BATCH // 4] / system.box])
        level = candidate(_faces(system.box)).min()
        value, rho = candidate(x), level.detach()
        violation = torch.relu(system.change(controller, candidate, x) + system.rate * value + least) / rho
        counts = ((value < 1.05 * rho) & (x.abs() > small).any(1, keepdim=True)).float()
        falls = ((violation + system.leaves(controller, x)) * counts).sum() / counts.sum()
        grows = torch.relu(candidate(x) / level - 1).clamp(max=2).mean()
        scale = (candidate(system.box[None] / 2) - 1).abs().mean()
        loss = 20 * falls + 0.1 * grows + 0.01 * scale
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        if step % 200 == 0 or step == steps - 1:
            share = float((value[:BATCH] < rho).float().mean())
            said = f"step {step:4d}  violation {falls.item():.5f}  V below its faces in {share:.0%} of the box"
            console.print(f"{said}  {time.monotonic() - start:.1f} s")


def _faces(box: Tensor) -> Tensor:
    x, rows = (2 * torch.rand(BATCH // 2, 2) - 1) * box, torch.arange(BATCH // 2)
    x[rows, rows % 2] = box[rows % 2] * (2.0 * (rows // 2 % 2) - 1)
    return x


def certify(
    system: System, networks: dict[str, tuple[nn.Module | Callable[[Tensor], Tensor], int]], folder: Path
) -> int:
    """Exports, certifies, checks again, draws; 0 if a region is proved with an accepted certificate."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, (function, inputs) in networks.items():
        (folder / f"{name}.onnx").write_bytes(exported(function, inputs))
    path = folder / f"{system.name}.json"
    path.write_text(json.dumps(system.document, indent=2) + "\n")
    found = provenn.stability(folder / "controller.onnx", path)
    console.print(view(found, {}))
    (folder / f"{system.name}-result.json").write_text(json.dumps(as_object(found), indent=2) + "\n")
    picture = folder / f"{system.name}.png"
    picture.write_bytes(png(found, system.name))
    console.print(f"picture {picture}")
    if found.stated is None or found.item.certificate is None:
        return 1
    (folder / f"{system.name}-certificate.zip").write_bytes(to_zip(found.item.certificate))
    report = provenn.check(found.item.certificate, found.stated.model, found.stated.specification.text)
    share = np.mean(_inside(networks["candidate"][0], system.box) <= float(found.level or 0))
    console.print(f"{report.claims} claims checked again: {report.assurance}; the region is {share:.0%} of the box")
    return 0


def _inside(candidate: Callable[[Tensor], Tensor], box: Tensor) -> np.ndarray:
    """V at a grid of the box."""
    lines = [torch.linspace(-float(r), float(r), 400) for r in box]
    with torch.no_grad():
        return candidate(torch.cartesian_prod(*lines)).numpy()


def options(description: str | None) -> argparse.Namespace:
    """Of both examples."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path(), help="folder of networks, certificate and picture")
    parser.add_argument("--steps", type=int, default=600, help="of training")
    given = parser.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(1)
    return given

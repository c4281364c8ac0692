"""The picture of a region of attraction, over two states, by matplotlib; the other states are those of the centre."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from provenn.api.stability import StabilityResult
from provenn.models.onnx_reader import read

GRID, PATHS, STEPS = 301, 24, 400
"""Points along an axis; trajectories that are drawn, and of how many steps, of which a time unit has FINE."""
FINE = 100
SEED = 0


@dataclass(frozen=True, eq=False)
class Drawing:
    """What is computed for the picture; paths [count, steps, 2]: nan after a trajectory has left the box."""

    across: NDArray[np.float64]
    up: NDArray[np.float64]
    value: NDArray[np.float64]
    change: NDArray[np.float64]
    paths: NDArray[np.float64]


def png(found: StabilityResult, name: str) -> bytes:
    """The picture, on white.   Of a loop of one state: over that state alone, twice."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 5.5))
    FigureCanvasAgg(figure)
    axes: Any = figure.add_subplot()
    _draw(axes, found, computed(found))
    said = "" if found.level is None else f": V <= {float(found.level):g} is a region of attraction"
    axes.set_title(f"{name}{said} ({found.item.assurance or found.verdict})", fontsize="medium", parse_math=False)
    figure.tight_layout()
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=150)
    return buffer.getvalue()


def computed(found: StabilityResult) -> Drawing:
    """V, its change, and trajectories, in float64, of the loop itself without disturbances."""
    conditions = found.conditions
    graph, box = read(conditions.loop.model), np.array(conditions.box, dtype=np.float64)
    centre = np.array(conditions.document.near, dtype=np.float64).mean(1)
    rest = [float(low + high) / 2 for low, high in conditions.document.disturbances]

    def run(states: NDArray[np.float64]) -> NDArray[np.float64]:
        whole = np.concatenate([states, np.tile(rest, (len(states), 1))], 1) if rest else states
        with torch.no_grad():
            return graph.forward(torch.from_numpy(whole)).flatten(1).numpy()

    second = min(1, len(box) - 1)
    across, up = (np.linspace(box[i, 0], box[i, 1], GRID) for i in (0, second))
    states = np.tile(centre, (GRID * GRID, 1))
    states[:, 0], states[:, second] = (mesh.ravel() for mesh in np.meshgrid(across, up))
    outputs = run(states)
    level = -np.inf if found.level is None else float(found.level)
    inside = np.flatnonzero(outputs[:, 0] <= level)
    chosen = np.random.default_rng(SEED).choice(inside, min(PATHS, len(inside)), replace=False)
    now, paths = states[chosen], []
    for _ in range(STEPS):
        paths.append(now[:, [0, second]])
        motion = run(now)[:, 2 : 2 + len(box)]
        now = motion if conditions.loop.steps else now + motion / FINE
        now = np.where(((now < box[:, 0]) | (now > box[:, 1])).any(1, keepdims=True), np.nan, now)
    shown = np.stack(paths, 1) if len(chosen) else np.zeros((0, 1, 2))
    value, change = (outputs[:, i].reshape(GRID, GRID) for i in (0, 1))
    return Drawing(across, up, value, change, shown)


def _draw(axes: Any, found: StabilityResult, drawing: Drawing) -> None:
    from matplotlib.patches import Patch, Rectangle

    conditions, legend = found.conditions, []
    fails = (drawing.change >= -float(conditions.threshold)).astype(float)
    axes.contourf(drawing.across, drawing.up, fails, levels=[0.5, 1.5], colors=["#b4530a"], alpha=0.25)
    legend.append(Patch(color="#b4530a", alpha=0.25, label="V does not fall enough (at grid points)"))
    if found.level is not None and found.inner is not None:
        level, inner = float(found.level), float(found.inner)
        axes.contourf(drawing.across, drawing.up, drawing.value, levels=[-np.inf, level], colors=["#1f5fa8"], alpha=0.2)
        axes.contour(drawing.across, drawing.up, drawing.value, levels=[inner, level], colors=["#1f5fa8"])
        legend.append(Patch(color="#1f5fa8", alpha=0.4, label=f"proved: V <= {level:g}, comes into V <= {inner:g}"))
    for path in drawing.paths:
        axes.plot(path[:, 0], path[:, 1], color="#555555", linewidth=0.6, alpha=0.7)
        axes.plot(path[:1, 0], path[:1, 1], color="#555555", marker="o", markersize=2)
    near, second = np.array(conditions.document.near, dtype=np.float64), min(1, len(conditions.box) - 1)
    (left, right), (low, high) = near[0].tolist(), near[second].tolist()
    axes.add_patch(Rectangle((left, low), right - left, high - low, fill=False, color="black", linewidth=0.8))
    if found.item.counterexample is not None:
        point = found.item.counterexample.input
        axes.plot(point[0], point[second], color="red", marker="x", linestyle="none")
        legend.append(Patch(color="red", label="a condition fails here"))
    axes.set_xlabel("state 0")
    axes.set_ylabel(f"state {second}")
    axes.legend(handles=legend, fontsize="small", loc="upper center", bbox_to_anchor=(0.5, -0.12), frameon=False)

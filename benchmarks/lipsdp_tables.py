"""The tables of the benchmark of Lipschitz constants: what is measured for each."""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from lipsdp_networks import ROW, SIZES, glipsdp, random, references
from lipsdp_networks import maxmin as maxmin_network
from measure import Memory, in_child

from provenn.solvers.base import Budget
from provenn.solvers.lipsdp import conic, interior, methods
from provenn.solvers.lipsdp.start import eclipse_fast, greedy, norm_product
from provenn.solvers.lipsdp.task import Point, Task
from provenn.verifier.bounds.quadratic import read
from provenn.verifier.errors import BackendError
from provenn.verifier.graph import Graph

if TYPE_CHECKING:
    from lipsdp import Plan

Row = dict[str, str]

PEERS, TOLERANCE = ("clarabel", "scs"), 1e-7

LARGE = ("50 x 100", "3072-1024-1024-10")
"""Random networks that --quick leaves out."""

ASKED = {"784-64-64-10": 1e-3, "784-256-256-10": 1e-3, "20 x 50": 1e-2}
"""The relative gap whose time is given."""

QUICK = 60.0
"""Seconds that a peer has with --quick."""

REPEATS = 5


@dataclass(frozen=True)
class Found:
    """A constant, a lower bound of the optimum (0 if none is known), CPU seconds, how often a better point came.

    memory: MiB; early: seconds until the gap was as small as asked.
    """

    constant: float
    lower: float
    seconds: float
    rounds: int = 0
    memory: float = 0.0
    early: float = 0.0


def asked(graph: Graph, row: int | None = None) -> Task:
    """L2 to l2, of all outputs or of one."""
    eye = torch.eye(graph.output_shape[0], dtype=torch.float64)
    return Task(read(graph, eye if row is None else eye[row : row + 1]))


def neuron(task: Task, tolerance: float = 1e-8) -> Found:
    """LipSDP-Neuron to the end, from the better closed form."""
    began, points = time.process_time(), list[Point]()

    def improved(point: Point) -> bool:
        points.append(point)
        return True

    start = min((p for p in (eclipse_fast(task), greedy(task)) if p is not None), key=lambda p: float(p.metric[0]))
    best = interior.solve(task, start, improved, tolerance)
    seconds = time.process_time() - began
    return Found(task.bound(best.metric) ** 0.5, best.lower**0.5, seconds, len(points))


def closed_form(task: Task, form: Callable[[Task], Point | None]) -> Found:
    """A closed form's constant; not a number where there is none."""
    began = time.process_time()
    point = form(task)
    constant = float("nan") if point is None else task.bound(point.metric) ** 0.5
    return Found(constant, 0.0, time.process_time() - began)


def repeated(task: Task) -> Found:
    """At the tolerance of the peers; the median of several runs: the first is slower."""
    runs = [neuron(task, TOLERANCE) for _ in range(REPEATS)]
    return Found(runs[0].constant, runs[0].lower, statistics.median(r.seconds for r in runs), runs[0].rounds)


def reference(plan: Plan) -> Iterator[Row]:
    """LipSDP against its published optimum."""
    known = references(plan.shared, "glipsdp")
    names = [n for n in known if n.startswith(("fnn2", "fnn3", "cnn2")) and plan.only in n]
    for name in [n for n in names if not plan.quick or n.endswith("seed0")]:
        found = in_child(lambda name=name: neuron(asked(glipsdp(plan.shared, name), ROW)))
        published = known[name]["LipSDP"]
        yield {
            "network": name,
            "ours": f"{found.constant:.9f}",
            "published": f"{published:.9f}",
            "relative": f"{found.constant / published - 1:+.1e}",
            "own gap": f"{1 - found.lower / found.constant:.1e}",
            "improvements": str(found.rounds),
            "seconds": f"{found.seconds:.3f}",
        }


def peers(plan: Plan) -> Iterator[Row]:
    """The same problem through cvxpy."""
    names = [n for n in references(plan.shared, "glipsdp") if n.startswith("fnn3") and plan.only in n]
    for solver in PEERS:
        if (status := conic.availability(solver)) != "available":
            print(f"skipped: {solver}: {status}", file=sys.stderr)
    for name in names[:1] if plan.quick else names:
        ours = in_child(lambda name=name: repeated(asked(glipsdp(plan.shared, name), ROW)))
        row = {"network": name, "ours": f"{ours.constant:.7f}", "seconds": f"{ours.seconds:.3f}"}
        for solver in (s for s in PEERS if conic.availability(s) == "available"):
            row |= in_child(_peer, plan.shared, name, solver, QUICK if plan.quick else None, ours)
        yield row


def _peer(shared: Path, name: str, solver: str, seconds: float | None, ours: Found) -> Row:
    """One solver's columns; after a tiny problem, so that what is imported is not counted."""
    conic.solve(asked(random([3, 2, 1])), solver)
    task = asked(glipsdp(shared, name), ROW)
    began = time.process_time()
    try:
        found = conic.solve(task, solver, TOLERANCE, seconds)
    except BackendError as error:
        return {solver: error.status, f"{solver} above ours": "", f"{solver} seconds": "", f"{solver} / ours": ""}
    spent = time.process_time() - began
    constant = task.bound(found.metric) ** 0.5
    return {
        solver: f"{constant:.7f}",
        f"{solver} above ours": f"{constant / ours.constant - 1:+.1e}",
        f"{solver} seconds": f"{spent:.2f}",
        f"{solver} / ours": f"{spent / ours.seconds:.0f}x",
    }


def sizes(plan: Plan) -> Iterator[Row]:
    """Random networks, small to large."""
    for name in [n for n in SIZES if plan.only in n and not (plan.quick and n in LARGE)]:
        forms = {f.__name__: in_child(_form, name, f) for f in (norm_product, greedy, eclipse_fast)}
        found = in_child(_size, name, plan.budget)
        product, fast = forms["norm_product"].constant, forms["eclipse_fast"].constant
        yield {
            "network": name,
            "norm product": f"{product:.5g}",
            "greedy": f"{forms['greedy'].constant:.5g}",
            "eclipse-fast": f"{fast:.5g}",
            "its seconds": f"{forms['eclipse_fast'].seconds:.3f}",
            "neuron": f"{found.constant:.6g}",
            "own gap": f"{1 - found.lower / found.constant:.1e}" if found.lower else "unknown",
            "product / neuron": f"{product / found.constant:.2f}",
            "eclipse / neuron": f"{fast / found.constant:.3f}",
            "improvements": str(found.rounds),
            "seconds": f"{found.seconds:.2f}",
            "to the gap": f"{found.early:.2f} ({ASKED[name]:.1%})" if name in ASKED else "",
            "MiB": f"{found.memory:.0f}",
        }


def _form(name: str, form: Callable[[Task], Point | None]) -> Found:
    return closed_form(asked(random(SIZES[name])), form)


def _size(name: str, budget: float) -> Found:
    task, seen = asked(random(SIZES[name])), list[tuple[float, Point]]()
    memory, began = Memory("cpu"), time.process_time()
    solved = methods.solve(
        task, "lipsdp-neuron", Budget(budget), lambda p: seen.append((time.process_time() - began, p))
    )
    assert solved is not None
    seconds, best = time.process_time() - began, task.bound(solved.point.metric)
    enough = [s for s, p in seen if p.lower >= task.bound(p.metric) * (1 - ASKED.get(name, 0.0)) ** 2]
    early = min(enough, default=float("nan"))
    return Found(best**0.5, solved.point.lower**0.5, seconds, len(seen), memory.growth(), early)


def maxmin(plan: Plan) -> Iterator[Row]:
    """MaxMin networks against the eliminated form's optimum."""
    known = references(plan.shared, "maxmin")
    for name in [n for n in known if plan.only in n and (not plan.quick or "2fc" in n)]:
        found = in_child(lambda name=name: neuron(asked(maxmin_network(plan.shared, name))))
        best, paper = (known[name][k] for k in ("eliminated_form_optimum", "paper_program_S=P=0_optimum"))
        yield {
            "network": name,
            "ours": f"{found.constant:.7f}",
            "eliminated form": f"{best:.7f}",
            "relative": f"{found.constant / best - 1:+.1e}",
            "published program": f"{paper:.5f}",
            "norm product": f"{known[name]['norm_product']:.5f}",
            "own gap": f"{1 - found.lower / found.constant:.1e}",
            "improvements": str(found.rounds),
            "seconds": f"{found.seconds:.2f}",
        }


TABLES: dict[str, Callable[[Plan], Iterator[Row]]] = {
    "reference": reference,
    "peers": peers,
    "sizes": sizes,
    "maxmin": maxmin,
}
"""By name."""

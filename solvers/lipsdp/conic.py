"""LipSDP by a general conic solver through cvxpy: the same problem, solved by other people's code.

SCS (O'Donoghue et al. 2016), Clarabel (Goulart and Chen 2024) or MOSEK get

    minimise b'y  subject to  M(y) = sum_i y_i A_i - C'C >= 0,  y >= 0,  y = (d, t)                               (1)

with dense blocks, in coordinates in which a closed form is y = 1. What they return violates (1) by their tolerance, so
it is blended with that closed form, just as much as makes M positive definite (lipsdp_formulas.md, section 9.5).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from provenn.solvers.lipsdp.start import closed, eclipse_fast, greedy
from provenn.solvers.lipsdp.task import Point, Task
from provenn.verifier.errors import BackendError, ResourceLimit

INSIDE = 2.0
"""The point that answers are blended with is this multiple of the closed form, which lies at the edge of the domain."""

RETREATS = (0.0, 0.01, 0.03, 0.1, 0.3)
"""Further shares of it that are tried: where the answer is poor, the least metric is not at the edge of the domain."""

BEYOND = 1e-9
"""What is added to the smallest share of it that suffices; doubled until M has a Cholesky factor."""

ENTRIES = 2**26
"""Largest number of nonzero entries of all A_i together."""

HOW = "pip install 'provenn[sdp]'"


def _clarabel(tolerance: float, seconds: float | None) -> dict[str, Any]:
    limit = {} if seconds is None else {"time_limit": seconds}
    return {"tol_gap_abs": tolerance, "tol_gap_rel": tolerance, "tol_feas": tolerance} | limit


def _scs(tolerance: float, seconds: float | None) -> dict[str, Any]:
    limit = {} if seconds is None else {"time_limit_secs": seconds}
    return {"eps_abs": tolerance, "eps_rel": tolerance, "max_iters": 1_000_000} | limit


def _mosek(tolerance: float, seconds: float | None) -> dict[str, Any]:
    names = ("MSK_DPAR_INTPNT_CO_TOL_REL_GAP", "MSK_DPAR_INTPNT_CO_TOL_PFEAS", "MSK_DPAR_INTPNT_CO_TOL_DFEAS")
    limit = {} if seconds is None else {"MSK_DPAR_OPTIMIZER_MAX_TIME": seconds}
    return {"mosek_params": dict.fromkeys(names, tolerance) | limit}


SOLVERS: Mapping[str, Callable[[float, float | None], dict[str, Any]]] = {
    "clarabel": _clarabel,
    "mosek": _mosek,
    "scs": _scs,
}
"""What each is told, from the tolerance and the seconds that it has."""


def solve(task: Task, solver: str, tolerance: float = 1e-8, seconds: float | None = None) -> Point:
    """The optimum to the solver's tolerance, made feasible; `lower` is the value of the solver's own dual variables.

    seconds: when the solver is to stop; what it has found until then is used where there is something.
    Raises: BackendError where the solver is not there or finds nothing, or no closed form is; ResourceLimit.
    """
    if (status := availability(solver)) != "available":
        raise BackendError(f"lipsdp-conic, {solver}", status)
    small = task.smaller()
    starts = [p for p in (eclipse_fast(small), greedy(small)) if p is not None]
    if not starts:
        raise BackendError("lipsdp-conic", "no feasible multipliers are known: an implicit layer may not be well-posed")
    start = min(starts, key=lambda p: small.bound(p.metric))
    problem = _Problem.of(small, start)
    answer, dual = problem.ask(solver, tolerance, seconds)
    y = problem.repaired(answer)
    points = [start, *(problem.point(y + share * (INSIDE - y)) for share in RETREATS)]
    if task.norm == "2":
        points = [p for p in (closed(task, point.multipliers) for point in points) if p is not None]
    found = min(points, key=lambda p: task.bound(p.metric))
    return Point(found.metric, found.multipliers, problem.lower(y, dual))


def availability(solver: str) -> str:
    """What is missing and how to get it, or "available"."""
    if solver not in SOLVERS:
        return f"unknown; there are {', '.join(SOLVERS)}"
    if find_spec("cvxpy") is None:
        return f"cvxpy is not installed: {HOW}"
    if find_spec(solver) is None:
        return f"the package '{solver}' is not installed: " + (
            "pip install Mosek, and ask mosek.com for a licence" if solver == "mosek" else HOW
        )
    return _licence() if solver == "mosek" else "available"


def _licence() -> str:
    """Asks MOSEK for the licence that its interior-point method needs."""
    mosek: Any = import_module("mosek")
    try:
        mosek.Env().checkoutlicense(mosek.feature.pton)
    except mosek.Error as error:
        reason = str(error).strip(" :")
        return f"MOSEK finds no licence ({reason}): set MOSEKLM_LICENSE_FILE, or put it at ~/mosek/mosek.lic"
    return "available"


@dataclass(frozen=True, eq=False)
class _Problem:
    """(1) in scaled coordinates.

    cost b [variables]; matrix: column i is A_i, [size^2, variables]; constant C'C [size, size]; unit: the closed form,
    what y = 1 stands for; groups: for every input and every unit its variable.
    """

    task: Task
    cost: Tensor
    matrix: sparse.csc_matrix
    constant: Tensor
    unit: Tensor
    groups: Tensor

    @classmethod
    def of(cls, task: Task, start: Point) -> _Problem:
        """Raises: ResourceLimit."""
        program, inputs = task.program, task.program.sizes[0]
        metrics = int(task.metrics.max()) + 1
        groups = torch.cat([task.metrics, task.groups + metrics])
        given = torch.cat([start.metric, start.multipliers]).cpu()
        unit = given.new_zeros(int(groups.max()) + 1).scatter_reduce_(0, groups, given, "amax")
        bound = float(unit[:metrics].sum())
        like = next(iter(program.output.values()))
        scaled = program.scaled((bound / unit[groups]).sqrt().to(like))
        arguments = scaled.arguments(torch.eye(program.size, dtype=like.dtype, device=like.device)).cpu()
        results = torch.eye(program.size, dtype=like.dtype)[inputs:]
        lower, upper = program.lower.cpu()[:, None], program.upper.cpu()[:, None]
        matrix = _columns(inputs, results - lower * arguments, upper * arguments - results)
        nothing = like.new_zeros(program.size)
        constant = -scaled.form(nothing[:inputs], nothing[inputs:]).cpu() / bound
        sharing = sparse.csr_matrix((np.ones(len(groups)), (np.arange(len(groups)), groups.numpy())))
        cost = torch.cat([unit[:metrics] / bound, torch.zeros_like(unit[metrics:])])
        return cls(task, cost, (matrix @ sharing).tocsc(), constant, unit, groups)

    def form(self, y: Tensor) -> Tensor:
        """M(y)."""
        return torch.from_numpy(self.matrix @ y.numpy()).reshape(self.constant.shape) - self.constant

    def ask(self, solver: str, tolerance: float, seconds: float | None) -> tuple[Tensor, Tensor]:
        """The solver's y and the dual of M(y) >= 0.   Raises: BackendError with its status."""
        cvxpy: Any = import_module("cvxpy")
        y = cvxpy.Variable(len(self.cost))
        form = cvxpy.reshape(self.matrix @ y - self.constant.numpy().ravel(), self.constant.shape, order="C")
        constraints = [form >> 0, y >= 0]
        problem = cvxpy.Problem(cvxpy.Minimize(self.cost.numpy() @ y), constraints)
        options = SOLVERS[solver](tolerance, seconds)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # that a solution may be inaccurate: it is repaired
                problem.solve(solver=solver.upper(), **options)
        except cvxpy.error.SolverError as error:
            raise BackendError(f"lipsdp-conic, {solver}", f"failed: {error}") from error
        dual = constraints[0].dual_value
        if y.value is None or dual is None or not (np.isfinite(y.value).all() and np.isfinite(dual).all()):
            raise BackendError(f"lipsdp-conic, {solver}", f"found nothing: status '{problem.status}'")
        return torch.from_numpy(y.value.copy()), torch.from_numpy((dual + dual.T) / 2)

    def repaired(self, answer: Tensor) -> Tensor:
        """The answer with as little of INSIDE as makes M positive definite: M is affine in y.

        With M(INSIDE) = L L' and m the least eigenvalue of L^-1 M(answer) L^-T, that is the share -m / (1 - m).
        """
        answer = answer.clamp(min=0)
        inside = torch.full_like(answer, INSIDE)
        root = torch.linalg.cholesky(self.form(inside))
        half = torch.linalg.solve_triangular(root, self.form(answer), upper=False)
        relative = torch.linalg.solve_triangular(root, half.T, upper=False)
        least = float(torch.linalg.eigvalsh((relative + relative.T) / 2)[0])
        share, added = max(-least, 0.0) / (1 + max(-least, 0.0)), BEYOND
        while share + added < 1:
            blended = answer + (share + added) * (inside - answer)
            if not bool(torch.linalg.cholesky_ex(self.form(blended))[1]):
                return blended
            added *= 2
        return inside

    def lower(self, y: Tensor, dual: Tensor) -> float:
        """A lower bound of the optimum: the dual's value, less what its constraints are violated by."""
        images = torch.from_numpy(self.matrix.T @ dual.numpy().ravel())
        wrong = (images - self.cost).clamp(min=0)
        value = float((self.constant * dual).sum() - 2 * (wrong * y).sum())
        return max(value, 0.0) * self.task.bound(self.unit[self.task.metrics])

    def point(self, y: Tensor) -> Point:
        """In the units of the task."""
        values = (y * self.unit)[self.groups].to(next(iter(self.task.program.output.values())))
        inputs = self.task.program.sizes[0]
        return Point(values[:inputs], values[inputs:])


def _columns(inputs: int, first: Tensor, second: Tensor) -> sparse.csc_matrix:
    """Columns e_i e_i' of the inputs, then -(p q' + q p') of the rows p of `first` and q of `second`, row by row."""
    size = first.shape[1] if len(first) else inputs
    left, right = (sparse.csr_matrix(rows.numpy()) for rows in (first, second))
    counts = np.diff(left.indptr).astype(np.int64) * np.diff(right.indptr)
    if 2 * counts.sum() > ENTRIES:
        raise ResourceLimit("entries of the conic problem", str(ENTRIES))
    places = [np.arange(inputs, dtype=np.int64) * (size + 1)]
    values, columns = [np.ones(inputs)], [np.arange(inputs, dtype=np.int64)]
    for i in range(len(first)):
        p, q = slice(*left.indptr[i : i + 2]), slice(*right.indptr[i : i + 2])
        rows, others = left.indices[p].astype(np.int64)[:, None], right.indices[q].astype(np.int64)
        entries = -np.outer(left.data[p], right.data[q]).ravel()
        places += [(rows * size + others).ravel(), (others * size + rows).ravel()]
        values += [entries, entries]
        columns.append(np.full(2 * len(entries), inputs + i, dtype=np.int64))
    where = (np.concatenate(places), np.concatenate(columns))
    return sparse.csc_matrix((np.concatenate(values), where), shape=(size * size, inputs + len(first)))

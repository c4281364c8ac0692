"""LipSDP by a primal-dual interior-point method that never forms more than matrices of the coordinates' size.

With y = (d, t) and M(y) = sum_i y_i A_i - C'C the pair of problems is

    minimise b'y  subject to  M(y) >= 0          maximise <C'C, Z>  subject to  <A_i, Z> = b_i,  Z >= 0.             (1)

Every unit's A is -(p q' + q p') with p = w - a v, q = b v - w, so the Schur complement of the Newton equations (the
HKM direction: Helmberg et al. 1996; Kojima et al. 1997; Monteiro 1997) is a sum of entrywise products,

    <A_i, X A_j Z> = (q_i'X p_j)(p_i'Z q_j) + (p_i'X q_j)(q_i'Z p_j) + (q_i'X q_j)(p_i'Z p_j) + (p_i'X p_j)(q_i'Z q_j),

X = M^-1: O(n^2) once products with the units' rows are there, O(n^3) an iteration in all, memory O(n^2). Mehrotra's
predictor and corrector (1992). y is strictly feasible at every iteration, so every one yields a bound.
Units whose slopes have one sign and are never 0 (ab > 0) need y_i >= 0 asked for; for all others M > 0 implies it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from provenn.solvers.lipsdp.task import Improved, Point, Task

SLACK, GRADE = 1.15, 1.1
"""The start is SLACK times the feasible point, which lies at the edge of its domain, and every layer's multipliers are
GRADE times more, relatively, than those of the layer behind it: M of a deep network is well conditioned then."""

ROUNDS, STEP, STALLED = 200, 0.95, 1e-4
"""Most iterations; share of the way to the boundary that a step goes; a step that is too short to go on."""

SMALLEST = 1e-100
"""A bound that is as good as 0."""

SHORTER = 0.8
"""What a step that leaves the domain is multiplied by."""

DENSE = 300
"""Coordinates up to which the units' rows are two dense matrices: there a step costs its calls, not its arithmetic."""

LANCZOS, EXACT = 20, 200
"""Lanczos steps for a step length; size up to which all eigenvalues are computed instead."""


@dataclass(eq=False)
class _State:
    """y, M(y), its inverse, the dual Z, and the duals s of y_i >= 0 (zero where it is not asked).

    root, dual_root: inverses of the Cholesky factors of M(y) and Z.
    """

    y: Tensor
    form: Tensor
    root: Tensor
    inverse: Tensor
    dual: Tensor
    dual_root: Tensor
    slack: Tensor


def solve(task: Task, start: Point, improved: Improved, tolerance: float = 1e-8) -> Point:
    """The optimum to a relative gap, from a feasible point, in the coordinates in which that point is of size one.

    improved is called with the best iterate so far, after every one; the last is returned. The start may be better.
    """
    small = task.smaller()
    method = _Method(small, start)
    found, best = start, float("inf")
    if not method.bound > SMALLEST:
        return found
    state = method.start()
    for _ in range(ROUNDS):
        value, lower = float(method.cost @ state.y), method.lower(state)
        done = value - lower <= tolerance * value
        if value < best:
            best, found = value, method.point(state.y, lower)
        if not improved(found):
            break
        following = None if done else method.step(state)
        if following is None:
            break
        state = following
    return found


class _Method:
    """The problem (1) in scaled coordinates, where the start is y = SLACK."""

    def __init__(self, task: Task, start: Point) -> None:
        program = task.program
        like = next(iter(program.output.values()))
        self.task, self.inputs, self.wide = task, program.sizes[0], len(start.metric)
        self.groups = (task.metrics.to(like.device), task.groups.to(like.device))
        self.counts = (int(self.groups[0].max()) + 1, int(self.groups[1].max()) + 1 if len(self.groups[1]) else 0)
        depth = len(program.units)
        grades = [torch.full((n,), GRADE ** (depth - k)) for k, n in enumerate(program.sizes[1:])]
        graded = start.multipliers * torch.cat([*grades, torch.zeros(0)]).to(like)
        metric = _largest(start.metric[: self.inputs] * GRADE ** (depth + 1), self.groups[0], self.counts[0])
        multipliers = _largest(graded, self.groups[1], self.counts[1])
        self.bound = float(metric[0] if task.norm == "2" else metric.sum())
        self.size = torch.cat([metric, multipliers]) / self.bound
        scale = torch.cat([metric[self.groups[0]], multipliers[self.groups[1]]]).rsqrt() * self.bound**0.5
        self.program = program.scaled(scale)
        self.lower_slopes, self.upper_slopes = program.lower[:, None], program.upper[:, None]
        self.plain, self.pairs = not bool(self.lower_slopes.any()), None
        if program.size <= DENSE:
            self.pairs = self.rows(torch.eye(program.size).to(like))
        self.cost = torch.cat([self.size[: self.counts[0]], torch.zeros_like(multipliers)])
        product = (program.lower * program.upper > 0).to(like.dtype)
        asked = torch.zeros(self.counts[1], dtype=like.dtype, device=like.device).index_add_(0, self.groups[1], product)
        every = torch.full_like(metric, float(product.any()))
        self.asked = torch.cat([every, (asked > 0).to(like.dtype)])
        output = self.program.with_output({k: m / self.bound**0.5 for k, m in self.program.output.items()})
        self.constant = -output.form(torch.zeros_like(start.metric[: self.inputs]), torch.zeros_like(graded))

    def start(self) -> _State:
        """Y = SLACK, Z = M^-1."""
        y = torch.full_like(self.cost, SLACK)
        form = self.form(y) - self.constant
        root = _root(form)
        assert root is not None, "the start is not feasible"
        inverse = root.T @ root
        dual_root = _root(inverse)
        assert dual_root is not None, "the start is too close to the edge of its domain"
        return _State(y, form, root, inverse, inverse, dual_root, self.asked.clone())

    def point(self, y: Tensor, lower: float) -> Point:
        """In the units of the task."""
        metric, multipliers = torch.split(y * self.size * self.bound, list(self.counts))
        entries = metric[self.groups[0]] if self.task.norm != "2" else metric[:1].expand(self.wide)
        return Point(entries, multipliers[self.groups[1]], max(lower, 0.0) * self.bound)

    def lower(self, state: _State) -> float:
        """A lower bound of the optimum: the dual's value, less what its constraints are violated by."""
        wrong = self.cost - self.of(state.dual) - state.slack
        return float((self.constant * state.dual).sum() - 2 * (wrong.abs() * state.y).sum())

    def form(self, y: Tensor) -> Tensor:
        """Sum y_i A_i."""
        metric, multipliers = torch.split(y, list(self.counts))
        metric, multipliers = metric[self.groups[0]], multipliers[self.groups[1]]
        if self.pairs is None:
            return self.program.form(metric, multipliers, output=False)
        half = (self.pairs[0].T * -multipliers) @ self.pairs[1]
        total = half + half.T
        total.diagonal()[: self.inputs] += metric
        return total

    def rows(self, columns: Tensor) -> tuple[Tensor, Tensor]:
        """P and Q times columns."""
        if self.pairs is not None:
            return self.pairs[0] @ columns, self.pairs[1] @ columns
        results, arguments = columns[self.inputs :], self.program.arguments(columns)
        first = results if self.plain else results - self.lower_slopes * arguments
        return first, self.upper_slopes * arguments - results

    def of(self, matrix: Tensor) -> Tensor:
        """<A_i, matrix> for every variable, of a symmetric matrix."""
        if self.pairs is not None:
            pairs = -2 * ((self.pairs[0] @ matrix) * self.pairs[1]).sum(1)
        else:
            pairs = -2 * self.rows(self.rows(matrix)[0].T)[1].diagonal()
        return self._summed(matrix.diagonal()[: self.inputs], pairs)

    def of_product(self, left: Tensor, inverse: Tensor, rows: tuple[Tensor, Tensor]) -> Tensor:
        """<A_i, left X> for every variable; rows: P X and Q X."""
        first, second = self.rows(left)
        pairs = -(first * rows[1]).sum(1) - (second * rows[0]).sum(1)
        n = self.inputs
        return self._summed((left[:n] * inverse[:n]).sum(1), pairs)

    def _summed(self, metric: Tensor, units: Tensor) -> Tensor:
        """Entries by input and by unit, summed over those that share a variable."""
        parts = [
            torch.zeros(count, dtype=metric.dtype, device=metric.device).index_add_(0, group, entries)
            for count, group, entries in zip(self.counts, self.groups, (metric, units), strict=True)
        ]
        return torch.cat(parts)

    def schur(self, state: _State, rows: tuple[Tensor, Tensor]) -> Tensor:
        """<A_i, X A_j Z>, and s / y on the diagonal; rows: P X and Q X."""
        n, (x, z), (xp, xq) = self.inputs, (state.inverse, state.dual), rows
        zp, zq = self.rows(z)
        (xpp, xqp), xqq = self.rows(xp.T), self.rows(xq.T)[1]
        (zpp, zqp), zqq = self.rows(zp.T), self.rows(zq.T)[1]
        units = xqp * zqp.T
        units = units + units.T
        units.addcmul_(xqq, zpp).addcmul_(xpp, zqq)
        cross = -(zp[:, :n] * xq[:, :n] + zq[:, :n] * xp[:, :n])
        first = torch.cat([x[:n, :n] * z[:n, :n], cross.T], 1)
        whole = torch.cat([first, torch.cat([cross, units], 1)])
        where = torch.cat([self.groups[0], self.groups[1] + self.counts[0]])
        total = len(self.cost)
        if total < len(whole):
            whole = torch.zeros((total, len(whole)), dtype=x.dtype, device=x.device).index_add_(0, where, whole)
            whole = torch.zeros((total, total), dtype=x.dtype, device=x.device).index_add_(1, where, whole)
        whole.diagonal().add_(state.slack / state.y)
        return whole

    def step(self, state: _State) -> _State | None:
        """One iteration; None where it cannot go on."""
        rows = self.rows(state.inverse)
        solver = _Solver.of(self.schur(state, rows))
        if solver is None:
            return None
        rank, asked = len(state.form) + float(self.asked.sum()), self.asked
        gap = float((state.form * state.dual).sum() + state.slack @ state.y)
        # Predictor: straight to the optimum.
        move = solver(-self.cost)
        change = self.form(move)
        dual = -state.dual - _symmetric(self.after(state.dual, move, change) @ state.inverse)
        slack = -state.slack - asked * state.slack / state.y * move
        forth = min(_reach(state.root, change), _positive(state.y, move, asked), 1.0)
        back = min(_reach(state.dual_root, dual), _positive(state.slack, slack, asked), 1.0)
        after = float(((state.form + forth * change) * (state.dual + back * dual)).sum())
        after += float((state.slack + back * slack) @ (asked * (state.y + forth * move)))
        share = (max(after, 0.0) / gap) ** 2 if min(forth, back) > 0.2 else 0.5
        target = min(max(share, 1e-4), 1.0) * gap / rank
        # Corrector: what the predictor's products left out.
        bent, curved = self.after(dual, move, change), asked * slack * move / state.y
        centre = target * (self.of(state.inverse) + asked / state.y)
        move = solver(centre - self.cost - self.of_product(bent, state.inverse, rows) - curved)
        change = self.form(move)
        dual = target * state.inverse - state.dual
        dual -= _symmetric((self.after(state.dual, move, change) + bent) @ state.inverse)
        slack = asked * (target / state.y - state.slack / state.y * move) - state.slack - curved
        forth = min(STEP * min(_reach(state.root, change), _positive(state.y, move, asked)), 1.0)
        back = min(STEP * min(_reach(state.dual_root, dual), _positive(state.slack, slack, asked)), 1.0)
        return self._moved(state, (forth, move), (back, dual, slack))

    def after(self, left: Tensor, move: Tensor, change: Tensor) -> Tensor:
        """The matrix left times change = sum_i move_i A_i, block by block where that is less work."""
        if self.pairs is not None:
            return left @ change
        metric, multipliers = torch.split(move, list(self.counts))
        result = torch.zeros_like(left)
        result[:, : self.inputs] = left[:, : self.inputs] * metric[self.groups[0]]
        for (i, j), block in self.program.blocks(multipliers[self.groups[1]], output=False).items():
            rows, columns = self.program.block(i), self.program.block(j)
            result[:, columns].addmm_(left[:, rows], block)
            if i != j:
                result[:, rows].addmm_(left[:, columns], block.T)
        return result

    def _moved(
        self, state: _State, forward: tuple[float, Tensor], backward: tuple[float, Tensor, Tensor]
    ) -> _State | None:
        """The state after steps of these lengths, or shorter ones within the domain; None where it cannot go on."""
        (forth, move), (back, dual, slack) = forward, backward
        root = other = None
        while root is None and forth > STALLED:
            form = self.form(state.y + forth * move) - self.constant
            root = _root(form)
            forth *= 1.0 if root is not None else SHORTER
        while other is None and back > STALLED:
            moved = state.dual + back * dual
            other = _root(moved)
            back *= 1.0 if other is not None else SHORTER
        if root is None or other is None:
            return None
        return _State(state.y + forth * move, form, root, root.T @ root, moved, other, state.slack + back * slack)


@dataclass(frozen=True, eq=False)
class _Solver:
    """Solves with a positive definite matrix scaled to a unit diagonal."""

    factor: Tensor
    scale: Tensor

    @classmethod
    def of(cls, matrix: Tensor) -> _Solver | None:
        """None where even a little added to the diagonal does not make it positive definite."""
        scale = matrix.diagonal().clamp(min=1e-300).rsqrt()
        scaled = matrix * scale[:, None] * scale
        for added in (0.0, 1e-14, 1e-12, 1e-10):
            factor, failed = torch.linalg.cholesky_ex(scaled + added * torch.eye(len(scaled)).to(scaled))
            if not bool(failed):
                return cls(factor, scale)
        return None

    def __call__(self, right: Tensor) -> Tensor:
        return self.scale * torch.cholesky_solve((self.scale * right)[:, None], self.factor)[:, 0]


def _positive(values: Tensor, moves: Tensor, asked: Tensor) -> float:
    """The largest step that keeps the asked-for values >= 0."""
    falling = (moves < 0) & (asked > 0)
    return float((-values[falling] / moves[falling]).min()) if bool(falling.any()) else float("inf")


def _symmetric(matrix: Tensor) -> Tensor:
    return (matrix + matrix.T) / 2


def _root(matrix: Tensor) -> Tensor | None:
    """The inverse of the Cholesky factor; None where the matrix is not positive definite."""
    factor, failed = torch.linalg.cholesky_ex(matrix)
    if bool(failed):
        return None
    inverse: Tensor = torch.linalg.solve_triangular(factor, torch.eye(len(matrix)).to(matrix), upper=False)
    return inverse


def _reach(root: Tensor, change: Tensor) -> float:
    """The largest step a with M + a change >= 0, root' root = M^-1; where estimated (Lanczos), a little above it."""
    if len(root) <= EXACT:
        least = float(torch.linalg.eigvalsh(root @ change @ root.T)[0])
    else:
        least = _least_eigenvalue(root, change)
    return float("inf") if least >= 0 else -1 / least


def _least_eigenvalue(root: Tensor, change: Tensor) -> float:
    """Of root change root', from above, by Lanczos' method."""
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(len(root), generator=generator, dtype=torch.float64).to(root)
    basis = torch.empty((LANCZOS, len(root)), dtype=root.dtype, device=root.device)
    basis[0] = start / start.norm()
    diagonal, beside = list[float](), list[float]()
    for k in range(LANCZOS):
        image = root @ (change @ (root.T @ basis[k]))
        diagonal.append(float(image @ basis[k]))
        for _ in range(2):
            image -= basis[: k + 1].T @ (basis[: k + 1] @ image)
        beside.append(float(image.norm()))
        if k + 1 == LANCZOS or beside[-1] < 1e-12 * max(1.0, abs(diagonal[0])):
            break
        basis[k + 1] = image / beside[-1]
    small = torch.diag(torch.tensor(diagonal, dtype=torch.float64))
    off = torch.tensor(beside[: len(diagonal) - 1], dtype=torch.float64)
    return float(torch.linalg.eigvalsh(small + torch.diag(off, 1) + torch.diag(off, -1))[0])


def _largest(values: Tensor, groups: Tensor, count: int) -> Tensor:
    """The largest value of every group."""
    return torch.zeros(count, dtype=values.dtype, device=values.device).scatter_reduce_(0, groups, values, "amax")

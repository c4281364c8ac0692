"""auto_LiRPA as a backend, where a checkout of it can be imported: the same problems, bounded by other people's code.

It keeps bounds on the nodes of its own module, so every batch gets a new one. Its verdicts are `computed` at best.
"""

from __future__ import annotations

import io
import math
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass, fields, replace
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType
from typing import Any, ClassVar

import torch
from torch import Tensor

from provenn.solvers.base import Backend, Budget, Problem, Progress, Result, Verdict, silent
from provenn.solvers.bounding import bound_cases
from provenn.solvers.packing import Packed
from provenn.verifier.errors import BackendError
from provenn.verifier.graph import Graph
from provenn.verifier.ops.base import Op
from provenn.verifier.ops.clip import Clip
from provenn.verifier.ops.leaky_relu import LeakyRelu
from provenn.verifier.ops.power import Pow
from provenn.verifier.ops.relu import Relu
from provenn.verifier.ops.shape import Reshape, Select
from provenn.verifier.region import Region

PACKAGE, OLDEST = "auto_LiRPA", (0, 7)

HOW = (
    "no release on the package index runs beside a current torch; from a checkout: "
    "git clone https://github.com/Verified-Intelligence/auto_LiRPA && pip install tqdm graphviz appdirs "
    "&& PYTHONPATH=auto_LiRPA provenn certify ..."
)

REFUSALS = (RuntimeError, ValueError, LookupError, AssertionError, TypeError, AttributeError, ArithmeticError)
"""What it raises for a network that it has no rule for."""

AGREEMENT = 1e-4
"""How far, relative to the largest output, its reading of the network may be from ours at the regions' centres."""


@dataclass(frozen=True)
class Slopes:
    """How it optimises slopes; iterations: passes of Adam; rate: its first step."""

    iterations: int = 20
    rate: float = 0.1


def _leaky(op: LeakyRelu, x: Tensor) -> Tensor:
    """Its own rule for slopes outside [0, 1] is wrong (0.7.1: bounds on the wrong side for slope 2)."""
    if 0 <= op.slope <= 1:
        return torch.nn.functional.leaky_relu(x, op.slope)
    return op.slope * x + (1 - op.slope) * torch.relu(x)


def _clip(op: Clip, x: Tensor) -> Tensor:
    """clip(z) = a + relu(z - a) - relu(z - b), each term only for a finite limit."""
    a, b = op.minimum, op.maximum
    below = a + torch.relu(x - a) if math.isfinite(a) else x
    return below - torch.relu(x - b) if math.isfinite(b) else below


def _select(op: Select, x: Tensor) -> Tensor:
    return x.index_select(op.axis + 1, torch.tensor(op.indices, device=x.device))


PLAIN: dict[type[Op], Callable[[Any, Tensor], Tensor]] = {
    Relu: lambda op, x: torch.relu(x),
    LeakyRelu: _leaky,
    Clip: _clip,
    Select: _select,
    Reshape: lambda op, x: x.flatten(1) if len(op.shape) == 1 else x.reshape(-1, *op.shape),
}
"""Ops whose `forward` torch would trace into operators that auto_LiRPA has no rule for, or a wrong one."""

WRONG = (Pow,)
"""Ops whose bounds do not hold in 0.7.1 (z^4 is off by a third); for all others of ours they do, or it refuses them."""


class Traceable(torch.nn.Module):
    """The network of a Graph as a module that torch traces into operators; the output is flat: [batch, outputs]."""

    def __init__(self, graph: Graph) -> None:
        super().__init__()
        self.graph = graph
        for index, node in enumerate(graph.nodes):
            for name, value in _tensors(node.op).items():
                self.register_parameter(f"node{index}_{name}", torch.nn.Parameter(value, requires_grad=False))

    def forward(self, x: Tensor) -> Tensor:
        """The network's output for inputs [batch, *input_shape]."""
        values = [x]
        for index, node in enumerate(self.graph.nodes[1:], start=1):
            assert node.op is not None
            own = {name: getattr(self, f"node{index}_{name}") for name in _tensors(node.op)}
            op: Op = replace(node.op, **own) if own else node.op
            plain = PLAIN.get(type(op))
            inputs = [values[i] for i in node.inputs]
            values.append(plain(op, inputs[0]) if plain is not None else op.forward(*inputs))
        return values[-1] if values[-1].dim() == 2 else values[-1].flatten(1)


class AutoLirpaCrown(Backend):
    """auto_LiRPA's CROWN, with its default options."""

    name = "auto-lirpa-crown"
    summary = "CROWN as auto_LiRPA computes it: a second opinion, never a certificate"
    verdicts = frozenset({Verdict.VERIFIED, Verdict.UNKNOWN, Verdict.TIMEOUT})
    norms = frozenset({"inf"})
    slopes: ClassVar[Slopes | None] = None

    @classmethod
    def status(cls) -> str:
        """Available where auto_LiRPA 0.7 or newer can be imported; it is imported to find out."""
        if find_spec(PACKAGE) is None:
            return f"not installed: {HOW}"
        try:
            version = str(getattr(package(), "__version__", "0"))
        except ImportError as error:
            return f"cannot be imported ({error}): {HOW}"
        if tuple(int(part) for part in version.split(".")[:2]) < OLDEST:
            return f"version {version} is too old, {OLDEST[0]}.{OLDEST[1]} is needed: {HOW}"
        return "available"

    def solve(self, problem: Problem, budget: Budget, progress: Progress = silent) -> Result:
        """Verified where its lower bound of every clause's best row is positive.

        Raises: BackendError if it has no rule for the network, or reads it as another function.
        """
        return bound_cases(problem, budget, progress, self.name, self._margins)

    def _margins(self, graph: Graph, packed: Packed) -> Tensor:
        try:
            lower = lower_bounds(graph, packed.region, -packed.matrix, self.slopes)
        except REFUSALS as error:
            reason = " ".join(str(error).split())[:200] or type(error).__name__
            raise BackendError(self.name, f"auto_LiRPA cannot bound this network: {reason}") from error
        return packed.margins(lower)


class AutoLirpaAlphaCrown(AutoLirpaCrown):
    """auto_LiRPA's CROWN with optimised slopes."""

    name = "auto-lirpa-alpha-crown"
    summary = "alpha-CROWN as auto_LiRPA computes it: a second opinion, never a certificate"
    slopes = Slopes()


def lower_bounds(graph: Graph, region: Region, matrix: Tensor, slopes: Slopes | None) -> Tensor:
    """Its lower bounds of C y over the region's box: [spec, batch], from C [spec, batch, outputs]; -inf for nan.

    A ball or linear constraints within the box are left out: the set grows, so the bound holds. Its own bounds over
    balls do not (0.7.1: interval bounds take an input that is read twice for its centre).   Raises: any of REFUSALS.
    """
    with torch.inference_mode(False), torch.set_grad_enabled(slopes is not None), _settled(matrix.dtype):
        lower = _bounded(graph, boxes(region), matrix, slopes)
    return lower.nan_to_num(nan=-torch.inf)


def crown_rows(graph: Graph, region: Region, matrix: Tensor) -> Tensor:
    """Its CROWN bounds of C y over the box, [spec, batch], of the rows alone: the last bound does not meet interval's.

    So an implementation of CROWN whose intermediate bounds meet interval's must give the same numbers.
    """
    with torch.inference_mode(False), torch.no_grad(), _settled(matrix.dtype):
        inputs, rows = boxes(region), matrix.transpose(0, 1).clone()
        module = bounded_module(graph, inputs, None, {"compare_crown_with_ibp": True})
        module.compute_bounds(x=(inputs,), C=rows, method="CROWN", bound_upper=False)
        read = [node.inputs[0] for node in module.get_enabled_opt_act()]
        known = {node.name: [node.lower, node.upper] for node in read}
        module.set_bound_opts({"compare_crown_with_ibp": False})
        found: Tensor = module.compute_bounds(
            x=(inputs,), C=rows, method="CROWN", bound_upper=False, interm_bounds=known
        )[0]
    return found.T


def _bounded(graph: Graph, inputs: Tensor, matrix: Tensor, slopes: Slopes | None) -> Tensor:
    """[spec, batch]; inputs: a BoundedTensor. Intermediate bounds meet interval's, as ours do."""
    module = bounded_module(graph, inputs, slopes, {"compare_crown_with_ibp": True})
    method = "CROWN" if slopes is None else "CROWN-Optimized"
    rows = matrix.transpose(0, 1).clone()
    lower: Tensor = module.compute_bounds(x=(inputs,), C=rows, method=method, bound_upper=False)[0]
    return lower.detach().T


def bounded_module(graph: Graph, inputs: Tensor, slopes: Slopes | None, options: Mapping[str, Any]) -> Any:
    """Its module of the network, for inputs of this batch.   Raises: ValueError for WRONG ops or another function."""
    wrong = [node.name for node in graph.nodes if isinstance(node.op, WRONG)]
    if wrong:
        raise ValueError(f"node '{wrong[0]}': auto_LiRPA's bounds of this op do not hold")
    centre = torch.Tensor(inputs).detach().clone()
    network = Traceable(graph)
    steps = slopes or Slopes()
    chosen = {**options, "optimize_bound_args": {"iteration": steps.iterations, "lr_alpha": steps.rate}}
    module = package().BoundedModule(network, centre, bound_opts=chosen, device=str(centre.device))
    _require_same(module(inputs), network(centre))
    return module


def boxes(region: Region) -> Tensor:
    """The region's boxes as its BoundedTensor."""
    lower, upper = region.box.lower.clone(), region.box.upper.clone()
    box = package().PerturbationLpNorm(x_L=lower, x_U=upper)
    return package().BoundedTensor((lower + upper) / 2, box)  # type: ignore[no-any-return]


def _require_same(theirs: Tensor, ours: Tensor) -> None:
    gap = float((theirs - ours).abs().max())
    if not gap <= AGREEMENT * (1 + float(ours.abs().max())):
        raise ValueError(f"it reads the network as another function: outputs differ by {gap:.3g}")


def _tensors(op: Op | None) -> dict[str, Tensor]:
    return {} if op is None else {f.name: v for f in fields(op) if isinstance(v := getattr(op, f.name), Tensor)}


@cache
def package() -> ModuleType:
    """The imported package.   Raises: ImportError if it, or something that it needs, is missing."""
    with quiet(), redirect_stderr(io.StringIO()):
        return import_module(PACKAGE)


@contextmanager
def _settled(dtype: torch.dtype) -> Iterator[None]:
    """It stores its best bounds in torch's default type, whatever the network's is."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with quiet():
            yield
    finally:
        torch.set_default_dtype(before)


@contextmanager
def quiet() -> Iterator[None]:
    """Its messages on stdout and its deprecated calls are not the user's business."""
    with redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield

"""A closed loop of several networks as one: from a state to V there and to how V goes on from there.

    state z = (x, x^), x^ the observer's estimate of x where there is an observer; w disturbances
    u = controller(x), or controller(x^);  y = measurement(x), or x itself
    motion f(z, w) = (dynamics(x, u, w), observer(x^, u, y))

The composition's input is (z, w). Its outputs are V(z), the change of V, and f(z, w); the change is

    discrete        V(f(z, w)) - V(z)
    difference      V(z + h f(z, w)) - V(z), for continuous time and convex V (see below)
    derivative      dV/dt along z' = f(z, w), by models.directional, for continuous time and any V

For convex V and every h > 0 the difference quotient (V(z + h f) - V(z)) / h is at least the directional derivative of
V along f, which for almost every t is d/dt V(z(t)) on a solution: quotients of a convex function rise with h. So V
falls at rate r or faster wherever V(z + h f) - V(z) <= -h r, and no product of a gradient with f is needed.

In continuous time f must be continuous: where it jumps, z' = f(z, w) need not have solutions (z' = 1/2 - sign(z) has
none from 0 on), and what is called one there, a sliding motion, does not have the velocity f of which the change of V
is made. So networks of f with an op that jumps are refused. V need not be looked at: it is convex, or made of
operators that models.directional has rules for, all of them locally Lipschitz. In discrete time nothing need be
continuous: see models.specification.lyapunov.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod

from torch import Tensor, nn

from provenn.models.admission import Admitted
from provenn.models.composition import INPUT, Composition, converted, network
from provenn.models.directional import derivative
from provenn.models.onnx_reader import read
from provenn.models.torch_export import export
from provenn.verifier.continuity import jump
from provenn.verifier.convexity import convex
from provenn.verifier.errors import InvalidModel, UnsupportedOp

ROLES = ("controller", "dynamics", "candidate", "observer", "measurement")
"""Names of networks in a loop; the last two may be missing."""
JUMPS = "and where a velocity jumps there need not be solutions; a loop in discrete time may jump"


def exported(function: Callable[[Tensor], Tensor], inputs: int) -> bytes:
    """The ONNX file of a torch function [batch, inputs] -> [batch, outputs] of yours, or of a module.

    Raises: InvalidModel if torch's exporter refuses it.
    """
    return export(function if isinstance(function, nn.Module) else _Function(function), (inputs,))


class _Function(nn.Module):
    """A function as a module."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        """The function."""
        return self.function(x)


@dataclass(frozen=True)
class ClosedLoop:
    """model: the composition; states: entries of z; disturbances: of w; steps: whether f(z, w) is the next state."""

    model: bytes
    states: int
    disturbances: int
    steps: bool


@dataclass(frozen=True)
class Change:
    """How V goes on: "discrete", "difference" with the step h (a float32 number), or "derivative"."""

    kind: str
    step: float = 0.0


def closed_loop(files: Mapping[str, bytes], disturbances: int, change: Change) -> ClosedLoop:
    """The loop of ONNX files by their roles.

    Raises: InvalidModel where sizes do not fit, or V is not proved convex for "difference"; UnsupportedOp for an
    operator of V that "derivative" has no rule for, and in continuous time for one of f that jumps.
    """
    parts = {role: network(data, role) for role, data in files.items()}
    opset = max(part.file.opset for part in parts.values())
    parts = {role: converted(part, opset, role) for role, part in parts.items()}
    _require_fits(parts, disturbances)
    if change.kind != "discrete":
        _require_continuous(parts)
    if change.kind == "difference" and not convex(read(parts["candidate"].file.content)):
        raise InvalidModel(
            "the candidate is not proved convex (affine layers, relu, abs, max and squares, with weights that are not "
            'negative after the first of these), as a "step" of continuous time needs; leave it out'
        )
    return _Loop(parts, disturbances, Composition(_states(parts) + disturbances, opset)).closed(change)


def _inputs(part: Admitted) -> int:
    return prod(part.input.held_shape)


def _outputs(part: Admitted) -> int:
    return prod(part.output.held_shape)


def _states(parts: Mapping[str, Admitted]) -> int:
    return sum(_outputs(parts[role]) for role in ("dynamics", "observer") if role in parts)


def _require_fits(parts: Mapping[str, Admitted], disturbances: int) -> None:
    """Raises: InvalidModel saying which network takes or gives another number."""
    x, u = _outputs(parts["dynamics"]), _outputs(parts["controller"])
    estimated = _outputs(parts["observer"]) if "observer" in parts else 0
    measured = _outputs(parts["measurement"]) if "measurement" in parts else x
    wanted = {
        "dynamics": (x + u + disturbances, f"{x} states, {u} controls and {disturbances} disturbances"),
        "controller": (estimated or x, "the estimated states" if estimated else "the states"),
        "measurement": (x, "the states"),
        "observer": (estimated + u + measured, f"{estimated} estimates, {u} controls and {measured} measurements"),
        "candidate": (x + estimated, "the states" + (" and their estimates" if estimated else "")),
    }
    for role, part in parts.items():
        size, what = wanted[role]
        if _inputs(part) != size:
            raise InvalidModel(f"the {role} takes {_inputs(part)} inputs; here they are {what}: {size}")
    if _outputs(parts["candidate"]) != 1:
        raise InvalidModel(f"the candidate gives {_outputs(parts['candidate'])} numbers; it must be one, V")
    if "measurement" in parts and not estimated:
        raise InvalidModel("a measurement is there for an observer, and there is none")


def _require_continuous(parts: Mapping[str, Admitted]) -> None:
    """Raises: UnsupportedOp naming the node of f that jumps."""
    for role in (role for role in parts if role != "candidate"):
        found = jump(read(parts[role].file.content))
        if found is not None and found.op is not None:
            operator = next(iter(found.op.onnx), type(found.op).__name__)
            raise UnsupportedOp(found.name, operator, f"in the {role} it jumps, {JUMPS}")


@dataclass(frozen=True, eq=False)
class _Loop:
    """The networks, and the composition that grows."""

    parts: Mapping[str, Admitted]
    disturbances: int
    made: Composition

    def closed(self, change: Change) -> ClosedLoop:
        """See closed_loop."""
        made, states = self.made, _states(self.parts)
        state = made.taken(INPUT, range(states))
        motion = self._motion(state)
        own = made.node("Identity", [state])
        value = made.through(self.parts["candidate"], "V/", own)
        if change.kind == "derivative":
            changed = derivative(made, value, own, motion)
        else:
            after = motion
            if change.kind == "difference":
                after = made.node("Add", [state, made.node("Mul", [motion, made.real([change.step])])])
            following = made.through(self.parts["candidate"], "V+/", after)
            changed = made.node("Sub", [following, value])
        return ClosedLoop(made.file([value, changed, motion]), states, self.disturbances, change.kind == "discrete")

    def _motion(self, state: str) -> str:
        """f(z, w)."""
        made, parts = self.made, self.parts
        x = _outputs(parts["dynamics"])
        if "observer" not in parts:
            plant, estimate = state, state
        else:
            plant = made.taken(state, range(x))
            estimate = made.taken(state, range(x, _states(parts)))
        control = made.through(parts["controller"], "controller/", estimate)
        states = _states(parts)
        noise = [made.taken(INPUT, range(states, states + self.disturbances))] if self.disturbances else []
        moved = made.through(parts["dynamics"], "dynamics/", made.beside([plant, control, *noise]))
        if "observer" not in parts:
            return moved
        measured = made.through(parts["measurement"], "measurement/", plant) if "measurement" in parts else plant
        observed = made.through(parts["observer"], "observer/", made.beside([estimate, control, measured]))
        return made.beside([moved, observed])

"""A torch module as a graph whose parameters are the module's own tensors: bounds of it can be differentiated.

The module is exported and planned once. A graph is then made anew, in milliseconds, whenever one is asked for, out of
the parameters as they are at that time: an optimiser may change them in between, and gradients of whatever is computed
of the graph's nodes reach them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd

from provenn.models.admission import Admitted, admitted
from provenn.models.live_array import LiveArray
from provenn.models.torch_export import export_with_names
from provenn.verifier.errors import InvalidModel
from provenn.verifier.graph import Graph
from provenn.verifier.ops.base import Shape

SHIFT, AGREEMENT = 0.05, 1e-4
"""By how much of themselves parameters are moved to see that the graph follows them, and how well it must."""
SAME = 1e-2
"""How far the graph may be from the module in training: accelerators multiply with few digits."""


@dataclass(frozen=True, eq=False)
class LiveGraph:
    """The module, how its file was read, and where each of its tensors is stored in it."""

    module: nn.Module
    network: Admitted
    places: Mapping[str, int]
    known: set[tuple[bool, ...]] = field(default_factory=set)
    """Which parts were in training mode when the graph was seen to be what the module computes."""

    @classmethod
    def of(cls, module: nn.Module, input_shape: Shape) -> LiveGraph:
        """For inputs [batch, *input_shape]; any module that torch exports and `onnx_reader` reads.

        The module stays as it is, and in its mode. Raises: InvalidModel if onnxscript is missing, torch refuses the
        module, or the graph would not follow its parameters; UnsupportedOp, ResourceLimit.
        """
        network = admitted(export_with_names(module, tuple(input_shape)))
        stored = network.plan.folding.stored()
        live = cls(module, network, {name: stored[name] for name in _tensors(module) if name in stored})
        live._require_following(tuple(input_shape))
        return live

    def graph(self) -> Graph:
        """The function that the module computes in inference mode: batch normalization by its running statistics."""
        return self._made(_tensors(self.module))

    def __call__(self, inputs: Tensor) -> tuple[Tensor, Graph]:
        """The module's outputs for inputs [batch, *input_shape], and the graph of the function that it applied.

        Batch normalization in training mode uses the mean and variance of these inputs, which the graph has as
        constants that carry gradients: so the bounds are those of the function that made the outputs. Dropout, which
        is no function of the input, the graph leaves out.
        Raises: InvalidModel, by the first call in a mode, where it is another function; never with dropout layers.
        """
        with _statistics(self.module) as seen:
            outputs: Tensor = self.module(inputs)
        graph = self._made({**_tensors(self.module), **seen})
        self._require_same(inputs, outputs, graph)
        return outputs, graph

    def _require_same(self, inputs: Tensor, outputs: Tensor, graph: Graph) -> None:
        """The graph is what the module computes in its mode.   Raises: InvalidModel."""
        mode, random = tuple(part.training for part in self.module.modules()), self.module.modules()
        if mode in self.known or any(isinstance(part, _DropoutNd) and part.training and part.p > 0 for part in random):
            return
        with torch.no_grad():
            error = _apart(graph.forward(inputs), outputs)
        if not error <= SAME:
            raise InvalidModel(
                f"in this mode the module and its graph differ by {error:.2g}: in training mode it computes something "
                "that layers of batch normalization and dropout do not account for"
            )
        self.known.add(mode)

    def _made(self, tensors: Mapping[str, Tensor]) -> Graph:
        """Parameters are multiplied with each other in float64; the ops hold them in the module's own precision."""
        given: dict[int, Any] = {place: LiveArray(tensors[name].double()) for name, place in self.places.items()}
        like = next((p for p in self.module.parameters()), torch.zeros(0))
        return self.network.plan.made(self.network.output, given).to(like.device, like.dtype)

    def _require_following(self, shape: Shape) -> None:
        """The graph is the module for other parameters too.   Raises: InvalidModel."""
        generator = torch.Generator().manual_seed(0)
        training = {part: part.training for part in self.module.modules()}
        self.module.eval()
        try:
            with torch.no_grad():
                tensors = _tensors(self.module)
                apart = {id(t): _moved(t, generator) for t in tensors.values()}  # shared ones move together
                moved = {name: apart[id(t)] for name, t in tensors.items()}
                like = next((p for p in self.module.parameters()), torch.zeros(0))
                inputs = torch.rand((4, *shape), generator=generator).to(like.device, like.dtype)
                # Of a part with two names one alone: else the call leaves the moved tensors in it.
                once = {(id(self.module.get_submodule(n.rpartition(".")[0])), n.rpartition(".")[2]): n for n in moved}
                given = {name: moved[name] for name in once.values()}
                wanted = torch.func.functional_call(self.module, given, (inputs,), tie_weights=False)
                found = self._made(moved).forward(inputs)
        finally:
            for part, flag in training.items():
                part.training = flag
        error = _apart(found, wanted)
        if not error <= AGREEMENT:
            raise InvalidModel(
                f"with other parameters the module and its graph differ by {error:.2g}: something in it is "
                "computed from parameters in a way that cannot be followed"
            )


def _apart(found: Tensor, wanted: Tensor) -> float:
    """By what share of the largest output, or of 1, two computations differ at most."""
    return float((found - wanted.reshape(found.shape)).abs().max() / wanted.abs().max().clamp(min=1))


def _tensors(module: nn.Module) -> dict[str, Tensor]:
    """Parameters and floating-point buffers by name, shared ones under all of their names."""
    named = [*module.named_parameters(remove_duplicate=False), *module.named_buffers(remove_duplicate=False)]
    return {name: tensor for name, tensor in named if tensor.is_floating_point()}


def _moved(tensor: Tensor, generator: torch.Generator) -> Tensor:
    """Every number by a part of itself, and zeros by a little: positive numbers stay so."""
    shift = SHIFT * torch.rand(tensor.shape, generator=generator).to(tensor.device, tensor.dtype)
    return tensor + torch.where(tensor == 0, shift, shift * tensor)


@contextmanager
def _statistics(module: nn.Module) -> Iterator[dict[str, Tensor]]:
    """Filled, while the module runs, with the statistics that batch normalization in training mode computes.

    Raises: InvalidModel where one layer is applied several times, to inputs with statistics of their own.
    """
    seen: dict[str, Tensor] = {}

    def record(name: str, layer: nn.Module, arguments: tuple[Tensor, ...]) -> None:
        if not layer.training or not isinstance(layer, _BatchNorm):
            return
        (x,) = arguments
        if f"{name}running_mean" in seen:
            raise InvalidModel("batch normalization applied twice has no one mean in training mode", name.rstrip("."))
        axes = (0, *range(2, x.dim()))
        seen[f"{name}running_mean"] = x.mean(axes)
        seen[f"{name}running_var"] = x.var(axes, correction=0)

    hooks = []
    for name, part in module.named_modules(remove_duplicate=False):
        prefix = f"{name}." if name else ""
        hooks.append(part.register_forward_pre_hook(lambda layer, x, prefix=prefix: record(prefix, layer, x)))
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()

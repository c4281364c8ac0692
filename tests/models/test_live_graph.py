"""A live graph is the module, whatever its parameters become, and gradients through it are the module's."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, gelu

from provenn.models.live_array import LiveArray
from provenn.models.live_graph import LiveGraph
from provenn.verifier.errors import InvalidModel
from provenn.verifier.training import around, crown_ibp, ibp

pytestmark = [
    pytest.mark.xdist_group("torch export"),
    pytest.mark.skipif(find_spec("onnxscript") is None, reason="onnxscript is not installed"),
]


class Dense(nn.Module):
    """Parameters that reach the ops transposed, normalised, multiplied with each other and through functions."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.leak = nn.Linear(4, 4), nn.PReLU(4)
        self.normed = nn.utils.parametrizations.weight_norm(nn.Linear(4, 4))
        self.matrix, self.norm, self.batch = nn.Parameter(torch.randn(4, 4)), nn.LayerNorm(4), nn.BatchNorm1d(4)

    def forward(self, x: Tensor) -> Tensor:
        y = self.leak(self.first(x)) @ self.matrix.T * torch.exp(self.first.bias)
        y = torch.tanh(self.batch(self.norm(x + self.normed(y))))
        return y @ torch.cat([self.matrix, self.matrix.flip(0)], 1)[:, 2:5]


class Convolutional(nn.Module):
    """Batch normalization behind convolutions; dropout, which the graph leaves out."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.batch, self.up = nn.Conv2d(1, 4, 3, stride=2), nn.BatchNorm2d(4), nn.ConvTranspose2d(4, 2, 2)
        self.last, self.drop = nn.Linear(32, 3), nn.Dropout(0.5)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.batch(self.conv(x)))
        return self.last(self.drop(torch.flatten(gelu(self.up(y)), 1)))


SHAPES = {Dense: (4,), Convolutional: (1, 7, 7)}
Made = tuple[nn.Module, LiveGraph, Tensor]


@pytest.fixture(scope="module", params=[Dense, Convolutional])
def made(request: pytest.FixtureRequest) -> Made:
    """Exporting takes a second."""
    torch.manual_seed(0)
    shape = SHAPES[request.param]
    module = request.param().double()
    return module, LiveGraph.of(module, shape), torch.rand((6, *shape), dtype=torch.float64)


def test_the_graph_is_the_module_in_both_modes_after_steps_too(made: Made) -> None:
    module, live, x = made
    frozen = [part for part in module.modules() if isinstance(part, nn.Dropout)]
    optimiser = torch.optim.SGD(module.parameters(), lr=0.01)
    for _ in range(2):
        module.train()
        for part in frozen:
            part.eval()
        outputs, graph = live(x)
        assert torch.allclose(graph.forward(x), outputs, atol=1e-10)
        optimiser.zero_grad()
        torch.autograd.backward(outputs.square().sum())
        optimiser.step()
        module.eval()
        assert torch.allclose(live.graph().forward(x), module(x), atol=1e-10)
        assert torch.allclose(live(x)[1].forward(x), module(x), atol=1e-10)


def test_gradients_are_those_of_the_module(made: Made) -> None:
    """Those through the statistics of the batch too."""
    module, live, x = made
    module.train()
    for part in module.modules():
        part.train(not isinstance(part, nn.Dropout))
    outputs, graph = live(x)
    parameters = list(module.parameters())
    wanted = torch.autograd.grad(outputs.square().sum(), parameters, retain_graph=True)
    found = torch.autograd.grad(graph.forward(x).square().sum(), parameters)
    for one, other in zip(wanted, found, strict=True):
        assert torch.allclose(one, other, atol=1e-8)


@pytest.mark.parametrize("loss", [ibp, crown_ibp])
def test_bounds_of_no_width_are_the_outputs_and_reach_every_parameter(made: Made, loss: Callable[..., object]) -> None:
    module, live, x = made
    module.eval()
    labels = torch.arange(6) % 3
    found = loss(live.graph(), around(x, 0.0), labels)
    assert abs((found.loss - cross_entropy(module(x), labels)).item()) < 1e-6
    wide = loss(live.graph(), around(x, 0.01), labels)
    assert wide.loss > found.loss
    for each in (found, wide):
        slopes = torch.autograd.grad(each.loss, list(module.parameters()))
        assert all(slope.isfinite().all() and slope.any() for slope in slopes)


def test_running_statistics_are_those_of_one_run(made: Made) -> None:
    """Making the graph runs the module once; attacks on the graph do not run it."""
    module, live, x = made
    module.train()
    before = int(module.batch.num_batches_tracked)
    _, graph = live(x)
    graph.forward(x)
    assert int(module.batch.num_batches_tracked) == before + 1


def test_what_cannot_be_followed_is_refused(made: Made) -> None:
    module, live, x = made

    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.batch = nn.BatchNorm1d(3)

        def forward(self, x: Tensor) -> Tensor:
            return self.batch(torch.relu(self.batch(x)))

    twice = LiveGraph(Twice(), live.network, {})
    with pytest.raises(InvalidModel, match="twice"):
        twice(torch.rand(4, 3))
    hidden = LiveGraph(module, live.network, {k: v for k, v in live.places.items() if not k.startswith("batch")})
    with pytest.raises(InvalidModel, match="differ by"):
        hidden._require_following(tuple(x.shape[1:]))


def test_live_arrays_do_not_lose_gradients_silently() -> None:
    import numpy as np

    live = LiveArray(torch.rand(2, 3, requires_grad=True))
    assert (live * 2 + np.ones((2, 3)) - live.T.reshape(2, 3)).values.requires_grad
    assert np.isfinite(live).all() and (live.ndim, live.size, live.shape) == (2, 6, (2, 3))
    with pytest.raises(TypeError):
        np.asarray(live)
    with pytest.raises(TypeError, match="arctan"):
        np.arctan(live)
    with pytest.raises(TypeError, match="sort"):
        np.sort(live)

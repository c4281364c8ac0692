"""Sorting, Householder and equilibrium layers as torch modules: their mathematics, their training, their files."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from provenn.models import implicit_export, zoo
from provenn.models.reading import executor, read_model
from provenn.models.zoo.deq import FUNCTIONS, TOLERANCE, MonotoneDEQ
from provenn.models.zoo.digits import load_digits
from provenn.models.zoo.householder import Householder
from provenn.models.zoo.networks import DenseResidual
from provenn.models.zoo.sorting import GroupSort, MaxMin
from provenn.verifier.errors import InvalidModel

pytestmark = pytest.mark.xdist_group("torch export")
"""What the tests share is made once."""

NEW = ("tanh", "maxmin", "groupsort5", "householder", "residual", "deq")
ACTIVATIONS = {"pairs": MaxMin(), "fours": GroupSort(4), "planes": Householder(12), "wide": Householder(12, 3)}


OPERATORS = {
    "tanh": ["Tanh"],
    "maxmin": ["Reshape", "Gather", "Gather", "Max", "Min", "Unsqueeze", "Unsqueeze", "Concat", "Reshape"],
    "groupsort5": ["Reshape", "TopK", "Reshape"],
    "householder": ["Gemm", "Relu", "Gemm", "Add"],
}
"""What the activations are exported to, which the trusted checker reads too."""


def points(*shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return 3 * torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)), dtype=dtype)


def monotone(function: str, inputs: int = 5, width: int = 7, margin: float = 0.2) -> MonotoneDEQ:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(inputs + width)
        return MonotoneDEQ(inputs, width, function, margin).double()


# --- the networks of the zoo ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=NEW)
def network(request: pytest.FixtureRequest) -> tuple[str, nn.Sequential, bytes]:
    """Name, trained module and file."""
    pytest.importorskip("sklearn", reason="the digits come with scikit-learn")
    module = zoo.trained(f"digits-{request.param}")
    return request.param, module, zoo.exported(module)


Network = tuple[str, nn.Sequential, bytes]


def test_the_network_classifies_the_digits_and_is_read_as_it_runs(network: Network) -> None:
    _, module, data = network
    _, test = load_digits()
    images = torch.as_tensor(test.images)
    graph, executor = read_model(data)
    outputs = executor.run(test.images)
    assert (outputs.argmax(1) == test.labels).mean() > 0.95
    with torch.no_grad():
        torch.testing.assert_close(torch.from_numpy(outputs), module(images), rtol=1e-4, atol=1e-4)
    exact = graph.forward(images.double()).numpy()
    np.testing.assert_allclose(outputs, exact, rtol=0, atol=4e-6 * np.abs(exact).max())
    assert (graph.input_shape, graph.output_shape) == ((1, 8, 8), (10,))


def test_the_file_is_the_module_in_onnxruntime(network: Network) -> None:
    name, module, data = network
    if name == "deq":
        assert executor(data).name.startswith("numpy")
        return
    x = torch.rand((6, 1, 8, 8), generator=torch.Generator().manual_seed(0))
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    (theirs,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    with torch.no_grad():
        torch.testing.assert_close(torch.from_numpy(theirs), module(x), rtol=1e-4, atol=1e-4)
    operators = [node.op_type for node in onnx.load_from_string(data).graph.node]
    if name in OPERATORS:
        assert operators == ["Reshape", "Gemm", *OPERATORS[name], "Gemm", *OPERATORS[name], "Gemm"]


# --- activations ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_norms_are_preserved_and_distances_do_not_grow(name: str) -> None:
    activation = ACTIVATIONS[name].double()
    x = points(200, 12)
    y = x + 0.3 * points(400, 12)[:200]
    with torch.no_grad():
        a, b = activation(x), activation(y)
    torch.testing.assert_close(a.norm(dim=1), x.norm(dim=1), rtol=1e-12, atol=0)
    assert ((a - b).norm(dim=1) <= (x - y).norm(dim=1) * (1 + 1e-12)).all()
    assert ((a - b).norm(dim=1) < 0.99 * (x - y).norm(dim=1)).any()


def test_group_sort_by_hand() -> None:
    x = torch.tensor([[1.0, 3.0, 2.0, -1.0, 0.0, 5.0]])
    assert GroupSort(3)(x).tolist() == [[3.0, 2.0, 1.0, 5.0, 0.0, -1.0]]
    assert GroupSort(6)(x).tolist() == [[5.0, 3.0, 2.0, 1.0, 0.0, -1.0]]
    assert MaxMin()(x).tolist() == [[3.0, 1.0, 2.0, -1.0, 5.0, 0.0]]
    assert torch.equal(MaxMin()(points(5, 3, 8)), GroupSort(2)(points(5, 3, 8)))


def test_a_householder_activation_reflects_what_lies_behind_its_plane() -> None:
    """v = (3, 4) / 5: (1, 1) is in front; (-1, -1) with v'z = -1.4 goes to (-1, -1) + 2.8 v."""
    activation = Householder(2)
    with torch.no_grad():
        activation.directions.copy_(torch.tensor([[6.0, 8.0]]))
        values = activation(torch.tensor([[1.0, 1.0], [-1.0, -1.0], [4.0, -3.0]]))
    torch.testing.assert_close(values, torch.tensor([[1.0, 1.0], [0.68, 1.24], [4.0, -3.0]]))


def test_a_householder_activation_is_trained_and_its_fixed_form_is_it() -> None:
    activation = Householder(12, 3).double()
    x = points(6, 12).requires_grad_()
    assert torch.autograd.gradcheck(activation, (x,))
    torch.autograd.backward(activation(x).square().sum() + activation(x).sum())
    assert activation.directions.grad is not None and activation.directions.grad.abs().min() > 0
    torch.testing.assert_close(activation.fixed()(x), activation(x), rtol=1e-12, atol=1e-12)


def test_widths_that_make_no_groups_are_refused() -> None:
    with pytest.raises(InvalidModel, match="7 units do not make groups of 2"):
        MaxMin()(torch.zeros(1, 7))
    with pytest.raises(InvalidModel, match="8 units do not make groups of 5"):
        GroupSort(5)(torch.zeros(1, 8))
    with pytest.raises(InvalidModel, match="groups of 0"):
        GroupSort(0)
    with pytest.raises(InvalidModel, match="9 units do not make groups of 2"):
        Householder(9)


def test_a_dense_residual_block_by_hand() -> None:
    block = DenseResidual(2)
    with torch.no_grad():
        block.branch[0].weight.copy_(torch.tensor([[1.0, -1.0], [0.0, 1.0]]))
        block.branch[0].bias.zero_()
        block.branch[2].weight.copy_(torch.tensor([[2.0, 0.0], [0.0, 3.0]]))
        assert block(torch.tensor([[2.0, 1.0], [0.0, -1.0]])).tolist() == [[4.0, 4.0], [2.0, -1.0]]


# --- equilibrium layers -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("function", FUNCTIONS)
def test_an_equilibrium_layer_solves_its_equation(function: str) -> None:
    module, x = monotone(function), points(40, 5)
    with torch.no_grad():
        z = module(x)
        again = FUNCTIONS[function](z @ module.weight().T + module.input(x))
    assert ((z - again).abs().amax(1) <= TOLERANCE[torch.float64] * (1 + z.abs().amax(1))).all()


def test_its_weight_is_monotone_with_the_margin() -> None:
    weight = monotone("relu", margin=0.2).weight().detach()
    smallest = torch.linalg.eigvalsh(torch.eye(7).double() - (weight + weight.T) / 2)[0]
    assert 0.2 - 1e-12 <= smallest < 0.25


@pytest.mark.parametrize("function", FUNCTIONS)
def test_its_gradients_are_those_of_finite_differences(function: str) -> None:
    module, x = monotone(function, 3, 4), points(3, 3).requires_grad_()
    names, values = zip(*module.named_parameters(), strict=True)

    def value(x: Tensor, *parameters: Tensor) -> Tensor:
        return torch.func.functional_call(module, dict(zip(names, parameters, strict=True)), (x,))

    assert torch.autograd.gradcheck(value, (x, *values), eps=1e-6, atol=1e-5)


def test_what_does_not_converge_and_what_makes_no_layer_is_refused() -> None:
    module = monotone("relu", margin=1e-6)
    with torch.no_grad():
        module.skew.mul_(1e4)
    with pytest.raises(InvalidModel, match="did not converge in 1000 iterations"):
        module(points(4, 5))
    with pytest.raises(InvalidModel, match="no function 'elu'; there are: relu, tanh, sigmoid"):
        MonotoneDEQ(2, 3, "elu")
    with pytest.raises(InvalidModel, match="the margin is 0"):
        MonotoneDEQ(2, 3, margin=0)


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize("dtype", (torch.float32, torch.float64), ids=str)
def test_an_equilibrium_network_is_exported_as_it_is(function: str, dtype: torch.dtype) -> None:
    torch.manual_seed(2)
    parts = [nn.Flatten(), nn.Linear(6, 5, bias=False), nn.Tanh(), nn.Dropout(), monotone(function), nn.Linear(7, 3)]
    module = nn.Sequential(*parts, nn.Sigmoid()).to(dtype).eval()
    graph, executor = read_model(implicit_export.export(module, (2, 3)))
    x = points(9, 2, 3, dtype=torch.float32)
    with torch.no_grad():
        own = module(x.to(dtype))
    tolerance = 1e-4 if dtype == torch.float32 else 1e-9
    torch.testing.assert_close(graph.forward(x.double()), own.double(), rtol=tolerance, atol=tolerance)
    np.testing.assert_allclose(executor.run(x.numpy()), graph.forward(x.double()).numpy(), rtol=1e-6, atol=1e-6)


def test_modules_without_a_layer_in_the_format_are_refused() -> None:
    with pytest.raises(InvalidModel, match="Conv2d has no layer in provenn-network/1; there are linear"):
        implicit_export.export(nn.Sequential(nn.Conv2d(1, 1, 3)), (1, 5, 5))
    with pytest.raises(InvalidModel, match=r"layer 1: weight 'layer1.weight' has shape \[2, 4\], not \[any, 3\]"):
        implicit_export.export(nn.Sequential(nn.Linear(5, 3), nn.Linear(4, 2)), (5,))

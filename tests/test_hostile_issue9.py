"""What a hostile review of patterns, documents, loops and training found: each of these failed once."""

from __future__ import annotations

import json
from fractions import Fraction
from importlib.util import find_spec
from typing import Any

import numpy as np
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn
from torch.nn.functional import batch_norm

import provenn
from provenn.models.enclosure import enclosed
from provenn.models.live_graph import LiveGraph
from provenn.models.onnx_reader import read
from provenn.models.parametrization import Map, parametrized
from provenn.models.specification.documents import resolve
from provenn.models.specification.stated import Stated
from provenn.verifier.errors import InvalidModel
from provenn.verifier.graph import sequential
from provenn.verifier.interval import Interval
from provenn.verifier.ops.gate import Gate
from provenn.verifier.ops.linear import Linear
from provenn.verifier.ops.steps import Ceil, Floor, Round, Sign, Step
from provenn.verifier.training import crown_ibp, small_boxes

FORMAT = "provenn-specification/1"
exporting = pytest.mark.skipif(find_spec("onnxscript") is None, reason="onnxscript is not installed")


def network(kind: int = TensorProto.FLOAT, opset: int = 17) -> bytes:
    """(x_0, x_1) -> (x_0 - x_1, x_1)."""
    matrix = np.array([[1, 0], [-1, 1]], helper.tensor_dtype_to_np_dtype(kind))
    node = helper.make_node("MatMul", ["x", "m"], ["y"])
    ends = [helper.make_tensor_value_info(name, kind, [1, 2]) for name in "xy"]
    graph = helper.make_graph([node], "g", ends[:1], ends[1:], [numpy_helper.from_array(matrix, "m")])
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    return bytes(made.SerializeToString())


def perturbed(model: bytes, **members: Any) -> str:
    """What is claimed of brightness around an input whose numbers every float type holds."""
    bright = {"type": "brightness", "range": [0, 1]}
    asked = {"format": FORMAT, "kind": "perturbation", "input": [0.5, 0.25], "label": 0, "perturbations": [bright]}
    found = resolve(json.dumps(asked | members).encode(), model)
    assert isinstance(found, Stated)
    return found.words


def test_rounded_ends_of_a_cut_are_said_to_be_rounded() -> None:
    """Clip holds 0.9 as a float32 number, which is another one."""
    assert perturbed(network(), clip=[0.125, 0.75]).endswith("cut to [0.125, 0.75]")
    assert perturbed(network(), clip=[0, 0.9]).endswith("cut to [0, 0.9] (numbers of the map rounded to float32)")


def test_numbers_that_float64_does_not_hold_are_said_to_be_rounded() -> None:
    """They were compared with themselves after they had been rounded."""
    double = network(TensorProto.DOUBLE)
    assert perturbed(double).endswith("that is added")
    for members in ({"input": [0.1, 0.5]}, {"input": ["1/3", 0.5]}, {"clip": [0, "2/3"]}):
        assert perturbed(double, **members).endswith("(numbers of the map rounded to float64)")
    tilted = {"type": "linear", "range": [0, 1], "directions": [[0.5, str(1 + Fraction(1, 10**20))]]}
    assert perturbed(network(), perturbations=[tilted]).endswith("(numbers of the map rounded to float32)")
    stretched = {"type": "contrast", "range": [1, 2], "about": "1/3"}
    assert perturbed(network(), perturbations=[stretched]).endswith("(numbers of the map rounded to float32)")


def test_numbers_under_a_patch_are_no_numbers_of_the_map() -> None:
    patch = {"type": "patch", "top": 0, "left": 0, "height": 1, "width": 1, "range": [0, 1]}
    asked = {"input": ["1/3", 0.25], "shape": [1, 2], "perturbations": [patch]}
    assert "rounded" not in perturbed(network(), **asked)


def test_a_cut_that_float32_attributes_round_is_refused() -> None:
    """Up to operator set 10 the ends of Clip are attributes, in float32 whatever the network computes in."""
    changed = Map(np.zeros(2), np.ones((1, 2)), (0.0, 0.1))
    with pytest.raises(InvalidModel, match="float32 numbers alone"):
        parametrized(network(TensorProto.DOUBLE, 10), changed)
    parametrized(network(TensorProto.DOUBLE, 10), Map(np.zeros(2), np.ones((1, 2)), (0.0, 0.5)))
    parametrized(network(TensorProto.FLOAT, 10), changed)
    parametrized(network(TensorProto.DOUBLE, 11), changed)


def staircase() -> bytes:
    """floor(((x_0 w_0 + x_1 w_1) + x_2 w_2) + ..): 3 at ones, where float32 and float64 alike add up to less."""
    terms = [3 - 2.0**-22, *[2.0**-24] * 3, 2.0**-24 - 2.0**-48, *[2.0**-53] * 32]
    assert sum(map(Fraction, terms)) == 3 > sum(terms)
    nodes, stored = [], []
    for i, term in enumerate(terms):
        stored += [numpy_helper.from_array(np.array([i]), f"i{i}")]
        stored += [numpy_helper.from_array(np.array([term], np.float32), f"w{i}")]
        nodes += [helper.make_node("Gather", ["x", f"i{i}"], [f"x{i}"], axis=1)]
        nodes += [helper.make_node("Mul", [f"x{i}", f"w{i}"], [f"m{i}"])]
        nodes += [helper.make_node("Add", [f"s{i - 1}", f"m{i}"], [f"s{i}"])] if i else []
    nodes[1].output[0] = "s0"
    nodes.append(helper.make_node("Floor", [f"s{len(terms) - 1}"], ["y"]))
    sizes = {"x": [1, len(terms)], "y": [1, 1]}
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, size) for name, size in sizes.items()]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], stored)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(made.SerializeToString())


@pytest.mark.parametrize(("bound", "verdict"), [(3, "unknown"), (4, "verified")])
def test_roundings_that_pass_a_jump_verify_nothing(bound: int, verdict: str) -> None:
    """Margins were whole numbers, far above any rounding, and the real value at the corner was the unsafe one."""
    unsafe = [{"C": [[1]], "d": [bound]}]
    asked = {"format": FORMAT, "kind": "box", "lower": [0] * 37, "upper": [1] * 37, "unsafe": unsafe}
    found = provenn.prove(staircase(), asked, timeout=20)
    assert found.verdict == verdict
    assert found.assurance == (None if verdict == "unknown" else "computed")


@pytest.mark.parametrize("op", [Sign(0.5), Floor(0.5), Ceil(0.5), Round(0.5), Gate(True, 0.5), Gate(False, 0.5)])
def test_bounds_with_slack_hold_a_little_beside_the_box(op: Step | Gate) -> None:
    """Intervals and lines, of boxes that end at jumps or beside them."""
    generator = torch.Generator().manual_seed(0)
    ends = torch.randint(-8, 9, (2, 300, 1), generator=generator).double() / 4
    box = Interval(ends.amin(0), ends.amax(0))
    z = box.lower - 0.5 + (box.upper - box.lower + 1) * torch.rand((300, 9), generator=generator, dtype=torch.float64)
    z = torch.cat([z, box.lower - 0.5, box.upper + 0.5], 1)
    one = Interval(torch.ones(300, 1).double(), torch.ones(300, 1).double())
    boxes, values = ((box, one), op.forward(z, torch.ones_like(z))) if isinstance(op, Gate) else ((box,), op.forward(z))
    reached = op.interval(*boxes)
    assert ((reached.lower <= values) & (values <= reached.upper)).all()
    rows = torch.tensor([1.0, -1.0], dtype=torch.float64).reshape(2, 1, 1).expand(2, 300, 1)
    pulled, constant = op.linearize(boxes)(rows)
    assert constant is not None
    lines = pulled[0] * z + constant.unsqueeze(2) + (pulled[1] if len(pulled) > 1 else 0)
    assert (lines <= rows * values + 1e-9).all()


@pytest.mark.parametrize("pieces", [1, 2])
def test_functions_are_enclosed_by_one_piece_too(pieces: int) -> None:
    """Lines without bends were refused as empty."""
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 1]) for name in "xy"]
    graph = helper.make_graph([helper.make_node("Sin", ["x"], ["y"])], "g", ends[:1], ends[1:])
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    found = enclosed(made.SerializeToString(), [Fraction(0)], [Fraction(3, 2)], pieces)
    line = read(found.model)
    for x in np.linspace(0, 1.5, 31):
        (value, _) = line.forward(torch.tensor([[x, 0.0]], dtype=torch.float64)).flatten().tolist()
        assert float(found.lower[1]) <= np.sin(x) - value <= float(found.upper[1])


@pytest.mark.parametrize("share", [-0.5, 1.5, float("nan")])
def test_shares_of_training_are_shares(share: float) -> None:
    """Beyond 1 the mixture of two lower bounds was none, and small boxes left the box."""
    graph = sequential((2,), [Linear(torch.eye(2), torch.zeros(2))])
    box, labels = Interval(torch.zeros(1, 2), torch.ones(1, 2)), torch.zeros(1, dtype=torch.int64)
    with pytest.raises(ValueError, match="share"):
        crown_ibp(graph, box, labels, share)
    with pytest.raises(ValueError, match="share"):
        small_boxes(graph, box, labels, share)


class Functional(nn.Module):
    """Statistics of the batch, which no layer of batch normalization computes."""

    def __init__(self) -> None:
        super().__init__()
        self.batch = nn.BatchNorm1d(3)

    def forward(self, x: Tensor) -> Tensor:
        known = self.batch.running_mean, self.batch.running_var, self.batch.weight, self.batch.bias
        return torch.relu(batch_norm(x, *known, training=self.training))


class Tied(nn.Module):
    """One layer of batch normalization, and one matrix, under two names each."""

    def __init__(self) -> None:
        super().__init__()
        self.batch, self.first, self.last = nn.BatchNorm1d(3), nn.Linear(3, 3), nn.Linear(3, 3)
        self.again, self.last.weight = self.batch, self.first.weight

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.last(torch.relu(self.first(self.again(x))))
        return y


@exporting
@pytest.mark.xdist_group("torch export")
def test_another_function_in_training_mode_is_refused() -> None:
    """Its losses bounded what the module computes in inference mode."""
    module, x = Functional(), torch.rand(4, 3)
    live = LiveGraph.of(module, (3,))
    module.eval()
    live(x)
    module.train()
    with pytest.raises(InvalidModel, match="in this mode"):
        live(x)


@exporting
@pytest.mark.xdist_group("torch export")
def test_tensors_under_two_names_are_followed() -> None:
    torch.manual_seed(0)
    module, x = Tied(), torch.rand(4, 3)
    live = LiveGraph.of(module, (3,))
    for mode in (True, False):
        module.train(mode)
        outputs, graph = live(x)
        assert torch.allclose(graph.forward(x), outputs, atol=1e-5)

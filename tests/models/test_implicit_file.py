"""Files of networks with implicit layers: what is written is read, by two readers alike; what is not one is refused."""

from __future__ import annotations

import gzip
import hashlib
import json
import re
import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from onnx_kit import mlp_model

from provenn.models import implicit_file, onnx_reader
from provenn.models.executor import OnnxExecutor
from provenn.models.implicit_executor import RESIDUAL, ImplicitExecutor, function, solution
from provenn.models.implicit_file import FORMAT, Activation, Implicit, ImplicitNetwork, Linear, parse, write
from provenn.models.limits import Limits
from provenn.models.reading import executor, read, read_model
from provenn.models.summary import summarize
from provenn.verifier.errors import InvalidModel, ProvennError, ResourceLimit
from provenn.verifier.ops import implicit
from provenn.verifier.ops.linear import Linear as LinearOp
from provenn.verifier.ops.relu import Relu

DOCUMENT = Path(__file__).parents[2] / "docs" / "implicit_models.md"

Json = dict[str, Any]
UNITS = 4


def numbers(*shape: int, dtype: type = np.float64) -> np.ndarray:
    return np.random.default_rng(sum(shape)).standard_normal(shape).astype(dtype)


def monotone(units: int = UNITS, seed: int = 0, margin: float = 0.1) -> np.ndarray:
    a, b = np.random.default_rng(seed).standard_normal((2, units, units))
    return (1 - margin) * np.eye(units) - a.T @ a + b - b.T


def network(name: str = "relu") -> ImplicitNetwork:
    """[2, 3] -> linear 5 -> tanh -> implicit 4 -> linear 2, of both types of numbers."""
    return ImplicitNetwork(
        (2, 3),
        (
            Linear(numbers(5, 6, dtype=np.float32)),
            Activation("tanh"),
            Implicit(name, monotone(), numbers(UNITS, 5, dtype=np.float32), numbers(UNITS)),
            Linear(numbers(2, UNITS), numbers(2, dtype=np.float32)),
        ),
    )


def packed(header: object, body: bytes = b"") -> bytes:
    """The bytes of a safetensors file, put together by hand."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + body


def described(layers: object, size: object = (1,), **changes: Any) -> Json:
    description = {"format": FORMAT, "input": size, "layers": layers, **changes}
    return {"__metadata__": {"provenn": json.dumps(description)}}


def small(layers: object, tensors: Mapping[str, np.ndarray] | None = None, **changes: Any) -> bytes:
    """The file of these layers and float32 tensors."""
    header, body = described(layers, **changes), b""
    for name, array in (tensors or {}).items():
        data = array.astype(np.float32).tobytes()
        header[name] = {"dtype": "F32", "shape": array.shape, "data_offsets": [len(body), len(body) + len(data)]}
        body += data
    return packed(header, body)


LINEAR = {"kind": "linear", "weight": "w"}
ONE = {"w": np.ones((1, 1))}
SOLVED = {"kind": "implicit", "function": "relu", "weight": "w", "input": "u"}
PAIR = {"w": np.ones((1, 1)) / 2, "u": np.ones((1, 1))}


# --- what is written is read ------------------------------------------------------------------------------------------


def test_the_description_is_the_one_that_is_documented() -> None:
    data = write(network())
    header = json.loads(data[8 : 8 + struct.unpack("<Q", data[:8])[0]])
    assert json.loads(header["__metadata__"]["provenn"]) == {
        "format": "provenn-network/1",
        "input": [2, 3],
        "layers": [
            {"kind": "linear", "weight": "layer0.weight"},
            {"kind": "activation", "function": "tanh"},
            {
                "kind": "implicit",
                "function": "relu",
                "weight": "layer2.weight",
                "input": "layer2.input",
                "bias": "layer2.bias",
            },
            {"kind": "linear", "weight": "layer3.weight", "bias": "layer3.bias"},
        ],
    }
    assert {name: entry["dtype"] for name, entry in header.items() if name != "__metadata__"} == {
        "layer0.weight": "F32",
        "layer2.weight": "F64",
        "layer2.input": "F32",
        "layer2.bias": "F64",
        "layer3.weight": "F64",
        "layer3.bias": "F32",
    }


@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "gzip"])
def test_what_is_written_is_read(pack: Callable[[bytes], bytes]) -> None:
    made, found = network(), parse(pack(write(network())))
    assert (found.shape, found.outputs, len(found.layers)) == ((2, 3), 2, 4)
    assert found.layers[1] == made.layers[1]
    for mine, theirs in zip(made.layers, found.layers, strict=True):
        assert type(mine) is type(theirs)
        for name in ("weight", "bias", "input", "function"):
            a, b = getattr(mine, name, None), getattr(theirs, name, None)
            assert np.array_equal(a, b)
            assert getattr(a, "dtype", None) == getattr(b, "dtype", None)


@pytest.mark.parametrize("name", implicit_file.FUNCTIONS)
def test_the_graph_and_the_executor_agree(name: str) -> None:
    graph, runs = read_model(write(network(name)))
    x = 3 * numbers(50, 2, 3, dtype=np.float32)
    outputs = runs.run(x)
    assert outputs.dtype == np.float32
    exact = graph.forward(torch.from_numpy(x).double()).numpy()
    np.testing.assert_allclose(outputs, exact, rtol=1e-6, atol=1e-6)
    assert (runs.input_shape, runs.output_shape) == (graph.input_shape, graph.output_shape) == ((2, 3), (2,))


def test_the_graph_has_the_nodes_that_certificates_name() -> None:
    graph = read(write(network()))
    names = ["input", "input.flat", "layer0", "layer1", "layer2.input", "layer2", "layer3"]
    assert [node.name for node in graph.nodes] == names
    solved, source = graph.nodes[5].op, graph.nodes[4].op
    assert isinstance(solved, implicit.Implicit)
    assert isinstance(solved.function, Relu)
    assert np.array_equal(solved.weight.numpy(), monotone())
    assert isinstance(source, LinearOp)
    assert np.array_equal(source.bias.numpy(), numbers(UNITS))
    assert [n.name for n in read(small([LINEAR], ONE)).nodes] == ["input", "layer0"]


def test_the_summary() -> None:
    data = write(network())
    summary = summarize(gzip.compress(data), read(data))
    assert (summary.sha256, summary.opset, summary.producer) == (hashlib.sha256(data).hexdigest(), 0, FORMAT)
    assert (summary.input_name, summary.output_name, summary.neurons) == ("input", "layer3", 5 + UNITS)
    assert summary.parameters == (30 + 5) + (20 + 4) + 16 + (8 + 2)
    assert [row.op for row in summary.layers][4:6] == ["Linear", "Implicit"]
    assert json.loads(json.dumps(summary.as_dict()))["layers"][5]["parameters"] == UNITS**2


def test_a_file_is_opened_by_what_is_in_it() -> None:
    plain = mlp_model().SerializeToString()
    assert isinstance(executor(plain), OnnxExecutor)
    assert isinstance(executor(gzip.compress(write(network()))), ImplicitExecutor)
    assert len(read(plain).nodes) == len(onnx_reader.read(plain).nodes)
    with pytest.raises(InvalidModel, match="read without others beside it"):
        read(write(network()), {"weights.bin": b""})
    with pytest.raises(InvalidModel, match="not an ONNX file"):
        read_model(b"\x00" * 20)


def test_the_example_of_the_documentation_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its Python blocks in order, and what the comments in them promise."""
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    blocks = re.findall(r"```python\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)
    assert len(blocks) == 3
    for block in blocks:
        exec(compile(block, DOCUMENT.name, "exec"), names)
    # z2 = relu(0.25 - 1 - z1 + z2 / 2) = 0, so z1 = z1 / 2 + 1.5 = 3.
    np.testing.assert_allclose(names["executor"].run(np.float32([[1.0, -1.0]])), [[3 * np.tanh(3)]], rtol=1e-6)
    assert read((tmp_path / "network.safetensors").read_bytes()).input_shape == (2,)
    assert read((tmp_path / "equilibrium.safetensors").read_bytes()).output_shape == (10,)
    documented = json.loads(re.findall(r"```json\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)[0])
    assert documented == names["description"]


# --- the executor -----------------------------------------------------------------------------------------------------


def test_the_executor_runs_an_input_at_a_time() -> None:
    runs = ImplicitExecutor(write(network()))
    x = numbers(6, 2, 3, dtype=np.float32)
    alone = np.concatenate([runs.run(row[None]) for row in x])
    assert np.array_equal(runs.run(x), alone)
    assert runs.run(x[:0]).shape == (0, 2)
    assert runs.name == f"numpy {np.__version__}"
    with pytest.raises(InvalidModel, match=r"inputs of shape \(2, 5\) given to a network for \[batch, \*\(2, 3\)\]"):
        runs.run(np.zeros((2, 5), np.float32))


@pytest.mark.parametrize("name", implicit_file.FUNCTIONS)
@pytest.mark.parametrize("seed", range(5))
def test_the_executors_own_solution_solves_the_equation(name: str, seed: int) -> None:
    weight, u = monotone(20, seed, margin=1e-3), 3 * numbers(20)
    z = solution(name, weight, u)
    assert z is not None
    assert np.abs(z - function(name, weight @ z + u)[0]).max() <= 2 * RESIDUAL * (1 + np.abs(weight @ z).max())


def test_a_layer_without_a_solution_is_refused() -> None:
    """z = relu(2 z + x): x = 0 is solved by 0, x = -1 by 0 and 1, x = 1 by nothing."""
    data = small([SOLVED], {"w": np.full((1, 1), 2.0), "u": np.ones((1, 1))})
    graph, runs = read_model(data)
    assert float(runs.run(np.float32([[-1]]))[0, 0]) in (0.0, 1.0)
    for run in (lambda: runs.run(np.float32([[1]])), lambda: graph.forward(torch.ones((1, 1)).double())):
        with pytest.raises(InvalidModel, match="did not converge"):
            run()


# --- refusals ---------------------------------------------------------------------------------------------------------


def test_every_truncation_is_refused() -> None:
    data = write(network())
    for length in (*range(1, 60), *range(60, len(data), 37), len(data) - 1):
        with pytest.raises(ProvennError):
            read_model(data[:length])
    with pytest.raises(InvalidModel, match="not a sound safetensors file"):
        read_model(data + b"\x00")


def test_changed_bytes_are_refused_or_make_another_network() -> None:
    """Mutations of every kind, most of them in the header: nothing but the errors meant for users is raised."""
    data, random = write(network()), np.random.default_rng(0)
    header = 8 + struct.unpack("<Q", data[:8])[0]
    refused = 0
    for number in range(600):
        changed = bytearray(data)
        for place in random.integers(0, len(data) if number % 4 == 0 else header, random.integers(1, 4)):
            changed[place] = random.integers(0, 256) if number % 2 else changed[place] ^ 1 << random.integers(0, 8)
        try:
            found = parse(bytes(changed))
        except ProvennError as refusal:
            refused += 1
            assert str(refusal).isprintable()
        else:
            assert all(np.isfinite(layer.weight).all() for layer in found.layers if not isinstance(layer, Activation))
    assert 400 < refused < 600


ENTRY = {"dtype": "F32", "shape": [1, 1], "data_offsets": [0, 4]}
HEADERS: dict[str, tuple[bytes, str]] = {
    "no header": (b"", "the file is empty"),
    "other": (b"nothing at all", "not a safetensors file"),
    "list": (packed(b"[]"), "not a safetensors file"),
    "not JSON": (packed(b"{,}"), "the header cannot be read as JSON"),
    "not text": (packed(b'{"\xff": 1}'), "the header cannot be read as JSON"),
    "deep": (packed(b"{" + b'"a":{' * 50_000), "the header cannot be read as JSON: 'maximum recursion"),
    "twice": (packed(b'{"w": 1, "w": 2}'), "a name is given twice"),
    "long": (packed(b"{}")[:4] + bytes(4) + b"{}", "without a description"),
    "truncated": (packed(described([LINEAR]))[:50], "the file is truncated: a header of"),
    "alone": (packed({"w": ENTRY}, bytes(4)), "a safetensors file without a description"),
    "more metadata": (
        packed({"__metadata__": {**described([])["__metadata__"], "by": "us"}}),
        "the __metadata__ has 'by', which is not known there",
    ),
    "overlap": (packed({**described([LINEAR]), "w": ENTRY, "v": ENTRY}, bytes(4)), "not a sound safetensors file"),
    "gap": (
        packed({**described([LINEAR]), "w": {**ENTRY, "data_offsets": [4, 8]}}, bytes(8)),
        "not a sound safetensors file",
    ),
    "large": (
        packed({**described([LINEAR]), "w": {**ENTRY, "shape": [2**40, 2**40]}}, bytes(4)),
        "not a sound safetensors file",
    ),
    "half": (
        packed({**described([LINEAR]), "w": {**ENTRY, "dtype": "F16", "shape": [1, 2]}}, bytes(4)),
        "tensor 'w' has type 'F16'; it must be F32 or F64",
    ),
    "whole": (
        packed({**described([LINEAR]), "w": {**ENTRY, "dtype": "I32"}}, bytes(4)),
        "tensor 'w' has type 'I32'; it must be F32 or F64",
    ),
    "empty": (
        packed({**described([LINEAR]), "w": {**ENTRY, "shape": [0, 2**60], "data_offsets": [0, 0]}}),
        "it must be a vector or a matrix, not empty",
    ),
    "many axes": (packed({**described([LINEAR]), "w": {**ENTRY, "shape": [1] * 70}}, bytes(4)), "a vector or a matrix"),
}


@pytest.mark.parametrize("name", HEADERS)
def test_a_file_that_is_no_sound_safetensors_file_is_refused(name: str) -> None:
    data, match = HEADERS[name]
    with pytest.raises(InvalidModel, match=match) as caught:
        parse(data)
    assert type(caught.value) is InvalidModel


DESCRIPTIONS: dict[str, tuple[bytes, str]] = {
    "list": (packed({"__metadata__": {"provenn": "[]"}}), r"the description is \[\]; it must be an object"),
    "deep": (packed({"__metadata__": {"provenn": "[" * 10**5}}), "the description cannot be read as JSON"),
    "format": (small([LINEAR], ONE, format="provenn-network/2"), "has format 'provenn-network/2'; it must be"),
    "more": (small([LINEAR], ONE, opset=3), "the description has 'opset', which is not known there"),
    "less": (packed({"__metadata__": {"provenn": json.dumps({"format": FORMAT})}}), "lacks input, layers"),
    "no layers": (small([]), "layers must be a list of one layer or more"),
    "layers": (small({"0": LINEAR}, ONE), "layers must be a list"),
    "input": (small([LINEAR], ONE, size=1), "input is 1; it must be a list of positive whole numbers"),
    "no extents": (small([LINEAR], ONE, size=[]), r"input is \[\]"),
    "extent": (small([LINEAR], ONE, size=[1, 0]), r"input is \[1, 0\]"),
    "fraction": (small([LINEAR], ONE, size=[1.0]), r"input is \[1.0\]"),
    "truth": (small([LINEAR], ONE, size=[True]), r"input is \[True\]"),
    "layer": (small(["linear"]), "layer 0 is of kind None; it must be one of linear, activation, implicit"),
    "kind": (small([{"kind": "conv"}]), "layer 0 is of kind 'conv'"),
    "unprintable": (small([{"kind": "\x1b[2J"}]), r"layer 0 is of kind '\\x1b\[2J'"),
    "kinds": (small([{"kind": ["linear"]}]), "layer 0 is of kind"),
    "key": (small([{**LINEAR, "scale": "s"}], ONE), "layer 0 has 'scale', which is not known there"),
    "bias": (small([{"kind": "activation", "function": "relu", "bias": "b"}]), "layer 0 has 'bias'"),
    "missing": (small([{"kind": "implicit", "function": "relu", "weight": "w"}], ONE), "layer 0 lacks input"),
    "function": (small([{"kind": "activation", "function": "elu"}]), "layer 0 has function 'elu'; it must be one of"),
    "functions": (small([{**SOLVED, "function": 1}], PAIR), "layer 0 has function 1; it must be one of"),
    "name": (small([{**LINEAR, "weight": 0}], ONE), "layer 0: weight is 0; it must be the name of a tensor"),
    "absent": (small([LINEAR]), "layer 0: weight 'w' is no tensor of the file"),
    "again": (small([LINEAR, LINEAR], ONE), "layer 1: weight 'w' is used already; every tensor is used once"),
    "unused": (small([LINEAR], {**ONE, "extra": np.ones(3)}), "tensor 'extra' is used by no layer"),
    "columns": (small([LINEAR], {"w": np.ones((2, 3))}), r"layer 0: weight 'w' has shape \[2, 3\], not \[any, 1\]"),
    "vector": (small([LINEAR], {"w": np.ones(1)}), r"weight 'w' has shape \[1\], not \[any, 1\]"),
    "square": (small([SOLVED], {**PAIR, "w": np.ones((2, 2))}), r"weight 'w' has shape \[2, 2\], not \[1, 1\]"),
    "source": (small([SOLVED], {**PAIR, "u": np.ones((1, 2))}), r"layer 0: input 'u' has shape \[1, 2\], not \[any, 1"),
    "offset": (small([{**LINEAR, "bias": "b"}], {**ONE, "b": np.ones(2)}), r"bias 'b' has shape \[2\], not \[1\]"),
    "nan": (small([LINEAR], {"w": np.full((1, 1), np.nan)}), "tensor 'w' holds a number that is not finite"),
    "infinite": (small([LINEAR], {"w": np.full((1, 1), np.inf)}), "tensor 'w' holds a number that is not finite"),
}


@pytest.mark.parametrize("name", DESCRIPTIONS)
def test_a_description_that_fits_nothing_is_refused(name: str) -> None:
    data, match = DESCRIPTIONS[name]
    with pytest.raises(InvalidModel, match=match) as caught:
        parse(data)
    assert type(caught.value) is InvalidModel


def test_what_is_too_large_is_refused() -> None:
    wide = {"w": np.zeros((1, 1)), "u": np.zeros((implicit_file.WIDTH + 1, 1))}
    with pytest.raises(ResourceLimit, match="layer 0, an implicit one of 4097 units"):
        parse(small([SOLVED], wide))
    with pytest.raises(ResourceLimit, match="the header"):
        parse(packed(b"{" + b" " * implicit_file.HEADER_BYTES + b"}"))
    with pytest.raises(ResourceLimit, match="the file"):
        parse(write(network()), Limits(bytes=100))
    with pytest.raises(ResourceLimit, match="tensor 'w' of shape"):
        parse(small([LINEAR], {"w": np.zeros((9, 1))}), Limits(elements=8))
    with pytest.raises(ResourceLimit, match="the number of nodes"):
        parse(small([LINEAR] * 3, ONE), Limits(nodes=2))
    with pytest.raises(ResourceLimit, match="the input of shape"):
        parse(small([LINEAR], ONE, size=[2**62, 2**62]))


def test_what_could_not_be_read_is_not_written() -> None:
    with pytest.raises(InvalidModel, match=r"layer 0: weight 'layer0.weight' has shape \[5, 6\], not \[any, 4\]"):
        write(ImplicitNetwork((4,), network().layers))
    with pytest.raises(InvalidModel, match="not finite"):
        write(ImplicitNetwork((1,), (Linear(np.full((1, 1), np.nan)),)))
    with pytest.raises(InvalidModel, match="it must be F32 or F64"):
        write(ImplicitNetwork((1,), (Linear(np.ones((1, 1), np.float16)),)))

"""Bundles from emit to file and back, and the reference cases."""

from __future__ import annotations

import gzip
import io
import json
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from provenn.verifier.certificate.bundle import FILES, load, load_zip, to_zip, write
from provenn.verifier.certificate.emit import emit
from provenn.verifier.certificate.payload import write_payload
from provenn.verifier.certificate.slopes import CaseSlopes
from provenn.verifier.check import CertificateRejected, Network, check, read_network
from provenn.verifier.check.manifest import read_payload
from provenn.verifier.spec_json import robustness
from provenn.verifier.spec_reader import read_specification


def network(kinds: Sequence[str], width: int = 12, inputs: int = 6, seed: int = 0) -> bytes:
    """Gemm layers with these functions between them, onto three outputs of which the first is large."""
    generator = np.random.default_rng(seed)
    nodes, constants, name, size = [], [], "x", inputs
    for layer, kind in enumerate([*kinds, ""]):
        new = width if kind else 3
        weight = (generator.normal(size=(new, size)) / np.sqrt(size)).astype(np.float32)
        bias = np.zeros(new, np.float32) if kind else np.array([4, 0, 0], np.float32)
        constants += [numpy_helper.from_array(weight, f"w{layer}"), numpy_helper.from_array(bias, f"b{layer}")]
        output = f"z{layer}" if kind else "y"
        nodes.append(helper.make_node("Gemm", [name, f"w{layer}", f"b{layer}"], [output], transB=1))
        name, size = output, new
        if kind:
            nodes.append(helper.make_node(kind, [name], [f"a{layer}"]))
            name = f"a{layer}"
    shapes = (helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, k]) for n, k in (("x", inputs), ("y", 3)))
    first, last = shapes
    graph = helper.make_graph(nodes, "network", [first], [last], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()


def ball(norm: str, epsilon: str = "0.05") -> Any:
    return robustness(np.full(6, 0.1), label=0, epsilon=epsilon, outputs=3, norm=norm, clip=(0, 1))


@pytest.mark.parametrize("method", ["ibp", "crown"])
@pytest.mark.parametrize("norm", ["inf", "2", "1"])
@pytest.mark.parametrize(
    "kinds", [["Relu", "Relu"], ["LeakyRelu"], ["Tanh", "Sigmoid"], ["Sigmoid", "Relu", "Tanh"], []]
)
def test_what_is_emitted_is_accepted(method: str, norm: str, kinds: list[str]) -> None:
    data = network(kinds)
    specification = ball(norm)
    files = emit(read_network(data), specification, method, {"provenn": "0"})
    report = check(files, data, specification.text)
    assert report.margin > 0
    assert report.claims == len(kinds) + 2
    assert set(files) == {"manifest.json", "payload.safetensors", "specification.json"}
    assert emit(read_network(data), specification, method, {"provenn": "0"}) == files


def test_crown_and_smaller_balls_prove_more() -> None:
    data = network(["Relu", "Relu", "Relu"], seed=3)
    margin = {
        (method, norm): check(emit(read_network(data), ball(norm), method, {}), data).margin
        for method in ("ibp", "crown")
        for norm in ("inf", "2", "1")
    }
    assert margin["crown", "inf"] > margin["ibp", "inf"]
    assert margin["crown", "inf"] < margin["crown", "2"] < margin["crown", "1"]


def test_what_cannot_be_proved_is_not_emitted() -> None:
    data = network(["Relu", "Relu"])
    with pytest.raises(CertificateRejected, match=r"clause \d of case 0: margin -.* is not above 0"):
        emit(read_network(data), robustness(np.full(6, 0.1), label=1, epsilon="0.1", outputs=3), "crown", {})
    with pytest.raises(ValueError, match="makes no certificates"):
        emit(read_network(data), ball("inf"), "forward", {})


def test_stored_slopes_are_used() -> None:
    data = network(["Relu", "Relu"])
    plain = check(emit(read_network(data), ball("inf", "0.2"), "crown", {}), data).margin
    found = set()
    for value in (0, 128, 255):
        slopes = {f"a{i}": np.full(12, value, np.uint8) for i in range(2)}
        report = check(emit(read_network(data), ball("inf", "0.2"), "crown", {}, [CaseSlopes(shared=slopes)]), data)
        found.add(report.margin)
    assert len(found | {plain}) == 4
    with pytest.raises(CertificateRejected, match="outside their domain"):
        emit(read_network(data), ball("inf"), "crown", {}, [CaseSlopes(shared={"a0": np.full(12, 1.5, np.float32)})])
    with pytest.raises(CertificateRejected, match="not a ReLU"):
        emit(read_network(data), ball("inf"), "crown", {}, [CaseSlopes(shared={"z0": np.full(12, 0.5, np.float32)})])


def test_several_cases_and_rows_without_floats() -> None:
    unsafe = [{"C": [["-1/3", "1/7", 0], [0, 0, "0.1"]], "d": ["-1/10", 5]}]
    cases = [{"lower": [a] * 6, "upper": [a + 0.05] * 6, "unsafe": unsafe} for a in (0.0, 0.5)]
    text = {"format": "provenn-specification/1", "kind": "cases", "cases": cases}
    specification = read_specification(json.dumps(text).encode())
    data = network(["Relu"])
    report = check(emit(read_network(data), specification, "crown", {}), data)
    assert [len(case) for case in report.margins] == [1, 1]


def test_bundles_survive_folders_and_zips(tmp_path: Path) -> None:
    files = emit(read_network(network(["Relu"])), ball("inf"), "crown", {})
    write(files, tmp_path / "a" / "bundle")
    assert load(tmp_path / "a" / "bundle") == files
    write({**files, "manifest.json": b"{}"}, tmp_path / "a" / "bundle")
    assert load(tmp_path / "a" / "bundle")["manifest.json"] == b"{}"
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["bundle"]
    packed = to_zip(files)
    assert packed == to_zip(dict(reversed(files.items())))
    assert load_zip(packed) == files
    (tmp_path / "bundle.zip").write_bytes(packed)
    assert load(tmp_path / "bundle.zip") == files


def archive(names: Sequence[str]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for name in names:
            file.writestr(name, b"x")
    return buffer.getvalue()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"PK\x03\x04",
        archive(["../a"]),
        archive(["/etc/a"]),
        archive(["a/b"]),
        archive([".hidden"]),
        archive(["a b"]),
        archive([f"f{i}" for i in range(FILES + 1)]),
        archive(["abc"]).replace(b"x", b"y", 1),
    ],
)
def test_odd_archives_are_refused(data: bytes) -> None:
    with pytest.raises(CertificateRejected) as refusal:
        load_zip(data)
    assert refusal.value.claim == "bundle"


def test_links_and_folders_are_refused(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "inner").mkdir()
    (tmp_path / "two").mkdir()
    (tmp_path / "two" / "link").symlink_to("/etc/hostname")
    for name in ("one", "two"):
        with pytest.raises(CertificateRejected):
            load(tmp_path / name)


def test_payloads_survive() -> None:
    tensors = {"a": np.arange(3, dtype=np.float32), "b": np.arange(5, dtype=np.uint8), "c": np.zeros(0, np.float64)}
    found = read_payload(write_payload(tensors))
    assert found.keys() == tensors.keys()
    assert all(np.array_equal(found[k], tensors[k]) and found[k].dtype == tensors[k].dtype for k in tensors)


CASES = {
    "mnist_fc/onnx/mnist-net_256x2.onnx.gz": ("mnist_fc/vnnlib/prop_0_0.03.vnnlib.gz", 0.34),
    "mnist_fc/onnx/mnist-net_256x6.onnx.gz": ("mnist_fc/vnnlib/prop_0_0.03.vnnlib.gz", 0.95),
    "rl_benchmarks/onnx/cartpole.onnx.gz": ("rl_benchmarks/vnnlib/cartpole_case_unsafe_0.vnnlib.gz", 0.35),
}


@pytest.mark.shared
@pytest.mark.parametrize("model", CASES)
def test_reference_cases_are_certified_with_the_known_margins(shared: Path, model: str) -> None:
    text, margin = CASES[model]
    loaded: Network = read_network((shared / "vnncomp2022" / model).read_bytes())
    specification = read_specification((shared / "vnncomp2022" / text).read_bytes())
    report = check(emit(loaded, specification, "crown", {"provenn": "0"}), loaded, gzip.compress(specification.text))
    assert margin < report.margin < margin + 0.01

"""`provenn.tightness`, the command and the job: one measurement, told three ways."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from cli_kit import Command, two_layers
from service_kit import Server, mlp

import provenn
from provenn.api.client import Client, RequestRefused
from provenn.api.tightness_schemas import TightnessRequest

NETWORK = two_layers([[1, 1], [1, -1]], [0, 0], [[1, 1], [1, -1]])
"""At (2, 1) all is active: y = (2 x_0, 2 x_1). Intervals of radius r: of the layers (2 r, 2 r), then (4 r, 4 r)."""
POINTS = np.array([[2.0, 1.0], [2.0, -1.0], [1.0, 2.0]], np.float32)
"""At the second too, by turns; at the third the second neuron is dead, and the network (x_0 + x_1) (1, 1), exactly."""


@pytest.fixture
def provenn_cli(capsys: pytest.CaptureFixture[str]) -> Command:
    return Command(capsys)


@pytest.fixture
def client(server: Server) -> Iterator[Client]:
    with Client(server.url) as client:
        yield client


def test_by_hand() -> None:
    found = provenn.tightness(NETWORK, POINTS)
    np.testing.assert_allclose(found.outputs, [[0.5, 0.5], [0.5, 0.5], [1.0, 1.0]], atol=1e-15)
    assert found.tightness == pytest.approx(2 / 3)
    assert [(layer.name, layer.op, layer.tightness) for layer in found.layers] == [
        ("first", "Linear", 1.0),
        ("second", "Linear", pytest.approx(2 / 3)),
    ]
    assert "0.6667" in found._repr_html_()
    # y_0 - y_1 = 2 relu(x_0 - x_1): one path, so that with the last layer merged intervals lose nothing.
    margins = provenn.tightness(NETWORK, POINTS, labels=[0, 0, 1], layers=False)
    assert margins.outputs.tolist() == [[1.0], [1.0], [1.0]]
    assert margins.layers == ()


def test_a_range_cuts_the_boxes() -> None:
    """Behind radii (r, 0) are (2 r, 0) of layers (r, r), (2 r, 2 r): the floor that divides, where nothing moves."""
    found = provenn.tightness(NETWORK, np.array([0.5, 0.25]), eps=0.25, clip=(0.0, 1.0))
    np.testing.assert_allclose(found.outputs, [[0.5, 0.5]], atol=1e-15)
    beside = provenn.tightness(NETWORK, np.array([0.5, -9.0]), eps=0.25, clip=(0.0, 1.0), layers=False)
    np.testing.assert_allclose(beside.outputs, [[1.0, 1.0]], atol=1e-15)  # the first neuron is dead: one path is left


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ({"labels": [0]}, "1 labels for 3"),
        ({"labels": [0, 1, 2]}, "classes 0 to 1"),
        ({"eps": 0.0}, "radius"),
        ({"clip": (1.0, 0.0)}, "range"),
    ],
)
def test_what_makes_no_sense_is_refused(how: dict[str, object], words: str) -> None:
    with pytest.raises(provenn.ProvennError, match=words):
        provenn.tightness(NETWORK, POINTS, **how)  # type: ignore[arg-type]
    with pytest.raises(provenn.ProvennError, match="shape"):
        provenn.tightness(NETWORK, np.zeros((3, 5)))


def test_the_command(provenn_cli: Command, tmp_path: Path) -> None:
    names = {"inputs": tmp_path / "x.npy", "one": tmp_path / "one.onnx", "two": tmp_path / "two.onnx"}
    np.save(names["inputs"], POINTS)
    names["one"].write_bytes(NETWORK)
    names["two"].write_bytes(mlp([2, 4, 2]))
    ran = provenn_cli("tightness", names["one"], "--input", names["inputs"], "--json")
    (network,) = ran.json["networks"]
    assert ran.code == 0
    assert network["tightness"] == pytest.approx(2 / 3)
    assert [layer["name"] for layer in network["layers"]] == ["first", "second"]
    table = provenn_cli("tightness", names["one"], "--input", names["inputs"])
    assert "0.6667" in table.out
    assert "second" in table.out
    plot = tmp_path / "through.html"
    many = provenn_cli(
        "tightness", names["one"], names["two"], "--input", names["inputs"], "--label", "0,0,1", "--plot", plot
    )
    assert many.code == 0
    assert "two.onnx" in many.out
    assert "tightness" in plot.read_text()


def test_the_command_says_what_is_wrong(provenn_cli: Command, tmp_path: Path) -> None:
    inputs, smooth = tmp_path / "x.npy", tmp_path / "smooth.onnx"
    np.save(inputs, POINTS)
    smooth.write_bytes(mlp([2, 4, 2], activation="Tanh"))
    ran = provenn_cli("tightness", smooth, "--input", inputs)
    assert ran.code == 2
    assert "piecewise linear" in ran.err
    assert "act0" in ran.err
    for option, value in (("--label", "0,1"), ("--label", "0,0,7"), ("--eps", "x"), ("--plot", "picture.txt")):
        bad = provenn_cli("tightness", smooth, "--input", inputs, option, value)
        assert bad.code == 2
        assert option in bad.err


def test_a_job(client: Client) -> None:
    found = client.tightness(NETWORK, POINTS, labels=[0, 0, 0], layers=True)
    here = provenn.tightness(NETWORK, POINTS, labels=[0, 0, 0])
    assert found.outputs.tolist() == here.outputs.tolist()
    assert found.layers == here.layers
    assert found.origin is not None
    status = client.job(found.origin.job)
    assert (status.kind, status.verdict) == ("tightness", "measured")
    assert status.result is not None
    assert status.result.items[0].certificate is None


def test_a_job_that_makes_no_sense_is_refused_at_the_door(client: Client) -> None:
    model = client.upload(NETWORK).id
    for asked, words in (
        (TightnessRequest(inputs=[[0.0]]), "1 numbers"),
        (TightnessRequest(inputs=[[0.0, 0.0]], labels=[2]), "classes 0 to 1"),
    ):
        with pytest.raises(RequestRefused, match=words):
            client.certify(model, asked)
    with pytest.raises(provenn.ProvennError, match="one way"):
        client.certify(model, TightnessRequest(inputs=[[0.0, 0.0]]), method="crown")

"""p -> f(clip(x_0 + M p)) as one file: every reader sees it, and its two parts are found again."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from specification_kit import INPUT, classifier

from provenn.models.executor import OnnxExecutor
from provenn.models.onnx_reader import read
from provenn.models.parametrization import GIVEN, SEAM, Map, Parametrized, parametrized
from provenn.verifier.check import read_network
from provenn.verifier.check.rows import Bounds, Box
from provenn.verifier.errors import InvalidModel

SHAPES: list[tuple[tuple[int | str, ...], int]] = [
    (("batch", 1, 4, 4), 17),
    ((1, 4, 4, 1), 13),
    (("n", 16), 17),
    ((16,), 17),
    (("n", 2, 8), 9),
    ((1, 16), 26),
]
CENTRE = np.array(INPUT)


def map_of(seed: int, parameters: int, clip: tuple[float, float] | None) -> Map:
    return Map(CENTRE, np.random.default_rng(seed).uniform(-1, 1, (parameters, 16)).round(3), clip)


def image(map: Map, p: np.ndarray) -> np.ndarray:
    """In float64, of the numbers as float32."""
    centre, directions = (a.astype(np.float32).astype(np.float64) for a in (map.centre, map.directions))
    x = centre + p.astype(np.float64) @ directions
    return x if map.clip is None else x.clip(*np.float32(map.clip).astype(np.float64))


@pytest.mark.parametrize("clip", [None, (0.0, 1.0), (0.1, 0.7)])
@pytest.mark.parametrize(("shape", "opset"), SHAPES)
def test_every_reader_sees_the_composition(
    shape: tuple[int | str, ...], opset: int, clip: tuple[float, float] | None
) -> None:
    given, map = classifier(shape, opset), map_of(len(shape), 3, clip)
    data = parametrized(given, map)
    p = np.random.default_rng(1).uniform(-1, 1, (5, 3)).astype(np.float32)
    held = OnnxExecutor(given).input_shape
    images = image(map, p)
    expected = read(given).forward(torch.from_numpy(images.reshape(-1, *held))).numpy().reshape(5, 3)
    np.testing.assert_allclose(read(data).forward(torch.from_numpy(p).double()).numpy(), expected, rtol=1e-12)
    np.testing.assert_allclose(OnnxExecutor(data).run(p), expected, rtol=1e-4, atol=1e-5)
    network = read_network(data)
    for point, exact in zip(p.astype(np.float64), expected, strict=True):
        bound = Bounds(network, Box(point, point)).box(network.output)
        assert (bound.lower <= exact + 1e-12).all()
        assert (exact - 1e-12 <= bound.upper).all()
        assert (bound.upper - bound.lower).max() < 1e-9
    for run in (Parametrized.of(data), Parametrized.of(data, given)):
        assert run is not None
        np.testing.assert_allclose(run.image(p).reshape(5, -1), images, rtol=1e-6, atol=1e-6)
        assert (run.run(p) == OnnxExecutor(given).run(run.image(p))).all()


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 1000), parameters=st.integers(1, 4), clipped=st.booleans())
def test_bounds_of_the_composition_hold_for_the_network_itself(seed: int, parameters: int, clipped: bool) -> None:
    """What the checker proves of parameters in a box holds of the given network at every image, in real arithmetic."""
    given, map = classifier(), map_of(seed, parameters, (0.0, 1.0) if clipped else None)
    network = read_network(parametrized(given, map))
    bound = Bounds(network, Box(np.full(parameters, -0.5), np.full(parameters, 0.5))).box(network.output)
    p = np.random.default_rng(seed).uniform(-0.5, 0.5, (64, parameters))
    p[:8] = p[:8].round()
    outputs = read(given).forward(torch.from_numpy(image(map, p.clip(-0.5, 0.5)).reshape(-1, 1, 4, 4))).numpy()
    assert (bound.lower <= outputs + 1e-12).all()
    assert (outputs - 1e-12 <= bound.upper).all()


def test_the_file_is_the_same_every_time_and_says_what_it_is_made_of() -> None:
    import hashlib

    given, map = classifier(), map_of(0, 2, (0.0, 1.0))
    data = parametrized(given, map)
    assert data == parametrized(given, map)
    props = {p.key: p.value for p in onnx.ModelProto.FromString(data).metadata_props}
    assert props == {SEAM: "perturbation/image", GIVEN: hashlib.sha256(given).hexdigest()}


def test_composing_twice_leaves_the_outer_layer_to_be_found() -> None:
    once = parametrized(classifier(), map_of(0, 3, None))
    twice = parametrized(once, Map(np.zeros(3), np.eye(3)[:1]))
    run = Parametrized.of(twice)
    assert run is not None
    assert (run.input_shape, run.network.input_shape) == ((1,), (3,))


def test_other_files_are_not_cut() -> None:
    assert Parametrized.of(classifier()) is None
    forged = onnx.ModelProto.FromString(classifier())
    for value in ("hidden", "scores", "nothing"):
        onnx.helper.set_model_props(forged, {SEAM: value})
        assert Parametrized.of(forged.SerializeToString()) is None


def test_what_does_not_fit_is_refused() -> None:
    for map, why in (
        (Map(np.zeros(3), np.zeros((1, 3))), "the map makes 3 numbers, but the network has 16 inputs"),
        (Map(np.full(16, 1e300), np.zeros((1, 16))), "too large for float32"),
    ):
        with pytest.raises(InvalidModel, match=why):
            parametrized(classifier(), map)

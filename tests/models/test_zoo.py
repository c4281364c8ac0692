"""The zoo's networks train in seconds, classify digits, and the robust ones are certifiable."""

from __future__ import annotations

import os
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

from provenn.models import zoo
from provenn.models.zoo.digits import load_digits
from provenn.models.zoo.networks import interval, mlp, resnet
from provenn.models.zoo.training import train
from provenn.verifier.errors import InvalidModel

pytestmark = [
    pytest.mark.xdist_group("torch export"),
    pytest.mark.skipif(find_spec("sklearn") is None, reason="the digits come with scikit-learn"),
]


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    os.environ.setdefault("PROVENN_CACHE", str(tmp_path_factory.mktemp("zoo")))


def test_the_split_is_fixed_and_scaled() -> None:
    training, test = load_digits()
    assert (len(training.labels), len(test.labels)) == (1437, 360)
    assert training.images.min() == 0
    assert training.images.max() == 1
    assert np.array_equal(load_digits()[1].labels, test.labels)


@pytest.mark.parametrize("name", ["digits-mlp", "digits-mlp-robust"])
def test_networks_classify_the_digits_and_are_cached(name: str) -> None:
    data = zoo.load(name)
    assert zoo.load(name) == data
    _, test = load_digits()
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    (logits,) = session.run(None, {session.get_inputs()[0].name: test.images})
    assert (logits.argmax(1) == test.labels).mean() > 0.9


def test_the_robust_network_is_certifiable_by_interval_bounds_and_the_plain_one_is_not() -> None:
    training, test = load_digits()
    x, labels = torch.as_tensor(test.images), torch.as_tensor(test.labels)
    certified = {}
    for radius in (0.0, 0.1):
        torch.manual_seed(0)
        module = mlp()
        train(module, training, 60 if radius else 20, radius)
        lower, upper = interval(module, (x - 0.05).clamp(min=0), (x + 0.05).clamp(max=1))
        own = torch.nn.functional.one_hot(labels, 10).bool()
        certified[radius] = float((torch.where(own, lower, upper).argmax(1) == labels).float().mean())
    assert certified[0.0] < 0.1
    assert certified[0.1] > 0.6


def test_the_interval_rule_encloses_every_architecture() -> None:
    generator = torch.Generator().manual_seed(0)
    module = resnet().eval()
    centre = torch.rand((4, 1, 8, 8), generator=generator)
    lower, upper = interval(module, centre - 0.1, centre + 0.1)
    for _ in range(200):
        value = module(centre + 0.1 * (2 * torch.rand(centre.shape, generator=generator) - 1))
        assert (value >= lower - 1e-4).all()
        assert (value <= upper + 1e-4).all()
    with pytest.raises(TypeError, match="no interval rule for Tanh"):
        interval(torch.nn.Tanh(), centre, centre)


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(InvalidModel, match="digits-resnet-robust"):
        zoo.load("digits-transformer")


def test_a_failed_write_leaves_no_half_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PROVENN_CACHE", str(tmp_path / "file"))
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setattr(zoo, "_trained", lambda _: b"network")
    with pytest.raises(FileExistsError):
        zoo.load("digits-mlp")


def test_the_cache_holds_whole_networks_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PROVENN_CACHE", str(tmp_path / "deep" / "cache"))
    monkeypatch.setattr(zoo, "_trained", lambda _: b"network")
    assert zoo.load("digits-mlp") == b"network"
    monkeypatch.setattr(zoo, "_trained", lambda _: pytest.fail("trained again"))
    assert zoo.load("digits-mlp") == b"network"
    assert [path.suffix for path in (tmp_path / "deep" / "cache").iterdir()] == [".onnx"]


def test_without_scikit_learn_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(InvalidModel, match=r'pip install "provenn\[demo\]"'):
        load_digits()

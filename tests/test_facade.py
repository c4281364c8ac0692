"""`import provenn`: the public names, their price, and that they work."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import provenn
from provenn.api import keywords

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.xdist_group("torch export")


@pytest.fixture(scope="module")
def module() -> nn.Module:
    """y = relu(x): at (1, 0) class 0 is safe exactly for radii below 1/2."""
    linear = nn.Linear(2, 2, bias=False)
    with torch.no_grad():
        linear.weight.copy_(torch.eye(2))
    return nn.Sequential(linear, nn.ReLU())


def test_the_public_names_are_pinned() -> None:
    results = ["ItemResult", "JacobianResult", "LipschitzCurve", "LipschitzResult", "MonotonicityResult"]
    results += ["ProvennError", "StabilityResult", "TightnessResult"]
    functions = ["check", "jacobian", "lipschitz", "lipschitz_curve", "monotonicity", "prove", "stability"]
    assert provenn.__all__ == [
        "AsyncClient",
        "CertificateRejected",
        "Client",
        *results,
        *functions,
        "tightness",
        "verify",
    ]
    for name in provenn.__all__:
        assert getattr(provenn, name).__name__ == name
    assert set(provenn.__all__) <= set(dir(provenn))
    with pytest.raises(AttributeError, match="no attribute 'disprove'"):
        _ = provenn.disprove


def test_the_version_is_the_distribution_s() -> None:
    assert provenn.__version__ == tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]


def test_importing_costs_nothing() -> None:
    code = "import sys, provenn; sys.exit(bool({'torch', 'onnx', 'numpy', 'httpx', 'pydantic'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_checking_needs_no_torch() -> None:
    code = (
        "import sys, provenn\n"
        "try: provenn.check({}, b'')\n"
        "except provenn.CertificateRejected: sys.exit(bool({'torch', 'onnxruntime'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_types_are_shipped() -> None:
    for floor in ("provenn", "verifier", "models", "solvers", "api"):
        assert (ROOT / floor / "py.typed").exists()


def test_keywords_and_defaults_are_said_once() -> None:
    pairs = (
        (keywords.Robustness, keywords.HowAsked),
        (keywords.RobustnessHere, keywords.How),
        (keywords.Proving, keywords.HowProvedThere),
        (keywords.ProvingHere, keywords.HowProved),
        (keywords.Constants, keywords.HowCurve),
        (keywords.Constant, keywords.HowLipschitz),
        (keywords.Measuring, keywords.HowTightness),
        (keywords.Derivatives, keywords.HowDerivatives),
    )
    for defaults, typed in pairs:
        assert [field.name for field in dataclasses.fields(defaults)] == list(typed.__annotations__)


@pytest.fixture(scope="module")
def path(module: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from provenn.models.torch_export import export

    path = tmp_path_factory.mktemp("model") / "model.onnx"
    path.write_bytes(export(module, (2,)))
    return path


def test_verify_a_module_and_check_the_certificate_about_its_file(
    module: nn.Module, path: Path, tmp_path: Path
) -> None:
    x = np.array([1, 0], np.float32)
    result = provenn.verify(module, x, label=0, eps=0.4)
    assert (result.verdict, result.assurance) == ("verified", "checked")
    again = provenn.verify(str(path), x, label=0, eps="2/5", method="crown", clip=(0, 1))
    assert again.certificate is not None
    report = provenn.check(again.certificate, path)
    assert report.margin == again.margin
    with pytest.raises(provenn.CertificateRejected, match="another specification"):
        provenn.check(again.certificate, path.read_bytes(), b"{}")


def test_verify_finds_counterexamples(path: Path) -> None:
    result = provenn.verify(path.read_bytes(), np.array([1.0, 0.0]), label=0, eps=0.6, norm="inf", timeout=20)
    assert result.verdict == "falsified"
    assert result.counterexample is not None


def test_verify_refuses_what_makes_no_sense(path: Path) -> None:
    x = np.zeros(2)
    with pytest.raises(provenn.ProvennError, match=r"shape \[1, 2\].*\[2\]"):
        provenn.verify(path, x[None], label=0, eps=0.1)
    with pytest.raises(provenn.ProvennError, match="label"):
        provenn.verify(path, x, label=2, eps=0.1)
    with pytest.raises(provenn.ProvennError, match="epsilon"):
        provenn.verify(path, x, label=0, eps=-1)
    with pytest.raises(provenn.ProvennError, match="unknown method"):
        provenn.verify(path, x, label=0, eps=0.1, method="magic")
    with pytest.raises(TypeError, match="timeuot"):
        provenn.verify(path, x, label=0, eps=0.1, timeuot=1)  # type: ignore[call-arg]


def test_lipschitz_of_a_module_and_of_its_file(module: nn.Module, path: Path) -> None:
    found = provenn.lipschitz(module, (2,), rows="pairs", timeout=4)
    assert (found.verdict, found.assurance) == ("verified", "checked")
    assert found.upper == pytest.approx([2**0.5], rel=1e-6)
    x = np.array([-1.0, 1.0])
    local = provenn.lipschitz(path, at=x, eps="1/2", region_norm="2", scale=np.array([1.0, 2.0]), to="each", timeout=4)
    assert local.upper == pytest.approx([0.0, 0.5], abs=1e-6)
    assert local.certificate is not None
    assert list(provenn.check(local.certificate, path).uppers) == local.upper


def test_lipschitz_curve_of_a_module_and_of_its_file(module: nn.Module, path: Path) -> None:
    points, radii = np.array([[-1.0, -1.0], [1.0, 1.0]]), ["1/2", 2]
    found = provenn.lipschitz_curve(path, points, radii, norm="inf", to="inf", method="crown", timeout=2)
    uppers = [bound.upper for row in found.bounds for bound in row]
    assert uppers == pytest.approx([0, 1, 1, 1], abs=1e-6)
    one = provenn.lipschitz_curve(module, points[0], radii, (2,), norm="inf", to="inf", method="crown", timeout=2)
    assert [bound.upper for bound in one.bounds[0]] == uppers[:2]
    proof = found.bounds[0][0].result.certificate
    assert proof is not None
    assert list(provenn.check(proof, path).uppers) == uppers[:1]


def test_lipschitz_curve_refuses_what_makes_no_sense(module: nn.Module, path: Path) -> None:
    with pytest.raises(
        provenn.ProvennError, match=r"at has shape \[2, 3\], but the network takes \[2\]: give one input"
    ):
        provenn.lipschitz_curve(path, np.zeros((2, 3)), [0.1])
    with pytest.raises(provenn.ProvennError, match="there is no point"):
        provenn.lipschitz_curve(path, np.zeros((0, 2)), [0.1])
    with pytest.raises(provenn.ProvennError, match=r"'-0\.1' is not a radius: give radii above 0"):
        provenn.lipschitz_curve(path, np.zeros(2), [-0.1])
    with pytest.raises(provenn.ProvennError, match=r"eps is a list of radii: give \['8/255'\]"):
        provenn.lipschitz_curve(path, np.zeros(2), "8/255")
    with pytest.raises(provenn.ProvennError, match="give the shape of its input"):
        provenn.lipschitz_curve(module, np.zeros(2), [0.1])
    with pytest.raises(TypeError, match="at"):
        provenn.lipschitz_curve(path, np.zeros(2), [0.1], at=np.zeros(2))  # type: ignore[misc]


def test_lipschitz_refuses_what_makes_no_sense(module: nn.Module, path: Path) -> None:
    with pytest.raises(provenn.ProvennError, match="give both at and eps"):
        provenn.lipschitz(path, eps=0.1)
    with pytest.raises(provenn.ProvennError, match="give the shape of its input"):
        provenn.lipschitz(module)
    with pytest.raises(provenn.ProvennError, match=r"scale has shape \[3\], but the network takes \[2\]"):
        provenn.lipschitz(path, scale=np.ones(3))
    with pytest.raises(provenn.ProvennError, match="row 2 is not an output"):
        provenn.lipschitz(path, rows="2")
    with pytest.raises(TypeError, match="method_name"):
        provenn.lipschitz(path, method_name="auto")  # type: ignore[call-arg]


def test_monotonicity_of_a_module_and_of_its_file(module: nn.Module, path: Path, tmp_path: Path) -> None:
    domain = {"features": [{"name": "age", "range": [-1, 1]}, {"name": "sex", "values": [0, 1]}]}
    found = provenn.monotonicity(module, ["age", 1], (2,), domain=domain, timeout=4)
    trends = [(each.row, each.column, str(each.trend)) for each in found.dependences]
    assert trends == [(0, 0, "increasing"), (0, 1, "constant"), (1, 0, "constant"), (1, 1, "increasing")]
    assert found.certificate is not None
    (tmp_path / "domain.json").write_text(json.dumps(domain))
    held = provenn.monotonicity(path, "age", domain=tmp_path / "domain.json", fixed={"sex": 1}, rows="0", timeout=4)
    assert held.certificate is not None
    assert provenn.check(held.certificate, path).entries == ((0, 0, 0.0, None),)
    ball = provenn.monotonicity(path, "0-1", at=np.zeros(2), eps=0.5, region_norm="2", method="crown", rows="0")
    assert ball.dependences[0].rise is not None


def test_jacobian_of_a_module_and_of_its_file(module: nn.Module, path: Path) -> None:
    found = provenn.jacobian(module, at=np.array([-1.0, 1.0]), eps="1/2", timeout=4)
    assert found.lower is not None
    assert found.certificate is not None
    assert found.lower == pytest.approx(np.diag([0.0, 1.0]), abs=1e-6)
    assert len(provenn.check(found.certificate, path).entries) >= 4
    text = b'{"features": [{"range": [1, 2]}, {"value": 1}]}'
    over = provenn.jacobian(path, domain=text, rows="0", method="crown")
    assert over.lower == pytest.approx(np.array([[1.0, 0.0]]), abs=1e-6)


def test_derivatives_refuse_what_makes_no_sense(module: nn.Module, path: Path) -> None:
    two = {"features": [{"range": [0, 1]}, {"values": [0, 1]}]}
    with pytest.raises(provenn.ProvennError, match="give either domain, or at and eps"):
        provenn.jacobian(path)
    with pytest.raises(provenn.ProvennError, match="give both at and eps"):
        provenn.monotonicity(path, "all", at=np.zeros(2))
    with pytest.raises(provenn.ProvennError, match="fixed holds features of a domain"):
        provenn.monotonicity(path, "all", at=np.zeros(2), eps=1, fixed={"age": 1})
    with pytest.raises(provenn.ProvennError, match=r"2 combinations of categories.*hold features with fixed"):
        provenn.jacobian(path, domain=two)
    with pytest.raises(provenn.ProvennError, match=r"at has shape \[3\], but the network takes \[2\]"):
        provenn.jacobian(path, at=np.zeros(3), eps=1)
    with pytest.raises(provenn.ProvennError, match="give the shape of its input"):
        provenn.monotonicity(module, "all", domain=two)
    with pytest.raises(provenn.ProvennError, match="there is no feature 'age'"):
        provenn.monotonicity(path, ["age"], domain=two)
    with pytest.raises(TypeError, match="region"):
        provenn.monotonicity(path, "all", region=two)  # type: ignore[call-arg]

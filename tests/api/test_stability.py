"""Regions of attraction: known levels are met, unstable loops falsified by a state, errors of enclosures told apart."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from loop_kit import ABSOLUTE, CONTINUOUS, DISCRETE, HALF, SQUARE, SWUNG, TANH, UNSTABLE, document, linear, net, node

import provenn
from provenn.api.certification import Options, certify, load_model
from provenn.api.cli import main
from provenn.api.stability import ERRORS, StabilityResult, read_conditions, stability
from provenn.models.executor import OnnxExecutor
from provenn.verifier.certificate.bundle import write
from provenn.verifier.check import CertificateRejected
from provenn.verifier.errors import InvalidModel, InvalidSpecification, UnsupportedOp
from provenn.verifier.spec_json import from_cases

CONTINUED = {"time": "continuous"}


def found(dynamics: bytes, candidate: bytes, controller: bytes = HALF, **members: Any) -> StabilityResult:
    """What is proved of a loop of the kit."""
    asked = read_conditions(document(**members), controller, {"f": dynamics, "V": candidate})
    return stability(asked, Options("branch-and-bound", 30))


@pytest.mark.parametrize(
    ("dynamics", "candidate", "members", "largest"),
    [
        (DISCRETE, ABSOLUTE, {}, 1.49),  # x - 3/2 < -1/100
        (CONTINUOUS, ABSOLUTE, CONTINUED | {"step": "1/64"}, 1.99),  # x - 2 < -1/100
        (CONTINUOUS, SQUARE, CONTINUED | {"pieces": 32}, 3.99),  # 2 x (x - 2) < -1/100
        (SWUNG, ABSOLUTE, {"pieces": 32, "small": ["1/5"]}, 3.0),  # to the faces
    ],
)
def test_known_regions_are_found_and_checked(
    dynamics: bytes, candidate: bytes, members: dict[str, Any], largest: float
) -> None:
    answer = found(dynamics, candidate, **members)
    assert (answer.verdict, answer.item.assurance) == ("verified", "checked")
    assert answer.level is not None
    assert answer.inner is not None
    assert answer.stated is not None
    assert answer.item.certificate is not None
    assert 0.94 * largest < answer.level <= answer.limit
    assert answer.level <= largest
    assert 0 < answer.inner < answer.level
    provenn.check(answer.item.certificate, answer.stated.model, answer.stated.specification.text)


def test_without_an_enclosure_functions_are_computed() -> None:
    answer = found(CONTINUOUS, TANH, time="continuous", level="4/5", inner="1/10", small=["1/4"])
    assert (answer.verdict, answer.item.assurance) == ("verified", "computed")


def test_an_unstable_loop_is_falsified_by_a_state() -> None:
    """x' = 1.1 x: the state is one where V does not fall, as onnxruntime has it."""
    answer = found(UNSTABLE, ABSOLUTE)
    assert (answer.verdict, answer.item.assurance) == ("falsified", "replayed")
    assert answer.level is None
    shown = answer.item.counterexample
    assert shown is not None
    (output,) = OnnxExecutor(answer.conditions.loop.model).run(np.array([shown.input], np.float32))
    assert output.tolist() == shown.output
    value, change, following = output
    assert change > -0.01
    assert 0.1 <= value <= 0.2
    assert following == pytest.approx(1.1 * shown.input[0])


def test_a_state_that_fails_limits_the_levels_above_it() -> None:
    """A spike at x = 9/4, too narrow to be seen at random: found by the proof, which then goes on below it."""
    nodes = [
        node("Gemm", "x w s", "z", transB=1),
        node("Relu", "z", "h"),
        node("Gemm", "h v", "k", transB=1),
        node("Gemm", "x l", "p", transB=1),
        node("Add", "k p", "y"),
    ]
    at, slope, wide = 2.25, 2.0**18, 2.0**-17
    constants = {"w": [[1.0, 0]] * 3, "s": [-at, -at - wide, -at - 2 * wide], "v": [[slope, -2 * slope, slope]]}
    answer = found(net(nodes, 2, 1, constants | {"l": [[1.0, 1.0]]}), ABSOLUTE)
    assert answer.item.assurance == "checked"
    assert [each.verdict for each in answer.attempts] == ["falsified", "verified"]
    assert answer.level is not None
    assert 2.25 * 63 / 64 < answer.level < 2.25


def test_the_search_goes_on_until_the_tolerance() -> None:
    asked = read_conditions(document(), HALF, {"f": DISCRETE, "V": ABSOLUTE})
    answer = stability(asked, Options("branch-and-bound", 30, certificates=False), tolerance=Fraction(1, 1000))
    assert answer.level is not None
    assert 1.488 < answer.level <= 1.49


def test_levels_that_are_claimed_are_decided() -> None:
    assert found(DISCRETE, ABSOLUTE, level="1.2", inner="0.2").verdict == "verified"
    refuted = found(DISCRETE, ABSOLUTE, level="1.6", inner="0.2")
    assert refuted.verdict == "falsified"
    assert refuted.item.counterexample is not None
    assert abs(refuted.item.counterexample.input[0]) == pytest.approx(1.55, abs=0.07)


def test_what_fails_within_errors_alone_is_unknown() -> None:
    answer = found(CONTINUOUS, SQUARE, time="continuous", pieces=2)
    assert answer.verdict == "unknown"
    assert answer.item.reason == ERRORS
    assert answer.item.counterexample is None


def test_disturbances_at_any_time() -> None:
    """x' = x / 2 + w with |w| <= 1/10 comes into |x| <= 1/5 and a little; with |w| <= 1/2 not so far."""
    pushed = linear([[1.0, 1.0, 1.0]])
    answer = found(pushed, ABSOLUTE, small=["1/4"], disturbances=[["-1/10", "1/10"]])
    assert answer.item.assurance == "checked"
    assert answer.level is not None
    assert answer.level > 2.9
    assert answer.inner is not None
    assert answer.inner >= 0.25
    refuted = found(pushed, ABSOLUTE, small=["1/4"], disturbances=[["-1/2", "1/2"]])
    assert refuted.verdict == "falsified"
    assert refuted.item.counterexample is not None
    assert len(refuted.item.counterexample.input) == 2


def test_an_observer_closes_the_loop() -> None:
    """x' = x + u, y = 2 x, u = -x^ / 2, x^' = x^ + u + (y - 2 x^) / 4: V = |x| + 2 |x - x^| falls by half of both."""
    value = net(
        [node("Gemm", "x w", "z", transB=1), node("Abs", "z", "a"), node("Gemm", "a s", "y", transB=1)],
        2, 1, {"w": [[1.0, 0], [1, -1]], "s": [[1.0, 2]]},
    )  # fmt: skip
    networks = {"f": linear([[1.0, 1.0]]), "V": value, "o": linear([[0.5, 1.0, 0.25]]), "h": linear([[2.0]])}
    box = {"lower": [-3, -3], "upper": [3, 3], "small": ["1/4", "1/4"]}
    asked = read_conditions(document(observer="o", measurement="h", level="2.5", inner="1.4", **box), HALF, networks)
    x, estimate = 0.7, -0.4
    (output,) = OnnxExecutor(asked.loop.model).run(np.array([[x, estimate]], np.float32))
    u = -estimate / 2
    reached = (x + u, estimate + u + (2 * x - 2 * estimate) / 4)
    before, after = (abs(a) + 2 * abs(a - b) for a, b in ((x, estimate), reached))
    np.testing.assert_allclose(output, [before, after - before, *reached], rtol=1e-5)
    answer = stability(asked, Options("branch-and-bound", 30))
    assert (answer.verdict, answer.item.assurance) == ("verified", "checked")


@pytest.mark.parametrize(
    ("members", "said"),
    [
        ({"small": [4]}, '"small": the small box must have widths, and lie inside the box'),
        ({"small": [1, 1]}, '"small": it must have as many numbers'),
        ({"step": "1/8"}, '"step": it belongs to continuous time'),
        ({"level": 1, "inner": 2}, '"inner": it must not be above "level"'),
        ({"decrease": 0}, '"decrease"'),
        ({"candidat": "V"}, "did you mean candidate?"),
        ({"lower": [-3, -3], "upper": [3, 3], "small": [1, 1]}, "the loop has 1 states"),
    ],
)
def test_documents_that_do_not_fit_are_refused(members: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidSpecification) as refusal:
        found(DISCRETE, ABSOLUTE, **members)
    assert said in str(refusal.value)


@pytest.mark.parametrize(
    ("dynamics", "candidate", "members", "said"),
    [
        (linear([[1.0]]), ABSOLUTE, {}, "the dynamics takes 1 inputs; here they are 1 states, 1 controls"),
        (DISCRETE, linear([[1.0, 1.0]]), {}, "the candidate takes 2 inputs"),
        (DISCRETE, linear([[1.0], [1.0]]), {}, "the candidate gives 2 numbers"),
        (CONTINUOUS, TANH, CONTINUED | {"step": "1/64"}, "not proved convex"),
        (DISCRETE, ABSOLUTE, {"measurement": "V"}, "a measurement is there for an observer"),
    ],
)
def test_networks_that_do_not_fit_are_refused(
    dynamics: bytes, candidate: bytes, members: dict[str, Any], said: str
) -> None:
    with pytest.raises(InvalidModel, match=said):
        found(dynamics, candidate, **members)


def stepped(operator: str) -> bytes:
    """(x, u) -> -step(x + u), by a node called "relay"."""
    nodes = [node("Gemm", "x w", "z", transB=1), node(operator, "z", "s"), node("Mul", "s g", "y")]
    nodes[1].name = "relay"
    return net(nodes, 2, 1, {"w": [[1.0, 1.0]], "g": [[-1.0]]})


def chosen(apart: float) -> bytes:
    """(x, u) -> where(z > 1/10, 4 z, z + apart), z = x + u, by a node called "relay"."""
    nodes = [
        node("Gemm", "x w", "z", transB=1),
        node("Greater", "z tenth", "c"),
        node("Mul", "z four", "a"),
        node("Add", "z apart", "b"),
        node("Where", "c a b", "y"),
    ]
    nodes[-1].name = "relay"
    return net(nodes, 2, 1, {"w": [[1.0, 1.0]], "tenth": [[0.1]], "four": [[4.0]], "apart": [[apart]]})


SOFT = net(
    [node("Gemm", "x w", "z", transB=1), node("Softplus", "z", "s"), node("Greater", "z limit", "c"),
     node("Where", "c z s", "y")],
    2, 1, {"w": [[-1.0, -1.0]], "limit": [[20.0]]},
)  # fmt: skip
"""softplus(-(x + u)) as torch exports it."""


@pytest.mark.parametrize("how", [{"step": "1/64"}, {}])
@pytest.mark.parametrize(
    ("operator", "dynamics", "controller"),
    [(each, stepped(each), HALF) for each in ("Sign", "Floor", "Ceil", "Round")]
    + [("Where", chosen(0.3), HALF), ("Softplus", SOFT, HALF)]
    + [("Sign", CONTINUOUS, net([node("Sign", "x", "s"), node("Mul", "s g", "y")], 1, 1, {"g": [[-0.5]]}))],
)
def test_velocities_that_jump_are_refused(
    how: dict[str, str], operator: str, dynamics: bytes, controller: bytes
) -> None:
    """x' = -sign(x) and the like need not have solutions; the branches of `chosen` miss each other by 7e-9."""
    with pytest.raises(UnsupportedOp, match=f"operator {operator} is not supported: in the .* it jumps") as refusal:
        found(dynamics, ABSOLUTE, controller, time="continuous", **how)
    role = "dynamics" if controller == HALF else "controller"
    assert f"in the {role} it jumps" in str(refusal.value)
    if dynamics in (stepped(operator), chosen(0.3)):
        assert "'relay" in str(refusal.value)


def test_a_measurement_that_jumps_is_refused() -> None:
    networks = {"f": linear([[1.0, 1.0]]), "V": linear([[1.0, 1.0]]), "o": linear([[0.5, 1.0, 0.25]])}
    networks["h"] = net([node("Round", "x", "y")], 1, 1, {})
    box = {"lower": [-3, -3], "upper": [3, 3], "small": ["1/4", "1/4"], "time": "continuous", "step": "1/8"}
    with pytest.raises(UnsupportedOp, match="in the measurement it jumps"):
        read_conditions(document(observer="o", measurement="h", **box), HALF, networks)


@pytest.mark.parametrize(("how", "said"), [({"step": "1/64"}, "not proved convex"), ({}, "operator Floor is not")])
def test_a_candidate_that_jumps_is_refused(how: dict[str, str], said: str) -> None:
    value = net([node("Abs", "x", "a"), node("Floor", "a", "f"), node("Add", "a f", "y")], 1, 1, {})
    with pytest.raises(InvalidModel, match=said):
        found(CONTINUOUS, value, time="continuous", **how)


def test_choices_whose_branches_meet_do_not_jump() -> None:
    """x' = min(z, 3 z) = where(z > 0, z, 3 z) of z = -x / 2."""
    nodes = [
        node("Gemm", "x w", "z", transB=1),
        node("Greater", "z nought", "c"),
        node("Mul", "z three", "b"),
        node("Where", "c z b", "y"),
    ]
    dynamics = net(nodes, 2, 1, {"w": [[0.0, 1.0]], "nought": [[0.0]], "three": [[3.0]]})
    assert found(dynamics, ABSOLUTE, time="continuous", step="1/64").verdict == "verified"


def test_in_discrete_time_a_loop_may_jump() -> None:
    """x' = -round(x / 2) is 0 for |x| <= 1, and 1 or more in magnitude beyond."""
    answer = found(stepped("Round"), ABSOLUTE)
    assert (answer.verdict, answer.item.assurance) == ("verified", "computed")
    assert answer.level is not None
    assert 0.98 < answer.level < 1


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Finds, keeps, draws; what it keeps is accepted by the other commands."""
    for name, data in (("c", HALF), ("f", DISCRETE), ("V", ABSOLUTE)):
        (tmp_path / name).write_bytes(data)
    spec, proof, picture = tmp_path / "loop.json", tmp_path / "proof", tmp_path / "region.png"
    spec.write_text(json.dumps(document()))
    model = str(tmp_path / "c")
    drawn = ["--plot", str(picture)] if _matplotlib() else []
    assert main(["stability", model, "--spec", str(spec), "--out", str(proof), *drawn, "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["verdict"], said["assurance"]) == ("verified", "checked")
    assert said["attempts"][-1]["verdict"] == "verified"
    assert picture.is_file() == bool(drawn)
    kept = json.loads((proof / "stability.json").read_text())
    assert float(kept["level"]) == said["level"]
    assert (
        main(["check", str(proof / "certificate.zip"), "--model", model, "--spec", str(proof / "stability.json")]) == 0
    )
    capsys.readouterr()
    claimed = provenn.stability(HALF, document(level="1.2", inner="0.2"), {"f": DISCRETE, "V": ABSOLUTE})
    assert claimed.words.startswith(
        "in real arithmetic, every trajectory from {V <= 1.2} in the box stays there, and is after 100"
    )
    assert "every trajectory" in claimed._repr_html_()


def _matplotlib() -> bool:
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        return False
    return True


def test_float32_executions_are_no_trajectories(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Refused wherever they may be asked for; and so is a certificate of them, which the composition may have."""
    for name, data in (("c", HALF), ("f", DISCRETE), ("V", ABSOLUTE)):
        (tmp_path / name).write_bytes(data)
    spec, proof, model = tmp_path / "loop.json", tmp_path / "proof", str(tmp_path / "c")
    spec.write_text(json.dumps(document(level="1.2", inner="0.2")))
    said = '"kind": semantics float32 is not for lyapunov'
    assert main(["certify", model, "--spec", str(spec), "--semantics", "float32"]) == 2
    assert f"loop.json: {said}" in capsys.readouterr().err
    with pytest.raises(InvalidSpecification, match=said):
        provenn.prove(model, spec, semantics="float32")
    asked = read_conditions(spec, HALF)
    with pytest.raises(InvalidSpecification, match=said):
        stability(asked, Options("branch-and-bound", 30, semantics="float32"))
    executed = from_cases(asked.all(Fraction(6, 5), Fraction(1, 5)))
    (item,) = certify(load_model(asked.model), [executed], Options("branch-and-bound", 30, semantics="float32"))
    assert item.assurance == "deployed"
    assert item.certificate is not None
    assert provenn.check(item.certificate, asked.model, executed.text).assurance == "deployed"
    with pytest.raises(CertificateRejected, match=said):
        provenn.check(item.certificate, HALF, spec)
    write(item.certificate, proof)
    assert main(["check", str(proof), "--model", model, "--spec", str(spec)]) == 13
    assert said in capsys.readouterr().out


def test_the_command_shows_a_state_where_a_condition_fails(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, data in (("c", HALF), ("f", UNSTABLE), ("V", ABSOLUTE)):
        (tmp_path / name).write_bytes(data)
    (tmp_path / "loop.json").write_text(json.dumps(document()))
    assert main(["stability", str(tmp_path / "c"), "--spec", str(tmp_path / "loop.json")]) == 10
    assert "fails at: state" in capsys.readouterr().out
    with pytest.raises(InvalidSpecification, match='"level" is missing: provenn stability finds'):
        provenn.prove(tmp_path / "c", tmp_path / "loop.json")


@pytest.mark.parametrize(("own", "how"), [(-0.4, {}), (-1.0, {"time": "continuous", "step": "1/64"})])
def test_a_level_below_that_of_the_small_box_is_not_verified(own: float, how: dict[str, str]) -> None:
    """0 goes to 0.9: it leaves {V <= 1/2} at once, though V falls wherever |x| >= 1."""
    away = net([node("Gemm", "x w b", "y", transB=1)], 2, 1, {"w": [[own, 0.0]], "b": [0.9]})
    asked = read_conditions(document(small=["1"], level="1/2", **how), HALF, {"f": away, "V": ABSOLUTE})
    assert stability(asked, Options("branch-and-bound", 20)).verdict != "verified"
    with pytest.raises(InvalidSpecification, match='must not be above "level"'):
        asked.all(Fraction(1, 2), Fraction(2))

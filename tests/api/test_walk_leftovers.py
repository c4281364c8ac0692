"""Sizes that float32 lacks, Ctrl-C, and refusals that say which file, which key, and of what."""

from __future__ import annotations

import hashlib
import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from cli_kit import PLAIN, Command
from loop_kit import ABSOLUTE, DISCRETE, HALF, document
from networks import GraphExecutor, mlp
from service_kit import Server

from provenn.api.certification import Options
from provenn.api.monotone import over_which, request
from provenn.api.stability import INTERRUPTED, read_conditions, stability
from provenn.models.activation_pattern import FORMAT as PATTERN
from provenn.models.activation_pattern import read_pattern
from provenn.models.specification.monotone import Monotone, Region
from provenn.solvers.base import Budget, Problem, Verdict
from provenn.solvers.portfolio import Portfolio
from provenn.solvers.room import Room
from provenn.solvers.top_k_attack import TopKAttack
from provenn.verifier.errors import InvalidSpecification
from provenn.verifier.region import Region as Searched
from provenn.verifier.spec import Case, Clause, InputSet
from provenn.verifier.spec_json import FORMAT

HUGE = [Fraction(10) ** 39, -(Fraction(10) ** 39), Fraction(10) ** 308]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """In a folder of its own."""
    monkeypatch.chdir(tmp_path)
    return Command(capsys)


def _case(coefficient: Fraction, bound: Fraction) -> Case:
    """Three rows, the second with this coefficient and this bound."""
    matrix = [[Fraction(int(i == k) - int(i == k + 1)) for i in range(8)] for k in range(3)]
    matrix[1][2] += coefficient
    box = InputSet((Fraction(-1),) * 16, (Fraction(1),) * 16)
    return Case(box, (Clause(tuple(map(tuple, matrix)), (Fraction(0), bound, Fraction(0))),))


@pytest.mark.parametrize("huge", HUGE)
def test_a_row_beyond_float32_is_no_direction(huge: Fraction) -> None:
    """Warnings are errors here."""
    graph = mlp([16, 24, 8], 0)
    for case in (_case(huge, Fraction(0)), _case(Fraction(0), huge), _case(huge, huge)):
        problem = Problem(graph, [case], GraphExecutor(graph))
        (outcome,) = TopKAttack().solve(problem, Budget(2.0)).outcomes
        if outcome.verdict == Verdict.FALSIFIED:
            assert outcome.output is not None
            assert case.clauses[0].holds([Fraction(float(value)) for value in outcome.output])
    excluded = Problem(graph, [_case(Fraction(0), HUGE[0])], GraphExecutor(graph))
    assert Portfolio().solve(excluded, Budget(2.0)).outcomes[0].verdict == Verdict.VERIFIED
    reached = Problem(graph, [_case(Fraction(0), -HUGE[0])], GraphExecutor(graph))
    assert Portfolio().solve(reached, Budget(2.0)).outcomes[0].verdict != Verdict.VERIFIED


def test_ends_beyond_float32_are_rounded_outward_for_bounds_and_inward_for_attacks() -> None:
    most, huge = torch.finfo(torch.float32).max, HUGE[0]
    inputs = InputSet((-huge, huge), (huge, 2 * huge))
    region = Searched.of([inputs], (2,), "cpu", torch.float32)
    assert region.box.lower.tolist() == [[-torch.inf, most]]
    assert region.box.upper.tolist() == [[torch.inf, torch.inf]]
    room = Room.of([Case(inputs, ())], region)
    assert (room.lower[0, 0].item(), room.upper[0, 0].item()) == (-most, most)


def _loop(folder: Path) -> None:
    for name, data in (("c", HALF), ("f", DISCRETE), ("V", ABSOLUTE)):
        (folder / name).write_bytes(data)
    (folder / "loop.json").write_text(json.dumps(document()))


def _stopping(attempts: int) -> object:
    def stop(done: int, total: int, phase: str) -> None:
        if phase.startswith("level") and done == attempts:
            raise KeyboardInterrupt

    return stop


def test_an_interrupt_keeps_the_levels_that_are_proved(
    run: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("provenn.api.stability._Search._limit", lambda *_: 1.9)  # else the first level is the last
    _loop(tmp_path)
    asked = read_conditions(document(), HALF, {"f": DISCRETE, "V": ABSOLUTE})
    options, fine = Options("branch-and-bound", 30), Fraction(1, 256)
    whole = stability(asked, options, tolerance=fine)
    proved = next(k for k, each in enumerate(whole.attempts) if each.verdict == "verified")
    cut = stability(asked, options, _stopping(proved + 1), fine)  # type: ignore[arg-type]
    assert (cut.verdict, cut.interrupted, cut.item.reason) == ("verified", True, INTERRUPTED)
    assert cut.level is not None
    assert float(cut.level) == whole.attempts[proved].level

    def interrupted(after: int) -> object:
        return lambda *given: stability(given[0], options, _stopping(after), fine)  # type: ignore[arg-type]

    monkeypatch.setattr("provenn.api.cli.attraction.stability", interrupted(proved + 1))
    ran = run("stability", "c", "--spec", "loop.json", "--out", "proof", "--json")
    assert (ran.code, ran.json["interrupted"], ran.json["level"]) == (0, True, float(cut.level))
    claimed = ("--model", "c", "--spec", "proof/stability.json")
    assert run("check", "proof/certificate.zip", *claimed).code == 0
    monkeypatch.setattr("provenn.api.cli.attraction.stability", interrupted(0))
    ran = run("stability", "c", "--spec", "loop.json", "--json")
    assert (ran.code, ran.json["verdict"], ran.json["level"]) == (130, "unknown", None)
    assert ran.json["reason"] == INTERRUPTED


PERTURBED = {"format": FORMAT, "kind": "perturbation", "input": [1, 0], "label": 0}
BRIGHT = {"type": "brightness", "range": [0, 0.5]}
RISING = {"format": FORMAT, "kind": "monotone", "features": [1], "rows": "0", "expect": "increasing"}
AROUND = {"input": [1, 0], "epsilon": 0.5}


def _write(name: str, document: dict[str, Any]) -> str:
    Path(name).write_text(json.dumps(document))
    return name


def test_refused_networks_are_named(run: Command, tmp_path: Path) -> None:
    _loop(tmp_path)
    Path("f").write_bytes(b"no network")
    refused = run("stability", "c", "--spec", "loop.json")
    assert refused.code == 2
    assert refused.err.startswith("error: the dynamics: not an ONNX file")
    Path("good.onnx").write_bytes(PLAIN)
    np.save("x.npy", np.array([[1.0, 0.0]], np.float32))
    refused = run("tightness", "good.onnx", "f", "--input", "x.npy", "--json")
    assert (refused.code, refused.json["error"]["type"]) == (2, "InvalidModel")
    assert refused.err.startswith("error: f: not an ONNX file")


@pytest.mark.parametrize(
    ("kind", "changes", "said"),
    [
        (RISING, {"region": {**AROUND, "epsilon": 0}}, '"features": input 1 has one value alone'),
        (PERTURBED, {"input": [1e39, 0], "perturbations": [BRIGHT]}, '"input": a number is too large for float32'),
        (PERTURBED, {"clip": [0, 1e39], "perturbations": [BRIGHT]}, '"clip": a number is too large'),
        (
            PERTURBED,
            {"perturbations": [BRIGHT, {"type": "contrast", "range": [1, 2], "about": -1e39}]},
            '"perturbations"[1]."about": a number is too large',
        ),
        (
            PERTURBED,
            {"perturbations": [{"type": "linear", "directions": [[0, 1], [1e39, 0]], "range": [0, 1]}]},
            '"perturbations"[0]."directions"[1]: a number is too large',
        ),
        (PERTURBED, {"shape": [3, 1], "perturbations": [BRIGHT]}, '"shape": [3, 1] has 3 entries, but the network'),
    ],
)
def test_what_does_not_fit_the_network_names_file_and_key(
    run: Command, kind: dict[str, Any], changes: dict[str, Any], said: str
) -> None:
    Path("plain.onnx").write_bytes(PLAIN)
    refused = run("certify", "plain.onnx", "--spec", _write("d.json", kind | changes))
    assert refused.code == 2
    assert refused.err.startswith(f"error: d.json: {said}")


def test_a_shape_that_fits_is_taken_without_a_patch(run: Command) -> None:
    Path("plain.onnx").write_bytes(PLAIN)
    bright = {"type": "brightness", "range": [0, "1/1024"]}
    asked = _write("d.json", PERTURBED | {"shape": [1, 1, 2], "perturbations": [bright]})
    assert run("certify", "plain.onnx", "--spec", asked).code == 0


def test_what_cannot_be_kept_is_not_said_to_lack_out(run: Command) -> None:
    Path("plain.onnx").write_bytes(PLAIN)
    Path("taken").write_bytes(b"a file")
    np.save("x.npy", np.array([1.0, 0.0], np.float32))
    around = ("--at", "x.npy", "--eps", "0.25")
    ball = ("--input", "x.npy", "--label", "0", "--eps")
    for command in (
        ("certify", "plain.onnx", *ball, "0.1"),
        ("certify", "plain.onnx", *ball, "2"),
        ("certify", "plain.onnx", *ball, "0.1", "--eps", "0.2"),
        ("lipschitz", "plain.onnx", "--method", "norm-product"),
        ("monotonicity", "plain.onnx", "--features", "0", *around),
        ("jacobian", "plain.onnx", *around),
    ):
        ran = run(*command, "--out", "taken/deep")
        assert ran.code == 1
        assert "not kept: taken/deep cannot be written" in ran.out, command
        assert "give --out DIR" not in ran.out


def test_patterns_say_which_file_and_need_their_format(run: Command) -> None:
    Path("plain.onnx").write_bytes(PLAIN)
    layer = {"relu": "a", "neurons": 2, "active": [0], "inactive": []}
    pattern = {"format": PATTERN, "model": hashlib.sha256(PLAIN).hexdigest(), "class": 0, "layers": [layer]}
    box = ("--box", "0", "1", "--timeout", "5")
    _write("whole.json", pattern)
    assert run("nap", "verify", "plain.onnx", "--pattern", "whole.json", *box).code != 2
    _write("bare.json", {name: value for name, value in pattern.items() if name != "format"})
    Path("broken.json").write_text("{")
    question = {"format": FORMAT, "kind": "activation-pattern", "lower": 0, "upper": 1}
    for name, said in (("bare", "activation pattern: format: is missing"), ("broken", "activation pattern: Invalid")):
        refused = run("nap", "verify", "plain.onnx", "--pattern", f"{name}.json", *box)
        assert refused.code == 2
        assert refused.err.startswith(f"error: {name}.json: {said}")
        refused = run("certify", "plain.onnx", "--spec", _write("q.json", question | {"pattern": f"{name}.json"}))
        assert refused.code == 2
        assert refused.err.startswith(f'error: q.json: "pattern": {name}.json: {said}')
    with pytest.raises(InvalidSpecification, match=r"activation pattern: delta: delta is 0\.5"):
        read_pattern(pattern | {"delta": "0.5"})


def test_members_that_are_there_twice_are_refused(server: Server) -> None:
    model = server.model(PLAIN)
    ball = '"kind": "ball", "input": [1, 0], "label": 0, "epsilon": 0.1, "epsilon": 0.01}'
    inner = f'{{"format": "{FORMAT}", {ball}'
    for body, member in (
        (f'{{"model": "{model}", "specification": {inner}}}', "epsilon"),
        (f'{{"model": "{model}", "model": "{model}"}}', "model"),
    ):
        answer = server.client.post("/v1/jobs", content=body, headers={"content-type": "application/json"})
        assert answer.status_code == 422
        assert answer.json()["type"].endswith("invalid-request")
        assert f'"{member}" is given twice' in answer.json()["detail"]
    whole = inner.replace(', "epsilon": 0.01', "")
    body = f'{{"model": "{model}", "specification": {whole}}}'
    answer = server.client.post("/v1/jobs", content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 202
    answer = server.client.post("/v1/jobs", content="{", headers={"content-type": "application/json"})
    assert answer.json()["detail"].startswith("#/1: JSON decode error")


def test_problems_are_not_told_in_the_words_of_a_library(server: Server) -> None:
    body = {"model": server.model(PLAIN), "inputs": {"inputs": [[1, 0]], "labels": [0, 1], "epsilons": [0.1]}}
    said = server.client.post("/v1/jobs", json=body).json()
    assert said["status"] == 422
    assert "Value error" not in json.dumps(said)


def test_regions_that_a_service_would_take_otherwise_are_refused() -> None:
    region = Region.model_validate(AROUND | {"clip": [0, "1/3"]})
    asked = Monotone(("0",), "increasing", "all", None, {}, region)
    said = '"region"."clip": a service takes ranges of regions as decimals, which 1/3 is not'
    with pytest.raises(InvalidSpecification, match=said):
        request(asked)
    with pytest.raises(InvalidSpecification, match=said):
        over_which(asked, (2,))
    held = Monotone(("0",), "increasing", "all", None, {}, Region.model_validate(AROUND | {"clip": [0.1, "0.3"]}))
    assert over_which(held, (2,))["clip"] == (0.1, 0.3)
    sent = request(held).region
    assert sent is not None
    assert sent.clip == (0.1, 0.3)


def test_the_words_say_that_a_centre_is_rounded() -> None:
    third = Region.model_validate(AROUND | {"input": ["1/3", 0]})
    rounded, exact = (
        Monotone(("0",), "increasing", "all", None, {}, r) for r in (third, Region.model_validate(AROUND))
    )
    assert rounded.words.endswith("of the one in the document (its numbers rounded to float64)")
    assert exact.words.endswith("of the one in the document")

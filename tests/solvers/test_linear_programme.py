"""The linear programme as a backend: what it proves is proved by the checker, what it cannot take is said."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
import torch
from networks import GraphExecutor, mlp
from onnx import TensorProto, helper, numpy_helper

from provenn.api.certification import Options, certify, load_model
from provenn.models.zoo import load
from provenn.models.zoo.digits import load_digits
from provenn.solvers.base import Budget, Problem, Verdict
from provenn.solvers.crown import Crown
from provenn.solvers.linear_programme import LinearProgramme, worthwhile
from provenn.verifier.check import check
from provenn.verifier.spec import Ball, Case, Clause, InputSet
from provenn.verifier.spec_json import from_cases, robustness


def clause(*rows: tuple[int, ...]) -> Clause:
    """{y : row @ y >= 0 for all rows}."""
    return Clause(tuple(tuple(map(Fraction, row)) for row in rows), (Fraction(0),) * len(rows))


def problem(radius: Fraction, clauses: tuple[Clause, ...], inputs: int = 40) -> Problem:
    graph = mlp([inputs, 20, 20, 3], 0)
    box = InputSet((-radius,) * inputs, (radius,) * inputs)
    return Problem(graph, [Case(box, clauses)], GraphExecutor(graph))


def rivals(given: Problem) -> tuple[Clause, ...]:
    """That a rival of the class at the centre wins, one clause each."""
    label = int(given.graph.forward(torch.zeros((1, *given.graph.input_shape)).double()).argmax())
    return tuple(clause(tuple((j == k) - (label == k) for k in range(3))) for j in range(3) if j != label)


def test_its_certificate_is_checked() -> None:
    data = load("digits-mlp")
    model, test = load_model(data), load_digits()[1]
    verdicts = set()
    for image, label in zip(test.images[:4], test.labels[:4].tolist(), strict=True):
        for radius in ("0.02", "0.05", "0.09"):
            asked = robustness(image.ravel(), label=label, epsilon=radius, outputs=10, clip=(0, 1))
            (item,) = certify(model, [asked], Options("lp"))
            verdicts.add(item.verdict)
            if item.verdict == Verdict.VERIFIED:
                assert (item.assurance, item.method) == ("checked", "lp")
                assert item.certificate is not None
                assert check(item.certificate, data, asked.text).margin == item.margin
    assert verdicts == {Verdict.VERIFIED, Verdict.UNKNOWN}


def test_it_verifies_what_crown_verifies_and_more() -> None:
    graph = mlp([40, 20, 20, 3], 0)
    given = problem(Fraction(1, 50), ())
    given = replace(given, graph=graph, cases=[replace(given.cases[0], clauses=rivals(given))])
    (outcome,) = LinearProgramme().solve(given, Budget(30)).outcomes
    assert outcome.verdict == Verdict.VERIFIED
    assert outcome.margin > 0
    wide = replace(given, cases=[replace(given.cases[0], inputs=InputSet((Fraction(-9),) * 40, (Fraction(9),) * 40))])
    (outcome,) = LinearProgramme().solve(wide, Budget(30)).outcomes
    assert outcome.verdict == Verdict.UNKNOWN
    assert -np.inf < outcome.margin <= 0


def test_what_it_does_not_take_is_said() -> None:
    given = problem(Fraction(1), (clause((1, -1, 0)),))
    ball = replace(given.cases[0].inputs, ball=Ball((Fraction(0),) * 40, Fraction(1), 2))
    for case, why in (
        (replace(given.cases[0], inputs=ball), "boxes alone"),
        (replace(given.cases[0], clauses=(Clause((), ()),)), "without rows"),
    ):
        (outcome,) = LinearProgramme().solve(replace(given, cases=[case]), Budget(30)).outcomes
        assert outcome.verdict == Verdict.UNKNOWN
        assert outcome.reason is not None
        assert why in outcome.reason
    (outcome,) = LinearProgramme().solve(given, Budget(0)).outcomes
    assert outcome.verdict == Verdict.TIMEOUT


def test_numbers_too_large_for_the_programme_leave_crowns_margin() -> None:
    given = problem(Fraction(10) ** 30, (clause((1, -1, 0)), clause((0, -1, 1))))
    (outcome,) = LinearProgramme().solve(given, Budget(30)).outcomes
    (crown,) = Crown().solve(replace(given, dtype=torch.float64), Budget(30)).outcomes
    assert (outcome.verdict, outcome.margin) == (Verdict.UNKNOWN, crown.margin)
    assert outcome.reason is not None
    assert "numbers above" in outcome.reason


def test_neurons_that_touch_zero_are_proved_as_they_are_bounded() -> None:
    """y = sum of relu(x_i) - x_i + 0.001 over pixels in [0, 1], less a term that CROWN's lines alone get wrong."""
    generator = np.random.default_rng(0)
    arrays = {
        "shift": np.full((1, 40), 0.001, np.float32),
        "ones": np.ones((40, 1), np.float32),
        "w": generator.normal(size=(40, 20)).astype(np.float32),
        "sum": np.ones((20, 1), np.float32),
    }
    nodes = [
        helper.make_node("Relu", ["x"], ["r0"]),
        helper.make_node("Add", ["r0", "shift"], ["a"]),
        helper.make_node("Sub", ["a", "x"], ["d"]),
        helper.make_node("MatMul", ["d", "ones"], ["y0"]),
        helper.make_node("MatMul", ["x", "w"], ["z"]),
        helper.make_node("Relu", ["z"], ["r1"]),
        helper.make_node("MatMul", ["r1", "sum"], ["y1"]),
        helper.make_node("Concat", ["y0", "y1"], ["y"], axis=1),
    ]
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["N", k]) for n, k in (("x", 40), ("y", 2))]
    graph = helper.make_graph(
        nodes, "net", ends[:1], ends[1:], [numpy_helper.from_array(a, n) for n, a in arrays.items()]
    )
    data = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9).SerializeToString()
    box = InputSet((Fraction(0),) * 40, (Fraction(1),) * 40)
    asked = from_cases([Case(box, (clause((-1, -1)),))])
    for semantics, assurance in (("real", "checked"), ("float32", "deployed")):
        (item,) = certify(load_model(data), [asked], Options("lp", semantics=semantics))
        assert (item.verdict, item.assurance) == (Verdict.VERIFIED, assurance), item.reason


@pytest.mark.parametrize("inputs", [40, 8])
def test_auto_asks_it_where_rows_must_be_weighed(inputs: int) -> None:
    several = problem(Fraction(1), (clause((1, -1, 0), (1, 0, -1)),), inputs)
    assert worthwhile(several) == (inputs == 40)
    assert not worthwhile(replace(several, cases=[*several.cases, *several.cases]))
    assert not worthwhile(replace(several, cases=[replace(several.cases[0], clauses=(clause((1, -1, 0)),))]))

"""A property whose inputs contradict each other is vacuously true and says so, wherever it is asked about."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from cli_kit import PLAIN, PROPERTY, Command
from service_kit import Server

from provenn.api.certification import Options, certify, load_model
from provenn.api.cross_check import cross_check
from provenn.verifier.check import check
from provenn.verifier.errors import BackendError, InvalidSpecification
from provenn.verifier.spec_reader import read_specification

EMPTY = PROPERTY + "(assert (>= X_0 2))\n"
"""X_0 is at most 1.1 by line 6, and at least 2 by line 10."""
WHY = "empty region: X_0 must be at least 2.0 and at most 1.1 (line 6, 10)"

SAFE, UNSAFE = "(<= Y_0 Y_1)", "(>= Y_0 Y_1)"
PARTLY = PROPERTY.replace(SAFE, "(or (and (>= X_0 2) (<= Y_0 Y_1))\n(<= Y_0 Y_1))")
DROPPED = "1 of 2 disjuncts allow no input and hold vacuously: X_0 must be at least 2.0 and at most 1.1 (line 6, 9)"

TWO = """(vnnlib-version <2.0>)
(declare-network N (declare-input X float32 [2]) (declare-output Y float32 [2]))
(assert (and (>= X[0] 2.0) (<= X[0] 1.0) (>= X[1] 0.0) (<= X[1] 1.0)))
(assert (>= Y[0] 0.0))
"""


@pytest.fixture
def provenn(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Command:
    """The command, in a folder with a network and properties."""
    monkeypatch.chdir(tmp_path)
    Path("plain.onnx").write_bytes(PLAIN)
    texts = {"empty": EMPTY, "partly": PARTLY, "unsafe": PARTLY.replace(SAFE, UNSAFE), "two": TWO}
    for name, text in texts.items():
        Path(f"{name}.vnnlib").write_text(text)
    return Command(capsys)


@pytest.mark.parametrize("semantics", ["real", "float32"])
def test_an_empty_region_is_verified_with_a_warning_that_names_file_and_line(provenn: Command, semantics: str) -> None:
    ran = provenn("certify", "plain.onnx", "--spec", "empty.vnnlib", "--json", "--out", "p", "--semantics", semantics)
    reason = f"vacuously true: empty.vnnlib: {WHY}"
    assert (ran.code, ran.err) == (0, f"warning: {reason}\n")
    expected = {"verdict": "verified", "assurance": "vacuous", "reason": reason, "warnings": [reason], "margin": None}
    assert ran.json | expected == ran.json
    assert (ran.json["certificate"], list(Path("p").iterdir())) == (None, [])


def test_the_table_says_so_too(provenn: Command) -> None:
    ran = provenn("certify", "plain.onnx", "--spec", "empty.vnnlib")
    assert ran.code == 0
    assert "vacuous: the property allows no input" in ran.out
    assert f"vacuously true: empty.vnnlib: {WHY}" in ran.out


def test_the_new_form_too(provenn: Command) -> None:
    ran = provenn("certify", "plain.onnx", "--spec", "two.vnnlib", "--json")
    assert (ran.code, ran.json["assurance"]) == (0, "vacuous")
    assert "two.vnnlib: empty region: X_0 must be at least 2.0 and at most 1.0 (line 3)" in ran.json["reason"]


def test_a_size_that_does_not_fit_is_still_an_error(provenn: Command) -> None:
    Path("wide.vnnlib").write_text("(declare-const X_2 Real)\n" + EMPTY)
    ran = provenn("certify", "plain.onnx", "--spec", "wide.vnnlib")
    assert ran.code == 2
    assert "3 input variables, the network has 2" in ran.err
    with pytest.raises(BackendError):
        certify(load_model(PLAIN), [read_specification(EMPTY.encode())], Options(method="magic"))


def test_where_one_set_of_several_is_empty_the_others_decide(provenn: Command) -> None:
    ran = provenn("certify", "plain.onnx", "--spec", "partly.vnnlib", "--json", "--out", "p")
    warning = f"partly.vnnlib: {DROPPED}"
    assert (ran.code, ran.err) == (0, f"warning: {warning}\n")
    assert (ran.json["assurance"], ran.json["warnings"], ran.json["reason"]) == ("checked", [warning], None)
    assert provenn("check", ran.json["certificate"], "--model", "plain.onnx", "--spec", "partly.vnnlib").code == 0
    ran = provenn("certify", "plain.onnx", "--spec", "unsafe.vnnlib", "--json")
    assert (ran.code, ran.json["assurance"]) == (10, "replayed")
    assert ran.json["warnings"] == [f"unsafe.vnnlib: {DROPPED}"]
    assert DROPPED in provenn("certify", "plain.onnx", "--spec", "unsafe.vnnlib").out


def test_beside_others_in_one_run_every_answer_is_its_own() -> None:
    asked = [read_specification(t.encode()) for t in (PROPERTY, EMPTY, PARTLY.replace(SAFE, UNSAFE), EMPTY, PROPERTY)]
    found = certify(load_model(PLAIN), asked, Options())
    assert [i.assurance for i in found] == ["checked", "vacuous", "replayed", "vacuous", "checked"]
    assert found[4].certificate is not None
    assert check(found[4].certificate, PLAIN, PROPERTY.encode()).margin > 0


def test_inputs_that_only_the_checker_finds_leave_it_unknown() -> None:
    """As if our reader had overlooked them."""
    overlooked = replace(read_specification(EMPTY.encode()), text=PROPERTY.encode())
    (item,) = certify(load_model(PLAIN), [overlooked], Options())
    assert (item.verdict, item.assurance) == ("unknown", None)
    assert (item.reason or "").startswith("the trusted checker finds inputs where the search finds none")


def test_a_cross_check_has_nothing_to_compare() -> None:
    model, asked = load_model(PLAIN), [read_specification(EMPTY.encode())]
    found = cross_check(model, asked, certify(model, asked, Options()), Options())
    assert (found.cases, found.disagreements) == (0, ())


@pytest.mark.parametrize("text", [EMPTY, TWO])
def test_the_service_says_it_in_the_item(server: Server, text: str) -> None:
    found = server.ended(server.submit({"model": server.model(PLAIN), "specification": text}))
    (item,) = found["result"]["items"]
    assert (found["state"], found["result"]["verdict"]) == ("succeeded", "verified")
    assert (item["verdict"], item["assurance"], item["certificate"]) == ("verified", "vacuous", None)
    assert item["warnings"] == [item["reason"]]
    assert item["reason"].startswith("vacuously true: empty region: X_0 must be at least 2.0 and at most 1.")


def test_the_service_warns_of_a_set_that_is_dropped(server: Server) -> None:
    found = server.ended(server.submit({"model": server.model(PLAIN), "specification": PARTLY}))
    (item,) = found["result"]["items"]
    assert (item["assurance"], item["warnings"]) == ("checked", [DROPPED])


BEYOND = {
    "(assert (>= X_0 Y_0))": "line 10: a constraint over inputs and outputs together is not read here",
    "(assert (>= (* Y_1 Y_0) 0))": "line 10: a product of variables is not linear: it is not read here",
    "(assert (= Y_1 0))": "line 10: '=' is not read here",
}


@pytest.mark.parametrize("asserted", BEYOND)
def test_what_the_other_command_reads_is_refused_with_its_name(provenn: Command, asserted: str) -> None:
    Path("more.vnnlib").write_text(PROPERTY + asserted)
    ran = provenn("certify", "plain.onnx", "--spec", "more.vnnlib", "--json")
    assert (ran.code, ran.json["error"]["type"], ran.json["error"]["line"]) == (2, InvalidSpecification.__name__, 10)
    assert ran.json["error"]["message"].startswith(f"more.vnnlib: {BEYOND[asserted]}")
    assert "provenn-vnnlib decides such queries" in ran.err


def test_several_networks_are_refused_with_its_name(provenn: Command) -> None:
    second = "(declare-network M (equal-to N)\n(declare-input U float32 [2]) (declare-output V float32 [2]))\n"
    Path("more.vnnlib").write_text(TWO.replace("(assert", second + "(assert", 1))
    ran = provenn("certify", "plain.onnx", "--spec", "more.vnnlib")
    assert ran.code == 2
    assert ran.err.startswith("error: more.vnnlib: line 3: 2 networks are declared")
    assert "provenn-vnnlib decides such queries" in ran.err


def test_limits_name_the_file_too(provenn: Command) -> None:
    Path("deep.vnnlib").write_text(PROPERTY + "(assert " + "(and " * 100 + "(<= Y_0 1)" + ")" * 101)
    ran = provenn("certify", "plain.onnx", "--spec", "deep.vnnlib")
    assert ran.code == 2
    assert ran.err.startswith("error: deep.vnnlib: line 10: the nesting depth exceeds the limit of 60")

"""Patterns from data to certificates: verified and falsified, excluded, radii; `provenn nap` and `provenn check`."""

from __future__ import annotations

import io
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from cli_kit import Command, two_layers
from rich.console import Console

from provenn.api.activation_patterns import (
    Bracket,
    Mining,
    Radii,
    Samples,
    Search,
    coverage,
    mine,
    no_files,
    radii,
    verify,
)
from provenn.api.certification import Options, certify, load_model
from provenn.api.cli.patterns import _radii_view
from provenn.api.results import ItemResult
from provenn.models.specification.activation_pattern import KIND, stated
from provenn.verifier.check import check
from provenn.verifier.spec_json import FORMAT

MODEL = two_layers([[1, -1], [-1, 1], [1, 1]], [0, 0, 0], [[1, 0, 0.5], [0, 1, 0.5]])
"""y = (relu(x0 - x1), relu(x1 - x0)) + relu(x0 + x1) / 2: class 0 where x0 > x1; a tie elsewhere on x0 = x1 alone."""

INPUTS = np.array([[0.9, 0.2], [0.8, 0.1], [0.7, 0.6], [0.1, 0.9], [0.2, 0.7], [0.3, 0.5]], np.float32)
LABELS = np.array([0, 0, 0, 1, 1, 1])
QUICK = Options(seconds=20)


def patterns(delta: Fraction = Fraction(1)) -> dict[int, dict[str, object]]:
    return {p.label: p.model_dump(by_alias=True) for p in mine(MODEL, Samples(INPUTS, LABELS), Mining(delta))}


def test_patterns_are_mined_and_cover_data() -> None:
    found = mine(MODEL, Samples(INPUTS, LABELS), Mining())
    assert [(p.label, p.layers[0].active, p.layers[0].inactive) for p in found] == [(0, [0, 2], [1]), (1, [1, 2], [0])]
    held = Samples(np.array([[0.5, 0.4], [-0.5, -0.6], [0.1, 0.2]], np.float32), np.array([0, 0, 0]))
    first, second = coverage(MODEL, found, held)
    assert (first.samples, first.followed, first.all_followed, first.recall, first.precision) == (3, 1, 1, 1 / 3, 1.0)
    assert (second.samples, second.recall, second.all_followed, second.precision) == (0, None, 1, 0.0)


def test_a_pattern_implies_its_class_in_a_box_and_the_certificate_says_so() -> None:
    document = {"pattern": patterns()[0], "lower": "0.1", "upper": "1", "margin": "0.05"}
    found = verify(MODEL, document, QUICK, no_files)
    assert (found.item.verdict, found.item.assurance, found.inhabited) == ("verified", "checked", True)
    again = stated({"format": FORMAT, "kind": KIND, **document}, MODEL, no_files)
    assert found.item.certificate is not None
    report = check(found.item.certificate, again.model, again.specification.text)
    assert report.verdict == "verified"
    plain = verify(MODEL, document | {"margin": "0"}, QUICK, no_files)
    assert plain.item.verdict == "falsified"  # at z = 0 the outputs tie


def test_what_follows_a_wrong_pattern_is_a_counterexample_of_the_network_itself() -> None:
    wrong = patterns()[0] | {"class": 1}
    found = verify(MODEL, {"pattern": wrong, "lower": "0", "upper": "1"}, QUICK, no_files)
    assert found.item.verdict == "falsified"
    assert found.item.counterexample is not None
    x = found.item.counterexample.input
    assert x[0] >= x[1]


def test_two_patterns_exclude_each_other() -> None:
    both = patterns()
    found = verify(MODEL, {"pattern": both[0], "excludes": both[1], "lower": "-1", "upper": "1"}, QUICK, no_files)
    assert (found.item.verdict, found.item.assurance) == ("verified", "checked")
    same = verify(MODEL, {"pattern": both[0], "excludes": both[0], "lower": "-1", "upper": "1"}, QUICK, no_files)
    assert same.item.verdict == "falsified"


def test_the_radius_is_larger_where_the_pattern_holds() -> None:
    (first, _) = mine(MODEL, Samples(INPUTS, LABELS), Mining())
    found = radii(MODEL, first, np.array([0.8, 0.6], np.float32), (0.0, 1.0), QUICK, Search())
    assert 0.09 <= found.without.verified < 0.1 < (found.without.falsified or 0)
    assert found.follows
    assert found.inhabited
    assert found.within.verified >= found.without.verified


def test_the_search_for_a_radius_ends_at_the_largest_or_between_its_ends() -> None:
    def within(radius: Fraction) -> ItemResult:
        return ItemResult("verified" if radius <= Fraction(1, 10) else "unknown", "crown", None, 0.0)

    found = Search().bracket(within)
    assert found.verified <= 0.1 <= found.verified * 1.1
    assert (found.falsified, found.whole) == (None, False)
    assert Search(largest=Fraction(1, 20)).bracket(within).whole
    nothing = Search().bracket(lambda radius: ItemResult("falsified", "attack", None, 0.0))
    assert nothing.verified == 0
    assert nothing.item is None


def test_a_search_goes_on_from_what_a_stronger_statement_proves() -> None:
    asked: list[Fraction] = []

    def within(radius: Fraction) -> ItemResult:
        asked.append(radius)
        return ItemResult("verified" if radius <= Fraction(1, 2) else "unknown", "crown", None, 0.0)

    known = Search().bracket(lambda radius: ItemResult("verified" if radius <= 0.1 else "unknown", "crown", None, 0.0))
    found = Search().bracket(within, known)
    assert found.verified <= 0.5 <= found.verified * 1.1
    assert asked[0] == 2 * Fraction(str(known.verified))
    assert min(asked) > known.verified
    never = Search().bracket(lambda radius: ItemResult("falsified", "attack", None, 0.0), known)
    assert (never.verified, never.item) == (known.verified, known.item)
    assert never.falsified is not None
    assert never.falsified <= known.verified * 1.1
    whole = Search(largest=Fraction(1, 20)).bracket(within)
    count = len(asked)
    assert Search(largest=Fraction(1, 20)).bracket(within, whole).whole
    assert len(asked) == count


def test_the_restricted_network_is_read_by_the_kernel() -> None:
    found = stated(
        {"format": FORMAT, "kind": KIND, "pattern": patterns()[0], "lower": "0", "upper": "1"}, MODEL, no_files
    )
    assert load_model(found.model).network is not None
    (item,) = certify(load_model(found.model), [found.specification], QUICK)
    assert item.verdict in ("falsified", "unknown")


@pytest.fixture
def provenn(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Command:
    monkeypatch.chdir(tmp_path)
    Path("model.onnx").write_bytes(MODEL)
    np.savez("data.npz", x=INPUTS, y=LABELS)
    np.save("x.npy", np.array([0.8, 0.2], np.float32))
    return Command(capsys)


def test_the_commands(provenn: Command) -> None:
    mined = provenn("nap", "mine", "model.onnx", "data.npz", "--out", "patterns", "--json").json
    assert [(p["class"], p["active"], p["inactive"], p["free"]) for p in mined["patterns"]] == [
        (0, 2, 1, 0),
        (1, 2, 1, 0),
    ]
    first, second = (p["file"] for p in mined["patterns"])
    covered = provenn(
        "nap", "coverage", "model.onnx", "data.npz", "--pattern", first, "--pattern", second, "--json"
    ).json
    assert [p["recall"] for p in covered["patterns"]] == [1, 1]
    asked = (
        "nap",
        "verify",
        "model.onnx",
        "--pattern",
        first,
        "--box",
        "0.1",
        "1",
        "--margin",
        "0.05",
        "--out",
        "proof",
    )
    found = provenn(*asked, "--json").json
    assert (found["verdict"], found["assurance"], found["inhabited"]) == ("verified", "checked", True)
    ran = provenn("check", "proof/certificate.zip", "--model", "model.onnx", "--spec", "proof/question.json")
    assert ran.code == 0, ran.err
    apart = provenn(
        "nap", "exclude", "model.onnx", "--pattern", first, "--pattern", second, "--box", "0", "1", "--json"
    ).json
    assert apart["verdict"] == "verified"
    ends = provenn(
        "nap", "radius", "model.onnx", "--pattern", first, "--at", "x.npy", "--clip", "0", "1", "--json"
    ).json
    assert ends["with"]["verified"] > 0
    assert provenn("nap", "verify", "model.onnx", "--pattern", first, "--at", "x.npy", "--eps", "0.1").code in (0, 11)
    assert provenn("nap", "verify", "model.onnx", "--pattern", first).code == 2
    assert provenn("nap", "exclude", "model.onnx", "--pattern", first, "--box", "0", "1").code == 2


def test_people_are_told_no_more_than_is_proved() -> None:
    proved = Bracket(0.123456789123, 0.123456789123, None)
    found = Radii(proved, replace(proved, verified=0.2999999999), follows=True, inhabited=True, seconds=1.0)
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(_radii_view(found))
    text = console.export_text()
    assert "0.12345678 " in text
    assert "0.12345679 " in text
    assert "0.29999999 " in text

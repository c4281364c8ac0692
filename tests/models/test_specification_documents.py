"""Specification documents: what they say exactly, what is refused and how, and that their schemas say the same."""

from __future__ import annotations

import hashlib
import json
from decimal import Decimal
from fractions import Fraction
from typing import Any

import jsonschema
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from specification_kit import FORMAT, INPUT, classifier, perturbation, text

from provenn.models.executor import OnnxExecutor
from provenn.models.parametrization import Parametrized
from provenn.models.specification import KINDS, plain, schemas
from provenn.models.specification.documents import document_of, is_document, kinds, resolve
from provenn.models.specification.monotone import Monotone
from provenn.models.specification.stated import Stated
from provenn.verifier.errors import InvalidSpecification, ProvennError, ResourceLimit
from provenn.verifier.spec_json import parse_json

GIVEN = classifier()
BRIGHT = {"type": "brightness", "range": [-0.1, 0.1]}
PATCH = {"type": "patch", "top": 1, "left": 2, "height": 2, "width": 1, "range": [0, 1]}
BALL = {"format": FORMAT, "kind": "ball", "input": INPUT, "label": 0, "epsilon": "8/255"}
RISING = {"format": FORMAT, "kind": "monotone", "features": [1, "4-6"], "expect": "increasing"}
AROUND = {"region": {"input": INPUT, "epsilon": 0.05}}
ROBUST = {"format": FORMAT, "kind": "robustness", "input": [0, 1], "label": 0, "outputs": 2, "epsilon": 1, "norm": "2"}
BOX = {"format": FORMAT, "kind": "box", "lower": [0, 0], "upper": [1, 1], "unsafe": [{"C": [[1, 0]], "d": [1]}]}
CASES = {"format": FORMAT, "kind": "cases", "cases": [{k: BOX[k] for k in ("lower", "upper", "unsafe")}]}
MINE = ("ball", "monotone", "perturbation", "vnnlib", *plain.KINDS)


def stated(document: dict[str, Any], **files: bytes) -> Stated:
    found = resolve(text(document), GIVEN, lambda name: files[name])
    assert isinstance(found, Stated)
    return found


def ends(document: dict[str, Any]) -> list[tuple[Fraction, Fraction]]:
    (case,) = stated(document).specification.cases
    return list(zip(case.inputs.exact_lower, case.inputs.exact_upper, strict=True))


def test_parameters_are_exactly_those_that_are_written() -> None:
    contrast = {"type": "contrast", "range": ["4/5", 1.2], "about": 0.5}
    linear = {"type": "linear", "range": [0, "1/3"], "directions": [[1] * 16, [0, 1] * 8]}
    whole = perturbation(BRIGHT, contrast, linear, {**PATCH, "uniform": True}, PATCH | {"left": 3})
    tenth, fifth, third = Fraction(1, 10), Fraction(1, 5), Fraction(1, 3)
    own = [(-tenth, tenth), (-fifth, fifth), (Fraction(0), third), (Fraction(0), third)]
    assert ends(whole) == own + [(Fraction(0), Fraction(1))] * 3
    words = stated(whole).words
    assert words.startswith("class 0 wins for every brightness in [-0.1, 0.1] that is added and every factor in [0.8, ")


def test_what_the_map_makes_is_the_perturbed_image() -> None:
    contrast = {"type": "contrast", "range": [0.5, 2], "about": 0.5}
    found = stated(perturbation(BRIGHT, contrast, {**PATCH, "uniform": True}, clip=[0, 1]))
    run = Parametrized.of(found.model, GIVEN)
    assert run is not None
    p = np.array([[0.05, 0.5, 0.7], [0, 0, 0], [-0.1, -0.5, 1]], np.float32)
    x = np.array(INPUT).reshape(4, 4)
    for row, made in zip(p.astype(float), run.image(p), strict=True):
        expected = (x + row[0] + row[1] * (x - 0.5)).clip(0, 1)
        expected[1:3, 2] = row[2]
        np.testing.assert_allclose(made[0], expected, atol=1e-6)


@pytest.mark.parametrize("layout", ["chw", "hwc"])
def test_a_patch_lies_where_the_image_has_it(layout: str) -> None:
    given_ = classifier(("n", 16))
    shape = [2, 4, 2] if layout == "chw" else [4, 2, 2]
    patch = {"type": "patch", "top": 1, "left": 0, "height": 2, "width": 1, "range": [5, 5], "uniform": True}
    found = resolve(text(perturbation(patch, shape=shape, layout=layout)), given_)
    assert isinstance(found, Stated)
    run = Parametrized.of(found.model)
    assert run is not None
    made = run.image(np.array([[5]], np.float32)).reshape(shape)
    covered = made[:, 1:3, :1] if layout == "chw" else made[1:3, :1, :]
    assert (covered == 5).all()
    assert (made == 5).sum() == 4


@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_verified_perturbations_have_no_counterexample(data: st.DataObject) -> None:
    """The images are made here, in numpy; the network is the given one, in onnxruntime."""
    from provenn.api.certification import Options, certify, load_model

    reach = data.draw(st.floats(0.01, 0.6).map(lambda v: round(v, 3)))
    about = data.draw(st.sampled_from([0, 0.5]))
    documents = [{"type": "brightness", "range": [-reach, reach]}]
    documents += [{"type": "contrast", "range": [round(1 - reach, 3), round(1 + reach, 3)], "about": about}]
    found = stated(perturbation(*documents, clip=[0, 1]))
    (result,) = certify(load_model(found.model), [found.specification], Options("crown"))
    if result.verdict != "verified":
        return
    assert result.assurance == "checked"
    x = np.array(INPUT)
    unit = np.random.default_rng(0).uniform(-reach, reach, (200, 2))
    unit[:4] = [[s * reach, t * reach] for s in (-1, 1) for t in (-1, 1)]
    images = np.array([(x + b + c * (x - about)).clip(0, 1) for b, c in unit])
    scores = OnnxExecutor(GIVEN).run(images.astype(np.float32).reshape(-1, 1, 4, 4))
    assert (scores.argmax(1) == 0).all()


def test_toml_and_json_say_the_same() -> None:
    lines = [f'format = "{FORMAT}"', 'kind = "perturbation"', f"input = {INPUT}", "label = 0", "clip = [0, 1.0]"]
    toml = "\n".join(["# comment", *lines, "[[perturbations]]", 'type = "brightness"', "range = [-0.1, 0.1]"]).encode()
    one, other = resolve(toml, GIVEN), stated(perturbation(BRIGHT, clip=[0, 1]))
    assert isinstance(one, Stated)
    assert (one.model, one.specification.text, one.words) == (other.model, other.specification.text, other.words)
    box = [f'format = "{FORMAT}"', 'kind = "box"', "lower = [0.1]", "upper = [0.3]", "[[unsafe]]", "C = [[1]]"]
    found = resolve("\n".join([*box, "d = [1e-3]"]).encode(), GIVEN)
    assert isinstance(found, Stated)
    assert found.specification.cases[0].inputs.exact_upper == (Fraction(3, 10),)
    assert parse_json(found.specification.text).cases[0].clauses == found.specification.cases[0].clauses


def test_a_ball_is_what_kind_robustness_says() -> None:
    found = stated(BALL | {"clip": [0, 1]})
    assert found.model == GIVEN
    assert json.loads(found.specification.text)["kind"] == "robustness"
    assert found.specification.cases[0].inputs.exact_upper[0] == Fraction(1, 10) + Fraction(8, 255)
    limited = BALL | {"unsafe": [{"C": [[1, 0, 0]], "d": [40]}]}
    del limited["label"]
    clauses = stated(limited).specification.cases[0].clauses
    assert [clause.bound for clause in clauses] == [(Fraction(40),)]


def test_vnnlib_by_reference() -> None:
    own = b"(declare-const X_0 Real)(declare-const Y_0 Real)(assert (<= X_0 1))(assert (>= X_0 0))(assert (>= Y_0 3))"
    document = {"format": FORMAT, "kind": "vnnlib"}
    beside = stated(document | {"file": "p", "sha256": hashlib.sha256(own).hexdigest()}, p=own)
    inside = stated(document | {"text": own.decode()})
    assert beside.specification.text == inside.specification.text == own
    with pytest.raises(InvalidSpecification, match=r'"sha256": "file" has'):
        stated(document | {"file": "p", "sha256": "0" * 64}, p=own)
    with pytest.raises(InvalidSpecification, match=r'"text": line 2: '):
        stated(document | {"text": own.decode() + "\n(assert (== Y_0"})


def test_monotone_is_a_question_of_its_own() -> None:
    found = resolve(text(RISING | AROUND), GIVEN)
    assert isinstance(found, Monotone)
    assert (found.features, found.expect, found.rows) == (("1", "4-6"), "increasing", "all")
    domain = {"features": [{"name": "a", "range": [0, 0.1]}]}
    inline = resolve(text(RISING | {"domain": domain, "fixed": {"b": 0.5}}), GIVEN)
    assert isinstance(inline, Monotone)
    assert inline.domain is not None
    assert json.loads(inline.domain, parse_float=Decimal)["features"][0]["range"] == [0, Decimal("0.1")]
    assert inline.fixed == {"b": "0.5"}
    beside = resolve(text(RISING | {"domain": "d.json"}), GIVEN, lambda name: name.encode())
    assert isinstance(beside, Monotone)
    assert beside.domain == b"d.json"
    wide = resolve(
        text(RISING | {"region": AROUND["region"] | {"norm": "2", "clip": [0, 1]}, "rows": "pairs:3"}), GIVEN
    )
    said = {
        found: "all outputs only rise with 1, 4-6, for every input within l-infinity distance 0.05 of the one in the "
        "document (its numbers rounded to float64)",
        wide: "differences of outputs (pairs:3) only rise with 1, 4-6, for every input within l2 distance 0.05 of the "
        "one in the document, its values in [0, 1] (its numbers rounded to float64)",
        inline: "all outputs only rise with 1, 4-6, for every input of the domain in the document, b held at 0.5",
        beside: "all outputs only rise with 1, 4-6, for every input of the domain in d.json",
    }
    for each, words in said.items():
        assert each.words == words


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"format": FORMAT}, '"kind": None is none of activation-pattern, ball'),
    ({"kind": "ball"}, '"format": a document has "format": "provenn-specification/1", not None'),
    ({"format": FORMAT, "kind": "bal"}, "\"kind\": 'bal' is none of"),
    (BALL | {"epsilon": -1}, '"epsilon": it must be greater than or equal to 0, not -1'),
    (BALL | {"epsilon": "a"}, "\"epsilon\": 'a' is not a number"),
    (BALL | {"epsilon": True}, '"epsilon": a number is expected'),
    (BALL | {"norm": 2}, "\"norm\": 2 is not 'inf', '2' or '1'"),
    (BALL | {"labels": 3}, '"labels": this key is not known; did you mean label?'),
    (BALL | {"label": 7}, '"label" is 7'),
    (BALL | {"input": [0.5]}, '"input" has 1 numbers, but the network has 16 inputs'),
    (BALL | {"input": []}, '"input": at least 1 expected here, not 0'),
    (BALL | {"input": [*INPUT[:15], None]}, '"input"[15]: a number is expected'),
    (BALL | {"unsafe": [{"C": [[1]], "d": [1]}]}, 'give either "label" or "unsafe"'),
    ({k: v for k, v in BALL.items() if k != "epsilon"}, '"epsilon": is missing'),
    (perturbation(), '"perturbations": at least 1 expected here, not 0'),
    (
        perturbation({"type": "fog"}),
        "\"perturbations\"[0]: 'fog' is none of 'brightness', 'contrast', 'patch'",
    ),
    (perturbation({"range": [0, 1]}), "\"perturbations\"[0]: 'type' is missing"),
    (perturbation(BRIGHT, {"type": "brightness"}), '"perturbations"[1]."range": is missing'),
    (perturbation(BRIGHT | {"range": [1, 0]}), '"perturbations"[0]."range": its first end must not be above'),
    (perturbation(BRIGHT | {"about": 1}), '"perturbations"[0]."about": this key is not known'),
    (perturbation(PATCH | {"left": 4}), "the patch takes rows 1 to 2, columns 4 to 4, but the image has 4 rows and 4"),
    (perturbation(PATCH, PATCH), '"perturbations"[1]: it overlaps with another patch'),
    (perturbation(PATCH, shape=[3, 4, 4]), '"shape": [3, 4, 4] has 48 entries, but the network has 16 inputs'),
    (
        perturbation({"type": "linear", "range": [0, 1], "directions": [[1]]}),
        '"perturbations"[0]."directions"[0] has 1',
    ),
    (perturbation(BRIGHT, target=0), '"target" and "label" are both 0'),
    (perturbation(BRIGHT, label=None, unsafe=[{"C": [[1, 0]], "d": [1]}]), '"unsafe"[0]."C"[0] has 2 numbers'),
    (RISING, 'give either "domain" or "region"'),
    (RISING | AROUND | {"fixed": {"a": 1}}, '"fixed": holds features of a domain: give "domain"'),
    (RISING | {"region": {"input": INPUT}}, '"region"."epsilon": is missing'),
    ({"format": FORMAT, "kind": "vnnlib"}, 'give either "file" or "text"'),
    ({"format": FORMAT, "kind": "vnnlib", "file": "p"}, "it refers to the file 'p', and there are no others here"),
]


@pytest.mark.parametrize(("document", "said"), REFUSED, ids=[said for _, said in REFUSED])
def test_errors_name_the_key_and_what_was_expected(document: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidSpecification) as caught:
        resolve(text(document), GIVEN)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"kind = 'ball'\nepsilon = = 3", "line 2: neither VNN-LIB"),
        (b"\n\n\xff\xfe", "line 3: a byte is not UTF-8"),
        (b'{"kind": "ball",\n "format" 3}', "line 2: not JSON"),
        (b'{"kind": "ball", "epsilon": NaN}', "'NaN' is not a number"),
        (b'{"kind": "ball", "kind": "ball"}', "given twice"),
        (b"x = " + b"[" * 40 + b"]" * 40, "nesting depth"),
        (b"x = 1\n" * (1 << 18), "the size of a document in TOML"),
    ],
)
def test_other_texts_are_refused(data: bytes, said: str) -> None:
    with pytest.raises((InvalidSpecification, ResourceLimit), match=said):
        resolve(data, GIVEN)


def test_what_the_checker_reads_is_not_read_twice() -> None:
    for plain_document in (ROBUST, BOX, CASES):
        assert not is_document(text(plain_document))
        assert document_of(text(plain_document)) is None
    assert not is_document(b"; a comment\n (declare-const X_0 Real)")
    assert is_document(b'{"k\\u0069nd": "box"}')


VALID: dict[str, list[dict[str, Any]]] = {
    "robustness": [ROBUST, ROBUST | {"clip": [0, 1], "target": 1}, ROBUST | {"clip": None, "epsilon": "1/2"}],
    "box": [
        BOX,
        BOX | {"constraints": {"P": [[1, 1]], "q": ["3/2"]}},
        BOX | {"ball": {"input": [0, 0.5], "epsilon": 1, "norm": "2"}},
        BOX | {"ball": None, "constraints": None},
    ],
    "cases": [CASES],
    "ball": [BALL, BALL | {"norm": "1", "target": 2}],
    "top-k": [{"format": FORMAT, "kind": "top-k", "input": INPUT, "epsilon": 0.1, "k": 2, "norm": "2"}],
    "perturbation": [perturbation(BRIGHT), perturbation(PATCH, BRIGHT, clip=[0, 1], layout="chw", shape=[1, 4, 4])],
    "monotone": [RISING | AROUND, RISING | {"domain": "d.json"}],
    "vnnlib": [{"format": FORMAT, "kind": "vnnlib", "file": "p.vnnlib"}],
}
WRONG: dict[str, list[dict[str, Any]]] = {
    "robustness": [ROBUST | {"norm": 2}, ROBUST | {"label": -1}, ROBUST | {"more": 1}, ROBUST | {"clip": [0]}],
    "box": [
        BOX | {"lower": []},
        BOX | {"unsafe": []},
        BOX | {"unsafe": [{"C": [[1, 0]]}]},
        BOX | {"lower": None},
        BOX | {"ball": {"input": [0, 0.5], "epsilon": 1, "norm": "inf"}},
    ],
    "cases": [CASES | {"cases": []}, CASES | {"cases": [BOX]}],
}


def test_schemas_accept_what_is_read() -> None:
    whole = jsonschema.Draft202012Validator(schemas.schema(schemas.ALL))
    whole.check_schema(whole.schema)
    for kind, documents in VALID.items():
        own = jsonschema.Draft202012Validator(schemas.schema(kind))
        for document in documents:
            assert own.is_valid(document), document
            assert whole.is_valid(document), document
        assert not own.is_valid({**documents[0], "more": 1})


@pytest.mark.parametrize("kind", WRONG)
def test_schemas_refuse_what_the_reader_refuses(kind: str) -> None:
    for document in WRONG[kind]:
        with pytest.raises(ProvennError):
            parse_json(text(document))
        assert not jsonschema.Draft202012Validator(schemas.schema(kind)).is_valid(document)


def test_every_kind_has_a_schema() -> None:
    assert sorted(schemas.documents()) == kinds() == sorted({*KINDS, *plain.KINDS, "monotone"})
    assert set(MINE) <= set(kinds())
    for kind in kinds():
        schema = schemas.schema(kind)
        assert schema["properties"]["kind"]["const"] == kind
        assert schema["additionalProperties"] is False
        assert schema["description"]


def test_words_leave_nothing_out() -> None:
    """What restricts the claim is in the sentence."""
    twice = perturbation(BRIGHT, {"type": "contrast", "range": [1, 1.5]}) | {"clip": [0, 1]}
    assert ", their changes added up, cut to [0, 1]" in stated(twice).words
    fine = {"type": "linear", "range": [0, 1], "directions": [[1 + 2**-25] * 16]}
    assert stated(perturbation(fine)).words.endswith("rounded to float32)")
    ball = {"format": "provenn-specification/1", "kind": "ball", "input": [0.5] * 16, "epsilon": 0.1}
    said = stated(ball | {"label": 0, "target": 1, "clip": [0, 0.5]}).words
    assert said.startswith("class 0 wins over class 1 for")
    assert said.endswith(", its values in [0, 0.5]")

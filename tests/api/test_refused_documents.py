"""Documents, options and functions that make no sense: one error that names the place, and nothing that takes long."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import provenn
from provenn.api.cli.app import main
from provenn.models.closed_loop import exported
from provenn.models.specification.documents import document_of
from provenn.models.specification.fields import validated
from provenn.models.specification.lyapunov import Document as Loop
from provenn.models.specification.perturbation import Document as Perturbed
from provenn.models.specification.top_k import Document as TopK
from provenn.verifier.errors import InvalidSpecification, ResourceLimit
from provenn.verifier.spec_json import FORMAT

BEGIN = f'format = "{FORMAT}"\nkind = "ball"\n'
NESTED = "[" * 100_000


@pytest.mark.parametrize(
    "text",
    [
        ".".join(["a"] * 50_000) + " = 1",
        " . ".join(['"a"'] * 50_000) + " = 1",
        "[" + ".".join(["'a'"] * 50_000) + "]",
        '# 5" wide\nx = ' + NESTED,
        "# it's\nx = " + NESTED,
        'x = ["""a"""", ' + NESTED,
        "x = ['''a'''', " + NESTED,
        'x = ["\\"", ' + NESTED,
    ],
    ids=["keys", "quoted", "header", "comment", "apostrophe", "five-quotes", "five-apostrophes", "escape"],
)
def test_toml_that_nests_deeply_is_refused_before_it_is_read(text: str) -> None:
    start = time.monotonic()
    with pytest.raises(ResourceLimit, match=r"exceeds the limit of 16"):
        document_of((BEGIN + text).encode())
    assert time.monotonic() - start < 2


def test_text_without_an_end_is_looked_at_once() -> None:
    start = time.monotonic()
    with pytest.raises(InvalidSpecification, match="neither VNN-LIB"):
        document_of((BEGIN + '"""a"\\' * 140_000).encode())
    assert time.monotonic() - start < 5


def test_brackets_and_dots_in_comments_and_texts_are_no_depth() -> None:
    said = "# " + "[" * 40 + ".".join("abcdefghijklmnopqrstuvw") + "\n"
    text = (
        "note = '" + "[" * 40 + "'\nmore = '''" + "\n{" * 40 + "'''\nlast = \"a.b.c.d.e.f.g.h.i.j.k.l.m.n.o.p.q.r\"\n"
    )
    found = document_of((BEGIN + said + text).encode())
    assert found is not None
    assert found["note"] == "[" * 40


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (json.dumps({"format": FORMAT, "kind": "ball", "\ud800": 1}), "half of a surrogate pair"),
        ("\ufeff" + json.dumps({"format": FORMAT, "kind": "ball"}), "byte order mark"),
        (BEGIN + "epsilon = " + "9" * 5000, "whole number of more than 4300 digits"),
        (f'{{"format": "{FORMAT}", "kind": "ball", "k": {"9" * 5000}}}', "whole number of more than 4300 digits"),
        (json.dumps({"format": FORMAT, "kind": "topk"}), r"'topk' is none of .*did you mean top-k\?"),
    ],
    ids=["surrogate", "mark", "toml-digits", "json-digits", "kind"],
)
def test_what_is_wrong_is_said(text: str, message: str) -> None:
    with pytest.raises(InvalidSpecification, match=message):
        document_of(text.encode())


PATTERN: dict[str, Any] = {
    "format": "provenn-activation-pattern/1",
    "model": "0" * 64,
    "class": 0,
    "labels": "dataset",
    "delta": "0.9",
    "samples": 3,
    "layers": [{"relu": "hidden", "neurons": 2, "active": [0], "inactive": [1], "counts": [3, 0]}],
}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": "x"}, '"pattern"."model": '),
        ({"extra": 1}, '"pattern"."extra": this key is not known'),
        ({"layers": []}, '"pattern"."layers": at least 1 expected here, not 0'),
        ({"layers": [PATTERN["layers"][0] | {"active": [7]}]}, '"pattern"."layers"[0]: layer \'hidden\': neuron 7'),
        ({"layers": [PATTERN["layers"][0] | {"active": [-1]}]}, '"pattern"."layers"[0]."active"[0]: '),
    ],
)
def test_what_is_wrong_within_a_pattern_is_named(change: dict[str, Any], message: str) -> None:
    from provenn.models.specification.activation_pattern import Document

    asked = {"format": FORMAT, "kind": "activation-pattern", "lower": 0, "upper": 1, "pattern": PATTERN | change}
    with pytest.raises(InvalidSpecification) as caught:
        validated(Document, asked)
    assert str(caught.value).startswith(message)


def test_names_of_keys_stay_on_one_line_and_are_cut() -> None:
    asked = {"format": FORMAT, "kind": "top-k", "input": [0], "k": 1, "epsilon": 0}
    with pytest.raises(InvalidSpecification, match=r'^"a\\nb": this key'):
        validated(TopK, asked | {"a\nb": 1})
    with pytest.raises(InvalidSpecification, match=r'^"x{57}\.\.\.": this key'):
        validated(TopK, asked | {"x" * 9999: 1})


def test_texts_are_no_booleans() -> None:
    asked = {"format": FORMAT, "kind": "top-k", "input": [0], "k": 1, "epsilon": 0, "ordered": "no"}
    with pytest.raises(InvalidSpecification, match=r"^\"ordered\": it must be a valid boolean, not 'no'"):
        validated(TopK, asked)
    patch = {"type": "patch", "top": 0, "left": 0, "height": 1, "width": 1, "range": [0, 1], "uniform": "yes"}
    with pytest.raises(InvalidSpecification, match=r'^"perturbations"\[0]."uniform": it must be a valid boolean'):
        validated(
            Perturbed, {"format": FORMAT, "kind": "perturbation", "input": [0], "label": 0, "perturbations": [patch]}
        )


LOOP: dict[str, Any] = {
    "format": FORMAT,
    "kind": "lyapunov",
    "time": "discrete",
    "dynamics": "plant.onnx",
    "candidate": "candidate.onnx",
    "lower": [-1, -1],
    "upper": [1, 1],
    "small": [0.1, 0.1],
    "decrease": 0.02,
}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"upper": [1]}, '"upper": it must have as many numbers as lower'),
        ({"lower": [1, -1]}, '"lower": every number of it must be below that of upper'),
        ({"small": [1]}, '"small": it must have as many numbers as lower and upper'),
    ],
)
def test_boxes_of_loops(change: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidSpecification, match=f"^{message}$"):
        validated(Loop, LOOP | change)


def test_a_network_under_a_name_that_the_document_does_not_have_is_refused() -> None:
    networks = {"plant.onx": (lambda z: 1.1 * z[:, :2] + z[:, 2:], 4)}
    with pytest.raises(
        InvalidSpecification, match=r"does not name the network 'plant.onx' .* it names 'plant.onnx', 'c"
    ):
        provenn.stability((lambda x: -0.5 * x, 2), LOOP, networks)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("refused")
    (place / "model.onnx").write_bytes(exported(lambda x: torch.relu(x) @ torch.tensor([[1.0, 2, 3], [0, 1, 5]]), 2))
    (place / "controller.onnx").write_bytes(exported(lambda x: -0.5 * x, 2))
    (place / "plant.onnx").write_bytes(exported(lambda z: 1.1 * z[:, :2] + z[:, 2:], 4))
    (place / "candidate.onnx").write_bytes(exported(lambda x: x.abs() @ torch.ones(2, 1), 2))
    (place / "loop.json").write_text(json.dumps(LOOP | {"level": 0.5, "inner": 0.4}))
    np.save(place / "x.npy", np.array([1.0, 0.5]))
    np.save(place / "xs.npy", np.array([[1.0, 0.5], [0.5, 1.0]]))
    return place


def _said(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    code = main(arguments)
    said = capsys.readouterr()
    return code, said.out, said.err


def test_with_top_k_the_labels_are_shown(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ask = ["certify", str(folder / "model.onnx"), "--top-k", "2", "--eps", "0.01", "--input"]
    code, out, _ = _said([*ask, str(folder / "x.npy")], capsys)
    assert code == 0
    assert "The largest outputs are 2, 1, in this order, for all inputs at most 0.01 from the input" in out
    code, out, _ = _said([*ask, str(folder / "xs.npy"), "--json"], capsys)
    assert ["The largest outputs are 2, 1" in each["property"] for each in json.loads(out)["items"]] == [True, True]
    assert "property" not in json.loads(out)


def test_both_a_property_and_an_input(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ask = ["certify", str(folder / "model.onnx"), "--spec", "p.vnnlib", "--input", str(folder / "x.npy")]
    assert _said(ask, capsys)[2] == "error: Invalid value for --spec: give either --spec or --input, not both\n"


def test_a_limit_that_was_not_seen_is_not_shown(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = _said(["stability", str(folder / "controller.onnx"), "--spec", str(folder / "loop.json")], capsys)
    assert code == 0
    assert "V <= 0.5" in out
    assert "reach inf" not in out

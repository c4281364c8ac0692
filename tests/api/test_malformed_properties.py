"""Two hundred texts that are nearly VNN-LIB: whatever is wrong, both commands' readers name the file and the line."""

from __future__ import annotations

import random
import re
from pathlib import Path

import pytest
from cli_kit import PLAIN, PROPERTY

from provenn.api.certification import LoadedModel, load_model
from provenn.api.cli.questions import Questions, from_stated
from provenn.api.files import InvalidFile
from provenn.api.specifications import read_property
from provenn.models.specification.stated import Stated
from provenn.verifier.errors import EmptyRegion, ProvennError, in_file
from provenn.verifier.query.meaning import layout, meaning
from provenn.verifier.query.reading import read_query

NESTED = "(assert (or (and (<= X_0 (+ 1 (* 2 X_1))) (<= Y_0 (- Y_1 0.5)))\n (< (+ Y_0 1e-3) Y_1)))\n"
NETWORKS = """(vnnlib-version <2.0>) ; two networks
(declare-network N
    (declare-input X float32 [1,2]) (declare-hidden H float32 [1,2] "h")
    (declare-output Y float32 [1,2]))
(declare-network M (equal-to N) (declare-input U float32 [1,2]) (declare-hidden I float32 [1,2] "h")
    (declare-output V float32 [1,2]))
(assert (and (>= X[0,0] -1.0) (<= X[0,0] 1.0) (>= X[0,1] -1.0) (<= X[0,1] 1.0) (== X[0,0] U[0,0])))
(assert (or (> (* Y[0,0] V[0,1]) (+ H[0,1] 0.5)) (!= Y[0,1] X[0,0])))
"""
ONE = """(vnnlib-version <2.0>)
(declare-network N (declare-input X float32 [1,2])
    (declare-output Y float32 [1,2]))
(assert (and (>= X[0,0] -1.0) (<= X[0,0] 1.0) (== X[0,1] 0.25)))
(assert (or (>= Y[0,0] (+ Y[0,1] (* 2.0 Y[0,0]))) (and (<= (+ X[0,0] X[0,1]) 1.0) (== Y[0,1] 0.5))))
"""
TEXTS = [PROPERTY, PROPERTY + NESTED, NETWORKS, ONE]
TOKEN = re.compile(r"[()]|\[[^\]]*\]|\"[^\"]*\"|[^\s()]+|\s+")
STRANGE = re.findall(
    r"\S+",
    """nan inf -inf 1e999 -1e-999 1e308 1/3 0x1p3 1.2.3 -- . X_0 X_7 X_99999999 Y_0 Z_0 X[0,9] X[0] U[0,0] [-1] [] [0,0]
    [99999999,99999999] ( ) (( )) () [ ] < = == != not and or / * Int bool float16 declare-const assert ; " \\ \0 é""",
)
STRANGE += ["9" * 30, "9" * 500, f"{'9' * 30}.0", "(declare-const X_0 Real)", "(declare-const X_5 Real)", "(check-sat)"]
NOWHERE = re.compile(r"(the (query|specification) is empty|[XY]_0 is not declared|the range of inputs exceeds .*)$")
"""What is missing from a text has no line in it."""


def from_file(path: Path, model: LoadedModel) -> Questions:
    """As `provenn certify --spec` reads it."""
    stated = read_property(path, PLAIN)
    assert isinstance(stated, Stated)
    return from_stated(path, stated, model)


def damaged(text: str, generator: random.Random) -> str:
    """A few tokens deleted, doubled, swapped, turned around or replaced."""
    tokens = TOKEN.findall(text)
    for _ in range(generator.choice([1, 1, 2, 4])):
        i, j = generator.randrange(len(tokens)), generator.randrange(len(tokens))
        match generator.randrange(7):
            case 0:
                tokens[i] = ""
            case 1:
                tokens[i] = {"(": ")", ")": "("}.get(tokens[i], tokens[i][::-1])
            case 2:
                tokens[i], tokens[j] = tokens[j], tokens[i]
            case 3:
                tokens[i] += tokens[i]
            case 4:
                tokens = tokens[: i + 1]
                return "".join(tokens)
            case _:
                tokens[i] = generator.choice(STRANGE)
    return "".join(tokens)


def located(error: ProvennError, path: Path) -> None:
    assert str(error).startswith(f"{path}: "), error
    rest = str(error)[len(f"{path}: ") :]
    known = re.match(r"line [0-9]+: .", rest) or NOWHERE.match(rest) or isinstance(error, InvalidFile | EmptyRegion)
    assert known, error


@pytest.mark.parametrize("seed", range(4))
def test_malformed_texts_are_refused_naming_file_and_line(seed: int, tmp_path: Path) -> None:
    generator, path, model = random.Random(seed), tmp_path / "p.vnnlib", load_model(PLAIN)
    refused = 0
    for _ in range(50):
        text = damaged(generator.choice(TEXTS), generator).encode()
        path.write_bytes(text)
        try:
            (found,) = from_file(path, model).specifications
            assert found.cases or found.warnings
        except ProvennError as error:
            refused += 1
            located(error, path)
        try:
            query = read_query(text)
            meaning(query, layout(query))
        except ProvennError as error:
            located(in_file(path, error), path)
    assert refused > 25


def test_the_texts_themselves_are_read(tmp_path: Path) -> None:
    path, model = tmp_path / "p.vnnlib", load_model(PLAIN)
    for text in TEXTS:
        query = read_query(text.encode())
        meaning(query, layout(query))
    path.write_text(PROPERTY + NESTED)
    (found,) = from_file(path, model).specifications
    assert (len(found.cases), found.warnings) == (2, ())

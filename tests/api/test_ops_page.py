"""docs/ops.md says what the table of ops says."""

from __future__ import annotations

from pathlib import Path

import pytest

from provenn.api.cli.listings import operators
from provenn.api.cli.ops_page import page
from provenn.verifier.ops.base import Op
from provenn.verifier.ops.table import AFFINE, KINDS, OPS

DOCUMENT = Path(__file__).parents[2] / "docs" / "ops.md"


def test_the_document_is_what_the_table_generates() -> None:
    fresh = DOCUMENT.is_file() and DOCUMENT.read_text() == page()
    assert fresh, "docs/ops.md is out of date; run: python -m provenn.api.cli.ops_page > docs/ops.md"


def test_every_op_is_of_one_kind() -> None:
    listed = [op for ops in KINDS.values() for op in ops]
    assert listed == list(OPS) and len(set(listed)) == len(listed)


@pytest.mark.parametrize("op", OPS, ids=lambda op: op.__name__)
def test_the_affine_kind_is_that_of_affine_ops(op: type[Op]) -> None:
    assert op.affine == (op in AFFINE)


def test_what_is_listed_of_known_ops() -> None:
    rows = {row["op"]: row for row in operators()}
    assert rows["Relu"]["free_parameters"] and rows["Relu"]["derivative"] and rows["Relu"]["checked"] == ["Relu"]
    assert not rows["Linear"]["free_parameters"] and rows["Linear"]["checked"] == ["Gemm", "MatMul"]
    assert not rows["Pick"]["checked"] and rows["Pick"]["kind"] == "affine"

"""Certificates by bounds of Jacobians: norms, statements; every corruption is rejected."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from check_kit import Random, resealed
from lipschitz_kit import box, by_jacobians, statement, unit_rows

from provenn.verifier.check import CertificateRejected, check, read_network

Array = np.ndarray
NETWORK = read_network(Random(3, [4, 6, 6, 3], ["residual", "relu"]).file())
BUNDLE, UPPERS = by_jacobians(NETWORK, np.full(4, -0.5), np.full(4, 0.5))
ROWS = len(UPPERS)


def jacobian(content: dict[str, Any]) -> list[dict[str, Any]]:
    return [claim for claim in content["claims"] if claim["kind"] == "lipschitz-jacobian"]


def test_output_norms_are_covered_by_rows() -> None:
    ends = np.full(4, -0.5), np.full(4, 0.5)
    assert check(by_jacobians(NETWORK, *ends, outward="inf")[0], NETWORK).uppers == (UPPERS.max(),)
    total = check(by_jacobians(NETWORK, *ends, outward="1")[0], NETWORK).uppers[0]
    assert total == pytest.approx(UPPERS.sum(), rel=1e-12)
    assert Fraction(total) >= sum(map(Fraction, UPPERS))


def moved(name: str) -> Callable[[dict[str, Any]], None]:
    """Changes of the first claim."""

    def change(content: dict[str, Any]) -> None:
        first, *_ = jacobian(content)
        match name:
            case "smaller":
                first["upper"] = (UPPERS[0] * (1 - 1e-6)).hex()
            case "negative":
                first["upper"] = "-0x1.0p+0"
            case "another row":
                low, high = np.argsort(UPPERS)[[0, -1]]
                claims = jacobian(content)
                claims[low]["rows"], claims[high]["rows"] = claims[high]["rows"], claims[low]["rows"]
            case "no rows":
                first["rows"] = []
            case "a row twice":
                first["rows"] = [0, 0]
            case "no such row":
                first["rows"] = [ROWS]
            case "unused":
                first["uses"] = first["uses"][:-1]
            case "intervals":
                first["method"] = "interval"
            case "another method":
                first["method"] = "guess"
            case "multipliers":
                first["multipliers"] = {}
            case "a chunk that is not there":
                first["chunks"] = [["tree", "0" * 64]]
            case "missing":
                content["claims"] = [claim | {"id": i} for i, claim in enumerate(content["claims"][:-1])]

    return change


REASONS = {
    "smaller": "is not proved",
    "negative": "its number is < 0",
    "another row": "is not proved",
    "no rows": "rows that are not there",
    "a row twice": "twice there",
    "no such row": "rows that are not there",
    "unused": "must use exactly",
    "intervals": "is not proved",
    "another method": "is not understood",
    "multipliers": "keys unknown",
    "a chunk that is not there": "it holds other files",
    "missing": "a row has no claim",
}


@pytest.mark.parametrize("name", REASONS)
def test_a_changed_claim_is_rejected(name: str) -> None:
    assert np.array_equal(check(BUNDLE, NETWORK).uppers, UPPERS)
    with pytest.raises(CertificateRejected, match=REASONS[name]):
        check(resealed(BUNDLE, moved(name)), NETWORK)


def stated(**changes: Any) -> bytes:
    region = box(np.full(4, -0.5), np.full(4, 0.5))
    given = {"inward": "inf", "outward": "each", "region": region, "upper": 9.0} | changes
    numbers = [given.pop("upper")] * (ROWS if given["outward"] == "each" else 1)
    content = statement(unit_rows(ROWS), numbers, **given)
    return json.dumps({k: v for k, v in content.items() if v is not None}).encode()


WRONG = {
    "larger region": (stated(region=box(np.full(4, -2), np.full(4, 2))), "too tight"),
    "smaller scale": (stated(scale=[1, "1/2", 1, 1]), "is not proved"),
    "a sum that is too small": (stated(outward="1", upper=float(UPPERS.max())), "above what is stated"),
    "squares that are too small": (stated(outward="2", upper=float(UPPERS.max())), "above what is stated"),
    "no region": (stated(region=None), "its own kind"),
    "unknown norm": (stated(inward="3"), "out of range"),
}


def restated(files: dict[str, bytes], text: bytes, claims: Callable[[list[Any]], list[Any]] = list) -> dict[str, bytes]:
    """The certificate with another specification, and perhaps other claims."""

    def change(content: dict[str, Any]) -> None:
        content["specification"]["sha256_file"] = hashlib.sha256(text).hexdigest()
        content["claims"] = claims(content["claims"])

    return resealed({**files, "specification.json": text}, change)


@pytest.mark.parametrize("name", WRONG)
def test_another_statement_is_rejected(name: str) -> None:
    assert check(restated(BUNDLE, stated()), NETWORK).uppers == (9,) * ROWS
    text, reason = WRONG[name]
    with pytest.raises(CertificateRejected, match=reason):
        check(restated(BUNDLE, text), NETWORK)

"""Certificates by bounds of Jacobians: norms, statements; every corruption is rejected."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from check_kit import Random, repacked, resealed
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
        first, second, *_ = jacobian(content)
        step, other, *_ = first["lowers"]
        match name:
            case "smaller":
                first["upper"] = float(np.nextafter(UPPERS[0], 0)).hex()
            case "negative":
                first["upper"] = "-0x1.0p+0"
            case "another row":
                first["rows"], second["rows"] = second["rows"], first["rows"]
            case "two rows":
                first["rows"] = [0, 1]
            case "no rows":
                first["rows"] = []
            case "no such row":
                first["rows"] = [ROWS]
            case "boxes of another step":
                for side in (first["lowers"], first["uppers"]):
                    side[step], side[other] = side[other], side[step]
            case "a step that is not there":
                for side in (first["lowers"], first["uppers"]):
                    side["w"] = side.pop(step)
            case "one side is missing":
                first["uppers"]["w"] = first["uppers"].pop(step)
            case "boxes of another row":
                for key in ("lowers", "uppers"):
                    first[key], second[key] = second[key], first[key]
            case "swapped sides":
                first["lowers"], first["uppers"] = first["uppers"], first["lowers"]
            case "unused":
                first["uses"] = first["uses"][:-1]
            case "multipliers":
                first["multipliers"] = {}
            case "boxes by number":
                first["lowers"][step] = 0

    return change


REASONS = {
    "smaller": "is not proved",
    "negative": "its number is < 0",
    "another row": "too tight|not proved",
    "two rows": "one row",
    "no rows": "rows that are not there",
    "no such row": "rows that are not there",
    "boxes of another step": "too tight|not float32|lies above",
    "a step that is not there": "are not those of",
    "one side is missing": "are not those of",
    "boxes of another row": "too tight",
    "swapped sides": "lies above",
    "unused": "must use exactly",
    "multipliers": "keys unknown",
    "boxes by number": "must name steps",
}


@pytest.mark.parametrize("name", REASONS)
def test_a_changed_claim_is_rejected(name: str) -> None:
    assert np.array_equal(check(BUNDLE, NETWORK).uppers, UPPERS)
    with pytest.raises(CertificateRejected, match=REASONS[name]):
        check(resealed(BUNDLE, moved(name)), NETWORK)


def test_a_missing_box_is_rejected() -> None:
    dropped: list[str] = []

    def change(content: dict[str, Any]) -> None:
        for key in ("lowers", "uppers"):
            side = jacobian(content)[0][key]
            dropped.append(side.pop(next(iter(side))))

    def without(tensors: dict[str, Array]) -> None:
        for name in dropped:
            del tensors[name]

    files = resealed(BUNDLE, change)
    with pytest.raises(CertificateRejected, match="payload"):
        check(files, NETWORK)
    with pytest.raises(CertificateRejected, match="are not those of"):
        check(repacked(files, without), NETWORK)


def test_a_narrower_box_is_rejected() -> None:
    content = json.loads(BUNDLE["manifest.json"])
    for key, sign in (("lowers", 1), ("uppers", -1)):
        for claim in jacobian(content):
            for name in claim[key].values():

                def narrowed(tensors: dict[str, Array], name: str = name, sign: int = sign) -> None:
                    size = np.abs(tensors[name]) + np.float32(1e-3)
                    tensors[name] = tensors[name] + np.float32(sign * 1e-3) * size

                with pytest.raises(CertificateRejected, match=r"too tight|lies above"):
                    check(repacked(BUNDLE, narrowed), NETWORK)

    def double(tensors: dict[str, Array]) -> None:
        tensors[name] = tensors[name].astype(np.float64)

    with pytest.raises(CertificateRejected, match="not float32"):
        check(repacked(BUNDLE, double), NETWORK)


def stated(**changes: Any) -> bytes:
    region = box(np.full(4, -0.5), np.full(4, 0.5))
    given = {"inward": "inf", "outward": "each", "region": region} | changes
    content = statement(unit_rows(ROWS), [9.0] * (1 if given["outward"] == "2" else ROWS), **given)
    return json.dumps({k: v for k, v in content.items() if v is not None}).encode()


WRONG = {
    "another norm": (stated(inward="2"), "in the l-infinity norm"),
    "no region": (stated(region=None), "its own kind"),
    "larger region": (stated(region=box(np.full(4, -2), np.full(4, 2))), "too tight"),
    "all rows together": (stated(outward="2"), "no claim about all rows together"),
    "smaller scale": (stated(scale=[1, "1/2", 1, 1]), "is not proved"),
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


def test_without_a_region_nothing_is_claimed() -> None:
    """Also not by a bundle without interval claims."""

    def alone(claims: list[Any]) -> list[Any]:
        own = [claim for claim in claims if claim["kind"] == "lipschitz-jacobian"]
        return [claim | {"id": i, "uses": []} for i, claim in enumerate(own)]

    def fewer(tensors: dict[str, Array]) -> None:
        for name in [name for name in tensors if name.startswith("c0")]:
            del tensors[name]

    with pytest.raises(CertificateRejected, match="over a region"):
        check(restated(repacked(BUNDLE, fewer), stated(region=None), alone), NETWORK)

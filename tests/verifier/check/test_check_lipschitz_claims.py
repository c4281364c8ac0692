"""Certificates of Lipschitz claims: norms, scales, regions; every corruption is rejected."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from check_kit import Random, box_specification, certificate, forward, repacked, resealed
from lipschitz_kit import Program, bundle, least, statement, unit_rows, vectors

from provenn.verifier.certificate.emit import emit, loosened
from provenn.verifier.check import CertificateRejected, check, read_network
from provenn.verifier.check.__main__ import main
from provenn.verifier.check.lipschitz import Units
from provenn.verifier.check.rows import Bounds, Box
from provenn.verifier.check.specification import read_lipschitz

Array = np.ndarray
RANDOM = Random(1, [3, 5, 4, 2], ["relu", "leaky"])
DATA = RANDOM.file()
NETWORK = read_network(DATA)
UNITS, ROWS = Units(NETWORK), unit_rows(2)


def solved(rows: Any, units: Units = UNITS, shape: Array | None = None) -> tuple[dict[str, Array], float]:
    program = Program(units, rows, shape)
    t, rho = program.solve()
    return program.multipliers(t), float(np.sqrt(rho))


TOGETHER, UPPER = solved(ROWS)
UPPER *= 1 + 1e-9
ALONE = [solved([row]) for row in ROWS]


def row_claims(slack: float = 1 + 1e-9) -> list[dict[str, Any]]:
    return [{"rows": [i], "upper": u * slack, "multipliers": t} for i, (t, u) in enumerate(ALONE)]


def accepted(content: Mapping[str, Any], claims: Any, network: Any = NETWORK) -> tuple[float, ...]:
    return check(bundle(network, content, claims), network).uppers


def refused(content: Mapping[str, Any], claims: Any, reason: str) -> None:
    with pytest.raises(CertificateRejected, match=reason):
        check(bundle(NETWORK, content, claims), NETWORK)


JOINT = {"rows": [0, 1], "upper": UPPER, "multipliers": TOGETHER}
FILES = bundle(NETWORK, statement(ROWS, [UPPER.hex()]), [JOINT])
SINGLE = [u * (1 + 1e-9) for _, u in ALONE]


def test_output_norms_are_covered_by_their_claims() -> None:
    assert accepted(statement(ROWS, [UPPER.hex()]), [JOINT]) == (UPPER,)
    assert accepted(statement(ROWS, [max(SINGLE).hex()], outward="inf"), row_claims()) == (max(SINGLE),)
    assert accepted(statement(ROWS, [UPPER.hex()], outward="inf"), [JOINT]) == (UPPER,)
    assert accepted(statement(ROWS, [u.hex() for u in SINGLE], outward="each"), row_claims()) == tuple(SINGLE)
    total = np.nextafter(sum(SINGLE), np.inf)
    assert accepted(statement(ROWS, [total.hex()], outward="1"), row_claims()) == (total,)
    assert accepted(statement([[1, -1]], [100], outward="1"), [{**JOINT, "rows": [0], "upper": 2 * UPPER}]) == (100.0,)


def test_statements_that_the_claims_do_not_cover_are_rejected() -> None:
    less = [np.nextafter(u, 0).hex() for u in (UPPER, max(SINGLE), sum(SINGLE) * (1 - 1e-12))]
    refused(statement(ROWS, less[:1]), [JOINT], "neither all rows together nor each")
    refused(statement(ROWS, less[1:2], outward="inf"), row_claims(), "above what is stated")
    refused(statement(ROWS, less[2:], outward="1"), row_claims(), "above what is stated")
    refused(statement(ROWS, [UPPER.hex(), less[1]], outward="each"), row_claims()[::-1], "above what is stated")
    squares = sum(upper**2 for upper in SINGLE) ** 0.5
    accepted(statement(ROWS, [(squares * (1 + 1e-12)).hex()]), row_claims())
    refused(statement(ROWS, [(squares * (1 - 1e-12)).hex()]), row_claims(), "above what is stated")
    refused(statement(ROWS, [100], outward="1"), [JOINT], "nor each has a claim")
    refused(statement(ROWS, [100], outward="inf"), row_claims()[:1], "a row has no claim")
    refused(statement(ROWS, [100, 100], outward="each"), row_claims()[1:], "a row has no claim")
    refused(statement(ROWS, [100]), [], "neither all rows together nor each")


def test_scales_weigh_the_inputs() -> None:
    scale = [Fraction(1, 2), Fraction(3), Fraction(1, 7)]
    multipliers, upper = solved(ROWS, shape=np.array([float(s) ** 2 for s in scale]))
    stated = statement(ROWS, [(upper * (1 + 1e-8)).hex()], scale=[str(s) for s in scale])
    claim = {"rows": [0, 1], "upper": upper * (1 + 1e-8), "multipliers": multipliers}
    (found,) = accepted(stated, [claim])
    for x, y in np.random.default_rng(0).normal(size=(100, 2, 3)):
        moved = np.linalg.norm(forward(NETWORK, x) - forward(NETWORK, y))
        assert moved <= found * np.linalg.norm([float(s) for s in scale] * (x - y))
    smaller = {**stated, "input": {"norm": "2", "scale": ["0.4", "3", "1/7"]}}
    refused(smaller, [claim], "is not proved")


def maximum_metric(row: Any) -> tuple[dict[str, Array], Array, float]:
    """Multipliers, D and upper = sqrt(sum D) for one row and the l-infinity norm: D of one shape."""
    shape = np.array([1.0, 2.0, 0.5])
    program = Program(UNITS, [row], shape)
    t, rho = program.solve()
    metric = rho * shape * (1 + 1e-9)
    return program.multipliers(t), metric, float(np.sqrt(metric.sum()) * (1 + 1e-12))


def test_the_largest_input_counts_with_a_metric() -> None:
    multipliers, metric, upper = maximum_metric([1, 0])
    claim = {"rows": [0], "upper": upper, "multipliers": multipliers, "metric": metric}
    stated = statement([[1, 0]], [upper.hex()], inward="inf", outward="inf")
    (found,) = accepted(stated, [claim])
    for x, y in np.random.default_rng(0).normal(size=(100, 2, 3)):
        assert abs(forward(NETWORK, x)[0] - forward(NETWORK, y)[0]) <= found * np.abs(x - y).max()
    refused(stated, [{**claim, "upper": upper * (1 - 1e-9)}], "metric is larger")
    refused(stated, [{**claim, "metric": metric[:2]}], "not 3 numbers")
    refused(stated, [{**claim, "metric": -metric}], "not 3 numbers")
    refused(stated, [{**claim, "metric": metric * 1e307}], "not 3 numbers")
    refused(stated, [{**claim, "metric": metric / 2}], "is not proved")
    refused(stated, [{k: v for k, v in claim.items() if k != "metric"}], "a metric is for")
    refused(statement([[1, 0]], [upper.hex()]), [claim], "a metric is for")
    scaled = statement([[1, 0]], [upper.hex()], inward="inf", outward="inf", scale=[1, 1, "0.9"])
    refused(scaled, [claim], "metric is larger")


REGIONS: dict[str, dict[str, Any]] = {
    "box": {"lower": ["-0.1", "0.2", "0"], "upper": ["0.1", "0.4", "0.3"]},
    "around": {"input": ["0", "0.3", "0.1"], "epsilon": "0.15", "norm": "inf"},
    "clipped": {"input": ["0", "0.3", "0.1"], "epsilon": "0.2", "norm": "inf", "clip": ["0", "1"]},
    "ball": {"input": ["0", "0.3", "0.1"], "epsilon": "0.2", "norm": "2"},
    "both": {"lower": [-1, 0, 0], "upper": [1, 1, 1], "input": ["0", "0.3", "0.1"], "epsilon": "0.2", "norm": "1"},
}


@pytest.mark.parametrize("name", REGIONS)
@pytest.mark.parametrize("kinds", [["relu", "tanh"], ["pool", "relu"], ["sigmoid", "clip"]])
def test_constants_over_regions_are_smaller_and_hold_there(name: str, kinds: list[str]) -> None:
    network = read_network(Random(2, [3, 6, 5, 2], kinds).file())
    text = json.dumps(statement(ROWS, [1], region=REGIONS[name])).encode()
    region = read_lipschitz(text, 3, 2).region
    assert region is not None
    bounds = Bounds(network, *region.region())
    with np.errstate(all="ignore"):
        for index in network.bounded.values():
            low, high = loosened(bounds.box(index))
            bounds.accept(index, Box(low.astype(np.float64), high.astype(np.float64)))
        units = Units(network, bounds)
    everywhere = Units(network)
    assert units.increments.end <= everywhere.increments.end
    (multipliers, upper), (_, globally) = solved(ROWS, units), solved(ROWS, everywhere)
    upper *= 1 + 1e-8
    assert upper <= globally * (1 + 1e-6)
    claim = {"rows": [0, 1], "upper": upper, "multipliers": multipliers}
    assert accepted(statement(ROWS, [upper.hex()], region=REGIONS[name]), [claim], network) == (upper,)
    low, high = region.region()[0]
    generator = np.random.default_rng(0)
    for x, y in generator.uniform(low, high, size=(200, 2, 3)):
        if name in ("ball", "both"):
            x, y = (np.array([0, 0.3, 0.1]) + 0.5 * (v - [0, 0.3, 0.1]) for v in (x, y))
        assert np.linalg.norm(forward(network, x) - forward(network, y)) <= upper * np.linalg.norm(x - y) * (1 + 1e-12)
    if upper < 0.98 * globally:
        with pytest.raises(CertificateRejected, match=r"is not proved|multipliers"):
            check(bundle(network, statement(ROWS, [upper.hex()]), [claim]), network)


def test_a_stable_neuron_needs_no_multiplier() -> None:
    region = {"lower": [0.1, 0.1, 0.1], "upper": ["0.1001"] * 3}
    files = bundle(NETWORK, statement(ROWS, [100], region=region), [{**JOINT, "multipliers": {}}])
    assert check(files, NETWORK).uppers == (100.0,)
    unknown = {**JOINT, "multipliers": {"z0": np.ones(5)}}
    refused(statement(ROWS, [100], region=region), [unknown], "not those of the network")


def claim(change: Callable[[dict[str, Any]], object]) -> Callable[[dict[str, Any]], None]:
    return lambda content: (change(content["claims"][0]), None)[1]


MANIFESTS: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "lower upper": (claim(lambda c: c.update(upper="0x1p-9")), "is not proved"),
    "zero": (claim(lambda c: c.update(upper="0")), "is not proved"),
    "negative": (claim(lambda c: c.update(upper="-5")), "its number is < 0"),
    "no number": (claim(lambda c: c.update(upper="nan")), "is not a number"),
    "infinite": (claim(lambda c: c.update(upper="inf")), "is not a number"),
    "huge": (claim(lambda c: c.update(upper="1e999")), "is not proved"),
    "missing row": (claim(lambda c: c.update(rows=[0])), "neither all rows together nor each"),
    "no rows": (claim(lambda c: c.update(rows=[])), "rows that are not there"),
    "row twice": (claim(lambda c: c.update(rows=[0, 0])), "twice"),
    "unknown row": (claim(lambda c: c.update(rows=[0, 2])), "rows that are not there"),
    "negative row": (claim(lambda c: c.update(rows=[0, -1])), "rows that are not there"),
    "row of text": (claim(lambda c: c.update(rows=["0", "1"])), "rows that are not there"),
    "true row": (claim(lambda c: c.update(rows=[False, True])), "rows that are not there"),
    "missing step": (claim(lambda c: c["multipliers"].pop("a0")), "its entries are not those"),
    "unknown step": (
        claim(lambda c: c["multipliers"].update(b=c["multipliers"].pop("a0"))),
        "not those of the network",
    ),
    "swapped steps": (
        claim(lambda c: c.update(multipliers={"a0": "t0.a1", "a1": "t0.a0"})),
        "not 5 multipliers|not 4 multipliers",
    ),
    "no entry": (claim(lambda c: c["multipliers"].update(a0=7)), "must name"),
    "extra key": (claim(lambda c: c.update(method="crown")), "keys unknown"),
    "no upper": (claim(lambda c: c.pop("upper")), "keys unknown"),
    "other case": (claim(lambda c: c.update(case=1)), "one case"),
    "uses": (claim(lambda c: c.update(uses=[0])), "its own kind"),
    "margin": (claim(lambda c: c.update(kind="margin")), "keys unknown"),
    "semantics": (lambda c: c.update(semantics="float32"), "real arithmetic"),
    "form": (lambda c: c["specification"].update(form="json"), "kind 'lipschitz' is not understood"),
}


@pytest.mark.parametrize("name", MANIFESTS)
def test_a_changed_manifest_is_rejected(name: str) -> None:
    change, reason = MANIFESTS[name]
    with pytest.raises(CertificateRejected, match=reason):
        check(resealed(FILES, lambda content: (change(content), None)[1]), NETWORK)


PAYLOADS: dict[str, tuple[Callable[[dict[str, Array]], object], str]] = {
    "negative": (lambda t: t["t0.a0"].__setitem__(0, -1e-9), "multipliers >= 0"),
    "nan": (lambda t: t["t0.a0"].__setitem__(0, np.nan), "not finite"),
    "infinite": (lambda t: t["t0.a0"].__setitem__(0, np.inf), "not finite"),
    "huge": (lambda t: t["t0.a0"].__setitem__(0, 1e200), "in range"),
    "zero": (lambda t: t["t0.a0"].__setitem__(0, 0.0), "is not proved"),
    "tiny": (lambda t: t["t0.a0"].__setitem__(0, 1e-200), "in range"),
    "too short": (lambda t: t.update({"t0.a0": t["t0.a0"][1:]}), "not 5 multipliers"),
    "too long": (lambda t: t.update({"t0.a1": np.append(t["t0.a1"], 1.0)}), "not 4 multipliers"),
    "integers": (lambda t: t.update({"t0.a0": np.ones(5, np.int32)}), "not 5 multipliers"),
    "unnamed": (lambda t: t.update({"more": np.ones(2)}), "its entries are not those"),
    "scaled": (lambda t: t.update({"t0.a0": 0.5 * t["t0.a0"]}), "is not proved"),
}


@pytest.mark.parametrize("name", PAYLOADS)
def test_a_changed_payload_is_rejected(name: str) -> None:
    change, reason = PAYLOADS[name]
    with pytest.raises(CertificateRejected, match=reason):
        check(repacked(FILES, lambda tensors: (change(tensors), None)[1]), NETWORK)


def stated(**changes: Any) -> bytes:
    content = statement(ROWS, [UPPER.hex()]) | changes
    return json.dumps({k: v for k, v in content.items() if v is not None}).encode()


STATEMENTS: dict[str, tuple[bytes, str]] = {
    "smaller": (stated(upper=["1e-3"]), "neither all rows together nor each"),
    "other rows": (stated(outputs=[[1, 0], [0, 9]]), "is not proved"),
    "smaller scale": (stated(input={"norm": "2", "scale": [1, 1, "0.5"]}), "is not proved"),
    "other norm": (stated(input={"norm": "inf"}), "a metric is for"),
    "unknown norm": (stated(input={"norm": "3"}), "out of range"),
    "no norm": (stated(input={}), "out of range"),
    "unknown output norm": (stated(output_norm="3"), "output norm '3'"),
    "no output norm": (stated(output_norm=None), "output norm None"),
    "zero scale": (stated(input={"norm": "2", "scale": [1, 1, 0]}), "out of range"),
    "short scale": (stated(input={"norm": "2", "scale": [1, 1]}), "out of range"),
    "negative": (stated(upper=[-1]), "out of range"),
    "beyond floats": (stated(upper=["1e400"]), "out of range"),
    "two numbers": (stated(upper=[9, 9]), "out of range"),
    "one number of two": (stated(output_norm="each"), "out of range"),
    "long row": (stated(outputs=[[1, 0, 0]]), "out of range"),
    "huge row": (stated(outputs=[["1e200", 0], [0, 1]]), "out of range"),
    "no rows": (stated(outputs=[]), "missing or empty"),
    "text": (stated(upper=["x"]), "is not a number"),
    "unknown key": (stated(outputs_norm="2"), "may have"),
    "empty region": (stated(region={"lower": [1] * 3, "upper": [0] * 3}), "above the upper bound"),
    "short region": (stated(region={"lower": [0] * 2, "upper": [1] * 2}), "does not have 3 inputs"),
    "half a region": (stated(region={"lower": [0] * 3}), "missing or empty"),
    "no region": (stated(region={}), "missing or empty"),
    "region of no radius": (stated(region={"input": [0] * 3, "norm": "2"}), "is not a number"),
    "region without claims": (stated(region={"lower": [0] * 3, "upper": [1] * 3}), "no interval claim"),
    "kind": (stated(kind="box"), "kind 'box'"),
}


@pytest.mark.parametrize("name", STATEMENTS)
def test_another_statement_is_rejected(name: str) -> None:
    text, reason = STATEMENTS[name]

    def digest(content: dict[str, Any]) -> None:
        content["specification"]["sha256_file"] = hashlib.sha256(text).hexdigest()

    with pytest.raises(CertificateRejected, match=reason):
        check(resealed({**FILES, "specification.json": text}, digest), NETWORK)


def test_a_dropped_region_is_rejected() -> None:
    """What is proved of a region is not proved of everything."""
    region = {"lower": [0.1, 0.1, 0.1], "upper": ["0.1001"] * 3}
    files = bundle(NETWORK, statement(ROWS, [100], region=region), [{**JOINT, "multipliers": {}}])
    text = json.dumps(statement(ROWS, [100])).encode()

    def digest(content: dict[str, Any]) -> None:
        content["specification"]["sha256_file"] = hashlib.sha256(text).hexdigest()

    with pytest.raises(CertificateRejected, match="its own kind"):
        check(resealed({**files, "specification.json": text}, digest), NETWORK)


def test_interval_claims_of_a_region_are_proved_too() -> None:
    region = {"lower": [0, 0, 0], "upper": [1, 1, 1]}
    files = bundle(NETWORK, statement(ROWS, [100], region=region), [{**JOINT, "upper": 50.0}])
    assert check(files, NETWORK).claims == 3

    def tightened(tensors: dict[str, Array]) -> None:
        tensors["z0.upper"] -= 1

    with pytest.raises(CertificateRejected, match=r"too tight|lies above"):
        check(repacked(files, tightened), NETWORK)


def test_certificates_of_other_kinds_do_not_take_lipschitz_claims() -> None:
    files, data, _ = certificate()
    own = json.loads(FILES["manifest.json"])["claims"][0]

    def added(content: dict[str, Any]) -> None:
        uses = [c["id"] for c in content["claims"] if c["kind"] == "interval"]
        content["claims"].append({**own, "id": len(content["claims"]), "uses": uses, "multipliers": {}})

    with pytest.raises(CertificateRejected, match="another kind"):
        check(resealed(files, added), data)
    low, clauses = [Fraction(0)] * 3, [([[1, 0]], [100])]
    margins = emit(NETWORK, box_specification(low, low, clauses), "crown", {})
    with pytest.raises(CertificateRejected, match="form 'lips' is not understood"):
        check(resealed(margins, lambda c: c["specification"].update(form="lips")), NETWORK)


def test_least_numbers_come_from_prepared_matrices() -> None:
    assert least(UNITS, ROWS, TOGETHER, UPPER / (1 + 1e-9)) <= UPPER
    quadratic = UNITS.quadratic(vectors(ROWS), TOGETHER)
    assert quadratic.proves(np.full(3, (UPPER * 1.001) ** 2))
    assert not quadratic.proves(np.full(3, (UPPER * 0.999) ** 2))
    assert quadratic.proves(np.full(3, (UPPER * 1.001) ** 2))


def test_the_command_prints_what_is_proved(tmp_path: Any, capsys: pytest.CaptureFixture[str]) -> None:
    for name, data in FILES.items():
        (tmp_path / "bundle").mkdir(exist_ok=True)
        (tmp_path / "bundle" / name).write_bytes(data)
    (tmp_path / "model.onnx").write_bytes(DATA)
    arguments = [str(tmp_path / "bundle"), "--model", str(tmp_path / "model.onnx")]
    assert main(arguments) == 0
    assert capsys.readouterr().out == f"accepted: 1 claims, Lipschitz bounds {UPPER:.10g}\n"
    assert main([*arguments, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["uppers"] == [UPPER]

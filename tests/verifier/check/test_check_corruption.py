"""Every change of a certificate is rejected with a reason, or leaves a proof."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from check_kit import Random, box_specification, certificate, repacked, resealed, with_payload

from provenn.verifier.certificate.emit import emit
from provenn.verifier.check import CertificateRejected, check, read_network
from provenn.verifier.check.manifest import canonical, read_manifest

FILES, MODEL, NETWORK = certificate()
MANIFEST: dict[str, Any] = json.loads(FILES["manifest.json"])
CLAIMS: list[dict[str, Any]] = MANIFEST["claims"]
READ = read_network(MODEL)
Change = Callable[[dict[str, Any]], None]


def refused(files: Mapping[str, bytes], reason: str | None = None, claim: int | str | None = None) -> None:
    with pytest.raises(CertificateRejected, match=reason) as refusal:
        check(files, READ)
    assert refusal.value.reason
    assert claim is None or refusal.value.claim == claim


def refused_or_a_proof(files: Mapping[str, bytes]) -> None:
    """Accepted only with margins that sampled points do not contradict."""
    try:
        report = check(files, READ)
    except CertificateRejected as refusal:
        assert refusal.reason
        return
    generator = np.random.default_rng(0)
    middle = NETWORK.exact([Fraction(0)] * 3)
    for _ in range(20):
        y = NETWORK.exact([Fraction(float(v)) for v in generator.choice([-0.0999, 0.0999], 3)])
        assert Fraction(report.margins[0][0]) <= middle[0] + 2 - y[0]
        rows = (middle[0] - middle[1] - 5 - y[0] + y[1], middle[2] + 3 - y[2])
        assert Fraction(report.margins[0][1]) <= max(rows)


def test_the_certificate_itself_is_accepted() -> None:
    report = check(FILES, MODEL, FILES["specification.json"])
    assert (report.verdict, report.semantics, report.assurance) == ("verified", "real", "checked")
    assert len(report.margins) == 1
    assert len(report.margins[0]) == 2
    assert 0 < report.margin == min(report.margins[0])
    assert report.claims == len(CLAIMS)
    assert json.loads(json.dumps(report.as_dict()))["margin"] == report.margin
    assert report.model_sha256 == hashlib.sha256(MODEL).hexdigest()
    refused_or_a_proof(FILES)


def test_every_byte_of_every_file_matters() -> None:
    generator = np.random.default_rng(0)
    for name, data in FILES.items():
        for position in range(0, len(data), 1 if name == "manifest.json" else 7):
            changed = bytearray(data)
            changed[position] ^= int(generator.integers(1, 256))
            with pytest.raises(CertificateRejected):
                check({**FILES, name: bytes(changed)}, READ)


@pytest.mark.parametrize("name", list(FILES))
def test_truncated_and_missing_files(name: str) -> None:
    for data in (b"", FILES[name][:-1], FILES[name] + b" "):
        refused({**FILES, name: data})
    refused({other: data for other, data in FILES.items() if other != name})


def test_other_files_are_refused() -> None:
    refused({**FILES, "extra.txt": b""}, "other files", "bundle")


def fields(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The paths of everything in the manifest but what lies outside its meaning."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    inner = [p for key, part in items for p in fields(part, (*path, key)) if key not in ("produced_by", "statistics")]
    return [path, *inner] if path and path != ("sha256",) else inner


def put(content: Any, path: tuple[Any, ...], value: Any) -> None:
    for key in path[:-1]:
        content = content[key]
    if value is REMOVED:
        del content[path[-1]]
    else:
        content[path[-1]] = value


REMOVED = object()
VALUES = [
    REMOVED,
    None,
    True,
    -1,
    0,
    1,
    2,
    7,
    10**30,
    "",
    "x",
    "crown",
    "interval",
    "margin",
    "0x1.0p+4",
    [],
    [0],
    {},
    {"a": 1},
]


def test_every_field_of_the_manifest_matters() -> None:
    assert len(fields(MANIFEST)) > 50
    for path in fields(MANIFEST):
        for value in VALUES:
            content = copy.deepcopy(MANIFEST)
            put(content, path, value)
            if content != MANIFEST:
                refused_or_a_proof(
                    resealed(FILES, lambda old, new=content: (old.clear(), old.update(new), old.pop("sha256", 0)))
                )  # type: ignore[misc]


@pytest.mark.parametrize("nested", ['{"a":', "["])
def test_nesting_as_deep_as_python_goes_is_rejected(nested: str) -> None:
    """Reading back and writing out again reach their limits at different depths."""
    closed = {"[": "]"}.get(nested, "}")
    for depth in (*range(850, 1010), 100_000):
        text = f'{{"produced_by":{nested * depth}{"1"}{closed * depth}}}'
        with pytest.raises(CertificateRejected, match=r"^manifest: "):
            read_manifest(text.encode())


def test_fields_outside_the_meaning_are_free_but_sealed() -> None:
    def rename(content: dict[str, Any]) -> None:
        content["produced_by"] = {"somebody": "else"}

    assert check(resealed(FILES, rename), READ).margin > 0
    content = {**MANIFEST, "produced_by": {"somebody": "else"}}
    refused({**FILES, "manifest.json": canonical(content)}, "was changed", "manifest")


def claim(position: int, **changes: Any) -> Change:
    return lambda content: content["claims"][position].update(changes)


def without(position: int) -> Change:
    """Drops a claim and renumbers the rest, so that only the claim is missing."""

    def change(content: dict[str, Any]) -> None:
        del content["claims"][position]
        for i, kept in enumerate(content["claims"]):
            kept["id"] = i
            kept["uses"] = [u - (u > position) for u in kept["uses"] if u != position]

    return change


def swapped(content: dict[str, Any]) -> None:
    first, second = content["claims"][:2]
    first["lower"], second["lower"] = second["lower"], first["lower"]
    first["upper"], second["upper"] = second["upper"], first["upper"]


def reordered(content: dict[str, Any]) -> None:
    claims = content["claims"]
    claims[0]["node"], claims[1]["node"] = claims[1]["node"], claims[0]["node"]


LAST = len(CLAIMS) - 1
STATED: dict[str, tuple[Change, str]] = {
    "other format": (lambda c: c.update(format="provenn-certificate/2"), "format"),
    "other semantics": (lambda c: c.update(semantics="float32-any-order"), "semantics"),
    "other verdict": (lambda c: c.update(verdict="falsified"), "semantics or verdict"),
    "unknown key": (lambda c: c.update(extra=1), "keys unknown"),
    "unknown key of a claim": (claim(0, extra=1), "keys unknown"),
    "unknown kind": (claim(0, kind="spectral"), "kind is not understood"),
    "unknown method": (claim(0, method="alpha-crown"), "method 'alpha-crown' is not understood"),
    "duplicate id": (claim(1, id=0), "ids are not"),
    "a real number": (lambda c: c["statistics"].update(x=0.5), "not JSON"),
    "uses itself": (claim(1, uses=[0, 1]), "must use exactly"),
    "uses truth values": (claim(LAST, uses=[False, True]), "not given by ids"),
    "uses a text": (claim(LAST, uses=["0", "1"]), "not given by ids"),
    "an id that is a truth value": (claim(0, id=False), "wrong type: id"),
    "a case that is a truth value": (claim(0, case=False), "wrong type: case"),
    "a clause that is a truth value": (claim(LAST, clause=True), "wrong type: clause"),
    "a row that is a truth value": (claim(LAST, row=False), "wrong type: row"),
    "uses nothing": (claim(LAST, uses=[]), "must use exactly"),
    "a case that is not": (claim(0, case=1), "there is no case 1"),
    "a clause that is not": (claim(LAST, clause=2), "no clause 2"),
    "a row that is not": (claim(LAST, row=2), "with a row 2"),
    "a node that is not": (claim(0, node="z9"), "not to be bounded"),
    "an input that is not": (claim(0, node="x"), "not to be bounded"),
    "a threshold above the margin": (claim(LAST, above=(1e9).hex()), "is not above"),
    "a negative threshold": (claim(LAST, above=(-1.0).hex()), "is not above"),
    "a threshold that is no number": (claim(LAST, above="nan"), "not a number"),
    "a clause claimed twice": (claim(LAST, clause=0, row=0), "claimed twice"),
    "a margin without its claim": (without(LAST), "clause 1 of a case has no margin claim"),
    "no claims": (lambda c: c["claims"].clear(), "entries"),
    "swapped bounds": (swapped, "too tight|above"),
    "swapped nodes": (reordered, "too tight|order|fit|numbers"),
    "slopes for intervals": (claim(0, method="interval", slopes={"a0": "c0.0.lower"}), "method 'interval'"),
    "slopes for no neuron": (claim(1, slopes={"y": "c0.0.lower"}), "not a ReLU"),
    "slopes of another length": (claim(LAST, method="crown", slopes={"nothing": "c0.0.lower"}), "not a ReLU"),
    "entries of the payload that are not": (claim(0, lower="c9.9"), "entries"),
    "another model": (lambda c: c["model"].update(sha256_file="0" * 64), "another model"),
    "another form": (lambda c: c["specification"].update(form="vnnlib"), "specification"),
    "a file outside": (lambda c: c["payload"].update(file="../payload"), "missing"),
}


@pytest.mark.parametrize("name", STATED)
def test_a_changed_statement_is_rejected_with_the_reason(name: str) -> None:
    change, reason = STATED[name]
    refused(resealed(FILES, change), reason)


@pytest.mark.parametrize(
    ("step", "reason"), [(0, "too tight|no interval claim for z0"), (1, "no interval claim for z1")]
)
def test_an_interval_claim_that_is_missing(step: int, reason: str) -> None:
    def drop(tensors: dict[str, np.ndarray]) -> None:
        del tensors[f"c0.{step}.lower"], tensors[f"c0.{step}.upper"]

    refused(repacked(resealed(FILES, without(step)), drop), f"too tight|no interval claim for z{step}")


def tightened(name: str, by: float) -> Callable[[dict[str, np.ndarray]], None]:
    def change(tensors: dict[str, np.ndarray]) -> None:
        tensors[name][0] += np.float32(by)

    return change


@pytest.mark.parametrize("step", [0, 1])
@pytest.mark.parametrize("side", ["lower", "upper"])
def test_a_tightened_bound_is_rejected_naming_claim_and_neuron(step: int, side: str) -> None:
    def change(tensors: dict[str, np.ndarray]) -> None:
        lower, upper = tensors[f"c0.{step}.lower"], tensors[f"c0.{step}.upper"]
        tensors[f"c0.{step}.{side}"][0] = (lower[0] + upper[0]) / 2

    files = repacked(FILES, change)
    refused(files, rf"z{step}: the {side} bound of neuron \[0\] is too tight", step)


@pytest.mark.parametrize("by", [1e-3, 1.0, 1e3, 1e30])
def test_a_loosened_bound_is_harmless(by: float) -> None:
    refused_or_a_proof(repacked(FILES, tightened("c0.0.lower", -by)))
    refused_or_a_proof(repacked(FILES, tightened("c0.1.upper", by)))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_numbers_that_are_not_finite_are_rejected(value: float) -> None:
    refused(repacked(FILES, lambda t: t["c0.0.lower"].__setitem__(0, value)), "not finite", "payload")


def test_crossed_bounds_are_rejected() -> None:
    refused(repacked(FILES, tightened("c0.0.lower", 1e6)), "lies above", 0)


def test_random_payload_bytes_leave_a_proof_or_are_rejected() -> None:
    payload = FILES["payload.safetensors"]
    generator = np.random.default_rng(4)
    for _ in range(150):
        changed = bytearray(payload)
        changed[int(generator.integers(len(payload)))] ^= int(generator.integers(1, 256))
        refused_or_a_proof(with_payload(FILES, bytes(changed)))


HEAD = json.loads(FILES["payload.safetensors"][8 : 8 + int.from_bytes(FILES["payload.safetensors"][:8], "little")])
BODY = FILES["payload.safetensors"][8 + int.from_bytes(FILES["payload.safetensors"][:8], "little") :]


def packed(head: Any, body: bytes = BODY) -> dict[str, bytes]:
    text = json.dumps(head).encode()
    return with_payload(FILES, len(text).to_bytes(8, "little") + text + body)


def entry(**changes: Any) -> dict[str, Any]:
    return {**HEAD, "c0.0.lower": {**HEAD["c0.0.lower"], **changes}}


@pytest.mark.parametrize(
    "files",
    [
        with_payload(FILES, b"\xff" * 8),
        with_payload(FILES, b"\x00" * 8),
        packed([]),
        packed(HEAD, BODY + b"\x00" * 4),
        packed(HEAD, BODY[:-4]),
        packed(entry(dtype="BF16")),
        packed(entry(dtype=["F32"])),
        packed(entry(shape=[7])),
        packed(entry(shape=[-6])),
        packed(entry(shape=[6.0])),
        packed(entry(shape=[2, 3])),
        packed(entry(shape=6)),
        packed(entry(data_offsets=[-24, 0])),
        packed(entry(data_offsets=[0, 10**12])),
        packed(entry(data_offsets=[24, 48])),
        packed(entry(data_offsets=["0", "24"])),
        packed(entry(extra=1)),
        packed({**HEAD, "c0.0.lower": 3}),
        packed({**HEAD, "unused": {"dtype": "U8", "shape": [0], "data_offsets": [0, 0]}}),
        packed({k: v for k, v in HEAD.items() if k != "c0.0.lower"}),
        packed({**HEAD, "__metadata__": {"a": "b"}}),
    ],
)
def test_a_malformed_payload_is_rejected(files: dict[str, bytes]) -> None:
    refused(files, claim="payload")


def test_another_model_or_specification_is_rejected() -> None:
    other = Random(4, [3, 6, 6, 3], ["relu", "relu"]).file()
    with pytest.raises(CertificateRejected, match="another model"):
        check(FILES, other)
    with pytest.raises(CertificateRejected, match="another specification"):
        check(FILES, MODEL, FILES["specification.json"] + b" ")
    with pytest.raises(CertificateRejected) as refusal:
        check(FILES, b"not a model")
    assert refusal.value.claim == "model"


def respecified(change: Change) -> dict[str, bytes]:
    """The certificate about another specification, digests recomputed."""
    content = json.loads(FILES["specification.json"])
    change(content)
    text = json.dumps(content).encode()
    digest = hashlib.sha256(text).hexdigest()
    return resealed({**FILES, "specification.json": text}, lambda c: c["specification"].update(sha256_file=digest))


def test_a_harder_specification_is_rejected() -> None:
    refused(respecified(lambda s: s["unsafe"][0].update(d=["-100"])), "the margin of clause 0", 2)
    refused(respecified(lambda s: s.update(upper=["10"] * 3)), "too tight", 0)
    refused(respecified(lambda s: s["unsafe"].append(s["unsafe"][0])), "clause 2 of a case has no margin claim")
    refused(respecified(lambda s: s["unsafe"][1].update(C=[], d=[])), "empty")
    refused(respecified(lambda s: s.update(lower=["1"] * 3)), "above the upper bound", "specification")
    refused(respecified(lambda s: s.update(lower=["0"] * 2)), "3 inputs", "specification")
    refused(respecified(lambda s: s["unsafe"][0].update(C=[[1, 0]])), "3 outputs", "specification")
    refused(respecified(lambda s: s["unsafe"][0].update(d=[1, 2])), "differ in length", "specification")
    refused(respecified(lambda s: s["unsafe"][0].update(C=[["1/3", "0x1.0p-60", 0]])), "digits", "specification")


def test_a_margin_of_exactly_zero_is_not_enough() -> None:
    network = Random(0, [1, 1], [])
    middle = network.exact([Fraction(0)])[0]
    for above in (Fraction(0), Fraction(1, 10**30)):
        specification = box_specification([0], [0], [([[1]], [middle + above])])
        with pytest.raises(CertificateRejected, match="not above 0"):
            emit(read_network(network.file()), specification, "crown", {})


@pytest.mark.parametrize("values", [[-0.001], [1.001], [2.0], [-1.0]])
def test_slopes_outside_their_domain_are_rejected(values: list[float]) -> None:
    slopes = {"a0": np.full(6, 0.5, np.float32), "a1": np.full(6, 0.5, np.float32)}
    files, _, _ = certificate(slopes=slopes)
    assert check(files, READ).margin > 0

    def change(tensors: dict[str, np.ndarray]) -> None:
        tensors["slopes.0"][:1] = values

    refused(repacked(files, change), "outside their domain", "slopes")


@pytest.mark.parametrize("seed", range(6))
def test_other_slopes_leave_a_proof(seed: int) -> None:
    generator = np.random.default_rng(seed)
    files, _, _ = certificate(slopes={f"a{i}": generator.integers(0, 256, 6).astype(np.uint8) for i in range(2)})
    refused_or_a_proof(files)
    for _ in range(5):
        refused_or_a_proof(
            repacked(files, lambda t: t["slopes.1"].__setitem__(slice(3), generator.integers(0, 256, 3)))
        )

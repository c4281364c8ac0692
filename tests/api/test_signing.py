"""Statements, envelopes, bundles and keys: what is signed, by whom, and what a signature does not cover."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import threading
import zipfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from cli_kit import PLAIN, STUBBORN
from pydantic import ValidationError
from securesystemslib.signer import CryptoSigner
from signing_kit import OTHER, SIGNER, altered, changed, places, proved, resealed, signed, zipped

from provenn.api import signing_bundle
from provenn.api.signing import PAYLOAD, Status, examine, sign, statement
from provenn.api.signing_bundle import attach, detach
from provenn.api.signing_keys import Keyring, PublicKey, PublicKeys, SigningKeyError, published, rotate
from provenn.verifier.certificate.bundle import load_zip, to_zip
from provenn.verifier.check import CertificateRejected, check
from provenn.verifier.check.__main__ import main as kernel
from provenn.verifier.check.claims import ATTESTATION, MANIFEST
from provenn.verifier.check.manifest import canonical, sealed

GOLDEN_MANIFEST = sealed(
    {
        "format": "provenn-certificate/1",
        "semantics": "float32",
        "verdict": "verified",
        "model": {"sha256_file": "a" * 64},
        "specification": {"file": "specification.json", "form": "lipschitz", "sha256_file": "b" * 64},
        "payload": {"file": "payload.safetensors", "sha256": "c" * 64},
        "claims": [
            {
                "id": 0,
                "kind": "lipschitz",
                "case": 0,
                "rows": [0, 1],
                "upper": "0x1.8p+1",
                "multipliers": {"a": "t"},
                "uses": [],
            }
        ],
        "produced_by": {"provenn": "0.1.0", "torch": "2.13.0"},
        "statistics": {"claims": 1},
    }
)
GOLDEN_STATEMENT = (
    '{"_type":"https://in-toto.io/Statement/v1","predicate":{"assurance":"deployed",'
    '"certificate":{"digest":{"sha256":"dddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddd"},'
    '"name":"certificate.zip"},"checker":{"provenn.verifier.check":"0.1.0"},'
    '"claims":[{"case":0,"id":0,"kind":"lipschitz","multipliers":{"a":"t"},"rows":[0,1],"upper":"0x1.8p+1",'
    '"uses":[]}],"manifest":{"digest":{"sha256":"5abce268623bd3d290153c2c6702326446140022a1a33d6511b28586d20c6a28"},"name":"manifest.json"},'
    '"prover":{"provenn":"0.1.0","torch":"2.13.0"},"semantics":"float32",'
    '"specification":{"digest":{"sha256":"bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"},'
    '"name":"specification.json"},"verdict":"verified"},"predicateType":"urn:provenn:predicate:certificate:1",'
    '"subject":[{"digest":{"sha256":"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"},'
    '"name":"network.onnx"}]}'
)
GOLDEN_KEYID = "63d00ee3cf4f5c61ad94efa696c68f13b608fe56ecea13fb144a6fd18e9235b9"
GOLDEN_SIGNATURE = "yYw2T9+W7Jr+VoZuLBW7qBFAv6Cr+Hrj3OKi1CAyElTQj4yeNGyuHXd5JKcBDfzqQz4AQBIZ1pXgV7J6pAmLCg=="


def keys(*signers: CryptoSigner) -> PublicKeys:
    return PublicKeys(keys=[PublicKey.of(signer, datetime(2026, 1, 1, tzinfo=UTC)) for signer in signers])


def status(files: dict[str, bytes], model: bytes = PLAIN) -> str:
    return examine(files, model, keys(SIGNER)).status.value


def test_the_golden_statement_and_envelope() -> None:
    payload = statement(GOLDEN_MANIFEST, "network.onnx", "d" * 64)
    assert payload.decode() == GOLDEN_STATEMENT
    envelope = json.loads(sign(payload, SIGNER))
    assert envelope == {
        "payload": base64.b64encode(payload).decode(),
        "payloadType": "application/vnd.in-toto+json",
        "signatures": [{"keyid": GOLDEN_KEYID, "sig": GOLDEN_SIGNATURE}],
    }


def test_a_statement_has_no_decimal_floats_and_the_manifest_s_claims() -> None:
    def refused(text: str) -> None:
        raise AssertionError(f"{text} is a float")

    files = proved()
    told = json.loads(statement(files[MANIFEST], "plain.onnx", "0" * 64), parse_float=refused, parse_constant=refused)
    manifest = json.loads(files[MANIFEST])
    assert told["predicate"]["claims"] == manifest["claims"]
    assert told["subject"] == [{"name": "plain.onnx", "digest": {"sha256": hashlib.sha256(PLAIN).hexdigest()}}]
    assert told["predicate"]["assurance"] == "checked"
    assert told["predicate"]["prover"] == manifest["produced_by"]
    above = [claim["above"] for claim in told["predicate"]["claims"] if claim["kind"] == "margin"]
    assert above
    assert all(float.fromhex(text).hex() == float(0).hex() for text in above)


def test_what_is_no_manifest_is_not_signed() -> None:
    with pytest.raises(CertificateRejected):
        statement(b"{}", "plain.onnx", "0" * 64)


def test_a_signed_bundle_is_valid_and_the_checker_accepts_it(tmp_path: Path) -> None:
    files = signed(proved())
    found = examine(files, PLAIN, keys(OTHER, SIGNER))
    assert (found.status, found.keyid, found.reason) == (Status.VALID, SIGNER.public_key.keyid, None)
    assert found.certificate == hashlib.sha256(to_zip(proved())).hexdigest()
    assert check(files, PLAIN).margin == check(proved(), PLAIN).margin
    (tmp_path / "c.zip").write_bytes(zipped(files))
    (tmp_path / "plain.onnx").write_bytes(PLAIN)
    assert kernel([str(tmp_path / "c.zip"), "--model", str(tmp_path / "plain.onnx")]) == 0


def test_the_checker_reads_no_attestation() -> None:
    files = proved()
    assert check({**files, ATTESTATION: b"\xffnonsense"}, PLAIN).margin > 0
    for name in ("attestation.json.bak", "Attestation.json", "other"):
        with pytest.raises(CertificateRejected, match="other files"):
            check({**files, name: b""}, PLAIN)
    content = json.loads(files[MANIFEST])
    content["payload"]["file"] = ATTESTATION
    content.pop("sha256")
    with pytest.raises(CertificateRejected, match="other files"):
        check({**files, MANIFEST: sealed(content), ATTESTATION: files["payload.safetensors"]}, PLAIN)


def test_absent_and_unknown() -> None:
    assert status(proved()) == "absent"
    for known in (keys(), keys(OTHER)):
        found = examine(signed(proved()), PLAIN, known)
        assert (found.status, found.keyid) == (Status.UNKNOWN_KEY, SIGNER.public_key.keyid)


def test_what_an_unknown_key_signs_is_compared_all_the_same() -> None:
    found = examine(signed(proved(), OTHER), STUBBORN, keys(SIGNER))
    assert found.status == Status.INVALID


def envelope() -> dict[str, Any]:
    return dict(json.loads(signed(proved())[ATTESTATION]))


def stated() -> dict[str, Any]:
    return dict(json.loads(base64.b64decode(envelope()["payload"])))


@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [
        (("payload",), base64.b64encode(b"{}").decode(), "invalid"),
        (("payload",), "", "invalid"),
        (("payload",), "\x00", "invalid"),
        (("payload",), 7, "invalid"),
        (("payloadType",), PAYLOAD + "0", "invalid"),
        (("payloadType",), None, "invalid"),
        (("signatures",), [], "invalid"),
        (("signatures",), {}, "invalid"),
        (("signatures",), [7], "invalid"),
        (("signatures",), [{"keyid": SIGNER.public_key.keyid, "sig": ""}] * 2, "invalid"),
        (("signatures", 0, "keyid"), OTHER.public_key.keyid, "unknown-key"),
        (("signatures", 0, "keyid"), "", "unknown-key"),
        (("signatures", 0, "sig"), "", "invalid"),
        (("signatures", 0, "sig"), base64.b64encode(bytes(64)).decode(), "invalid"),
        (("signatures", 0, "sig"), base64.b64encode(bytes(63)).decode(), "invalid"),
    ],
)
def test_every_field_of_the_envelope_counts(path: tuple[str | int, ...], value: Any, expected: str) -> None:
    files = proved() | {ATTESTATION: json.dumps(changed(envelope(), path, value)).encode()}
    assert status(files) == expected
    assert check(files, PLAIN).verdict == "verified"


@pytest.mark.parametrize("name", ["payload", "payloadType", "signatures"])
def test_every_field_of_the_envelope_is_needed(name: str) -> None:
    less = {key: value for key, value in envelope().items() if key != name}
    assert status(proved() | {ATTESTATION: json.dumps(less).encode()}) == "invalid"


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"\xff", b"[" * 100_000, b'{"payload": 1e999}'])
def test_an_attestation_may_be_anything(data: bytes) -> None:
    assert status(proved() | {ATTESTATION: data}) == "invalid"


@pytest.mark.parametrize("bit", range(0, 512, 37))
def test_every_bit_of_the_signature_counts(bit: int) -> None:
    raw = bytearray(base64.b64decode(envelope()["signatures"][0]["sig"]))
    raw[bit // 8] ^= 1 << bit % 8
    wrong = changed(envelope(), ("signatures", 0, "sig"), base64.b64encode(raw).decode())
    assert status(proved() | {ATTESTATION: json.dumps(wrong).encode()}) == "invalid"


FREE = {("subject", 0, "name"), ("predicate", "certificate", "digest", "sha256")}
"""What the key's holder says of its own: neither is in the manifest."""


def test_every_field_of_the_statement_is_signed_and_compared() -> None:
    free = set()
    for path, value in places(stated()):
        payload = canonical(changed(stated(), path, altered(value)))
        unsigned = changed(envelope(), ("payload",), base64.b64encode(payload).decode())
        found = examine(proved() | {ATTESTATION: json.dumps(unsigned).encode()}, PLAIN, keys(SIGNER))
        assert (found.status, found.reason) == (Status.INVALID, "this key has not signed this statement")
        again = examine(proved() | {ATTESTATION: sign(payload, SIGNER)}, PLAIN, keys(SIGNER))
        if again.status == Status.VALID:
            free.add(path)
    assert free == FREE


def test_a_statement_written_another_way_is_another_one() -> None:
    for payload in (json.dumps(stated()).encode(), canonical({**stated(), "more": "0"}), b"{}", b"[" * 100_000):
        assert status(proved() | {ATTESTATION: sign(payload, SIGNER)}) == "invalid"


def test_a_manifest_changed_under_a_valid_signature() -> None:
    content = json.loads(proved()[MANIFEST])
    for path, value in places(content):
        if path != ("sha256",):
            again = signed(proved()) | {MANIFEST: resealed(proved()[MANIFEST], path, altered(value))}
            found = examine(again, PLAIN, keys(SIGNER))
            assert (found.status, str(found.reason)[:25]) == (Status.INVALID, "it signed something else:"), path
        files = signed(proved()) | {MANIFEST: canonical(changed(content, path, altered(value)))}
        assert status(files) == "invalid"
        with pytest.raises(CertificateRejected):
            check(files, PLAIN)


@pytest.mark.parametrize("name", ["payload.safetensors", "specification.json"])
def test_other_files_under_a_valid_signature_are_for_the_checker(name: str) -> None:
    files = signed(proved())
    files[name] = files[name][:-1] + b"\x01"
    assert status(files) == "valid"
    with pytest.raises(CertificateRejected, match="does not have sha256"):
        check(files, PLAIN)


def test_a_signature_about_another_model() -> None:
    found = examine(signed(proved()), STUBBORN, keys(SIGNER))
    assert found.status == Status.INVALID
    assert hashlib.sha256(PLAIN).hexdigest() in str(found.reason)


def test_two_signatures() -> None:
    both = changed(envelope(), ("signatures",), [])
    for signer in (OTHER, SIGNER):
        both["signatures"] += json.loads(signed(proved(), signer)[ATTESTATION])["signatures"]
    files = proved() | {ATTESTATION: json.dumps(both).encode()}
    for signer in (OTHER, SIGNER):
        found = examine(files, PLAIN, keys(signer))
        assert (found.status, found.keyid) == (Status.VALID, signer.public_key.keyid)


@pytest.mark.parametrize("count", [0, 1, 2, 50])
def test_a_bundle_is_the_stored_zip_and_one_more_file(count: int) -> None:
    stored = to_zip({f"file-{i}": os.urandom(10 * i) + bytes(1000) for i in range(count)})
    signed_bundle = attach(stored, b'{"payload": ""}')
    assert load_zip(signed_bundle) == load_zip(stored) | {ATTESTATION: b'{"payload": ""}'}
    assert detach(signed_bundle) == stored
    assert detach(stored) == stored


def test_large_bundles_likewise(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of more members, or of more bytes, than the end of a plain zip can tell."""
    for name, value in (("ZIP_FILECOUNT_LIMIT", 3), ("ZIP64_LIMIT", 300)):
        monkeypatch.setattr(zipfile, name, value)
    monkeypatch.setattr(signing_bundle, "COUNT", 3)
    monkeypatch.setattr(signing_bundle, "PLACE", 300)
    for count in range(8):
        test_a_bundle_is_the_stored_zip_and_one_more_file(count)


@pytest.mark.parametrize("data", [b"", b"no zip", b"PK\5\6" + bytes(18), b"PK\3\4" + bytes(100)])
def test_what_is_not_a_signed_bundle_stays_as_it_is(data: bytes) -> None:
    assert detach(data) == data


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o7777


def test_the_first_start_makes_a_key_that_only_its_owner_reads(tmp_path: Path) -> None:
    folder = tmp_path / "data" / "keys"
    assert published(folder).keys == []
    before = os.umask(0)
    try:
        signer = Keyring(folder).signer()
    finally:
        os.umask(before)
    keyid = signer.public_key.keyid
    assert (mode(folder), mode(folder / f"{keyid}.pem")) == (0o700, 0o600)
    (key,) = published(folder).keys
    assert (key.keyid, key.algorithm, key.active, key.retired_at) == (keyid, "ed25519", True, None)
    assert "PRIVATE" not in (folder / "public.json").read_text()
    assert Keyring(folder).signer().public_key.keyid == keyid


def test_rotation_keeps_what_was_signed(tmp_path: Path) -> None:
    ring = Keyring(tmp_path)
    old = signed(proved(), ring.signer())
    first = published(tmp_path)
    key = rotate(tmp_path)
    new = signed(proved(), ring.signer())
    second = published(tmp_path)
    assert [k.keyid for k in second.keys] == [key.keyid, first.keys[0].keyid]
    assert [k.active for k in second.keys] == [True, False]
    assert [p.stem for p in tmp_path.glob("*.pem")] == [key.keyid]
    assert examine(old, PLAIN, first).retired_at is None
    assert (examine(old, PLAIN, second).status, examine(new, PLAIN, second).status) == (Status.VALID, Status.VALID)
    assert examine(old, PLAIN, second).retired_at == second.keys[1].retired_at.isoformat()  # type: ignore[union-attr]
    assert examine(new, PLAIN, first).status == Status.UNKNOWN_KEY
    assert examine(old, PLAIN, PublicKeys(keys=second.keys[:1])).status == Status.UNKNOWN_KEY


def test_rotation_beside_signing(tmp_path: Path) -> None:
    ring, made = Keyring(tmp_path), list[dict[str, bytes]]()
    threads = [threading.Thread(target=lambda: made.append(signed(proved(), ring.signer()))) for _ in range(20)]
    threads += [threading.Thread(target=rotate, args=[tmp_path]) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    known = published(tmp_path)
    assert (len(known.keys), sum(key.active for key in known.keys), len(made)) == (6, 1, 20)
    assert {examine(files, PLAIN, known).status for files in made} == {Status.VALID}


def test_a_key_from_a_file(tmp_path: Path) -> None:
    folder, path = tmp_path / "keys", tmp_path / "secret.pem"

    def mounted(signer: CryptoSigner) -> None:
        path.write_bytes(signer.private_bytes)
        path.chmod(0o400)

    mounted(SIGNER)
    ring = Keyring(folder, path)
    assert ring.signer().public_key.keyid == SIGNER.public_key.keyid
    path.unlink()
    mounted(OTHER)
    assert ring.signer().public_key.keyid == OTHER.public_key.keyid
    listed = published(folder).keys
    assert [(k.keyid, k.active) for k in listed] == [
        (OTHER.public_key.keyid, True),
        (SIGNER.public_key.keyid, False),
    ]
    assert not [*folder.glob("*.pem")]
    path.unlink()
    mounted(SIGNER)
    assert Keyring(folder, path).signer().public_key.keyid == SIGNER.public_key.keyid
    assert [k.active for k in published(folder).keys] == [True, False]
    with pytest.raises(SigningKeyError, match="rotate"):
        Keyring(folder)


@pytest.mark.parametrize("bits", [0o640, 0o604, 0o620, 0o602, 0o660, 0o644])
def test_a_private_key_that_others_may_read_is_refused(tmp_path: Path, bits: int) -> None:
    ring = Keyring(tmp_path)
    (path,) = tmp_path.glob("*.pem")
    path.chmod(bits)
    for use in (ring.signer, lambda: Keyring(tmp_path), lambda: Keyring(tmp_path / "other", path)):
        with pytest.raises(SigningKeyError, match="chmod 600") as refused:
            use()
        assert refused.value.path == str(path)
    path.chmod(0o600)
    ring.signer()


def test_the_group_may_read_a_mounted_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "secret.pem"
    path.write_bytes(SIGNER.private_bytes)
    path.chmod(0o440)
    owner = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: owner + 1)
    assert Keyring(tmp_path / "keys", path).signer().public_key.keyid == SIGNER.public_key.keyid
    path.chmod(0o444)
    with pytest.raises(SigningKeyError, match="others"):
        Keyring(tmp_path / "keys", path)


ECDSA = CryptoSigner.generate_ecdsa()


@pytest.mark.parametrize(
    "data",
    [b"", b"no key", ECDSA.private_bytes, SIGNER.private_bytes[:-40]],
    ids=["empty", "text", "ecdsa", "cut"],
)
def test_other_files_are_no_private_keys(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "secret.pem"
    path.write_bytes(data)
    path.chmod(0o600)
    with pytest.raises(SigningKeyError, match="is not a"):
        Keyring(tmp_path / "keys", path)


def test_a_missing_private_key_is_not_replaced_in_silence(tmp_path: Path) -> None:
    Keyring(tmp_path)
    (path,) = tmp_path.glob("*.pem")
    path.unlink()
    with pytest.raises(SigningKeyError, match="rotate"):
        Keyring(tmp_path)
    key = rotate(tmp_path)
    assert Keyring(tmp_path).signer().public_key.keyid == key.keyid
    assert len(published(tmp_path).keys) == 2


def test_a_broken_list_of_keys_is_refused(tmp_path: Path) -> None:
    Keyring(tmp_path)
    (tmp_path / "public.json").write_text('{"keys": [{"keyid": "0"}]}')
    with pytest.raises(SigningKeyError, match="not a list of keys"):
        rotate(tmp_path)


def test_a_folder_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "keys").write_text("")
    with pytest.raises(SigningKeyError, match="folder cannot be used"):
        Keyring(tmp_path / "keys")


def test_a_listed_key_is_the_one_that_its_id_names() -> None:
    (key,) = keys(SIGNER).model_dump(mode="json")["keys"]
    (other,) = keys(OTHER).model_dump(mode="json")["keys"]
    assert PublicKeys.model_validate({"keys": [key]}).keys[0].keyid == SIGNER.public_key.keyid
    for wrong in ({"keyid": other["keyid"]}, {"public": other["public"]}, {"public": "x"}, {"algorithm": "rsa"}):
        with pytest.raises(ValidationError):
            PublicKeys.model_validate({"keys": [key | wrong]})

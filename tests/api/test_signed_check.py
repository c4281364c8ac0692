"""`provenn check` and the client on signed bundles: who said it, and is it true, each answered by itself."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from cli_kit import PLAIN, STUBBORN, Command
from service_kit import SMALL, Server
from signing_kit import OTHER, SIGNER, changed, proved, resealed, signed, zipped
from sqlalchemy import update

from provenn.api.client import Client, ServiceError
from provenn.api.problems import PREFIX
from provenn.api.schemas import Inputs
from provenn.api.signing import Status, examine
from provenn.api.signing_bundle import detach
from provenn.api.signing_keys import Keyring, PublicKeys, published, rotate
from provenn.api.tables import CertificateRow
from provenn.verifier.certificate.bundle import load_zip, write
from provenn.verifier.check.claims import ATTESTATION, MANIFEST

Files = dict[str, bytes]


@pytest.fixture
def provenn(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Command:
    """The command, in a folder with two models and the public key of SIGNER."""
    monkeypatch.chdir(tmp_path)
    Path("plain.onnx").write_bytes(PLAIN)
    Path("stubborn.onnx").write_bytes(STUBBORN)
    Path("secret.pem").write_bytes(SIGNER.private_bytes)
    Path("secret.pem").chmod(0o600)
    ring = Keyring(Path("keys"), Path("secret.pem"))
    Path("keys.json").write_text(published(ring.folder).model_dump_json())
    return Command(capsys)


def loosened(files: Files) -> Files:
    """Another manifest that is true as well: the margin's claim stays below what is proved."""
    claims = json.loads(files[MANIFEST])["claims"]
    number = next(claim["id"] for claim in claims if claim["kind"] == "margin")
    return files | {MANIFEST: resealed(files[MANIFEST], ("claims", number, "above"), "0x1.0p-10")}


def tightened(files: Files) -> Files:
    """A manifest that claims too much."""
    claims = json.loads(files[MANIFEST])["claims"]
    number = next(claim["id"] for claim in claims if claim["kind"] == "margin")
    return files | {MANIFEST: resealed(files[MANIFEST], ("claims", number, "above"), "0x1.0p+3")}


def forged(files: Files) -> Files:
    """One bit of the signature."""
    envelope = json.loads(files[ATTESTATION])
    raw = bytearray(base64.b64decode(envelope["signatures"][0]["sig"]))
    raw[5] ^= 1
    wrong = changed(envelope, ("signatures", 0, "sig"), base64.b64encode(raw).decode())
    return files | {ATTESTATION: json.dumps(wrong).encode()}


def same(files: Files) -> Files:
    return files


def broken(files: Files) -> Files:
    return files | {"payload.safetensors": files["payload.safetensors"][:-1] + b"\x01"}


KEYS = ("--keys", "keys.json")
CASES: list[tuple[str, Callable[[], Files], tuple[str, ...], int, str, bool]] = [
    ("unsigned", proved, (), 0, "absent", True),
    ("unsigned, keys", proved, KEYS, 0, "absent", True),
    ("unsigned, required", proved, (*KEYS, "--require-signature"), 14, "absent", True),
    ("signed", lambda: signed(proved()), (), 0, "unknown-key", True),
    ("signed, keys", lambda: signed(proved()), KEYS, 0, "valid", True),
    ("signed, required", lambda: signed(proved()), (*KEYS, "--require-signature"), 0, "valid", True),
    ("a stranger's", lambda: signed(proved(), OTHER), (), 0, "unknown-key", True),
    ("a stranger's, keys", lambda: signed(proved(), OTHER), KEYS, 14, "unknown-key", True),
    ("forged", lambda: forged(signed(proved())), KEYS, 14, "invalid", True),
    ("nonsense", lambda: proved() | {ATTESTATION: b"nonsense"}, (), 14, "invalid", True),
    ("true, but not what was signed", lambda: loosened(signed(proved())), KEYS, 14, "invalid", True),
    ("true, but not what was signed; no keys", lambda: loosened(signed(proved())), (), 14, "invalid", True),
    ("false, and not what was signed", lambda: tightened(signed(proved())), KEYS, 13, "invalid", False),
    ("false, and signed", lambda: signed(tightened(proved())), KEYS, 13, "valid", False),
    ("signed, its numbers changed", lambda: broken(signed(proved())), KEYS, 13, "valid", False),
    ("false, and signed by a stranger", lambda: signed(tightened(proved()), OTHER), KEYS, 13, "unknown-key", False),
    ("false, and unsigned", lambda: tightened(proved()), KEYS, 13, "absent", False),
]


@pytest.mark.parametrize("folder", [False, True], ids=["zip", "folder"])
@pytest.mark.parametrize(
    ("files", "options", "code", "status", "accepted"), [case[1:] for case in CASES], ids=[case[0] for case in CASES]
)
def test_two_questions_two_answers(
    provenn: Command,
    files: Callable[[], Files],
    options: tuple[str, ...],
    code: int,
    status: str,
    accepted: bool,
    folder: bool,
) -> None:
    if folder:
        write(files(), Path("bundle"))
    else:
        Path("bundle").write_bytes(zipped(files()))
    ran = provenn("check", "bundle", "--model", "plain.onnx", *options, "--json")
    found = ran.json
    assert (ran.code, found["signature"]["status"], found["accepted"]) == (code, status, accepted)
    assert set(found["signature"]) == {"status", "keyid", "reason", "certificate", "retired_at"}
    assert (found["signature"]["reason"] is None) == (status in ("valid", "absent"))
    if status == "valid":
        assert found["signature"]["keyid"] == SIGNER.public_key.keyid
    shown = provenn("check", "bundle", "--model", "plain.onnx", *options)
    assert shown.code == code
    assert status.replace("-", " ") in shown.out
    assert ("accepted" if accepted else "rejected") in shown.out


def test_another_model_is_another_statement(provenn: Command) -> None:
    Path("bundle").write_bytes(zipped(signed(proved())))
    ran = provenn("check", "bundle", "--model", "stubborn.onnx", *KEYS, "--json")
    assert (ran.code, ran.json["claim"], ran.json["signature"]["status"]) == (13, "model", "invalid")
    assert "something else" in ran.json["signature"]["reason"]


def test_a_requirement_needs_keys(provenn: Command) -> None:
    Path("bundle").write_bytes(zipped(signed(proved())))
    ran = provenn("check", "bundle", "--model", "plain.onnx", "--require-signature")
    assert (ran.code, "--keys" in ran.err) == (2, True)


@pytest.mark.parametrize("text", ["", "no JSON", "[]", '{"keys": [{}]}', '{"keys": 7}', "KEYID"])
def test_files_that_hold_no_keys(provenn: Command, text: str) -> None:
    Path("bundle").write_bytes(zipped(signed(proved())))
    wrong = Path("keys.json").read_text().replace(SIGNER.public_key.keyid, OTHER.public_key.keyid)
    Path("wrong.json").write_text(wrong if text == "KEYID" else text)
    ran = provenn("check", "bundle", "--model", "plain.onnx", "--keys", "wrong.json", "--json")
    assert (ran.code, ran.json["error"]["type"]) == (2, "InvalidFile")
    Path("bundle").write_bytes(zipped(proved()))
    assert provenn("check", "bundle", "--model", "plain.onnx", "--keys", "wrong.json").code == 2


def test_what_cannot_be_unpacked_has_no_signature(provenn: Command) -> None:
    Path("bundle").write_bytes(b"PK nonsense")
    ran = provenn("check", "bundle", "--model", "plain.onnx", *KEYS, "--require-signature", "--json")
    assert (ran.code, ran.json["claim"], ran.json["signature"]["status"]) == (13, "bundle", "absent")


def test_the_kernel_never_loads_what_signs(provenn: Command) -> None:
    Path("bundle").write_bytes(zipped(signed(proved())))
    code = (
        "import sys; from provenn.verifier.check.__main__ import main; code = main(sys.argv[1:]);"
        "sys.exit(code or 99 * bool({'cryptography', 'securesystemslib', 'provenn.api'} & set(sys.modules)))"
    )
    line = [sys.executable, "-c", code, "bundle", "--model", "plain.onnx"]
    assert subprocess.run(line, capture_output=True, check=False).returncode == 0


@pytest.fixture
def client(server: Server) -> Iterator[Client]:
    with Client(server.url) as client:
        yield client


def certified(client: Client, radius: float) -> str:
    """The id of a certificate about PLAIN."""
    inputs = Inputs(inputs=[[1.0, 0.0]], labels=[0], epsilons=[radius])
    (item,) = client.wait(client.certify(client.upload(PLAIN).id, inputs).id, poll_seconds=0.02).items
    assert item.certificate is not None
    return item.certificate


def test_from_the_server_to_the_check(provenn: Command, client: Client, server: Server) -> None:
    certificate = certified(client, 0.125)
    bundle = client.bundle(certificate)
    assert hashlib.sha256(detach(bundle)).hexdigest() == certificate
    assert detach(bundle) == server.service.blobs.get(certificate)
    assert load_zip(bundle)[ATTESTATION] == client.attestation(certificate)
    found = client.signature(certificate, PLAIN, client.keys())
    assert (found.status, found.certificate) == (Status.VALID, certificate)
    Path("bundle").write_bytes(bundle)
    Path("keys.json").write_bytes(server.client.get("/v1/keys").content)
    ran = provenn("check", "bundle", "--model", "plain.onnx", *KEYS, "--require-signature", "--json")
    assert (ran.code, ran.json["signature"]["certificate"]) == (0, certificate)
    payload = json.loads(base64.b64decode(json.loads(client.attestation(certificate))["payload"]))
    (subject,) = payload["subject"]
    assert subject["name"] == server.client.get(f"/v1/models/{subject['digest']['sha256']}").json()["filename"]


def test_the_list_of_keys(server: Server) -> None:
    found = server.client.get("/v1/keys").json()
    active = [key for key in found["keys"] if key["active"]]
    assert [key["retired_at"] for key in active] == [None]
    assert set(active[0]) == {"keyid", "algorithm", "public", "created_at", "retired_at", "active"}
    assert (active[0]["algorithm"], active[0]["public"][:26]) == ("ed25519", "-----BEGIN PUBLIC KEY-----")
    assert "PRIVATE" not in json.dumps(found)


def test_rotation_while_the_server_runs(client: Client, server: Server) -> None:
    certificate = certified(client, 0.0625)
    before, old = client.keys(), client.certificate(certificate)
    key = rotate(server.service.keyring.folder)
    after, new = client.keys(), client.certificate(certificate)
    assert {k.keyid for k in after.keys} - {k.keyid for k in before.keys} == {key.keyid}
    assert {name for name in old if old[name] != new[name]} == {ATTESTATION}
    newest = PublicKeys(keys=after.keys[:1])
    expected = {
        (0, "before"): "valid",
        (0, "after"): "valid",
        (0, "newest"): "unknown-key",
        (1, "before"): "unknown-key",
        (1, "after"): "valid",
        (1, "newest"): "valid",
    }
    sets = {"before": before, "after": after, "newest": newest}
    for (which, name), status in expected.items():
        assert examine((old, new)[which], PLAIN, sets[name]).status == status, (which, name)
    assert client.signature(certificate, PLAIN, after).keyid == key.keyid


def test_a_server_that_cannot_sign_says_so_and_no_more(client: Client, server: Server) -> None:
    certificate = certified(client, 0.03125)
    (path,) = server.service.keyring.folder.glob("*.pem")
    path.chmod(0o644)
    try:
        for route in ("bundle", "attestation"):
            refused = server.client.get(f"/v1/certificates/{certificate}/{route}")
            assert (refused.status_code, refused.json()["type"]) == (503, PREFIX + "unavailable")
            assert str(path.parent) not in refused.text
        assert server.client.get(f"/v1/certificates/{certificate}").status_code == 200
    finally:
        path.chmod(0o600)
    assert client.bundle(certificate)


@pytest.mark.parametrize("route", ["bundle", "attestation"])
def test_no_such_certificate(server: Server, route: str) -> None:
    assert server.client.get(f"/v1/certificates/{'0' * 64}/{route}").status_code == 404


def test_other_files_than_those_of_the_id_are_refused(client: Client) -> None:
    certificate = certified(client, 0.015625)
    files = load_zip(client.bundle(certificate))
    stored = detach(client.bundle(certificate))
    swapped = zipped(broken(files))
    with zipfile.ZipFile(more := io.BytesIO(stored), "a") as archive:
        archive.writestr("more", b"")
    with zipfile.ZipFile(commented := io.BytesIO(client.bundle(certificate)), "a") as archive:
        archive.comment = b"more"
    moved = b"more" + client.bundle(certificate)
    for data in (swapped, more.getvalue(), commented.getvalue(), moved, b""):
        transport = httpx.MockTransport(lambda _, data=data: httpx.Response(200, content=data))
        with Client("http://service", transport=transport) as other, pytest.raises(ServiceError, match="other bytes"):
            other.bundle(certificate)


def test_a_certificate_about_another_network_than_its_job_is_not_signed(client: Client, server: Server) -> None:
    """A worker may have been taken over by what it computed on."""
    certificate, other = certified(client, 0.015625), server.model(SMALL)
    about = update(CertificateRow).where(CertificateRow.id == certificate)
    with server.service.database.writing() as session:
        session.execute(about.values(model_id=other))
    for route in ("bundle", "attestation"):
        refused = server.client.get(f"/v1/certificates/{certificate}/{route}")
        assert refused.status_code == 500
        assert "another network" in refused.json()["detail"]

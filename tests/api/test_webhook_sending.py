"""Posting to strangers' URLs: of no use against this machine's own network, and never longer than it may take."""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from hypothesis import given, settings
from hypothesis import strategies as st
from service_kit import Server
from test_routes import problem
from webhook_kit import OK, Listener, saying

from provenn.api import webhook_sending
from provenn.api.jobs.refusals import UnusableWebhook
from provenn.api.webhook_addresses import public, system
from provenn.api.webhook_sending import NotDelivered, Sender

PRIVATE = [
    "127.0.0.1", "127.255.255.254", "0.0.0.0", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254",
    "100.64.0.1", "192.0.2.1", "198.18.0.1", "224.0.0.1", "239.1.1.1", "240.0.0.1", "255.255.255.255",
    "168.63.129.16", "::ffff:168.63.129.16", "192.0.0.192", "64:ff9b::c000:c0",
    "::", "::1", "::127.0.0.1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:169.254.169.254", "fe80::1", "fe80::1%1",
    "fc00::1", "fd00:ec2::254", "ff02::1", "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "64:ff9b:1::1", "100::1",
    "2001:db8::1", "2001::1", "2002:7f00:1::", "2002:808:808::", "::808:808", "fec0::1", "4000::1",
]  # fmt: skip
PUBLIC = ["8.8.8.8", "1.1.1.1", "93.184.215.14", "2606:4700:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"]


@pytest.mark.parametrize("address", PRIVATE)
def test_these_addresses_are_not_public(address: str) -> None:
    assert not public(address)


@pytest.mark.parametrize("address", PUBLIC)
def test_these_are(address: str) -> None:
    assert public(address)


@given(st.ip_addresses(v=4))
def test_an_address_within_another_is_judged_as_itself(address: Any) -> None:
    assert public(f"::ffff:{address}") == public(f"64:ff9b::{address}") == public(str(address))
    assert not public(f"::{address}")


URLS = [
    "https://localhost/", "https://LOCALHOST./", "https://127.0.0.1/", "https://127.1/", "https://2130706433/",
    "https://0x7f000001/", "https://0x7f.1/", "https://0177.0.0.1/", "https://017700000001/", "https://0/",
    "https://[::1]/", "https://[::]/", "https://[::ffff:127.0.0.1]/", "https://[::ffff:7f00:1]/",
    "https://169.254.169.254/latest/meta-data/", "https://[64:ff9b::127.0.0.1]/", "https://[2002:7f00:1::]/",
    "https://10.0.0.1:8443/", "https://\uff11\uff12\uff17.0.0.1/", "https://127\u30020.0.1/",
    "http://8.8.8.8/", "ftp://8.8.8.8/", "//8.8.8.8/", "8.8.8.8", "https://", "https:///x", "javascript:alert(1)",
    "https://user:word@8.8.8.8/", "https://8.8.8.8/#x", "https://8.8.8.8:99999/", "https://[::1", "https://a b/",
    "https://8.8.8.8\r\nX: y/", "https://no.such.name.invalid/", "https://" + "a" * 64 + ".example/", "file:///etc/passwd",
    "https://8.8.8.8:0x50/", "https://[fe80::1%25lo]/",
]  # fmt: skip


@pytest.mark.parametrize("url", URLS)
def test_such_urls_are_refused_at_the_door(server: Server, url: str) -> None:
    response = server.client.post("/v1/webhooks", json={"url": url})
    assert response.status_code == 422, response.text
    problem(response, 422, "unusable-webhook")
    assert server.client.get("/v1/webhooks").json() == {"items": []}


@pytest.fixture(scope="module")
def inward() -> Sender:
    """For it every name leads inside."""
    return Sender(private=False, resolver=lambda host, port: ["10.0.0.1"])


@settings(deadline=None)
@given(authority=st.text(max_size=40), rest=st.text(max_size=40))
def test_no_text_is_more_than_refused(inward: Sender, authority: str, rest: str) -> None:
    for url in (authority + rest, f"https://{authority}/{rest}"):
        with pytest.raises(UnusableWebhook):
            inward.require(url)


@pytest.mark.parametrize("name", [url for url in URLS if url.startswith("https://") and "@" not in url][:20])
def test_none_of_them_gets_a_connection(name: str) -> None:
    sender = Sender(private=False)
    with Listener(saying(OK)) as listener:
        authority = name.removeprefix("https://").partition("/")[0]
        url = f"https://{authority if authority.endswith('8443') else f'{authority}:{listener.port}'}/"
        with pytest.raises((NotDelivered, UnusableWebhook)):
            sender.post(url, {}, b"{}")
        assert listener.connections == 0


@pytest.mark.parametrize("found", [["127.0.0.1"], ["8.8.8.8", "10.0.0.1"], ["::1"], ["fe80::1%1"], []])
def test_a_name_that_leads_inside_is_refused(found: Sequence[str]) -> None:
    sender = Sender(private=False, resolver=lambda host, port: found)
    with pytest.raises(UnusableWebhook):
        sender.require("https://hooks.example/")
    with pytest.raises(NotDelivered):
        sender.post("https://hooks.example/", {}, b"{}")


def test_a_name_is_looked_up_once_and_the_connection_goes_there() -> None:
    """A second answer, of another address, is what rebinding is about: nobody asks for it."""
    asked: list[tuple[str, int]] = []

    def resolver(host: str, port: int) -> Sequence[str]:
        asked.append((host, port))
        return ["127.0.0.1"] if len(asked) == 1 else ["127.0.0.2"]

    with Listener(saying(OK)) as listener:
        assert Sender(True, resolver).post(f"http://hooks.example:{listener.port}/a?b=c", {}, b"{}") == 204
        assert asked == [("hooks.example", listener.port)]
        headers, content = listener.requests[0]
    assert (headers[""], headers["host"], content) == (
        "POST /a?b=c HTTP/1.1",
        f"hooks.example:{listener.port}",
        b"{}",
    )


def test_this_machine_s_resolver_knows_every_spelling() -> None:
    for name in ("localhost", "127.1", "2130706433", "0x7f000001", "017700000001"):
        assert set(system(name, 80)) <= {"127.0.0.1", "::1"}


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webhook_sending, "SECONDS", 0.5)


def dripping(connection: socket.socket) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\n")
    while True:
        connection.sendall(b"X-Drip: 1\r\n")
        time.sleep(0.05)


def silent(connection: socket.socket) -> None:
    connection.settimeout(20)
    connection.recv(1)


def flood(connection: socket.socket) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\n")
    while True:
        connection.sendall(b"X-Flood: " + b"1" * 65536 + b"\r\n")


def informing(connection: socket.socket) -> None:
    while True:
        connection.sendall(b"HTTP/1.1 102 Processing\r\n\r\n")


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("answer", [dripping, silent, flood, informing], ids=lambda answer: answer.__name__)
def test_no_answer_takes_longer_than_its_time(answer: Callable[[socket.socket], None]) -> None:
    with Listener(answer) as listener:
        began = time.monotonic()
        with pytest.raises(NotDelivered):
            Sender(private=True).post(f"http://127.0.0.1:{listener.port}/", {}, b"{}")
        assert time.monotonic() - began < 5


def endless(connection: socket.socket) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n")
    while True:
        connection.sendall(b"0" * 65536)


@pytest.mark.usefixtures("quick")
def test_of_an_endless_answer_only_the_status_is_read() -> None:
    with Listener(endless) as listener:
        assert Sender(private=True).post(f"http://127.0.0.1:{listener.port}/", {}, b"{}") == 200


@pytest.mark.parametrize("answer", [b"", b"nonsense\r\n\r\n", b"HTTP/1.1 200", b"HTTP/1.1 99999 X\r\n\r\n"])
def test_nonsense_is_no_delivery(answer: bytes) -> None:
    with Listener(saying(answer)) as listener, pytest.raises(NotDelivered):
        Sender(private=True).post(f"http://127.0.0.1:{listener.port}/", {}, b"{}")


def test_a_redirect_is_not_followed() -> None:
    with Listener(saying(OK)) as inside:
        moved = f"HTTP/1.1 307 Moved\r\nLocation: http://127.0.0.1:{inside.port}/\r\nContent-Length: 0\r\n\r\n"
        with Listener(saying(moved.encode())) as listener:
            assert Sender(private=True).post(f"http://127.0.0.1:{listener.port}/", {}, b"{}") == 307
        assert inside.connections == 0


def test_proxies_of_the_environment_are_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    with Listener(saying(OK)) as proxy, Listener(saying(OK)) as listener:
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
        Sender(private=True).post(f"http://127.0.0.1:{listener.port}/", {}, b"{}")
        assert (proxy.connections, listener.connections) == (0, 1)


@pytest.fixture(scope="module")
def identity(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A key and a certificate for hooks.example, signed by itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "hooks.example")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("hooks.example")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path_factory.mktemp("tls") / "identity.pem"
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path.write_bytes(private + certificate.public_bytes(serialization.Encoding.PEM))
    return path


@pytest.mark.parametrize(("host", "good"), [("hooks.example", True), ("other.example", False)])
def test_the_certificate_is_that_of_the_name_not_of_the_address(identity: Path, host: str, good: bool) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(identity)
    trust = ssl.create_default_context(cafile=identity)
    sender = Sender(True, lambda host, port: ["127.0.0.1"], trust)
    names: list[str | None] = []
    context.sni_callback = lambda _, name, __: names.append(name)
    with Listener(saying(OK), context) as listener:
        if good:
            assert sender.post(f"https://{host}:{listener.port}/", {}, b"{}") == 204
        else:
            with pytest.raises(NotDelivered, match="CERTIFICATE_VERIFY_FAILED"):
                sender.post(f"https://{host}:{listener.port}/", {}, b"{}")
    assert names == [host]


def test_strangers_certificates_are_not_trusted(identity: Path) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(identity)
    with Listener(saying(OK), context) as listener, pytest.raises(NotDelivered, match="CERTIFICATE_VERIFY_FAILED"):
        Sender(True, lambda host, port: ["127.0.0.1"]).post(f"https://hooks.example:{listener.port}/", {}, b"{}")

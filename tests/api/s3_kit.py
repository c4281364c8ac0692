"""An S3-compatible store of the tests' own: moto, or OpenStack Swift with its s3api where that is installed."""

from __future__ import annotations

import getpass
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
import pytest
from service_kit import wait_for

ACCESS, SECRET = "test:tester", "testing"


class Store:
    """A running store. `bucket()` makes an empty bucket and gives its s3:// URL."""

    def __init__(self, endpoint: str) -> None:
        self.endpoint = endpoint

    def bucket(self) -> str:
        import boto3
        from botocore.config import Config

        name = f"b{uuid.uuid4().hex}"
        path_style = Config(s3={"addressing_style": "path"})
        client = boto3.client("s3", endpoint_url=self.endpoint, region_name="us-east-1", config=path_style)
        client.create_bucket(Bucket=name)
        client.close()
        return f"s3://{name}"

    def settings(self, **changes: object) -> dict[str, object]:
        return {"blobs": f"{self.bucket()}/some/prefix", "blob_endpoint": self.endpoint} | changes

    def demand_credentials(self, after: float) -> None:
        """From then on requests need a known key (moto's own switch); `inf`: never."""
        httpx.post(f"{self.endpoint}/moto-api/reset-auth", content=str(after)).raise_for_status()


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@contextmanager
def credentials(access: str = ACCESS, secret: str = SECRET) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ACCESS_KEY_ID", access)
        patch.setenv("AWS_SECRET_ACCESS_KEY", secret)
        yield


@contextmanager
def moto() -> Iterator[Store]:
    """Skips where moto's server is not installed."""
    pytest.importorskip("moto")
    pytest.importorskip("flask", reason="moto[server] is not installed")
    port = free_port()
    command = [Path(sys.executable).with_name("moto_server"), "-H", "127.0.0.1", "-p", str(port)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            store = Store(f"http://127.0.0.1:{port}")
            wait_for(lambda: answers(store.endpoint))
            with credentials():
                yield store
        finally:
            process.terminate()


SERVER = """[DEFAULT]
bind_ip = 127.0.0.1
bind_port = {port}
user = {user}
swift_dir = {folder}
devices = {folder}/devices
mount_check = false
workers = 0
[pipeline:main]
pipeline = {pipeline}
[app:{app}-server]
use = egg:swift#{app}
account_autocreate = true
"""
FILTERS = ("catch_errors", "gatekeeper", "memcache", "listing_formats", "s3api", "tempauth", "copy", "slo", "dlo")
"""s3api moves objects by copy, and keeps those in parts by slo; a cache has to be there, but no server of it."""


@contextmanager
def swift() -> Iterator[Store]:
    """One device, one replica, everything in this process group.   Skips where Swift is not installed."""
    if shutil.which("swift-proxy-server") is None:
        pytest.skip("OpenStack Swift is not installed (Debian: swift-proxy swift-account swift-container swift-object)")
    with tempfile.TemporaryDirectory(prefix="swift") as name, ExitStack() as stack:
        folder = Path(name)
        (folder / "devices" / "disk").mkdir(parents=True)
        (folder / "swift.conf").write_text("[swift-hash]\nswift_hash_path_prefix = a\nswift_hash_path_suffix = b\n")
        ports: list[int] = []
        for app in ("account", "container", "object", "proxy"):
            port = free_port()
            filters = FILTERS if app == "proxy" else ()
            text = SERVER.format(port=port, user=getpass.getuser(), folder=folder, app=app,
                                 pipeline=" ".join([*filters, f"{app}-server"]))  # fmt: skip
            text += "".join(f"[filter:{each}]\nuse = egg:swift#{each}\n" for each in filters)
            text = text.replace("#tempauth\n", "#tempauth\nuser_test_tester = testing .admin\n")
            text = text.replace("#memcache\n", "#memcache\nmemcache_servers = 127.0.0.1:9\n")
            (folder / f"{app}.conf").write_text(text)
            if app != "proxy":
                _ring(folder / f"{app}.builder", port)
            command = [f"swift-{app}-server", folder / f"{app}.conf"]
            quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
            process = stack.enter_context(
                subprocess.Popen(command, env=os.environ | {"SWIFT_DIR": name}, **quiet)  # type: ignore[call-overload]
            )
            stack.callback(process.kill)
            ports.append(port)
        for port in ports:
            wait_for(lambda port=port: answers(f"http://127.0.0.1:{port}"))
        with credentials():
            yield Store(f"http://127.0.0.1:{ports[-1]}")


def _ring(builder: Path, port: int) -> None:
    for command in (["create", "4", "1", "1"], ["add", f"r1z1-127.0.0.1:{port}/disk", "1"], ["rebalance"]):
        subprocess.run(["swift-ring-builder", builder, *command], check=True, stdout=subprocess.DEVNULL)


def answers(url: str) -> bool:
    try:
        return httpx.get(url).status_code < 500
    except httpx.TransportError:
        return False

"""Hostile uploads through a real server: each is refused, leaves nothing, and the next request is answered."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import io
import json
import os
import pickle
import subprocess
import sys
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import onnx
import pytest
import safetensors.numpy
from attacks import Attack
from fastapi_problem.error import Problem
from onnx import TensorProto, helper, numpy_helper
from service_kit import SMALL, Server, mlp, serving, small_request

from provenn.api.app import create_app
from provenn.api.jobs.child import Descriptor
from provenn.api.jobs.inspection import Inspected, InspectModel, InspectSpecification
from provenn.api.jobs.inspector import Inspector
from provenn.api.jobs.model import State
from provenn.api.settings import Settings
from provenn.models.sandbox import ACTIVE, SandboxUnavailable, layers
from provenn.verifier.errors import InvalidModel, ResourceLimit


def upload(server: Server, data: bytes, architecture: str | None = None) -> httpx.Response:
    fields = {} if architecture is None else {"architecture": architecture}
    return server.client.post("/v1/models", files={"file": ("upload", data)}, data=fields)


def zipped(files: Mapping[str, bytes]) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as target:
        for name, content in files.items():
            target.writestr(name, content)
    return made.getvalue()


def linked(name: str, target: str) -> bytes:
    """A tar with a symbolic link."""
    made, member = io.BytesIO(), tarfile.TarInfo(name)
    member.type, member.linkname = tarfile.SYMTYPE, target
    with tarfile.open(fileobj=made, mode="w") as archive:
        archive.addfile(member)
    return made.getvalue()


def network(nodes: list[onnx.NodeProto], constants: dict[str, np.ndarray], output: str = "y") -> onnx.ModelProto:
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", 1]) for name in ("x", output))
    stored = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "hostile", [x], [y], stored)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def external(location: str, weight: np.ndarray) -> bytes:
    """x W, four inputs and three outputs, with W in a file of its own."""
    made = onnx.load_from_string(mlp([4, 3]))
    tensor = made.graph.initializer[0]
    tensor.CopyFrom(numpy_helper.from_array(weight, tensor.name))
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    return bytes(made.SerializeToString())


WEIGHT = np.random.default_rng(3).standard_normal((3, 4)).astype(np.float32)

# --- what is read -------------------------------------------------------------------------------------------------


def test_a_bundle_becomes_one_file_that_can_be_downloaded_and_certified(server: Server) -> None:
    bundle = zipped({"net/net.onnx": external("w.bin", WEIGHT), "net/w.bin": WEIGHT.tobytes()})
    response = upload(server, bundle)
    assert response.status_code == 201, response.text
    model = response.json()
    download = server.client.get(f"/v1/models/{model['id']}/file")
    assert hashlib.sha256(download.content).hexdigest() == model["id"]
    assert (len(download.content), download.headers["content-length"]) == (model["bytes"], str(model["bytes"]))
    assert download.headers["content-disposition"] == f'attachment; filename="{model["id"]}.onnx"'
    assert not onnx.load_from_string(download.content).graph.initializer[0].external_data
    assert (model["format"], model["source_digest"]) == ("onnx-bundle", hashlib.sha256(bundle).hexdigest())
    assert upload(server, bundle).status_code == 200
    assert upload(server, download.content).json() == model
    assert server.client.get(response.headers["location"]).json() == model
    assert server.ended(server.submit(small_request(model["id"])))["state"] == State.SUCCEEDED


def test_a_compressed_network_has_the_id_of_what_is_in_it(server: Server) -> None:
    data = mlp([4, 6, 3], seed=11)
    packed = gzip.compress(data)
    model = upload(server, packed).json()
    assert (model["id"], model["format"]) == (hashlib.sha256(data).hexdigest(), "onnx")
    assert model["source_digest"] == hashlib.sha256(packed).hexdigest()
    assert upload(server, data).status_code == 200


def test_weights_come_with_their_layers(server: Server) -> None:
    weights = safetensors.numpy.save({"0.weight": WEIGHT, "0.bias": WEIGHT[:, 0].copy()})
    layout = {"input": [4], "layers": [{"type": "Linear", "in_features": 4, "out_features": 3}, {"type": "ReLU"}]}
    response = upload(server, weights, json.dumps(layout))
    assert response.status_code == 201, response.text
    model = response.json()
    assert (model["format"], model["input_shape"], model["output_shape"]) == ("safetensors", [4], [3])
    assert "architecture" in upload(server, weights).json()["detail"]
    assert "weights alone" in upload(server, SMALL, json.dumps(layout)).json()["detail"]
    assert upload(server, weights, "{").status_code == 422


def test_a_network_that_is_not_there_has_no_file(server: Server) -> None:
    assert server.client.get(f"/v1/models/{'0' * 64}/file").status_code == 404


# --- what is not --------------------------------------------------------------------------------------------------


def doubled() -> onnx.ModelProto:
    names = ["c", *(f"d{i}" for i in range(40))]
    nodes = [helper.make_node("Concat", [a, a], [b], axis=1) for a, b in pairwise(names)]
    return network([*nodes, helper.make_node("Add", ["x", "d39"], ["y"])], {"c": np.float32([[1]])})


def nested() -> onnx.ModelProto:
    made = network([helper.make_node("f0", ["x"], ["y"], domain="d")], {})
    made.opset_import.append(helper.make_opsetid("d", 1))
    for i in range(25):
        twice = [helper.make_node(f"f{i + 1}", [a], [b], domain="d") for a, b in pairwise("abc")]
        made.functions.append(helper.make_function("d", f"f{i}", ["a"], ["c"], twice, [helper.make_opsetid("", 17)]))
    return made


def filled() -> onnx.ModelProto:
    nodes = [helper.make_node("ConstantOfShape", ["s"], ["c"]), helper.make_node("Add", ["x", "c"], ["y"])]
    return network(nodes, {"s": np.int64([65536, 65536])})


def inflating(megabytes: int) -> bytes:
    """The gzip file of that many megabytes of zeros, less its end: one megabyte's deflate block, again and again."""
    stream = zlib.compressobj(9, zlib.DEFLATED, -15)
    block = stream.compress(bytes(1 << 20)) + stream.flush(zlib.Z_FULL_FLUSH)
    return b"\x1f\x8b\x08" + bytes(7) + block * megabytes


class Evil:
    """Pickled, it would write a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, tuple[Path]]:
        return Path.touch, (self.path,)


HOSTILE: dict[str, tuple[bytes, int]] = {
    "external data of the machine": (external("/etc/passwd", WEIGHT), 422),
    "external data of the folder above": (zipped({"net.onnx": external("../passwd", WEIGHT)}), 422),
    "a link to the machine's files": (linked("net.onnx", "/etc/passwd"), 422),
    "a name that leads out": (zipped({"../net.onnx": SMALL}), 422),
    "two networks": (zipped({"a.onnx": SMALL, "b.onnx": SMALL}), 422),
    "an archive in an archive": (zipped({"net.onnx": SMALL, "net.zip": zipped({"net.onnx": SMALL})}), 422),
    "a zip bomb": (
        zipped({"w.bin": bytes(1000)}).replace((1000).to_bytes(4, "little"), (1 << 30).to_bytes(4, "little")),
        413,
    ),
    "a gzip bomb": (inflating(600), 413),
    "a tensor of 65536 x 65536": (filled().SerializeToString(), 413),
    "forty doublings": (doubled().SerializeToString(), 413),
    "a cycle": (network([helper.make_node("Add", ["x", "y"], ["y"])], {}).SerializeToString(), 422),
    "nested functions": (nested().SerializeToString(), 422),
    "random bytes": (np.random.default_rng(5).bytes(10_000), 422),
    "a broken pickle": (b"\x80\x04\x95rest", 422),
}


@pytest.fixture(scope="module")
def roomy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("uploads"), upload_limit=1 << 23) as running:
        yield running


@pytest.mark.parametrize("name", HOSTILE)
def test_it_is_refused_and_the_service_goes_on(roomy: Server, name: str) -> None:
    data, status = HOSTILE[name]
    response = upload(roomy, data)
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    assert response.json()["type"].endswith("resource-limit" if status == 413 else "invalid-model")
    assert roomy.client.get("/healthz").status_code == 200
    assert upload(roomy, SMALL).status_code in (200, 201)
    assert [m["id"] for m in roomy.client.get("/v1/models").json()["items"]] == [hashlib.sha256(SMALL).hexdigest()]


def test_pickles_are_refused_with_the_command_that_exports(roomy: Server, tmp_path: Path) -> None:
    evil = Evil(tmp_path / "was here")
    response = upload(roomy, pickle.dumps(evil))
    assert response.status_code == 422
    assert "provenn export" in response.json()["detail"]
    assert not evil.path.exists()


def test_what_was_not_kept_is_gone(roomy: Server) -> None:
    folder = roomy.service.settings.data_dir
    upload(roomy, zipped({"net.onnx": SMALL, "w.bin": b"1"}))
    upload(roomy, zipped({"../net.onnx": SMALL}))
    assert [*(folder / "work").iterdir()] == []


# --- specifications -----------------------------------------------------------------------------------------------


def test_a_long_property_is_read(inspector: Inspector) -> None:
    """Two megabytes take 0.8 s of a processor, seventeen 9 s."""
    line = "(declare-const X_{0} Real)\n(assert (>= X_{0} 0.123456789))\n(assert (<= X_{0} 0.987654321))\n"
    text = "".join(line.format(i) for i in range(20_000)) + "(declare-const Y_0 Real)\n(assert (>= Y_0 1.0))\n"
    assert inspector.inspect(InspectSpecification(text.encode(), 20_000, 1)) == {"cases": 1}


@pytest.mark.parametrize("text", [b"(" * 10**5, b"(assert (and " * 10**5, b"(assert " + b"(- " * 10**5])
def test_a_property_as_deep_as_crashes_parsers_is_refused(inspector: Inspector, text: bytes) -> None:
    with pytest.raises(Problem) as caught:
        inspector.inspect(InspectSpecification(text, 4, 3))
    assert caught.value.status in (413, 422)


def test_requests_are_limited_while_they_stream(server: Server) -> None:
    """No header says how long the body is. (Of uploads: test_routes.)"""
    body = (b" " * (1 << 16) for _ in range(64))
    response = server.client.post("/v1/jobs", content=body, headers={"content-type": "application/json"})
    assert (response.status_code, response.json()["type"]) == (413, "urn:provenn:problem:resource-limit")
    assert server.client.get("/healthz").status_code == 200


# --- a file that has taken over its reader ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def inspector() -> Inspector:
    return Inspector(Settings(inspect_seconds=20, memory_limit_mb=512))


def test_a_task_answers(inspector: Inspector) -> None:
    assert inspector.inspect(Attack("answer", [1, 2])) == {"result": [1, 2]}


def test_whatever_a_reader_raises_is_the_files_fault(inspector: Inspector, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(Problem) as caught:
        inspector.inspect(Attack("stumble"))
    assert (caught.value.status, caught.value.detail) == (422, "the reader could not take it (UnicodeDecodeError)")
    assert "invalid start byte" in caplog.text
    assert "\n" not in caplog.records[-1].getMessage()


def test_a_crash_is_the_files_fault(inspector: Inspector) -> None:
    with pytest.raises(InvalidModel, match=r"the reader could not take it \(signal 11; its memory limit is 512 MiB\)"):
        inspector.inspect(Attack("crash"))


def test_memory_and_time_are_limits() -> None:
    with pytest.raises(Problem) as caught:
        Inspector(Settings(inspect_memory_mb=300)).inspect(Attack("allocate", 1 << 30))
    assert (caught.value.status, caught.value.detail) == (413, "memory exceeds the limit of 300 MiB to read a file")
    for attack in (Attack("sleep", 60.0), Attack("spin")):
        with pytest.raises((ResourceLimit, InvalidModel), match=r"time to read the file|signal 24"):
            Inspector(Settings(inspect_seconds=1)).inspect(attack)


def test_the_machines_files_and_the_blobs_are_out_of_reach(server: Server, inspector: Inspector) -> None:
    if layers()["files"] != ACTIVE:
        pytest.skip(f"no layer 'files' here: {layers()['files']}")
    model = server.model(SMALL)
    data = server.service.settings.data_dir
    paths = ["/etc/passwd", f"/proc/{os.getpid()}/environ", str(data / "blobs" / model[:2] / model)]
    assert inspector.inspect(Attack("read", paths)) == {"result": ["PermissionError"] * 3}


@pytest.mark.parametrize(
    "said",
    [
        b"[" * 100_000,
        b"\xff\xfe",
        b"7",
        b'{"answer": 7}',
        b'{"problem": {}}',
        b'{"problem": 7}',
        b'{"problem": {"status": 99999, "title": "t", "type": "t", "detail": "d"}}',
        b'{"problem": {"status": [1], "title": "t", "type": "t", "detail": "d"}}',
        b"{}",
    ],
)
def test_a_child_is_not_believed(inspector: Inspector, said: bytes) -> None:
    with pytest.raises(InvalidModel):
        inspector.inspect(Attack("say", said))


SOUND = {"format": "onnx", "as_is": True, "summary": {}}


@pytest.mark.parametrize("change", [{}, {"format": "other"}, {"as_is": 1}, {"summary": None}, {"more": 1}])
def test_an_answer_of_another_form_is_refused(inspector: Inspector, change: dict[str, Any]) -> None:
    with pytest.raises(InvalidModel, match="no sound answer"):
        Inspected.of(inspector.inspect(Attack("answer", None)) if not change else SOUND | change)


def test_a_reader_can_write_the_canonical_file_alone(inspector: Inspector) -> None:
    bundle = zipped({"net.onnx": external("w.bin", WEIGHT), "w.bin": WEIGHT.tobytes()})
    with tempfile.TemporaryFile() as sent, tempfile.TemporaryFile() as made:
        sent.write(bundle)
        sent.flush()
        task = InspectModel(Descriptor(sent.fileno()), Descriptor(made.fileno()), None)
        found = Inspected.of(inspector.inspect(task))
        made.seek(0)
        assert hashlib.sha256(made.read()).hexdigest() == found.summary.sha256
        sent.seek(0)
        assert sent.read() == bundle
    assert (found.as_is, found.format) == (False, "onnx-bundle")


# --- the service itself -------------------------------------------------------------------------------------------


def test_a_child_inherits_no_secret() -> None:
    """Neither its environment, nor the file the kernel shows of it, nor the stack it began with."""
    code = """
import os
os.environ |= {"PROVENN_TEST_SECRET": "hunter" + "2-secret", "OMP_TEST_VARIABLE": "1"}
from attacks import found_secret
from provenn.api.jobs import child
child.PRELOAD.clear()
made = child.Child(found_secret, "hunter", "2-secret")
print(made._pipe.recv_bytes().decode(), made.close(), os.environ["PROVENN_TEST_SECRET"])
"""
    path = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=os.environ | {"PYTHONPATH": path}
    )
    assert done.stdout.strip() == "([], (False, True, True)) 0 hunter2-secret", done


def test_a_machine_without_a_demanded_layer_is_refused() -> None:
    """A kernel that refuses namespaces, by a filter that the trial process inherits."""
    if layers()["namespaces"] != ACTIVE or layers()["syscalls"] != ACTIVE:
        pytest.skip(f"no layers to take away here: {dict(layers())}")
    code = """
import pyseccomp
from provenn.models.sandbox import SandboxUnavailable, layers, require
lacking = pyseccomp.SyscallFilter(pyseccomp.ALLOW)
lacking.add_rule(pyseccomp.ERRNO(1), "unshare")
lacking.load()
require(["files", "syscalls"])
try:
    require(["files", "namespaces"])
except SandboxUnavailable as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip().endswith("demands: namespaces (unshare: Operation not permitted)"), done


def test_a_server_whose_demand_is_not_met_does_not_start(tmp_path: Path) -> None:
    app = create_app(Settings(data_dir=tmp_path / "data", require_sandbox="files,magic"))

    async def start() -> None:
        async with app.router.lifespan_context(app):
            raise AssertionError("it has started")

    with pytest.raises(SandboxUnavailable, match="no layer 'magic'"):
        asyncio.run(start())
    assert not (tmp_path / "data").exists()

"""A real server in a thread, real networks, and waiting without sleeping blindly."""

from __future__ import annotations

import io
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar

import httpx
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from provenn.api import app as api
from provenn.api.service import Service
from provenn.api.settings import Settings

DEADLINE = 60.0
T = TypeVar("T")


def wait_for(what: Callable[[], T | None], seconds: float = DEADLINE) -> T:
    """The first truthy answer of `what`; fails after a deadline."""
    end, pause = time.monotonic() + seconds, 0.005
    while time.monotonic() < end:
        if answer := what():
            return answer
        time.sleep(pause)
        pause = min(1.2 * pause, 0.05)  # who looks without a rest takes the time from what is waited for
    raise AssertionError(f"nothing came within {seconds} s")


def mlp(widths: list[int], seed: int = 0, activation: str = "Relu", poison: float | None = None) -> bytes:
    """A random multilayer perceptron as an ONNX file; `poison` replaces one weight."""
    generator = np.random.default_rng(seed)
    nodes, constants, value = [], [], "x"
    for layer, (inputs, outputs) in enumerate(pairwise(widths)):
        weight = (generator.standard_normal((outputs, inputs)) / inputs**0.5).astype(np.float32)
        if poison is not None:
            weight[0, 0] = poison
        bias = (0.1 * generator.standard_normal(outputs)).astype(np.float32)
        constants += [numpy_helper.from_array(weight, f"w{layer}"), numpy_helper.from_array(bias, f"b{layer}")]
        last = layer == len(widths) - 2
        result = "y" if last else f"z{layer}"
        nodes.append(helper.make_node("Gemm", [value, f"w{layer}", f"b{layer}"], [result], f"gemm{layer}", transB=1))
        if not last:
            nodes.append(helper.make_node(activation, [result], [f"a{layer}"], f"act{layer}"))
        value = f"a{layer}"
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", widths[0]])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", widths[-1]])
    graph = helper.make_graph(nodes, "mlp", [x], [y], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


SMALL = mlp([4, 8, 3])
LARGE = mlp([64, 256, 256, 256, 10])


class Server:
    """A running service and a client of it."""

    def __init__(self, url: str, service: Service) -> None:
        self.url, self.service = url, service
        # The server ends connections that are idle for 5 seconds: one that is as old is not used again.
        self.client = httpx.Client(base_url=url, timeout=DEADLINE, limits=httpx.Limits(keepalive_expiry=2))

    def upload(self, data: bytes, name: str = "network.onnx") -> httpx.Response:
        return self.client.post("/v1/models", files={"file": (name, data)})

    def model(self, data: bytes) -> str:
        response = self.upload(data)
        assert response.status_code in (200, 201), response.text
        return str(response.json()["id"])

    def dataset(self, inputs: Any, labels: Any) -> str:
        """The id of these inputs, uploaded."""
        file = io.BytesIO()
        np.savez(file, x=np.array(inputs, np.float32), y=np.array(labels))
        answer = self.client.post("/v1/datasets", files={"file": ("data.npz", file.getvalue())})
        assert answer.status_code in (200, 201), answer.text
        return str(answer.json()["id"])

    def submit(self, body: dict[str, Any]) -> str:
        response = self.client.post("/v1/jobs", json=body)
        assert response.status_code in (200, 202), response.text
        return str(response.json()["id"])

    def job(self, job: str) -> dict[str, Any]:
        return dict(self.client.get(f"/v1/jobs/{job}").json())

    def ended(self, job: str) -> dict[str, Any]:
        def over() -> dict[str, Any] | None:
            found = dict(self.client.get(f"/v1/jobs/{job}", params={"wait": 10}).json())
            return None if found["state"] in ("queued", "running") else found

        return wait_for(over)

    def pid(self, job: str) -> int:
        """The worker of a running job, as soon as there is one."""
        return wait_for(lambda: self.service.engine.worker_pids(job))[0]

    def slow_job(self, **changes: Any) -> str:
        """A job of ten thousand items: far longer than any test."""
        return self.submit({"model": self.model(LARGE), **slow_request(), **changes})


def slow_request() -> dict[str, Any]:
    images = np.random.default_rng(0).random((100, 64)).round(3).tolist()
    radii = [round(0.001 * (1 + k), 4) for k in range(100)]
    return {
        "inputs": {"inputs": images, "labels": [0] * 100, "epsilons": radii},
        "method": "crown",
        "budget": {"seconds": 600},
    }


def small_request(model: str, **changes: Any) -> dict[str, Any]:
    inputs = {"inputs": [[0.1, 0.2, 0.3, 0.4]], "labels": [1], "epsilons": [0.01], "clip": [0, 1], **changes}
    return {"model": model, "inputs": inputs}


@contextmanager
def serving(folder: Path, **settings: Any) -> Iterator[Server]:
    """A server on a free port, warm, over this data directory; stopped gracefully at the end."""
    server = api.Server(
        Settings(
            data_dir=folder, port=0, threads=1, **({"drain_seconds": 0, "part_items": 0, "part_seconds": 0} | settings)
        ),
        log_level="warning",
    )
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        wait_for(lambda: server.started)
        port = server.servers[0].sockets[0].getsockname()[1]
        running = Server(f"http://127.0.0.1:{port}", server.app.state.service)
        with running.client:
            wait_for(lambda: running.client.get("/readyz").status_code == 200)
            yield running
    finally:
        server.should_exit = True
        thread.join()

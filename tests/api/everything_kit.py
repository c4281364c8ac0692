"""A server in this process, asked one of everything."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
from service_kit import SMALL, Server, serving, small_request

BOX = [f"(declare-const X_{k} Real)(assert (>= X_{k} 0.0))(assert (<= X_{k} 0.1))" for k in range(4)]
PROPERTY = "\n".join([*BOX, *(f"(declare-const Y_{k} Real)" for k in range(3)), "(assert (>= Y_0 1000.0))"])
POINT = [0.1, 0.2, 0.3, 0.4]
REGION = {"input": POINT, "epsilon": 0.01}


def ask(folder: str) -> None:
    """Prints the modules that are loaded afterwards."""
    with serving(Path(folder), workers=2, part_items=1, part_seconds=0.01) as server:
        assert server.client.get("/v1/backends").json()
        model = server.model(SMALL)
        dataset = server.dataset(np.random.default_rng(0).random((6, 4)), [0, 1, 2, 0, 1, 2])
        batch = server.client.post("/v1/batches", json={"model": model, "dataset": dataset, "epsilons": [0.01]}).json()
        others = [server.submit({"model": model, "budget": {"seconds": 5}, **each}) for each in questions(dataset)]
        for job in (batch["id"], *others):
            found = server.ended(job)
            assert found["state"] == "succeeded", found
            for item in found["result"]["items"]:
                if item["certificate"] is not None:
                    look(server, item["certificate"])
    print(*sys.modules)


def questions(dataset: str) -> list[dict[str, Any]]:
    inputs = small_request("", inputs=[POINT] * 4, labels=[1] * 4)["inputs"]
    return [
        {"inputs": inputs},
        {"inputs": inputs, "method": "lipschitz"},
        {"specification": PROPERTY},
        {"lipschitz": {"rows": "0"}},
        {"jacobian": {"region": REGION}},
        {"monotonicity": {"region": REGION, "features": [0]}},
        {"tightness": {"inputs": [POINT], "epsilon": 0.1}},
        {"patterns": {"dataset": dataset}},
        {"radius": {"input": POINT, "label": 1}},
    ]


def look(server: Server, certificate: str) -> None:
    assert server.client.get(f"/v1/certificates/{certificate}/bundle").status_code == 200
    assert server.client.post(f"/v1/certificates/{certificate}/check").json()["accepted"]

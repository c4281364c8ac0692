"""Specification documents over REST: resolved at the door, about networks that they compose, which are kept."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper
from service_kit import Server, mlp

import provenn
from provenn.models.executor import OnnxExecutor
from provenn.models.parametrization import Parametrized
from provenn.models.specification.documents import kinds
from provenn.verifier.certificate.bundle import load_zip
from provenn.verifier.errors import InvalidSpecification

FORMAT = "provenn-specification/1"
INPUT = [0.1, 0.2, 0.3, 0.4]
GIVEN = mlp([4, 8, 3], seed=9)
LABEL = int(OnnxExecutor(GIVEN).run(np.array([INPUT], np.float32)).argmax())
BRIGHT = {"type": "brightness", "range": [-0.01, 0.01]}
FAR = {"type": "linear", "directions": [[1, -1, 1, -1], [1, 1, 0, 1]], "range": [-99, 99]}
RISING = {"format": FORMAT, "kind": "monotone", "features": [0], "rows": "0", "expect": "increasing"}


def perturbed(*perturbations: dict[str, Any]) -> dict[str, Any]:
    members = {"input": INPUT, "label": LABEL, "perturbations": list(perturbations)}
    return {"format": FORMAT, "kind": "perturbation", **members}


def ask(server: Server, document: dict[str, Any] | str) -> dict[str, Any]:
    body = {"model": server.model(GIVEN), "specification": document, "budget": {"seconds": 20}}
    return server.ended(server.submit(body))


def test_what_a_document_composes_is_a_network_of_the_project(server: Server) -> None:
    document = perturbed(BRIGHT)
    job = ask(server, document)
    (item,) = job["result"]["items"]
    assert (item["verdict"], item["assurance"]) == ("verified", "checked")
    composed = server.client.get(f"/v1/models/{job['model']}/file").content
    assert server.client.get(f"/v1/models/{job['model']}").json()["input_shape"] == [1]
    assert server.client.get(f"/v1/jobs/{job['id']}/request").json()["model"] == job["model"]
    files = load_zip(server.client.get(f"/v1/certificates/{item['certificate']}/bundle").content)
    here = provenn.check(files, GIVEN, json.dumps(document).encode())
    assert here.margin == provenn.check(files, composed).margin
    assert server.client.post(f"/v1/certificates/{item['certificate']}/check").json()["accepted"]
    again = server.client.post("/v1/jobs", json={"model": server.model(GIVEN), "specification": document})
    assert again.json()["verdict"] == "verified"


def test_a_counterexample_in_parameters_is_an_input_too(server: Server) -> None:
    job = ask(server, perturbed(FAR))
    (item,) = job["result"]["items"]
    assert (item["verdict"], item["assurance"]) == ("falsified", "replayed")
    run = Parametrized.of(server.client.get(f"/v1/models/{job['model']}/file").content, GIVEN)
    assert run is not None
    shown = item["counterexample"]
    point = np.array([shown["input"]], np.float32)
    assert run.image(point).ravel().tolist() == shown["original"]
    original = np.array([shown["original"]], np.float32)
    assert OnnxExecutor(GIVEN).run(original).ravel().tolist() == shown["output"]
    assert int(np.argmax(shown["output"])) != LABEL


def test_documents_about_derivatives_and_in_toml(server: Server) -> None:
    region = {"input": INPUT, "epsilon": 0.01}
    verdicts = [
        ask(server, {**RISING, "expect": way, "region": region})["verdict"] for way in ("increasing", "decreasing")
    ]
    assert sorted(verdicts) == ["falsified", "verified"]
    lines = [f'format = "{FORMAT}"', 'kind = "ball"', f"input = {INPUT}", f"label = {LABEL}", "epsilon = 0.001"]
    job = ask(server, "\n".join(lines))
    assert (job["kind"], job["verdict"], job["model"]) == ("specification", "verified", server.model(GIVEN))


REFUSED: list[tuple[dict[str, Any] | str, str]] = [
    (perturbed(BRIGHT | {"range": [1, 0]}), '"perturbations"[0]."range": its first end must not be above its second'),
    ({"format": FORMAT, "kind": "vnnlib", "file": "/etc/passwd"}, "it refers to the file '/etc/passwd': over REST"),
    ({"format": FORMAT, "kind": "vnnlib", "file": "0" * 64}, "over REST other files are networks that were uploaded"),
    ({**RISING, "region": {"input": [1], "epsilon": 1}}, "the centre has 1 numbers for 4 inputs"),
    ({**RISING, "region": {"input": INPUT, "epsilon": "8/255"}}, '"region"."epsilon": a service takes radii'),
    ("kind = 3", '"format": a document has'),
    ("[", "line 1: neither VNN-LIB"),
]


@pytest.mark.parametrize(("document", "said"), REFUSED, ids=[said for _, said in REFUSED])
def test_what_makes_no_sense_is_refused_at_the_door(server: Server, document: Any, said: str) -> None:
    answer = server.client.post("/v1/jobs", json={"model": server.model(GIVEN), "specification": document})
    assert answer.status_code == 422, answer.text
    assert answer.json()["type"].endswith("invalid-specification")
    assert said in answer.json()["detail"]


def test_schemas_are_published(server: Server) -> None:
    listed = server.client.get("/v1/schemas").json()
    assert {each["name"] for each in listed} == {"specification", "gate", *kinds()}
    for each in listed:
        schema = server.client.get(f"/v1/schemas/{each['name']}").json()
        assert (schema["title"], schema["$schema"][:23]) == (each["title"], "https://json-schema.org")
    assert server.client.get("/v1/schemas/nothing").status_code == 404


def test_a_client_proves_documents_and_believes_nothing(server: Server) -> None:
    with provenn.Client(server.url) as client:
        found = client.prove(GIVEN, perturbed(BRIGHT), timeout=20)
        assert (found.verdict, found.assurance) == ("verified", "checked")
        assert provenn.check(found.certificate, GIVEN, json.dumps(perturbed(BRIGHT)).encode()).margin == found.margin
        falsified = client.prove(GIVEN, perturbed(FAR), timeout=20)
        assert falsified.verdict == "falsified"
        shown = falsified.counterexample
        assert shown.output == OnnxExecutor(GIVEN).run(np.array([shown.original], np.float32)).ravel().tolist()
        rising = {**RISING, "region": {"input": INPUT, "epsilon": 0.01}}
        both = [client.prove(GIVEN, {**rising, "expect": way}, timeout=20) for way in ("increasing", "decreasing")]
        assert sorted(each.verdict for each in both) == ["falsified", "verified"]
        own = [provenn.prove(GIVEN, {**rising, "expect": way}).verdict for way in ("increasing", "decreasing")]
        assert own == [each.verdict for each in both]
        nothing = (
            "(declare-const X_0 Real)(declare-const Y_0 Real)(assert (<= X_0 0))(assert (>= X_0 1))(assert (>= Y_0 0))"
        )
        empty = client.prove(mlp([1, 2, 1]), nothing.encode())
        assert (empty.verdict, empty.assurance) == ("verified", "vacuous")


def layer(matrix: list[list[float]], *before: str) -> bytes:
    """x -> before(x) matrix, one vector to one."""
    chain = ["x", *before, "y"]
    nodes = [helper.make_node(each, [chain[k]], [chain[k + 1]]) for k, each in enumerate(before)]
    nodes.append(helper.make_node("MatMul", [chain[-2], "m"], ["y"]))
    ends = [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, len(matrix)])]
    ends.append(helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, len(matrix[0])]))
    stored = [numpy_helper.from_array(np.array(matrix, np.float32), "m")]
    graph = helper.make_graph(nodes, "layer", ends[:1], ends[1:], stored)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    return bytes(made.SerializeToString())


def loop(server: Server) -> dict[str, Any]:
    """A job's members: x' = 1.1 x + u, u = -x/2, V = |x|, the networks by their ids."""
    dynamics, candidate = (server.model(each) for each in (layer([[1.1], [1.0]]), layer([[1.0]], "Abs")))
    named = {"format": FORMAT, "kind": "lyapunov", "time": "discrete", "dynamics": dynamics, "candidate": candidate}
    levels = {"lower": [-1], "upper": [1], "small": [0.1], "decrease": 0.02, "level": 0.9, "inner": 0.15}
    return {"model": server.model(layer([[-0.5]])), "specification": {**named, **levels}, "budget": {"seconds": 20}}


def test_other_networks_are_named_by_their_ids(server: Server) -> None:
    job = server.ended(server.submit(loop(server)))
    assert (job["verdict"], job["result"]["items"][0]["assurance"]) == ("verified", "checked")


def test_float32_executions_of_a_loop_are_refused_at_the_door(server: Server, tmp_path: Path) -> None:
    """Those of a perturbed image are not: they begin with what float32 makes of the parameters."""
    asked, said = loop(server), '"kind": semantics float32 is not for lyapunov'
    answer = server.client.post("/v1/jobs", json=asked | {"semantics": "float32"})
    assert (answer.status_code, said in answer.json()["detail"]) == (422, True)
    files = {"dynamics": layer([[1.1], [1.0]]), "candidate": layer([[1.0]], "Abs")}
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    document = asked["specification"] | {name: name for name in files}
    (tmp_path / "loop.json").write_text(json.dumps(document))
    with provenn.Client(server.url) as client:
        with pytest.raises(InvalidSpecification, match=said):
            client.prove(layer([[-0.5]]), tmp_path / "loop.json", semantics="float32")
        assert client.prove(GIVEN, perturbed(BRIGHT), semantics="float32", timeout=20).assurance == "deployed"
    body = {"model": server.model(GIVEN), "specification": perturbed(BRIGHT), "semantics": "float32"}
    (item,) = server.ended(server.submit(body))["result"]["items"]
    assert (item["verdict"], item["assurance"]) == ("verified", "deployed")

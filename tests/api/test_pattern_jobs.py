"""Activation patterns by a service: mined from a dataset by one job, proved by the next; refusals; client and gate."""

from __future__ import annotations

import asyncio
import json
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from cli_kit import two_layers
from service_kit import Server

import provenn
from provenn.api.activation_patterns import Mining, Samples, coverage, mine
from provenn.api.batch.data import Data
from provenn.api.client import AsyncClient, Client, RequestRefused, UnexpectedAnswer
from provenn.api.client.evidence import Answer
from provenn.api.client.mining import Judge
from provenn.api.jobs import mining
from provenn.api.pattern_schemas import PatternsRequest
from provenn.api.results import Origin
from provenn.api.schemas import Item
from provenn.models.activation_pattern import read_pattern
from provenn.models.executor import OnnxExecutor
from provenn.solvers.base import silent
from provenn.verifier.certificate.bundle import load_zip
from provenn.verifier.errors import ResourceLimit
from provenn.verifier.spec_json import FORMAT

MODEL = two_layers([[1, -1], [-1, 1], [1, 1]], [0, 0, 0], [[1, 0, 0.5], [0, 1, 0.5]])
"""y = (relu(x0 - x1), relu(x1 - x0)) + relu(x0 + x1) / 2: class 0 where x0 > x1."""
INPUTS = np.array([[0.9, 0.2], [0.8, 0.1], [0.7, 0.6], [0.1, 0.9], [0.2, 0.7], [0.3, 0.5]], np.float32)
LABELS = np.array([0, 0, 0, 1, 1, 1])
DATA = Data(INPUTS, tuple(LABELS.tolist()), tuple("abcdef"))
HELD = Data(np.array([[0.5, 0.4], [-0.5, -0.6], [0.1, 0.2]], np.float32), (0, 0, 0), ("g", "h", "i"))
BOX = {"lower": "0.1", "upper": "1", "margin": "0.05"}


@pytest.fixture(scope="module")
def dataset(server: Server) -> str:
    return server.dataset(INPUTS, LABELS)


def asked(pattern: Any, **changes: Any) -> dict[str, Any]:
    return {"format": FORMAT, "kind": "activation-pattern", "pattern": pattern, **BOX, **changes}


def test_one_job_mines_and_the_next_proves(server: Server, dataset: str) -> None:
    held = server.dataset(HELD.inputs, HELD.labels)
    body = {"model": server.model(MODEL), "patterns": {"dataset": dataset, "held_out": held}}
    job = server.ended(server.submit(body))
    assert (job["kind"], job["state"], job["verdict"]) == ("patterns", "succeeded", "measured"), job
    (item,) = job["result"]["items"]
    assert (item["method"], item["certificate"]) == ("patterns", None)
    found = item["patterns"]
    here = mine(MODEL, Samples(INPUTS, LABELS), Mining())
    assert found["patterns"] == [json.loads(each.as_bytes()) for each in here]
    assert [row["class"] for row in found["coverage"]] == [0, 1]
    rows = coverage(MODEL, here, Samples(HELD.inputs, np.array(HELD.labels)))
    told = [(each["samples"], each["followed"], each["precision"]) for each in found["coverage"]]
    assert told == [(row.samples, row.followed, row.precision) for row in rows] == [(3, 1, 1.0), (0, 0, 0.0)]
    assert found["held_out"] == 3

    document = asked(found["patterns"][0])
    proof = server.ended(server.submit({"model": body["model"], "specification": document}))
    (item,) = proof["result"]["items"]
    assert (item["verdict"], item["assurance"]) == ("verified", "checked")
    files = load_zip(server.client.get(f"/v1/certificates/{item['certificate']}/bundle").content)
    assert provenn.check(files, MODEL, json.dumps(document).encode()).verdict == "verified"


def refused(server: Server, **patterns: Any) -> tuple[int, str]:
    answer = server.client.post("/v1/jobs", json={"model": server.model(MODEL), "patterns": patterns})
    return answer.status_code, answer.text


def test_what_makes_no_sense_is_refused_at_the_door(server: Server, dataset: str) -> None:
    wide, many = server.dataset([[1.0, 2.0, 3.0]], [0]), server.dataset([[1.0, 2.0]], [2])
    wrong: list[tuple[int, str, dict[str, Any]]] = [
        (404, "dataset", {"dataset": "0" * 64}),
        (404, "dataset", {"dataset": dataset, "held_out": "0" * 64}),
        (422, "/patterns/dataset", {"dataset": wide}),
        (422, "/patterns/held_out", {"dataset": dataset, "held_out": many}),
        (422, "/patterns/classes/1", {"dataset": dataset, "classes": [0, 2]}),
        (422, "twice", {"dataset": dataset, "layers": ["a", "a"]}),
        (422, "above 1/2", {"dataset": dataset, "delta": "1/2"}),
        (422, "either held_out or share", {"dataset": dataset, "held_out": dataset, "share": 0.5}),
    ]
    for status, words, patterns in wrong:
        code, text = refused(server, **patterns)
        assert code == status, text
        assert words in text


def test_what_is_seen_only_in_the_data_ends_the_job(server: Server, dataset: str) -> None:
    for patterns, words in (
        ({"dataset": dataset, "layers": ["b"]}, "no ReLU 'b'"),
        ({"dataset": dataset, "share": 0.1}, "0.1"),
    ):
        job = server.ended(server.submit({"model": server.model(MODEL), "patterns": patterns}))
        assert job["state"] == "failed"
        assert job["error"]["type"].endswith("invalid-specification")
        assert words in job["reason"]


def test_a_client_mines_and_proves(server: Server) -> None:
    with Client(server.url) as client:
        found = client.patterns(MODEL, DATA, delta="2/3", share=0.34)
        assert found.held_out == 2
        assert [(each.label, each.samples, each.delta) for each in found.patterns] == [(0, 2, "2/3"), (1, 2, "2/3")]
        assert [row.recall for row in found.coverage] == [1, 1]
        result = client.prove(MODEL, asked(found.patterns[0].model_dump()), timeout=20)
        assert (result.verdict, result.assurance) == ("verified", "checked")
        wrong = client.prove(MODEL, asked(found.patterns[0].model_dump() | {"class": 1}), timeout=20)
        assert wrong.verdict == "falsified"
        point = np.array([wrong.counterexample.input], np.float32)
        assert OnnxExecutor(MODEL).run(point).argmax() == 0
        with pytest.raises(RequestRefused, match="the classes are 0 to 1"):
            client.patterns(MODEL, DATA, classes=[7])
        with pytest.raises(provenn.ProvennError, match="above 1/2"):
            client.patterns(MODEL, DATA, delta=0.5)

    async def awaited() -> Any:
        async with AsyncClient(server.url) as client:
            return await client.patterns(MODEL, DATA, HELD, classes=[1])

    (pattern,) = asyncio.run(awaited()).patterns
    assert pattern == mine(MODEL, Samples(INPUTS, LABELS), Mining(classes=(1,)))[0]


def test_a_client_believes_no_pattern_that_its_counts_do_not_make() -> None:
    (pattern,) = mine(MODEL, Samples(INPUTS, LABELS), Mining(Fraction(1), (0,)))
    row = {"class": 0, "samples": 3, "followed": 3, "all_followed": 3, "right": 3, "recall": 1, "precision": 1}
    layer = {**pattern.layers[0].model_dump(), "active": [0]}
    for document in (
        pattern.model_dump() | {"layers": [layer]},
        pattern.model_dump() | {"model": "0" * 64},
        pattern.model_dump() | {"layers": [layer | {"counts": None}]},
        pattern.model_dump() | {"class": 1},
    ):
        told = {"patterns": [document], "coverage": [row | {"class": document["class"]}], "held_out": 0}
        plain = dict.fromkeys(("input", "epsilon", "margin", "assurance", "reason", "certificate", "counterexample"))
        item = Item.model_validate(
            {"index": 0, "verdict": "measured", "method": "patterns", "seconds": 0, "patterns": told, **plain}
        )
        with pytest.raises(UnexpectedAnswer):
            Judge(PatternsRequest(dataset="0" * 64, classes=[0])).judged(
                Answer(item, None, MODEL, Origin("", "", "", None, False))
            )
    assert read_pattern(pattern.model_dump()) == pattern


def test_parts_of_the_data_add_up(monkeypatch: pytest.MonkeyPatch) -> None:
    samples = Samples(INPUTS, LABELS)
    whole = mine(MODEL, samples, Mining())
    rows = coverage(MODEL, whole, samples)
    monkeypatch.setattr("provenn.api.activation_patterns.VALUES", 7)
    assert mine(MODEL, samples, Mining()) == whole
    assert coverage(MODEL, whole, samples) == rows


def test_an_answer_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mining, "ENTRIES", 5)
    with pytest.raises(ResourceLimit, match="2 x 3"):
        mining.mined(MODEL, PatternsRequest(dataset="0" * 64), Samples(INPUTS, LABELS), None, silent)
    found = mining.mined(MODEL, PatternsRequest(dataset="0" * 64, classes=[1]), Samples(INPUTS, LABELS), None, silent)
    assert (len(found.patterns), found.held_out, found.coverage[0].recall) == (1, 0, 1.0)

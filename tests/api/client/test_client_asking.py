"""The facade's questions put to a real service, by both clients: the same answers, checked here."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cli_kit import PLAIN, STUBBORN, two_layers
from client_kit import DOMAIN, TABLE, Awaited, Between
from lipschitz_models import POSED, pointwise
from service_kit import LARGE, Server

import provenn
from provenn.api.client import Client, RequestRefused
from provenn.api.monotonicity import Trend
from provenn.api.results import ItemResult
from provenn.api.schemas import Inputs, JobRequest
from provenn.verifier.check.claims import ATTESTATION

AT = np.array([1.0, 0.0], np.float32)
SMOOTH = pointwise("Softplus")
"""Beyond the kernel's intervals: what is known of its robustness is computed."""


def told(client: Any) -> tuple[list[tuple[int, int, str]], Callable[[int, int, str], None]]:
    seen: list[tuple[int, int, str]] = []
    return seen, lambda *progress: seen.append(progress)


def test_robust_inputs_are_verified_by_a_certificate_that_is_checked_here(client: Any, tmp_path: Path) -> None:
    path = tmp_path / "plain.onnx"
    path.write_bytes(PLAIN)
    seen, progress = told(client)
    found = client.verify(path, AT, label=0, eps="2/5", clip=(0, 1), method="crown", progress=progress)
    assert isinstance(found, ItemResult)
    assert (found.verdict, found.assurance, found.method, found.semantics) == ("verified", "checked", "crown", "real")
    here = provenn.verify(PLAIN, AT, label=0, eps="2/5", clip=(0, 1), method="crown")
    assert found.certificate is not None
    assert found.certificate.keys() - {ATTESTATION} == (here.certificate or {}).keys()
    assert found.margin == here.margin == provenn.check(found.certificate, path).margin
    assert found.origin is not None
    assert (found.origin.model, found.origin.converted) == (hashlib.sha256(PLAIN).hexdigest(), False)
    assert client.job(found.origin.job).result.items[0].certificate == found.origin.certificate
    assert seen[-2:] == [(0, 1, "certificate"), (1, 1, "done")]
    assert found.asked is not None
    assert (found.asked.label, found.asked.epsilon) == (0, "2/5")


def test_a_counterexample_is_run_here(client: Any) -> None:
    found = client.verify(PLAIN, AT, label=0, eps=0.75, norm="2", timeout=20)
    assert (found.verdict, found.assurance, found.certificate) == ("falsified", "replayed", None)
    assert found.counterexample is not None
    x, y = (np.array(values) for values in (found.counterexample.input, found.counterexample.output))
    assert np.linalg.norm(x - AT) <= 0.75
    assert y[1] >= y[0]


def test_every_float32_execution(client: Any) -> None:
    found = client.verify(PLAIN, AT, label=0, eps=0.4, semantics="float32")
    assert (found.verdict, found.assurance, found.semantics) == ("verified", "deployed", "float32")


def test_what_is_not_decided_stays_so(client: Any) -> None:
    found = client.verify(STUBBORN, np.zeros(1), label=0, eps=1, method="crown")
    assert (found.verdict, found.assurance, found.certificate) == ("unknown", None, None)
    assert found.margin is None or found.margin <= 0


def test_the_service_s_word_is_taken_where_the_caller_says_so(client: Any) -> None:
    found = client.verify(SMOOTH, AT, label=0, eps=0.25)
    assert (found.verdict, found.assurance, found.certificate) == ("unknown", "computed", None)
    assert "accept_computed=True" in found.reason
    taken = client.verify(SMOOTH, AT, label=0, eps=0.25, accept_computed=True)
    assert (taken.verdict, taken.assurance, taken.certificate) == ("verified", "computed", None)


def test_a_model_is_sent_once(between: Between, kind: Any) -> None:
    weights = two_layers([[1, 0.25 if kind is Client else 0.375], [0, 1]], [0, 0], [[1, 0], [0, 1]])
    with kind(between.url) as client:
        for eps in (0.1, 0.2):
            assert client.verify(weights, AT, label=0, eps=eps).verdict == "verified"
    assert between.count("POST", "/v1/models") == 1


def test_what_is_made_of_an_upload_is_made_here_too(client: Any) -> None:
    packed = gzip.compress(two_layers([[1, 0.5], [0, 1]], [0, 0], [[1, 0], [0, 1]]), mtime=0)
    found = client.verify(packed, AT, label=0, eps=0.125)
    assert found.verdict == "verified"
    assert found.origin.converted
    canonical = client.file(found.origin.model)
    assert canonical == gzip.decompress(packed)
    assert provenn.check(found.certificate, canonical).margin == found.margin
    known = client.verify(client.model(found.origin.model), AT, label=0, eps=0.125)
    assert (known.verdict, known.origin.model) == ("verified", found.origin.model)


def test_lipschitz_constants(client: Any) -> None:
    found = client.lipschitz(PLAIN, rows="pairs", norm="inf", scale=np.array([2.0, 2.0]), timeout=10)
    assert (found.verdict, found.assurance, found.output_norm) == ("verified", "checked", "each")
    assert found.upper == pytest.approx([1.0], rel=1e-6)
    assert list(provenn.check(found.certificate, PLAIN).uppers) == found.upper
    local = client.lipschitz(PLAIN, at=np.array([-1.0, 1.0]), eps="1/2", rows="1", region_norm="2", timeout=4)
    assert (local.verdict, local.well_posed) == ("verified", None)
    assert local.upper == pytest.approx(1.0, rel=1e-6)
    with pytest.raises(provenn.ProvennError, match="radii of regions as decimals, which 1/3 is not"):
        client.lipschitz(PLAIN, at=np.zeros(2), eps="1/3")


def test_implicit_layers(server: Server) -> None:
    with Client(server.url) as client:
        found = client.lipschitz(POSED, timeout=20)
    assert (found.verdict, found.well_posed) == ("verified", True)


def test_trends_over_a_domain(client: Any) -> None:
    found = client.monotonicity(TABLE, ["age", 1], domain=DOMAIN, timeout=10)
    trends = [(each.row, each.column, each.trend) for each in found.dependences]
    assert trends == [
        (0, 0, Trend.INCREASING),
        (0, 1, Trend.CONSTANT),
        (1, 0, Trend.CONSTANT),
        (1, 1, Trend.NEITHER),
    ]
    assert (found.verdict, found.assurance, found.reason) == ("falsified", "checked", None)
    last = found.dependences[-1]
    assert last.fall is not None
    assert last.rise is not None
    assert last.fall.change < 0 < last.rise.change
    held = client.monotonicity(TABLE, "age", domain=DOMAIN, fixed={"colour": 1}, rows="0", method="crown", timeout=5)
    assert (held.verdict, [each.lower for each in held.dependences]) == ("verified", [0.0])


def test_derivatives_around_an_input(client: Any) -> None:
    at = np.array([0.5, 0.5, 1.0, 0.0])
    found = client.jacobian(TABLE, at=at, eps=0.25, method="crown", timeout=10)
    exact = np.array([[2.0, 0.0, 2.0, -1.0], [0.0, 1.0, 0.0, 0.0]])
    assert (found.verdict, found.assurance) == ("verified", "checked")
    assert (found.lower <= exact).all()
    assert (exact <= found.upper).all()
    assert found.seen.lower == pytest.approx(exact, abs=1e-6)


def test_what_makes_no_sense_is_said_before_anything_is_queued(client: Any) -> None:
    with pytest.raises(provenn.ProvennError, match=r"shape \[1, 2\].*\[2\]"):
        client.verify(PLAIN, AT[None], label=0, eps=0.1)
    with pytest.raises(provenn.ProvennError, match="seconds: Input should be greater than 0"):
        client.verify(PLAIN, AT, label=0, eps=0.1, timeout=-1)
    with pytest.raises(provenn.ProvennError, match="give both at and eps"):
        client.lipschitz(PLAIN, eps=0.1)
    with pytest.raises(provenn.ProvennError, match="there is no feature 'size'"):
        client.monotonicity(TABLE, "size", domain=DOMAIN)
    with pytest.raises(provenn.ProvennError, match="2 combinations of categories"):
        client.jacobian(TABLE, domain=DOMAIN)
    with pytest.raises(RequestRefused, match="unknown method"):
        client.verify(PLAIN, AT, label=0, eps=0.1, method="magic")
    with pytest.raises(TypeError, match="device"):
        client.verify(PLAIN, AT, label=0, eps=0.1, device="cuda")


def test_verbs_of_the_routes(client: Any, kind: Any) -> None:
    model = client.upload(PLAIN)
    assert client.ready()
    assert client.model(model.id) == model
    job = client.certify(model.id, Inputs(inputs=[[1.0, 0.0]], labels=[0], epsilons=[0.1]))
    assert client.wait(job.id).verdict == "verified"
    every = client.every if kind is Awaited else lambda verb, *a, **k: list(getattr(client, verb)(*a, **k))
    assert job.id in [each.id for each in every("jobs", model=model.id, limit=2)]
    assert [event.kind for event in every("events", job.id)][-1] == "end"
    certificate = client.job(job.id).result.items[0].certificate
    assert client.signature(certificate, PLAIN, client.keys()).status == "valid"


def slow(model: str) -> JobRequest:
    """A search that goes on until its time ends."""
    asked = {"region": {"input": [0.0] * 64, "epsilon": 1.0}}
    return JobRequest.model_validate({"model": model, "method": "bab", "lipschitz": asked, "budget": {"seconds": 600}})


class Stopped(KeyboardInterrupt):
    """As from the keyboard."""


def test_an_interrupted_wait_cancels_its_job(server: Server) -> None:
    def stop(*_: object) -> None:
        raise Stopped

    with Client(server.url) as client:
        job = client.submit(slow(client.upload(LARGE).id))
        with pytest.raises(Stopped):
            client.drive(client.asking.outcome(job.id, stop))
        assert client.job(job.id).state == "cancelled"
        assert client.cancel(job.id).state == "cancelled"


def test_a_cancelled_task_cancels_its_job(server: Server) -> None:
    waiting = threading.Event()

    async def given_up() -> str:
        async with provenn.AsyncClient(server.url) as client:
            job = await client.submit(slow((await client.upload(LARGE)).id))
            task = asyncio.create_task(client.drive(client.asking.outcome(job.id, lambda *_: waiting.set())))
            await asyncio.to_thread(waiting.wait)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            return str((await client.job(job.id)).state)

    assert asyncio.run(given_up()) == "cancelled"

"""Multipliers for small networks, Lipschitz certificates written by hand, files of layers."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any

import numpy as np
from check_kit import model
from onnx import helper
from scipy.optimize import minimize

from provenn.verifier.certificate.emit import loosened
from provenn.verifier.certificate.jacobian import JacobianProver
from provenn.verifier.certificate.lipschitz import Prover, Statement
from provenn.verifier.certificate.payload import write_payload
from provenn.verifier.check import Network
from provenn.verifier.check.lipschitz import Units, metric
from provenn.verifier.check.manifest import FORMAT, sealed
from provenn.verifier.check.rows import Bounds, Box
from provenn.verifier.check.specification import read_lipschitz

Array = np.ndarray


def unit_rows(count: int) -> list[list[int]]:
    return [[int(i == j) for j in range(count)] for i in range(count)]


def vectors(rows: Any) -> list[tuple[Fraction, ...]]:
    return [tuple(Fraction(c) for c in row) for row in rows]


def statement(rows: Any, upper: Sequence[Any], inward: str = "2", outward: str = "2", **more: Any) -> dict[str, Any]:
    """A specification; more: scale, region."""
    source = {"norm": inward} | ({"scale": more.pop("scale")} if "scale" in more else {})
    content = {"format": "provenn-specification/1", "kind": "lipschitz", "input": source, "outputs": rows}
    return content | {"output_norm": outward, "upper": [str(u) for u in upper], **more}


class Program:
    """The least rho with M(rho I, t) >= 0 for a small network, as a convex function of the multipliers t."""

    def __init__(self, units: Units, rows: Any, metric_shape: Array | None = None) -> None:
        self.units, self.rows, self.inputs = units, vectors(rows), units.network.steps[0].length
        self.names = list[tuple[str, int]]()
        for name, steps in units.steps.items():
            starts = np.cumsum([0, *(units.network.steps[i].length for i in steps)]).tolist()
            for i, start in zip(steps, starts, strict=False):
                layer = units.increments.layers.get(i)
                self.names += [(name, start + int(j)) for j in layer.units] if layer else []
        self.constant = self._base(np.zeros(len(self.names)))
        self.terms = [self._base(row) - self.constant for row in np.eye(len(self.names))]
        self.shape = np.ones(self.inputs) if metric_shape is None else metric_shape

    def multipliers(self, t: Array) -> dict[str, Array]:
        found = {name: np.zeros(length) for name, length in self.units.lengths.items()}
        for (name, j), value in zip(self.names, t, strict=True):
            found[name][j] = value
        return found

    def _base(self, t: Array) -> Array:
        lower = self.units.quadratic(self.rows, self.multipliers(t)).base
        return np.tril(lower) + np.tril(lower, -1).T

    def spectrum(self, t: Array) -> tuple[Array, Array]:
        """Eigenvalues, rising, whose largest is rho, and their gradients; inf outside of the domain."""
        M, n = self.constant + sum(v * A for v, A in zip(t, self.terms, strict=True)), self.inputs
        inner, scale = M[n:, n:], 1 / np.sqrt(self.shape)
        if len(inner) and np.linalg.eigvalsh(inner)[0] <= 0:
            return np.full(n, np.inf), np.zeros((n, len(t)))
        solved = np.linalg.solve(inner, M[n:, :n]) if len(inner) else np.zeros((0, n))
        values, found = np.linalg.eigh(scale[:, None] * -(M[:n, :n] - M[:n, n:] @ solved) * scale)
        z = np.concatenate([x := scale[:, None] * found, -solved @ x])
        return values, np.array([-((A @ z) * z).sum(axis=0) for A in self.terms]).reshape(len(t), n).T

    def rho(self, t: Array) -> float:
        return float(self.spectrum(t)[0][-1])

    def solve(self, iterations: int = 60) -> tuple[Array, float]:
        """Good multipliers, and rho."""
        layers = [name for name, _ in self.names]
        order = {name: k for k, name in enumerate(reversed(dict.fromkeys(layers)))}
        start = next(
            (
                t
                for base in (1.5, 4.0, 20.0, 100.0, 1000.0)
                for first in (1.0, 10.0, 100.0)
                if np.isfinite(self.rho(t := np.array([first * base ** order[name] for name in layers])))
            ),
            None,
        )
        assert start is not None, "no feasible start"
        if not len(start):
            return start, self.rho(start)

        n, best = self.inputs, start
        for weight in (1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6):

            def value(log: Array, weight: float = weight) -> tuple[float, Array]:
                """A smooth maximum of the spectrum's logarithms, and a barrier that keeps M positive."""
                t = np.exp(log)
                values, gradients = self.spectrum(t)
                if not 0 < values[-1] < np.inf:
                    return 1e3, np.zeros(len(log))
                shares = np.maximum(values / values[-1], 1e-9) ** (1 / weight)
                rho = np.log(values[-1]) + weight * np.log(shares.sum())
                gradient = (shares / shares.sum() / np.maximum(values, 1e-9 * values[-1])) @ gradients
                inner = self.constant[n:, n:] + sum(v * A[n:, n:] for v, A in zip(t, self.terms, strict=True))
                inverse = np.linalg.inv(inner)
                slopes = np.array([(inverse * A[n:, n:]).sum() for A in self.terms]) * t - 1
                barrier = np.linalg.slogdet(inner)[1] - log.sum()
                return rho - weight * barrier, gradient * t - weight * slopes

            found = minimize(value, np.log(best), jac=True, method="L-BFGS-B", options={"maxiter": iterations})
            best = min((np.exp(found.x), best), key=self.rho)
        best = best * (1 + 1e-7)  # where no output changes, the optimum may be singular
        return best, self.rho(best)


def least(units: Units, rows: Any, t: Mapping[str, Array], start: float, scale: Any = ()) -> float:
    """A number that the kernel proves, the first of a rising sequence from `start` on."""
    quadratic = units.quadratic(vectors(rows), t)
    for exponent in range(-13, 3):
        upper = start * (1 + 10.0**exponent)
        if quadratic.proves(metric(Fraction(upper), scale, units.network.steps[0].length)):
            return upper
    raise AssertionError("nothing near it is proved")


def bundle(
    network: Network, content: Mapping[str, Any], claims: Sequence[Mapping[str, Any]], claimed: str = "interval"
) -> dict[str, bytes]:
    """A certificate: claims with rows, upper, multipliers (arrays by step) and perhaps metric (an array)."""
    text = json.dumps(content).encode()
    outputs = network.steps[network.output].length
    region = read_lipschitz(text, network.steps[0].length, outputs).region
    made, tensors = list[dict[str, Any]](), dict[str, Array]()
    uses: list[int] = []
    with np.errstate(all="ignore"):
        bounds = Bounds(network, *region.region()) if region else None
        for node, index in network.bounded.items() if bounds else ():
            low, high = loosened(bounds.box(index))
            tensors |= {f"{node}.lower": low, f"{node}.upper": high}
            own = {"node": node, "method": claimed, "lower": f"{node}.lower", "upper": f"{node}.upper"}
            made.append({"id": len(made), "kind": "interval", "case": 0, "uses": list(uses), **own})
            uses.append(len(made) - 1)
            bounds.accept(index, Box(low.astype(np.float64), high.astype(np.float64)))
    for claim in claims:
        entries = {step: f"t{len(made)}.{step}" for step in claim["multipliers"]}
        tensors |= {entries[step]: values for step, values in claim["multipliers"].items()}
        added = {"id": len(made), "kind": "lipschitz", "case": 0, "uses": list(uses), "multipliers": entries}
        if "metric" in claim:
            added["metric"] = f"m{len(made)}"
            tensors[added["metric"]] = claim["metric"]
        made.append(added | {"rows": claim["rows"], "upper": float(claim["upper"]).hex()})
    payload = write_payload(tensors)
    parts = {"specification": {"file": "specification.json", "form": "lipschitz"}, "model": {}}
    parts["specification"]["sha256_file"] = hashlib.sha256(text).hexdigest()
    parts["model"]["sha256_file"] = network.sha256
    parts["payload"] = {"file": "payload.safetensors", "sha256": hashlib.sha256(payload).hexdigest()}
    stated = {"format": FORMAT, "semantics": "real", "verdict": "verified", "claims": made, "produced_by": {}}
    manifest = sealed({**stated, **parts, "statistics": {}})
    return {"manifest.json": manifest, "specification.json": text, "payload.safetensors": payload}


def box(lower: Any, upper: Any) -> dict[str, list[str]]:
    """A region."""
    return {side: [float(v).hex() for v in values] for side, values in (("lower", lower), ("upper", upper))}


def by_jacobians(
    network: Network, lower: Any, upper: Any, rows: Any = None, **more: Any
) -> tuple[dict[str, bytes], Array]:
    """A certificate of rows over a box, and its numbers; more: scale, inward, outward."""
    rows = unit_rows(network.steps[network.output].length) if rows is None else rows
    exact = tuple(tuple(float(c) for c in row) for row in rows)
    prover = Prover(
        network,
        Statement(exact, more.get("inward", "inf"), more.get("outward", "each"), more.get("scale"), box(lower, upper)),
    )
    claims = [JacobianProver(prover).prove([i]) for i in range(len(rows))]
    return prover.bundle(claims, {}), np.array([claim.upper for claim in claims])


def activated(op: str, widths: Sequence[int], seed: int = 0, **attributes: Any) -> bytes:
    """A random network of two matrices around one operator."""
    first, middle, last = widths
    generator = np.random.default_rng(seed)
    constants = {"w": generator.normal(size=(first, middle)), "v": generator.normal(size=(middle, last))}
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["z"]),
        helper.make_node(op, ["z"], ["a"], **attributes),
        helper.make_node("MatMul", ["a", "v"], ["y"]),
    ]
    return model(nodes, [1, first], {name: array.astype(np.float32) for name, array in constants.items()}, opset=24)


def layers_file(content: Any, tensors: Mapping[str, Array], **header: Any) -> bytes:
    """A file of layers; header: entries that replace others."""
    entries: dict[str, Any] = {"__metadata__": {"provenn": json.dumps(content)}}
    body = b""
    for name, array in tensors.items():
        data = np.ascontiguousarray(array).tobytes()
        kind = {"float32": "F32", "float64": "F64", "int32": "I32"}[str(array.dtype)]
        span = [len(body), len(body) + len(data)]
        entries[name] = {"dtype": kind, "shape": list(array.shape), "data_offsets": span}
        body += data
    text = json.dumps(entries | header).encode()
    return len(text).to_bytes(8, "little") + text + body


def equilibrium(weight: Any, inner: Any, outer: Any, function: str = "relu", kind: type = np.float32) -> bytes:
    """y = C z, z = phi(W z + U x); W, U, C."""
    tensors = {name: np.array(m, kind) for name, m in (("W", weight), ("U", inner), ("C", outer))}
    implicit = {"kind": "implicit", "function": function, "weight": "W", "input": "U"}
    layers = [implicit, {"kind": "linear", "weight": "C"}]
    return layers_file({"format": "provenn-network/1", "input": [tensors["U"].shape[1]], "layers": layers}, tensors)

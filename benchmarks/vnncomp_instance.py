"""One instance in a process of its own: python benchmarks/vnncomp_instance.py MODEL SPEC SECONDS DEVICE THREADS

Prints one JSON object: verdict, assurance, seconds (wall and CPU) after imports, how long importing took, how long the
proof took to make and to check, and whether a counterexample or certificate holds when it is looked at afresh.
"""

from __future__ import annotations

import json
import resource
import sys
import time

START = time.perf_counter()

from fractions import Fraction  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

import numpy as np  # noqa: E402
import torch  # noqa: E402

from provenn.api.certification import ItemResult, Options, certify, load_model  # noqa: E402
from provenn.models.executor import OnnxExecutor  # noqa: E402
from provenn.verifier.check import CertificateRejected, check  # noqa: E402
from provenn.verifier.errors import ProvennError  # noqa: E402
from provenn.verifier.spec import Specification  # noqa: E402
from provenn.verifier.spec_reader import read_specification  # noqa: E402

COLD = time.perf_counter() - START
ANSWERS = {"verified": "unsat", "falsified": "sat"}


def main() -> None:
    """Runs the instance and prints what came of it."""
    model, spec = (Path(name).read_bytes() for name in sys.argv[1:3])
    seconds, device = float(sys.argv[3]), sys.argv[4]
    torch.set_num_threads(int(sys.argv[5]))
    wall, cpu = time.perf_counter(), time.process_time()
    found: dict[str, Any] = {"verdict": "error", "cold_s": COLD}
    try:
        specification = read_specification(spec)
        network = load_model(model)
        left = seconds - (time.perf_counter() - wall)
        item = certify(network, [specification], Options(seconds=left, device=device))[0]
        found |= {"verdict": ANSWERS.get(item.verdict, item.verdict), "method": item.method, "reason": item.reason}
        found |= {"assurance": item.assurance, "stats": item.stats}
    except ProvennError as error:
        found["reason"], item, specification = str(error), None, None
    found |= {"wall_s": time.perf_counter() - wall, "cpu_s": time.process_time() - cpu}
    if item is not None and specification is not None:
        found |= again(model, spec, specification, item)
    found["peak_rss_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps(found))


def again(model: bytes, spec: bytes, specification: Specification, item: ItemResult) -> dict[str, Any]:
    """The counterexample executed, or the certificate checked, from the files alone."""
    if item.certificate is not None:
        wall, cpu = time.perf_counter(), time.process_time()
        try:
            report = check(item.certificate, model, spec if specification.form == "vnnlib" else None)
        except CertificateRejected as refusal:
            return {"confirmed": False, "refusal": str(refusal)}
        size = sum(map(len, item.certificate.values()))
        spent = {"check_s": time.perf_counter() - wall, "check_cpu_s": time.process_time() - cpu}
        return {"confirmed": report.verdict == "verified", "certificate_bytes": size, **spent}
    if item.counterexample is not None:
        x = np.array(item.counterexample.input, dtype=np.float32)
        executor = OnnxExecutor(model)
        y = [Fraction(float(v)) for v in executor.run(x.reshape(1, *executor.input_shape)).ravel()]
        hit = (c.inputs.contains(x) and any(k.holds(y) for k in c.clauses) for c in specification.cases)
        return {"confirmed": any(hit)}
    return {}


if __name__ == "__main__":
    main()

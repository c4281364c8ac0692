"""Provenn proves things about neural networks and hands back certificates that need not be trusted.

The facade: `verify`, `lipschitz`, `lipschitz_curve`, `monotonicity`, `jacobian` and `check` work in this process,
`Client` and `AsyncClient` ask a service the same, and check what it answers here.
Everything heavy is imported when it is first used, so `import provenn` costs nothing and loads no torch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

if TYPE_CHECKING:
    import numpy as np
    from torch import nn

    from provenn.api.client import AsyncClient, Client
    from provenn.api.jacobian import JacobianResult
    from provenn.api.keywords import How, HowCurve, HowDerivatives, HowLipschitz
    from provenn.api.lipschitz_curve import LipschitzCurve
    from provenn.api.monotonicity import MonotonicityResult
    from provenn.api.results import ItemResult, LipschitzResult
    from provenn.verifier.check import CertificateRejected, Report
    from provenn.verifier.errors import ProvennError

__version__ = "0.1.0"
__all__ = [
    "AsyncClient",
    "CertificateRejected",
    "Client",
    "ItemResult",
    "JacobianResult",
    "LipschitzCurve",
    "LipschitzResult",
    "MonotonicityResult",
    "ProvennError",
    "check",
    "jacobian",
    "lipschitz",
    "lipschitz_curve",
    "monotonicity",
    "verify",
]

_HOMES = {
    "AsyncClient": "provenn.api.client",
    "CertificateRejected": "provenn.verifier.check",
    "Client": "provenn.api.client",
    "ItemResult": "provenn.api.results",
    "JacobianResult": "provenn.api.jacobian",
    "LipschitzCurve": "provenn.api.lipschitz_curve",
    "LipschitzResult": "provenn.api.results",
    "MonotonicityResult": "provenn.api.monotonicity",
    "ProvennError": "provenn.verifier.errors",
}


def verify(
    model: str | Path | bytes | nn.Module, x: np.ndarray, *, label: int, eps: float | str, **how: Unpack[How]
) -> ItemResult:
    """Whether every input within `eps` of `x` is classified as `label`.

    model: an ONNX file (path or bytes), or a torch module of your own; x: one input, without the batch axis.
    eps: a float means its shortest decimal, so 0.03 is exactly 3/100; text such as "8/255" is exact too.
    how: norm ("inf", "2", "1"), clip (lowest and highest input value, or None), target (the one class that must not
    win, or None for any), method, timeout (seconds), device, seed, semantics ("real", or "float32" for the proof to
    hold for every float32 execution).
    Raises: ProvennError in one of its kinds; TypeError for an unknown keyword.
    """
    from dataclasses import replace

    import numpy

    from provenn.api.certification import Options, certify, load_model
    from provenn.api.keywords import RobustnessHere, network
    from provenn.api.results import Asked

    asked = RobustnessHere(**how)
    point = numpy.asarray(x)
    loaded = load_model(network(model, point.shape))
    sizes = loaded.graph.input_shape, loaded.graph.output_shape
    specification = asked.specification(point, label, eps, sizes)
    options = Options(asked.method, asked.timeout, asked.device, asked.seed, semantics=asked.semantics)
    (found,) = certify(loaded, [specification], options)
    return replace(found, asked=Asked(point, label, eps, asked.norm))


def lipschitz(
    model: str | Path | bytes | nn.Module, shape: tuple[int, ...] | None = None, **how: Unpack[HowLipschitz]
) -> LipschitzResult:
    """A proved number L with |C (f(x) - f(y))| <= L |scale * (x - y)|, everywhere or over a region.

    model: as for `verify`, or a provenn-network/1 file; shape: of the input without its batch, for a torch module.
    how: norm of the inputs ("2", "inf", "1"), to (of the outputs: the same, or "each" for a number a row), rows of C
    ("all", "3", "3-5", "0,2", or differences of outputs: "pairs", "pairs:3"), scale (weights of the input, its shape),
    at, eps, region_norm, clip (the region), method, solver, timeout (seconds), seed.
    Raises: ProvennError in one of its kinds; TypeError for an unknown keyword.
    """
    import numpy

    from provenn.api.keywords import Constant, network
    from provenn.api.lipschitz import Options, bound, load

    asked = Constant(**how)
    loaded = load(network(model, shape if asked.at is None else numpy.shape(asked.at)))
    question = asked.question(loaded.graph.input_shape)
    return bound(loaded, question, Options(asked.method, asked.solver, asked.timeout, asked.seed))


def lipschitz_curve(
    model: str | Path | bytes | nn.Module,
    at: np.ndarray,
    eps: Sequence[float | str],
    shape: tuple[int, ...] | None = None,
    **how: Unpack[HowCurve],
) -> LipschitzCurve:
    """Local Lipschitz constants against the radius: a proved bound for every point of `at` and radius of `eps`.

    at: one input, or a batch of them with one more leading axis; eps: radii above 0, increasing, each as for `verify`.
    model, shape, how: as for `lipschitz`; timeout is for all bounds together, and Ctrl-C returns those finished.
    Raises: ProvennError in one of its kinds; TypeError for an unknown keyword.
    """
    import math

    import numpy

    from provenn.api.keywords import Constants, network
    from provenn.api.lipschitz import Options, load
    from provenn.api.lipschitz_curve import Balls, curve
    from provenn.verifier.errors import InvalidSpecification

    asked = Constants(**how)
    loaded = load(network(model, shape))
    centres, wanted = numpy.asarray(at, float), loaded.graph.input_shape
    question = asked.question(wanted)
    if wanted not in (centres.shape, centres.shape[1:]):
        expected = f"the network takes {list(wanted)}: give one input, or [n, ...] of it for a batch"
        raise InvalidSpecification(f"at has shape {list(centres.shape)}, but {expected}")
    if isinstance(eps, str | float | int):
        raise InvalidSpecification(f"eps is a list of radii: give [{eps!r}]")
    balls = Balls(centres.reshape(-1, math.prod(wanted)), eps, asked.region_norm, asked.clip)
    return curve(loaded, balls, question, Options(asked.method, asked.solver, asked.timeout, asked.seed))


def monotonicity(
    model: str | Path | bytes | nn.Module,
    features: str | Sequence[str | int],
    shape: tuple[int, ...] | None = None,
    **how: Unpack[HowDerivatives],
) -> MonotonicityResult:
    """Whether outputs only rise, or only fall, with each of some features: proved, or a pair of inputs that differs.

    features: names of the domain's features, numbers of inputs (flat), spans, or "all"; as text "age,3-5".
    model, shape: as for `lipschitz`.
    how: domain (a JSON file, its text as bytes, or an object: see docs/monotonicity.md) with fixed (name to value), or
    at, eps, region_norm, clip as for `lipschitz`; rows of outputs, likewise; method ("bab", "crown", "alpha-crown",
    "recurjac", "ibp"), timeout (seconds), seed.
    Raises: ProvennError in one of its kinds; TypeError for an unknown keyword.
    """
    import math

    import numpy

    from provenn.api.certification import load_model
    from provenn.api.domain import columns
    from provenn.api.keywords import Derivatives, named, network
    from provenn.api.monotonicity import Options, Question
    from provenn.api.monotonicity import monotonicity as decide

    asked = Derivatives(**how)
    loaded = load_model(network(model, shape if asked.at is None else numpy.shape(asked.at)), slopes=True)
    wanted = loaded.graph.input_shape
    domain = asked.over(wanted)
    chosen = columns(named(features), math.prod(wanted), domain)
    question = Question(chosen, tuple(asked.places(domain, wanted, chosen)), asked.rows)
    return decide(loaded, question, Options(asked.method, asked.timeout, asked.seed))


def jacobian(
    model: str | Path | bytes | nn.Module, shape: tuple[int, ...] | None = None, **how: Unpack[HowDerivatives]
) -> JacobianResult:
    """Proved bounds of every derivative of the outputs over a region, and beside them those seen at points of it.

    model, shape, how: as for `monotonicity`; a domain has to have one combination of categories.
    Raises: ProvennError in one of its kinds; TypeError for an unknown keyword.
    """
    import numpy

    from provenn.api.certification import load_model
    from provenn.api.jacobian import Question
    from provenn.api.jacobian import jacobian as bound
    from provenn.api.keywords import Derivatives, network
    from provenn.api.monotonicity import Options

    asked = Derivatives(**how)
    loaded = load_model(network(model, shape if asked.at is None else numpy.shape(asked.at)), slopes=True)
    wanted = loaded.graph.input_shape
    place = asked.one_place(asked.over(wanted), wanted)
    return bound(loaded, Question(place, asked.rows), Options(asked.method, asked.timeout, asked.seed))


def check(
    certificate: str | Path | Mapping[str, bytes],
    model: str | Path | bytes,
    specification: str | Path | bytes | None = None,
) -> Report:
    """Re-proves every claim of a certificate, without torch.

    certificate: a zip file, a folder, or its files (`ItemResult.certificate`, `Client.certificate`).
    specification: a file or its bytes; where it is given, the certificate must be about exactly that.
    Raises: CertificateRejected.
    """
    from provenn.api.keywords import content
    from provenn.verifier.certificate.bundle import load
    from provenn.verifier.check import check as recheck

    files = certificate if isinstance(certificate, Mapping) else load(Path(certificate))
    return recheck(files, content(model), None if specification is None else content(specification))


def __getattr__(name: str) -> Any:
    """The public names that live elsewhere, on first use."""
    if name not in _HOMES:
        raise AttributeError(f"module 'provenn' has no attribute '{name}'")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

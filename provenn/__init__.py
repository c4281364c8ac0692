"""Provenn proves things about neural networks and hands back certificates that need not be trusted.

The facade: `verify`, `prove`, `lipschitz`, `lipschitz_curve`, `monotonicity`, `jacobian`, `tightness`, `stability` and
`check` work in this process, `Client` and `AsyncClient` ask a service the same, and check what it answers here.
Everything heavy is imported when it is first used, so `import provenn` costs nothing and loads no torch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor, nn

    from provenn.api.client import AsyncClient, Client
    from provenn.api.jacobian import JacobianResult
    from provenn.api.keywords import How, HowCurve, HowDerivatives, HowLipschitz, HowProved, HowTightness
    from provenn.api.lipschitz_curve import LipschitzCurve
    from provenn.api.monotonicity import MonotonicityResult
    from provenn.api.results import ItemResult, LipschitzResult
    from provenn.api.stability import StabilityResult
    from provenn.api.tightness import TightnessResult
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
    "StabilityResult",
    "TightnessResult",
    "check",
    "jacobian",
    "lipschitz",
    "lipschitz_curve",
    "monotonicity",
    "prove",
    "stability",
    "tightness",
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
    "StabilityResult": "provenn.api.stability",
    "TightnessResult": "provenn.api.tightness",
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


def prove(
    model: str | Path | bytes | nn.Module,
    specification: str | Path | bytes | Mapping[str, Any],
    shape: tuple[int, ...] | None = None,
    **how: Unpack[HowProved],
) -> ItemResult | MonotonicityResult:
    """Whether the network keeps a specification of any kind: see docs/which_specification.md.

    specification: a file (VNN-LIB, or a document in JSON or TOML), its bytes, or a document as an object.
    model, shape: as for `lipschitz`.
    how: method, timeout (seconds), seed, semantics and device as for `verify`.
    A document of kind monotone has a MonotonicityResult. A certificate of a document is about the network that the
    document makes of the model: `check` takes model and document, and makes it again.
    Raises: ProvennError in one of its kinds; TypeError for an unknown keyword.
    """
    from math import prod

    from provenn.api import monotone, monotonicity
    from provenn.api.certification import Options, certify, load_model
    from provenn.api.keywords import ProvingHere, network
    from provenn.api.specifications import given_property
    from provenn.models.specification.monotone import Monotone

    asked = ProvingHere(**how)
    data = network(model, shape)
    found = given_property(specification, data, asked.semantics)
    if isinstance(found, Monotone):
        limits = monotonicity.Options(*asked.derivatives())
        sloped = load_model(data, slopes=True)
        sizes = (prod(each) for each in (sloped.graph.input_shape, sloped.graph.output_shape))
        return monotonicity.monotonicity(sloped, monotone.question(found, *sizes)[0], limits)
    loaded = load_model(found.model, given=None if found.model == data else data)
    options = Options(asked.method, asked.timeout, asked.device, asked.seed, semantics=asked.semantics)
    (result,) = certify(loaded, [found.specification], options)
    return result


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


def stability(
    controller: str | Path | bytes | tuple[Callable[[Tensor], Tensor], int],
    document: str | Path | Mapping[str, Any],
    networks: Mapping[str, str | Path | bytes | tuple[Callable[[Tensor], Tensor], int]] | None = None,
    *,
    method: str = "branch-and-bound",
    timeout: float = 300.0,
    seed: int = 0,
    tolerance: float = 1 / 64,
) -> StabilityResult:
    """The largest region {V <= rho} that is proved a region of attraction of a closed loop; see docs/stability.md.

    document: of kind lyapunov, a file or an object; it names the other networks of the loop. networks: some of them, or
    all, by these names; the others are files beside the document. A network is an ONNX file (path or bytes), or a torch
    function [batch, inputs] -> [batch, outputs] of your own, or a module, with its number of inputs. tolerance: the
    search ends where no level more than this share higher may be proved.
    Raises: ProvennError in one of its kinds.
    """
    from fractions import Fraction

    from provenn.api import stability as search
    from provenn.api.certification import Options
    from provenn.api.keywords import content
    from provenn.models.closed_loop import exported

    def file(given: str | Path | bytes | tuple[Callable[[Tensor], Tensor], int]) -> bytes:
        return exported(*given) if isinstance(given, tuple) else content(given)

    own = {name: file(each) for name, each in (networks or {}).items()}
    asked = search.read_conditions(document, file(controller), own)
    return search.stability(asked, Options(method, timeout, seed=seed), tolerance=Fraction(tolerance))


def tightness(model: str | Path | bytes | nn.Module, x: np.ndarray, **how: Unpack[HowTightness]) -> TightnessResult:
    """How much of the network's interval bounds is the network's, and how much the intervals': measured at inputs.

    The radius of the box that the linear map active at an input needs, over that of layer-by-layer intervals, from 0
    to 1, where intervals are exact. A measurement in floating point, which proves nothing; see docs/tightness.md.
    model: as for `verify`, piecewise linear; x: inputs with a leading axis (or one alone, unless for a torch module).
    how: labels (one an input: margins to the other classes are measured, else the outputs), eps (radius, which matters
    with clip alone), clip (lowest and highest input value), layers (False: of the outputs alone, which is faster).
    Raises: ProvennError in one of its kinds; TypeError for an unknown keyword.
    """
    import numpy

    from provenn.api.keywords import Measuring, network
    from provenn.api.tightness import measure
    from provenn.models.reading import read

    asked = Measuring(**how)
    inputs = numpy.asarray(x)
    graph = read(network(model, inputs.shape[1:]))
    return measure(graph, asked.question(inputs, graph.input_shape))


def check(
    certificate: str | Path | Mapping[str, bytes],
    model: str | Path | bytes,
    specification: str | Path | bytes | None = None,
) -> Report:
    """Re-proves every claim of a certificate, without torch.

    certificate: a zip file, a folder, or its files (`ItemResult.certificate`, `Client.certificate`).
    specification: a file or its bytes; where it is given, the certificate must be about exactly that, and about the
    network that a document composes with the model.
    Raises: CertificateRejected; InvalidSpecification for a document that makes no sense.
    """
    from provenn.api.keywords import content
    from provenn.api.specifications import beside, claimed
    from provenn.verifier.certificate.bundle import load
    from provenn.verifier.check import check as recheck

    files = certificate if isinstance(certificate, Mapping) else load(Path(certificate))
    if specification is None:
        return recheck(files, content(model))
    folder = beside(Path() if isinstance(specification, bytes) else Path(specification))
    about = claimed(content(specification), content(model), folder)
    return about.checked(files)


def __getattr__(name: str) -> Any:
    """The public names that live elsewhere, on first use."""
    if name not in _HOMES:
        raise AttributeError(f"module 'provenn' has no attribute '{name}'")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

"""Provenn proves things about neural networks and hands back certificates that need not be trusted.

The facade: `verify`, `lipschitz`, `lipschitz_curve`, `monotonicity`, `jacobian` and `check` work in this process,
`Client` talks to a service.
Everything heavy is imported when it is first used, so `import provenn` costs nothing and loads no torch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypedDict, Unpack

if TYPE_CHECKING:
    import numpy as np
    from torch import nn

    from provenn.api.certification import ItemResult, LoadedModel
    from provenn.api.client import Client
    from provenn.api.domain import Domain, Place
    from provenn.api.jacobian import JacobianResult
    from provenn.api.lipschitz import LipschitzResult, Readings
    from provenn.api.lipschitz_curve import LipschitzCurve
    from provenn.api.lipschitz_question import Question
    from provenn.api.monotonicity import MonotonicityResult
    from provenn.verifier.check import CertificateRejected, Report
    from provenn.verifier.errors import ProvennError

__version__ = "0.1.0"
__all__ = [
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
    "CertificateRejected": "provenn.verifier.check",
    "Client": "provenn.api.client",
    "ItemResult": "provenn.api.certification",
    "JacobianResult": "provenn.api.jacobian",
    "LipschitzCurve": "provenn.api.lipschitz_curve",
    "LipschitzResult": "provenn.api.lipschitz",
    "MonotonicityResult": "provenn.api.monotonicity",
    "ProvennError": "provenn.verifier.errors",
}


class How(TypedDict, total=False):
    """What `verify` takes besides the question, by name; the defaults are those of `_How`."""

    norm: str
    clip: tuple[float, float] | None
    target: int | None
    method: str
    timeout: float
    device: str
    seed: int
    semantics: Literal["real", "float32"]


@dataclass(frozen=True)
class _How:
    norm: str = "inf"
    clip: tuple[float, float] | None = None
    target: int | None = None
    method: str = "auto"
    timeout: float = 60.0
    device: str = "cpu"
    seed: int = 0
    semantics: Literal["real", "float32"] = "real"


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
    import math

    import numpy

    from provenn.api.certification import Options, certify, load_model
    from provenn.verifier.errors import InvalidSpecification
    from provenn.verifier.spec_json import robustness

    asked = _How(**how)
    point = numpy.asarray(x)
    loaded = load_model(_onnx(model, point.shape))
    if point.shape != loaded.graph.input_shape:
        wanted, given = list(loaded.graph.input_shape), list(point.shape)
        raise InvalidSpecification(f"the input has shape {given}, but the network takes {wanted}, without a batch axis")
    specification = robustness(
        point.ravel().tolist(),
        label=label,
        epsilon=eps,
        norm=asked.norm,
        outputs=math.prod(loaded.graph.output_shape),
        clip=asked.clip,
        target=asked.target,
    )
    options = Options(asked.method, asked.timeout, asked.device, asked.seed, semantics=asked.semantics)
    return certify(loaded, [specification], options)[0]


class HowCurve(TypedDict, total=False):
    """What `lipschitz_curve` takes besides network and regions, by name; the defaults are those of `_HowCurve`."""

    norm: Literal["2", "inf", "1"]
    to: Literal["2", "inf", "1", "each"] | None
    rows: str
    scale: np.ndarray | None
    region_norm: Literal["inf", "2", "1"]
    clip: tuple[float, float] | None
    method: str
    solver: str | None
    timeout: float
    seed: int


class HowLipschitz(HowCurve, total=False):
    """What `lipschitz` takes besides the network, by name; the defaults are those of `_HowLipschitz`."""

    at: np.ndarray | None
    eps: float | str | None


@dataclass(frozen=True)
class _HowCurve:
    norm: str = "2"
    to: str | None = None
    rows: str = "all"
    scale: np.ndarray | None = None
    region_norm: str = "inf"
    clip: tuple[float, float] | None = None
    method: str = "auto"
    solver: str | None = None
    timeout: float = 60.0
    seed: int = 0


@dataclass(frozen=True)
class _HowLipschitz(_HowCurve):
    at: np.ndarray | None = None
    eps: float | str | None = None


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
    from dataclasses import replace

    import numpy

    from provenn.api.lipschitz import Options, bound
    from provenn.api.lipschitz_question import Around
    from provenn.verifier.errors import InvalidSpecification

    asked = _HowLipschitz(**how)
    if (asked.at is None) != (asked.eps is None):
        raise InvalidSpecification("a region has a centre and a radius: give both at and eps")
    loaded, question = _asked(model, shape if asked.at is None else numpy.shape(asked.at), asked)
    if asked.at is not None and asked.eps is not None:
        given, wanted = numpy.shape(asked.at), loaded.graph.input_shape
        if given != wanted:
            raise InvalidSpecification(f"at has shape {list(given)}, but the network takes {list(wanted)}")
        centre = numpy.asarray(asked.at, float).ravel().tolist()
        question = replace(question, region=Around(centre, asked.eps, asked.region_norm, asked.clip))
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

    from provenn.api.lipschitz import Options
    from provenn.api.lipschitz_curve import Balls, curve
    from provenn.verifier.errors import InvalidSpecification

    asked = _HowCurve(**how)
    loaded, question = _asked(model, shape, asked)
    centres, wanted = numpy.asarray(at, float), loaded.graph.input_shape
    if wanted not in (centres.shape, centres.shape[1:]):
        expected = f"the network takes {list(wanted)}: give one input, or [n, ...] of it for a batch"
        raise InvalidSpecification(f"at has shape {list(centres.shape)}, but {expected}")
    if isinstance(eps, str | float | int):
        raise InvalidSpecification(f"eps is a list of radii: give [{eps!r}]")
    balls = Balls(centres.reshape(-1, math.prod(wanted)), eps, asked.region_norm, asked.clip)
    return curve(loaded, balls, question, Options(asked.method, asked.solver, asked.timeout, asked.seed))


def _asked(
    model: str | Path | bytes | nn.Module, shape: tuple[int, ...] | None, asked: _HowCurve
) -> tuple[Readings, Question]:
    """The network, and what is asked of it but the region; shape: of its input, where it is known.

    Raises: InvalidSpecification; all that reading it raises.
    """
    import numpy

    from provenn.api.lipschitz import load
    from provenn.api.lipschitz_question import Question
    from provenn.verifier.errors import InvalidSpecification

    if shape is None and not isinstance(model, str | Path | bytes):
        raise InvalidSpecification("a torch module does not say what it takes: give the shape of its input")
    loaded, scale = load(_onnx(model, shape or ())), None
    if asked.scale is not None:
        given, wanted = numpy.shape(asked.scale), loaded.graph.input_shape
        if given != wanted:
            raise InvalidSpecification(f"scale has shape {list(given)}, but the network takes {list(wanted)}")
        scale = numpy.asarray(asked.scale, float).ravel().tolist()
    return loaded, Question(asked.norm, asked.to, asked.rows, scale)


class HowDerivatives(TypedDict, total=False):
    """What `monotonicity` and `jacobian` take besides, by name; the defaults are those of `_HowDerivatives`."""

    domain: str | Path | bytes | Mapping[str, Any] | None
    fixed: Mapping[str, str | float]
    at: np.ndarray | None
    eps: float | str | None
    region_norm: Literal["inf", "2", "1"]
    clip: tuple[float, float] | None
    rows: str
    method: Literal["bab", "crown", "alpha-crown", "recurjac", "ibp"]
    timeout: float
    seed: int


@dataclass(frozen=True)
class _HowDerivatives:
    domain: str | Path | bytes | Mapping[str, Any] | None = None
    fixed: Mapping[str, str | float] = field(default_factory=dict)
    at: np.ndarray | None = None
    eps: float | str | None = None
    region_norm: str = "inf"
    clip: tuple[float, float] | None = None
    rows: str = "all"
    method: str = "bab"
    timeout: float = 60.0
    seed: int = 0


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

    from provenn.api.domain import columns
    from provenn.api.monotonicity import Options, Question
    from provenn.api.monotonicity import monotonicity as decide

    asked = _HowDerivatives(**how)
    loaded, domain = _over(model, shape, asked)
    names = features.split(",") if isinstance(features, str) else list(map(str, features))
    chosen = columns(names, math.prod(loaded.graph.input_shape), domain)
    question = Question(chosen, tuple(_places(loaded, domain, asked, chosen)), asked.rows)
    return decide(loaded, question, Options(asked.method, asked.timeout, asked.seed))


def jacobian(
    model: str | Path | bytes | nn.Module, shape: tuple[int, ...] | None = None, **how: Unpack[HowDerivatives]
) -> JacobianResult:
    """Proved bounds of every derivative of the outputs over a region, and beside them those seen at points of it.

    model, shape, how: as for `monotonicity`; a domain has to have one combination of categories.
    Raises: ProvennError in one of its kinds; TypeError for an unknown keyword.
    """
    from provenn.api.jacobian import Question
    from provenn.api.jacobian import jacobian as bound
    from provenn.api.monotonicity import Options
    from provenn.verifier.errors import InvalidSpecification

    asked = _HowDerivatives(**how)
    loaded, domain = _over(model, shape, asked)
    places = _places(loaded, domain, asked, ())
    if len(places) > 1:
        reason = f"the domain has {len(places)} combinations of categories, but a Jacobian is bounded over one region"
        raise InvalidSpecification(f"{reason}: hold features with fixed")
    return bound(loaded, Question(places[0], asked.rows), Options(asked.method, asked.timeout, asked.seed))


def _over(
    model: str | Path | bytes | nn.Module, shape: tuple[int, ...] | None, asked: _HowDerivatives
) -> tuple[LoadedModel, Domain | None]:
    """The network, and the domain if that is the region.   Raises: InvalidSpecification; all that reading raises."""
    import json
    import math

    import numpy

    from provenn.api.certification import load_model
    from provenn.api.domain import read_domain
    from provenn.verifier.errors import InvalidSpecification

    if (asked.at is None) != (asked.eps is None):
        raise InvalidSpecification("a region has a centre and a radius: give both at and eps")
    if (asked.domain is None) == (asked.at is None):
        raise InvalidSpecification("give either domain, or at and eps")
    if asked.domain is None and asked.fixed:
        raise InvalidSpecification("fixed holds features of a domain: give domain")
    if asked.at is not None:
        shape = shape or numpy.shape(asked.at)
    if shape is None and not isinstance(model, str | Path | bytes):
        raise InvalidSpecification("a torch module does not say what it takes: give the shape of its input")
    loaded = load_model(_onnx(model, shape or ()), slopes=True)
    if asked.domain is None:
        return loaded, None
    given = asked.domain
    text = json.dumps(given).encode() if isinstance(given, Mapping) else _bytes(given)
    domain = read_domain(text, math.prod(loaded.graph.input_shape))
    return loaded, domain.fixed({name: str(value) for name, value in asked.fixed.items()})


def _places(
    loaded: LoadedModel, domain: Domain | None, asked: _HowDerivatives, columns: Sequence[int]
) -> Sequence[Place]:
    """The regions.   Raises: InvalidSpecification; ResourceLimit."""
    import numpy

    from provenn.api.domain import Place
    from provenn.api.lipschitz_question import Around
    from provenn.verifier.errors import InvalidSpecification

    if domain is not None:
        return domain.places(columns)
    assert asked.at is not None
    assert asked.eps is not None
    given, wanted = numpy.shape(asked.at), loaded.graph.input_shape
    if given != wanted:
        raise InvalidSpecification(f"at has shape {list(given)}, but the network takes {list(wanted)}")
    centre = numpy.asarray(asked.at, float).ravel().tolist()
    return [Place.around(Around(centre, asked.eps, asked.region_norm, asked.clip))]


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
    from provenn.verifier.certificate.bundle import load
    from provenn.verifier.check import check as recheck

    files = certificate if isinstance(certificate, Mapping) else load(Path(certificate))
    return recheck(files, _bytes(model), None if specification is None else _bytes(specification))


def _bytes(source: str | Path | bytes) -> bytes:
    return source if isinstance(source, bytes) else Path(source).read_bytes()


def _onnx(model: str | Path | bytes | nn.Module, shape: tuple[int, ...]) -> bytes:
    if isinstance(model, str | Path | bytes):
        return _bytes(model)
    from provenn.models.torch_export import export

    return export(model, shape)


def __getattr__(name: str) -> Any:
    """The public names that live elsewhere, on first use."""
    if name not in _HOMES:
        raise AttributeError(f"module 'provenn' has no attribute '{name}'")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

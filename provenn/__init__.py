"""Provenn proves things about neural networks and hands back certificates that need not be trusted.

The facade: `verify` and `check` work in this process, `Client` talks to a service. Everything heavy is imported
when it is first used, so `import provenn` costs nothing and loads no torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypedDict, Unpack

if TYPE_CHECKING:
    import numpy as np
    from torch import nn

    from provenn.api.certification import ItemResult
    from provenn.api.client import Client
    from provenn.verifier.check import CertificateRejected, Report
    from provenn.verifier.errors import ProvennError

__version__ = "0.1.0"
__all__ = ["CertificateRejected", "Client", "ItemResult", "ProvennError", "check", "verify"]

_HOMES = {
    "CertificateRejected": "provenn.verifier.check",
    "Client": "provenn.api.client",
    "ItemResult": "provenn.api.certification",
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

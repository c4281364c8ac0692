"""The pytest plugin of Provenn: one fixture, `certify`. Importing it loads nothing but pytest, which is there already.

def test_robust(certify):
    certify("model.onnx", x, 3, eps=0.03, clip=(0, 1))
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, Unpack

import pytest

if TYPE_CHECKING:
    import numpy as np
    from torch import nn

    from provenn.api.keywords import How
    from provenn.api.results import ItemResult


class Certify(Protocol):
    """What the fixture is."""

    def __call__(
        self,
        model: str | Path | bytes | nn.Module,
        x: np.ndarray,
        y: int | Sequence[int],
        *,
        eps: float | str,
        **how: Unpack[How],
    ) -> list[ItemResult]:
        """Asserts that every input within eps of x is classified as y, by certificates that the checker accepted.

        x, y: one input and its class, or a batch of them; how: as of `provenn.verify`; timeout is for all together.
        Returns a result an input.   Raises: AssertionError showing counterexamples; ProvennError for bad input.
        """
        ...


@pytest.fixture(scope="session")
def certify() -> Certify:
    """Asserts robustness of inputs: what it returns passes only with a checked certificate for every one."""

    def call(
        model: str | Path | bytes | nn.Module,
        x: np.ndarray,
        y: int | Sequence[int],
        *,
        eps: float | str,
        **how: Unpack[How],
    ) -> list[ItemResult]:
        __tracebackhide__ = True
        from provenn.api.gate.assertion import Asked, certified, message

        asked = Asked(model, x, y, eps)
        results = certified(asked, **how)
        said = message(asked, results)
        if said is not None:
            raise AssertionError(said)
        return results

    return call

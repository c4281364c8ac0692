"""Fixtures for every test: the reference folder beside the project, small networks."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from signatures import check_shapes

pytest_plugins = ["postgres_kit"]
torch.set_num_threads(1)
# The shapes that signatures state are checked while tests run, and only then.
check_shapes(*(f"provenn.verifier.{name}" for name in ("bounds", "interval", "ops", "region")))


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of reference networks and values, `../shared` or $PROVENN_SHARED; skips where it is absent."""
    folder = Path(os.environ.get("PROVENN_SHARED", Path(__file__).parents[2] / "shared"))
    if not (folder / "vnncomp2022").is_dir():
        pytest.skip(f"the reference networks are not at {folder}")
    return folder


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """Bytes name no test: archives hold the second they were made in, and every worker makes its own."""
    return argname if isinstance(val, bytes) else None

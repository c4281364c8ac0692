"""The table of ops and the random networks are shared with other tests."""

from __future__ import annotations

import sys
from pathlib import Path

TESTS = Path(__file__).parents[1]
sys.path[:0] = [str(TESTS / "verifier" / "ops"), str(TESTS / "soundness")]

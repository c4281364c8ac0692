"""The table of ops is shared with the tests of single ops."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "verifier" / "ops"))

"""Random networks of all ops, and the table they are made of, are shared with other tests."""

from __future__ import annotations

import sys
from pathlib import Path

for folder in ("soundness", "verifier/ops"):
    sys.path.insert(0, str(Path(__file__).parents[2] / folder))

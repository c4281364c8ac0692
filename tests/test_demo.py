"""`make demo`, on few images: the whole path, from training to accepted certificates and a picture."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[1]


def test_the_demo_runs_from_end_to_end(tmp_path: Path) -> None:
    output = tmp_path / "demo-output"
    command = [sys.executable, str(ROOT / "examples" / "demo.py"), "--images", "4", "--network", "digits-mlp-robust"]
    ran = subprocess.run(
        [*command, "--output", str(output)], cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "all certificates accepted (" in ran.stdout
    assert "all certificates accepted (0)" not in ran.stdout
    assert (output / "certified-accuracy.png").read_bytes().startswith(b"\x89PNG")
    assert np.load(output / "images.npy").shape == (4, 1, 8, 8)
    assert "Finished server process" in (output / "server.log").read_text()
    assert ran.stderr == ""

"""README's section for teams, run as it stands: a server, keys, a job, a signed certificate, metrics."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from provenn.models import zoo

SECTION = (Path(__file__).parents[1] / "README.md").read_text().split("## Run it for your team")[1].split("\n## ")[0]
SCRIPT = re.findall(r"```sh\n(.*?)```", SECTION, re.DOTALL)[0]


def test_the_section_is_short() -> None:
    assert len(SECTION.strip().splitlines()) <= 30


@pytest.mark.skipif(shutil.which("curl") is None or shutil.which("bash") is None, reason="needs bash and curl")
def test_it_works_by_copy_and_paste(tmp_path: Path) -> None:
    network = tmp_path / "demo-output" / "digits-cnn-robust.onnx"
    network.parent.mkdir()
    network.write_bytes(zoo.load("digits-mlp-robust"))  # quicker
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    variables = {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "PROVENN_PORT": port}
    ran = subprocess.run(
        ["bash", "-euc", SCRIPT.replace(":8000", f":{port}") + "wait"],
        cwd=tmp_path,
        env={**os.environ, **variables, "PROVENN_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert "event: end" in ran.stdout, ran.stderr
    assert "accepted" in ran.stdout
    assert "valid" in ran.stdout
    counted = re.findall(r"provenn_jobs_total\{(.*)\} 1.0", ran.stdout)
    assert 'kind="lipschitz"' in counted[0]
    assert 'state="succeeded"' in counted[0]
    assert len(json.loads((tmp_path / "keys.json").read_text())["keys"]) == 1
    assert "Finished server process" in ran.stderr

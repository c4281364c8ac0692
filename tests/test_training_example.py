"""The example and the loop of docs/training.md run, on few images and for few epochs."""

from __future__ import annotations

import importlib.util
import re
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from torch import nn

NEEDED = ("sklearn", "onnxscript")
pytestmark = [
    pytest.mark.xdist_group("torch export"),
    pytest.mark.skipif(not all(map(find_spec, NEEDED)), reason=f"needs {' and '.join(NEEDED)}"),
]

ROOT = Path(__file__).parents[1]


def test_the_example_trains_and_certifies(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spec = importlib.util.spec_from_file_location("example", ROOT / "examples" / "certified_training.py")
    assert spec is not None
    assert spec.loader is not None
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    out = tmp_path / "digits.onnx"
    example.main(["--epochs", "4", "--images", "10", "--radius", "0.02", "--out", str(out)])
    written = re.findall(r"([0-9.]+)%", capsys.readouterr().out)
    clean, certified = map(float, written)
    assert clean >= 80
    assert clean >= certified >= 20
    assert out.exists()


def test_the_loop_of_the_document_lowers_the_worst_loss() -> None:
    from provenn.models.live_graph import LiveGraph
    from provenn.verifier.training import around, ibp

    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "training.md").read_text(), re.DOTALL)
    names: dict[str, object] = {}
    exec(compile(code, "docs/training.md", "exec"), names)
    torch.manual_seed(0)
    images = torch.rand(64, 2)
    labels = (images[:, 0] > images[:, 1]).long()
    module = nn.Sequential(nn.Linear(2, 10), nn.ReLU(), nn.Linear(10, 2))
    names["train"](module, [(images, labels)] * 8, 0.05, 30)  # type: ignore[operator]
    with torch.no_grad():
        found = ibp(LiveGraph.of(module, (2,)).graph(), around(images, 0.05, (0, 1)), labels)
    assert found.certified.double().mean() > 0.7

"""What the benchmark of bounds asks: networks, regions and rows, read from the reference folder or made from a seed."""

from __future__ import annotations

import gzip
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from provenn.models.onnx_reader import read
from provenn.models.zoo import load
from provenn.models.zoo.digits import load_digits
from provenn.solvers.packing import pack
from provenn.verifier.graph import Graph, sequential
from provenn.verifier.interval import Interval
from provenn.verifier.ops.base import Op
from provenn.verifier.ops.linear import Linear
from provenn.verifier.ops.relu import Relu
from provenn.verifier.region import Region
from provenn.verifier.spec_reader import read_specification

REFERENCE_METHODS = {"ibp": "IBP", "crown": "CROWN", "alpha-crown": "alpha-CROWN"}
"""Our names of methods -> those of the reference values."""


@dataclass(frozen=True, eq=False)
class Question:
    """Bound C y from below over every region of a batch: matrix C [spec, batch, outputs]; offset d [spec, batch] or 0.

    The margin of a row is its bound plus d.
    """

    name: str
    graph: Graph
    region: Region
    matrix: Tensor
    offset: Tensor | float = 0.0

    def to(self, device: str) -> Question:
        """The same question, on another device."""
        box = Interval(self.region.box.lower.to(device), self.region.box.upper.to(device))
        offset = self.offset.to(device) if isinstance(self.offset, Tensor) else self.offset
        graph = self.graph.to(device, torch.float32)
        return replace(self, graph=graph, region=Region(box), matrix=self.matrix.to(device), offset=offset)


@dataclass(frozen=True)
class Reference:
    """One case of the reference file: where its network and property are, and the rows' margins by method."""

    name: str
    network: str
    property: str
    margins: dict[str, list[float]]


def references(shared: Path) -> list[Reference]:
    """The cases of the reference file, in its order; none where the folder is not there."""
    path = shared / "peers" / "auto_lirpa_bounds.json"
    found: dict[str, Reference] = {}
    results: Sequence[dict[str, Any]] = json.loads(path.read_text())["results"] if path.exists() else []
    ours = {theirs: method for method, theirs in REFERENCE_METHODS.items()}
    for row in results:
        case = found.setdefault(row["case"], Reference(row["case"], row["onnx"], row["vnnlib"], {}))
        if row["method"] in ours:
            case.margins[ours[row["method"]]] = row["lower_bounds"]
    return list(found.values())


def reference_question(shared: Path, name: str) -> Question:
    """The rows of a property whose reference margins are known, over boxes rounded to the nearest float32.

    That is how the reference rounded them; in use they are rounded outward, which costs sri_resnet_a 3e-5 a margin.
    """
    case = next(c for c in references(shared) if c.name == name)
    graph = read(_content(shared / case.network)).to("cpu", torch.float32)
    cases = read_specification(_content(shared / case.property)).cases
    packed = pack(graph, cases, "cpu", torch.float32)
    ends = [[[float(v) for v in end] for end in (c.inputs.exact_lower, c.inputs.exact_upper)] for c in cases]
    lower, upper = torch.tensor(ends).reshape(len(cases), 2, *graph.input_shape).unbind(1)
    return Question(name, graph, Region(Interval(lower, upper)), -packed.matrix, packed.bound)


@dataclass(frozen=True)
class Throughput:
    """Boxes of half-width `radius` around random points; lowest: the range of the points is [lowest, lowest + 1]."""

    network: str
    boxes: int
    radius: float
    lowest: float
    method: str


THROUGHPUT = {
    "acasxu_1_1 crown": Throughput("acasxu_1_1_p1", 4096, 0.02, -0.5, "crown"),
    "acasxu_1_1 alpha-crown": Throughput("acasxu_1_1_p1", 1024, 0.02, -0.5, "alpha-crown"),
    "mnist_fc_256x4 crown": Throughput("mnist_fc_256x4", 128, 0.01, 0.0, "crown"),
    **{f"oval21_base crown {n}": Throughput("oval21_base", n, 0.01, 0.0, "crown") for n in (1, 8, 32)},
}
"""The radii and ranges give the mean bounds of the reference file; the rows are all outputs.

The convolutional network is asked for batches of three sizes: a box must not take longer in a larger one.
"""


def throughput_question(shared: Path, name: str) -> Question:
    """Every output of many boxes at once."""
    case = THROUGHPUT[name]
    graph = reference_question(shared, case.network).graph
    generator = torch.Generator().manual_seed(0)
    points = torch.rand((case.boxes, *graph.input_shape), generator=generator) + case.lowest
    return _all_outputs(name, graph, points, case.radius)


def digits_questions(name: str, count: int, radius: float) -> tuple[Question, list[Question]]:
    """Robustness of so many digits images: all in one question, and one question an image."""
    training, test = load_digits()
    images = torch.cat([torch.from_numpy(part.images) for part in (test, training)])[:count]
    labels = torch.cat([torch.from_numpy(part.labels) for part in (test, training)])[:count]
    graph = read(load(name)).to("cpu", torch.float32)
    images = images.reshape(count, *graph.input_shape)
    eye = torch.eye(10)
    others = torch.stack([torch.cat([torch.arange(label), torch.arange(label + 1, 10)]) for label in labels.tolist()])
    matrix = (eye[labels].unsqueeze(1) - eye[others]).transpose(0, 1).contiguous()
    whole = Question(name, graph, _boxes(images, radius), matrix)
    regions = [whole.region.select(slice(i, i + 1)) for i in range(count)]
    return whole, [replace(whole, region=r, matrix=matrix[:, i : i + 1]) for i, r in enumerate(regions)]


@dataclass(frozen=True)
class Size:
    """A dense ReLU network of equal layers, and how much is asked of it."""

    width: int = 64
    depth: int = 4
    batch: int = 8
    rows: int = 10
    radius: float = 0.02


GROWTH = {
    "width": (32, 64, 128, 256),
    "depth": (2, 4, 8),
    "batch": (1, 8, 64),
    "rows": (1, 10, 100, 1000),
}
"""What grows, the rest as in `Size`."""


def growth_question(size: Size) -> Question:
    """Random rows over boxes around random points."""
    generator = torch.Generator().manual_seed(0)
    ops: list[Op] = []
    for inputs, outputs in pairwise([size.width] * (size.depth + 1)):
        weight = torch.randn(outputs, inputs, generator=generator, dtype=torch.float64) * (2 / inputs) ** 0.5
        ops += [Linear(weight, torch.zeros(outputs, dtype=torch.float64)), Relu()]
    graph = sequential((size.width,), ops[:-1]).to("cpu", torch.float32)
    points = torch.rand((size.batch, size.width), generator=generator)
    matrix = torch.randn((size.rows, 1, size.width), generator=generator).expand(-1, size.batch, -1)
    return Question("growth", graph, _boxes(points, size.radius), matrix.contiguous())


def _all_outputs(name: str, graph: Graph, points: Tensor, radius: float) -> Question:
    outputs = torch.Size(graph.output_shape).numel()
    matrix = torch.eye(outputs).unsqueeze(1).expand(-1, len(points), -1).contiguous()
    return Question(name, graph, _boxes(points, radius), matrix)


def _boxes(points: Tensor, radius: float) -> Region:
    return Region(Interval(points - radius, points + radius))


def _content(path: Path) -> bytes:
    packed = path.with_name(path.name + ".gz")
    return gzip.decompress(packed.read_bytes()) if packed.exists() else path.read_bytes()

"""The layers that a description may list: torch's constructor arguments by name, the tensors, and what they compute."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from provenn.models import onnx_layers as layers
from provenn.models import onnx_shapes as shapes
from provenn.models.onnx_writer import Extent, Value, Writer, shown

Count = Annotated[int, Field(ge=1, lt=2**31)]
Natural = Annotated[int, Field(ge=0, lt=2**31)]
Axis = Annotated[int, Field(ge=-16, le=16)]
Real = Annotated[float, Field(allow_inf_nan=False)]
Counts = Count | Annotated[list[Count], Field(min_length=1, max_length=3)]
Naturals = Natural | Annotated[list[Natural], Field(min_length=1, max_length=3)]
Shapes = dict[str, tuple[int, ...]]
Tensors = Mapping[str, Value]


class Layer(BaseModel):
    """One layer. `tensors`: the names and shapes of its state dict; `write`: its value, in ONNX."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)

    def tensors(self) -> Shapes:
        """Names and shapes of what it stores."""
        return {}

    def write(self, w: Writer, x: Value, tensors: Tensors) -> Value:
        """What it computes of x."""
        raise NotImplementedError


def _listed(numbers: int | Sequence[int], rank: int = 1) -> list[int]:
    return [numbers] * rank if isinstance(numbers, int) else list(numbers)


class Linear(Layer):
    """x weight' + bias."""

    type: Literal["Linear"]
    in_features: Count
    out_features: Count
    bias: bool = True

    def tensors(self) -> Shapes:
        """weight, bias."""
        bias = {"bias": (self.out_features,)} if self.bias else {}
        return {"weight": (self.out_features, self.in_features), **bias}

    def write(self, w: Writer, x: Value, tensors: Tensors) -> Value:
        """One product."""
        return layers.linear(w, x, tensors["weight"], tensors.get("bias"))


class Convolution(Layer):
    """Conv1d, Conv2d, Conv3d."""

    type: Literal["Conv1d", "Conv2d", "Conv3d"]
    in_channels: Count
    out_channels: Count
    kernel_size: Counts
    stride: Counts = 1
    padding: Naturals | Literal["same", "valid"] = 0
    dilation: Counts = 1
    groups: Count = 1
    bias: bool = True
    padding_mode: Literal["zeros"] = "zeros"

    @property
    def rank(self) -> int:
        """Axes it runs along."""
        return int(self.type[4])

    def tensors(self) -> Shapes:
        """weight, bias."""
        inner = self.in_channels // self.groups
        bias = {"bias": (self.out_channels,)} if self.bias else {}
        return {"weight": (self.out_channels, inner, *_listed(self.kernel_size, self.rank)), **bias}

    def write(self, w: Writer, x: Value, tensors: Tensors) -> Value:
        """One convolution."""
        w.require(len(x.shape) == self.rank + 2, f"inputs {shown(x.shape)} of {self.type}")
        padding = self.padding if isinstance(self.padding, str) else _listed(self.padding)
        weights = (tensors["weight"], tensors.get("bias"))
        return layers.convolution(
            w, x, weights, _listed(self.stride), padding, _listed(self.dilation), self.groups
        )  # fmt: skip


class BatchNorm(Layer):
    """BatchNorm1d, BatchNorm2d, BatchNorm3d with the stored mean and variance."""

    type: Literal["BatchNorm1d", "BatchNorm2d", "BatchNorm3d"]
    num_features: Count
    eps: Real = 1e-5
    momentum: Real | None = 0.1
    affine: bool = True
    track_running_stats: Literal[True] = True

    def tensors(self) -> Shapes:
        """running_mean, running_var, num_batches_tracked; weight, bias."""
        each = (self.num_features,)
        affine = {"weight": each, "bias": each} if self.affine else {}
        return {**affine, "running_mean": each, "running_var": each, "num_batches_tracked": ()}

    def write(self, w: Writer, x: Value, tensors: Tensors) -> Value:
        """One normalization."""
        ranks = {"BatchNorm1d": (2, 3), "BatchNorm2d": (4,), "BatchNorm3d": (5,)}[self.type]
        w.require(len(x.shape) in ranks, f"inputs {shown(x.shape)} of {self.type}")
        affine = (tensors.get("weight"), tensors.get("bias"))
        return layers.batch_norm(w, x, affine, (tensors["running_mean"], tensors["running_var"]), self.eps)


class LayerNorm(Layer):
    """Normalization over the last axes."""

    type: Literal["LayerNorm"]
    normalized_shape: Count | Annotated[list[Count], Field(min_length=1, max_length=8)]
    eps: Real = 1e-5
    elementwise_affine: bool = True
    bias: bool = True

    def tensors(self) -> Shapes:
        """weight, bias."""
        shape = tuple(_listed(self.normalized_shape))
        bias = {"bias": shape} if self.bias else {}
        return {"weight": shape, **bias} if self.elementwise_affine else {}

    def write(self, w: Writer, x: Value, tensors: Tensors) -> Value:
        """One normalization."""
        affine = (tensors.get("weight"), tensors.get("bias"))
        return layers.layer_norm(w, x, _listed(self.normalized_shape), affine, self.eps)


class Plain(Layer):
    """A function without parameters."""

    type: Literal["ReLU", "SiLU", "Mish", "Hardswish", "SELU"]
    inplace: bool = False

    def write(self, w: Writer, x: Value, tensors: Tensors) -> Value:
        """Entry by entry."""
        return layers.silu(w, x) if self.type == "SiLU" else layers.plain(w, OPERATORS[self.type], x)


class Saturating(Layer):
    """Sigmoid, Tanh: they have no `inplace`."""

    type: Literal["Sigmoid", "Tanh"]

    def write(self, w: Writer, x: Value, tensors: Tensors) -> Value:
        """Entry by entry."""
        return layers.plain(w, self.type, x)


OPERATORS = {"ReLU": "Relu", "Mish": "Mish", "Hardswish": "HardSwish", "SELU": "Selu"}


class LeakyReLU(Layer):
    """x where it is positive, a multiple elsewhere."""

    type: Literal["LeakyReLU"]
    negative_slope: Real = 0.01
    inplace: bool = False

    def write(self, w: Writer, x: Value, tensors: Tensors) -> Value:
        """Entry by entry."""
        return layers.leaky_relu(w, x, self.negative_slope)


class PReLU(Layer):
    """As LeakyReLU, with stored slopes."""

    type: Literal["PReLU"]
    num_parameters: Count = 1
    init: Real = 0.25

    def tensors(self) -> Shapes:
        """Weight."""
        return {"weight": (self.num_parameters,)}

    def write(self, w: Writer, x: Value, tensors: Tensors) -> Value:
        """Entry by entry."""
        return layers.prelu(w, x, tensors["weight"])


class ELU(Layer):
    """x where it is positive, alpha (exp(x) - 1) elsewhere."""

    type: Literal["ELU"]
    alpha: Real = 1.0
    inplace: bool = False

    def write(self, w: Writer, x: Value, tensors: Tensors) -> Value:
        """Entry by entry."""
        return layers.elu(w, x, self.alpha)


class GELU(Layer):
    """The exact form, or the one with tanh."""

    type: Literal["GELU"]
    approximate: Literal["none", "tanh"] = "none"

    def write(self, w: Writer, x: Value, tensors: Tensors) -> Value:
        """Entry by entry."""
        return layers.gelu(w, x, self.approximate)


class Softplus(Layer):
    """log(1 + exp(beta x)) / beta."""

    type: Literal["Softplus"]
    beta: Real = 1.0
    threshold: Real = 20.0

    def write(self, w: Writer, x: Value, tensors: Tensors) -> Value:
        """Entry by entry."""
        return layers.softplus(w, x, self.beta, self.threshold)


class Hardtanh(Layer):
    """min(max(x, min_val), max_val)."""

    type: Literal["Hardtanh"]
    min_val: Real = -1.0
    max_val: Real = 1.0
    inplace: bool = False

    def write(self, w: Writer, x: Value, tensors: Tensors) -> Value:
        """Entry by entry."""
        return layers.clip(w, x, self.min_val, self.max_val)


class ReLU6(Layer):
    """min(max(x, 0), 6)."""

    type: Literal["ReLU6"]
    inplace: bool = False

    def write(self, w: Writer, x: Value, tensors: Tensors) -> Value:
        """Entry by entry."""
        return layers.clip(w, x, 0.0, 6.0)


class Softmax(Layer):
    """Softmax, LogSoftmax along an axis."""

    type: Literal["Softmax", "LogSoftmax"]
    dim: Axis

    def write(self, w: Writer, x: Value, tensors: Tensors) -> Value:
        """Along the axis."""
        return layers.softmax(w, x, self.dim, self.type)


class MaxPool(Layer):
    """MaxPool1d, MaxPool2d, MaxPool3d."""

    type: Literal["MaxPool1d", "MaxPool2d", "MaxPool3d"]
    kernel_size: Counts
    stride: Counts | None = None
    padding: Naturals = 0
    dilation: Counts = 1
    ceil_mode: bool = False

    def write(self, w: Writer, x: Value, tensors: Tensors) -> Value:
        """One pooling."""
        rank = _rank(w, x, self.type, self.type[7])
        kernel, stride = _listed(self.kernel_size, rank), [] if self.stride is None else _listed(self.stride)
        w.require(len(kernel) == rank, f"kernel_size has {len(kernel)} numbers, for {rank} axes")
        return layers.max_pool(w, x, kernel, stride, _listed(self.padding), _listed(self.dilation), self.ceil_mode)


class AvgPool(Layer):
    """AvgPool1d, AvgPool2d, AvgPool3d."""

    type: Literal["AvgPool1d", "AvgPool2d", "AvgPool3d"]
    kernel_size: Counts
    stride: Counts | None = None
    padding: Naturals = 0
    ceil_mode: bool = False
    count_include_pad: bool = True

    def write(self, w: Writer, x: Value, tensors: Tensors) -> Value:
        """One pooling."""
        rank = _rank(w, x, self.type, self.type[7])
        kernel, stride = _listed(self.kernel_size, rank), [] if self.stride is None else _listed(self.stride)
        w.require(len(kernel) == rank, f"kernel_size has {len(kernel)} numbers, for {rank} axes")
        padding, counted = _listed(self.padding), self.count_include_pad
        return layers.average_pool(w, x, kernel, stride, padding, self.ceil_mode, counted)


class AdaptiveAvgPool(Layer):
    """AdaptiveAvgPool1d, AdaptiveAvgPool2d, AdaptiveAvgPool3d to parts of one size."""

    type: Literal["AdaptiveAvgPool1d", "AdaptiveAvgPool2d", "AdaptiveAvgPool3d"]
    output_size: Count | Annotated[list[Count | None], Field(min_length=1, max_length=3)]

    def write(self, w: Writer, x: Value, tensors: Tensors) -> Value:
        """One pooling."""
        rank = _rank(w, x, self.type, self.type[15])
        size = [self.output_size] * rank if isinstance(self.output_size, int) else self.output_size
        w.require(len(size) == rank, f"output_size has {len(size)} numbers, for {rank} axes")
        return layers.adaptive_average_pool(w, x, size)


def _rank(w: Writer, x: Value, name: str, digit: str) -> int:
    w.require(len(x.shape) == int(digit) + 2, f"inputs {shown(x.shape)} of {name}")
    return int(digit)


class Flatten(Layer):
    """Axes start_dim to end_dim as one."""

    type: Literal["Flatten"]
    start_dim: Axis = 1
    end_dim: Axis = -1

    def write(self, w: Writer, x: Value, tensors: Tensors) -> Value:
        """The same entries."""
        return shapes.flatten(w, x, self.start_dim, self.end_dim)


class Unflatten(Layer):
    """One axis as several."""

    type: Literal["Unflatten"]
    dim: Axis
    unflattened_size: Annotated[list[Count], Field(min_length=1, max_length=8)]

    def write(self, w: Writer, x: Value, tensors: Tensors) -> Value:
        """The same entries."""
        axis = w.axis(self.dim, len(x.shape))
        target: tuple[Extent, ...] = (*x.shape[:axis], *self.unflattened_size, *x.shape[axis + 1 :])
        return shapes.reshape(w, x, target)


class Unchanged(Layer):
    """Identity; Dropout and its relatives, which do nothing in inference mode."""

    type: Literal["Identity", "Dropout", "Dropout1d", "Dropout2d"]
    p: Annotated[float, Field(ge=0, le=1)] = 0.5
    inplace: bool = False

    def write(self, w: Writer, x: Value, tensors: Tensors) -> Value:
        """The input."""
        return x


class MaxMin(Layer):
    """Pairs of neighbours along the last axis, the larger first (provenn.models.zoo.sorting)."""

    type: Literal["MaxMin"]

    def write(self, w: Writer, x: Value, tensors: Tensors) -> Value:
        """One Max and one Min of the members of all pairs."""
        pairs = _groups(w, x, 2)
        first, second = shapes.select(w, pairs, -1, 0), shapes.select(w, pairs, -1, 1)
        both = [layers.arithmetic(w, operator, first, second) for operator in ("Max", "Min")]
        return shapes.reshape(w, shapes.concat(w, [shapes.unsqueeze(w, v, -1) for v in both], -1), x.shape)


class GroupSort(Layer):
    """Groups of neighbours along the last axis, in falling order (provenn.models.zoo.sorting)."""

    type: Literal["GroupSort"]
    size: Count

    def write(self, w: Writer, x: Value, tensors: Tensors) -> Value:
        """One TopK of the groups."""
        groups = _groups(w, x, self.size)
        return shapes.reshape(w, layers.largest(w, groups, self.size, -1), x.shape)


def _groups(w: Writer, x: Value, size: int) -> Value:
    width = w.within(x, len(x.shape) - 1)
    w.require(width % size == 0, f"{width} units do not make groups of {size}")
    return shapes.reshape(w, x, (*x.shape[:-1], width // size, size))


class Householder(Layer):
    """z + 2 v relu(-v'z) for every group, v = its direction, normalized (provenn.models.zoo.householder)."""

    type: Literal["Householder"]
    width: Count
    size: Count = 2

    def tensors(self) -> Shapes:
        """Directions."""
        return {"directions": (self.width // self.size, self.size)}

    def write(self, w: Writer, x: Value, tensors: Tensors) -> Value:
        """Two products with constants, and a relu."""
        groups = self.width // self.size
        w.require(groups * self.size == self.width, f"{self.width} units do not make groups of {self.size}")
        w.limits.require_elements((groups, self.width), "the directions of a Householder layer")
        stored = tensors["directions"].numbers
        assert stored is not None
        # As torch normalizes: no division by less than 1e-12.
        units = stored / np.maximum(np.linalg.norm(stored.astype(np.float64), axis=1, keepdims=True), 1e-12)
        normals = np.zeros((groups, groups, self.size), x.type)
        normals[np.arange(groups), np.arange(groups)] = units
        normals = normals.reshape(groups, self.width)
        inside = layers.plain(w, "Relu", layers.linear(w, x, w.constant(-normals), None))
        return layers.arithmetic(w, "Add", x, layers.linear(w, inside, w.constant(2 * normals.T), None))

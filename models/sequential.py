"""A network as a list of layers in JSON: {"input": [1, 28, 28], "layers": [{"type": "Conv2d", ..}, ..]}."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from provenn.models import onnx_layers
from provenn.models import sequential_layers as kinds
from provenn.models.onnx_writer import Value, Writer
from provenn.models.pt2.fields import members, parsed, shown
from provenn.models.sequential_layers import Layer, Shapes, Tensors
from provenn.models.zoo import descriptions
from provenn.verifier.errors import InvalidModel, ResourceLimit

JSON_BYTES = 2**20
DEPTH = 32
"""Objects and lists inside of each other."""


class Residual(Layer):
    """x + branch(x)."""

    type: Literal["Residual"]
    branch: list[AnyLayer]

    def tensors(self) -> Shapes:
        """Those of the branch, as branch.0.weight, .."""
        return _tensors(self.branch, "branch.")

    def write(self, w: Writer, x: Value, tensors: Tensors) -> Value:
        """The sum."""
        return onnx_layers.arithmetic(w, "Add", x, written(w, x, self.branch, tensors, "branch."))


class Sequential(Layer):
    """Layers one after the other, as one layer."""

    type: Literal["Sequential"]
    layers: list[AnyLayer]

    def tensors(self) -> Shapes:
        """Those of the layers, as 0.weight, .."""
        return _tensors(self.layers, "")

    def write(self, w: Writer, x: Value, tensors: Tensors) -> Value:
        """What the last one computes."""
        return written(w, x, self.layers, tensors, "")


AnyLayer = Annotated[
    kinds.Linear
    | kinds.Convolution
    | kinds.BatchNorm
    | kinds.LayerNorm
    | kinds.Plain
    | kinds.Saturating
    | kinds.LeakyReLU
    | kinds.PReLU
    | kinds.ELU
    | kinds.GELU
    | kinds.Softplus
    | kinds.Hardtanh
    | kinds.ReLU6
    | kinds.Softmax
    | kinds.MaxPool
    | kinds.AvgPool
    | kinds.AdaptiveAvgPool
    | kinds.Flatten
    | kinds.Unflatten
    | kinds.Unchanged
    | kinds.MaxMin
    | kinds.GroupSort
    | kinds.Householder
    | Residual
    | Sequential,
    Field(discriminator="type"),
]


class Architecture(BaseModel):
    """The input's shape without its batch, and the layers in order."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    input: Annotated[list[kinds.Count], Field(min_length=1, max_length=8)]
    layers: Annotated[list[AnyLayer], Field(min_length=1)]

    def tensors(self) -> Shapes:
        """Names and shapes of the state dict."""
        return _tensors(self.layers, "")


def read(text: bytes) -> Architecture:
    """The architecture of a JSON description, or of {"zoo": name}.

    Raises: InvalidModel naming the layer, the field and what is expected there; ResourceLimit.
    """
    if len(text) > JSON_BYTES:
        raise ResourceLimit(f"the architecture of {len(text)} bytes", f"{JSON_BYTES} bytes")
    value = parsed(text, "the architecture")
    if isinstance(value, dict) and "zoo" in value:
        value = descriptions.description(members(value, "the architecture", {"zoo"})["zoo"])
    _require_flat(value)
    try:
        return Architecture.model_validate(value)
    except ValidationError as error:
        raise InvalidModel(_explained(error)) from error


def _require_flat(value: Any) -> None:
    """Raises: ResourceLimit if layers hold layers that hold layers, and so on."""
    level = [value] if isinstance(value, dict | list) else []
    for _ in range(DEPTH):
        level = [v for part in level for v in (part.values() if isinstance(part, dict) else part)
                 if isinstance(v, dict | list)]  # fmt: skip
        if not level:
            return
    raise ResourceLimit("the depth of the architecture", str(DEPTH))


def _explained(error: ValidationError) -> str:
    """The first of the errors: where, what, and what stands there."""
    first = error.errors(include_url=False, include_context=False)[0]
    where = ".".join(str(part) for part in first["loc"]) or "the whole"
    message = f"{first['msg'][:1].lower()}{first['msg'][1:]}"
    there = "" if isinstance(first["input"], dict | list) else f"; there is {shown(first['input'])}"
    return f"the architecture at {shown(where)}: {message[:1000]}{there}"


def _tensors(layers: Sequence[Layer], prefix: str) -> Shapes:
    return {f"{prefix}{i}.{name}": shape for i, layer in enumerate(layers) for name, shape in layer.tensors().items()}


def written(w: Writer, x: Value, layers: Sequence[Layer], tensors: Tensors, prefix: str) -> Value:
    """What the layers compute of x, with the tensors whose names begin with the prefix."""
    outer = w.where
    for index, layer in enumerate(layers):
        own = {n: tensors[f"{prefix}{index}.{n}"] for n in layer.tensors() if f"{prefix}{index}.{n}" in tensors}
        w.where = f"{outer}.{prefix}{index}" if outer else f"layers.{index}"
        x = layer.write(w, x, own)
    w.where = outer
    return x


def types() -> set[str]:
    """The types that a layer may have."""
    union = get_args(get_args(AnyLayer)[0])
    return {name for kind in union for name in get_args(kind.model_fields["type"].annotation)}

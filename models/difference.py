"""Two networks as one: what a second version computes otherwise than the first."""

from __future__ import annotations

import onnx
from onnx import helper

from provenn.models.admission import Admitted
from provenn.models.composition import INPUT, assembled, converted, network, renamed
from provenn.models.limits import Limits
from provenn.verifier.errors import InvalidModel

FIRST, SECOND, RESULT = "first/", "second/", "difference"


def difference(first: bytes, second: bytes, limits: Limits | None = None) -> bytes:
    """The ONNX file (self-contained) of x -> f(x) - g(x); a bound of it bounds how far the networks are apart.

    The names of f begin with first/, those of g with second/; the input is `input`, declared as that of f.
    If the operator sets differ, the older file is converted to the newer one by ONNX's converter.
    Raises: InvalidModel if one is no ONNX file, if inputs, outputs or types differ, or for a conversion that fails or
    computes something else; UnsupportedOp, ResourceLimit as for any network.
    """
    names = ("first network", "second network")
    f, g = (network(data, what, limits) for data, what in zip((first, second), names, strict=True))
    _require_alike(f, g)
    opset = max(f.file.opset, g.file.opset)
    f, g = (converted(each, opset, what, limits) for each, what in zip((f, g), names, strict=True))
    parts = [renamed(f, FIRST, INPUT), renamed(g, SECOND, INPUT)]
    last = helper.make_node("Sub", [FIRST + f.output_name, SECOND + g.output_name], [RESULT], RESULT)
    declared = next(i for i in f.file.model.graph.input if i.name == f.input_name)
    ends = (
        onnx.ValueInfoProto(name=INPUT, type=declared.type),
        onnx.ValueInfoProto(name=RESULT, type=f.file.model.graph.output[0].type),
    )
    nodes, stored = ([part for each in parts for part in each[i]] for i in (0, 1))
    form = max(f.file.model.ir_version, g.file.model.ir_version)
    return assembled("difference", [*nodes, last], stored, ends, (opset, form))


def _require_alike(f: Admitted, g: Admitted) -> None:
    """Inputs and outputs of one shape and type each."""
    for what, x, y in (("inputs", f.input, g.input), ("outputs", f.output, g.output)):
        if x.held_shape != y.held_shape or len(x.shape) != len(y.shape):
            raise InvalidModel(
                f"the first network has {what} of shape {list(x.shape)} at batch 1, the second of {list(y.shape)}; "
                "export both with the same"
            )
    if f.input_type != g.input_type:
        raise InvalidModel(
            f"the first network computes in {f.input_type}, the second in {g.input_type}; export both with the same"
        )
    if f.output_type != g.output_type:
        raise InvalidModel(
            f"the first network's output is {f.output_type}, the second's {g.output_type}; export both with the same"
        )

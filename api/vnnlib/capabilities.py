"""What `supports` answers. Loads neither torch nor onnxruntime."""

from __future__ import annotations

from provenn.models.operator_names import OPERATOR_NAMES, OPSETS

CAPABILITIES: dict[str, tuple[str, ...]] = {
    "onnx-opset-versions": (str(OPSETS[0]), str(OPSETS[-1])),
    "onnx-element-types": ("float64", "float32", "int64", "int32", "real"),
    "onnx-operators": OPERATOR_NAMES,
    "vnnlib-versions": ("1.0", "2.0"),
    "hidden-node-theories": ("NH", "H"),
    "multiple-input-output-theories": ("SIO", "MIO"),
    "multiple-network-theories": ("SNET", "MENET", "MINET", "MNET"),
    "multiple-node-comparison-theories": ("SNC", "MNC"),
    "arithmetic-complexity-theories": ("BND", "OUTC", "LIN", "POLY"),
    "optimised-disjunctive-reasoning": ("false",),
    "serialise-assignments": ("true",),
}
"""Capability -> the lines of its answer. Disjunctions are multiplied out: disjunctive normal form."""

"""The caller's own torch module, in this process, as ONNX bytes."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec

import torch
from torch import nn

from provenn.verifier.errors import InvalidModel

OPSET = 20


def export(module: nn.Module, input_shape: tuple[int, ...]) -> bytes:
    """ONNX bytes of `module` in inference mode, for inputs [batch, *input_shape] of any batch.

    Every submodule's training flag is put back as it was. Never for files of strangers: a module is code.
    Raises: InvalidModel if onnxscript is missing or torch's exporter refuses the module, with its cause.
    """
    with _inference(module), _quiet():
        program = _exported(module, input_shape, optimize=True)
        return bytes(program.model_proto.SerializeToString())


def export_with_names(module: nn.Module, input_shape: tuple[int, ...]) -> bytes:
    """As `export`, every parameter and buffer that is read stored under its name in the module.

    Its numbers are hidden from the exporter's optimizer, which would fold them or merge equal ones.
    """
    with _inference(module), _quiet():
        program = _exported(module, input_shape, optimize=False)
        hidden = {value: value.const_value for value in program.model.graph.initializers.values()}
        for value in hidden:
            value.const_value = None
        program.optimize()
        for value, numbers in hidden.items():
            value.const_value = numbers
        return bytes(program.model_proto.SerializeToString())


def _exported(module: nn.Module, input_shape: tuple[int, ...], optimize: bool) -> torch.onnx.ONNXProgram:
    """What torch's exporter makes.   Raises: InvalidModel."""
    if find_spec("onnxscript") is None:
        raise InvalidModel('exporting a torch module needs onnxscript: pip install "provenn[export]"')
    if not all(isinstance(size, int) and size > 0 for size in input_shape):
        raise InvalidModel(f"the input shape {input_shape} must be of positive whole numbers, without the batch axis")
    like = next((p for p in module.parameters()), torch.zeros(0))
    example = torch.zeros((2, *input_shape), dtype=like.dtype, device=like.device)
    try:
        program = torch.onnx.export(
            module,
            (example,),
            dynamo=True,
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            opset_version=OPSET,
            optimize=optimize,
            verbose=False,
        )
    except torch.onnx.OnnxExporterError as refusal:
        cause = refusal.__cause__ or refusal
        reason = next(iter(str(cause).strip().splitlines()), "")
        raise InvalidModel(f"torch's exporter refuses this module: {type(cause).__name__}: {reason}") from refusal
    assert program is not None
    return program


@contextmanager
def _inference(module: nn.Module) -> Iterator[None]:
    """The module in inference mode; parts that were frozen on purpose stay frozen afterwards."""
    training = {part: part.training for part in module.modules()}
    module.eval()
    try:
        yield
    finally:
        for part, flag in training.items():
            part.training = flag


@contextmanager
def _quiet() -> Iterator[None]:
    """Keeps in what torch's exporter says about itself: deprecated calls of its own, operators it would also know."""
    names = ("torch.onnx._internal.exporter._registration", "onnx_ir.passes.common.initializer_deduplication")
    levels = {logger: logger.level for logger in map(logging.getLogger, names)}
    for logger in levels:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", r"`isinstance\(treespec, LeafSpec\)` is deprecated", FutureWarning)
            yield
    finally:
        for logger, level in levels.items():
            logger.setLevel(level)

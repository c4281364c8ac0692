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
    if find_spec("onnxscript") is None:
        raise InvalidModel('exporting a torch module needs onnxscript: pip install "provenn[export]"')
    if not all(isinstance(size, int) and size > 0 for size in input_shape):
        raise InvalidModel(f"the input shape {input_shape} must be of positive whole numbers, without the batch axis")
    like = next((p for p in module.parameters()), torch.zeros(0))
    example = torch.zeros((2, *input_shape), dtype=like.dtype, device=like.device)
    try:
        with _inference(module), _quiet():
            batch = torch.export.Dim("batch")
            program = torch.onnx.export(
                module, (example,), dynamo=True, dynamic_shapes=({0: batch},), opset_version=OPSET, verbose=False
            )
    except torch.onnx.OnnxExporterError as refusal:
        cause = refusal.__cause__ or refusal
        reason = next(iter(str(cause).strip().splitlines()), "")
        raise InvalidModel(f"torch's exporter refuses this module: {type(cause).__name__}: {reason}") from refusal
    assert program is not None
    return bytes(program.model_proto.SerializeToString())


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
    logger = logging.getLogger("torch.onnx._internal.exporter._registration")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", r"`isinstance\(treespec, LeafSpec\)` is deprecated", FutureWarning)
            yield
    finally:
        logger.setLevel(level)

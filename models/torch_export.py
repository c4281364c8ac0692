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

OPSET = 18


def export(module: nn.Module, input_shape: tuple[int, ...]) -> bytes:
    """ONNX bytes of `module` in inference mode, for inputs [batch, *input_shape] of any batch.

    The module's training flag is put back as it was. Never for files of strangers: a module is code.
    Raises: InvalidModel if onnxscript is missing or torch's exporter refuses the module.
    """
    if find_spec("onnxscript") is None:
        raise InvalidModel('exporting a torch module needs onnxscript: pip install "provenn[export]"')
    like = next((p for p in module.parameters()), torch.zeros(0))
    example = torch.zeros((2, *input_shape), dtype=like.dtype, device=like.device)
    training = module.training
    module.eval()
    try:
        with warnings.catch_warnings(), _without_torchvision():
            warnings.simplefilter("ignore", DeprecationWarning)
            warnings.simplefilter("ignore", FutureWarning)
            batch = torch.export.Dim("batch")
            program = torch.onnx.export(
                module, (example,), dynamo=True, dynamic_shapes=({0: batch},), opset_version=OPSET, verbose=False
            )
    except torch.onnx.OnnxExporterError as refusal:
        raise InvalidModel(f"torch's exporter refuses this module: {refusal}") from refusal
    finally:
        module.train(training)
    assert program is not None
    return bytes(program.model_proto.SerializeToString())


@contextmanager
def _without_torchvision() -> Iterator[None]:
    """Keeps the exporter from telling everybody that it would also know torchvision's operators."""
    logger = logging.getLogger("torch.onnx._internal.exporter._registration")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)

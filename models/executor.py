"""The independent executor: onnxruntime, on the file's own bytes."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from provenn.models.admission import admitted
from provenn.models.runtime import ERRORS, options
from provenn.verifier.errors import InvalidModel
from provenn.verifier.ops.base import Shape


class OnnxExecutor:
    """Runs an ONNX file (gzip or not) in onnxruntime, on the CPU, one thread, one input at a time.

    The network is the function at batch 1: a model is never run at another batch, where it might mix its inputs.
    Raises: InvalidModel, UnsupportedOp, ResourceLimit if the file is not admitted, or onnxruntime refuses it or fails
    on an input of zeros.
    """

    def __init__(self, data: bytes, files: Mapping[str, bytes] | None = None) -> None:
        self.name = f"onnxruntime {onnxruntime.__version__}"
        network = admitted(data, files)
        try:
            self._session = onnxruntime.InferenceSession(
                network.file.content, options(), providers=["CPUExecutionProvider"]
            )
        except ERRORS as error:
            raise InvalidModel(f"onnxruntime refuses the model: {error}") from error
        self._input, self._output = network.input_name, network.output_name
        self._type = network.input_type
        self._onnx_shape = network.input.shape
        self.input_shape: Shape = network.input.held_shape
        self.output_shape: Shape = network.output.held_shape
        self._run_one(np.zeros(self.input_shape, dtype=np.float32))

    def run(self, inputs: NDArray[np.float32]) -> NDArray[np.float32]:
        """Outputs [batch, *output_shape] for inputs [batch, *input_shape], both float32.

        Raises: InvalidModel if the inputs have another shape, or onnxruntime fails on them.
        """
        if inputs.shape[1:] != self.input_shape:
            raise InvalidModel(f"inputs of shape {inputs.shape} given to a network for [batch, *{self.input_shape}]")
        outputs = np.empty((len(inputs), *self.output_shape), dtype=np.float32)
        for place, x in zip(outputs, inputs, strict=True):
            place[...] = self._run_one(x)
        return outputs

    def _run_one(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
        feed = {self._input: np.asarray(x, dtype=self._type).reshape(self._onnx_shape)}
        try:
            (result,) = self._session.run([self._output], feed)
        except ERRORS as error:
            raise InvalidModel(f"onnxruntime fails on the model: {error}") from error
        if result.size != np.prod(self.output_shape):
            raise InvalidModel(f"onnxruntime computes an output of shape {result.shape}, not {self.output_shape}")
        with np.errstate(over="ignore"):
            return np.asarray(result, dtype=np.float32).reshape(self.output_shape)

"""Files of torch.export (.pt2) to ONNX, by a reader of our own: JSON and raw bytes. Loads no torch.

Nothing in the file is executed, evaluated or unpickled: neither example inputs, which are pickles, nor guards, which
are Python, nor symbolic expressions, which torch evaluates. What is not known is refused by its name.
"""

from __future__ import annotations

from provenn.models.limits import Limits
from provenn.models.pt2 import program
from provenn.models.pt2.archive import PROGRAM, is_pt2, opened
from provenn.models.pt2.conversion import convert

__all__ = ["is_pt2", "to_onnx"]


def to_onnx(data: bytes, limits: Limits) -> bytes:
    """The ONNX file of a .pt2 file, the batch symbolic if it was so in the export.

    Raises: InvalidModel or UnsupportedOp naming the field or node and what to do; ResourceLimit.
    """
    archive = opened(data, limits)
    return convert(program.read(archive.text(PROGRAM)), archive, limits)

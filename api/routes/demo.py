"""Networks and inputs for a first look."""

from __future__ import annotations

from fastapi import APIRouter

from provenn.api.auth import Reader
from provenn.api.demo import Demo, NoDemo, demonstration
from provenn.api.problems import NOT_FOUND, problem

router = APIRouter(prefix="/v1/demo", tags=["system"])


@router.get("", summary="Get the demonstration")
def demo(who: Reader) -> Demo:
    """Two small networks and handwritten digits, to be uploaded and asked about; made when first asked for, in seconds.

    404 where scikit-learn and onnxscript are not installed.
    """
    try:
        return demonstration()
    except NoDemo as error:
        raise problem(NOT_FOUND, str(error)) from error

"""Two small networks and some handwritten digits, for a first look: made in a process of its own when asked for.

They come from `models.zoo`, which trains the networks on scikit-learn's digits: seconds, once a machine.
"""

from __future__ import annotations

import base64
import os
import threading
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from provenn.api.jobs.attempt import alarm, ending
from provenn.api.jobs.child import Child, Reporter
from provenn.api.jobs.task import Limits, Order, main
from provenn.verifier.errors import ProvennError

NETWORKS = ("digits-mlp-robust", "digits-mlp")
"""The first is trained against the interval bound, the second plainly."""
NEEDED = ("sklearn", "onnxscript")
PER_CLASS, CLASSES = 2, 10
SECONDS = 300.0
_making = threading.Lock()


class NoDemo(ProvennError):
    """There is no demonstration here: what it is made of is not installed, or could not be made."""


class Digit(BaseModel):
    """A test image, on which no network was trained."""

    model_config = ConfigDict(extra="forbid", strict=True)

    label: int
    pixels: list[float] = Field(description="from 0 to 1, flat, in C order")


class Demo(BaseModel):
    """What there is to begin with."""

    model_config = ConfigDict(extra="forbid", strict=True)

    networks: dict[str, str] = Field(description="ONNX files in base64, by name")
    shape: list[int] = Field(description="of an image")
    digits: list[Digit]


def available() -> bool:
    """Whether what it needs is installed."""
    return all(find_spec(name) is not None for name in NEEDED)


def demonstration() -> Demo:
    """Made by the first who asks, in seconds; others wait for it.   Raises: NoDemo."""
    if not available():
        raise NoDemo('the demonstration needs scikit-learn and onnxscript: pip install "provenn[demo]"')
    with _making:
        return _made()


@dataclass(frozen=True)
class MakeDemo:
    """Loads the networks, or trains them, and picks digits; cache: the folder of the zoo's networks, if one is named.

    A child has hardly a variable of the server's environment.
    """

    cache: str | None

    def run(self, reporter: Reporter) -> dict[str, Any]:
        """The members of `Demo`."""
        from provenn.models import zoo
        from provenn.models.zoo.digits import load_digits

        if self.cache is not None:
            os.environ["PROVENN_CACHE"] = self.cache
        _, test = load_digits()
        chosen = [k for c in range(CLASSES) for k in [i for i, n in enumerate(test.labels) if n == c][:PER_CLASS]]
        return {
            "networks": {name: base64.b64encode(zoo.load(name)).decode() for name in NETWORKS},
            "shape": list(zoo.SHAPE),
            "digits": [{"label": int(test.labels[k]), "pixels": test.images[k].ravel().tolist()} for k in chosen],
        }


@cache
def _made() -> Demo:
    child = Child(main, Limits(1, None))
    child.give(Order(MakeDemo(os.environ.get("PROVENN_CACHE")), SECONDS))
    with alarm(child, SECONDS):
        said = next(child.messages(), {})
    child.kill("it has answered")
    code = child.close()
    if "problem" in said:
        raise NoDemo(f"the demonstration could not be made: {said['problem'].get('detail')}")
    try:
        return Demo.model_validate(said.get("answer"))
    except ValidationError as error:
        raise NoDemo(f"the demonstration could not be made ({ending(code)})") from error

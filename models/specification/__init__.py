"""Kinds of specification documents: each file resolves one kind against a network, into layers and cases.

A kind is a module with `Document`, its keys, and `stated`, what they say of a network; it is imported when it is used.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

from provenn.models.specification.stated import Stated

if TYPE_CHECKING:
    from pydantic import BaseModel

Files = Callable[[str], bytes]
"""The bytes of another file that a document names; raises InvalidSpecification if there is none."""


@dataclass(frozen=True)
class Kind:
    """A module here. real: whether what it says is about real arithmetic alone, and nothing for float32 executions."""

    module: str
    real: bool = False

    def __call__(self, document: Mapping[str, Any], model: bytes, files: Files) -> Stated:
        """What the document says of an ONNX file.

        Raises: InvalidSpecification naming the key and what was expected; ResourceLimit, InvalidModel, UnsupportedOp.
        """
        stated: Stated = self._module.stated(document, model, files)
        return stated

    @property
    def document(self) -> type[BaseModel]:
        """The keys, as JSON schema has them."""
        found: type[BaseModel] = self._module.Document
        return found

    @property
    def _module(self) -> Any:
        return import_module(f"{__name__}.{self.module}")


KINDS: dict[str, Kind] = {
    "activation-pattern": Kind("activation_pattern"),
    "ball": Kind("ball"),
    "lyapunov": Kind("lyapunov", real=True),
    "perturbation": Kind("perturbation"),
    "top-k": Kind("top_k"),
    "vnnlib": Kind("vnnlib"),
}
"""By the document's "kind". Those that the checker reads itself, and "monotone", are in `documents`."""

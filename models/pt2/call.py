"""One call of an ATen operator: its arguments, taken one by one with the type that the operator expects."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NoReturn, TypeVar

import numpy as np

from provenn.models.onnx_writer import Extent, Value
from provenn.models.pt2 import fields
from provenn.models.pt2.program import Node
from provenn.verifier.errors import InvalidModel, UnsupportedOp

Held = Value | Extent | None
"""What a name stands for: a tensor, a length, or (None) a result that is not computed."""

Given = TypeVar("Given", Value, float, int)


class Call:
    """A node and the values it reads. Every getter takes its argument away: what is left over is refused."""

    def __init__(self, node: Node, values: Mapping[str, Held], network_input: Value) -> None:
        self.node, self.network_input = node, network_input
        self._values = values
        self._left = dict(node.arguments)

    def tensor(self, name: str) -> Value:
        """A tensor that must be given."""
        return self._given(name, self.optional(name))

    def optional(self, name: str) -> Value | None:
        """A tensor, or None."""
        kind, value = self._take(name)
        if kind == "as_optional_tensor":
            kind, value = fields.one_of(value, name)
        if kind == "as_none":
            return None
        if kind != "as_tensor":
            self._wrong(name, kind, "a tensor")
        return self._value(value, name)

    def tensors(self, name: str) -> list[Value]:
        """A list of tensors."""
        kind, value = self._take(name)
        if kind != "as_tensors":
            self._wrong(name, kind, "a list of tensors")
        return [self._value(v, name) for v in fields.sequence(value, name)]

    def operand(self, name: str) -> Value | float:
        """A tensor or a number."""
        return self.tensor(name) if self._left.get(name, ("",))[0] == "as_tensor" else self.number(name)

    def number(self, name: str, default: float | None = None) -> float:
        """A number."""
        found = self.limit(name)
        return self._given(name, default) if found is None else found

    def limit(self, name: str) -> float | None:
        """A number, or None."""
        kind, value = self._take(name)
        if kind in ("as_float", "as_int"):
            return fields.number(value, name)
        if kind != "as_none":
            self._wrong(name, kind, "a number")
        return None

    def integer(self, name: str, default: int | None = None) -> int:
        """A whole number."""
        found = self.position(name)
        return self._given(name, default) if found is None else found

    def position(self, name: str) -> int | None:
        """A whole number, or None."""
        kind, value = self._take(name)
        if kind == "as_int":
            return fields.whole(value, name)
        if kind != "as_none":
            self._wrong(name, kind, "a whole number")
        return None

    def integers(self, name: str, default: tuple[int, ...] | None = None) -> tuple[int, ...]:
        """Whole numbers; one alone is a list of one."""
        kind, value = self._take(name)
        if kind == "as_none" and default is not None:
            return default
        if kind == "as_int":
            return (fields.whole(value, name),)
        if kind != "as_ints":
            self._wrong(name, kind, "whole numbers")
        return tuple(fields.whole(v, name) for v in fields.sequence(value, name))

    def lengths(self, name: str) -> tuple[Extent, ...]:
        """Whole numbers, of which one may stand for the batch."""
        if self._left.get(name, ("",))[0] != "as_sym_ints":
            return self.integers(name)
        _, value = self._take(name)
        return tuple(self._length(v, name) for v in fields.sequence(value, name))

    def flag(self, name: str, default: bool = False) -> bool:
        """True or false."""
        kind, value = self._take(name)
        if kind == "as_none":
            return default
        if kind != "as_bool":
            self._wrong(name, kind, "true or false")
        return fields.flag(value, name)

    def text(self, name: str, default: str) -> str:
        """A word."""
        kind, value = self._take(name)
        if kind == "as_none":
            return default
        if kind != "as_string":
            self._wrong(name, kind, "text")
        return fields.text(value, name)

    def kind(self, name: str, default: np.dtype[Any]) -> int | np.dtype[Any]:
        """Torch's number of a type, or the default."""
        kind, value = self._take(name)
        if kind == "as_none":
            return default
        if kind != "as_scalar_type":
            self._wrong(name, kind, "a type")
        return fields.whole(value, name)

    def pass_over(self, *names: str) -> None:
        """Arguments that change nothing of what is computed."""
        for name in names:
            self._left.pop(name, None)

    def finish(self) -> None:
        """Raises: UnsupportedOp if an argument was not read."""
        if self._left:
            unread = fields.shown(min(self._left))
            raise UnsupportedOp(self.node.name, self.node.target, f"its argument {unread} is not read")

    def refuse(self, message: str) -> NoReturn:
        """Raises: InvalidModel about this call."""
        raise InvalidModel(message, self.node.name)

    def _given(self, name: str, found: Given | None) -> Given:
        if found is None:
            self.refuse(f"the argument {name} is missing")
        return found

    def _take(self, name: str) -> tuple[str, Any]:
        return self._left.pop(name, ("as_none", True))

    def _wrong(self, name: str, kind: str, expected: str) -> NoReturn:
        raise InvalidModel(f"the argument {name} is {fields.shown(kind)}; {expected} is expected", self.node.name)

    def _value(self, value: Any, what: str) -> Value:
        name = fields.text(fields.members(value, what, {"name"})["name"], what)
        found = self._values.get(name)
        if not isinstance(found, Value):
            state = "not computed here" if name in self._values else "computed by nothing before it"
            raise InvalidModel(f"reads {fields.shown(name)}, which is {state}", self.node.name)
        return found

    def _length(self, value: Any, what: str) -> Extent:
        kind, found = fields.one_of(value, what)
        if kind == "as_int":
            return fields.whole(found, what)
        name = fields.text(found, what) if kind == "as_name" else ""
        length = self._values.get(name)
        if not isinstance(length, int | str):
            raise InvalidModel(f"reads the length {fields.shown(name)}, which nothing computes", self.node.name)
        return length

"""A pickle's opcodes, interpreted with nothing but dictionaries, lists, tuples and descriptions of tensors.

The pickle of a state dict is a short program of a few opcodes. Here nothing in it can run, or allocate more than its
own length: what it refers to are names of a list, and the only calls are those of `called`. Loads no torch.
"""

from __future__ import annotations

import pickletools
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from provenn.models.onnx_writer import RANK
from provenn.verifier.errors import InvalidModel, ResourceLimit

PROGRAM_BYTES = 32 * 2**20
"""Of a pickle: names and shapes, since the numbers of a tensor lie in files beside it."""

STORAGES = {
    "DoubleStorage": "float64", "FloatStorage": "float32", "HalfStorage": "float16", "BFloat16Storage": "bfloat16",
    "LongStorage": "int64", "IntStorage": "int32", "ShortStorage": "int16", "CharStorage": "int8",
    "ByteStorage": "uint8", "BoolStorage": "bool",
}  # fmt: skip
"""The types of torch's storages."""

NAMED = frozenset(
    {
        "collections OrderedDict",
        "torch._utils _rebuild_tensor_v2",
        "torch._utils _rebuild_parameter",
        *(f"torch {name}" for name in STORAGES),
    }
)
"""All that a state dict of plain tensors refers to, as "module name"."""


@dataclass(frozen=True)
class Named:
    """Something the pickle refers to, "module name": one of NAMED."""

    name: str


@dataclass(frozen=True)
class Storage:
    """A file of numbers: their type, its name in the folder `data`."""

    kind: str
    key: str


@dataclass(frozen=True)
class Stored:
    """A tensor: where its numbers are and how they lie there."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def interpreted(pickle: bytes) -> Any:
    """The value of a pickle that only holds dictionaries, tuples, texts, numbers and tensors.

    Raises: InvalidModel for any other opcode or reference.
    """
    if len(pickle) > PROGRAM_BYTES:
        raise ResourceLimit(f"the pickle of {len(pickle)} bytes", f"{PROGRAM_BYTES} bytes")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # pickletools', of texts with odd escapes
            return _run(_Machine(), pickle)
    except (ValueError, IndexError, KeyError, TypeError) as error:
        raise InvalidModel(f"the pickle is broken: {error!a:.200}") from error


def _run(machine: _Machine, pickle: bytes) -> Any:
    """What the machine holds when the pickle stops."""
    for opcode, argument, position in pickletools.genops(pickle):
        if opcode.name == "STOP":
            return machine.pop()
        step = STEPS.get(opcode.name)
        if step is None:
            raise InvalidModel(f"the pickle has {opcode.name} at byte {position}, as no state dict has")
        step(machine, argument)
    raise InvalidModel("the pickle has no end")


MARK = object()


class _Machine:
    """The stack and the memory of a pickle. It holds plain values, and calls nothing but `called` below."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.memory: dict[int, Any] = {}

    def push(self, value: Any) -> None:
        """Puts a value on the stack."""
        self.stack.append(value)

    def pop(self) -> Any:
        """Takes a value.   Raises: IndexError if there is none, TypeError for a mark."""
        value = self.stack.pop()
        if value is MARK:
            raise TypeError("a mark where a value belongs")
        return value

    def remember(self, place: int) -> None:
        """Keeps the last value."""
        self.memory[place] = self.stack[-1]

    def marked(self) -> list[Any]:
        """Takes the values above the last mark, and the mark."""
        values = []
        while (value := self.stack.pop()) is not MARK:
            values.append(value)
        return values[::-1]

    def tuple(self, count: int) -> None:
        """The last values as one tuple."""
        self.push(tuple(self.pop() for _ in range(count))[::-1])

    def set(self, pairs: list[Any]) -> None:
        """Puts key, value, key, value, .. into the dictionary on the stack."""
        target = self.stack[-1]
        if not isinstance(target, dict) or len(pairs) % 2 or not all(isinstance(k, str | int) for k in pairs[::2]):
            raise TypeError("an entry of something else than a dictionary with names")
        target.update(zip(pairs[::2], pairs[1::2], strict=True))

    def append(self, values: list[Any]) -> None:
        """Puts values into the list on the stack."""
        if not isinstance(self.stack[-1], list):
            raise TypeError("an item of something else than a list")
        self.stack[-1].extend(values)

    def name(self, name: str) -> None:
        """A reference to one of NAMED."""
        if name not in NAMED:
            raise InvalidModel(f"the pickle refers to {name!a:.120}")
        self.push(Named(name))

    def stacked_name(self) -> None:
        """The same, its two parts on the stack."""
        name, module = self.pop(), self.pop()
        self.name(f"{module} {name}" if isinstance(name, str) and isinstance(module, str) else "?")

    def call(self) -> None:
        """The value that a reference makes of its arguments."""
        arguments, function = self.pop(), self.pop()
        if not isinstance(function, Named) or not isinstance(arguments, tuple):
            raise TypeError("a call of something that cannot be called")
        self.push(called(function.name, arguments))

    def storage(self) -> None:
        """A storage, of ("storage", type, key, device, count)."""
        match self.pop():
            case ("storage", Named(name), str(key), str(), int()) if name.startswith("torch "):
                self.push(Storage(STORAGES[name.removeprefix("torch ")], key))
            case _:
                raise TypeError("no storage of numbers")

    def build(self) -> None:
        """Attributes of a dictionary (its `_metadata`): nothing of them is kept."""
        self.pop()
        if not isinstance(self.stack[-1], dict):
            raise TypeError("attributes of something else than a dictionary")


def called(name: str, arguments: tuple[Any, ...]) -> Any:
    """What a state dict's pickle may make: an empty dictionary, a tensor, a parameter (the tensor itself)."""
    match name, arguments:
        case "collections OrderedDict", ():
            return {}
        case "torch._utils _rebuild_tensor_v2", (Storage() as storage, int(offset), tuple(shape), tuple(strides), *_):
            if all(type(n) is int and 0 <= n < 2**63 for n in (offset, *shape, *strides)) and len(shape) <= RANK:
                return Stored(storage, offset, shape, strides)
        case "torch._utils _rebuild_parameter", (Stored() as tensor, *_):
            return tensor
    raise TypeError(f"{name} of arguments that no state dict has")


STEPS: dict[str, Callable[[_Machine, Any], None]] = {
    **dict.fromkeys(("PROTO", "FRAME"), lambda machine, argument: None),
    **dict.fromkeys(
        ("BINUNICODE", "SHORT_BINUNICODE", "BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT"), _Machine.push
    ),
    "NONE": lambda machine, _: machine.push(None),
    "NEWTRUE": lambda machine, _: machine.push(True),
    "NEWFALSE": lambda machine, _: machine.push(False),
    "EMPTY_DICT": lambda machine, _: machine.push({}),
    "EMPTY_LIST": lambda machine, _: machine.push([]),
    "EMPTY_TUPLE": lambda machine, _: machine.push(()),
    "MARK": lambda machine, _: machine.push(MARK),
    "TUPLE": lambda machine, _: machine.push(tuple(machine.marked())),
    "TUPLE1": lambda machine, _: machine.tuple(1),
    "TUPLE2": lambda machine, _: machine.tuple(2),
    "TUPLE3": lambda machine, _: machine.tuple(3),
    "APPEND": lambda machine, _: machine.append([machine.pop()]),
    "APPENDS": lambda machine, _: machine.append(machine.marked()),
    "SETITEM": lambda machine, _: machine.set([machine.pop(), machine.pop()][::-1]),
    "SETITEMS": lambda machine, _: machine.set(machine.marked()),
    **dict.fromkeys(
        ("BINPUT", "LONG_BINPUT"), lambda machine, place: machine.memory.__setitem__(place, machine.stack[-1])
    ),
    **dict.fromkeys(("BINGET", "LONG_BINGET"), lambda machine, place: machine.push(machine.memory[place])),
    "MEMOIZE": lambda machine, _: machine.memory.__setitem__(len(machine.memory), machine.stack[-1]),
    "GLOBAL": _Machine.name,
    "STACK_GLOBAL": lambda machine, _: machine.stacked_name(),
    "REDUCE": lambda machine, _: machine.call(),
    "BINPERSID": lambda machine, _: machine.storage(),
    "BUILD": lambda machine, _: machine.build(),
}
"""What each opcode of a state dict does."""

"""What a specification document says of a network, once it is resolved against it."""

from __future__ import annotations

from dataclasses import dataclass

from provenn.verifier.spec import Specification


@dataclass(frozen=True, eq=False)
class Stated:
    """An ONNX network (the given one, or one composed with it), a Specification of it, and both in words.

    model: the ONNX file that the specification, and every certificate of it, is about. specification: its text is
    what the checker reads. words: one sentence for people.
    """

    model: bytes
    specification: Specification
    words: str

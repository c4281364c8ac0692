"""Kind "vnnlib": a property in VNN-LIB, in a file of its own or in the document itself."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from provenn.models.specification import fields
from provenn.models.specification.fields import fails, validated
from provenn.models.specification.stated import Stated
from provenn.verifier.errors import InvalidSpecification
from provenn.verifier.spec_reader import gunzipped, read_specification


class Document(fields.Document):
    """A reference."""

    kind: Literal["vnnlib"]
    file: str | None = Field(None, min_length=1, description="beside the document; this or text")
    text: str | None = Field(None, min_length=1, description="the property itself")
    sha256: str | None = Field(None, pattern="^[0-9a-f]{64}$", description="that the file has to have, unpacked")

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.file is None) == (self.text is None):
            raise fails('give either "file" or "text"')
        return self


def stated(document: Mapping[str, Any], model: bytes, files: Callable[[str], bytes]) -> Stated:
    """The network itself, and the property.

    Raises: InvalidSpecification naming the key, or the line of the property; ResourceLimit; what `files` raises.
    """
    asked = validated(Document, document)
    if asked.text is not None:
        key, data = '"text"', asked.text.encode()
    else:
        key, data = '"file"', files(asked.file or "")
    found = hashlib.sha256(gunzipped(data)).hexdigest()
    if asked.sha256 not in (None, found):
        raise InvalidSpecification(f'"sha256": {key} has {found}')
    try:
        specification = read_specification(data)
    except InvalidSpecification as error:
        named = type(error)(f"{key}: {error}")
        named.line = error.line
        raise named from None
    where = asked.file or "the document"
    return Stated(model, specification, f"no input of the sets in {where} has an unsafe output")

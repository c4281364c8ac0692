"""A specification file of any form and kind, resolved against a network: VNN-LIB, or a document in JSON or TOML."""

from __future__ import annotations

import difflib
import json
import re
import tomllib
from decimal import Decimal
from typing import Any, NoReturn

from provenn.models.specification import KINDS, Files, plain
from provenn.models.specification.fields import as_json, shown
from provenn.models.specification.monotone import Monotone, asked
from provenn.models.specification.stated import Stated
from provenn.models.specification.toml_text import limit_toml_depth
from provenn.verifier.errors import InvalidSpecification, ResourceLimit
from provenn.verifier.spec_json import FORMAT, limit_depth, unique
from provenn.verifier.spec_reader import gunzipped, read_specification

TOML_BYTES = 1 << 20
"""Longest document in TOML: its reader is slow."""
MONOTONE = "monotone"

_VNNLIB = re.compile(rb"(?:[ \t\r\n]+|;[^\n]*+)*+\(")
_LINE = re.compile(r"at line (\d+)")
_JSON = re.compile(rb"\s*\{")
_HALF = re.compile(rb"\\u[dD][89a-fA-F]")
_MARKED = b"\xef\xbb\xbf"
_KIND = re.compile(rb'"kind"\s*:\s*"([^"\\]*)"')


def no_files(name: str) -> NoReturn:
    """Raises: InvalidSpecification."""
    raise InvalidSpecification(f"it refers to the file {name!r}, and there are no others here: put its content in")


def resolve(data: bytes, model: bytes, files: Files = no_files, semantics: str = "real") -> Stated | Monotone:
    """What a specification file (gzip or not) says of a network, ONNX or not; semantics: of what it is to be proved.

    Raises: InvalidSpecification naming the key, or the line, and what was expected, and for a kind that has no meaning
    in these semantics; ResourceLimit; BackendError without the vnnlib package; for kinds that compose networks also
    InvalidModel, UnsupportedOp.
    """
    text = gunzipped(data)
    document = document_of(text)
    if document is None:
        return Stated(model, read_specification(text), "")
    kind = document["kind"]
    require_meaning(kind, semantics)
    if kind == MONOTONE:
        return asked(document, files)
    if kind in KINDS:
        return KINDS[kind](document, model, files)
    return Stated(model, read_specification(as_json(document)), "")


def require_meaning(kind: str, semantics: str) -> None:
    """Raises: InvalidSpecification for float32 executions, of which a document of this kind says nothing."""
    if semantics != "real" and kind in KINDS and KINDS[kind].real:
        said = "it is about trajectories in real arithmetic, which float32 executions of the composed network are not"
        raise InvalidSpecification(f'"kind": semantics {semantics} is not for {kind}: {said}')


def document_of(text: bytes) -> dict[str, Any] | None:
    """The document in a text; None for VNN-LIB, and for JSON of those kinds that the checker reads itself.

    Numbers are int or Decimal.   Raises: InvalidSpecification for none of the forms, or an unknown kind; ResourceLimit.
    """
    if not is_document(text):
        return None
    if not _JSON.match(text):
        return _known(_toml(text))
    document = _known(_json(text))
    return None if document["kind"] in plain.KINDS else document


def is_document(text: bytes) -> bool:
    """Whether a text has to be resolved, as far as that is seen without reading it."""
    if _VNNLIB.match(text) or not text.strip():
        return False
    named = set(_KIND.findall(text))
    return not _JSON.match(text) or not named or not named <= {name.encode() for name in plain.KINDS}


def kinds() -> list[str]:
    """All of them, in order."""
    return sorted({*KINDS, *plain.KINDS, MONOTONE})


def _known(document: Any) -> dict[str, Any]:
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        given = shown(document.get("format")) if isinstance(document, dict) else shown(document)
        raise InvalidSpecification(f'"format": a document has "format": "{FORMAT}", not {given}')
    kind = document.get("kind")
    if kind not in kinds():
        near = difflib.get_close_matches(kind[:100], kinds(), 1) if isinstance(kind, str) else []
        hint = f"; did you mean {near[0]}?" if near else ""
        raise InvalidSpecification(f'"kind": {shown(kind)} is none of {", ".join(kinds())}{hint}')
    return document


def _json(text: bytes) -> Any:
    limit_depth(text)
    try:
        document = json.loads(text, parse_float=Decimal, parse_constant=_refused, object_pairs_hook=unique)
        if _HALF.search(text):
            json.dumps(document, ensure_ascii=False, default=str).encode()
        return document
    except UnicodeEncodeError:
        raise InvalidSpecification(
            "a text has half of a surrogate pair, such as \\ud800: that is no character"
        ) from None
    except json.JSONDecodeError as error:
        raise InvalidSpecification(f"not JSON: {error.msg} (column {error.colno})", error.lineno) from None
    except UnicodeDecodeError as error:
        line = text.count(b"\n", 0, error.start) + 1
        raise InvalidSpecification("not JSON: a byte is not UTF-8", line) from None
    except ValueError as error:
        raise InvalidSpecification(f"not JSON that is read here: {_digits(error)}") from None


def _digits(error: ValueError) -> str:
    """In our words where Python's speak of its own limits."""
    return "a whole number of more than 4300 digits" if "integer string" in str(error) else str(error)


def _refused(text: str) -> NoReturn:
    raise InvalidSpecification(f"{text!r} is not a number")


def _toml(text: bytes) -> dict[str, Any]:
    if len(text) > TOML_BYTES:
        raise ResourceLimit("the size of a document in TOML (JSON may be longer)", f"{TOML_BYTES >> 20} MiB")
    if text.startswith(_MARKED):
        raise InvalidSpecification("it begins with a byte order mark: save it as UTF-8 without one")
    limit_toml_depth(text)
    try:
        return tomllib.loads(text.decode("utf-8"), parse_float=Decimal)
    except UnicodeDecodeError as error:
        line = text.count(b"\n", 0, error.start) + 1
        raise InvalidSpecification("a byte is not UTF-8", line) from None
    except ValueError as error:
        begins = "VNN-LIB (it would begin with a parenthesis) nor JSON (with a brace) nor TOML"
        where = _LINE.search(str(error))
        blank = text[: len(text) - len(text.lstrip())]
        line = int(where[1]) if where else blank.count(b"\n") + 1
        raise InvalidSpecification(f"neither {begins} ({_digits(error)})", line) from None

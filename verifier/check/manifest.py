"""The files of a certificate: `manifest.json`, what it states, and the payload, its numbers.

The manifest is canonical JSON with known keys and without floats, sealed by its digest. The payload is a safetensors
file: 8 bytes of length, a JSON header, raw little-endian data.
"""

import hashlib
import json
from collections.abc import Mapping
from itertools import pairwise
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from provenn.verifier.check.rounding import CertificateRejected, require

FORMAT = "provenn-certificate/1"
ASSURANCES = {"real": "checked", "float32": "deployed"}  # semantics: real arithmetic, or float32 in any order -> word
CONTENT = {"format": str, "semantics": str, "verdict": str, "model": dict, "specification": dict, "payload": dict}
CONTENT |= {"claims": list, "produced_by": dict, "statistics": dict}
PARTS = {"model": {"sha256_file": str}, "payload": {"file": str, "sha256": str}}
PARTS |= {"specification": {"file": str, "form": str, "sha256_file": str}}
CLAIM = {"id": int, "kind": str, "case": int, "method": str, "uses": list, "slopes": dict}
KINDS: dict[str, dict[str, type]] = {
    "interval": CLAIM | {"node": str, "lower": str, "upper": str, "rows": str, "own": dict}
}
KINDS |= {"margin": CLAIM | {"clause": int, "row": int, "above": str}}
KINDS |= {"lipschitz": {"id": int, "kind": str, "case": int, "rows": list, "upper": str, "multipliers": dict}}
KINDS["lipschitz"] |= {"metric": str, "uses": list}
KINDS["lipschitz-torus"] = KINDS["lipschitz"] | {"maps": dict, "torus": list, "cut": str}
ROWS = {"id": int, "kind": str, "case": int, "rows": list, "method": str, "steps": list, "chunks": list, "uses": list}
KINDS |= {"lipschitz-jacobian": ROWS | {"upper": str}, "entries": ROWS | {"entries": list}}
KINDS |= {"tree": {"id": int, "kind": str, "case": int, "clauses": list, "steps": list, "chunks": list, "uses": list}}
OPTIONAL: dict[str, Any] = {"slopes": {}, "own": {}, "rows": "", "metric": ""}
"""Keys and types. interval: the value `node` lies in [lower, upper] (payload entries) over the inputs of `case`;
margin: row `row` of clause `clause` has a margin > above; slopes: name of a ReLU step -> payload entry (optional).
rows, own (optional): some bounds have slopes of their own: entry of j + 1 for the lower bound of neuron j, -(j + 1) for
the upper one; name of a ReLU step -> entry of their slopes, one after the other. tree: chunks [name, sha256] of files,
in which `steps` are split, prove some clauses of the case (trees.py). lipschitz: rows of C together in l2, `upper`;
multipliers: name of a nonlinear step -> entry; metric: entry, for the l-infinity norm only (lipschitz.py).
lipschitz-torus: maps: name of a step -> [channels, extents, steps], torus: cells, cut: entry (torus.py).
lipschitz-jacobian, entries: of rows of a Jacobian a norm, or the stated entries of these numbers, over the region or,
with chunks, leaf by leaf (jacobian.py)."""

NAMED = ("slopes", "own", "multipliers")  # step -> entry of the payload

TYPES = {"F32": "<f4", "F64": "<f8", "U8": "u1", "I32": "<i4"}
Tensors = Mapping[str, NDArray[Any]]


def canonical(value: Any) -> bytes:
    """RFC 8785 for the values used here: objects (keys in ASCII), lists, strings, integers."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode(errors="replace")


def sealed(content: Mapping[str, Any]) -> bytes:
    """The manifest file: the content and the sha256 of the content, so that no byte changes unnoticed."""
    return canonical({**content, "sha256": hashlib.sha256(canonical(dict(content))).hexdigest()})


def parsed(what: str, data: bytes, number: Any) -> dict[str, Any]:
    """An object in JSON, `number` reading what is no integer.   Raises: CertificateRejected if it is broken."""
    try:
        content = json.loads(data, parse_float=number, parse_constant=number, object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise CertificateRejected(what, f"it is not JSON: {error}") from error
    require(isinstance(content, dict), what, "it is not a JSON object")
    return dict(content)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(dict(pairs)) != len(pairs):
        raise ValueError("a key is given twice")
    return dict(pairs)


def read_manifest(data: bytes) -> dict[str, Any]:
    """Its content.   Raises: CertificateRejected for anything but a canonical, sealed manifest with known keys."""
    content = parsed("manifest", data, int)
    seal = content.pop("sha256", None)
    try:
        same = sealed(content) == data
    except RecursionError as error:
        raise CertificateRejected("manifest", "it is nested too deeply") from error
    require(same, "manifest", f"it was changed: its canonical form does not have sha256 {seal}")
    require(content.get("format") == FORMAT, "manifest", f"format {content.get('format')!r} is not {FORMAT}")
    _typed(content, CONTENT, "manifest")
    known = content["semantics"] in ASSURANCES and content["verdict"] == "verified"
    require(known, "manifest", "semantics or verdict")
    for name, keys in PARTS.items():
        _typed(content[name], keys, name)
    for position, claim in enumerate(content["claims"]):
        known = isinstance(claim, dict) and claim.get("kind") in [*KINDS] and claim.get("id") == position
        require(known, position, "its kind is not understood, or the ids are not 0, 1, 2, ..")
        expected, given = KINDS[claim["kind"]], claim.keys() & OPTIONAL.keys()
        claim.update({key: value for key, value in OPTIONAL.items() if key in expected and key not in given})
        _typed(claim, expected, position)
        counted = all(type(n) is int for n in claim["uses"])
        require(counted, position, "what it uses is not given by ids")
        others = ("interval", "recurjac") if ROWS.keys() <= claim.keys() else ("interval",) if not given else ()
        known = claim.get("method", "crown") in ("crown", *others)
        require(known, position, f"method {claim.get('method')!r} is not understood")
        named = [claim.get(key, {}).values() for key in NAMED]
        names = [*(name for names in named for name in names), *claim.get("steps", ())]
        pairs = claim.get("chunks", [["", ""]])
        texts = names + [
            text for pair in pairs for text in (pair if isinstance(pair, list) and len(pair) == 2 else [0])
        ]
        require(all(isinstance(text, str) for text in texts), position, "it must name steps, entries, files")
    return content


def entries(claim: Mapping[str, Any]) -> set[str]:
    """The payload's entries that a claim names."""
    single = {claim.get(key, "") for key in ("lower", "upper", "rows") if claim["kind"] == "interval"}
    single |= {claim.get("metric", ""), claim.get("cut", "")}
    return (single - {""}).union(*(claim.get(key, {}).values() for key in NAMED))


def _typed(content: Mapping[str, Any], keys: Mapping[str, type], where: int | str) -> None:
    different = sorted(content.keys() ^ keys.keys()) or [k for k, kind in keys.items() if type(content[k]) is not kind]
    require(not different, where, f"keys unknown, missing or of the wrong type: {', '.join(different)}")


def read_payload(data: bytes) -> Tensors:
    """Name -> array [n].   Raises: CertificateRejected for anything that `read_tensors` refuses, or other shapes."""
    tensors, about = read_tensors("payload", data)
    flat = all(array.ndim == 1 for array in tensors.values())
    require(flat and not about, "payload", "its type, shape or offsets are not read: arrays have one dimension")
    return tensors


def read_tensors(what: str, data: bytes) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """The arrays of a safetensors file by name, and its metadata. They must cover the data, without overlaps or holes.

    Raises: CertificateRejected for anything else, unknown types, or numbers that are not finite.
    """
    length = int.from_bytes(data[:8], "little")
    require(len(data) >= 8 + length, what, "its header is truncated")
    body, spans = data[8 + length :], [(0, 0)]
    tensors: dict[str, NDArray[Any]] = {}
    header = parsed(what, data[8 : 8 + length], int)
    about = header.pop("__metadata__", {})
    require(isinstance(about, dict), what, "its metadata are not an object")
    for name, entry in header.items():
        require(isinstance(entry, dict), what, f"{name} is not an object")
        _typed(entry, {"dtype": str, "shape": list, "data_offsets": list}, what)
        numbers, kind = entry["shape"] + entry["data_offsets"], np.dtype(TYPES.get(entry["dtype"], "u1"))
        plain = len(entry["data_offsets"]) == 2 and all(type(n) is int and 0 <= n < 2**48 for n in numbers)
        plain = plain and len(entry["shape"]) <= 8 and entry["dtype"] in TYPES
        start, end = entry["data_offsets"] if plain else (1, 0)
        fits = start <= end <= len(body) and end - start == prod(entry["shape"]) * kind.itemsize
        require(fits, what, f"{name}: its type, shape or offsets are not read, or out of range")
        tensors[name] = np.frombuffer(body[start:end], kind).reshape(entry["shape"])
        require(np.isfinite(tensors[name]).all(), what, f"{name}: a number is not finite")
        spans.append((start, end))
    covered = all(a[1] == b[0] for a, b in pairwise([*sorted(spans), (len(body), len(body))]))
    require(covered, what, "its tensors overlap or leave holes")
    return tensors, about

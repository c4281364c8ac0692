"""What a certificate states: `manifest.json`, canonical JSON with known keys and without floats, sealed by a digest."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from provenn.verifier.check.rejected import CertificateRejected, require

FORMAT = "provenn-certificate/1"
CONTENT = {"format": str, "semantics": str, "verdict": str, "model": dict, "specification": dict, "payload": dict}
CONTENT |= {"claims": list, "produced_by": dict, "statistics": dict}
PARTS = {"model": {"sha256_file": str}, "payload": {"file": str, "sha256": str}}
PARTS["specification"] = {"file": str, "form": str, "sha256_file": str}
CLAIM = {"id": int, "kind": str, "case": int, "method": str, "uses": list, "slopes": dict}
KINDS = {
    "interval": {**CLAIM, "node": str, "lower": str, "upper": str},
    "margin": {**CLAIM, "clause": int, "row": int, "above": str},
}
"""Keys and types. interval: the value called `node` lies in [lower, upper] (payload entries) over the inputs of `case`;
margin: row `row` of clause `clause` has a margin > above. slopes: name of a ReLU step -> payload entry."""


def canonical(value: Any) -> bytes:
    """RFC 8785 for the values used here: objects, lists, strings, integers."""
    return json.dumps(_ordered(value), separators=(",", ":"), ensure_ascii=False).encode()


def _ordered(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _ordered(value[key]) for key in sorted(value, key=lambda k: k.encode("utf-16-be"))}
    return [_ordered(v) for v in value] if isinstance(value, list) else value


def sealed(content: Mapping[str, Any]) -> bytes:
    """The manifest file: the content and the sha256 of the content, so that no byte changes unnoticed."""
    return canonical({**content, "sha256": hashlib.sha256(canonical(dict(content))).hexdigest()})


def read_manifest(data: bytes) -> dict[str, Any]:
    """Its content.   Raises: CertificateRejected for anything but a canonical, sealed manifest with known keys."""
    try:
        content = json.loads(data, parse_float=_no_float, parse_constant=_no_float)
        require(isinstance(content, dict), "manifest", "it is not an object")
        seal = content.pop("sha256", None)
        same = sealed(content) == data
    except (ValueError, RecursionError) as error:
        raise CertificateRejected("manifest", f"it is not JSON: {error}") from error
    require(same, "manifest", f"it was changed: it is not the canonical form of the content with sha256 {seal}")
    require(content.get("format") == FORMAT, "manifest", f"format {content.get('format')!r} is not {FORMAT}")
    _typed(content, CONTENT, "manifest")
    for name, keys in PARTS.items():
        _typed(content[name], keys, name)
    require(content["semantics"] == "real" and content["verdict"] == "verified", "manifest", "semantics or verdict")
    for position, claim in enumerate(content["claims"]):
        known = isinstance(claim, dict) and claim.get("kind") in KINDS and claim.get("id") == position
        require(known, position, "its kind is not understood, or the ids are not 0, 1, 2, ..")
        _typed({"slopes": {}, **claim}, KINDS[claim["kind"]], position)
        require(claim["method"] in ("interval", "crown"), position, f"method {claim['method']!r} is not understood")
        require(claim["method"] == "crown" or "slopes" not in claim, position, "only method crown has slopes")
    return content


def threshold(claim: Mapping[str, Any]) -> float:
    """`above` of a margin claim, a float >= 0 as float.hex() writes it."""
    try:
        value = float.fromhex(claim["above"])
    except (ValueError, OverflowError):
        value = -1.0
    require(0 <= value < float("inf") and value.hex() == claim["above"], claim["id"], "above: it is not a number >= 0")
    return value


def _typed(content: Mapping[str, Any], keys: Mapping[str, type], where: int | str) -> None:
    different = sorted(content.keys() ^ keys.keys())
    require(not different, where, f"keys unknown or missing: {', '.join(different)}")
    wrong = [name for name, kind in keys.items() if type(content[name]) is not kind]
    require(not wrong, where, f"{', '.join(wrong)}: not of the right type")


def _no_float(text: str) -> None:
    raise ValueError(f"the number {text[:40]} is not an integer")

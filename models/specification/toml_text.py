"""How deeply a text in TOML nests, seen before it is read: its reader recurses, and takes time, with the depth."""

from __future__ import annotations

import re

from provenn.verifier.errors import ResourceLimit
from provenn.verifier.spec_json import DEPTH, limit_depth

_HIDDEN = re.compile(
    rb'#[^\n]*+|"""(?:[^\\]|\\.)*?(?:"{3,5}+|\\?\Z)|'
    rb"'''.*?(?:'{3,5}+|\Z)|"
    rb'"(?:[^"\\\n]|\\.)*+"?|'
    rb"'[^'\n]*+'?",
    re.DOTALL,
)
"""Comments and strings, in which brackets and dots are no structure; what is not closed goes to its end."""

_DOTTED = re.compile(rb"(?<![\w-])(?:[\w-]++[ \t]*+\.[ \t]*+){%d}" % DEPTH, re.ASCII)


def limit_toml_depth(text: bytes) -> None:
    """Of brackets, and of dotted keys such as a.b.c.   Raises: ResourceLimit before the reader recurses."""
    plain = _HIDDEN.sub(lambda found: b"" if found[0].startswith(b"#") else b"s", text)
    limit_depth(plain)
    if _DOTTED.search(plain):
        raise ResourceLimit("the number of parts of a dotted key", str(DEPTH))

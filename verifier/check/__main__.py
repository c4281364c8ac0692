"""python -m provenn.verifier.check BUNDLE --model MODEL [--spec FILE] [--json]: exit 0 accepted, 13 rejected, 2 usage."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from provenn.verifier.check.bundle import load
from provenn.verifier.check.claims import check
from provenn.verifier.check.rejected import CertificateRejected

ACCEPTED, USAGE, REJECTED = 0, 2, 13


def main(arguments: Sequence[str] | None = None) -> int:
    """Checks one bundle and prints the report."""
    parser = argparse.ArgumentParser("provenn.verifier.check", description="Proves a certificate's claims again.")
    parser.add_argument("bundle", type=Path, help="certificate: a folder or a zip file")
    parser.add_argument("--model", type=Path, required=True, help="the ONNX file it must be about (gzip or not)")
    parser.add_argument("--spec", type=Path, help="the specification it must be about (default: the bundle's own)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    given = parser.parse_args(arguments)
    try:
        model, specification = given.model.read_bytes(), given.spec.read_bytes() if given.spec else None
        report = check(load(given.bundle), model, specification).as_dict()
        status, line = ACCEPTED, f"accepted: {report['claims']} claims, smallest margin {report['margin']:.6g}"
    except CertificateRejected as refusal:
        report = {"verdict": "rejected", "claim": refusal.claim, "reason": refusal.reason}
        status, line = REJECTED, f"rejected: {refusal}"
    except OSError as error:
        print(error, file=sys.stderr)
        return USAGE
    print(json.dumps(report) if given.json else line)
    return status


if __name__ == "__main__":
    sys.exit(main())

"""python -m provenn.verifier.check BUNDLE --model MODEL [--spec FILE] [--json]; exit 0 accepted, 13 rejected, 2 usage."""  # noqa: E501

import argparse
import json
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path

from provenn.verifier.check.claims import check
from provenn.verifier.check.rounding import CertificateRejected, require


def load(path: Path) -> dict[str, bytes]:
    """The files of a folder or zip file by name; nothing is written.   Raises: OSError, zipfile.BadZipFile."""
    if path.is_dir():
        return {entry.name: entry.read_bytes() for entry in path.iterdir()}
    with zipfile.ZipFile(path) as archive:
        require(sum(entry.file_size for entry in archive.infolist()) < 2**30, "bundle", "it is too large")
        return {entry.filename: archive.read(entry) for entry in archive.infolist()}


def main(arguments: Sequence[str] | None = None) -> int:
    """Checks one bundle and prints the report: the exit code."""
    parser = argparse.ArgumentParser("provenn.verifier.check", description="Proves a certificate's claims again.")
    parser.add_argument("bundle", type=Path, help="certificate: a folder or a zip file")
    parser.add_argument("--model", type=Path, required=True, help="the ONNX file it must be about (gzip or not)")
    parser.add_argument("--spec", type=Path, help="the specification it must be about (default: the bundle's own)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    given = parser.parse_args(arguments)
    try:
        model, specification = given.model.read_bytes(), given.spec.read_bytes() if given.spec else None
        report = check(load(given.bundle), model, specification).as_dict()
        code, line = 0, f"accepted: {report['claims']} claims, smallest margin {report['margin']:.6g}"
    except CertificateRejected as no:
        report, code, line = {"verdict": "rejected", "claim": no.claim, "reason": no.reason}, 13, f"rejected: {no}"
    except (OSError, zipfile.BadZipFile) as error:
        parser.error(str(error))
    print(json.dumps(report) if given.json else line)
    return code


if __name__ == "__main__":
    sys.exit(main())

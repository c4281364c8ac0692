"""python -m provenn.verifier.check BUNDLE --model MODEL [--spec FILE] [--json]; exit 0 accepted, 13 rejected, 2 usage."""  # noqa: E501

import argparse
import json
import sys
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from provenn.verifier.check.claims import check
from provenn.verifier.check.rounding import CertificateRejected, require


class Bundle(Mapping[str, bytes]):
    """The files of a folder or zip file by name, each read when asked for.

    Raises: OSError, BadZipFile, NotImplementedError for no folder or zip; CertificateRejected for files in it.
    """

    def __init__(self, path: Path) -> None:
        archive = None if path.is_dir() else zipfile.ZipFile(path)
        kinds = {e.compress_type for e in archive.infolist()} if archive else set()
        require(kinds <= {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}, "bundle", "it is compressed in an unknown way")
        entries = [(e.filename, e.file_size) for e in archive.infolist()] if archive else []
        entries += [] if archive else [(e.name, e.stat().st_size) for e in path.iterdir()]
        self.names, self.read = dict(entries), archive.read if archive else lambda name: (path / name).read_bytes()
        require(sum(self.names.values()) < 2**30, "bundle", "it is too large")

    def __getitem__(self, name: str) -> bytes:
        """One file."""
        if name not in self.names:
            raise KeyError(name)
        try:
            return self.read(name)
        except (OSError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
            raise CertificateRejected("bundle", f"{name} cannot be read: {error}") from error

    def __iter__(self) -> Iterator[str]:
        """Their names."""
        return iter(self.names)

    def __len__(self) -> int:
        """How many there are."""
        return len(self.names)


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
        report = check(Bundle(given.bundle), model, specification).as_dict()
        proved = f"smallest margin {report['margin']:.6g}"
        if report["uppers"]:
            proved = f"Lipschitz bounds {', '.join(f'{upper:.10g}' for upper in report['uppers'])}"
        code, line = 0, f"accepted: {report['claims']} claims, {proved}"
    except (CertificateRejected, MemoryError) as error:
        full = CertificateRejected("environment", "the memory does not suffice for it")
        no = error if isinstance(error, CertificateRejected) else full
        report, code, line = {"verdict": "rejected", "claim": no.claim, "reason": no.reason}, 13, f"rejected: {no}"
    except (OSError, zipfile.BadZipFile, NotImplementedError) as error:
        parser.error(str(error))
    print(json.dumps(report) if given.json else line)
    return code


if __name__ == "__main__":
    sys.exit(main())

"""What the kernel may load, and its command line."""

from __future__ import annotations

import ast
import io
import json
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from check_kit import certificate

import provenn.verifier.check
from provenn.verifier.certificate.bundle import load, to_zip, write
from provenn.verifier.check import CertificateRejected
from provenn.verifier.check.__main__ import main
from provenn.verifier.check.network_ops import OPERATORS
from provenn.verifier.check.onnx_reader import OPSETS

FOLDER = Path(provenn.verifier.check.__file__).parent


def test_a_fresh_interpreter_loads_nothing_of_ours_and_no_torch() -> None:
    script = (
        "import sys, json, provenn.verifier.check, provenn.verifier.check.__main__;"
        "print(json.dumps(sorted(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    loaded = json.loads(done.stdout)
    assert "provenn.verifier.check.claims" in loaded
    for name in ("torch", "cvxpy", "onnxruntime", "hypothesis", "vnnlib"):
        assert name not in loaded
    ours = {n for n in loaded if n.startswith("provenn.")} - {"provenn.verifier"}
    assert all(n.startswith("provenn.verifier.check") for n in ours)


def test_imports_are_the_allowed_ones() -> None:
    allowed = set(sys.stdlib_module_names) | {"numpy", "scipy", "onnx", "google", "provenn"}
    for path in FOLDER.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            for name in names:
                assert name.split(".")[0] in allowed, f"{path.name}: {name}"
                assert not name.startswith("provenn") or name.startswith("provenn.verifier.check."), path.name


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    files, model, _ = certificate()
    write(files, tmp_path / "bundle")
    (tmp_path / "bundle.zip").write_bytes(to_zip(files))
    (tmp_path / "model.onnx").write_bytes(model)
    (tmp_path / "specification.json").write_bytes(files["specification.json"])
    return tmp_path


@pytest.mark.parametrize("name", ["bundle", "bundle.zip"])
def test_an_accepted_certificate(bundle: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [str(bundle / name), "--model", str(bundle / "model.onnx")]
    assert main(arguments) == 0
    assert capsys.readouterr().out.startswith("accepted: 4 claims, smallest margin ")
    assert main([*arguments, "--spec", str(bundle / "specification.json"), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["verdict"], report["assurance"]) == ("verified", "checked")
    assert report["margin"] > 0


def test_a_rejected_certificate_exits_with_13(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = bundle / "bundle" / "manifest.json"
    path.write_bytes(path.read_bytes().replace(b"crown", b"crowm", 1))
    arguments = [str(bundle / "bundle"), "--model", str(bundle / "model.onnx")]
    assert main(arguments) == 13
    assert capsys.readouterr().out.startswith("rejected: manifest: it was changed")
    assert main([*arguments, "--json"]) == 13
    report = json.loads(capsys.readouterr().out)
    assert (report["verdict"], report["claim"]) == ("rejected", "manifest")


def test_another_specification_exits_with_13(bundle: Path) -> None:
    other = bundle / "other.json"
    other.write_bytes((bundle / "specification.json").read_bytes() + b"\n")
    assert main([str(bundle / "bundle"), "--model", str(bundle / "model.onnx"), "--spec", str(other)]) == 13


@pytest.mark.parametrize(
    "arguments", [[], ["bundle"], ["absent", "--model", "model.onnx"], ["bundle", "--model", "absent"]]
)
def test_wrong_usage_exits_with_2(bundle: Path, arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(bundle)
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2


def test_a_file_that_is_no_bundle_exits_with_2(bundle: Path) -> None:
    with pytest.raises(SystemExit) as stop:
        main([str(bundle / "model.onnx"), "--model", str(bundle / "model.onnx")])
    assert stop.value.code == 2


def test_a_zip_with_another_path_is_rejected(bundle: Path) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("../manifest.json", b"{}")
    (bundle / "bundle.zip").write_bytes(buffer.getvalue())
    assert main([str(bundle / "bundle.zip"), "--model", str(bundle / "model.onnx")]) == 13


def zipped(kind: int, flags: int = 0, damaged: bool = False) -> bytes:
    """A zip of one file, compressed by `kind`, with bits of its two headers set, or its compressed data damaged."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", kind) as archive:
        archive.writestr("manifest.json", bytes(range(256)) * 40)
    data = bytearray(buffer.getvalue())
    data[6] |= flags
    data[data.rfind(b"PK\x01\x02") + 8] |= flags
    if damaged:
        data[43:50] = b"\xff" * 7  # the first bytes after the local header
    return bytes(data)


UNREADABLE = {
    "encrypted": (zipped(zipfile.ZIP_DEFLATED, flags=1), "bundle: manifest.json cannot be read: .*encrypted"),
    "patched": (zipped(zipfile.ZIP_DEFLATED, flags=32), "bundle: manifest.json cannot be read: .*patched"),
    "damaged": (zipped(zipfile.ZIP_DEFLATED, damaged=True), "bundle: manifest.json cannot be read: Error -3"),
    "bzip2": (zipped(zipfile.ZIP_BZIP2), "bundle: it is compressed in an unknown way"),
    "lzma": (zipped(zipfile.ZIP_LZMA, damaged=True), "bundle: it is compressed in an unknown way"),
}


@pytest.mark.parametrize("name", UNREADABLE)
def test_a_zip_that_cannot_be_unpacked_is_rejected(bundle: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    data, reason = UNREADABLE[name]
    (bundle / "bundle.zip").write_bytes(data)
    arguments = [str(bundle / "bundle.zip"), "--model", str(bundle / "model.onnx")]
    assert main(arguments) == 13
    assert re.match(f"rejected: {reason}", capsys.readouterr().out)
    assert main([*arguments, "--json"]) == 13
    assert json.loads(capsys.readouterr().out)["verdict"] == "rejected"
    with pytest.raises(CertificateRejected):
        load(bundle / "bundle.zip")


def test_a_zip_of_a_future_version_exits_with_2(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = bytearray((bundle / "bundle.zip").read_bytes())
    data[data.rfind(b"PK\x01\x02") + 6] = 99
    (bundle / "bundle.zip").write_bytes(data)
    with pytest.raises(SystemExit) as stop:
        main([str(bundle / "bundle.zip"), "--model", str(bundle / "model.onnx")])
    assert stop.value.code == 2
    assert "zip file version 9.9" in capsys.readouterr().err


LIMITED = """import resource, sys
from pathlib import Path
from provenn.verifier.check.__main__ import main
size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (size + (100 << 20),) * 2)
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="how much memory is used is not told here")
def test_a_bundle_that_memory_does_not_suffice_for_is_rejected(bundle: Path) -> None:
    with zipfile.ZipFile(bundle / "large.zip", "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        archive.writestr("manifest.json", bytes(200 << 20))
    command = [sys.executable, "-c", LIMITED, "large.zip", "--model", "model.onnx"]
    done = subprocess.run(command, cwd=bundle, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (13, "")
    assert done.stdout == "rejected: environment: the memory does not suffice for it\n"


def test_the_module_runs(bundle: Path) -> None:
    command = [sys.executable, "-m", "provenn.verifier.check", "bundle.zip", "--model", "model.onnx"]
    done = subprocess.run(command, cwd=bundle, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout[:8], done.stderr) == (0, "accepted", "")


def test_the_documented_operators_are_those_that_are_read() -> None:
    text = (FOLDER.parents[1] / "docs" / "certificates.md").read_text()
    listed = text.split("Operators (operator sets 7 to 26): ")[1].split(". A network")[0]
    assert (OPSETS[0], OPSETS[-1]) == (7, 26)
    assert {name.split(" ")[0] for name in re.sub(r" \([^)]*\)", "", listed).split(", ")} == OPERATORS.keys()

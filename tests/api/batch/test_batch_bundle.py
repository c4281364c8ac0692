"""Bundles are checked by their contents alone: every corruption by someone who recomputes the root is found."""

from __future__ import annotations

import json
import shutil
import zipfile
from pathlib import Path
from typing import Any

import pytest
from batch_kit import LABELS, POINTS, ROOMY, data, put_together, taken_apart

from provenn.api.batch.bundle import batch_item, is_batch, opened
from provenn.api.batch.checking import BatchReport, Given, check_batch
from provenn.api.batch.question import Question
from provenn.api.batch.rows import canonical
from provenn.api.batch.run import certify_batch
from provenn.api.certification import LoadedModel, Options, load_model
from provenn.verifier.check import CertificateRejected

MODEL = load_model(ROOMY)
GIVEN = Given(data(), MODEL.executor, (2,))
OTHER = "0" * 64
RADII = ("0.1", "0.4")


def bundled(model: LoadedModel, question: Question, folder: Path) -> Path:
    certify_batch(model, data(), question, Options(seconds=30), folder)
    return folder / "batch.zip"


@pytest.fixture(scope="module")
def verdicts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return bundled(MODEL, Question(RADII, clip=(0, 1)), tmp_path_factory.mktemp("verdicts"))


@pytest.fixture(scope="module")
def brackets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return bundled(MODEL, Question(largest=0.25, tolerance=0.2, norm="2"), tmp_path_factory.mktemp("brackets"))


def proved(report: BatchReport) -> tuple[object, ...]:
    return report.verdicts, report.certificates


def test_accepted_with_and_without_the_data(verdicts: Path, brackets: Path) -> None:
    report = check_batch(verdicts, ROOMY)
    assert report.verdicts == {"0.1": {"verified": 4, "falsified": 2}, "0.4": {"verified": 2, "falsified": 4}}
    assert (report.rows, report.inputs, report.certificates, report.replayed) == (12, 6, 6, None)
    assert report.margin is not None
    assert report.margin > 0
    assert check_batch(verdicts, ROOMY, GIVEN).replayed == 6
    found = check_batch(brackets, ROOMY, GIVEN)
    assert found.verdicts == {"radius": {"verified": 5, "falsified": 1}}
    assert is_batch(verdicts)
    assert not is_batch(Path(__file__))


def test_about_other_models_and_data(verdicts: Path, tmp_path: Path) -> None:
    with pytest.raises(CertificateRejected, match="another model"):
        check_batch(verdicts, ROOMY + b"\x7a\x00")
    for other in (data(POINTS, reversed(LABELS)), data(POINTS[:5], LABELS[:5]), data([*POINTS[:5], [0, 0]])):
        with pytest.raises(CertificateRejected, match="other data"):
            check_batch(verdicts, ROOMY, Given(other, MODEL.executor, (2,)))


def test_a_span_of_the_data(verdicts: Path, tmp_path: Path) -> None:
    manifest, rows, kept = taken_apart(verdicts)
    moved = [row | {"index": row["index"] + 3, "name": str(row["index"] + 3)} for row in rows]
    path = put_together(tmp_path / "b.zip", manifest, moved, kept)
    assert check_batch(path, ROOMY).first == 3
    longer = data([[0, 0], [0, 0], [0, 0], *POINTS], [0, 0, 0, *LABELS])
    assert check_batch(path, ROOMY, Given(longer, MODEL.executor, (2,))).replayed == 6
    with pytest.raises(CertificateRejected, match="other data"):
        check_batch(path, ROOMY, GIVEN)


WRONG: dict[str, tuple[Any, ...]] = {
    "index": (3, -1),
    "label": (0, 1, 2, -1),
    "predicted": (0, 1),
    "name": ("else",),
    "epsilon": (0.2, None, 0.1, 0.4),
    "verdict": ("verified", "falsified", "unknown", "timeout"),
    "margin": (None, -1.0, 0.0, 10.0, 1e-6),
    "method": ("else",),
    "assurance": (None, "checked", "deployed", "computed", "replayed"),
    "reason": ("else",),
    "certificate": (None, OTHER, "every"),
    "certified": (0.1, 0.2, None, 0.9),
    "attacked": (0.0, 0.05, 0.2, None, 0.9),
    "counterexample": (None, (0.0, 0.0), (0.25, 1.0), (9.0, 9.0), (0.3,), ()),
    "input_sha256": (OTHER,),
}
"""By member what it is changed to."""

DATA = ("name", "predicted", "label", "input_sha256")
"""What the data decide."""

OUTSIDE = ((9.0, 9.0), (0.3,), ())
"""Points that are in no region."""


def changed(path: Path, place: int, member: str, value: Any, to: Path) -> Path | None:
    """A bundle with one member of one row changed; None if that is no change."""
    manifest, rows, kept = taken_apart(path)
    if rows[place][member] == value:
        return None
    if value == "every":
        value = next(digest for digest in kept if digest != rows[place]["certificate"])
    rows[place][member] = list(value) if isinstance(value, tuple) else value
    radii = max(1, len(manifest["question"]["epsilons"]))
    if member in ("label", "input_sha256", "name", "predicted", "index"):  # what the rows of an input have in common
        for row in rows[place - place % radii : place - place % radii + radii]:
            row[member] = rows[place][member]
    named = {row["certificate"] for row in rows}
    return put_together(to, manifest, rows, {digest: data for digest, data in kept.items() if digest in named})


@pytest.mark.parametrize("member", WRONG)
@pytest.mark.parametrize("kind", ["verdicts", "brackets"])
def test_every_changed_member_is_found(kind: str, member: str, verdicts: Path, brackets: Path, tmp_path: Path) -> None:
    path = {"verdicts": verdicts, "brackets": brackets}[kind]
    rows = taken_apart(path)[1]
    kinds = {row["verdict"]: place for place, row in enumerate(rows)}
    for place in kinds.values():
        for value in WRONG[member]:
            broken = changed(path, place, member, value, tmp_path / "broken.zip")
            if broken is None:
                continue
            if harmless(rows, place, member, value):
                check_batch(broken, ROOMY)
                if member in DATA or value in OUTSIDE:
                    with pytest.raises(CertificateRejected):
                        check_batch(broken, ROOMY, GIVEN)
                continue
            with pytest.raises(CertificateRejected):
                check_batch(broken, ROOMY)


def harmless(rows: list[dict[str, Any]], place: int, member: str, value: Any) -> bool:
    """Whether the change takes nothing from what is proved: of things that are said only, or proved to be larger."""
    row = rows[place]
    proved, bracketed = row["verdict"] == "verified", row["epsilon"] is None
    match member:
        case "name" | "method" | "reason" | "predicted":
            return True
        case "margin":
            return not proved or (value is not None and 0 < value < row["margin"])
        case "label" | "input_sha256":
            return not any(each["verdict"] == "verified" for each in rows if each["index"] == row["index"])
        case "assurance":
            return not proved and value != "checked"
        case "verdict":
            return bracketed and not proved and value in ("unknown", "timeout")
        case "attacked":
            known = bracketed and row["attacked"] is not None and value is not None
            return known and (row["certified"] or -1) < value <= 0.25
        case "counterexample":
            return value is not None and row["counterexample"] is not None
    return False


def test_without_new_root_no_byte_changes(verdicts: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(verdicts) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    for name in ("rows.jsonl", "batch.json"):
        for place in range(0, len(files[name]), 89):
            broken = bytearray(files[name])
            broken[place] ^= 1
            with zipfile.ZipFile(tmp_path / "b.zip", "w") as archive:
                for each, content in (files | {name: bytes(broken)}).items():
                    archive.writestr(each, content)
            with opened_or_rejected(tmp_path / "b.zip", name, place, files[name]):
                check_batch(tmp_path / "b.zip", ROOMY)


def opened_or_rejected(path: Path, name: str, place: int, content: bytes) -> Any:
    """Versions of programs are not claimed; everything else is."""
    made_by = content.find(b'"produced_by"')
    if name == "batch.json" and made_by <= place < content.find(b"}", made_by):
        import contextlib

        return contextlib.suppress(CertificateRejected)
    return pytest.raises(CertificateRejected)


@pytest.mark.parametrize(
    ("member", "value"),
    [
        ("epsilons", ["0.1", "0.5"]),
        ("epsilons", ["0.1"]),
        ("epsilons", ["0.4", "0.1"]),
        ("norm", "2"),
        ("clip", None),
        ("clip", ["0", "2"]),
        ("largest", "1"),
        ("tolerance", "0.5"),
    ],
)
def test_another_question_is_found(member: str, value: Any, verdicts: Path, tmp_path: Path) -> None:
    manifest, rows, kept = taken_apart(verdicts)
    manifest["question"][member] = value
    harmless = member == "tolerance"
    with pytest.raises(CertificateRejected) if not harmless else opened(verdicts):
        check_batch(put_together(tmp_path / "b.zip", manifest, rows, kept), ROOMY)


CLAIMED: dict[str, Any] = {
    "model": {"sha256_file": OTHER},
    "data": {"sha256": OTHER},
    "question": {"epsilons": ["0.1", "0.4"], "largest": None, "tolerance": "0.5", "norm": "inf", "clip": ["0", "1"]},
    "semantics": "float32",
    "inputs": 5,
    "rows": 13,
}


@pytest.mark.parametrize("member", [*CLAIMED, "produced_by"])
def test_the_root_binds_what_the_manifest_claims(member: str, verdicts: Path, tmp_path: Path) -> None:
    """Of the whole and of one row alone: who has the root knows model, data, question and how many rows there are."""
    alone = tmp_path / "item.zip"
    alone.write_bytes(batch_item(verdicts, 2))
    for path in (verdicts, alone):
        with zipfile.ZipFile(path) as archive:
            files = {name: archive.read(name) for name in archive.namelist()}
        manifest = json.loads(files["batch.json"])
        assert manifest.keys() == CLAIMED.keys() | {"format", "root", "produced_by"}
        assert manifest[member] != CLAIMED.get(member)
        manifest[member] = CLAIMED.get(member, {"provenn": "0.0.1"})
        with zipfile.ZipFile(tmp_path / "b.zip", "w") as archive:
            for name, content in (files | {"batch.json": canonical(manifest)}).items():
                archive.writestr(name, content)
        if member == "produced_by":  # not claimed
            check_batch(tmp_path / "b.zip", ROOMY)
            continue
        with pytest.raises(CertificateRejected):
            check_batch(tmp_path / "b.zip", ROOMY)


def test_rows_left_out_or_moved_are_found(verdicts: Path, tmp_path: Path) -> None:
    manifest, rows, kept = taken_apart(verdicts)
    for wrong in (rows[:-1], rows[2:4] + rows[:2] + rows[4:], [*rows, *rows[-2:]], rows[:2] * 6):
        with pytest.raises(CertificateRejected):
            check_batch(put_together(tmp_path / "b.zip", manifest, wrong, kept), ROOMY)
    short = put_together(tmp_path / "b.zip", manifest, rows[:-2], kept)
    with pytest.raises(CertificateRejected, match=r"no row names|other data"):
        check_batch(short, ROOMY, GIVEN)


def test_certificates_missing_swapped_or_too_many_are_found(verdicts: Path, tmp_path: Path) -> None:
    manifest, rows, kept = taken_apart(verdicts)
    first, second = list(kept)[:2]
    swapped = kept | {first: kept[second], second: kept[first]}
    fewer = {digest: content for digest, content in kept.items() if digest != first}
    for wrong in (swapped, fewer, kept | {first: b""}, kept | {OTHER: b"more"}):
        with pytest.raises(CertificateRejected):
            check_batch(put_together(tmp_path / "b.zip", manifest, rows, wrong), ROOMY)


def test_a_verdict_that_is_only_computed_is_not_accepted(tmp_path: Path, verdicts: Path) -> None:
    manifest, rows, kept = taken_apart(verdicts)
    gone = rows[0]["certificate"]
    rows[0] |= {"certificate": None, "assurance": "computed", "reason": "floating point only"}
    del kept[gone]
    with pytest.raises(CertificateRejected, match=r"row 0.*verified and has no certificate.*floating point only"):
        check_batch(put_together(tmp_path / "b.zip", manifest, rows, kept), ROOMY)


def test_all_radii_of_an_input_are_about_the_same(verdicts: Path, tmp_path: Path) -> None:
    """An easy input's genuine certificate does not stand for another's at the second radius."""
    manifest, rows, kept = taken_apart(verdicts)
    assert (rows[1]["verdict"], rows[7]["verdict"]) == ("verified", "falsified")
    for members in (("input_sha256",), ("label",), ("name",), ("predicted",), tuple(rows[1])):
        wrong = [dict(row) for row in rows]
        easy = {"label": 1, "predicted": 1} if members in (("label",), ("predicted",)) else rows[1]
        wrong[7] |= {member: easy[member] for member in members if member != "index"}
        with pytest.raises(CertificateRejected, match=r"row 7.*than the first radius"):
            check_batch(put_together(tmp_path / "b.zip", manifest, wrong, kept), ROOMY)


def test_no_certified_end_touches_its_counterexample(brackets: Path, tmp_path: Path) -> None:
    """Even at radius 0, where there is a certificate."""
    at_0 = bundled(MODEL, Question(("0",), norm="2"), tmp_path)
    points, proofs = taken_apart(at_0)[1:]
    manifest, rows, kept = taken_apart(brackets)
    place = next(k for k, row in enumerate(rows) if row["certified"] and row["attacked"])
    del kept[rows[place]["certificate"]]
    digest = points[place]["certificate"]
    rows[place] |= {"certified": 0.0, "certificate": digest, "margin": points[place]["margin"]}
    kept[digest] = proofs[digest]
    assert check_batch(put_together(tmp_path / "b.zip", manifest, rows, kept), ROOMY).rows == 6
    rows[place]["attacked"] = 0.0
    with pytest.raises(CertificateRejected, match="its bracket"):
        check_batch(put_together(tmp_path / "b.zip", manifest, rows, kept), ROOMY)


def test_names_that_are_no_text_are_no_bundle(verdicts: Path, tmp_path: Path) -> None:
    path = tmp_path / "b.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("\u00e9", b"")
    path.write_bytes(path.read_bytes().replace("\u00e9".encode(), b"\xff\xff"))
    assert not is_batch(path)
    with pytest.raises(CertificateRejected, match="not a zip file"):
        check_batch(path, ROOMY)
    with pytest.raises(OSError, match="disk full"), opened(verdicts):
        raise OSError("disk full")


def test_radii_are_said_exactly(tmp_path: Path) -> None:
    report = check_batch(bundled(MODEL, Question(("1/7",)), tmp_path), ROOMY)
    assert list(report.verdicts) == ["1/7"]


def test_what_is_no_bundle_is_rejected(tmp_path: Path, verdicts: Path) -> None:
    path = tmp_path / "b.zip"
    for content in (b"", b"PK", verdicts.read_bytes()[:-40], verdicts.read_bytes()[40:]):
        path.write_bytes(content)
        with pytest.raises(CertificateRejected):
            check_batch(path, ROOMY)
    shutil.copy(verdicts, path)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("certificates/../x", b"")
    with pytest.raises(CertificateRejected, match="other files"):
        check_batch(path, ROOMY)


@pytest.mark.parametrize("row", [0, 1, 8, 11])
def test_one_row_alone(row: int, verdicts: Path, tmp_path: Path) -> None:
    path = tmp_path / "item.zip"
    path.write_bytes(batch_item(verdicts, row))
    whole, alone = check_batch(verdicts, ROOMY), check_batch(path, ROOMY, GIVEN)
    assert (alone.data_sha256, alone.inputs) == (whole.data_sha256, 6)
    untold = check_batch(path, ROOMY)
    assert (untold.data_sha256, untold.inputs, untold.root) == (None, None, whole.root)
    assert (alone.rows, alone.root) == (1, whole.root)
    stated = taken_apart(verdicts)[1][row]
    assert alone.verdicts == {str(stated["epsilon"]): {stated["verdict"]: 1}}
    assert check_batch(verdicts, ROOMY, item=row).verdicts == alone.verdicts
    with pytest.raises(CertificateRejected, match=f"row {row} alone"):
        check_batch(path, ROOMY, item=row + 1)
    with pytest.raises(CertificateRejected, match="one row alone already"):
        batch_item(path, row)
    with pytest.raises(IndexError):
        batch_item(verdicts, 12)
    with pytest.raises(CertificateRejected, match="no row 12"):
        check_batch(verdicts, ROOMY, item=12)
    with zipfile.ZipFile(path) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    for change in ((b'"row":%d' % row, b'"row":%d' % (row ^ 1)), (b'"path":["', b'"path":["' + b"0" * 64 + b'","')):
        with zipfile.ZipFile(path, "w") as archive:
            for name, content in files.items():
                archive.writestr(name, content.replace(*change) if name == "item.json" else content)
        with pytest.raises(CertificateRejected):
            check_batch(path, ROOMY)

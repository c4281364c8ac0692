"""The gate on networks of which everything is known by hand: what it decides, what it keeps, how it ends."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gate_kit import GATE, Gate, timeless

from provenn.api.gate.cache import ANSWERING
from provenn.api.gate.config import read_config
from provenn.api.gate.found import Found, canonical, sha256
from provenn.api.gate.local import Local
from provenn.api.gate.questions import Question, file_digest
from provenn.api.gate.run import How, run
from provenn.api.gate.statements import Subject
from provenn.solvers.base import silent

REACHED = "clean_accuracy = 0.75\ncertified_accuracy = [{min = 0.75, radius = 0.05}, {min = 0.5, radius = 0.2}]\n"
MISSED = REACHED.replace("0.5, radius", "0.51, radius")


def test_thresholds_that_are_met_and_one_that_is_not(gate: Gate) -> None:
    gate.write(REACHED)
    ran = gate()
    assert (ran.code, ran.err) == (0, "")
    assert "the gate passed: 3 passed" in ran.out
    gate.write(MISSED)
    ran = gate()
    assert ran.code == 1
    assert "2 of 4 (50.0 %) certified, 2 refuted" in ran.out
    assert "input 2: class 0 becomes class 1 within 0.2" in ran.out
    assert "input 3: class 1 is taken for class 0 as it is" in ran.out


def test_the_same_answers_again(gate: Gate) -> None:
    gate.write(REACHED + "attacked_accuracy = 0.5\n")
    first = gate.report()
    for entry in gate.entries:
        entry.unlink()
    assert timeless(gate.report()) == timeless(first)
    assert timeless(gate.report()) == timeless(first)
    assert [check["line"] for check in first["checks"]] == [10, 11, 11, 12, 12]


def test_an_answer_is_kept_until_something_that_it_depends_on_changes(gate: Gate) -> None:
    def cached() -> set[bool]:
        return {check["cached"] for check in gate.report()["checks"]}

    gate.write(REACHED)
    assert cached() == {False}
    assert cached() == {True}
    gate.write(MISSED)  # another threshold, the same question
    assert cached() == {True}
    changes: list[Callable[[], object]] = [
        lambda: (gate.folder / "plain.onnx").write_bytes((gate.folder / "scaled.onnx").read_bytes()),
        lambda: np.savez(gate.folder / "data.npz", x=np.eye(2, dtype=np.float32), y=np.arange(2)),
        lambda: gate.write(REACHED, GATE.replace("seed = 3", "seed = 4")),
        lambda: gate.write(REACHED, GATE.replace("radii", "clip = [-1, 1]\nradii")),
    ]
    for change in changes:
        change()
        assert cached() == {False}, change
    assert (gate.folder / ".provenn" / ".gitignore").read_text() == "*\n"


def test_an_answer_depends_on_what_reads_the_data() -> None:
    assert {"provenn", "onnxruntime", "pillow", "pyarrow"} <= set(ANSWERING)


def sealed(content: dict[str, Any]) -> bytes:
    content.pop("sha256", None)
    return canonical({**content, "sha256": sha256(canonical(content))})


def test_an_entry_that_was_touched_is_none(gate: Gate) -> None:
    gate.write(MISSED)
    honest = timeless(gate.report())
    (entry,) = gate.entries
    content = json.loads(entry.read_bytes())
    for item in content["items"]:
        item["verdict"], item["assurance"] = "verified", "checked"
    for edit in (json.dumps(content).encode(), b"[]", entry.read_bytes()[:-9]):
        entry.write_bytes(edit)
        assert timeless(gate.report()) == honest
    archive = entry.with_suffix(".zip")
    archive.write_bytes(archive.read_bytes()[:-1])
    assert timeless(gate.report()) == honest
    entry.write_bytes(sealed(json.loads(entry.read_bytes()) | {"key": "0" * 64}))
    assert timeless(gate.report()) == honest


def test_a_forged_entry_is_found_out_by_its_certificates(gate: Gate) -> None:
    gate.write(MISSED)
    honest = timeless(gate.report())
    (entry,) = gate.entries
    content = json.loads(entry.read_bytes())
    proved = next(item["certificate"] for item in content["items"] if item.get("certificate"))
    forged = [dict(item) for item in content["items"]]
    for item in forged:
        if "radius" in item:
            item |= {"verdict": "verified", "assurance": "checked", "certificate": item.get("certificate", proved)}
    plain = [item for item in forged if item["index"] == 0]  # only the input that is easy
    for items in (forged, plain):
        entry.write_bytes(sealed(content | {"items": items}))
        assert timeless(gate.report(recheck=True)) == honest


def test_an_entry_that_is_proved_again_is_used(gate: Gate) -> None:
    gate.write(REACHED)
    gate.report()
    assert {check["cached"] for check in gate.report(recheck=True)["checks"]} == {True}


def test_a_baseline_is_written_and_compared_with(gate: Gate) -> None:
    head = 'baseline = "reached.json"\n' + GATE
    gate.write("no_regression = 0.1\n", head)
    ran = gate()
    assert ran.code == 2
    assert "reached.json: there is no baseline: run provenn gate --update-baseline" in ran.err
    assert gate.outcomes(update=True) == ["passed"] * 3
    reached = json.loads((gate.folder / "reached.json").read_text())
    radii = [(at["radius"], at["certified"], at["attacked"]) for at in reached["models"]["plain"]["radii"]]
    assert radii == [("0.05", 3, 3), ("0.2", 2, 2)]
    assert gate.report()["checks"][1]["title"] == "no regression: certified accuracy within 0.05"
    better = json.dumps(reached).replace('"certified": 2', '"certified": 3')
    (gate.folder / "reached.json").write_text(better)
    assert gate.outcomes() == ["passed", "passed", "failed"]
    gate.write("no_regression = 0.25\n", head)
    assert gate.outcomes() == ["passed"] * 3
    gate.write("no_regression = 0\n", head.replace("[0.05, 0.2]", "[0.06]"))
    assert "model plain was not measured within 0.06" in gate().err
    np.savez(gate.folder / "data.npz", x=np.eye(2, dtype=np.float32), y=np.arange(2))
    assert "model plain was measured with other data" in gate().err
    (gate.folder / "reached.json").write_text('{"format": "other"}')
    assert "reached.json: format: " in gate().err


def test_a_baseline_is_of_the_same_inputs_and_radii(gate: Gate) -> None:
    head = 'baseline = "reached.json"\n' + GATE
    clipped = head.replace("radii", "clip = [-1, 2]\nradii")
    gate.write("no_regression = 0\n", clipped)
    assert gate.outcomes(update=True) == ["passed"] * 3
    changes = {
        "measured with other clip": head,
        "measured with other preprocessing": clipped.replace("radii", "preprocessing = { divide = 2 }\nradii"),
        "no longer measured within 0.2": clipped.replace("[0.05, 0.2]", "[0.05]"),
        "measured with other data": head.replace('data = "data.npz"\nradii = [0.05, 0.2]', ""),
    }
    for message, changed in changes.items():
        gate.write("no_regression = 0\nlipschitz = 9\n", changed)
        ran = gate()
        assert ran.code == 2
        assert message in ran.err
    path = gate.folder / "reached.json"
    reached = json.loads(path.read_text())
    del reached["models"]["plain"]["clip"]  # as an older version wrote it
    path.write_text(json.dumps(reached))
    gate.write("no_regression = 0\n", clipped)
    ran = gate()
    assert (ran.code, "measured with other clip: run provenn gate --update-baseline" in ran.err) == (2, True)


def test_an_answer_about_a_file_that_changed_meanwhile_is_not_kept(gate: Gate) -> None:
    gate.write("clean_accuracy = 0.5\n")

    class Meanwhile(Local):
        def measure(self, question: Question, subject: Subject, seconds: float) -> Found:
            found = super().measure(question, subject, seconds)
            (gate.folder / "plain.onnx").write_bytes((gate.folder / "scaled.onnx").read_bytes())
            return found

    config = read_config(gate.folder / "provenn.toml")
    run(config, How(), lambda: Meanwhile(0, silent))
    assert not gate.entries
    run(config, How(), lambda: Meanwhile(0, silent))
    assert len(gate.entries) == 1


def test_a_folder_of_images_is_known_by_its_classes_too(tmp_path: Path) -> None:
    folder, other = tmp_path / "images", tmp_path / "other"
    (folder / "b").mkdir(parents=True)
    other.mkdir()
    (folder / "b" / "0.png").write_bytes(b"0")
    (folder / "b" / "again").symlink_to(folder)
    (folder / "c").symlink_to(other)
    changes: list[Callable[[], object]] = [
        lambda: (folder / "a").mkdir(),  # empty, but b is class 1 now
        lambda: (other / "1.png").write_bytes(b"1"),
        lambda: (other / "1.png").write_bytes(b"2"),
        lambda: (folder / "c").rename(folder / "d"),
    ]
    known = {file_digest(folder)}
    for change in changes:
        change()
        known.add(file_digest(folder))
    assert len(known) == 1 + len(changes)


def test_a_lipschitz_constant_in_the_baseline(gate: Gate) -> None:
    head = 'baseline = "reached.json"\nbudget = 2\n[models.plain]\nfile = "plain.onnx"\n[models.plain.checks]\n'
    gate.write("lipschitz = 1.01\nno_regression = 0.5\n", head)
    assert gate.outcomes(update=True) == ["passed", "passed"]
    (gate.folder / "plain.onnx").write_bytes((gate.folder / "scaled.onnx").read_bytes())
    assert gate.outcomes() == ["failed", "failed"]


def test_other_kinds_of_checks(gate: Gate) -> None:
    gate.write(
        """
        lipschitz = [1.01, {max = 0.9}, {max = 1.5, norm = "inf", to = "inf", rows = "pairs:0"}]
        properties = ["holds.vnnlib", "broken.vnnlib"]
        """,
        "budget = 3\n" + GATE,
    )
    report = gate.report()
    assert [check["outcome"] for check in report["checks"]] == ["passed", "failed", "failed", "passed", "failed"]
    assert report["checks"][0]["measured"].startswith("at least 1 and at most 1")
    assert "outputs [" in report["checks"][-1]["examples"][0]
    assert gate.report(recheck=True)["checks"][0]["cached"]


def test_trends_over_a_domain(gate: Gate) -> None:
    asked = '{{features = "{}", domain = "domain.json", expect = "{}", rows = "{}"}}'
    rows = [("a", "increasing", "0"), ("a", "decreasing", "0"), ("b", "increasing", "all")]
    gate.write(f"monotone = [{', '.join(asked.format(*row) for row in rows)}]\n")
    report = gate.report()
    assert [check["outcome"] for check in report["checks"]] == ["passed", "failed", "passed"]
    assert "output row 0 rises by 1 where a goes from 0 to 1" in report["checks"][1]["examples"][0]
    assert {check["cached"] for check in gate.report(recheck=True)["checks"]} == {True}


def test_two_versions_of_a_network(gate: Gate) -> None:
    asked = '{{other = "{}", delta = {}, region = {{{}}}}}'
    versions = [
        ("plain.onnx", 1e-6, "box = [-1, 1]"),
        ("scaled.onnx", 1.01, "box = [-1, 1]"),
        ("scaled.onnx", 0.9, "box = [-1, 1]"),
        ("scaled.onnx", 1.11, "radius = 0.1"),
        ("scaled.onnx", 1.09, "radius = 0.1"),
    ]
    gate.write(f"equivalence = [{', '.join(asked.format(*version) for version in versions)}]\n")
    report = gate.report()
    assert [check["outcome"] for check in report["checks"]] == ["passed", "passed", "failed", "passed", "failed"]
    assert report["checks"][4]["measured"] == "contradicted for 1 of 4 inputs"
    assert report["checks"][4]["examples"][0].startswith("around input 0: outputs [")
    gate.report(recheck=True)


def test_preprocessing_is_part_of_the_model(gate: Gate) -> None:
    np.savez(gate.folder / "data.npz", x=np.array([[255.0, 0.0]], np.float32), y=np.array([0]))
    scaled = GATE.replace("[0.05, 0.2]", "[120, 130]") + "clean_accuracy = 1\n"
    radii = "certified_accuracy = [{min = 1, radius = 120}, {min = 1, radius = 130}]\n"
    gate.write(radii, scaled.replace("radii", "preprocessing = { divide = 255 }\nradii"))
    assert gate.outcomes() == ["passed", "passed", "failed"]


def test_a_budget_that_ends_decides_nothing(gate: Gate) -> None:
    gate.write(REACHED, "budget = 1e-9\n" + GATE)
    ran = gate()
    assert ran.code == 3
    assert "the gate is inconclusive: 3 undecided" in ran.out
    assert "the budget ended before this was begun" in ran.out
    assert not gate.entries
    gate.write(REACHED, 'budget = 1e-9\non_unknown = "pass"\n' + GATE)
    ran = gate()
    assert ran.code == 0
    assert "the gate passed: 3 undecided" in ran.out


def test_a_baseline_is_not_made_of_what_was_not_measured(gate: Gate) -> None:
    gate.write("no_regression = 0\n", 'baseline = "b.json"\nbudget = 1e-9\n' + GATE)
    ran = gate("--update-baseline")
    assert "the baseline is as it was" in ran.out
    assert not (gate.folder / "b.json").exists()


BAD = {
    "no configuration": (None, "provenn.toml: is not there, and no pyproject.toml"),
    "no model": (REACHED.replace("plain", "none"), "none.onnx: cannot be read"),
    "no data": ("clean_accuracy = 1\n", "none.npz: cannot be read: No such file"),
    "a property of another network": ('properties = ["domain.json"]\n', "domain.json: "),
    "a label that is no class": (
        "clean_accuracy = 1\n",
        "input 1 has label 7, but the classes of the network are 0 to 1",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_usage(name: str, gate: Gate) -> None:
    checks, message = BAD[name]
    if checks is not None:
        gate.write(checks, GATE.replace("plain.onnx", "none.onnx") if "model" in name else GATE)
    if name == "no data":
        gate.write(checks or "", GATE.replace("data.npz", "none.npz"))
    if "label" in name:
        np.savez(gate.folder / "data.npz", x=np.eye(2, dtype=np.float32), y=np.array([0, 7]))
    ran = gate("--json")
    assert ran.code == 2, ran.out
    assert message in ran.err
    assert message in ran.json["error"]["message"]


def test_nothing_answers_is_infrastructure(gate: Gate) -> None:
    gate.write(REACHED)
    ran = gate("--server", "gopher://127.0.0.1", "--json")  # where a server may come up it is tried again for a while
    assert ran.code == 4
    assert ran.json["error"]["type"] == "ServiceUnreachable"


def test_a_full_disk_is_infrastructure(gate: Gate) -> None:
    gate.write(REACHED)
    (gate.folder / ".provenn").write_text("in the way")
    ran = gate("--json")
    assert ran.code == 4
    assert ran.json["error"]["type"] == "CannotWrite"
    (gate.folder / ".provenn").unlink()
    ran = gate("--markdown", "none/report.md")
    assert ran.code == 4
    assert "cannot write to none/report.md" in ran.err
    assert "the gate passed" in ran.out  # what was found is worth having


def test_a_baseline_is_for_those_who_ask(gate: Gate) -> None:
    gate.write(REACHED)
    ran = gate("--update-baseline")
    assert ran.code == 2
    assert "no model has no_regression" in ran.err


def test_labels_beside_the_data(gate: Gate) -> None:
    np.save(gate.folder / "x.npy", np.eye(2, dtype=np.float32))
    np.save(gate.folder / "y.npy", np.array([0, 0]))
    head = GATE.replace('"data.npz"', '"x.npy"')
    gate.write("clean_accuracy = 0.5\n", head.replace("radii", 'labels = "y.npy"\nradii'))
    assert gate.report()["checks"][0]["measured"] == "1 of 2 (50.0 %) classified rightly"
    gate.write("clean_accuracy = 0.5\n", head.replace("radii", 'labels = "0,1"\nradii'))
    assert gate.report()["checks"][0]["measured"] == "2 of 2 (100.0 %) classified rightly"


def test_relative_to_the_configuration(gate: Gate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gate.write(REACHED)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert gate("--config", "../provenn.toml").code == 0

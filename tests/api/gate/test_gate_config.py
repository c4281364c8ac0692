"""provenn.toml: what is understood, and how precisely the rest is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from provenn.api.files import InvalidFile
from provenn.api.gate.config import InvalidConfig, find_config, read_config
from provenn.api.gate.plan import planned, thresholds

MODEL = '[models.m]\nfile = "m.onnx"\ndata = "d.npz"\nradii = [0.1]\n'
FULL = """
budget = 10
seed = 1
on_unknown = "pass"
baseline = "base.json"

[models.m]
file = "m.onnx"
data = "d.npz"
labels = "l.npy"
clip = [0, 1]
norms = ["inf", "2"]
radii = [0.03, "8/255"]
preprocessing = { divide = 255, mean = [0.5], std = [0.25], layout = "hwc" }

[models.m.checks]
clean_accuracy = 0.9
certified_accuracy = 0.8
attacked_accuracy = [{ min = 0.85, radius = 0.01, norm = "1" }]
lipschitz = [12, { max = 3, rows = "pairs", to = "each" }]
no_regression = 0.01
monotone = { features = ["age"], domain = "domain.json", expect = "increasing" }
properties = ["a.vnnlib", "b.json"]
equivalence = { other = "pruned.onnx", delta = 0.1, region = { box = [0, 1] } }
"""

WRONG = {
    "an unknown key": ("budgte = 3\n" + MODEL, "budgte: this key is not known; did you mean budget?"),
    "no models": ("budget = 3", "models: is missing"),
    "no checks": (MODEL, "[models.m] checks: is missing"),
    "empty checks": (MODEL + "[models.m.checks]\n", "[models.m.checks]: there is nothing to check"),
    "empty lists": (
        MODEL + "[models.m.checks]\nproperties = []\ncertified_accuracy = []",
        "[models.m.checks]: there is nothing to check",
    ),
    "a budget of text": ('budget = "long"\n' + MODEL, "budget: input should be a valid number, not 'long'"),
    "no budget": ("budget = 0\n" + MODEL, "budget: input should be greater than 0, not '0'"),
    "true is no number": ("budget = true\n" + MODEL, "budget: input should be a valid number, not 'True'"),
    "a policy": ('on_unknown = "warn"\n' + MODEL, "on_unknown: 'warn' is not one of 'fail', 'pass'"),
    "a share": (
        MODEL + "checks = {certified_accuracy = 80}",
        "[models.m.checks] certified_accuracy: input should be less than or equal to 1, not '80'",
    ),
    "a share in a list": (
        MODEL + "[models.m.checks]\ncertified_accuracy = [{min = 0.5}, {min = -1}]",
        "[models.m.checks] certified_accuracy[1].min: input should be greater than or equal to 0, not '-1'",
    ),
    "a check": (MODEL + "[models.m.checks]\nrobustness = 1", "[models.m.checks] robustness: this key is not known"),
    "a threshold's key": (
        MODEL + "[models.m.checks]\ncertified_accuracy = {minimum = 0.5}",
        "[models.m.checks] certified_accuracy.minimum: this key is not known; did you mean min?",
    ),
    "a radius": (MODEL.replace("0.1", '"8:255"'), "[models.m] radii[0]: '8:255' is not a number; give a radius"),
    "a negative radius": (MODEL.replace("0.1", "-1"), "[models.m] radii[0]: -1 is not a radius from 0 to 1e30"),
    "nan": (MODEL.replace("0.1", "nan"), "[models.m] radii[0]: 'nan' is not a number"),
    "a norm": (MODEL + 'norms = ["3"]', "[models.m] norms[0]: '3' is not one of 'inf', '2', '1'"),
    "a range": (MODEL + "clip = [1, 0]", "[models.m] clip: its first end must be below its second"),
    "no data": (
        '[models.m]\nfile = "m.onnx"\nchecks = {certified_accuracy = 0.5}',
        "[models.m] data: is missing: the checks of this model are about inputs",
    ),
    "no radius": (
        '[models.m]\nfile = "m.onnx"\ndata = "d.npz"\nchecks = {certified_accuracy = 0.5}',
        "[models.m] radii: is missing: at which radii?",
    ),
    "no baseline": (MODEL + "checks = {no_regression = 0}", "baseline: is missing: model m asks for no_regression"),
    "two regions": (
        MODEL + '[models.m.checks]\nequivalence = {other = "o", delta = 1, region = {box = [0, 1], radius = 1}}',
        "[models.m.checks] equivalence.region: give either box = [lower, upper] or radius",
    ),
    "no difference": (
        MODEL + '[models.m.checks]\nequivalence = {other = "o", delta = 0, region = {box = [0, 1]}}',
        "[models.m.checks] equivalence.delta: input should be greater than 0",
    ),
    "a trend": (
        MODEL + '[models.m.checks]\nmonotone = {features = "a", domain = "d.json", expect = "up"}',
        "[models.m.checks] monotone.expect: 'up' is not one of 'increasing', 'decreasing'",
    ),
    "a name": ('[models."a/b"]\nfile = "m"', "'a/b' has characters that do not belong there"),
    "a file's name": ('[models.m]\nfile = "a\\u0000b"\nchecks = {lipschitz = 1}', "[models.m] file: 'a\\x00b' has"),
    "not a table": ("models = 3", "models: input should be a valid dictionary, not '3'"),
    "not TOML": ("budget = = 3", "is not TOML: Invalid value (at line 1, column 10)"),
    "nothing": ("", "there is nothing here"),
}


def read(folder: Path, text: str) -> InvalidConfig:
    path = folder / "provenn.toml"
    path.write_text(text)
    with pytest.raises(InvalidConfig) as refused:
        read_config(path)
    return refused.value


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_named_with_file_table_and_key(name: str, tmp_path: Path) -> None:
    text, message = WRONG[name]
    refused = read(tmp_path, text)
    assert str(refused).startswith(str(tmp_path / "provenn.toml")), str(refused)
    assert message in str(refused)


def test_the_parts_of_an_error_can_be_read_by_a_program(tmp_path: Path) -> None:
    refused = read(tmp_path, WRONG["a share in a list"][0])
    assert (refused.table, refused.key) == ("models.m.checks", "certified_accuracy[1].min")


def test_everything_at_once(tmp_path: Path) -> None:
    path = tmp_path / "provenn.toml"
    path.write_text(FULL)
    config = read_config(path)
    (each,) = planned(config)
    assert [(question.norm, question.radii) for question in each.robustnesses] == [
        ("inf", ("0.03", "8/255")),
        ("2", ("0.03", "8/255")),
        ("1", ("0.01",)),
    ]
    assert each.sample.labels == str(tmp_path / "l.npy")
    assert each.network.preprocessing is not None
    assert each.network.preprocessing.divide == 255
    keys = [check.key for check in thresholds(config)]
    assert keys.count("certified_accuracy") == 4
    assert [keys.count(key) for key in ("attacked_accuracy", "lipschitz", "monotone", "properties")] == [1, 2, 1, 2]
    assert "no_regression" not in keys  # it needs the baseline
    lines = FULL.splitlines()
    for key in ("clean_accuracy", "no_regression", "equivalence"):
        assert lines[config.line("m", key) - 1].startswith(key)


def test_a_radius_is_measured_once_however_it_is_written(tmp_path: Path) -> None:
    path = tmp_path / "provenn.toml"
    path.write_text(MODEL.replace("0.1", '"1/10"') + "[models.m.checks]\ncertified_accuracy = {min = 1, radius = 0.1}")
    (each,) = planned(read_config(path))
    assert each.robustnesses[0].radii == ("0.1",)


def test_pyproject_is_read_where_there_is_no_provenn_toml(tmp_path: Path) -> None:
    with pytest.raises(InvalidFile, match=r"no pyproject.toml with \[tool.provenn\]"):
        find_config(tmp_path)
    project = tmp_path / "pyproject.toml"
    project.write_text("[tool.other]\nx = 1\n")
    with pytest.raises(InvalidFile):
        find_config(tmp_path)
    lipschitz = '[tool.provenn.models.m]\nfile = "m.onnx"\nchecks.lipschitz = 12\n'
    project.write_text(lipschitz)
    config = read_config(find_config(tmp_path))
    assert config.gate.models["m"].checks.lipschitz[0].max == 12
    assert config.line("m", "lipschitz") == 3
    project.write_text(lipschitz.replace("lipschitz", "lipshitz"))
    with pytest.raises(InvalidConfig, match=r"\[tool.provenn.models.m.checks\] lipshitz: .* did you mean lipschitz"):
        read_config(project)
    (tmp_path / "provenn.toml").write_text(MODEL + "checks.clean_accuracy = 1\n")
    assert find_config(tmp_path).name == "provenn.toml"


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(InvalidFile, match="No such file"):
        read_config(tmp_path / "none.toml")
    (tmp_path / "bytes.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(InvalidFile, match="UTF-8"):
        read_config(tmp_path / "bytes.toml")

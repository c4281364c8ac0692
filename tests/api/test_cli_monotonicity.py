"""`provenn monotonicity` and `provenn jacobian`: exit codes, objects, tables, files; what `check` says of them."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from cli_kit import PLAIN, Command
from derivative_models import chain, monotone, nearly_monotone
from lipschitz_models import pointwise

from provenn.api.cli import monotonicity as command
from provenn.api.statements import jacobian

DOMAIN = {
    "features": [{"name": "age", "range": [18, 100]}, {"name": "sex", "values": [0, 1]}, {"name": "c", "one_hot": 2}]
}


@pytest.fixture
def provenn(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Command:
    monkeypatch.chdir(tmp_path)
    weights, biases = monotone([4, 6, 2], 3, rising=0)
    weights[0][:, 0] /= 50
    Path("model.onnx").write_bytes(chain(weights, biases))
    Path("plain.onnx").write_bytes(PLAIN)
    Path("softmax.onnx").write_bytes(pointwise("Softmax"))
    Path("near.onnx").write_bytes(nearly_monotone(2))
    Path("domain.json").write_text(json.dumps(DOMAIN))
    Path("broken.json").write_text('{"features": [{"name": "age"}]}')
    many = [{"name": f"b{i}", "values": list(range(6))} for i in range(4)]
    Path("many.json").write_text(json.dumps({"features": many}))
    np.save("x.npy", np.array([1.0, 0.0], np.float32))
    np.save("zero.npy", np.zeros(2))
    np.save("five.npy", np.zeros(5))
    np.save("two.npy", np.zeros((2, 2)))
    return Command(capsys)


def test_what_rises_is_proved(provenn: Command) -> None:
    asked = ("monotonicity", "model.onnx", "--features", "age", "--region", "domain.json", "--timeout", "8")
    ran = provenn(*asked, "--out", "proof", "--json")
    assert ran.code == 0
    found = ran.json
    names = ["verdict", "expected", "method", "rows", "regions", "dependences", "seconds", "assurance", "certificate"]
    assert list(found) == [*names, "reason", "interrupted", "stats"]
    assert (found["verdict"], found["assurance"], found["certificate"]) == (
        "verified",
        "checked",
        "proof/certificate.zip",
    )
    assert found["regions"] == [f"sex={s}, c={c}" for s in (0, 1) for c in (0, 1)]
    first, second = found["dependences"]
    assert (first["feature"], first["trend"], first["fall"]) == ("age", "increasing", None)
    assert 0 <= second["lower"] <= second["upper"]
    checked = provenn("check", "proof/certificate.zip", "--model", "model.onnx", "--json").json
    assert checked["entries"] == [[0, 0, 0.0, None], [1, 0, 0.0, None]]
    assert checked["proves"] == (
        "output 0 never falls with input 0; output 1 never falls with input 0: between any two inputs in any of the "
        "4 regions in its specification.json that differ in one value alone"
    )
    table = provenn("check", "proof/certificate.zip", "--model", "model.onnx").out
    assert "2 bounded" in table
    assert "margin" not in table
    assert provenn("check", "proof/certificate.zip", "--model", "plain.onnx").code == 13


def test_a_pair_that_contradicts_is_kept(provenn: Command) -> None:
    ball = ("--at", "zero.npy", "--eps", "1", "--region-norm", "2")
    asked = ("monotonicity", "plain.onnx", "--features", "0", "--rows", "0", *ball)
    ran = provenn(*asked, "--expect", "decreasing", "--out", "proof", "--json")
    assert ran.code == 10
    (found,) = ran.json["dependences"]
    assert (ran.json["verdict"], found["trend"]) == ("falsified", "increasing")
    assert found["rise"]["path"] == "proof/witness-0-0-rise.npy"
    pair = np.load("proof/witness-0-0-rise.npy")
    assert [pair[0].tolist(), pair[1].tolist()] == [found["rise"]["first"], found["rise"]["second"]]
    assert (pair[0, 1], found["rise"]["values"]) == (pair[1, 1], pair[:, 0].tolist())
    outputs = onnxruntime.InferenceSession("plain.onnx").run(None, {"x": pair})[0][:, 0]
    assert outputs[1] - outputs[0] == pytest.approx(found["rise"]["change"])
    assert provenn(*asked, "--expect", "increasing", "--out", "proof").code == 0
    Path("proof/mine.npy").touch()
    assert provenn(*asked, "--timeout", "1e-9", "--out", "proof").code == 12
    assert {path.name for path in Path("proof").iterdir()} == {"mine.npy", "witness-0-0-rise.npy"}


def test_exit_codes(provenn: Command) -> None:
    around = ("--at", "five.npy", "--eps", "1", "--features", "0")
    assert provenn("monotonicity", "near.onnx", *around, "--method", "crown").code == 11
    assert provenn("monotonicity", "near.onnx", *around, "--timeout", "1e-9").code == 12
    assert provenn("monotonicity", "near.onnx", *around[:-1], "all", "--method", "crown").code == 10
    softmax = ("softmax.onnx", "--at", "x.npy", "--eps", "1", "--timeout", "5")
    assert provenn("monotonicity", *softmax, "--features", "0").code == 11
    assert provenn("jacobian", *softmax).code == 11
    assert provenn("jacobian", *softmax[:-1], "1e-9").code == 11
    assert provenn("jacobian", "plain.onnx", *softmax[1:-1], "1e-9").code == 12


def test_ctrl_c_says_what_is_known(provenn: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    decide = command.monotonicity

    def interrupted(*asked: object) -> object:
        def stop(done: int, total: int, phase: str) -> None:
            if phase == "derivatives":
                raise KeyboardInterrupt

        return decide(*asked[:3], stop)  # type: ignore[arg-type]

    monkeypatch.setattr(command, "monotonicity", interrupted)
    ran = provenn("monotonicity", "plain.onnx", "--features", "0", "--at", "x.npy", "--eps", "0.5", "--json")
    assert ran.code == 130
    assert ran.json["interrupted"]
    assert ran.json["dependences"][0]["rise"] is not None


def test_tables(provenn: Command) -> None:
    shown = provenn("monotonicity", "model.onnx", "--features", "age,1", "--region", "domain.json", "--fix", "c=1").out
    assert "increasing" in shown
    assert "from 18 to 100" in shown
    assert "made and checked, not kept: give --out DIR" in shown
    every = provenn("monotonicity", "plain.onnx", "--features", "all", "--at", "x.npy", "--eps", "1").out
    assert "constant" in every
    assert "input 1" in every


def test_jacobian_and_its_files(provenn: Command) -> None:
    asked = ("jacobian", "plain.onnx", "--at", "x.npy", "--eps", "1/4", "--timeout", "4")
    ran = provenn(*asked, "--out", "proof", "--json")
    assert ran.code == 0
    found = ran.json
    assert (found["verdict"], found["assurance"], found["certificate"]) == (
        "verified",
        "checked",
        "proof/certificate.zip",
    )
    assert found["lower"] == [[pytest.approx(1, abs=1e-6), 0.0], [0.0, 0.0]]
    assert found["upper"] == [[pytest.approx(1, abs=1e-6), 0.0], [0.0, pytest.approx(1, abs=1e-6)]]
    assert found["bounds"] == "proof/jacobian.npz"
    with np.load("proof/jacobian.npz") as kept:
        assert sorted(kept) == ["lower", "seen_lower", "seen_upper", "upper"]
        assert kept["upper"].tolist() == found["upper"]
        assert kept["seen_lower"].tolist() == found["seen"]["lower"]
    checked = provenn("check", "proof/certificate.zip", "--model", "plain.onnx", "--json").json
    assert len(checked["entries"]) >= 4
    assert "output 0 does not change with input 1" in checked["proves"]
    assert "output 1 changes by at least 0 and at most 1.0000" in checked["proves"]
    assert "within l-infinity distance 0.25 of the one in its specification.json" in checked["proves"]
    table = provenn(*asked, "--method", "crown").out
    assert "1 only rise, 0 only fall, 2 are zero, of 4" not in table
    assert "2 only rise, 0 only fall, 2 are zero, of 4" in table
    domain = ("--region", "domain.json", "--fix", "sex=1", "--fix", "c=0", "--timeout", "2")
    named = provenn("jacobian", "model.onnx", *domain, "--json").json
    assert named["inputs"] == ["age", "sex", "c=0", "c=1"]


def test_a_large_jacobian_is_summed_up(provenn: Command) -> None:
    weights, biases = monotone([40, 4, 3], 0, rising=0)
    Path("wide.onnx").write_bytes(chain(weights, biases))
    np.save("forty.npy", np.zeros(40))
    table = provenn("jacobian", "wide.onnx", "--at", "forty.npy", "--eps", "1e-3", "--method", "crown").out
    assert "The 10 that may be largest; --json and --out have all:" in table
    assert len(table.splitlines()) < 25


@pytest.mark.parametrize("name", ["monotonicity", "jacobian"])
def test_a_folder_that_cannot_be_written_loses_no_answer(provenn: Command, name: str) -> None:
    features = ("--features", "0") if name == "monotonicity" else ()
    ran = provenn(name, "plain.onnx", *features, "--at", "x.npy", "--eps", "1/4", "--out", "x.npy", "--json")
    assert ran.code == 1
    assert ran.json["verdict"] == "verified"
    assert ran.json["error"]["type"] == "CannotWrite"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
def test_a_full_disk_loses_no_answer(provenn: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, data: bytes) -> int:
        with Path("/dev/full").open("wb") as file:
            return file.write(data)

    monkeypatch.setattr(Path, "write_bytes", full)
    ran = provenn(
        "monotonicity", "plain.onnx", "--features", "0", "--at", "x.npy", "--eps", "1", "--out", "p", "--json"
    )
    assert ran.code == 1
    assert "No space left" in ran.json["error"]["message"]
    assert ran.json["dependences"][0]["trend"] == "increasing"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("model.onnx --features age", "give either --region with a domain file, or --at with --eps"),
        ("model.onnx --features age --region domain.json --at x.npy --eps 1", "give either --region"),
        ("plain.onnx --features 0 --at x.npy", "--eps: is missing"),
        ("plain.onnx --features 0 --eps 1", "--at: is missing"),
        ("plain.onnx --features 0 --at x.npy --eps 1,2", "--eps: give one radius"),
        ("plain.onnx --features 0 --at x.npy --eps wide", "not a number"),
        ("plain.onnx --features 0 --at x.npy --eps -1", "epsilon"),
        ("plain.onnx --features 0 --at x.npy --eps 0", "input 0 has one value alone"),
        ("plain.onnx --features 0 --at x.npy --eps 1 --clip 1 0", "LO below HI"),
        ("plain.onnx --features 0 --at x.npy --eps 1 --fix a=1", "--fix: it holds features of a domain file"),
        ("plain.onnx --features 0 --at five.npy --eps 1", "five.npy: has shape [5], but the network takes [2]"),
        ("plain.onnx --features 0 --at two.npy --eps 1", "two.npy: holds 2 inputs; give one"),
        ("plain.onnx --features age --at x.npy --eps 1", "--features: there is no input 'age': give numbers"),
        ("plain.onnx --features 2 --at x.npy --eps 1", "--features: there is no input '2'"),
        ("plain.onnx --features 0,0 --at x.npy --eps 1", "--features: input 0 is asked about twice"),
        ("plain.onnx --features 0 --at x.npy --eps 1 --rows 2", "row 2 is not an output"),
        ("plain.onnx --features 0 --at x.npy --eps 1 --method magic", "--method"),
        ("plain.onnx --features 0 --at x.npy --eps 1 --expect rising", "--expect"),
        ("plain.onnx --features 0 --at x.npy --eps 1 --timeout 0", "--timeout: 0.0 is not a time"),
        ("plain.onnx --at x.npy --eps 1", "--features"),
        ("plain.onnx --features age --region domain.json", "domain.json: the features take 4 inputs"),
        ("model.onnx --features age --region broken.json", "broken.json: feature 0, 'age': expected one of"),
        ("model.onnx --features age --region x.npy", "x.npy: not JSON"),
        ("model.onnx --features age --region none.json", "none.json: cannot be read"),
        ("model.onnx --features b0 --region many.json --fix b1=9", "feature 'b1' does not have the value 9"),
        ("model.onnx --features height --region domain.json", "there is no feature 'height'; there are age, sex, c"),
        ("model.onnx --features c --region domain.json", "--features: feature 'c' is one-hot"),
        ("model.onnx --features age --region domain.json --fix age=20", "feature 'age' has one value alone"),
        ("model.onnx --features all --region domain.json --fix age=20 --fix sex=0", "no feature has an order"),
        ("model.onnx --features age --region domain.json --fix c", "--fix: 'c' does not hold a feature"),
        ("model.onnx --features age --region domain.json --fix c=0 --fix 2=1", "--fix: a feature is held twice"),
        ("model.onnx --features age --region domain.json --fix c=red", "--fix: feature 'c': 'red' is not a number"),
        ("model.onnx --features age --region domain.json --clip 0 1", "belong to --at"),
        ("none.onnx --features age --region domain.json", "none.onnx: cannot be read"),
        ("x.npy --features age --region domain.json", "ONNX"),
    ],
)
def test_bad_input(provenn: Command, line: str, message: str) -> None:
    ran = provenn("monotonicity", *line.split(), "--json")
    assert ran.code == 2, ran
    assert message in ran.json["error"]["message"]
    assert "Traceback" not in ran.err


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            "model.onnx --region domain.json",
            "has 4 combinations of categories, but a Jacobian is bounded over one region",
        ),
        ("model.onnx", "give either --region"),
        ("plain.onnx --at two.npy --eps 1", "holds 2 inputs; give one"),
        ("plain.onnx --at x.npy --eps 1 --rows some", "'some' does not name rows"),
    ],
)
def test_bad_input_of_jacobian(provenn: Command, line: str, message: str) -> None:
    ran = provenn("jacobian", *line.split(), "--json")
    assert ran.code == 2, ran
    assert message in ran.json["error"]["message"]


def test_too_many_combinations(provenn: Command) -> None:
    many = [{"name": f"b{i}", "values": list(range(11))} for i in range(4)]
    Path("many.json").write_text(json.dumps({"features": many}))
    ran = provenn("monotonicity", "model.onnx", "--features", "b0", "--region", "many.json", "--json")
    assert ran.code == 2
    assert ran.json["error"]["type"] == "ResourceLimit"
    assert "combinations of categories (1331); hold some fixed exceeds the limit of 1024" in ran.err


def test_a_certificate_of_another_claim_is_rejected(provenn: Command) -> None:
    """The statement says that the output falls, what is proved is that it rises."""
    asked = ("--features", "0", "--rows", "0", "--at", "x.npy", "--eps", "1", "--out", "proof")
    assert provenn("monotonicity", "plain.onnx", *asked).code == 0
    with zipfile.ZipFile("proof/certificate.zip") as bundle:
        files = {name: bundle.read(name) for name in bundle.namelist()}
    stated = json.loads(files["specification.json"])
    assert stated["entries"] == [[0, 0, "0x0.0p+0", None]]
    stated["entries"] = [[0, 0, None, "0x0.0p+0"]]
    changed = io.BytesIO()
    with zipfile.ZipFile(changed, "w") as bundle:
        for name, data in (files | {"specification.json": json.dumps(stated).encode()}).items():
            bundle.writestr(name, data)
    Path("changed.zip").write_bytes(changed.getvalue())
    assert provenn("check", "changed.zip", "--model", "plain.onnx").code == 13


def test_statements_in_words() -> None:
    base = {"outputs": [["1", "-1"]], "regions": [{"lower": ["0"], "upper": ["1"]}]}
    entries = [[0, 0, "0", None], [0, 1, None, "0x0.0p+0"], [0, 2, "0", "0"], [0, 3, "0", None], [0, 4, "-1/2", None]]
    assert jacobian(base | {"entries": entries}, "s.json") == (
        "output 0 - 1 never falls with inputs 0, 3; output 0 - 1 never rises with input 1; output 0 - 1 does not "
        "change with input 2; output 0 - 1 changes by at least -0.5 per unit of input 4: between any two inputs in the "
        "box in its s.json that differ in one value alone"
    )
    apart = jacobian(base | {"entries": [[0, 7, None, "0x1p+1"], [0, 7, "1", None]]}, "s.json")
    assert apart.startswith("output 0 - 1 changes by at least 1 and at most 2 per unit of input 7: ")

"""`provenn-vnnlib` as the standard's chapter 5 has it: what it prints, where, and its exit codes."""

from __future__ import annotations

import gzip
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import provenn
from provenn.api.vnnlib.answers import number
from provenn.api.vnnlib.capabilities import CAPABILITIES
from provenn.api.vnnlib.command import main
from provenn.models.onnx_ops import OPERATORS
from provenn.models.operator_names import OPERATOR_NAMES, OPSETS
from provenn.verifier.check.onnx_reader import OPSETS as CHECKED

EXECUTABLE = Path(sys.executable).parent / "provenn-vnnlib"

QUERY = """(vnnlib-version <2.0>)
(declare-network f
    (declare-input A float32 [1,2])
    (declare-hidden H float32 [1,2] "inner")
    (declare-output B float32 [1,2])
    (declare-output N int64 [2])
)
(assert (and (>= A[0,0] 0.25) (<= A[0,0] 0.25)))
(assert (and (>= A[0,1] -2.0) (<= A[0,1] -2.0)))
"""


def model(sizes: bool = True) -> bytes:
    """inner = 0.3 a, b = relu(inner), n = shape of a if `sizes`."""
    nodes = [
        helper.make_node("Mul", ["a", "w"], ["inner"]),
        helper.make_node("Relu", ["inner"], ["b"]),
        helper.make_node("Shape", ["a"], ["n"]),
    ]
    ends = [
        helper.make_tensor_value_info("a", TensorProto.FLOAT, ["batch", 2]),
        helper.make_tensor_value_info("b", TensorProto.FLOAT, ["batch", 2]),
        helper.make_tensor_value_info("n", TensorProto.INT64, [2]),
    ]
    weight = numpy_helper.from_array(np.array([0.3], np.float32), "w")
    nodes, ends = (nodes, ends) if sizes else (nodes[:2], ends[:2])
    graph = helper.make_graph(nodes, "net", ends[:1], ends[1:], [weight])
    return bytes(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9).SerializeToString()
    )


@dataclass(frozen=True)
class Ran:
    """What a command left."""

    code: int
    out: str
    err: str


class Folder:
    """A query and its model in a folder, and the command run on them in this process."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.path, self._capsys = folder, capsys
        self.model, self.query = folder / "f.onnx", folder / "q.vnnlib"
        self.model.write_bytes(model())

    def verify(self, asserted: str, *options: str, networks: tuple[str, ...] | None = None, query: str = QUERY) -> Ran:
        self.query.write_text(query + asserted)
        names = [f"f={self.model}"] if networks is None else networks
        return self.run("verify", str(self.query), *(p for n in names for p in ("--network", n)), *options)

    def run(self, *arguments: str) -> Ran:
        try:
            code = main(arguments)
        except SystemExit as stopped:
            code = int(stopped.code or 0)
        found = self._capsys.readouterr()
        return Ran(code, found.out, found.err)


@pytest.fixture
def folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Folder:
    return Folder(tmp_path, capsys)


ASSIGNMENT = """sat
A float32 [1,2]
0.25
-2.0
H float32 [1,2]
0.075
-0.6
B float32 [1,2]
0.075
0.0
N int64 [2]
1
2
"""


def test_sat_comes_with_every_declared_tensor(folder: Folder) -> None:
    assert folder.verify("(assert (>= B[0,0] 0.0))") == Ran(0, ASSIGNMENT, "")


def test_unsat_is_one_line_and_how_sure_it_is_stands_on_stderr(folder: Folder) -> None:
    checked = (
        "unsat in real arithmetic, proved by the trusted checker's code (assurance: checked); for roundings of the "
    )
    checked += "declared floats there is room, but no proof; --semantics float32 asks for one"
    assert folder.verify("(assert (>= N[1] 3))") == Ran(0, "unsat\n", f"{folder.query}: {checked}\n")
    assert folder.verify("(assert (>= H[0,0] 0.1))") == Ran(0, "unsat\n", f"{folder.query}: {checked}\n")


def test_float32_executions_may_be_asked_about(folder: Folder) -> None:
    asserted = "(assert (or (>= B[0,0] 0.1) (>= H[0,1] 0.0)))"
    query = QUERY.replace("    (declare-output N int64 [2])\n", "")
    folder.model.write_bytes(model(sizes=False))
    deployed = "unsat in every float32 execution, proved by the trusted checker's code (assurance: deployed)"
    for options in ((), ("--semantics", "real"), ("--semantics", "float32")):
        ran = folder.verify(asserted, *options, query=query)
        assert ran == Ran(0, "unsat\n", f"{folder.query}: {deployed}\n")
    folder.model.write_bytes(model())
    ran = folder.verify("(assert (>= H[0,0] 0.1))", "--semantics", "float32")
    assert (ran.code, ran.out) == (0, "unknown\n")
    assert "only a certificate proves float32 executions, and there is none: " in ran.err


def test_an_empty_region_is_said_to_be_one(folder: Folder) -> None:
    ran = folder.verify("(assert (>= A[0,0] 0.5))")
    reason = "empty region: A[0,0] must be at least 0.5 and at most 0.25 (line 8, 10)"
    expected = f"{folder.query}: warning: vacuously unsat: no input is allowed ({reason})\n"
    assert ran == Ran(0, "unsat\n", expected)


def test_a_disjunct_that_allows_no_input_is_warned_of(folder: Folder) -> None:
    ran = folder.verify("(assert (or (and (>= A[0,0] 0.5) (>= B[0,0] 0.0))\n(>= B[0,0] 9.0)))")
    reason = "A[0,0] must be at least 0.5 and at most 0.25 (line 8, 10)"
    warning = f"warning: 1 of 2 disjuncts allow no input and hold vacuously: {reason}"
    assert (ran.code, ran.out) == (0, "unsat\n")
    assert ran.err.startswith(f"{folder.query}: {warning}\n{folder.query}: unsat in real arithmetic")
    ran = folder.verify("(assert (or (and (>= A[0,0] 0.5) (>= B[0,0] 0.0))\n(>= B[0,0] 0.0)))")
    assert ran == Ran(0, ASSIGNMENT, f"{folder.query}: {warning}\n")


def test_unknown_says_why(folder: Folder) -> None:
    ran = folder.verify("(assert (and (> B[0,1] 0.0) (>= B[0,1] H[0,1])))")
    assert (ran.code, ran.out) == (0, "unknown\n")
    assert ran.err.startswith(f"{folder.query}: points that meet the query up to roundings")


def test_files_may_be_packed(folder: Folder) -> None:
    folder.model.write_bytes(gzip.compress(model()))
    packed = folder.path / "q.vnnlib.gz"
    packed.write_bytes(gzip.compress((QUERY + "(assert (>= B[0,0] 0.0))").encode()))
    assert folder.run("verify", str(packed), "--network", f"f={folder.model}").out == ASSIGNMENT


def test_assignments_are_written_as_tensors(folder: Folder) -> None:
    target = folder.path / "new" / "out"
    assert folder.verify("(assert (>= B[0,0] 0.0))", "--serialise-assignments", str(target)) == Ran(0, "sat\n", "")
    found = {path.name: onnx.TensorProto.FromString(path.read_bytes()) for path in target.iterdir()}
    arrays = {name: numpy_helper.to_array(tensor) for name, tensor in found.items()}
    assert {name: (a.dtype.name, a.shape) for name, a in arrays.items()} == {
        "A.pb": ("float32", (1, 2)),
        "H.pb": ("float32", (1, 2)),
        "B.pb": ("float32", (1, 2)),
        "N.pb": ("int64", (2,)),
    }
    assert arrays["H.pb"].tolist() == (np.array([[0.25, -2]], np.float32) * np.float32(0.3)).tolist()


def test_numbers_are_decimals_that_read_back() -> None:
    for value in np.float32([0.1, 1e-20, -3e30, 16777216.0, 0.0]):
        assert np.float32(number(value, "float32")) == value
        assert re.fullmatch(r"-?[0-9]+\.[0-9]+", number(value, "float32"))
    assert number(np.float32(0.1), "real") == "0.100000001490116119384765625"
    assert number(np.float32(2), "real") == "2.0"
    assert number(np.int64(-7), "int64") == "-7"


ERRORS = {
    "too few files": ("", (), "{q}: line 2: network 'f' is declared, but no model file is given for it"),
    "too many files": (
        "",
        ("f={f}", "g={f}"),
        "{q}: a model file is given for 'g', which the query does not declare",
    ),
    "one twice": ("", ("f={f}", "f={f}"), "--network f=... is given twice"),
    "another element type": (
        "float32 [1,2])->float64 [1,2])",
        ("f={f}",),
        "{q}: line 3: input 'A' of network 'f' is declared float64, but 'a' of its model holds FLOAT",
    ),
    "an unsound element type": (
        "int64->bfloat16",
        ("f={f}",),
        "{q}: line 6: tensor 'N' is declared bfloat16: no sound analysis of this element type is known here; sound: "
        "real, float32, float64, int64, int32. Declared real, its model is read as one over the real numbers",
    ),
    "an unknown variable": (
        "(assert (and (>= A[0,0]->(assert (and (>= Q[0,0]",
        ("f={f}",),
        "{q}: line 8: VNN-LIB 2.0: Undeclared variable: Variable must be declared before use. ('Q')",
    ),
    "a wrong dimension": (
        "A float32 [1,2]->A float32 [1,3]",
        ("f={f}",),
        "{q}: line 3: input 'A' of network 'f' is declared with shape [1, 3], but 'a' of its model has [?, 2]",
    ),
    "text that cannot be parsed": (
        "(assert (and->(assert [and",
        ("f={f}",),
        "{q}: line 8: '[and (>= A[0,0]' is not a list of whole numbers",
    ),
    "no model": ("", ("f={q}",), "the model file of network 'f': not an ONNX file, or a truncated one"),
}


@pytest.mark.parametrize("name", ERRORS)
def test_errors_are_said_on_stderr_alone(folder: Folder, name: str) -> None:
    change, networks, message = ERRORS[name]
    before, _, after = change.partition("->")
    query = QUERY.replace(before, after, 1) if change else QUERY
    places = {"f": str(folder.model), "q": str(folder.query)}
    given = tuple(n.format(**places) for n in networks)
    ran = folder.verify("(assert (>= B[0,0] 0.0))", networks=given, query=query)
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.startswith(f"error: {message.format(**places)}")
    assert ran.err.count("\n") == 1


@pytest.mark.parametrize(
    "arguments",
    [
        ("verify", "q", "--timeout", "-1"),
        ("verify", "q", "--timeout", "soon"),
        ("verify", "q", "--network", "f"),
        ("verify", "q", "--semantics", "float16"),
        ("verify",),
        ("supports",),
        ("supports", "--everything"),
        ("prove", "q"),
        (),
    ],
)
def test_odd_command_lines_are_refused(folder: Folder, arguments: tuple[str, ...]) -> None:
    ran = folder.run(*arguments)
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.startswith("usage: provenn-vnnlib")


def test_missing_files_are_named(folder: Folder) -> None:
    ran = folder.run("verify", str(folder.path / "none.vnnlib"))
    assert (ran.code, ran.out) == (2, "")
    assert "none.vnnlib" in ran.err


SUPPORTED = {
    "onnx-opset-versions": "7\n26\n",
    "onnx-element-types": "float64\nfloat32\nint64\nint32\nreal\n",
    "onnx-operators": "".join(f"{name}\n" for name in sorted(OPERATORS)),
    "vnnlib-versions": "1.0\n2.0\n",
    "hidden-node-theories": "NH\nH\n",
    "multiple-input-output-theories": "SIO\nMIO\n",
    "multiple-network-theories": "SNET\nMENET\nMINET\nMNET\n",
    "multiple-node-comparison-theories": "SNC\nMNC\n",
    "arithmetic-complexity-theories": "BND\nOUTC\nLIN\nPOLY\n",
    "optimised-disjunctive-reasoning": "false\n",
    "serialise-assignments": "true\n",
}


@pytest.mark.parametrize("capability", SUPPORTED)
def test_capabilities(folder: Folder, capability: str) -> None:
    assert folder.run("supports", f"--{capability}") == Ran(0, SUPPORTED[capability], "")


def test_there_are_no_other_capabilities_and_names_are_those_of_the_readers() -> None:
    assert CAPABILITIES.keys() == SUPPORTED.keys()
    assert sorted(OPERATOR_NAMES) == sorted(OPERATORS)
    assert OPSETS == CHECKED


def test_name_and_version(folder: Folder) -> None:
    assert folder.run("--name") == Ran(0, "Provenn\n", "")
    assert folder.run("--version") == Ran(0, f"{provenn.__version__}\n", "")


def executed(*arguments: str) -> Ran:
    done = subprocess.run([EXECUTABLE, *arguments], capture_output=True, text=True, timeout=300, check=False)
    return Ran(done.returncode, done.stdout, done.stderr)


def test_the_time_limit_ends_the_process_whatever_it_does(folder: Folder) -> None:
    folder.query.write_text(QUERY + "(assert (>= B[0,0] 0.0))")
    ran = executed("verify", str(folder.query), "--network", f"f={folder.model}", "--timeout", "0.01")
    assert ran == Ran(0, "timed-out\n", "")
    ran = executed("verify", str(folder.query), "--network", f"f={folder.model}", "--timeout", "200.5")
    assert ran == Ran(0, ASSIGNMENT, "")


STUCK = """import ctypes, sys, time
from provenn.api.vnnlib.deadline import Deadline, supervised
code = supervised(Deadline(0.5, time.monotonic()))
if code is None:
    print("working", flush=True)
    ctypes.PyDLL(None).sleep(200)  # holds the interpreter's lock
sys.exit(code)
"""


def test_a_worker_that_yields_to_nobody_is_ended() -> None:
    done = subprocess.run([sys.executable, "-c", STUCK], capture_output=True, text=True, timeout=100, check=False)
    assert (done.returncode, done.stdout) == (0, "timed-out\n")


def in_process(script: str, *arguments: str) -> Ran:
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments], capture_output=True, text=True, timeout=300, check=False
    )
    return Ran(done.returncode, done.stdout, done.stderr)


ENDED = """import os, signal, sys, time
from provenn.api.vnnlib.deadline import Deadline, supervised
code = supervised(Deadline(100.0, time.monotonic()))
if code is None:
    print("sat", flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
sys.exit(code)
"""


def test_a_worker_that_is_killed_leaves_the_query_open() -> None:
    assert in_process(ENDED) == Ran(0, "unknown\n", "error: the process that worked on it was ended by signal 9\n")


MISTAKEN = """import sys
from provenn.api.vnnlib import deciding
from provenn.api.vnnlib.command import main
deciding.bind = lambda query, files: 1 / 0
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.parametrize("limit", [(), ("--timeout", "200")])
def test_our_own_mistakes_leave_the_query_open(folder: Folder, limit: tuple[str, ...]) -> None:
    folder.query.write_text(QUERY + "(assert (>= B[0,0] 0.0))")
    ran = in_process(MISTAKEN, "verify", str(folder.query), "--network", f"f={folder.model}", *limit)
    assert (ran.code, ran.out) == (0, "unknown\n")
    assert "Traceback" in ran.err
    assert ran.err.endswith("error: internal error, not yours: ZeroDivisionError: division by zero. Please report it\n")


FAILING = """import sys
from provenn.api.vnnlib import proving
from provenn.api.vnnlib.command import main
def fail(*arguments): raise {error}
proving.loaded = proving.read_by_kernel = fail
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.parametrize(
    "error", ["RuntimeError('torch says no')", "MemoryError('1 TiB')", "OSError('no such device')"]
)
def test_a_backend_that_fails_leaves_the_query_open(folder: Folder, error: str) -> None:
    folder.query.write_text(QUERY + "(assert (>= B[0,0] 9.0))")
    ran = in_process(FAILING.format(error=error), "verify", str(folder.query), "--network", f"f={folder.model}")
    assert (ran.code, ran.out) == (0, "unknown\n")
    assert ran.err.startswith(f"{folder.query}: ")
    assert error.split("'")[1] in ran.err


LIMITED = """import resource, sys
from pathlib import Path
import provenn.api.vnnlib.answers, provenn.api.vnnlib.deciding, provenn.verifier.query.reading, vnnlib
from provenn.api.vnnlib.command import main
size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (size + (120 << 20),) * 2)
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="how much memory is used is not told here")
def test_memory_that_does_not_suffice_leaves_the_query_open(folder: Folder) -> None:
    size = 4_000_000
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [size]) for name in "xy"]
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "net", ends[:1], ends[1:])
    large = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    folder.model.write_bytes(large.SerializeToString())
    declared = f"(declare-input X float32 [{size}]) (declare-output Y float32 [{size}])"
    folder.query.write_text(f"(vnnlib-version <2.0>)(declare-network f {declared})(assert (>= Y[0] 0.0))")
    ran = in_process(LIMITED, "verify", str(folder.query), "--network", f"f={folder.model}")
    assert ran == Ran(0, "unknown\n", "error: the memory does not suffice\n")


def test_errors_are_the_same_under_a_time_limit(folder: Folder) -> None:
    folder.query.write_text(QUERY + "(assert (>= B[0,0] 0.0))")
    ran = executed("verify", str(folder.query), "--timeout", "200")
    expected = f"error: {folder.query}: line 2: network 'f' is declared, but no model file is given for it\n"
    assert ran == Ran(2, "", expected)


ALONE = """import sys
from provenn.api.vnnlib.command import main
try:
    main(sys.argv[1:])
finally:
    print("torch" in sys.modules, file=sys.stderr)
"""


@pytest.mark.parametrize("arguments", [("--version",), ("--name",), ("supports", "--onnx-operators"), ("verify",)])
def test_torch_is_loaded_only_where_it_is_needed(folder: Folder, arguments: tuple[str, ...]) -> None:
    if arguments == ("verify",):
        folder.query.write_text(QUERY + "(assert (>= B[0,0] 0.0))")
        arguments = ("verify", str(folder.query), "--network", f"f={folder.model}")
    done = subprocess.run([sys.executable, "-c", ALONE, *arguments], capture_output=True, text=True, check=False)
    assert done.stderr == "False\n"

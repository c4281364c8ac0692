"""`provenn-vnnlib`: the commands verify and supports, --name and --version.

A verdict exits with 0, whatever it is; what is wrong with the input is one line on stderr, and exit code 2. A failure
of our own is a verdict, `unknown`, with the failure on stderr. What a command does not need it does not import: torch
is loaded for queries that are not decided without it.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from math import inf
from pathlib import Path
from types import TracebackType

from provenn import __version__
from provenn.api.vnnlib.capabilities import CAPABILITIES
from provenn.api.vnnlib.deadline import BEGAN, Deadline, supervised
from provenn.verifier.errors import InvalidSpecification, ProvennError, ResourceLimit, in_file

BAD_INPUT = 2


def main(arguments: Sequence[str] | None = None, began: float = BEGAN) -> int:
    """Runs one command line (the process's own if None) and returns its exit code."""
    parser = _parser()
    given = parser.parse_args(arguments)
    if given.command == "supports":
        print("\n".join(CAPABILITIES[given.capability]))
        return 0
    if given.command == "verify":
        deadline = Deadline(given.timeout, began)
        ended = supervised(deadline)
        if ended is not None:
            return ended
        sys.excepthook = _unexpected
        try:
            return _verify(given, deadline)
        except (ProvennError, OSError) as error:
            print(f"error: {error}", file=sys.stderr)
            return BAD_INPUT
        except MemoryError:
            print("error: the memory does not suffice", file=sys.stderr)
            print("unknown")
            return 0
    parser.print_usage(sys.stderr)
    return BAD_INPUT


def _unexpected(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """A sys.excepthook: our own mistake, with its traceback on stderr, leaves the query open; Ctrl-C ends as ever."""
    sys.__excepthook__(kind, error, trace)
    if issubclass(kind, Exception):
        sys.stderr.write(f"error: internal error, not yours: {kind.__name__}: {error}. Please report it\n")
        sys.stderr.flush()
        sys.stdout.write("unknown\n")
        sys.stdout.flush()
        os._exit(0)  # the interpreter would exit with 1 after a hook, and the standard has 0 for a verdict


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="provenn-vnnlib", description="The solver interface of VNN-LIB 2.0.")
    parser.add_argument("--name", action="version", version="Provenn", help="print the solver's name")
    parser.add_argument("--version", action="version", version=__version__, help="print the solver's version")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    verify = commands.add_parser("verify", help="decide whether a query can be satisfied")
    verify.add_argument("query", type=Path, metavar="QUERY", help="the query: VNN-LIB 1.0 or 2.0, gzipped or not")
    verify.add_argument(
        "--network", type=_network, action="append", default=[], metavar="NAME=FILE",
        help="the ONNX file of a declared network; once for each that is not equal-to another",
    )  # fmt: skip
    verify.add_argument("--timeout", type=_seconds, metavar="SECONDS", help="wall-clock limit, loading included")
    verify.add_argument(
        "--serialise-assignments", type=Path, metavar="DIR",
        help="write a satisfying assignment into this folder, a TensorProto a variable, instead of printing it",
    )  # fmt: skip
    verify.add_argument(
        "--semantics", choices=("real", "float32"), default="real",
        help="what unsat is proved of: the files in real arithmetic (default), or every float32 execution of them",
    )  # fmt: skip
    supports = commands.add_parser("supports", help="say what queries and networks are supported")
    wanted = supports.add_mutually_exclusive_group(required=True)
    for capability in CAPABILITIES:
        wanted.add_argument(f"--{capability}", dest="capability", action="store_const", const=capability)
    return parser


def _network(text: str) -> tuple[str, Path]:
    name, separator, file = text.partition("=")
    if not separator or not name or not file:
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=FILE")
    return name, Path(file)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 < seconds < inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds above 0")
    return seconds


def _verify(given: argparse.Namespace, deadline: Deadline) -> int:
    query_file, folder = given.query, given.serialise_assignments
    names = [name for name, _ in given.network]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise InvalidSpecification(f"--network {twice}=... is given twice")
    text = query_file.read_bytes()
    files = {name: path.read_bytes() for name, path in given.network}
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
    from provenn.api.vnnlib.answers import printed, write
    from provenn.api.vnnlib.deciding import Decision, decide
    from provenn.verifier.query.reading import read_query

    try:
        query = read_query(text)
        decision = decide(query, files, deadline, given.semantics)
    except (InvalidSpecification, ResourceLimit) as error:
        raise in_file(query_file, error) from None
    except OSError as failure:  # of ours: the files that were named have been read
        decision = Decision("unknown", (f"error: {failure}",))
    for note in decision.notes:
        print(f"{query_file}: {note}", file=sys.stderr)
    answer = f"{decision.verdict}\n"
    if decision.execution is not None:
        if folder is not None:
            write(query, decision.execution, folder)
        else:
            answer += printed(query, decision.execution)
    sys.stdout.write(answer)
    return 0

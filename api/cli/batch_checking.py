"""`provenn check` of a batch: every row, one after the other; nothing here loads torch unless there is data to run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text
from typer import BadParameter

from provenn.api.batch.bundle import opened
from provenn.api.batch.checking import BatchReport, Given, check_batch
from provenn.api.cli.checking import ABSENT, show_signature, signed
from provenn.api.cli.progress import progress_bar
from provenn.api.files import InvalidFile, read_file
from provenn.api.statements import DISTANCE
from provenn.verifier.check import CertificateRejected
from provenn.verifier.numbers import spoken, written

SHOWN = ("proves", "claim", "reason", "rows", "certificates", "replayed", "margin", "semantics", "root", "model_sha256")
"""What people see; --json has everything."""


@dataclass(frozen=True)
class Asked:
    """The options.   Raises: BadParameter for those that do not belong together."""

    bundle: Path
    model: Path
    specification: Path | None
    data: Path | None
    labels: str | None
    item: int | None
    keys: Path | None

    def __post_init__(self) -> None:
        if self.specification is not None:
            raise BadParameter("a batch has a property an input: give --data instead", param_hint="--spec")
        if self.labels is not None and self.data is None:
            raise BadParameter("give --data, too: whose classes they are", param_hint="--labels")


def examine(asked: Asked) -> dict[str, Any]:
    """`accepted`, what it `proves` and the report; or the rejected `claim` and the `reason`. And the `signature`.

    Raises: InvalidFile.
    """
    network = read_file(asked.model)
    known = b"" if asked.keys is None else read_file(asked.keys)
    signature = ABSENT
    given = None if asked.data is None else _given(asked.data, asked.labels, network)
    try:
        with opened(asked.bundle) as bundle:
            signature = signed(bundle.signed(), network, asked.keys, known, batch=True)
        with progress_bar(remaining=True) as bar:
            report = check_batch(asked.bundle, network, given, asked.item, lambda k, n: bar(k, n, "checking rows"))
        return {"accepted": True, **report.as_dict(), "proves": stated(report), "signature": signature}
    except CertificateRejected as refusal:
        return {"accepted": False, "claim": refusal.claim, "reason": refusal.reason, "signature": signature}
    except OSError as error:
        raise InvalidFile(asked.bundle, f"cannot be read: {error.strerror or error}") from error


def stated(report: BatchReport) -> str:
    """What an accepted batch proves, in a sentence."""
    ends = () if report.clip is None else tuple(written(spoken(end)) for end in report.clip)
    within = f" with values in [{', '.join(ends)}]" if ends else ""
    executed = "; in every float32 execution" if report.semantics == "float32" else ""
    found = []
    for radius, counts in report.verdicts.items():
        certified, total = counts.get("verified", 0), sum(counts.values())
        how_far = "some radius" if radius == "radius" else f"{DISTANCE[report.norm]} distance {radius}"
        found.append(f"of {total} input{'s' if total > 1 else ''} {certified} within {how_far}")
    return f"the label's class wins for every input around these{within}: {', '.join(found)}{executed}"


def as_view(found: dict[str, Any]) -> RenderableType:
    """The decision first, then what is known."""
    table = Table.grid(padding=(0, 3))
    decision = Text("accepted", style="bold green") if found["accepted"] else Text("rejected", style="bold red")
    table.add_row("batch", decision)
    for name in SHOWN:
        if found.get(name) is not None:
            table.add_row(name.replace("_", " "), Text(str(found[name])))
    if found["accepted"] and found["data_sha256"] is None:
        table.add_row("data", Text("not checked: a row alone does not show which data the batch is about; give --data"))
    show_signature(found["signature"], table)
    return table


def _given(data: Path, labels: str | None, network: bytes) -> Given:
    from provenn.api.batch.data import read_data
    from provenn.models.reading import executor

    runs = executor(network)
    return Given(read_data(data, runs.input_shape, labels), runs, runs.input_shape)

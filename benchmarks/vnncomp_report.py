"""Tables and a plot of VNN-COMP runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import matplotlib
import numpy as np

matplotlib.use("Agg")
from matplotlib import pyplot

Found = Mapping[str, Any]
SOLVED = ("sat", "unsat")


def spent(one: Found) -> float | None:
    """CPU seconds after imports; wall seconds where they were not measured."""
    return one.get("cpu_s") if one.get("cpu_s") is not None else one.get("wall_s")


def solved(some: Sequence[Found]) -> list[Found]:
    """Those with a verdict."""
    return [one for one in some if one["verdict"] in SOLVED]


def contradictions(found: Sequence[Found], truth: Mapping[str, Found]) -> list[str]:
    """Verdicts against known ones, and proofs or counterexamples that do not hold."""
    wrong = []
    for one in found:
        known = truth.get(one["id"], {}).get("verdict")
        if {one["verdict"], known} == set(SOLVED):
            wrong.append(f"CONTRADICTION {one['id']}: {one['verdict']}, known to be {known}")
        if one.get("confirmed") is False:
            wrong.append(f"NOT CONFIRMED {one['id']}: {one.get('refusal', 'the counterexample does not hold')}")
    return wrong


def tables(found: Sequence[Found], theirs: Mapping[str, Found], peer: str) -> str:
    """What was solved, how fast, how it was proved, and the same of a peer on the same instances."""
    names = [*dict.fromkeys(one["category"] for one in found)]
    groups = {name: [one for one in found if one["category"] == name] for name in names} | {"all": list(found)}
    lines = ["", "| category | instances | sat | unsat | timeout | unknown | error | cold start s | latest s over |"]
    lines.append("|" + "---|" * 9)
    for name, some in groups.items():
        counts = [sum(one["verdict"] == v for one in some) for v in (*SOLVED, "timeout", "unknown", "error")]
        cold = median([one["cold_s"] for one in some if "cold_s" in one] or [0.0])
        over = max((one["wall_s"] - one["timeout"] for one in some if "wall_s" in one), default=0.0)
        row = " | ".join(map(str, counts))
        lines.append(f"| {name} | {len(some)} | {row} | {cold:.2f} | {max(over, 0):.2f} |")
    return "\n".join([*lines, *_times(groups, theirs, peer), *_proofs(groups)])


def _times(groups: Mapping[str, list[Found]], theirs: Mapping[str, Found], peer: str) -> list[str]:
    """CPU seconds of solved instances: percentiles, and the peer's median on those that it solved.

    ratio: of the medians; ratio where both: the median of the ratios of the instances that both solved.
    """
    lines = ["", f"peer: {peer}" if theirs else "", ""]
    lines.append("| category | solved | p10 s | median s | p90 s | max s | peer solved | peer median s | ratio |"
                 " ratio where both |")  # fmt: skip
    lines.append("|" + "---|" * 10)
    for name, some in groups.items():
        mine = [t for one in solved(some) if (t := spent(one)) is not None]
        other = solved([theirs[one["id"]] for one in some if one["id"] in theirs])
        peers = [t for one in other if (t := spent(one)) is not None]
        pairs = [(spent(one), spent(theirs[one["id"]])) for one in solved(some) if one["id"] in theirs
                 and theirs[one["id"]]["verdict"] in SOLVED]  # fmt: skip
        shares = [first / second for first, second in pairs if first is not None and second is not None]
        points = [f"{np.percentile(mine, p):.3f}" if mine else "-" for p in (10, 50, 90, 100)]
        both = f"{median(mine) / median(peers):.3f}" if mine and peers else "-"
        their = f"{median(peers):.3f}" if peers else "-"
        lines.append(f"| {name} | {len(mine)} | {' | '.join(points)} | {len(other)} | {their} | {both} | "
                     f"{f'{median(shares):.3f}' if shares else '-'} |")  # fmt: skip
    return lines


def _proofs(groups: Mapping[str, list[Found]]) -> list[str]:
    """How `unsat` was assured, and what checking costs beside the search."""
    lines = ["", "| category | unsat | checked | computed | check/search median | check/search max | median kB |"]
    lines.append("|" + "---|" * 7)
    for name, some in groups.items():
        unsat = [one for one in some if one["verdict"] == "unsat"]
        counts = [sum(one.get("assurance") == a for one in unsat) for a in ("checked", "computed")]
        shares = [one["check_cpu_s"] / search(one) for one in unsat if "check_cpu_s" in one]
        sizes = [one["certificate_bytes"] / 1024 for one in unsat if "certificate_bytes" in one]
        shown = [f"{median(shares):.2f}", f"{max(shares):.2f}", f"{median(sizes):.0f}"] if shares else ["-"] * 3
        lines.append(f"| {name} | {len(unsat)} | {counts[0]} | {counts[1]} | {' | '.join(shown)} |")
    return lines


def search(one: Found) -> float:
    """CPU seconds without those of making and checking the proof."""
    stats = one.get("stats", {})
    return float(one["cpu_s"]) - stats.get("proof_seconds", 0.0) - stats.get("check_seconds", 0.0)


def cactus(path: Path, found: Sequence[Found], theirs: Mapping[str, Found], peer: str) -> None:
    """How many instances are solved within how many seconds each, here and by the peer."""
    figure, axes = pyplot.subplots(figsize=(7, 4.5))
    series = {"Provenn": list(found), peer: [theirs[one["id"]] for one in found if one["id"] in theirs]}
    for name, some in series.items():
        times = sorted(t for one in solved(some) if (t := spent(one)) is not None)
        if times:
            axes.step(range(1, len(times) + 1), times, where="post", label=f"{name}: {len(times)} solved")
    axes.set(yscale="log", xlabel="instances solved", ylabel="CPU seconds an instance")
    axes.grid(True, which="major", alpha=0.3)
    axes.legend()
    figure.tight_layout()
    figure.savefig(path, dpi=150)
    pyplot.close(figure)

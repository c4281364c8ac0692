"""Constants against the radius: as single calls give them, with certificates; tables, files, plots, refusals."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from cli_kit import PLAIN, Command, two_layers
from hypothesis import given, settings
from hypothesis import strategies as st
from lipschitz_models import POSED

import provenn
from provenn.api.cli import lipschitz as command
from provenn.api.cli.chart import axis, drawn
from provenn.api.cli.lipschitz_plot import chart, lower_text, upper_text
from provenn.api.lipschitz import INTERRUPTED, Contradiction, LipschitzResult, Options, bound, load
from provenn.api.lipschitz_curve import LATE, STOPPED, Balls, CurveBound, LipschitzCurve, _joined, _spread, curve
from provenn.api.lipschitz_question import Around, Question
from provenn.api.statements import at_least, at_most
from provenn.verifier.errors import InvalidSpecification

KINKS = two_layers([[1], [1]], [0, -1], [[1, 3]])
"""y = relu(x) + 3 relu(x - 1): slopes 0, 1 and 4, which change at 0 and at 1."""

MODEL = load(KINKS)
ASKED = Question("inf", "inf")
CROWN = Options("crown", seconds=2.0)
RADII = ("1/10", 0.25, "1", "2")
CENTRES = np.array([[-0.5], [0.5], [3.0]])
EXACT = [[0, 0, 1, 4], [1, 1, 4, 4], [4, 4, 4, 4]]


def slope(highest: float) -> float:
    """The constant of KINKS over an interval with this upper end: slopes only grow."""
    return float((highest > 0) + 3 * (highest > 1))


def test_every_bound_is_that_of_a_single_call_and_has_its_certificate() -> None:
    found = curve(MODEL, Balls(CENTRES, RADII), ASKED, CROWN)
    assert (found.verdict, found.interrupted, found.finished) == ("verified", False, 12)
    for item in (item for row in found.bounds for item in row):
        region = Around(CENTRES[item.point].tolist(), RADII[item.radius])
        alone = bound(MODEL, Question("inf", "inf", region=region), Options("crown", seconds=0.5))
        assert item.result.upper == alone.upper
        assert item.upper is not None and item.lower is not None
        assert item.lower <= EXACT[item.point][item.radius] <= item.upper
        assert item.upper == pytest.approx(EXACT[item.point][item.radius], abs=1e-6)
        assert item.result.certificate is not None
        assert provenn.check(item.result.certificate, KINKS).uppers == (item.result.upper,)
    told = json.loads(json.dumps(found.as_json(), allow_nan=False))
    assert [entry["eps"] for entry in told["bounds"][:4]] == ["1/10", "0.25", "1", "2"]
    assert told["bounds"][4]["point"] == 1
    assert told["summary"][0]["upper"]["maximum"] == found.bounds[2][0].upper


@settings(max_examples=8, deadline=None)
@given(st.floats(-2, 2), st.lists(st.integers(1, 48), min_size=2, max_size=3, unique=True).map(sorted))
def test_bounds_enclose_the_constant_and_grow_with_the_radius(centre: float, sixteenths: list[int]) -> None:
    radii = [f"{count}/16" for count in sixteenths]
    (row,) = curve(MODEL, Balls(np.array([[centre]]), radii), ASKED, Options("crown", seconds=1.0)).bounds
    before = (0.0, 0.0)
    for item, count in zip(row, sixteenths, strict=True):
        assert item.upper is not None and item.lower is not None
        assert item.lower <= slope(centre + count / 16) <= item.upper
        assert item.upper >= before[0]
        assert item.lower >= before[1]
        before = item.upper, item.lower


def test_rows_one_by_one_are_told_by_the_largest() -> None:
    model, centre, sizes = load(PLAIN), np.array([[1.0, -2.0]]), ("1/2", "3")
    each = curve(model, Balls(centre, sizes), Question("inf", "each"), CROWN).bounds[0]
    together = curve(model, Balls(centre, sizes), Question("inf", "inf"), CROWN).bounds[0]
    assert each[0].result.upper == pytest.approx([1.0, 0.0], abs=1e-6)
    assert [item.upper for item in each] == [item.upper for item in together]


def result(upper: float | None, lower: float | None = None) -> LipschitzResult:
    verdict = "timeout" if upper is None else "verified"
    return LipschitzResult(verdict, "crown", "inf", "inf", "all", 0.1, upper, lower)


def test_a_larger_radius_speaks_for_smaller_ones_and_pairs_for_larger_ones() -> None:
    balls = Balls(np.zeros((1, 1)), ("1", "2", "3", "4"))
    row = _joined(0, [result(3.0, 1.0), result(None), result(2.0, 0.5), result(None)], balls)
    told = [(item.verdict, item.upper, item.proved_at, item.lower) for item in row]
    assert told[:3] == [("verified", 2.0, 2, 1.0)] * 3
    assert told[3] == ("timeout", None, None, 1.0)
    equal = _joined(0, [result(2.0, 0.0), result(2.0, 0.0), *[result(None)] * 2], balls)
    assert [item.proved_at for item in equal] == [0, 1, None, None]
    with pytest.raises(Contradiction, match=r"point 0: the bound 2\.0 proved at radius 2 is below 2\.5, .* at 1"):
        _joined(0, [result(3.0, 2.5), result(2.0, 0.0), *[result(None)] * 2], balls)


def test_quartiles_enclose_by_rank_and_count_what_is_not_proved() -> None:
    ends: list[tuple[float | None, float | None]] = [(5.0, 4.0), (1.0, 1.0), (None, None), (3.0, 0.5), (2.0, 2.0)]
    spread = _spread([CurveBound(i, 0, result(u, v), u, v, None) for i, (u, v) in enumerate(ends)])
    assert spread.upper == (1.0, 2.0, 3.0, 5.0, None)
    assert spread.lower == (0.0, 0.5, 1.0, 2.0, 4.0)
    assert spread.not_proved == 1


def test_time_is_for_all_bounds_together() -> None:
    found = curve(MODEL, Balls(CENTRES, RADII), ASKED, Options("crown", seconds=1e-9))
    assert found.verdict == "timeout"
    assert found.finished <= 1
    assert found.bounds[2][3].result.reason == LATE


def test_an_interrupt_keeps_what_is_finished() -> None:
    """At first between proofs, where a bound has nothing yet; then in a search, which still gives its number."""
    calls = 0

    def third(done: int, total: int, phase: str) -> None:
        assert (total, phase) == (12, f"point {done % 3}, radius 1/10: {phase.rpartition(': ')[2]}")
        if done == 2:
            raise KeyboardInterrupt

    found = curve(MODEL, Balls(CENTRES, RADII), ASKED, CROWN, third)
    assert (found.interrupted, found.verdict, found.finished) == (True, "unknown", 2)
    assert [row[0].verdict for row in found.bounds] == ["verified", "verified", "unknown"]
    assert found.bounds[2][0].result.reason == STOPPED

    def searching(done: int, total: int, phase: str) -> None:
        nonlocal calls
        if "lipsdp-neuron" in phase:
            calls += 1
            raise KeyboardInterrupt

    found = curve(load(PLAIN), Balls(np.zeros((1, 2)), RADII), Question(), Options(seconds=8.0), searching)
    assert (calls, found.interrupted, found.finished) == (1, True, 1)
    assert found.bounds[0][0].result.reason == INTERRUPTED
    assert found.bounds[0][0].upper is not None


def test_what_makes_no_sense_is_refused_before_anything_is_computed() -> None:
    for centres, radii, message in (
        (np.zeros((0, 1)), ["1"], "no point"),
        (np.zeros((1, 1)), [], "there is no radius: give radii above 0 in increasing order"),
        (np.zeros((1, 1)), [0.1, 0.1], "'0.1' comes after '0.1'"),
        (np.zeros((1, 1)), ["1/10", float("nan")], "'nan' is not a number: give radii"),
        (np.zeros((1, 1)), ["1e-340"], "'1e-340' is not a radius"),
    ):
        with pytest.raises(InvalidSpecification, match=message):
            Balls(centres, radii)
    never = pytest.fail
    with pytest.raises(InvalidSpecification, match="point 1: empty region"):
        curve(MODEL, Balls(np.array([[0.5], [4.0]]), ["1/2"], clip=(0, 1)), ASKED, CROWN, never)
    with pytest.raises(InvalidSpecification, match="the centre has 2 numbers for 1 inputs"):
        curve(MODEL, Balls(np.zeros((1, 2)), ["1/2"]), ASKED, CROWN, never)


@given(st.lists(st.floats(1e-250, 1e250) | st.just(0.0), min_size=1, max_size=6), st.booleans())
def test_axes_hold_their_values_and_ticks(values: list[float], named: bool) -> None:
    found = axis("numbers", values, [f"{value:g}" for value in values] if named else None)
    assert found.ticks
    for value in [*values, *(tick for tick, _ in found.ticks)]:
        assert 0 <= found.place(value) <= 1
    assert found.log == (min(values) > 0 and max(values) >= 10 * min(values))


class Page(HTMLParser):
    """Notes what is where, and that every element is closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: dict[str, list[str]] = {}
        self.attributes: list[tuple[str, str | None]] = []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += attrs
        self.seen.setdefault(tag, [])
        if tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open:
            self.seen[self.open[-1]].append(data)


@pytest.fixture
def provenn_command(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Command:
    monkeypatch.chdir(tmp_path)
    Path("kinks.onnx").write_bytes(KINKS)
    Path("posed.safetensors").write_bytes(POSED)
    np.save("x.npy", CENTRES[1])
    np.save("xs.npy", CENTRES)
    np.save("wide.npy", np.zeros((3, 2)))
    np.save("empty.npy", np.zeros((0, 1)))
    Path("folder.png").mkdir()
    return Command(capsys)


HOW = ("--norm", "inf", "--to", "inf", "--method", "crown", "--timeout", "3")


def test_the_object_the_certificates_and_the_table_of_several_points(provenn_command: Command) -> None:
    stale = Path("kept/point-007/radius-9")
    stale.mkdir(parents=True)
    (stale / "certificate.zip").write_bytes(b"")
    ran = provenn_command(
        "lipschitz", "kinks.onnx", "--at", "xs.npy", "--eps", "1/10,1", *HOW, "--out", "kept", "--json"
    )
    assert ran.code == 0
    found = ran.json
    assert (found["verdict"], found["points"], found["eps"]) == ("verified", 3, ["1/10", "1"])
    assert (found["assurance"], found["certificate"], found["plot"]) == ("checked", "kept", None)
    for entry in found["bounds"]:
        radius = found["eps"].index(entry["proved_at"])
        assert entry["certificate"] == f"kept/point-{entry['point']:03d}/radius-{radius}/certificate.zip"
        checked = provenn_command("check", entry["certificate"], "--model", "kinks.onnx", "--json").json
        assert checked["uppers"] == [entry["upper"]]
        assert f"within l-infinity distance {['0.1', '1'][radius]} of" in checked["proves"]
    assert not (stale / "certificate.zip").exists()
    kept = json.loads(Path(found["curve_file"]).read_text())
    assert (kept["bounds"], kept["summary"]) == (found["bounds"], found["summary"])
    table = provenn_command("lipschitz", "kinks.onnx", "--at", "xs.npy", "--eps", "1/10,1", *HOW).out
    assert [line for line in table.splitlines() if "median lower bound" in line and "not proved" in line]
    assert "3 points, radii in l-infinity" in table
    assert at_most(found["summary"][1]["upper"]["median"]) in table
    one = provenn_command("lipschitz", "kinks.onnx", "--at", "xs.npy", "--eps", "1/10", *HOW, "--json").json
    assert [entry["point"] for entry in one["bounds"]] == [0, 1, 2]


def test_the_table_of_one_point(provenn_command: Command) -> None:
    ran = provenn_command("lipschitz", "kinks.onnx", "--at", "x.npy", "--eps", "0.25, 1", "--clip", "0", "9", *HOW)
    assert ran.code == 0
    assert "1 point, radii in l-infinity, values in [0, 9]" in ran.out
    last = ran.out.splitlines()[-1].split()
    assert last[0] == "1"
    assert float(last[1]) == pytest.approx(4.0)
    assert last[3] == "crown"


def test_verdicts_of_what_is_not_proved(provenn_command: Command) -> None:
    late = provenn_command("lipschitz", "kinks.onnx", "--at", "xs.npy", "--eps", "1,2", *HOW[:-1], "1e-9", "--json")
    assert late.code == 12
    assert late.json["summary"][0]["upper"]["median"] is None
    assert late.json["summary"][0]["not_proved"] == 3
    np.save("pairs.npy", np.zeros((2, 2)))
    none = provenn_command("lipschitz", "posed.safetensors", "--at", "pairs.npy", "--eps", "1", "--plot", "none.html")
    assert none.code == 11, none
    assert "not proved" in Path("none.html").read_text()


def test_ctrl_c_prints_what_is_finished(provenn_command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    @contextmanager
    def impatient() -> Iterator[object]:
        def progress(done: int, total: int, phase: str) -> None:
            if done == 1:
                raise KeyboardInterrupt

        yield progress

    monkeypatch.setattr(command, "progress_bar", impatient)
    asked = ("lipschitz", "kinks.onnx", "--at", "x.npy", "--eps", "0.1,1", *HOW, "--out", "kept")
    ran = provenn_command(*asked)
    assert ran.code == 130
    assert "1 of 2 bounds (interrupted)" in ran.out
    assert Path("kept/point-000/radius-0/certificate.zip").exists()
    assert json.loads(Path("kept/curve.json").read_text())["interrupted"]


def curved(points: int, radii: tuple[str, ...], unknown: int = 0) -> LipschitzCurve:
    """Made up; of the first points the last bounds are not proved."""
    balls = Balls(np.zeros((points, 1)), radii)
    rows = [[result(2.0 * p + r + 1, p + 0.25 * r) for r in range(len(radii))] for p in range(points)]
    for row in rows[:unknown]:
        row[-1] = result(None)
    return LipschitzCurve(balls, ASKED, [_joined(p, row, balls) for p, row in enumerate(rows)], 1.0)


CURVES = [curved(1, ("1/10", "0.25", "20")), curved(5, ("1/10", "0.25", "20"), unknown=1), curved(4, ("1/10",))]
NAME = "a<b>&c$.onnx"


@pytest.mark.parametrize("found", CURVES)
def test_pages_stand_alone_and_say_the_numbers(found: LipschitzCurve) -> None:
    text = drawn(chart(found, NAME), Path("c.html")).decode()
    assert "prefers-color-scheme: dark" in text
    assert not [part for part in ("<script", "http", "url(", "@import", "href", "src=") if part in text]
    page = Page(text)
    label = "local Lipschitz constant (l-infinity to l-infinity)"
    assert page.seen["h1"][0].startswith(f"{NAME}: {label}")
    assert page.seen["title"] == page.seen["h1"] * 2
    assert page.seen["desc"] == page.seen["figcaption"]
    assert {("role", "img"), ("lang", "en"), ("aria-labelledby", "title description")} <= set(page.attributes)
    assert {label, "radius (l-infinity)", *map(str, found.balls.radii)} <= set(page.seen["text"])
    cells = set(page.seen["td"])
    if len(found.bounds) == 1:
        for item in found.bounds[0]:
            assert {upper_text(item.upper), lower_text(item.lower), "crown"} <= cells
    else:
        for spread in found.spread():
            assert {*map(upper_text, spread.upper), *map(lower_text, spread.lower), str(spread.not_proved)} <= cells
    assert ("not proved" in cells) == (found.verdict != "verified")


@pytest.mark.parametrize("found", CURVES)
def test_pictures_are_png(found: LipschitzCurve) -> None:
    pytest.importorskip("matplotlib")
    data = drawn(chart(found, NAME), Path("c.PNG"))
    assert data.startswith(b"\x89PNG\r\n\x1a\n")
    assert data.endswith(b"IEND\xaeB`\x82")


def test_plots_are_written_beside_what_is_kept(provenn_command: Command) -> None:
    asked = ("lipschitz", "kinks.onnx", "--at", "x.npy", "--eps", "1/10,2", *HOW, "--json")
    ran = provenn_command(*asked, "--out", "kept", "--plot", "kept/curve.html")
    assert (ran.code, ran.json["plot"]) == (0, "kept/curve.html")
    cells = set(Page(Path("kept/curve.html").read_text()).seen["td"])
    for entry in ran.json["bounds"]:
        assert {entry["eps"], at_most(entry["upper"]), at_least(entry["lower"]), "crown"} <= cells
    pytest.importorskip("matplotlib")
    assert provenn_command(*asked, "--plot", "curve.png").json["plot"] == "curve.png"
    assert Path("curve.png").read_bytes().startswith(b"\x89PNG")


def test_a_png_needs_matplotlib_and_a_page_does_not(provenn_command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    asked = ("lipschitz", "kinks.onnx", "--at", "x.npy", "--eps", "1,2", *HOW, "--json", "--plot")
    refused = provenn_command(*asked, "curve.png")
    assert refused.code == 2
    assert "pip install 'provenn[demo]', or give FILE.html" in refused.json["error"]["message"]
    assert provenn_command(*asked, "curve.html").code == 0


def test_a_folder_that_cannot_be_written_loses_no_curve(provenn_command: Command) -> None:
    ran = provenn_command("lipschitz", "kinks.onnx", "--at", "x.npy", "--eps", "1,2", *HOW, "--out", "x.npy", "--json")
    assert ran.code == 1
    assert ran.json["verdict"] == "verified"
    assert (ran.json["certificate"], ran.json["curve_file"]) == (None, None)
    assert ran.json["error"]["type"] == "CannotWrite"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("--at wide.npy --eps 1,2", "wide.npy: has shape [3, 2], but the network takes [1]"),
        ("--at empty.npy --eps 1,2", "empty.npy: has shape [0, 1], but the network takes [1]: give [1], or [n, ...]"),
        ("--at xs.npy --eps 0", "'0' is not a radius: give radii above 0"),
        ("--at x.npy --eps 0,1", "--eps: '0' is not a radius: give radii above 0"),
        ("--at x.npy --eps 1,-1", "--eps: '-1' is not a radius: give radii above 0 in increasing order"),
        ("--at x.npy --eps 1,wide", "--eps: 'wide' is not a number: give radii"),
        ("--at x.npy --eps 1,2,", "--eps: '' is not a number: give radii"),
        ("--at x.npy --eps 2,1", "--eps: '1' comes after '2': give radii above 0 in increasing order, each once"),
        ("--at x.npy --eps 1,0.5,1/2", "--eps: '0.5' comes after '1'"),
        ("--at x.npy --eps 1/2,0.5", "--eps: '0.5' comes after '1/2'"),
        ("--eps 1,2", "--at: is missing"),
        ("--plot c.html", "--plot: draws constants against the radius of regions: give --at with --eps"),
        ("--at x.npy --eps 1 --plot c.html", "--plot: there is one point and one radius: give several radii"),
        ("--at x.npy --eps 1,2 --plot c.pdf", "--plot: 'c.pdf' does not say what to draw: give FILE.png, FILE.svg or"),
        ("--at x.npy --eps 1,2 --plot c", "--plot: 'c' does not say what to draw"),
        ("--at x.npy --eps 1,2 --plot none/c.html", "--plot: cannot write to none/: No such file or directory; give"),
        ("--at x.npy --eps 1,2 --plot folder.png", "--plot: folder.png is a folder: give a file"),
        ("--at x.npy --eps 1,2 --clip 8 9", "point 0: empty region"),
        ("--at x.npy --eps 1,2 --method magic", "no such method"),
        ("--at x.npy --eps 1,2 --rows 7", "row 7 is not an output"),
    ],
)
def test_bad_input(provenn_command: Command, line: str, message: str) -> None:
    ran = provenn_command("lipschitz", "kinks.onnx", *line.split(), "--json")
    assert ran.code == 2, ran
    assert message in ran.json["error"]["message"]
    assert len(ran.err.splitlines()) == 1

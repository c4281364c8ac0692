"""What a notebook is given: well-formed, escaped, self-contained, and what it is about."""

from __future__ import annotations

import base64
import io
import re
import struct
import zlib
from html.parser import HTMLParser
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from provenn.api.jacobian import JacobianResult
from provenn.api.monotonicity import Dependence, MonotonicityResult
from provenn.api.notebook import Bars, Card, Intervals, Picture, Table, png
from provenn.api.results import Asked, Counterexample, ItemResult, LipschitzResult, Origin, image
from provenn.solvers.ranges import Ranges

VOID = {"img", "rect"}
EVIL = "<script>alert('1')</script>&\"\x00"


class Page(HTMLParser):
    """Tags that are open, all that were, and the text between."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data

    def named(self, name: str) -> list[dict[str, str | None]]:
        """Attributes of all tags of this name."""
        return [attrs for tag, attrs in self.tags if tag == name]


def page(result: Any) -> Page:
    """What is shown; it loads nothing, runs nothing, and has no colours of a page's own."""
    html = result._repr_html_()
    found = Page(html)
    assert {tag for tag, _ in found.tags}.isdisjoint({"script", "link", "iframe", "object", "style"})
    for tag, attrs in found.tags:
        assert not any(name.startswith("on") for name in attrs)
        assert "href" not in attrs
        assert attrs.get("src", "data:image/png;base64,").startswith("data:image/png;base64,")
        style = attrs.get("style") or ""
        assert "url(" not in style
        assert tag == "span" or not re.search(r"(?<!-)\bcolor:(?!inherit)", style)
    return found


def pixels(data: bytes) -> np.ndarray:
    """A PNG of this kind read back."""
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    chunks, stream = {}, io.BytesIO(data[8:])
    while head := stream.read(8):
        size, name = struct.unpack(">I4s", head)
        body = stream.read(size)
        assert struct.unpack(">I", stream.read(4))[0] == zlib.crc32(name + body)
        chunks[name] = body
    width, height, depth, kind = struct.unpack(">IIBB", chunks[b"IHDR"][:10])
    assert depth == 8
    lines = np.frombuffer(zlib.decompress(chunks[b"IDAT"]), np.uint8).reshape(height, -1)
    assert not lines[:, 0].any()
    return lines[:, 1:].reshape(height, width, {0: 1, 2: 3, 6: 4}[kind])


@given(st.integers(1, 9), st.integers(1, 9), st.sampled_from([1, 3, 4]), st.randoms(use_true_random=False))
@settings(max_examples=30)
def test_pictures_are_read_back(height: int, width: int, channels: int, source: Any) -> None:
    values = np.array([source.randrange(256) for _ in range(height * width * channels)], np.uint8)
    assert (pixels(png(values.reshape(height, width, channels))) == values.reshape(height, width, channels)).all()


def falsified(shape: tuple[int, ...], low: float = 0.0, high: float = 1.0) -> ItemResult:
    given = np.linspace(low, high, int(np.prod(shape))).reshape(shape)
    found = (given + 0.1 * (high - low) * np.sign(np.sin(np.arange(given.size))).reshape(shape)).clip(low, high)
    shown = Counterexample(found.ravel().tolist(), [0.5, 2.0, -1.0])
    asked = Asked(given, 2, "8/255", "inf")
    return ItemResult("falsified", "attack", None, 0.25, "replayed", counterexample=shown, asked=asked)


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 6, 5), (6, 5, 3), (7, 7), (1, 1, 8, 8), (64,), (3, 3)])
def test_a_counterexample_beside_the_original(shape: tuple[int, ...]) -> None:
    found = page(falsified(shape))
    sources = [img["src"] or "" for img in found.named("img")]
    assert len(sources) == (3 if shape in [(1, 8, 8), (3, 6, 5), (6, 5, 3), (7, 7)] else 0)
    assert ("inputs that change most" in found.text) == (not sources)
    assert all(img["alt"] for img in found.named("img"))
    assert "8/255 in norm inf" in found.text
    assert "2 (label)" not in found.text
    assert "-1 (label)" in found.text
    drawn = [pixels(base64.b64decode(source.partition(",")[2])) for source in sources]
    for each in drawn:
        assert each.shape[:2] == {(1, 8, 8): (8, 8), (7, 7): (7, 7)}.get(shape, (6, 5))
    if shape == (1, 8, 8):
        original = np.linspace(0, 255, 64).round().astype(np.uint8).reshape(8, 8, 1)
        assert (drawn[0] == original).all()
        changed = drawn[1].astype(int) - original
        assert ((drawn[2][..., 3:] > 0) == (changed != 0)).mean() > 0.9
        assert set(map(tuple, drawn[2][changed[..., 0] > 0][:, :3])) == {(224, 102, 20)}


@pytest.mark.parametrize(("low", "high", "black"), [(0.0, 1.0, 0), (0.0, 255.0, 0), (-2.0, 2.0, 0), (0.5, 1.0, 128)])
def test_what_is_black(low: float, high: float, black: int) -> None:
    source = page(falsified((8, 8), low, high)).named("img")[0]["src"] or ""
    drawn = pixels(base64.b64decode(source.partition(",")[2]))
    assert drawn.min() in range(black - 1, black + 2)
    assert drawn.max() == 255


def test_what_is_no_image() -> None:
    assert image(np.full((8, 8), np.nan)) is None
    assert image(np.zeros((2, 8, 8))) is None
    assert image(np.zeros((8, 600))) is None


def test_every_text_is_escaped() -> None:
    origin = Origin(f"http://{EVIL}", EVIL, EVIL, EVIL, converted=True)
    shape = (1, 8, 8)
    asked = Asked(np.zeros(shape), 0, EVIL, EVIL)
    item = ItemResult(EVIL, EVIL, 1.0, 0.1, EVIL, EVIL, None, {"manifest.json": b"{}"}, warnings=(EVIL,), asked=asked)
    constant = LipschitzResult(EVIL, EVIL, EVIL, EVIL, EVIL, 0.1, 1.0, reason=EVIL, origin=origin)
    trends = MonotonicityResult((Dependence(0, 0),), EVIL, 0.1, reason=EVIL, origin=origin)
    ends = np.zeros((1, 2))
    derivatives = JacobianResult(EVIL, EVIL, 0.1, Ranges(ends, ends), ends, ends, reason=EVIL, origin=origin)
    for result in (item, constant, trends, derivatives):
        assert "<script" not in result._repr_html_()
        assert EVIL.replace("\x00", "�") in page(result).text.replace("\x00", "�")
    figures = [
        Picture(EVIL, np.zeros((4, 4, 1)), 0.0, 1.0),
        Bars(EVIL, [1.0], 0),
        Intervals(EVIL, [(0.0, np.inf)], [EVIL]),
        Table(EVIL, [EVIL], [[EVIL]]),
    ]
    assert "<script" not in Card(EVIL, EVIL, [(EVIL, EVIL)], figures, [EVIL]).html()
    Page(Card(EVIL, EVIL, [(EVIL, EVIL)], figures, [EVIL]).html())


def test_what_a_result_says() -> None:
    digest = "ab" * 32
    origin = Origin("http://127.0.0.1:8000", "j0b", "cd" * 32, digest, converted=True)
    sure = ItemResult("verified", "crown", 0.123456789, 0.5, "checked", certificate={"a": b""}, origin=origin)
    text = page(sure).text
    for said in (
        "verified",
        "0.123457",
        "checked",
        f"sha256 {digest}",
        "canonical file",
        "j0b at http://127.0.0.1:8000",
    ):
        assert said in text
    local = ItemResult("verified", "crown", 1.0, 0.5, "checked", certificate={"a": b""})
    assert re.search(r"sha256 [0-9a-f]{64}", page(local).text)
    assert page(ItemResult("unknown", "crown", None, 0.5)).named("img") == []


def test_lipschitz_constants_between_what_is_shown_and_what_is_proved() -> None:
    whole = LipschitzResult("verified", "lipsdp-neuron", "2", "2", "all", 1.0, 2.0, 1.5, assurance="checked")
    assert "1.5 to 2" in page(whole).text
    each = LipschitzResult("verified", "bab", "2", "each", "pairs", 1.0, [float(i) for i in range(45)], [0.0] * 45)
    found = page(each)
    assert "20 of 45" in found.text
    assert len(found.named("rect")) == 20
    assert page(LipschitzResult("timeout", "auto", "2", "2", "all", 1.0, reason="late")).named("svg") == []


def test_trends_and_derivatives() -> None:
    found = MonotonicityResult(tuple(Dependence(0, i, 0.0) for i in range(30)), "bab", 1.0, "checked")
    text = page(found).text
    assert "20 of 30" in text
    assert "increasing" in text
    assert found.verdict == "verified"
    ends = np.array([[-1.0, 2.0]])
    drawn = page(JacobianResult("verified", "crown", 1.0, Ranges(ends, ends), ends, ends + 1))
    assert "-1 to 0" in drawn.text
    assert "0, 1" in drawn.text


def test_a_model_s_own_answers_are_shown() -> None:
    """Of the facade: the input travels with the result."""
    import provenn

    x = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["n", 1, 4, 4])
    y = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["n", 2])
    weight = np.stack([np.ones(16), -np.ones(16)], 1).astype(np.float32)
    nodes = [onnx.helper.make_node("Flatten", ["x"], ["f"]), onnx.helper.make_node("MatMul", ["f", "w"], ["y"])]
    graph = onnx.helper.make_graph(nodes, "g", [x], [y], [onnx.numpy_helper.from_array(weight, "w")])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=9)
    found = provenn.verify(model.SerializeToString(), np.full((1, 4, 4), 0.25), label=0, eps=0.5)
    assert found.verdict == "falsified"
    assert len(page(found).named("img")) == 3

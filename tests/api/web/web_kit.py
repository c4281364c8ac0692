"""A browser without a screen, what it must not do, and a network that takes pictures."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from playwright.sync_api import Browser, Download, Page, Request, expect, sync_playwright

NAMES = ("chromium", "chromium-browser", "google-chrome")
QUIET = [
    "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip
PATIENCE = 20_000.0
"""Milliseconds for anything to appear: the machine may be busy with other tests."""
expect.set_options(timeout=PATIENCE)
SHIFTS = """
window.moved = [];
new PerformanceObserver((list) => {
  for (const entry of list.getEntries()) window.moved.push([entry.value, entry.hadRecentInput]);
}).observe({ type: "layout-shift", buffered: true });
"""


def executable() -> str:
    """Of Chromium; skips where there is none."""
    found = next(filter(None, map(shutil.which, NAMES)), None)
    if found is None:
        pytest.skip(f"no browser: none of {', '.join(NAMES)} is installed (apt-get install chromium)")
    return found


@contextmanager
def browsing() -> Iterator[Browser]:
    """A browser, and nothing of it afterwards."""
    path = executable()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=QUIET)
        try:
            yield browser
        finally:
            browser.close()


@dataclass
class Tab:
    """A page, and what it has done: requests of other places, words on the console, errors of its code."""

    page: Page
    origin: str
    foreign: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.page.on("request", self._asked)
        self.page.on("console", lambda message: self.complaints.append(f"{message.type}: {message.text}"))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))

    def _asked(self, request: Request) -> None:
        if not request.url.startswith((f"{self.origin}/", "blob:", "data:")):
            self.foreign.append(request.url)

    def require_clean(self) -> None:
        """It asked nobody else, and complained of nothing."""
        assert (self.foreign, self.complaints) == ([], [])

    def fits(self) -> bool:
        """Whether nothing is wider than the window."""
        return bool(self.page.evaluate("document.documentElement.scrollWidth <= window.innerWidth"))

    def moved(self) -> float:
        """How much has moved by itself since this was asked last."""
        shifts = self.page.evaluate("window.moved.splice(0)")
        return float(sum(value for value, by_hand in shifts if not by_hand))


@contextmanager
def tab(browser: Browser, origin: str, key: str | None, width: int = 1280, scheme: str = "light") -> Iterator[Tab]:
    """A fresh page; key: the API key it already has."""
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)  # type: ignore[arg-type]
    context.set_default_timeout(PATIENCE)
    page = context.new_page()
    page.add_init_script(SHIFTS)
    if key is not None:
        page.add_init_script(f"if (!sessionStorage.length) sessionStorage.setItem('provenn.key', '{key}')")
    try:
        yield Tab(page, origin)
    finally:
        context.close()


def uploaded(page: Page, data: bytes, name: str = "network.onnx") -> None:
    """The network, through the file field, and its description."""
    page.locator("#network-file").set_input_files(
        {"name": name, "mimeType": "application/octet-stream", "buffer": data}
    )
    expect(page.locator("#upload-words")).to_have_text(f"{name} is here.")
    expect(page.locator(".model-name")).to_have_text(name)


def written(page: Page, values: list[float]) -> None:
    """The input, as text."""
    page.get_by_text("Numbers", exact=True).first.click()
    page.get_by_label(f"{len(values)} numbers").fill(", ".join(map(str, values)))


def asked(page: Page, label: int, epsilons: str) -> None:
    """Robustness, and the page of the job."""
    page.get_by_label("Class that must win").select_option(str(label))
    page.get_by_label("Radius ε").fill(epsilons)
    page.get_by_role("button", name="Prove it").click()
    expect(page.locator(".job-title").first).to_be_visible()


def downloaded(page: Page, button: str, folder: Path) -> Path:
    """The file behind a button."""
    with page.expect_download() as waiting:
        page.get_by_role("button", name=button).click()
    found: Download = waiting.value
    path = folder / found.suggested_filename
    found.save_as(path)
    return path


def keep(page: Page, name: str, folder: Path) -> Path:
    """A picture of the whole page, in $BROWSER_ARTIFACTS or the folder."""
    path = Path(os.environ.get("BROWSER_ARTIFACTS", folder)) / f"{name}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=path, full_page=True)
    return path


def picture_network(classes: int = 4) -> bytes:
    """A random network of 1 x 8 x 8 inputs."""
    generator = np.random.default_rng(3)
    shapes = {"w": (16, 64), "b": (16,), "v": (classes, 16), "c": (classes,)}
    constants = [
        numpy_helper.from_array((generator.standard_normal(shape) / 4).astype(np.float32), name)
        for name, shape in shapes.items()
    ]
    nodes = [
        helper.make_node("Flatten", ["x"], ["flat"], "flatten"),
        helper.make_node("Gemm", ["flat", "w", "b"], ["z"], "first", transB=1),
        helper.make_node("Relu", ["z"], ["a"], "relu"),
        helper.make_node("Gemm", ["a", "v", "c"], ["y"], "last", transB=1),
    ]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 1, 8, 8])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", classes])
    graph = helper.make_graph(nodes, "pictures", [x], [y], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())

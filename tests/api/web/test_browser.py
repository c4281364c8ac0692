"""The web page in a real browser: from an upload to a downloaded certificate, and what must never happen on the way."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from access_kit import SUBMIT, member, new_key
from playwright.sync_api import Browser, FilePayload, FloatRect, Page, expect
from service_kit import SMALL, Server, mlp, serving
from web_kit import Tab, asked, browsing, downloaded, keep, picture_network, tab, uploaded, written

import provenn

pytestmark = pytest.mark.xdist_group("browser")
SQUARE: FloatRect = {"x": 400, "y": 80, "width": 16, "height": 16}
INPUT = [0.1, 0.2, 0.3, 0.4]
BRANCHING = mlp([16, 64, 64, 64, 4], seed=2)
"""Around 0.5, within 0.1, branch and bound has to do with class 3 for longer than any test."""
NAMELESS = """
() => [...document.querySelectorAll("input, select, textarea, button, [tabindex='0']")]
  .filter((each) => each.checkVisibility() && each.type !== "hidden")
  .filter((each) => !(each.labels?.length || each.getAttribute("aria-label") || each.textContent.trim()))
  .map((each) => each.outerHTML)
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("web"), authentication="keys", workers=2) as running:
        yield running


@pytest.fixture(scope="module")
def key(site: Server) -> str:
    return new_key(site.service.keys, "default", SUBMIT)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with browsing() as found:
        yield found


@pytest.fixture
def window(browser: Browser, site: Server, key: str) -> Iterator[Tab]:
    """A page with a key, which must have kept to itself at the end."""
    with tab(browser, site.url, key) as found:
        found.page.goto(site.url)
        yield found
        found.require_clean()


def over(page: Page, verdict: str) -> None:
    expect(page.locator(".verdict .badge").first).to_contain_text(verdict)
    expect(page.locator(".results .card").first).to_be_visible()


def test_from_upload_to_a_certificate_on_disk(window: Tab, tmp_path: Path) -> None:
    page = window.page
    paint = page.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime")
    print(f"first contentful paint after {paint:.0f} ms")
    uploaded(page, SMALL)
    for fact in ("4", "3", "67", "gemm0", "Linear"):
        expect(page.locator("#model")).to_contain_text(fact)
    written(page, INPUT)
    asked(page, 1, "0.0001")
    over(page, "verified")
    expect(page.get_by_role("region", name="Certificate")).to_contain_text("valid, verified in this browser")
    page.get_by_role("button", name="Check it again").click()
    expect(page.locator(".recheck")).to_contain_text("accepted")
    expect(page.locator(".recheck")).to_contain_text(
        "class 1 wins for every input within l-infinity distance 0.0001 of"
    )
    certificate = downloaded(page, "Download it", tmp_path)
    model = downloaded(page, "and its network", tmp_path)
    assert provenn.check(certificate, model).assurance == "checked"
    assert keep(page, "certificate", tmp_path).stat().st_size > 10_000


def test_a_bad_file_is_refused_in_words(window: Tab) -> None:
    page = window.page
    file = {"name": "notes.txt", "mimeType": "text/plain", "buffer": b"these are notes, and no network"}
    page.locator("#network-file").set_input_files(file)
    expect(page.locator("#upload-words")).to_have_class("words bad")
    words = page.locator("#upload-words").inner_text()
    assert "Uploading" not in words
    assert len(words) > 20
    page.get_by_role("button", name="Prove it").click()
    expect(page.locator("#question .words.bad")).to_have_text("Choose a network first.")
    window.complaints = [each for each in window.complaints if "422" not in each]  # the browser's own line about it


def test_nothing_moves_while_a_job_runs(window: Tab, site: Server, tmp_path: Path) -> None:
    page = window.page
    uploaded(page, BRANCHING)
    written(page, [0.5] * 16)
    asked(page, 3, "0.1")
    expect(page.locator(".log")).to_contain_text("running")
    page.evaluate("window.moved.splice(0)")
    for name in (
        "Best bound; best bound: ",
        "Branch and bound: subdomains visited; visited: ",
        "Output 3 lies between",
    ):
        expect(page.get_by_role("img", name=name)).to_be_visible()
    expect(page.locator(".log")).to_contain_text("parts")
    page.get_by_role("button", name="Cancel").click()
    expect(page.locator(".verdict")).to_contain_text("cancelled")
    expect(page.locator(".log")).to_contain_text("cancelled on request")
    assert window.moved() == 0
    keep(page, "live", tmp_path)


def test_a_counterexample_beside_the_input(window: Tab, tmp_path: Path) -> None:
    page = window.page
    uploaded(page, picture_network(), "pictures.onnx")
    page.get_by_text("Draw", exact=True).click()
    pad = page.get_by_role("application")
    pad.focus()
    for stroke in ("Space", "ArrowDown", "Space", "ArrowRight", "Space"):
        pad.press(stroke)
    expect(page.get_by_role("img", name="Chosen input: 8 by 8 pixels")).to_be_visible()
    asked(page, 0, "0.8")
    over(page, "falsified")
    for name in ("Your input", "Counterexample", "Difference"):
        expect(page.get_by_role("img", name=f"{name}: 8 by 8 pixels")).to_be_visible()
    assert window.fits()
    keep(page, "counterexample", tmp_path)


def test_inputs_from_files(window: Tab) -> None:
    page = window.page
    uploaded(page, picture_network(), "pictures.onnx")
    page.get_by_text(".npy", exact=True).click()
    array = np.asfortranarray(np.full((3, 1, 8, 8), 0.25) * np.arange(3).reshape(3, 1, 1, 1))
    page.get_by_label("Array").set_input_files(files("array.npy", saved(array)))
    page.get_by_label("Which of them").fill("2")
    expect(page.get_by_role("img", name="Chosen input: 8 by 8 pixels from 0.5 to 0.5")).to_be_visible()
    expect(page.locator("#input .words")).to_have_text("3 × 1 × 8 × 8, number 2 of 3")
    page.get_by_label("Array").set_input_files(files("wrong.npy", saved(np.zeros(5))))
    expect(page.locator("#input .words.bad")).to_contain_text("the network takes 1 × 8 × 8")
    page.get_by_label("Array").set_input_files(files("text.npy", b"no array at all"))
    expect(page.locator("#input .words.bad")).to_have_text("this is not a .npy file")
    page.get_by_text("Image", exact=True).click()
    page.get_by_label("Picture").set_input_files(files("white.png", page.screenshot(clip=SQUARE)))
    expect(page.locator("#input .words")).to_have_text("scaled from 16 × 16 to 8 × 8")
    page.get_by_label("Values", exact=True).select_option("255")
    expect(page.get_by_role("img", name="Chosen input: 8 by 8 pixels")).to_have_accessible_name(re.compile("to 2.."))
    page.get_by_label("Picture").set_input_files(files("text.png", b"no picture"))
    expect(page.locator("#input .words.bad")).to_contain_text("no picture that this browser reads")


def files(name: str, data: bytes) -> FilePayload:
    return {"name": name, "mimeType": "application/octet-stream", "buffer": data}


def saved(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def test_two_networks_side_by_side_at_several_radii(window: Tab) -> None:
    page = window.page
    uploaded(page, picture_network(), "pictures.onnx")
    uploaded(page, mlp([64, 24, 4], seed=6), "flat.onnx")
    written(page, [0.5] * 64)
    page.get_by_label("Compare with").select_option(label="pictures.onnx (1 × 8 × 8)")
    page.get_by_label("Method").select_option("ibp")
    asked(page, 0, "0.001, 1/255")
    both = page.get_by_role("region", name="Both answers")
    for words in ("flat.onnx", "pictures.onnx", "certified at ε 0.003922"):
        expect(both).to_contain_text(words)
    expect(page.get_by_text("Certified radius", exact=True)).to_have_count(2)
    page.goto(f"{window.origin}/#/jobs")
    expect(page.get_by_role("region", name="Recent jobs")).to_contain_text("pictures.onnx")


def test_a_batch_has_its_curve_and_its_files(window: Tab) -> None:
    page = window.page
    uploaded(page, SMALL)
    page.get_by_text("Many inputs", exact=True).click()
    page.get_by_label("Radii").fill("1/10000, 5")
    page.get_by_label("Seconds at most").fill("20")
    page.get_by_role("button", name="Prove it").click()
    expect(page.locator("#question .words.bad")).to_have_text("Choose a data set first.")
    page.get_by_label("Data set").set_input_files(files("text.npz", b"no data"))
    page.get_by_role("button", name="Prove it").click()
    expect(page.locator("#question .words.bad")).to_contain_text("text.npz: is not a complete .npz file")
    window.complaints = [each for each in window.complaints if "422" not in each]  # the browser's own line about it
    data = io.BytesIO()
    np.savez(data, x=np.array([INPUT] * 3, np.float32), y=[1, 1, 0], names=["a.png", "b.png", "c.png"])
    page.get_by_label("Data set").set_input_files(files("data.npz", data.getvalue()))
    page.get_by_role("button", name="Prove it").click()
    over(page, "falsified")
    expect(page.get_by_role("img", name="Certified radius of the batch; certified")).to_be_visible()
    expect(page.get_by_role("region", name="Accuracies by radius")).to_contain_text("66.7 %")
    expect(page.get_by_role("region", name="Accuracies by class")).to_be_visible()
    with page.expect_download() as waiting:
        page.get_by_role("region", name="Files").last.get_by_role("button").last.click()
    assert waiting.value.suggested_filename.endswith("rows.jsonl")


def test_what_was_measured_and_the_largest_radius(window: Tab, site: Server, tmp_path: Path) -> None:
    owned = member(site, "default", SUBMIT)

    def page_of(**question: Any) -> tuple[Page, dict[str, Any]]:
        job = owned.submit({"model": owned.model(SMALL), "budget": {"seconds": 10}, **question})
        window.page.goto(f"{site.url}/#/jobs/{job}")
        expect(window.page.locator(".results .card").first).to_be_visible()
        return window.page, owned.ended(job)["result"]["items"][0]

    with owned.client:
        page, item = page_of(tightness={"inputs": [INPUT]})
        layer = item["tightness"]["layers"][0]["name"]
        expect(page.get_by_role("region", name="Tightness by layer")).to_contain_text(layer)
        page, item = page_of(patterns={"dataset": owned.dataset([INPUT, INPUT], [1, 1])})
        expect(page.get_by_role("region", name="Patterns by class")).to_contain_text("100 %")
        (pattern,) = item["patterns"]["patterns"]
        page, item = page_of(radius={"input": INPUT, "pattern": pattern, "largest": 0.01})
        panel = page.get_by_role("region", name="Largest radius")
        expect(panel).to_contain_text("Proved up to 0.01, the largest radius that was asked about")
        expect(panel).to_contain_text("one was found that follows the pattern")
        assert item["radius"]["verified"] == 0.01
    keep(page, "radius", tmp_path)


def test_a_specification_document_is_a_property(window: Tab) -> None:
    page = window.page
    uploaded(page, SMALL)
    page.get_by_text("Property", exact=True).click()
    text = f'format = "provenn-specification/1"\nkind = "top-k"\ninput = {INPUT}\nepsilon = 0.0001\nk = 2\nnorm = "2"\n'
    page.get_by_label("VNN-LIB, or a specification document").fill(text)
    page.get_by_role("button", name="Prove it").click()
    over(page, "verified")


def test_a_narrow_and_dark_window(browser: Browser, site: Server, key: str, tmp_path: Path) -> None:
    with tab(browser, site.url, key, width=360, scheme="dark") as small:
        page = small.page
        page.goto(site.url)
        uploaded(page, SMALL)
        written(page, INPUT)
        assert small.fits()
        assert page.evaluate(NAMELESS) == []
        page.get_by_text("Lipschitz constant", exact=True).click()
        page.get_by_label("Seconds at most").fill("2")
        page.get_by_role("button", name="Prove it").click()
        over(page, "verified")
        expect(page.get_by_role("list", name="Between what was found and what was proved")).to_contain_text("at least")
        assert small.fits()
        assert page.evaluate(NAMELESS) == []
        keep(page, "narrow", tmp_path)
        page.goto(f"{site.url}/#/jobs")
        expect(page.get_by_role("region", name="Recent jobs")).to_be_visible()
        assert small.fits()
        small.require_clean()


def test_a_key_is_asked_for_and_kept_in_the_tab_alone(browser: Browser, site: Server, key: str) -> None:
    with tab(browser, site.url, None) as fresh:
        page = fresh.page
        page.goto(site.url)
        dialog = page.get_by_role("dialog", name="API key")
        expect(dialog).to_be_visible()
        fresh.require_clean()
        page.get_by_label("Key", exact=True).fill("pvn_wrong")
        page.get_by_role("button", name="Use this key").click()
        expect(dialog).to_contain_text("this needs an API key")
        page.get_by_label("Key", exact=True).fill(key)
        page.keyboard.press("Enter")
        expect(dialog).not_to_be_visible()
        expect(page.locator("#models")).to_contain_text("choose one")
        assert key not in page.evaluate("JSON.stringify([{...localStorage}, document.cookie, location.href])")

"""The files of the page: what is served where, under which policy, and that nothing in them needs another one."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import httpx
import pytest
from service_kit import Server

from provenn.api.app import create_app
from provenn.api.routes.page import POLICY
from provenn.api.settings import Settings
from provenn.api.web import FOLDER, SERVICE, files

ROOT = Path(__file__).parents[3]
SOURCES = sorted(path for path in FOLDER.rglob("*") if path.suffix in (".js", ".css", ".html", ".svg"))
IMPORT = re.compile(r'^(?:import|export) .*? from "([^"]+)";$', re.MULTILINE)


def name(path: Path) -> str:
    return path.relative_to(FOLDER).as_posix()


def test_the_page_is_there_for_everybody(keyed: Server) -> None:
    page = httpx.get(f"{keyed.url}/")
    assert (page.status_code, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert page.headers["content-security-policy"] == POLICY
    assert (page.headers["cache-control"], page.headers["referrer-policy"]) == ("no-cache", "no-referrer")
    assert httpx.get(keyed.url + SERVICE).json()["authentication"] == "keys"
    assert httpx.get(f"{keyed.url}/web/app.js").headers["content-type"] == "text/javascript; charset=utf-8"
    for path in ("/web/", "/web/none.js", "/web/../settings.py", "/web/%2e%2e/settings.py", "/web/__init__.py"):
        assert httpx.get(keyed.url + path).status_code == 401, path


@pytest.mark.parametrize("path", files())
def test_a_file_that_is_known_is_not_sent_again(server: Server, path: str) -> None:
    first = server.client.get(path)
    assert first.status_code == 200
    assert first.content == files()[path].data
    again = server.client.get(path, headers={"If-None-Match": f'W/"other", {first.headers["etag"]}'})
    assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", first.headers["etag"])
    assert server.client.get(path, headers={"If-None-Match": '"other"'}).status_code == 200
    assert server.client.head(path).headers["content-length"] == str(len(first.content))


def test_the_page_can_be_left_out() -> None:
    served = {getattr(route, "path", "") for route in create_app(Settings(web_page=False)).routes}
    assert not served & {"/", SERVICE, *files()}


def test_the_policy_lets_nothing_else_in() -> None:
    assert POLICY.startswith("default-src 'none';")
    assert "unsafe" not in POLICY
    assert not re.search(r"https?:|\*", POLICY)


@pytest.mark.parametrize("path", SOURCES, ids=name)
def test_the_files_need_nothing_from_elsewhere(path: Path) -> None:
    text = path.read_text()
    assert len(text.splitlines()) <= 450
    addresses = set(re.findall(r"https?://[^\s\"'`<>)]+", text)) - {"http://www.w3.org/2000/svg"}
    assert addresses == set()
    if path.suffix == ".html":
        assert not re.search(r"<style|\sstyle=|\son[a-z]+=|<script(?![^>]*\ssrc=)", text)
        for target in re.findall(r'(?:src|href)="(/[^"]*)"', text):
            assert target in files(), target
    if path.suffix == ".js":
        assert not re.search(r"\b(innerHTML|outerHTML|insertAdjacentHTML|eval|document\.write|Function)\b", text)
        for target in IMPORT.findall(text):
            assert (path.parent / target).resolve() in SOURCES, target


def test_every_module_is_used() -> None:
    used = {(path.parent / target).resolve() for path in SOURCES for target in IMPORT.findall(path.read_text())}
    modules = {path for path in SOURCES if path.suffix == ".js"}
    assert {name(path) for path in modules - used} == {"app.js"}


def test_an_installed_package_has_every_file() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]
    packed = {path for pattern in settings["provenn.api.web"] for path in FOLDER.glob(pattern)}
    assert packed == set(SOURCES)

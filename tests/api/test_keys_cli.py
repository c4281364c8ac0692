"""`provenn keys`: keys of a service's database, made while it runs or before it ever has."""

from __future__ import annotations

import re
import time
from datetime import datetime
from pathlib import Path

import httpx
import pytest
from access_kit import bearer
from cli_kit import Command
from service_kit import Server
from typer.testing import CliRunner

from provenn.api.cli.app import app


@pytest.fixture
def provenn(capsys: pytest.CaptureFixture[str]) -> Command:
    return Command(capsys)


@pytest.fixture(autouse=True)
def own_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PROVENN_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.delenv("PROVENN_DATABASE", raising=False)


@pytest.mark.parametrize("command", ["create", "list", "revoke", "projects", "audit"])
def test_help_teaches_by_examples(command: str) -> None:
    found = CliRunner().invoke(app, ["keys", command, "--help"], env={"COLUMNS": "200"})
    assert found.exit_code == 0
    assert f"provenn keys {command}" in found.stdout
    assert "--json" in found.stdout


def test_a_key_from_nothing_to_its_end(provenn: Command) -> None:
    asked = ["--project", "vision", "--name", "ci", "--scope", "submit", "--expires", "30d", "--max-queued", "5"]
    made = provenn("keys", "create", *asked, "--max-bytes", "1000", "--max-seconds", "3.5", "--json").json
    assert re.fullmatch(rf"pvn_{made['id']}_[0-9A-Za-z]{{43}}", made["key"])
    days = (datetime.fromisoformat(made["expires_at"]).timestamp() - time.time()) / 86_400
    assert 29.9 < days < 30.1
    (listed,) = provenn("keys", "list", "--json").json["keys"]
    assert listed == {name: value for name, value in made.items() if name != "key"}
    limits = [listed[name] for name in ("max_queued", "max_bytes", "max_seconds")]
    assert (listed["project"], listed["scopes"], limits) == ("vision", ["submit"], [5, 1000, 3.5])
    assert [p["name"] for p in provenn("keys", "projects", "--json").json["projects"]] == ["default", "vision"]
    ended = provenn("keys", "revoke", made["id"], "--json").json
    assert ended["revoked_at"] is not None
    actions = [row["action"] for row in provenn("keys", "audit", "--project", "vision", "--json").json["entries"]]
    assert actions == ["provenn keys revoke", "provenn keys create"]


def test_what_people_see(provenn: Command) -> None:
    assert "no keys" in provenn("keys", "list").out
    made = provenn("keys", "create", "--name", "first")
    key = made.out.split()[0]
    assert key.startswith("pvn_")
    assert "read, expires 2" in made.out
    assert "never" in provenn("keys", "create", "--name", "second", "--scope", "admin", "--expires", "never").out
    shown = provenn("keys", "list").out
    assert "first" in shown
    assert key not in shown
    assert "is revoked" in provenn("keys", "revoke", key).out
    assert key.split("_")[1] in provenn("keys", "audit").out
    assert "default" in provenn("keys", "projects").out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["create"], "--name"),
        (["create", "--name", "x", "--scope", "root"], "read, submit, admin"),
        (["create", "--name", "x", "--expires", "soon"], "90d"),
        (["create", "--name", "x", "--expires", "0d"], "90d"),
        (["create", "--name", "x", "--max-queued", "-1"], "max-queued"),
        (["revoke", "0000000000000000"], "provenn keys list"),
        (["list", "--project", "nowhere"], "provenn keys projects"),
        (["audit", "--limit", "0"], "limit"),
    ],
)
def test_bad_input(provenn: Command, arguments: list[str], said: str) -> None:
    found = provenn("keys", *arguments)
    assert found.code == 2
    assert said in found.err


def test_a_folder_that_cannot_be_used(provenn: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    assert provenn("keys", "list", "--data-dir", tmp_path / "file" / "data").code == 2
    monkeypatch.setenv("PROVENN_DATABASE", f"sqlite:///{tmp_path}/nowhere/provenn.db")
    found = provenn("keys", "list")
    assert (found.code, "does not answer" in found.err) == (2, True)


def test_while_the_service_runs(keyed: Server, provenn: Command) -> None:
    folder = keyed.service.settings.data_dir
    made = provenn("keys", "create", "--name", "live", "--project", "live", "--data-dir", folder, "--json").json
    assert httpx.get(keyed.url + "/v1/models", headers=bearer(made["key"])).status_code == 200
    provenn("keys", "revoke", made["id"], "--data-dir", folder)
    keyed.service.keys._cache.clear()  # as after TRUST_SECONDS
    assert httpx.get(keyed.url + "/v1/models", headers=bearer(made["key"])).status_code == 401


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1"])
def test_serve_refuses_to_be_public_without_authentication(provenn: Command, host: str) -> None:
    found = provenn("serve", "--host", host, "--json")
    assert (found.code, found.json["error"]["type"]) == (2, "PublicWithoutAuthentication")
    assert "PROVENN_AUTHENTICATION=keys" in found.err

"""`provenn signing`: list, rotate and export the keys of a folder."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cli_kit import Command
from signing_kit import SIGNER
from typer.testing import CliRunner

from provenn.api.cli.app import app
from provenn.api.signing_keys import Keyring, PublicKeys, published


@pytest.fixture
def provenn(capsys: pytest.CaptureFixture[str]) -> Command:
    return Command(capsys)


@pytest.fixture(autouse=True)
def own_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PROVENN_DATA_DIR", str(tmp_path))
    for name in ("PROVENN_SIGNING_KEYS", "PROVENN_SIGNING_KEY_FILE"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize("command", ["list", "rotate", "export"])
def test_help_teaches_by_examples(command: str) -> None:
    found = CliRunner().invoke(app, ["signing", command, "--help"], env={"COLUMNS": "200"})
    assert found.exit_code == 0
    assert f"provenn signing {command}" in found.stdout
    assert "--folder" in found.stdout
    assert "--json" in found.stdout


def test_nothing_is_made_by_looking(provenn: Command, tmp_path: Path) -> None:
    assert provenn("signing", "list", "--json").json == {"keys": []}
    assert "no keys" in provenn("signing", "list").out
    assert not [*tmp_path.iterdir()]


def test_rotate_in_the_folder_of_the_settings(provenn: Command, tmp_path: Path) -> None:
    keyid = Keyring(tmp_path / "keys").signer().public_key.keyid
    made = provenn("signing", "rotate", "--json")
    assert made.code == 0
    assert (made.json["active"], made.json["keyid"] == keyid) == (True, False)
    listed = provenn("signing", "list", "--json").json["keys"]
    assert [(k["keyid"], k["active"]) for k in listed] == [(made.json["keyid"], True), (keyid, False)]
    shown = provenn("signing", "list")
    assert (shown.code, made.json["keyid"] in shown.out, keyid in shown.out) == (0, True, True)
    assert "signs from now on" in provenn("signing", "rotate").out


def test_folders_by_option_and_by_setting(provenn: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = provenn("signing", "rotate", "--folder", tmp_path / "one", "--json").json["keyid"]
    monkeypatch.setenv("PROVENN_SIGNING_KEYS", str(tmp_path / "one"))
    assert provenn("signing", "list", "--json").json["keys"][0]["keyid"] == one
    assert not (tmp_path / "keys").exists()


def test_a_key_from_a_file_is_not_rotated_here(
    provenn: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "secret.pem"
    path.write_bytes(SIGNER.private_bytes)
    monkeypatch.setenv("PROVENN_SIGNING_KEY_FILE", str(path))
    ran = provenn("signing", "rotate", "--json")
    assert (ran.code, ran.json["error"]["type"], ran.json["error"]["path"]) == (2, "SigningKeyError", str(path))


def test_export(provenn: Command, tmp_path: Path) -> None:
    Keyring(tmp_path / "keys")
    known = published(tmp_path / "keys")
    for ran in (provenn("signing", "export"), provenn("signing", "export", "--json")):
        assert ran.code == 0
        assert PublicKeys.model_validate_json(ran.out) == known
    out = tmp_path / "keys.json"
    assert provenn("signing", "export", "--out", out).code == 0
    assert PublicKeys.model_validate_json(out.read_text()) == known
    assert "PRIVATE" not in out.read_text()
    missing = provenn("signing", "export", "--out", tmp_path / "no" / "keys.json")
    assert (missing.code, missing.err[:6]) == (1, "error:")


def test_wrong_settings_are_named(provenn: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PROVENN_PORT", "many")
    ran = provenn("signing", "list", "--json")
    assert ran.code == 2
    assert "PROVENN_PORT" in json.loads(ran.out)["error"]["message"]

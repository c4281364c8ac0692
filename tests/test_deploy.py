"""The container files say only what the command and the settings understand."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml
from documented import parse

from provenn.api.auth import require_authentication
from provenn.api.settings import Settings

ROOT = Path(__file__).parents[1]
SETTINGS = {f"PROVENN_{name.upper()}" for name in Settings.model_fields}
DOCKERFILE = (ROOT / "Dockerfile").read_text().replace("\\\n", " ")


@pytest.fixture(scope="module")
def service() -> dict[str, Any]:
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    assert list(compose["services"]) == ["provenn"]
    assert set(compose["volumes"]) == {"provenn-data"}
    return dict(compose["services"]["provenn"])


def plain(value: str) -> str:
    """`${NAME:-default}` is its default."""
    return re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", str(value))


def instructions(name: str) -> list[str]:
    return re.findall(rf"(?m)^{name} (.*)$", DOCKERFILE)


def test_the_command_is_one(service: dict[str, Any]) -> None:
    assert instructions("ENTRYPOINT") == ['["provenn"]']
    parse(service["command"])
    parse(json.loads(instructions("CMD")[-1]))


def test_the_environment_is_one_of_settings(service: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    environment = {name: plain(value) for name, value in service["environment"].items()}
    image = dict(word.split("=", 1) for line in instructions("ENV") for word in shlex.split(line))
    ours = {k: v for k, v in (image | environment).items() if k.startswith("PROVENN_")}
    assert ours.keys() <= SETTINGS
    for name, value in ours.items():
        monkeypatch.setenv(name, value)
    settings = Settings()
    assert service["volumes"] == [f"provenn-data:{settings.data_dir}"]
    assert plain(service["ports"][0]) == f"127.0.0.1:8000:{settings.port}"
    assert settings.host == "0.0.0.0"  # within the container only: the port above is published on this machine
    require_authentication(settings)
    assert settings.authentication == image["PROVENN_AUTHENTICATION"] == "keys"
    assert not settings.public_without_authentication


def test_the_container_may_do_little(service: dict[str, Any]) -> None:
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["tmpfs"] == ["/tmp"]
    assert instructions("USER") == ["10001:10001"]


def test_the_health_checks_are_python_that_asks_a_route_of_ours(service: dict[str, Any]) -> None:
    inside = json.loads(re.findall(r"HEALTHCHECK .*?CMD (\[.*\])", DOCKERFILE)[0])
    for words in (service["healthcheck"]["test"][1:], inside):
        assert words[:2] == ["python", "-c"]
        compile(words[2], "healthcheck", "exec")
        assert re.search(r"http://127\.0\.0\.1:8000/(readyz|healthz)'", words[2])


def test_what_the_image_copies_exists_and_is_not_ignored() -> None:
    kept = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copied = {w for line in instructions("COPY") if not line.startswith("--from") for w in line.split()[:-1]}
    assert copied == kept
    assert all((ROOT / name).exists() for name in copied)
    assert {"provenn", "verifier", "models", "solvers", "api"} <= copied


def test_the_python_is_one_that_the_project_supports() -> None:
    assert {line.split()[0] for line in instructions("FROM")} == {"python:3.11-slim"}

"""The container files say only what the command and the settings understand, and name only what they define."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from documented import parse
from openapi_kit import DOCUMENT

from provenn.api.cli import main
from provenn.api.database import database_url
from provenn.api.exposure import require_authentication
from provenn.api.settings import Settings
from provenn.api.sharing import require_shared

ROOT = Path(__file__).parents[1]
SETTINGS = {f"PROVENN_{name.upper()}" for name in Settings.model_fields}
FOREIGN = {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY_FILE", "TMPDIR"}
DOCKERFILE = (ROOT / "Dockerfile").read_text().replace("\\\n", " ")
TEAM, SMALL = (yaml.safe_load((ROOT / f"docker-compose{name}.yml").read_text()) for name in ("", ".small"))
PROMETHEUS = yaml.safe_load((ROOT / "docs" / "deploy" / "prometheus.yml").read_text())
SERVICES = {**TEAM["services"], **SMALL["services"]}
OURS = {name: service for name, service in SERVICES.items() if service["image"] == "provenn:0.1.0"}
ROUTES = set(DOCUMENT["paths"])


def plain(value: Any) -> str:
    """`${NAME:-default}` is its default."""
    return re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", str(value))


def instructions(name: str) -> list[str]:
    return re.findall(rf"(?m)^{name} (.*)$", DOCKERFILE)


def image() -> dict[str, str]:
    """The variables of the image."""
    return dict(word.split("=", 1) for line in instructions("ENV") for word in shlex.split(line))


def seconds(text: str) -> int:
    return int(re.fullmatch(r"(\d+)s", text)[1])  # type: ignore[index]


@pytest.fixture
def secrets(tmp_path: Path) -> Path:
    """What compose mounts at /run/secrets."""
    for name in TEAM["secrets"]:
        (tmp_path / name).write_text(f"p@ss/{name}\n")
    return tmp_path


@pytest.fixture(params=OURS)
def settings(request: pytest.FixtureRequest, secrets: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Of a service of ours, as its process reads them."""
    variables = {k: plain(v) for k, v in OURS[request.param]["environment"].items()}
    assert variables.keys() <= SETTINGS | FOREIGN
    for name, value in (image() | variables).items():
        if name in SETTINGS:
            monkeypatch.setenv(name, value.replace("/run/secrets", str(secrets)))
    return Settings()


def test_all_services_are_known() -> None:
    assert set(TEAM["services"]) == {"api", "worker", "worker-gpu", "postgres", "s3", "prometheus"}
    assert set(OURS) == {"api", "worker", "worker-gpu", "provenn"}


@pytest.mark.parametrize("name", OURS)
def test_commands_are_ones(name: str) -> None:
    assert instructions("ENTRYPOINT") == ['["provenn"]']
    parse(OURS[name]["command"])
    parse(json.loads(instructions("CMD")[-1]))


def test_environments_are_ones_of_settings(settings: Settings) -> None:
    assert settings.data_dir == Path("/data")
    require_authentication(settings)
    assert settings.authentication == image()["PROVENN_AUTHENTICATION"] == "keys"
    assert not settings.public_without_authentication
    if settings.database is not None:
        require_shared(settings)
        url = database_url(settings.database_url)
        assert (url.username, url.password, url.host) == ("provenn", "p@ss/database_password", "postgres")
        assert "database_password" not in settings.database


def test_a_password_that_cannot_be_read_is_said_in_a_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setenv("PROVENN_DATABASE", "postgresql://provenn@127.0.0.1:9/provenn")
    monkeypatch.setenv("PROVENN_DATABASE_PASSWORD_FILE", str(tmp_path / "missing"))
    assert main(["db", "current", "--data-dir", str(tmp_path)]) == 2
    said = capsys.readouterr().err
    assert "PROVENN_DATABASE_PASSWORD_FILE" in said
    assert len(said.splitlines()) == 1


@pytest.mark.parametrize("name", OURS)
def test_containers_of_ours_may_do_little(name: str) -> None:
    service = OURS[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert all("size=" in folder for folder in service["tmpfs"])  # it is memory
    assert service["environment"]["TMPDIR"] in service["volumes"]
    assert not {"user", "privileged", "cap_add"} & service.keys()
    assert instructions("USER") == ["10001:10001"]
    drain = float(service["environment"]["PROVENN_DRAIN_SECONDS"])
    assert seconds(service["stop_grace_period"]) >= drain + 20


@pytest.mark.parametrize("name", SERVICES)
def test_ports_are_published_on_this_machine_only(name: str) -> None:
    for port in SERVICES[name].get("ports", []):
        assert plain(port).startswith("127.0.0.1:")


def test_workers_have_no_way_out() -> None:
    assert TEAM["networks"]["inside"] == {"internal": True}
    for name in ("worker", "worker-gpu", "postgres", "s3"):
        assert TEAM["services"][name]["networks"] == ["inside"]
        assert "ports" not in TEAM["services"][name]


@pytest.mark.parametrize("name", SERVICES)
def test_health_checks_are_commands(name: str) -> None:
    kind, *words = SERVICES[name]["healthcheck"]["test"]
    assert kind == "CMD"
    if words[0] == "python":
        compile(words[2], "healthcheck", "exec")
        assert asked(words[2]) <= ROUTES
    elif words[0] == "provenn":
        parse(words[1:])
    else:
        assert words[0] in ("pg_isready", "wget")


def asked(text: str) -> set[str]:
    """The paths that a health check asks for."""
    found = set(re.findall(r"http://127\.0\.0\.1:8000(/\w+)'", text))
    assert found
    return found


def test_the_image_asks_a_route_of_ours() -> None:
    words = json.loads(re.findall(r"HEALTHCHECK .*?CMD (\[.*\])", DOCKERFILE)[0])
    assert words[:2] == ["python", "-c"]
    compile(words[2], "healthcheck", "exec")
    assert asked(words[2]) <= ROUTES


@pytest.mark.parametrize("compose", [TEAM, SMALL], ids=["team", "small"])
def test_what_is_referred_to_is_defined(compose: dict[str, Any]) -> None:
    services = compose["services"]
    for service in services.values():
        assert set(service.get("networks", [])) <= compose.get("networks", {}).keys()
        assert set(service.get("secrets", [])) <= compose.get("secrets", {}).keys()
        for other, how in service.get("depends_on", {}).items():
            assert how == {"condition": "service_healthy"}
            assert "healthcheck" in services[other]
        for source in sources(service):
            assert (ROOT / source).is_file() if source.startswith("./") else source in compose["volumes"]
        for value in [*service.get("environment", {}).values(), *service.get("command", [])]:
            for secret in re.findall(r"/run/secrets/(\w+)", str(value)):
                assert secret in service["secrets"]
    assert all(secret["file"].startswith("./secrets/") for secret in compose.get("secrets", {}).values())
    assert "/secrets/" in (ROOT / ".gitignore").read_text().splitlines()


def sources(service: dict[str, Any]) -> Iterator[str]:
    """Volumes with names, and files."""
    for volume in service.get("volumes", []):
        if ":" in volume:
            yield volume.split(":")[0]


def test_images_of_others_have_a_version() -> None:
    for name in SERVICES.keys() - OURS.keys():
        assert re.search(r":v?\d+\.\d+", SERVICES[name]["image"]), name


def test_the_image_has_what_its_settings_need() -> None:
    extras = (ROOT / "pyproject.toml").read_text()
    for extra in re.findall(r'ARG EXTRAS="(.*)"', DOCKERFILE)[0].split(","):
        assert re.search(rf"(?m)^{extra} = \[", extras)
    assert "postgres" in re.findall(r'ARG EXTRAS="(.*)"', DOCKERFILE)[0]


def test_prometheus_scrapes_a_route_with_a_key() -> None:
    (job,) = PROMETHEUS["scrape_configs"]
    assert job["metrics_path"] in ROUTES
    name, port = job["static_configs"][0]["targets"][0].split(":")
    assert TEAM["services"][name]["ports"][0].endswith(f":{port}")
    key = Path(job["authorization"]["credentials_file"])
    assert key.parent == Path("/run/secrets")
    prometheus = TEAM["services"]["prometheus"]
    assert key.name in prometheus["secrets"]
    assert set(prometheus["networks"]) & set(TEAM["services"][name]["networks"])


def test_the_bucket_is_the_one_that_the_store_makes() -> None:
    api, store = TEAM["services"]["api"]["environment"], TEAM["services"]["s3"]
    assert api["PROVENN_BLOBS"].split("/")[2] == "provenn"
    assert "mkdir -p /objects/provenn;" in store["command"][0]
    assert api["AWS_ACCESS_KEY_ID"] == store["environment"]["ROOT_ACCESS_KEY_ID"]
    assert Path(api["AWS_SECRET_ACCESS_KEY_FILE"]).name in store["secrets"]


def test_gpus_are_reserved_only_where_asked_for() -> None:
    gpu = TEAM["services"]["worker-gpu"]
    assert gpu["profiles"] == ["gpu"]
    assert gpu["deploy"]["resources"]["reservations"]["devices"][0]["capabilities"] == ["gpu"]
    assert plain(gpu["environment"]["PROVENN_GPUS"]) == "0"
    assert [name for name, each in OURS.items() if "PROVENN_GPUS" in each["environment"]] == ["worker-gpu"]


def test_what_the_image_copies_exists_and_is_not_ignored() -> None:
    kept = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copied = {w for line in instructions("COPY") if not line.startswith("--from") for w in line.split()[:-1]}
    assert copied == kept
    assert all((ROOT / name).exists() for name in copied)
    assert {"provenn", "verifier", "models", "solvers", "api"} <= copied


def test_the_python_is_one_that_the_project_supports() -> None:
    assert {line.split()[0] for line in instructions("FROM")} == {"python:3.11-slim"}

"""The files of docs/deploy say only what the command and the settings understand, and name only what they define."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from documented import parse

from provenn.api.settings import Settings
from provenn.api.sharing import require_shared

FOLDER = Path(__file__).parents[1] / "docs" / "deploy"
FILES = sorted(FOLDER.glob("*.yaml"))
DOCUMENTS = [document for file in FILES for document in yaml.safe_load_all(file.read_text())]
SETTINGS = {f"PROVENN_{name.upper()}" for name in Settings.model_fields}
FOREIGN = {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "auth_token"}


def kind(name: str) -> dict[str, dict[str, Any]]:
    return {document["metadata"]["name"]: document for document in DOCUMENTS if document["kind"] == name}


def templates(within: Any = DOCUMENTS) -> Iterator[dict[str, Any]]:
    """Every pod's specification."""
    for value in within.values() if isinstance(within, dict) else within:
        if isinstance(value, dict) and "containers" in value:
            yield value
        elif isinstance(value, dict | list):
            yield from templates(value)


PODS = list(templates())
CONTAINERS = [container for pod in PODS for container in pod["containers"]]
SHARED = kind("ConfigMap")["provenn-settings"]["data"] | kind("Secret")["provenn-secrets"]["stringData"]


def test_all_that_there_is_to_start_is_found() -> None:
    assert {container["image"] for container in CONTAINERS} == {"provenn:0.1.0", "provenn-ray:0.1.0"}
    assert len(PODS) == 5


@pytest.mark.parametrize("container", CONTAINERS, ids=lambda c: "-".join([c["name"], *c.get("args", [])]))
def test_commands_and_environments_are_ones(container: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    if "args" in container:
        parse(container["args"])
    for probe in ("readinessProbe", "livenessProbe"):
        command = container.get(probe, {}).get("exec", {}).get("command", [])
        if command[:1] == ["provenn"]:
            parse(command[1:])
    own = {each["name"]: each["value"] for each in container.get("env", [])}
    variables = own | (SHARED if "envFrom" in container else {})
    assert variables.keys() <= SETTINGS | FOREIGN
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    found = Settings()
    if "envFrom" in container:
        require_shared(found)
        assert found.data_dir == Path("/data")
        assert "/data" in [mount["mountPath"] for mount in container["volumeMounts"]]


@pytest.mark.parametrize("pod", PODS, ids=lambda pod: str(pod["containers"][0]["name"]))
def test_what_pods_refer_to_is_defined(pod: dict[str, Any]) -> None:
    volumes = {volume["name"]: volume for volume in pod.get("volumes", [])}
    for volume in volumes.values():
        if "secret" in volume:
            assert volume["secret"]["secretName"] in kind("Secret")
        if "persistentVolumeClaim" in volume:
            assert volume["persistentVolumeClaim"]["claimName"] in kind("PersistentVolumeClaim")
    for container in pod["containers"]:
        assert {mount["name"] for mount in container.get("volumeMounts", [])} <= volumes.keys()
        for source in container.get("envFrom", []):
            for reference, sort in (("configMapRef", "ConfigMap"), ("secretRef", "Secret")):
                assert reference not in source or source[reference]["name"] in kind(sort)


def test_no_cluster_is_open_and_the_service_asks_for_keys() -> None:
    (cluster,) = kind("RayCluster").values()
    assert cluster["spec"]["authOptions"] == {"mode": "token", "secretName": "provenn-ray-token"}
    assert "auth_token" in kind("Secret")["provenn-ray-token"]["stringData"]
    groups = [cluster["spec"]["headGroupSpec"], *cluster["spec"]["workerGroupSpecs"]]
    for group in groups:
        (container,) = group["template"]["spec"]["containers"]
        assert container["readinessProbe"]["exec"]
        assert container["livenessProbe"]["exec"]
    (api,) = kind("Deployment")["provenn-api"]["spec"]["template"]["spec"]["containers"]
    assert {"name": "PROVENN_AUTHENTICATION", "value": "keys"} in api["env"]
    assert kind("Deployment")["provenn-api"]["spec"]["replicas"] == 1


def test_the_placer_knows_no_secret_but_the_token() -> None:
    (placer,) = kind("Deployment")["provenn-placer"]["spec"]["template"]["spec"]["containers"]
    assert "envFrom" not in placer
    assert "--token-file=/run/secrets/ray/auth_token" in placer["args"]

"""kustomize builds what `deploy/kubernetes` holds, and Kubernetes would accept it."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped, unused-ignore]

from tests.deploy.image import variables
from tests.deploy.proxies import DEPLOY
from tests.deploy.tools import run_tool

VERSION = "1.33"
OF_TRAEFIK = {"ServersTransport", "Middleware"}
"""Kinds that Traefik defines; Kubernetes has no schema of them."""


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """The objects of `production`, with secrets that were made as the page says."""
    folder = tmp_path_factory.mktemp("kustomize") / "kubernetes"
    shutil.copytree(DEPLOY / "kubernetes", folder)
    secrets = folder / "production" / "secrets"
    (secrets / "store").write_text("postgresql://jimsapi:secret@db.example.org/jimsapi")
    (secrets / "keys.json").write_text(json.dumps({"version": 1, "keys": []}))
    objects = yaml.safe_load_all(run_tool("kubectl", "kustomize", folder / "production"))
    return list(objects)


def one(built: list[dict[str, Any]], kind: str, name: str = "jimsapi") -> dict[str, Any]:
    [found] = [each for each in built if each["kind"] == kind and each["metadata"]["name"].startswith(name)]
    return found


def pod(built: list[dict[str, Any]]) -> dict[str, Any]:
    spec: dict[str, Any] = one(built, "Deployment")["spec"]["template"]["spec"]
    return spec


def options(built: list[dict[str, Any]]) -> dict[str, str]:
    found: dict[str, str] = one(built, "ConfigMap")["data"]
    return found


def test_kubernetes_knows_each_field(built: list[dict[str, Any]], tmp_path: Path) -> None:
    for number, each in enumerate(built):
        if each["kind"] not in OF_TRAEFIK:
            file = tmp_path / f"{number}.yaml"
            file.write_text(yaml.safe_dump(each))
            run_tool("kubernetes-validate", "--strict", "--kubernetes-version", VERSION, file)


def test_a_pod_has_no_privileges_and_a_file_system_that_it_cannot_write(built: list[dict[str, Any]]) -> None:
    [container] = pod(built)["containers"]
    assert pod(built)["securityContext"]["runAsNonRoot"] is True
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert pod(built)["enableServiceLinks"] is False


def test_the_secrets_are_files_that_follow_changes(built: list[dict[str, Any]]) -> None:
    volumes = {volume["name"]: volume.get("secret", {}).get("secretName") for volume in pod(built)["volumes"]}
    assert volumes["keys"] == "jimsapi-keys"
    assert volumes["secrets"] == one(built, "Secret", "jimsapi-secrets")["metadata"]["name"]
    [container] = pod(built)["containers"]
    assert not any("subPath" in mount for mount in container["volumeMounts"])
    assert {each["name"] for each in container["env"]} == {"JIMS_STORE_FILE", "JIMS_KEYS_FILE"}


def test_a_pod_has_the_store_of_its_secret_and_not_one_of_the_image(built: list[dict[str, Any]]) -> None:
    [container] = pod(built)["containers"]
    names = {*variables(), *options(built), *(each["name"] for each in container["env"])}
    assert "JIMS_STORE_FILE" in names
    assert [name for name in names if f"{name}_FILE" in names] == []


def test_kubernetes_waits_longer_than_the_server_drains(built: list[dict[str, Any]]) -> None:
    drains = float(options(built)["JIMS_DRAIN_DELAY"]) + float(options(built)["JIMS_DRAIN_TIME"])
    assert pod(built)["terminationGracePeriodSeconds"] > drains


def test_the_drain_begins_after_the_probes_have_failed(built: list[dict[str, Any]]) -> None:
    probe = pod(built)["containers"][0]["readinessProbe"]
    seen = probe["failureThreshold"] * (probe["periodSeconds"] + probe["timeoutSeconds"])
    assert seen < float(options(built)["JIMS_DRAIN_DELAY"])


def test_the_policy_lets_names_be_looked_up_on_the_node_too(built: list[dict[str, Any]]) -> None:
    egress = one(built, "NetworkPolicy")["spec"]["egress"]
    dns = [rule for rule in egress if {port["port"] for port in rule["ports"]} == {53}]
    assert [peer["ipBlock"] for rule in dns for peer in rule["to"] if "ipBlock" in peer] == [
        {"cidr": "169.254.20.10/32"}
    ]


def test_traefik_connects_as_its_own_file_says(built: list[dict[str, Any]]) -> None:
    file = yaml.safe_load((DEPLOY / "traefik" / "jimsapi.yaml").read_text(encoding="utf-8"))["http"]
    assert one(built, "ServersTransport")["spec"] == file["serversTransports"]["jimsapi"]
    assert one(built, "Middleware")["spec"] == file["middlewares"]["jimsapi-retry"]
    annotations = one(built, "Service")["metadata"]["annotations"]
    assert annotations["traefik.ingress.kubernetes.io/service.serverstransport"] == "jimsapi-jimsapi@kubernetescrd"


def test_there_is_one_more_instance_than_may_be_missing(built: list[dict[str, Any]]) -> None:
    budget = one(built, "PodDisruptionBudget")["spec"]
    assert one(built, "Deployment")["spec"]["replicas"] > budget["maxUnavailable"]
    assert (
        budget["selector"]["matchLabels"].items()
        <= one(built, "Deployment")["spec"]["template"]["metadata"]["labels"].items()
    )


def test_the_monitor_selects_the_pods_and_their_port_and_names_the_job_of_the_rules(
    built: list[dict[str, Any]],
) -> None:
    monitor = yaml.safe_load((DEPLOY / "kubernetes" / "monitoring" / "podmonitor.yaml").read_text(encoding="utf-8"))
    labels = one(built, "Deployment")["spec"]["template"]["metadata"]["labels"]
    spec = monitor["spec"]
    assert spec["selector"]["matchLabels"].items() <= labels.items()
    assert labels[spec["jobLabel"]] == "jimsapi"
    [endpoint] = spec["podMetricsEndpoints"]
    assert endpoint["port"] in {port["name"] for port in pod(built)["containers"][0]["ports"]}
    assert monitor["metadata"]["namespace"] == one(built, "Deployment")["metadata"]["namespace"]

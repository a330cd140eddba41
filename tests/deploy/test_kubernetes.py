"""kustomize builds what `deploy/kubernetes` holds, and Kubernetes would accept it."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped, unused-ignore]

from jimsapi.plugins.core import CoreOptions
from tests.deploy.image import variables
from tests.deploy.nats import Nats
from tests.deploy.proxies import DEPLOY
from tests.deploy.tools import run_tool

VERSION = "1.33"
OF_OTHERS = {"ServersTransport", "Middleware", "ScaledObject"}
"""Kinds that Traefik and KEDA define; Kubernetes has no schema of them."""
_COMPONENTS = re.compile(r"^# (components:|  - \.\./\w+)$", re.MULTILINE)


def build(folder: Path, *, components: bool) -> list[dict[str, Any]]:
    """The objects of `production`, with secrets that were made as the page says, and perhaps with the components."""
    shutil.copytree(DEPLOY / "kubernetes", folder)
    secrets = folder / "production" / "secrets"
    (secrets / "store").write_text("postgresql://jimsapi:secret@db.example.org/jimsapi")
    (secrets / "keys.json").write_text(json.dumps({"version": 1, "keys": []}))
    if components:
        file = folder / "production" / "kustomization.yaml"
        text, count = _COMPONENTS.subn(r"\1", file.read_text(encoding="utf-8"))
        assert count == 4
        file.write_text(text, encoding="utf-8")
    objects = yaml.safe_load_all(run_tool("kubectl", "kustomize", folder / "production"))
    return list(objects)


@pytest.fixture(scope="module", params=[False, True], ids=["production", "scaled"])
def built(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """The objects of `production`, without and with the components."""
    return build(tmp_path_factory.mktemp("kustomize") / "kubernetes", components=request.param)


@pytest.fixture(scope="module")
def scaled(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """The objects of `production` with the components."""
    return build(tmp_path_factory.mktemp("kustomize") / "kubernetes", components=True)


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
        if each["kind"] not in OF_OTHERS:
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
    assert drains < pod(built)["terminationGracePeriodSeconds"] <= drains + 20


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
    least = [each["spec"]["minReplicaCount"] for each in built if each["kind"] == "ScaledObject"]
    assert one(built, "Deployment")["spec"].get("replicas", *least) > budget["maxUnavailable"]
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


def test_the_autoscaler_alone_sets_the_number_of_pods(scaled: list[dict[str, Any]]) -> None:
    autoscaler, deployment = one(scaled, "ScaledObject"), one(scaled, "Deployment")
    assert "replicas" not in deployment["spec"]
    assert autoscaler["spec"]["scaleTargetRef"] == {"name": deployment["metadata"]["name"]}
    assert autoscaler["metadata"]["namespace"] == deployment["metadata"]["namespace"]


def test_a_pod_that_the_autoscaler_stops_has_time_for_every_run_that_has_started(
    scaled: list[dict[str, Any]],
) -> None:
    stops_runs = float(options(scaled)["JIMS_DRAIN_TIME"]) - 3
    assert stops_runs > CoreOptions().run_timeout


def test_a_pod_has_a_processor_for_each_worker_and_room_for_twice_the_runs_that_start_another_one(
    scaled: list[dict[str, Any]],
) -> None:
    workers = int(options(scaled)["JIMS_WORKERS"])
    [container] = pod(scaled)["containers"]
    assert int(container["resources"]["requests"]["cpu"]) == workers
    [trigger] = one(scaled, "ScaledObject")["spec"]["triggers"]
    assert 2 * int(trigger["metadata"]["threshold"]) <= workers * CoreOptions().max_runs


def test_the_autoscaler_counts_the_open_runs_of_all_pods_of_servers_and_of_nothing_else(
    scaled: list[dict[str, Any]], tmp_path: Path
) -> None:
    [trigger] = one(scaled, "ScaledObject")["spec"]["triggers"]
    assert trigger["metadata"]["ignoreNullValues"] == "false"  # else lost targets would mean that nothing is open
    series = {
        'jims_runs_open{job="jimsapi", namespace="jimsapi", container="jimsapi", pod="a"}': "300x4",
        'jims_runs_open{job="jimsapi", namespace="jimsapi", container="jimsapi", pod="b"}': "450x4",
        'jims_runs_open{job="jimsapi", namespace="staging", container="jimsapi", pod="c"}': "7x4",
        'jims_runs_open{job="other", namespace="jimsapi", container="jimsapi", pod="d"}': "9x4",
        'jims_runs_open{job="jimsapi", namespace="jimsapi", container="worker", pod="e"}': "11x4",
    }
    history = {
        "evaluation_interval": "15s",
        "tests": [
            {
                "interval": "15s",
                "input_series": [{"series": name, "values": values} for name, values in series.items()],
                "promql_expr_test": [
                    {
                        "expr": trigger["metadata"]["query"],
                        "eval_time": "1m",
                        "exp_samples": [{"labels": "{}", "value": 750}],
                    }
                ],
            }
        ],
    }
    (tmp_path / "query.yml").write_text(yaml.safe_dump(history))
    run_tool("promtool", "test", "rules", tmp_path / "query.yml")


def test_nats_keeps_its_streams_and_has_no_privileges(scaled: list[dict[str, Any]]) -> None:
    spec = one(scaled, "StatefulSet", "nats")["spec"]
    [container] = spec["template"]["spec"]["containers"]
    [claim] = spec["volumeClaimTemplates"]
    assert container["volumeMounts"] == [{"name": claim["metadata"]["name"], "mountPath": "/data"}]
    assert spec["template"]["spec"]["securityContext"]["runAsNonRoot"] is True
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}


def test_only_pods_of_jimsapi_reach_nats(scaled: list[dict[str, Any]]) -> None:
    labels = one(scaled, "StatefulSet", "nats")["spec"]["template"]["metadata"]["labels"]
    [into] = [each["spec"] for each in scaled if each["metadata"]["name"] == "nats" and "ingress" in each["spec"]]
    out = one(scaled, "NetworkPolicy", "nats-from-jimsapi")["spec"]
    of_jimsapi = {"matchLabels": {"app.kubernetes.io/name": "jimsapi"}}
    assert into["podSelector"]["matchLabels"] == labels
    assert [rule["from"] for rule in into["ingress"]] == [[{"podSelector": of_jimsapi}]]
    assert out["podSelector"] == of_jimsapi
    assert [rule["to"] for rule in out["egress"]] == [[{"podSelector": {"matchLabels": labels}}]]


def test_a_worker_is_as_a_server_apart_from_its_ports_and_probes(scaled: list[dict[str, Any]]) -> None:
    server, worker = pod(scaled), one(scaled, "Deployment", "worker")["spec"]["template"]["spec"]
    [as_server], [as_worker] = server["containers"], worker["containers"]
    assert as_worker["args"] == ["worker"]
    assert [port["name"] for port in as_worker["ports"]] == ["metrics"]
    assert as_worker["env"] == [*as_server["env"], {"name": "JIMS_WORKERS", "value": "1"}]
    assert not [key for key in as_worker if key.endswith("Probe")]
    for key in ("image", "envFrom", "securityContext", "volumeMounts"):
        assert as_worker[key] == as_server[key]
    alike = set(server) - {"containers", "topologySpreadConstraints"}
    assert {key: worker[key] for key in alike} == {key: server[key] for key in alike}


def test_no_client_is_sent_to_a_worker_and_policies_and_metrics_are_those_of_a_server(
    scaled: list[dict[str, Any]],
) -> None:
    server, worker = one(scaled, "Deployment")["spec"], one(scaled, "Deployment", "worker")["spec"]
    labels = worker["template"]["metadata"]["labels"]
    assert not one(scaled, "Service")["spec"]["selector"].items() <= labels.items()
    assert one(scaled, "Service")["spec"]["selector"].items() <= server["template"]["metadata"]["labels"].items()
    assert not server["selector"]["matchLabels"].items() <= labels.items()
    assert worker["selector"]["matchLabels"].items() <= labels.items()
    assert one(scaled, "NetworkPolicy", "jimsapi")["spec"]["podSelector"]["matchLabels"].items() <= labels.items()
    assert labels["app.kubernetes.io/name"] == "jimsapi"


def test_nats_starts_with_the_arguments_and_answers_the_probes(scaled: list[dict[str, Any]], tmp_path: Path) -> None:
    [container] = one(scaled, "StatefulSet", "nats")["spec"]["template"]["spec"]["containers"]
    probes = [container[name]["httpGet"]["path"] for name in ("startupProbe", "livenessProbe", "readinessProbe")]
    with Nats(container["args"], tmp_path) as nats:
        assert [nats.get(path).status_code for path in probes] == [200] * 3
        assert nats.get("/jsz").json()["config"]["store_dir"].startswith(str(tmp_path))

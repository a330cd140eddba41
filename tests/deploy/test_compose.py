"""The compose files follow their schema, and agree with each other, with the image and with the proxy."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped, unused-ignore]

from tests.deploy.image import variables
from tests.deploy.nats import Nats
from tests.deploy.proxies import DEPLOY
from tests.deploy.tools import run_tool

COMPOSE = DEPLOY / "compose"
FILES = ["sqlite.yaml", "postgresql.yaml"]
CONNECTIONS = 7
"""Those that a process opens at most, as the page of jimsapi-postgres says."""
RESERVED = 3
"""Connections that PostgreSQL keeps for superusers."""


def services(file: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((COMPOSE / file).read_text(encoding="utf-8"))["services"]
    return found


def servers(file: str) -> list[dict[str, Any]]:
    """The services that serve the API."""
    return [service for name, service in services(file).items() if name.startswith("jimsapi")]


def test_all_yaml_is_well_formed() -> None:
    run_tool("yamllint", "--strict", "--config-file", DEPLOY / ".yamllint", DEPLOY)


@pytest.mark.parametrize("file", FILES)
def test_a_compose_file_follows_the_schema_of_compose(file: str) -> None:
    run_tool("check-jsonschema", "--builtin-schema", "vendor.compose-spec", COMPOSE / file)


@pytest.mark.parametrize("file", FILES)
def test_each_image_has_a_version(file: str) -> None:
    tags = [service["image"].partition(":")[2] for service in services(file).values()]
    assert all(tag and tag != "latest" for tag in tags)


@pytest.mark.parametrize("file", FILES)
def test_a_server_may_write_only_its_data_and_has_no_privileges(file: str) -> None:
    for server in servers(file):
        assert server["read_only"] is True
        assert server["cap_drop"] == ["ALL"]
        assert "no-new-privileges:true" in server["security_opt"]
        assert "keys:/keys:ro" in server["volumes"]


@pytest.mark.parametrize("file", FILES)
def test_a_server_has_the_store_that_the_file_names_and_not_one_of_the_image(file: str) -> None:
    for server in servers(file):
        names = {**variables(), **server["environment"]}
        assert [name for name in names if f"{name}_FILE" in names] == []
        assert "JIMS_STORE" in names or "JIMS_STORE_FILE" in names


@pytest.mark.parametrize("file", FILES)
def test_docker_waits_longer_than_the_server_drains(file: str) -> None:
    for server in servers(file):
        options = server["environment"]
        drains = float(options["JIMS_DRAIN_DELAY"]) + float(options["JIMS_DRAIN_TIME"])
        assert float(server["stop_grace_period"].removesuffix("s")) > drains


@pytest.mark.parametrize("file", FILES)
def test_the_server_trusts_the_network_of_the_proxy_and_no_other(file: str) -> None:
    text = yaml.safe_load((COMPOSE / file).read_text(encoding="utf-8"))
    [network] = text["networks"]["front"]["ipam"]["config"]
    for server in servers(file):
        assert server["environment"]["JIMS_FORWARDED_ALLOW_IPS"] == network["subnet"]
        assert "front" in server["networks"]
    assert text["services"]["caddy"]["networks"] == ["front"]


@pytest.mark.parametrize("file", FILES)
def test_the_proxy_sends_to_each_server(file: str) -> None:
    names = [f"{name}:8080" for name in services(file) if name.startswith("jimsapi")]
    assert services(file)["caddy"]["environment"]["JIMSAPI_UPSTREAMS"].split() == names


def test_prometheus_scrapes_each_server() -> None:
    scraped = yaml.safe_load((COMPOSE / "prometheus.yaml").read_text(encoding="utf-8"))["scrape_configs"]
    [targets] = [target["targets"] for config in scraped for target in config["static_configs"]]
    assert targets == [f"{name}:8000" for name in services("postgresql.yaml") if name.startswith("jimsapi")]


def test_the_number_of_workers_and_their_memory_are_variables_with_defaults() -> None:
    for server in servers("postgresql.yaml"):
        assert server["environment"]["JIMS_WORKERS"] == "${JIMSAPI_WORKERS:-1}"
        assert server["mem_limit"] == "${JIMSAPI_MEMORY:-1g}"


def test_postgresql_has_connections_for_twenty_workers_of_each_server() -> None:
    [limit] = [part for part in services("postgresql.yaml")["postgresql"]["command"] if "max_connections" in part]
    needed = 20 * CONNECTIONS * len(servers("postgresql.yaml"))
    assert needed <= int(limit.partition("=")[2]) - RESERVED


def test_nats_runs_only_if_its_profile_is_chosen_and_only_servers_reach_it() -> None:
    everything = services("postgresql.yaml")
    assert everything["nats"]["profiles"] == ["nats"]
    assert everything["nats"]["networks"] == ["nats"]
    text = yaml.safe_load((COMPOSE / "postgresql.yaml").read_text(encoding="utf-8"))
    assert text["networks"]["nats"] == {"internal": True}
    inside = {name for name, service in everything.items() if "nats" in service.get("networks", [])}
    assert inside == {"nats", "worker", *(name for name in everything if name.startswith("jimsapi"))}


def test_a_worker_is_a_server_without_a_port_for_clients_that_runs_only_if_its_profile_is_chosen() -> None:
    worker, server = services("postgresql.yaml")["worker"], services("postgresql.yaml")["jimsapi-2"]
    own = {
        "profiles": ["workers"],
        "command": ["worker"],
        "healthcheck": {"disable": True},
        "environment": {**server["environment"], "JIMS_WORKERS": "1"},
    }
    assert worker == {**server, **own}


def test_prometheus_finds_the_workers_that_are_there() -> None:
    [config] = yaml.safe_load((COMPOSE / "prometheus.yaml").read_text(encoding="utf-8"))["scrape_configs"]
    assert config["dns_sd_configs"] == [{"names": ["worker"], "type": "A", "port": 8000}]


def test_nats_starts_with_the_command_and_answers_the_health_check(tmp_path: Path) -> None:
    nats = services("postgresql.yaml")["nats"]
    [path] = re.findall(r"http://127\.0\.0\.1:8222(/\w+)$", nats["healthcheck"]["test"][-1])
    with Nats(nats["command"], tmp_path) as running:
        assert running.get(path).status_code == 200
        assert running.get("/jsz").json()["config"]["store_dir"].startswith(str(tmp_path))

"""The compose files follow their schema, and agree with each other, with the image and with the proxy."""

from typing import Any

import pytest
import yaml  # type: ignore[import-untyped, unused-ignore]

from tests.deploy.image import variables
from tests.deploy.proxies import DEPLOY
from tests.deploy.tools import run_tool

COMPOSE = DEPLOY / "compose"
FILES = ["sqlite.yaml", "postgresql.yaml"]


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

"""MCP, A2A and `jimsapi connect` behind a real proxy that ends TLS: at the root, and below paths of its host.

The proxy removes one path from requests, and keeps another. One server does not trust the proxy.
"""

import json
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any
from uuid import uuid4

import httpx
import httpx2
import pytest
from a2a.client import ClientConfig, ClientFactory
from a2a.types import Message, Part, Role, SendMessageRequest
from mcp import Client
from mcp.client.streamable_http import streamable_http_client

from tests.command import run_command
from tests.deploy.proxies import CaddyBelow
from tests.serving import ROOT, Served

pytestmark = pytest.mark.anyio

UNTRUSTING = "/untrusting"
PATHS = {
    "": (),
    "/bot": ("--root-path", "/bot"),
    "/kept": ("--root-path", "/kept", "--root-path-kept"),
    UNTRUSTING: ("--root-path", UNTRUSTING),
}
"""The paths below which the proxy shows servers, and the options of each server."""
RIGHT = [path for path in PATHS if path != UNTRUSTING]
BINDINGS = ["JSONRPC", "HTTP+JSON"]


@pytest.fixture(scope="module")
def proxy(issuer: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[CaddyBelow]:
    """A proxy with a server below each path. A token for MCP and one for A2A name the URLs that clients use."""
    caddy = CaddyBelow(tmp_path_factory.mktemp("proxy") / "caddy", kept=("/kept",))
    caddy.authority.cert_pem.write_to_path(str(root_of(caddy)))
    with ExitStack() as stack:
        for path, options in PATHS.items():
            audiences = tuple(f"{caddy.url}{path}/{protocol}" for protocol in ("mcp", "a2a"))
            trusted = () if path == UNTRUSTING else ("--forwarded-allow-ips", "127.0.0.1")
            flags = issuer.flags(oidc_audience=audiences)
            server = stack.enter_context(Served("--app", "tests.apps.scripted:app", *flags, *trusted, *options))
            caddy.servers[path] = server.port
        stack.enter_context(caddy)
        yield caddy


def root_of(proxy: CaddyBelow) -> Path:
    """The file with the certificate of the proxy's authority."""
    return proxy.folder / "root.pem"


def token_for(issuer: Any, url: str, subject: str = "ann") -> dict[str, str]:
    return {"authorization": f"Bearer {issuer.token(aud=url, sub=subject)}"}


@pytest.mark.parametrize("path", RIGHT)
async def test_an_mcp_client_with_a_token_calls_the_pipeline(proxy: CaddyBelow, issuer: Any, path: str) -> None:
    url = f"{proxy.url}{path}/mcp"
    async with (
        httpx2.AsyncClient(verify=proxy.tls, headers=token_for(issuer, url), timeout=30) as http,
        Client(streamable_http_client(url, http_client=http)) as client,
    ):
        result = await client.call_tool("chat", {"message": "Hello"})
    assert result.structured_content is not None
    assert (result.is_error, result.structured_content["text"]) == (False, "You said: Hello")


@pytest.mark.parametrize("path", RIGHT)
@pytest.mark.parametrize("binding", BINDINGS)
async def test_an_a2a_client_finds_the_agent_by_its_card_and_calls_it(
    proxy: CaddyBelow, issuer: Any, path: str, binding: str
) -> None:
    url = f"{proxy.url}{path}"
    headers = token_for(issuer, f"{url}/a2a")
    async with httpx.AsyncClient(verify=proxy.tls, headers=headers, trust_env=False, timeout=30) as http:
        config = ClientConfig(httpx_client=http, streaming=False, supported_protocol_bindings=[binding])
        # The SDK for JavaScript loses the last part of a URL without a slash at its end, so both have to work.
        for base in (url, f"{url}/"):
            client = await ClientFactory(config).create_from_url(base)
            message = Message(message_id=str(uuid4()), role=Role.ROLE_USER, parts=[Part(text="Hello")])
            [answer] = [event async for event in client.send_message(SendMessageRequest(message=message))]
            assert [part.text for part in answer.task.artifacts[0].parts] == ["You said: Hello"]


def connect(proxy: CaddyBelow, url: str, *options: str, **env: str) -> "CompletedProcess[str]":
    env["SSL_CERT_FILE"] = str(root_of(proxy))
    return run_command("connect", url, *options, cwd=proxy.folder, path=ROOT, env=env)


@pytest.mark.parametrize("path", RIGHT)
def test_connect_prints_the_urls_that_clients_use_and_finds_no_fault(proxy: CaddyBelow, issuer: Any, path: str) -> None:
    url = f"{proxy.url}{path}"
    token = issuer.token(aud=f"{url}/mcp")
    ran = connect(proxy, url, "--json", JIMS_API_KEY=token)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert token not in ran.stdout
    found = json.loads(ran.stdout)
    assert (found["url"], found["access"]) == (url, "key_accepted")
    protocols = found["protocols"]
    assert (protocols["mcp"]["url"], protocols["mcp"]["names"][0]) == (f"{url}/mcp", "chat")
    assert {one["url"] for one in protocols["a2a"]["interfaces"]} == {f"{url}/a2a"}
    without_a_token = connect(proxy, f"{url}/", "--json")
    assert (without_a_token.returncode, without_a_token.stderr) == (0, "")
    signs_in = json.loads(without_a_token.stdout)["protocols"]["mcp"]
    assert signs_in["sign_in"]["authorization_servers"] == [issuer.url]
    assert not any("Authorization" in example["text"] for example in signs_in["examples"])


def test_connect_names_a_server_that_does_not_trust_its_proxy(proxy: CaddyBelow, issuer: Any) -> None:
    url = f"{proxy.url}{UNTRUSTING}"
    plain = url.replace("https:", "http:")
    for env in ({}, {"JIMS_API_KEY": issuer.token(aud=f"{url}/mcp")}):
        ran = connect(proxy, url, **env)
        assert ran.returncode == 1
        assert f"a2a: the agent card has the URL '{plain}/a2a' in place of {url}: " in ran.stderr
        assert f"resource_metadata of WWW-Authenticate has the URL '{plain}/" in ran.stderr
        assert (
            "the server does not trust its proxy: start it with --forwarded-allow-ips and the address of" in ran.stderr
        )

"""MCP's own clients find out by themselves where a person signs in: 401, the document of the resource, the issuer."""

import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from mcp_clients import CLIENTS, McpClient, Talk, converse, text_of

from tests.deploy.proxies import CaddyBelow
from tests.plugins.modules import load
from tests.ports import free_port
from tests.serving import Served

ISSUERS = Path(__file__).resolve().parents[2] / "jimsapi-oidc" / "tests"
HELLO = {"call": "chat", "arguments": {"message": "Hello"}}


@pytest.fixture(scope="module")
def _issuer() -> Iterator[Any]:
    load(ISSUERS / "fake_issuer.py")
    with load(ISSUERS / "authorization_server.py").AuthorizationServer() as issuer:
        yield issuer


@pytest.fixture
def issuer(_issuer: Any) -> Any:
    """An issuer that nobody has used, with the keys that it had."""
    _issuer.forget()
    return _issuer


@dataclass
class Site:
    """A server whose tokens come from the issuer, and where clients see its MCP. They trust `authorities`."""

    mcp: str
    issuer: Any
    authorities: Path

    def converse(self, client: McpClient, *steps: Any) -> Talk:
        """Let a client sign in. Nothing but the URL and the trust in certificates is configured."""
        trust = {"NODE_EXTRA_CA_CERTS": str(self.authorities), "SSL_CERT_FILE": str(self.authorities)}
        return converse(client, self.mcp, *steps, sign_in=True, env=trust)

    def threads_of(self, person: str) -> list[Any]:
        """The threads that the chat API shows a person."""
        headers = {"authorization": f"Bearer {self.issuer.token(sub=person, aud=self.mcp)}"}
        api = f"{self.mcp.removesuffix('/mcp')}/api/v1/threads"
        tls = ssl.create_default_context(cafile=str(self.authorities))
        answer = httpx.get(api, headers=headers, params={"contact_id": person}, trust_env=False, verify=tls)
        threads: list[Any] = answer.raise_for_status().json()["threads"]
        return threads


def serve(issuer: Any, root: str, *options: str) -> Iterator[Site]:
    """A server at the root, or below a path that no proxy removes."""
    port = free_port()
    url = f"http://127.0.0.1:{port}{root}/mcp"
    below = ("--root-path", root, "--root-path-kept") if root else ()
    trusted = issuer.flags(oidc_audience=url)
    with Served("--app", "tests.apps.watched:app", "--port", str(port), *below, *trusted, *options):
        yield Site(url, issuer, issuer.ca_file)


def serve_behind_proxy(issuer: Any, folder: Path) -> Iterator[Site]:
    """A server behind a proxy that ends TLS and shows nothing but a path, which it removes."""
    proxy = CaddyBelow(folder / "caddy", passes_metadata=False)
    url = f"{proxy.url}/bot/mcp"
    authorities = folder / "authorities.pem"
    authorities.write_bytes(issuer.ca_file.read_bytes() + proxy.authority.cert_pem.bytes())
    below = ("--root-path", "/bot", "--forwarded-allow-ips", "127.0.0.1")
    with Served("--app", "tests.apps.watched:app", *below, *issuer.flags(oidc_audience=url)) as served:
        proxy.servers["/bot"] = served.port
        with proxy:
            yield Site(url, issuer, authorities)


@pytest.fixture(scope="module", params=["at-the-root", "below-a-path", "behind-a-proxy"])
def _site(request: pytest.FixtureRequest, _issuer: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    if request.param == "behind-a-proxy":
        yield from serve_behind_proxy(_issuer, tmp_path_factory.mktemp("proxy"))
    else:
        yield from serve(_issuer, "" if request.param == "at-the-root" else "/bot")


@pytest.fixture
def site(_site: Site, issuer: Any) -> Site:
    return _site


@pytest.fixture(scope="module")
def _guarded(_issuer: Any) -> Iterator[Site]:
    yield from serve(_issuer, "", "--oidc-scopes", "chat")


@pytest.fixture
def guarded(_guarded: Site, issuer: Any) -> Site:
    """A server that admits nobody without the scope `chat`."""
    return _guarded


@pytest.mark.parametrize("client", CLIENTS, ids=str)
def test_a_client_without_a_token_gets_one_and_an_answer(site: Site, client: McpClient) -> None:
    site.issuer.person = f"ann of {client}"
    site.issuer.shows_oauth_metadata = site.mcp.endswith("/bot/mcp")  # else only what OpenID Connect has
    talk = site.converse(client, HELLO)
    assert talk.connected["version"] == client.version
    assert text_of(talk.results[0]) == "You said: Hello"
    [grant] = site.issuer.signed_in
    assert (grant.resource, grant.scope) == (site.mcp, "chat")
    assert len(site.issuer.registrations) == 1
    assert (site.issuer.asked.count("/register"), site.issuer.asked.count("/token")) == (1, 1)
    assert len(site.threads_of(site.issuer.person)) == 1
    assert site.threads_of("bob") == []


@pytest.mark.parametrize("client", CLIENTS, ids=str)
def test_a_client_whose_token_lacks_a_scope_asks_for_it(guarded: Site, client: McpClient) -> None:
    guarded.issuer.grants = ["profile"]
    assert text_of(guarded.converse(client, HELLO).results[0]) == "You said: Hello"
    assert ["chat" in grant.scope.split() for grant in guarded.issuer.signed_in] == [False, True]

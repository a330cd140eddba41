"""OAuth clients behind a real proxy that ends TLS: at the root, below a path that it removes, and one that it keeps."""

from collections.abc import Iterator
from contextlib import ExitStack

import httpx
import pytest
from fake_issuer import AUDIENCE, FakeIssuer
from trusting_api import CHAT, HI

from tests.deploy.proxies import CaddyBelow
from tests.serving import Served

WELL_KNOWN = "/.well-known/oauth-protected-resource"


PATHS = {"": (), "/bot": ("--root-path", "/bot"), "/kept": ("--root-path", "/kept", "--root-path-kept")}
"""The paths below which the proxy shows servers, and the options of each server."""


@pytest.fixture(scope="module")
def proxy(issuer: FakeIssuer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[CaddyBelow]:
    """A proxy with a server below each path. The audience of each is the URL of its API, and that of other clients."""
    caddy = CaddyBelow(tmp_path_factory.mktemp("proxy") / "caddy", kept=("/kept",))
    with ExitStack() as stack:
        for path, options in PATHS.items():
            audiences = (f"{caddy.url}{path}/api/v1", AUDIENCE)
            trusted = ("--forwarded-allow-ips", "127.0.0.1")
            server = stack.enter_context(Served(*issuer.flags(oidc_audience=audiences), *trusted, *options))
            caddy.servers[path] = server.port
        stack.enter_context(caddy)
        yield caddy


@pytest.fixture(scope="module")
def client(proxy: CaddyBelow) -> Iterator[httpx.Client]:
    with proxy.client() as client:
        yield client


@pytest.mark.parametrize("path", PATHS)
def test_a_client_finds_the_issuer_and_a_token_for_the_url_that_it_sees_is_admitted(
    proxy: CaddyBelow, client: httpx.Client, issuer: FakeIssuer, path: str
) -> None:
    url = f"{proxy.url}{path}"
    refused = client.post(f"{url}{CHAT}", json=HI)
    metadata_url = f"{url}{WELL_KNOWN}/api/v1"
    assert refused.status_code == 401
    assert refused.headers["www-authenticate"].startswith(f'Bearer resource_metadata="{metadata_url}", scope="chat"')
    metadata = client.get(metadata_url).json()
    assert (metadata["resource"], metadata["authorization_servers"]) == (f"{url}/api/v1", [issuer.url])
    headers = {"authorization": f"Bearer {issuer.token(aud=metadata['resource'])}"}
    assert client.post(f"{url}{CHAT}", json=HI, headers=headers).status_code == 200


@pytest.mark.parametrize("path", PATHS)
def test_a_token_for_another_server_of_the_same_host_is_refused(
    proxy: CaddyBelow, client: httpx.Client, issuer: FakeIssuer, path: str
) -> None:
    for other in PATHS.keys() - {path}:
        headers = {"authorization": f"Bearer {issuer.token(aud=f'{proxy.url}{other}/api/v1')}"}
        assert client.post(f"{proxy.url}{path}{CHAT}", json=HI, headers=headers).status_code == 401


@pytest.mark.parametrize("path", ["/bot", "/kept"])
@pytest.mark.parametrize("resource", ["/api/v1", ""])
def test_the_metadata_is_also_at_the_url_with_the_well_known_part_first(
    proxy: CaddyBelow, client: httpx.Client, path: str, resource: str
) -> None:
    metadata = client.get(f"{proxy.url}{WELL_KNOWN}{path}{resource}").json()
    assert metadata["resource"] == f"{proxy.url}{path}{resource}"


@pytest.mark.parametrize("path", PATHS)
def test_a_client_cannot_change_the_urls_by_headers_that_only_proxies_send(
    proxy: CaddyBelow, client: httpx.Client, path: str
) -> None:
    forged = {"x-forwarded-proto": "http", "x-forwarded-host": "evil.example.org", "forwarded": "host=evil.example.org"}
    metadata = client.get(f"{proxy.url}{path}{WELL_KNOWN}/api/v1", headers=forged).json()
    assert metadata["resource"] == f"{proxy.url}{path}/api/v1"

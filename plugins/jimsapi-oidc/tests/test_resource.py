"""How an OAuth client that knows only the URL of the API finds the issuer: RFC 9728, with the command over a socket."""

import ssl
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from fake_issuer import AUDIENCE, FakeIssuer
from trusting_api import CHAT, HI, api, bearer

from tests.serving import Served

pytestmark = pytest.mark.anyio

WELL_KNOWN = "/.well-known/oauth-protected-resource"
REALM = "/realms/chat/"


def metadata_url(answer: httpx.Response) -> str:
    """Return the URL that a challenge names, as clients read it: the first scheme has to be Bearer."""
    scheme, _, parameters = answer.headers["www-authenticate"].partition(" ")
    assert scheme == "Bearer"
    name, _, rest = parameters.partition('="')
    assert name == "resource_metadata"
    return rest.partition('"')[0]


def discover(issuer: FakeIssuer, url: str) -> dict[str, Any]:
    """Return an issuer's discovery document, from the URL that clients make of its name (OpenID Connect, 4.1)."""
    context = ssl.create_default_context(cafile=str(issuer.ca_file))
    answer = httpx.get(url.rstrip("/") + "/.well-known/openid-configuration", verify=context, trust_env=False)
    document: dict[str, Any] = answer.raise_for_status().json()
    return document


@pytest.fixture(scope="module")
def realm() -> Iterator[FakeIssuer]:
    """An issuer whose name has a path and a slash at its end, as that of Authentik has."""
    with FakeIssuer(REALM) as issuer:
        yield issuer


@pytest.fixture(scope="module")
def served(realm: FakeIssuer) -> Iterator[Served]:
    """A server that trusts it, and a proxy of this machine, which shows it below `/bot`."""
    audiences = (AUDIENCE, "https://chat.example.org/bot/api/v1")
    proxied = ("--root-path", "/bot", "--forwarded-allow-ips", "127.0.0.1")
    with Served(*realm.flags(oidc_audience=audiences), *proxied) as server:
        yield server


BEHIND = {"host": "chat.example.org", "x-forwarded-proto": "https", "x-forwarded-for": "192.0.2.1"}


def test_a_client_goes_from_the_401_to_the_issuer_and_its_token_is_admitted(realm: FakeIssuer, served: Served) -> None:
    with served.client(headers=BEHIND) as client:
        refused = client.post(CHAT, json=HI)
        url = metadata_url(refused)
        assert (refused.status_code, url) == (401, f"https://chat.example.org/bot{WELL_KNOWN}/api/v1")
        metadata = client.get(url.removeprefix("https://chat.example.org/bot")).json()
        assert metadata == {
            "resource": "https://chat.example.org/bot/api/v1",
            "authorization_servers": [realm.url],
            "scopes_supported": ["chat", "threads"],
            "bearer_methods_supported": ["header"],
        }
        [issuer] = metadata["authorization_servers"]
        assert issuer.endswith(REALM)
        assert discover(realm, issuer)["issuer"] == issuer
        token = realm.token(aud=metadata["resource"])  # what a client gets that sends `resource` (RFC 8707)
        assert client.post(CHAT, json=HI, headers=bearer(token)).status_code == 200
        assert client.post(CHAT, json=HI, headers=bearer(realm.token())).status_code == 200


# Scopes.


async def test_a_token_without_a_required_scope_learns_which_ones_to_request(
    issuer: FakeIssuer,
) -> None:
    async with api(issuer, oidc_scopes=("chat", "support desk")) as client:
        refused = await client.post(CHAT, json=HI, headers=bearer(issuer.token(scope="chat")))
        unknown = await client.post(CHAT, json=HI)
        metadata = (await client.get(metadata_url(refused))).json()
        entered = await client.post(CHAT, json=HI, headers=bearer(issuer.token(scope="desk chat support")))
    url = f"http://testserver{WELL_KNOWN}/api/v1"
    expected = f'Bearer resource_metadata="{url}", scope="chat support desk"'
    assert (refused.status_code, refused.json()) == (403, {"detail": "Forbidden"})
    assert refused.headers["www-authenticate"] == f'{expected}, error="insufficient_scope"'
    assert unknown.headers["www-authenticate"] == f'{expected}, realm="jimsapi"'
    assert metadata["scopes_supported"] == ["chat", "support", "desk"]
    assert entered.status_code == 200


async def test_clients_are_told_the_names_of_scopes_that_the_issuer_expects(issuer: FakeIssuer) -> None:
    scopes = {"oidc_scopes": "chat", "oidc_requested_scopes": "api://chat-api/chat offline_access"}
    async with api(issuer, **scopes) as client:
        refused = await client.post(CHAT, json=HI, headers=bearer(issuer.token(scope="other")))
        metadata = (await client.get(metadata_url(refused))).json()
        entered = await client.post(CHAT, json=HI, headers=bearer(issuer.token(scp="chat", scope=...)))
    assert refused.headers["www-authenticate"].endswith(
        ', scope="api://chat-api/chat offline_access", error="insufficient_scope"'
    )
    assert metadata["scopes_supported"] == ["api://chat-api/chat", "offline_access"]
    assert entered.status_code == 200


async def test_a_token_that_is_denied_for_its_contact_gets_no_challenge(issuer: FakeIssuer) -> None:
    async with api(issuer) as client:
        refused = await client.post(CHAT, json=HI, headers=bearer(issuer.token(sub="")))
    assert refused.status_code == 403
    assert "www-authenticate" not in refused.headers


@pytest.mark.parametrize("scope", ['br"oken', "é", "back\\slash"])
async def test_a_text_that_cannot_be_a_scope_stays_out_of_the_challenge(issuer: FakeIssuer, scope: str) -> None:
    async with api(issuer, oidc_scopes=(scope, "chat")) as client:
        refused = await client.post(CHAT, json=HI, headers=bearer(issuer.token()))
    assert refused.status_code == 403
    assert ', scope="chat", error="insufficient_scope"' in refused.headers["www-authenticate"]


# Configurations.


async def test_the_openapi_document_names_the_discovery_of_the_issuer_unless_its_keys_have_a_url_of_their_own(
    issuer: FakeIssuer,
) -> None:
    async with api(issuer) as client:
        schemes = (await client.get("/openapi.json")).json()["components"]["securitySchemes"]
    url = f"{issuer.url}/.well-known/openid-configuration"
    assert schemes == {"oidc": {"type": "openIdConnect", "openIdConnectUrl": url}}
    async with api(issuer, oidc_jwks_url=f"{issuer.url}/keys") as client:
        schemes = (await client.get("/openapi.json")).json()["components"]["securitySchemes"]
    assert schemes == {"oidc": {"type": "http", "scheme": "Bearer"}}

"""Providers with OAuth authorization servers: what a 401 and a 403 tell clients, and what plugins see of them."""

from pathlib import Path
from typing import Any

import pytest

from jimsapi import ThreadContext, create_api
from jimsapi.asgi.testing import HandshakeRefused, TestClient
from tests.plugins.distributions import install

pytestmark = pytest.mark.anyio

CHAT, THREADS = "/api/v1/chat", "/api/v1/threads?contact_id=ann"
WELL_KNOWN = "/.well-known/oauth-protected-resource"
ISSUER = "https://id.example.org/realms/chat/"
SECOND = "https://second.example.org"
BODY = {"contact_id": "ann", "message": "hi"}
API = f'Bearer resource_metadata="http://testserver{WELL_KNOWN}/api/v1", scope="chat"'

PROVIDER = """
from jimsapi import *

class Provider:
    name = "NAME"
ATTRIBUTES

    async def authenticate(self, connection):
        match connection.headers.get("x-NAME"):
            case "in": return Identity("ann", contact_id="ann")
            case "chatter": return Identity("ann", contact_id="ann", scopes=("chat",))
            case "reader": return Identity("ann", contact_id="ann", scopes=("threads",))
            case "invalid": raise InvalidCredentials("expired")
            case "denied": raise AccessDenied("not ann")
            case "poor": raise AccessDenied("the token lacks a scope", scopes=["more", "most"])

@hookimpl
def jimsapi_auth_provider():
    return Provider()
"""

ROUTES = """
from jimsapi import *
from jimsapi.runs import ScopeMissing

@hookimpl
def jimsapi_routes(router):
    schemes = {name: dict(scheme) for name, scheme in router.security_schemes.items()}

    @router.post("/desk", resource=True, scope="desk")
    async def desk(request):
        return JSONResponse(schemes)

    @router.get("/desk/drawer", scope="chat")
    async def drawer(request):
        raise ScopeMissing("drawer")

    @router.get("/window")
    async def window(request):
        return JSONResponse({"url": request.public_url("/window")})
"""


async def echo(ctx: ThreadContext) -> None:
    ctx.send_message("hi")


def provider(site: Path, name: str, **attributes: Any) -> None:
    lines = "\n".join(f"    {attribute} = {value!r}" for attribute, value in attributes.items())
    install(site, f"acme-{name}", PROVIDER.replace("NAME", name).replace("ATTRIBUTES", lines))


@pytest.fixture
def servers(site: Path) -> Path:
    """A provider without authorization servers, which comes first, and one that has them; and routes of a plugin."""
    provider(site, "blue", challenge="Blue")
    provider(site, "oauth", challenge='Bearer realm="jimsapi"', authorization_servers=[ISSUER])
    install(site, "acme-routes", ROUTES)
    return site


def client(headers: dict[str, str] | None = None, **settings: Any) -> TestClient:
    return TestClient(create_api(echo, store="memory:", **settings), headers=headers or {})


async def challenge(method: str, path: str, headers: dict[str, str], **settings: Any) -> tuple[int, str | None]:
    async with client(headers, **settings) as caller:
        answer = await caller.request(method, path, json=BODY if method == "POST" else None)
    return answer.status_code, answer.headers.get("www-authenticate")


# 401.


@pytest.mark.parametrize(
    ("headers", "error"),
    [
        ({}, ""),
        ({"x-blue": "invalid"}, ""),
        ({"x-oauth": "invalid"}, ', error="invalid_token"'),
        ({"authorization": "Bearer wrong"}, ', error="invalid_token"'),
    ],
)
async def test_a_401_begins_with_the_metadata_and_has_each_other_challenge_once(
    servers: Path, headers: dict[str, str], error: str
) -> None:
    expected = f'{API}, realm="jimsapi"{error}, Blue'
    assert await challenge("POST", CHAT, headers, api_key="k") == (401, expected)


async def test_a_provider_without_a_challenge_for_tokens_gets_one_that_names_the_metadata(site: Path) -> None:
    provider(site, "a", challenge="Blue", authorization_servers=[ISSUER])
    provider(site, "b", authorization_servers=[SECOND, ISSUER])
    assert await challenge("POST", CHAT, {"x-a": "invalid"}) == (401, f"{API}, Blue")
    async with client() as caller:
        assert (await caller.get(f"{WELL_KNOWN}/api/v1")).json()["authorization_servers"] == [ISSUER, SECOND]


async def test_two_authorization_headers_are_refused_with_the_same_challenge(servers: Path) -> None:
    async with client(api_key="k") as caller:
        answer = await caller.post(
            CHAT, json=BODY, headers=[("authorization", "Bearer a"), ("authorization", "Bearer b")]
        )
    expected = f'{API}, realm="jimsapi", error="invalid_request", Blue'
    assert (answer.status_code, answer.headers["www-authenticate"]) == (400, expected)


async def test_a_handshake_of_a_websocket_is_refused_with_the_same_challenge(servers: Path) -> None:
    async with client() as caller:
        with pytest.raises(HandshakeRefused) as refused:
            async with caller.websocket("/api/v1/chat/ws", headers={"authorization": "Bearer x"}):
                pass
    assert refused.value.response.headers["www-authenticate"] == f'{API}, realm="jimsapi", Blue'


@pytest.mark.parametrize(
    ("method", "path", "resource", "scope"),
    [
        ("POST", "/desk", "/desk", ', scope="desk"'),
        ("GET", "/desk/drawer", "/desk", ', scope="chat"'),
        ("GET", "/window", "", ""),
        ("GET", THREADS, "/api/v1", ', scope="threads"'),
    ],
)
async def test_each_private_route_names_the_metadata_of_its_resource(
    servers: Path, method: str, path: str, resource: str, scope: str
) -> None:
    status, offered = await challenge(method, path, {})
    assert (status, offered) == (
        401,
        f'Bearer resource_metadata="http://testserver{WELL_KNOWN}{resource}"{scope}, realm="jimsapi", Blue',
    )


async def test_problem_details_keep_the_challenge(servers: Path) -> None:
    status, offered = await challenge("POST", CHAT, {"accept": "application/problem+json"})
    assert (status, offered) == (401, f'{API}, realm="jimsapi", Blue')


# 403.


async def test_a_token_that_lacks_a_scope_learns_which_ones_to_request(servers: Path) -> None:
    expected = API.replace('"chat"', '"chat more most"') + ', error="insufficient_scope"'
    assert await challenge("POST", CHAT, {"x-oauth": "poor"}) == (403, expected)


async def test_a_caller_who_is_denied_for_another_reason_gets_no_challenge(servers: Path) -> None:
    assert await challenge("POST", CHAT, {"x-oauth": "denied"}) == (403, None)


@pytest.mark.parametrize(
    ("caller", "method", "path", "resource", "scope"),
    [
        ("chatter", "GET", THREADS, "/api/v1", "threads"),
        ("reader", "POST", CHAT, "/api/v1", "chat"),
        ("chatter", "POST", "/desk", "/desk", "desk"),
        ("chatter", "GET", "/desk/drawer", "/desk", "chat drawer"),
    ],
)
async def test_a_caller_who_lacks_the_scope_of_a_route_learns_which_one(
    servers: Path, caller: str, method: str, path: str, resource: str, scope: str
) -> None:
    metadata = f"http://testserver{WELL_KNOWN}{resource}"
    expected = f'Bearer resource_metadata="{metadata}", scope="{scope}", error="insufficient_scope"'
    assert await challenge(method, path, {"x-oauth": caller}) == (403, expected)


# Scopes that every token needs.


async def test_scopes_of_the_providers_replace_those_of_the_routes(site: Path) -> None:
    provider(site, "a", challenge="Blue", oauth_scopes=["unused"])
    provider(site, "b", challenge="Bearer", authorization_servers=[ISSUER], oauth_scopes=["openid", "use"])
    metadata = f'Bearer resource_metadata="http://testserver{WELL_KNOWN}/api/v1"'
    assert await challenge("POST", CHAT, {}) == (401, f'{metadata}, scope="openid use", Blue')
    expected = f'{metadata}, scope="openid use threads", error="insufficient_scope"'
    assert await challenge("GET", THREADS, {"x-b": "chatter"}) == (403, expected)
    async with client() as caller:
        assert (await caller.get(WELL_KNOWN)).json()["scopes_supported"] == ["openid", "use"]


# Without authorization servers.


async def test_without_authorization_servers_nothing_about_them_is_served(site: Path) -> None:
    provider(site, "blue", challenge="Blue", oauth_scopes=["chat"])
    assert await challenge("POST", CHAT, {}) == (401, "Blue")
    assert await challenge("POST", CHAT, {"x-blue": "poor"}) == (403, None)
    assert await challenge("POST", CHAT, {"x-blue": "reader"}) == (403, None)
    async with client() as caller:
        for path in (WELL_KNOWN, f"{WELL_KNOWN}/api/v1"):
            assert (await caller.get(path)).status_code == 404


# Metadata.


async def test_the_metadata_is_public_and_lists_the_scopes_of_each_resource(servers: Path) -> None:
    async with client() as caller:
        documents = [(await caller.get(WELL_KNOWN + path)).json() for path in ("/api/v1", "/desk", "")]
    assert [document["resource"] for document in documents] == [
        f"http://testserver{path}" for path in ("/api/v1", "/desk", "")
    ]
    assert [document["scopes_supported"] for document in documents] == [
        ["chat", "threads"],
        ["desk", "chat"],
        ["chat", "threads", "desk"],
    ]


async def test_an_app_that_has_stopped_may_start_again_and_has_no_resources_until_then(servers: Path) -> None:
    api = create_api(echo, store="memory:")
    for _ in range(2):
        async with TestClient(api) as caller:
            assert (await caller.get(f"{WELL_KNOWN}/api/v1")).status_code == 200
    assert api.protected_resources is None


@pytest.mark.parametrize("attribute", ["authorization_servers", "oauth_scopes"])
@pytest.mark.parametrize("value", [ISSUER, [7], None])
async def test_servers_and_scopes_that_are_no_list_of_texts_stop_the_start(
    site: Path, attribute: str, value: Any
) -> None:
    provider(site, "a", **{attribute: value})
    with pytest.raises(RuntimeError, match=f"acme-a.* an attribute {attribute} that is not a list of texts"):
        async with client():
            pass


async def test_a_plugin_that_claims_the_path_of_the_metadata_stops_the_start(servers: Path) -> None:
    install(servers, "acme-own", ROUTES.replace("/desk", "/other").replace("/window", WELL_KNOWN))
    with pytest.raises(RuntimeError, match=r"cannot serve the metadata of OAuth protected resources: GET .* claimed"):
        async with client():
            pass


# What plugins learn of providers.


async def test_a_plugin_reads_how_callers_send_credentials(servers: Path) -> None:
    provider(servers, "window", security_scheme={"type": "apiKey", "in": "header", "name": "x-window"})
    async with client({"x-oauth": "in"}, api_key="k") as caller:
        schemes = (await caller.post("/desk")).json()
        document = (await caller.get("/openapi.json")).json()
    assert schemes == {
        "key": {"type": "http", "scheme": "Bearer"},
        "blue": {"type": "http", "scheme": "Blue"},
        "oauth": {"type": "http", "scheme": "Bearer"},
        "window": {"type": "apiKey", "in": "header", "name": "x-window"},
    }
    assert document["components"]["securitySchemes"] == schemes

"""OAuth protected resources of an app (RFC 9728): their URLs, their metadata, and the challenge that names it."""

from collections.abc import Callable, Mapping
from typing import Any

import pytest

from jimsapi.asgi import App, Connection, HTTPError, Request, Router
from jimsapi.asgi.testing import TestClient

from .driver import ask, http_scope

pytestmark = pytest.mark.anyio

ISSUER = "https://id.example.org/realms/chat/"
WELL_KNOWN = "/.well-known/oauth-protected-resource"


async def refuse(request: Connection, route: Any) -> None:
    """Admit nobody, and offer what the app knows about its authorization servers."""
    if request.headers.get("authorization") == "Bearer poor":
        raise HTTPError(403, None, challenged(request.resource_challenge(("more",), "insufficient_scope")))
    raise HTTPError(401, None, challenged(request.resource_challenge()))


def challenged(challenge: str | None) -> Mapping[str, str]:
    return {} if challenge is None else {"www-authenticate": challenge}


def tools(*servers: str, **options: Any) -> App:
    """An app with a resource, other private routes, a WebSocket and a public route."""
    app = App(admit=refuse)
    router = Router()

    @router.post("/tools", resource=True, scope="chat")
    async def use(request: Request) -> Any:
        return {}

    @router.get("/tools/{id}", scope="read")
    async def tool(request: Request) -> Any:
        return {}

    @router.get("/api/things", scope="things")
    async def things(request: Request) -> Any:
        return {}

    @router.get("/apiary")
    async def apiary(request: Request) -> Any:
        return {}

    @router.get("/open", public=True, scope="unused")
    async def opened(request: Request) -> Any:
        return {"url": request.public_url("/open/é ü"), "app": request.public_url()}

    app.include(router)
    if servers:
        app.resource_metadata(servers, areas=("/api",), **options)
    return app


# The URL of the app, as clients see it.


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, "http://test/mcp"),
        ({"scheme": "https"}, "https://test/mcp"),
        ({"scheme": "ws"}, "http://test/mcp"),
        ({"scheme": "wss"}, "https://test/mcp"),
        ({"host": "Chat.Example.org:8443", "scheme": "https"}, "https://chat.example.org:8443/mcp"),
        ({"host": "chat.example.org:443", "scheme": "https"}, "https://chat.example.org/mcp"),
        ({"host": "chat.example.org:80", "scheme": "https"}, "https://chat.example.org:80/mcp"),
        ({"host": "chat.example.org:80"}, "http://chat.example.org/mcp"),
        ({"host": "[::1]:8080"}, "http://[::1]:8080/mcp"),
        ({"root_path": "/bot"}, "http://test/bot/mcp"),
        ({"root_path": "/bot/"}, "http://test/bot/mcp"),
        ({"root_path": "/a b"}, "http://test/a%20b/mcp"),
    ],
)
async def test_a_public_url_has_the_scheme_the_host_and_the_prefix_that_the_client_used(
    changes: dict[str, Any], expected: str
) -> None:
    host = changes.pop("host", "test")
    assert Connection(http_scope(headers=[(b"host", host.encode())], **changes)).public_url("/mcp") == expected


@pytest.mark.parametrize(
    "host",
    [
        'evil", error="x', "evil\\", "evil/path", "user@evil", "evil?x", "evil#x", "a b", "evil,other", "<b>", "",
        "evil:port", "evil:", ":80", "[evil", "é", "a:123456", "a;b",
    ],
)  # fmt: skip
async def test_a_host_that_is_not_a_host_never_enters_a_public_url(host: str) -> None:
    headers = [(b"host", host.encode())]
    assert Connection(http_scope(headers=headers)).public_url("/mcp") == "http://127.0.0.1:8000/mcp"


@pytest.mark.parametrize(
    ("server", "expected"),
    [
        (("::1", 8000), "http://[::1]:8000"),
        (("127.0.0.1", 80), "http://127.0.0.1"),
        (("/run/jimsapi.sock", None), "http://localhost"),
        (None, "http://localhost"),
    ],
)
async def test_without_a_host_a_public_url_has_the_address_of_the_server(server: Any, expected: str) -> None:
    assert Connection(http_scope(headers=[], server=server)).public_url() == expected


async def test_a_path_in_a_public_url_is_percent_encoded() -> None:
    answer = (await ask(tools(), "GET", "/bot/open", root_path="/bot")).json()
    assert answer == {"url": "http://testserver/bot/open/%C3%A9%20%C3%BC", "app": "http://testserver/bot"}


# The metadata.


async def test_the_metadata_of_a_resource_names_its_url_its_servers_and_its_scopes() -> None:
    async with TestClient(tools(ISSUER, "https://second.example.org")) as client:
        answer = await client.get(f"{WELL_KNOWN}/tools")
        api = await client.get(f"{WELL_KNOWN}/api")
        whole = await client.get(WELL_KNOWN)
    assert answer.headers["content-type"] == "application/json"
    assert answer.json() == {
        "resource": "http://testserver/tools",
        "authorization_servers": [ISSUER, "https://second.example.org"],
        "scopes_supported": ["chat", "read"],
        "bearer_methods_supported": ["header"],
    }
    assert (api.json()["resource"], api.json()["scopes_supported"]) == ("http://testserver/api", ["things"])
    assert (whole.json()["resource"], whole.json()["scopes_supported"]) == (
        "http://testserver",
        ["chat", "read", "things"],
    )


async def test_scopes_that_every_token_needs_replace_those_of_the_routes() -> None:
    async with TestClient(tools(ISSUER, scopes=("openid", "use", "use", 'br"oken', "", "é"))) as client:
        answer = await client.get(f"{WELL_KNOWN}/tools")
        refused = await client.post("/tools")
    assert answer.json()["scopes_supported"] == ["openid", "use"]
    assert refused.headers["www-authenticate"].endswith(', scope="openid use"')


async def test_an_app_without_scopes_lists_none() -> None:
    app = App(admit=refuse)

    @app.get("/private", resource=True)
    async def private(request: Request) -> Any:
        return {}

    app.resource_metadata((ISSUER,))
    async with TestClient(app) as client:
        assert "scopes_supported" not in (await client.get(f"{WELL_KNOWN}/private")).json()
        challenge = (await client.get("/private")).headers["www-authenticate"]
    assert challenge == f'Bearer resource_metadata="http://testserver{WELL_KNOWN}/private"'


@pytest.mark.parametrize(
    ("path", "resource"),
    [
        (f"/bot{WELL_KNOWN}/tools", "/bot/tools"),
        (f"/bot{WELL_KNOWN}/tools/", "/bot/tools"),
        (f"/bot/tools{WELL_KNOWN}", "/bot/tools"),
        (f"/bot{WELL_KNOWN}", "/bot"),
        (f"/bot{WELL_KNOWN}/", "/bot"),
        (f"/bot{WELL_KNOWN}/bot/tools", "/bot/tools"),  # how the server passes on the path of the whole URL
        (f"/bot{WELL_KNOWN}/bot", "/bot"),
        (f"/bot{WELL_KNOWN}/botany", None),
        (f"/bot{WELL_KNOWN}/botany/tools", None),
        (f"/bot{WELL_KNOWN}/open", None),
        (f"/bot{WELL_KNOWN}/apiary", None),
        (f"/bot{WELL_KNOWN}/tools/x", None),
        (f"/bot{WELL_KNOWN}/%2e%2e/tools", None),
        (f"/bot/open{WELL_KNOWN}", None),
    ],
)
async def test_below_a_prefix_the_metadata_is_at_each_url_that_clients_try(path: str, resource: str | None) -> None:
    answer = await ask(tools(ISSUER), "GET", path, root_path="/bot")
    assert answer.status_code == (404 if resource is None else 200)
    assert answer.json().get("resource") == (None if resource is None else f"http://testserver{resource}")


async def test_an_app_that_another_app_mounts_names_its_resources_below_the_mount() -> None:
    inner = tools(ISSUER)

    async def outer(scope: Any, receive: Any, send: Any) -> None:
        await inner({**scope, "root_path": "/shop"}, receive, send)

    async with TestClient(outer) as client:
        challenge = (await client.post("/shop/tools")).headers["www-authenticate"]
        url = challenge.split('"')[1]
        answer = await client.get(url)
    assert url == f"http://testserver/shop{WELL_KNOWN}/tools"
    assert answer.json()["resource"] == "http://testserver/shop/tools"


async def test_pages_of_every_origin_may_read_the_metadata_also_with_headers_of_their_own() -> None:
    headers = {"origin": "https://page.example.org"}
    asked = {
        **headers,
        "access-control-request-method": "GET",
        "access-control-request-headers": "mcp-protocol-version",
    }
    async with TestClient(tools(ISSUER), headers=headers) as client:
        answer = await client.get(f"{WELL_KNOWN}/tools")
        missing = await client.get(f"{WELL_KNOWN}/missing")
        preflight = await client.options(f"{WELL_KNOWN}/tools", headers=asked)
        plain = await client.options(f"{WELL_KNOWN}/tools")
        head = await client.head(f"{WELL_KNOWN}/tools")
    for one in (answer, missing, preflight, plain, head):
        assert one.headers.get_list("access-control-allow-origin") == ["*"]
    assert (preflight.status_code, plain.status_code, head.status_code) == (204, 204, 200)
    assert preflight.headers["access-control-allow-headers"] == "mcp-protocol-version"
    assert "GET" in preflight.headers["access-control-allow-methods"]


async def test_an_app_without_authorization_servers_serves_no_metadata_and_offers_no_challenge() -> None:
    async with TestClient(tools()) as client:
        assert (await client.get(f"{WELL_KNOWN}/tools")).status_code == 404
        assert "www-authenticate" not in (await client.post("/tools")).headers


# The challenge.


@pytest.mark.parametrize(
    ("method", "path", "resource", "scope"),
    [
        ("POST", "/tools", "/tools", ', scope="chat"'),
        ("GET", "/tools/1", "/tools", ', scope="read"'),
        ("GET", "/api/things", "/api", ', scope="things"'),
        ("GET", "/apiary", "", ""),
    ],
)
async def test_a_challenge_names_the_metadata_of_the_resource_that_contains_the_route(
    method: str, path: str, resource: str, scope: str
) -> None:
    async with TestClient(tools(ISSUER), root_path="/bot") as client:
        answer = await client.request(method, f"/bot{path}")
        url = answer.headers["www-authenticate"].split('"')[1]
        metadata = await client.get(url)
    assert answer.headers["www-authenticate"] == (
        f'Bearer resource_metadata="http://testserver/bot{WELL_KNOWN}{resource}"{scope}'
    )
    assert metadata.json()["resource"] == f"http://testserver/bot{resource}"


async def test_a_challenge_for_more_scopes_lists_all_that_the_token_needs() -> None:
    async with TestClient(tools(ISSUER), headers={"authorization": "Bearer poor"}) as client:
        answer = await client.post("/tools")
    expected = f'resource_metadata="http://testserver{WELL_KNOWN}/tools", scope="chat more", error="insufficient_scope"'
    assert (answer.status_code, answer.headers["www-authenticate"]) == (403, f"Bearer {expected}")


async def test_no_host_breaks_out_of_the_challenge() -> None:
    async with TestClient(tools(ISSUER)) as client:
        answer = await client.post("/tools", headers={"host": 'evil", resource_metadata="https://evil.example.org'})
    assert "evil" not in answer.headers["www-authenticate"]


# Declaring resources.


def with_parameters(app: App) -> None:
    @app.get("/tools/{id}", resource=True)
    async def tool(request: Request) -> Any:
        return {}


def public(app: App) -> None:
    @app.get("/tools", resource=True, public=True)
    async def tool(request: Request) -> Any:
        return {}


@pytest.mark.parametrize(("declare", "fault"), [(with_parameters, "one URL"), (public, "it is public")])
def test_a_route_that_cannot_be_a_resource_is_refused(declare: Callable[[App], None], fault: str) -> None:
    with pytest.raises(ValueError, match=fault):
        declare(App())


def test_one_text_in_place_of_a_list_of_servers_is_refused() -> None:
    with pytest.raises(TypeError, match="collections of texts"):
        App().resource_metadata(ISSUER)


def test_a_router_shows_the_security_schemes_of_its_app_and_nobody_can_change_them() -> None:
    given = {"key": {"type": "http", "scheme": "Bearer"}}
    router, app = Router(security_schemes=given), App(security_schemes=given)
    given.clear()
    assert router.security_schemes == app.security_schemes == {"key": {"type": "http", "scheme": "Bearer"}}
    with pytest.raises(TypeError):
        router.security_schemes["other"] = {}  # type: ignore[index] # the mapping is read-only
    assert Router().security_schemes == {}

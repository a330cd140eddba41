"""Pages of other origins: which may read responses, and the headers from which their browsers know it."""

import pytest

from jimsapi.asgi import App, Cors, HTTPError, JSONResponse, Request, Response, Route
from jimsapi.asgi.testing import TestClient

from .driver import ask

pytestmark = pytest.mark.anyio

SHOP = "https://shop.example"
EVIL = "https://evil.example"


async def refuse(request: Request, route: Route) -> object:
    raise HTTPError(401, "Unauthorized")


def shop(*origins: str) -> App:
    app = App(cors=Cors(origins, ("x-run-id", "retry-after")) if origins else None, admit=refuse)

    @app.get("/things", public=True)
    async def things(request: Request) -> Response:
        return JSONResponse([1], headers={"x-run-id": "r"})

    @app.post("/things")
    async def make(request: Request) -> Response:
        return JSONResponse([2])

    return app


@pytest.mark.parametrize("origin", [SHOP, "https://SHOP.example", "https://shop.example:443"])
async def test_an_allowed_origin_reads_the_answer_and_the_exposed_headers(origin: str) -> None:
    answer = await ask(shop(SHOP), "GET", "/things", headers={"origin": origin})
    assert answer.headers["access-control-allow-origin"] == origin
    assert answer.headers["access-control-expose-headers"] == "x-run-id, retry-after"
    assert answer.headers["vary"] == "origin"
    assert "access-control-allow-credentials" not in answer.headers


@pytest.mark.parametrize("origin", [EVIL, "http://shop.example", "https://shop.example.evil.example", "null", ""])
async def test_another_origin_reads_nothing(origin: str) -> None:
    answer = await ask(shop(SHOP), "GET", "/things", headers={"origin": origin})
    assert answer.status_code == 200
    assert "access-control-allow-origin" not in answer.headers
    assert answer.headers["vary"] == "origin"


async def test_errors_are_readable_too() -> None:
    async with TestClient(shop(SHOP)) as client:
        refused = await client.post("/things", headers={"origin": SHOP})
        missing = await client.get("/nowhere", headers={"origin": SHOP})
    assert [refused.status_code, missing.status_code] == [401, 404]
    for answer in (refused, missing):
        assert answer.headers["access-control-allow-origin"] == SHOP


async def test_a_preflight_request_needs_no_credentials_and_allows_what_the_route_has() -> None:
    asked = {
        "origin": SHOP,
        "access-control-request-method": "POST",
        "access-control-request-headers": "authorization, content-type",
    }
    async with TestClient(shop(SHOP)) as client:
        answer = await client.options("/things", headers=asked)
        of_evil = await client.options("/things", headers={**asked, "origin": EVIL})
        plain = await client.options("/things", headers={"origin": SHOP})
    assert answer.status_code == 204
    assert answer.headers["access-control-allow-origin"] == SHOP
    assert answer.headers["access-control-allow-methods"] == "GET, HEAD, OPTIONS, POST"
    assert answer.headers["access-control-allow-headers"] == "authorization, content-type"
    assert answer.headers["access-control-max-age"] == "600"
    assert "access-control-allow-methods" not in of_evil.headers
    assert plain.headers["allow"] == "GET, HEAD, OPTIONS, POST"


async def test_a_preflight_request_with_header_names_that_http_lacks_allows_no_header() -> None:
    asked = {"origin": SHOP, "access-control-request-method": "POST", "access-control-request-headers": "x-a; <script>"}
    answer = await ask(shop(SHOP), "OPTIONS", "/things", headers=asked)
    assert answer.status_code == 204
    assert "access-control-allow-headers" not in answer.headers


async def test_an_origin_may_be_given_with_a_slash_at_its_end() -> None:
    answer = await ask(shop(SHOP + "/"), "GET", "/things", headers={"origin": SHOP})
    assert answer.headers["access-control-allow-origin"] == SHOP


async def test_a_page_can_read_the_404_of_a_request_that_needs_a_preflight() -> None:
    asked = {"origin": SHOP, "access-control-request-method": "PATCH"}
    async with TestClient(shop(SHOP)) as client:
        preflight = await client.options("/nowhere", headers=asked)
        without = await client.options("/nowhere", headers={"origin": SHOP})
    assert preflight.status_code == 204
    assert "PATCH" in preflight.headers["access-control-allow-methods"]
    assert without.status_code == 404


async def test_headers_of_the_handler_are_kept() -> None:
    app = App(cors=Cors((SHOP,)))

    @app.get("/", public=True)
    async def own(request: Request) -> Response:
        return JSONResponse({}, headers={"access-control-allow-origin": EVIL})

    answer = await ask(app, "GET", "/", headers={"origin": SHOP})
    assert answer.headers.get_list("access-control-allow-origin") == [EVIL]


@pytest.mark.parametrize("origin", ["https://*.shop.example", "shop.example", "https://shop.example/path", "null", ""])
def test_what_no_browser_sends_as_an_origin_is_refused(origin: str) -> None:
    with pytest.raises(ValueError, match="is not an origin"):
        Cors((origin,))


def test_one_text_in_place_of_a_collection_is_refused() -> None:
    with pytest.raises(TypeError, match="a collection of texts"):
        Cors(SHOP)
    with pytest.raises(TypeError, match="a collection of texts"):
        Cors((SHOP,), "x-run-id")


async def test_every_origin_may_read_what_is_open_to_all() -> None:
    async with TestClient(shop("*")) as client:
        answer = await client.get("/things", headers={"origin": EVIL})
        without = await client.get("/things")
    assert answer.headers["access-control-allow-origin"] == "*"
    assert "vary" not in answer.headers
    assert without.headers["access-control-allow-origin"] == "*"  # a cache may serve it to a page later


async def test_an_app_without_cors_adds_no_header_for_other_origins() -> None:
    async with TestClient(shop()) as client:
        answer = await client.get("/things", headers={"origin": SHOP})
        preflight = await client.options("/things", headers={"origin": SHOP, "access-control-request-method": "POST"})
    for headers in (answer.headers, preflight.headers):
        assert not [name for name in headers if name.startswith("access-control") or name == "vary"]

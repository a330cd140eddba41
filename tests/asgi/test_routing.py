"""Which handler answers which path."""

import random
from dataclasses import replace
from functools import partial, wraps
from inspect import signature
from itertools import product
from typing import Any
from uuid import UUID

import pytest

from jimsapi.asgi import App, JSONResponse, Request, Response, Route, RouteConflict, Router
from jimsapi.asgi.routing import parse_path
from jimsapi.asgi.testing import TestClient

from .driver import Exchange, ask, http_scope

pytestmark = pytest.mark.anyio

THE_ID = "0192b5f2-2c03-7b91-9c6c-9a1234567890"


def teller(name: str) -> Any:
    async def handler(request: Request) -> Response:
        return JSONResponse({"by": name, "params": request.path_params})

    return handler


def app_of(*paths: str, method: str = "GET") -> App:
    app = App()
    for path in paths:
        app.route(path, [method])(teller(path))
    return app


async def answered_by(app: App, path: str, method: str = "GET") -> tuple[str, dict[str, Any]]:
    answer = await ask(app, method, path)
    assert answer.status_code == 200, answer.text
    return answer.json()["by"], answer.json()["params"]


async def status_of(app: App, path: str, method: str = "GET") -> int:
    return (await ask(app, method, path)).status_code


async def test_an_exact_path_is_found() -> None:
    assert await answered_by(app_of("/", "/things", "/things/all"), "/things/all") == ("/things/all", {})


async def test_a_literal_goes_before_a_typed_parameter_before_text_before_the_rest() -> None:
    app = app_of("/x/{rest:path}", "/x/{text}", "/x/{n:int}", "/x/{id:uuid}", "/x/me")
    assert (await answered_by(app, "/x/me"))[0] == "/x/me"
    assert (await answered_by(app, f"/x/{THE_ID}"))[0] == "/x/{id:uuid}"
    assert await answered_by(app, "/x/-12") == ("/x/{n:int}", {"n": -12})
    assert await answered_by(app, "/x/else") == ("/x/{text}", {"text": "else"})
    assert await answered_by(app, "/x/a/b") == ("/x/{rest:path}", {"rest": "a/b"})


async def test_a_dead_end_is_left_for_another_branch() -> None:
    app = app_of("/{a}/one/{b:int}", "/fixed/{c}/two", "/{rest:path}")
    assert await answered_by(app, "/fixed/one/7") == ("/{a}/one/{b:int}", {"a": "fixed", "b": 7})
    assert await answered_by(app, "/fixed/one/two") == ("/fixed/{c}/two", {"c": "one"})
    assert await answered_by(app, "/fixed/one/six") == ("/{rest:path}", {"rest": "fixed/one/six"})


async def test_a_route_matches_by_path_and_method_together() -> None:
    app = App()
    app.get("/x/{n:int}")(teller("get"))
    app.post("/x/{s}")(teller("post"))
    app.delete("/x/me")(teller("delete"))
    assert await answered_by(app, "/x/5", "POST") == ("post", {"s": "5"})
    assert await answered_by(app, "/x/me", "POST") == ("post", {"s": "me"})
    async with TestClient(app) as client:
        wrong = await client.put("/x/5")
        assert (wrong.status_code, wrong.json()) == (405, {"detail": "Method Not Allowed"})
        assert wrong.headers["allow"] == "GET, HEAD, OPTIONS, POST"


@pytest.mark.parametrize("text", [THE_ID, THE_ID.upper(), THE_ID.replace("-", "")])
async def test_a_uuid_may_be_dashed_or_bare_in_any_case(text: str) -> None:
    found = Exchange()
    seen: list[Any] = []
    app = App()

    @app.get("/x/{id:uuid}")
    async def handler(request: Request) -> Response:
        seen.append(request.path_params["id"])
        return Response()

    await found.run(app, http_scope(path=f"/x/{text}"))
    assert seen == [UUID(THE_ID)]


@pytest.mark.parametrize(
    "text", [f"{{{THE_ID}}}", THE_ID[:-1], THE_ID + "0", "0192b5f2-2c037b91-9c6c-9a1234567890", "x"]
)
async def test_what_is_no_uuid_does_not_match_one(text: str) -> None:
    assert await status_of(app_of("/x/{id:uuid}"), f"/x/{text}") == 404


@pytest.mark.parametrize("text", ["٣", "1_0", "+1", "1.0", "--1", "9223372036854775808", "9" * 5000])
async def test_what_is_no_64_bit_integer_in_ascii_does_not_match_one(text: str) -> None:
    assert await status_of(app_of("/x/{n:int}"), f"/x/{text}") == 404


async def test_integers_match_up_to_the_limits_of_64_bits() -> None:
    app = app_of("/x/{n:int}")
    assert (await answered_by(app, "/x/9223372036854775807"))[1] == {"n": 2**63 - 1}
    assert (await answered_by(app, "/x/-9223372036854775808"))[1] == {"n": -(2**63)}


async def test_a_text_parameter_is_never_empty_and_a_rest_may_be() -> None:
    assert await status_of(app_of("/x/{a}/y"), "/x//y") == 404
    assert await answered_by(app_of("/x/{rest:path}"), "/x/") == ("/x/{rest:path}", {"rest": ""})


async def test_parameters_of_one_request_are_not_seen_by_the_next() -> None:
    app = App()
    seen: list[dict[str, Any]] = []

    @app.get("/x/{a}")
    async def handler(request: Request) -> Response:
        seen.append(dict(request.path_params))
        request.path_params["spoilt"] = True
        return Response()

    for _ in range(2):
        await Exchange().run(app, http_scope(path="/x/1"))
    assert seen == [{"a": "1"}, {"a": "1"}]


# Slashes, percent signs, mounting.


async def test_a_closing_slash_makes_another_path_and_the_only_one_there_is_gets_the_caller() -> None:
    app = app_of("/things", "/boxes/", "/both", "/both/")
    async with TestClient(app) as client:
        for asked, location in [("/things/?a=1&b=%20", "/things?a=1&b=%20"), ("/boxes", "/boxes/")]:
            answer = await client.get(asked)
            assert (answer.status_code, answer.headers["location"]) == (307, location)
    assert (await answered_by(app, "/both"))[0] == "/both"
    assert (await answered_by(app, "/both/"))[0] == "/both/"
    assert await status_of(app, "/") == 404


async def test_a_redirect_never_leads_to_another_host() -> None:
    app = app_of("//evil.test", "/{a}/x")
    exchange = await Exchange().run(app, http_scope(path="//evil.test/"))
    assert (exchange.status, exchange.headers["location"]) == (307, "/evil.test")
    exchange = await Exchange().run(app, http_scope(path="/\\evil.test/x/"))
    assert (exchange.status, exchange.headers["location"]) == (307, "/%5Cevil.test/x")


async def test_a_redirect_carries_no_line_break_into_its_header() -> None:
    exchange = await Exchange().run(
        app_of("/x/{a}"), http_scope(path="/x/a\r\nb: c/", raw_path=None, query_string=b"\r\nset-cookie: x")
    )
    assert exchange.status == 307
    assert exchange.headers["location"] == "/x/a%0D%0Ab%3A%20c?%0D%0Aset-cookie:%20x"


async def test_an_encoded_slash_separates_no_segments() -> None:
    app = app_of("/files/{name}", "/files/{a}/{b}")
    found = await Exchange().run(app, http_scope(path="/files/a/b", raw_path=b"/files/a%2Fb"))
    assert found.body == b'{"by":"/files/{name}","params":{"name":"a/b"}}'
    found = await Exchange().run(app, http_scope(path="/files/a/b", raw_path=b"/files/a/b"))
    assert found.body == b'{"by":"/files/{a}/{b}","params":{"a":"a","b":"b"}}'


async def test_an_encoded_slash_does_not_reach_an_exact_path() -> None:
    found = await Exchange().run(app_of("/things/all"), http_scope(path="/things/all", raw_path=b"/things%2fall"))
    assert found.status == 404


async def test_an_encoded_slash_is_kept_apart_below_a_root_path_too() -> None:
    app = app_of("/files/{name}")
    for raw in (b"/api/v1/files/a%2Fb", b"/files/a%2Fb"):
        scope = http_scope(path=raw.replace(b"%2F", b"/").decode(), raw_path=raw, root_path="/api/v1")
        found = await Exchange().run(app, scope)
        assert found.body == b'{"by":"/files/{name}","params":{"name":"a/b"}}'


async def test_a_root_path_does_not_end_at_an_encoded_slash() -> None:
    found = await Exchange().run(app_of("/", "/b"), http_scope(path="/a/b", raw_path=b"/a%2Fb", root_path="/a"))
    assert found.status == 404


async def test_other_encoded_characters_match_decoded() -> None:
    app = app_of("/caf\u00e9/{name}")
    answer = await ask(app, "GET", "/caf%C3%A9/a%20b%25")
    assert answer.json()["params"] == {"name": "a b%"}


async def test_bytes_that_are_no_utf_8_are_answered_without_a_500() -> None:
    found = await Exchange().run(app_of("/x/{a}"), http_scope(path="/x/\ufffd", raw_path=b"/x/%ff"))
    assert found.status == 200
    found = await Exchange().run(app_of("/x/{a}"), http_scope(path="/x/a/\ufffd", raw_path=b"/x/a%2F%ff"))
    assert "\ufffd" in found.body.decode()


@pytest.mark.parametrize("path", ["/api/things", "/things"])
async def test_a_root_path_is_stripped_whether_the_server_put_it_before_the_path_or_not(path: str) -> None:
    found = await Exchange().run(app_of("/things"), http_scope(path=path, root_path="/api"))
    assert found.status == 200


async def test_a_root_path_is_stripped_on_a_segment_boundary_only() -> None:
    app = app_of("/things", "/apix/things")
    found = await Exchange().run(app, http_scope(path="/apix/things", root_path="/api"))
    assert found.body.startswith(b'{"by":"/apix/things"')
    found = await Exchange().run(app_of("/x/things"), http_scope(path="/apix/things", root_path="/api"))
    assert found.status == 404


async def test_a_path_that_only_looks_as_if_it_held_the_root_path_is_found() -> None:
    found = await Exchange().run(app_of("/api/v1/chat"), http_scope(path="/api/v1/chat", root_path="/api"))
    assert found.status == 200


@pytest.mark.parametrize(("path", "root"), [("/api", "/api"), ("/api/", "/api"), ("", ""), ("/", "/")])
async def test_the_root_of_a_mounted_app_is_its_first_slash(path: str, root: str) -> None:
    assert (await Exchange().run(app_of("/"), http_scope(path=path, root_path=root))).status == 200


async def test_a_redirect_below_a_root_path_leads_below_it() -> None:
    for path in ("/api/things/", "/things/"):
        found = await Exchange().run(app_of("/things"), http_scope(path=path, root_path="/api"))
        assert (found.status, found.headers["location"]) == (307, "/api/things")


async def test_a_wrapper_that_rewrites_the_path_is_believed() -> None:
    found = await Exchange().run(app_of("/new", "/old"), http_scope(path="/new", raw_path=b"/old"))
    assert found.body.startswith(b'{"by":"/new"')


# Declaring.


@pytest.mark.parametrize(
    ("first", "second"),
    [("/x/{a}", "/x/{b}"), ("/x", "/x"), ("/{a:int}/{r:path}", "/{b:int}/{s:path}"), ("/{i:uuid}", "/{j:uuid}")],
)
def test_a_route_claimed_twice_is_refused_and_both_handlers_are_named(first: str, second: str) -> None:
    app = App()

    @app.get(first)
    async def early(request: Request) -> Response:
        return Response()

    async def late(request: Request) -> Response:
        return Response()

    with pytest.raises(RouteConflict, match=r"early.*late"):
        app.get(second)(late)
    app.post(second)(late)
    assert len(app.routes) == 2


def test_paths_that_differ_in_the_kind_of_a_parameter_are_two() -> None:
    assert len(app_of("/x/{a}", "/x/{a:int}", "/x/{a:uuid}", "/x/{a:path}").routes) == 4


@pytest.mark.parametrize(
    ("path", "complaint"),
    [
        ("things", "begin with a slash"),
        ("/{a}.txt", "neither plain text nor one whole"),
        ("/{a", "neither plain text nor one whole"),
        ("/a}", "neither plain text nor one whole"),
        ("/{a:float}", "kind 'float' is unknown"),
        ("/{a}/{a}", "occurs twice"),
        ("/{rest:path}/more", "must be the last segment"),
    ],
)
def test_a_path_that_cannot_work_is_refused_with_the_reason(path: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        Router().get(path)(teller("x"))


def test_a_handler_that_is_not_async_is_refused() -> None:
    def handler(request: Request) -> Response:
        return Response()

    with pytest.raises(ValueError, match="must be `async def`"):
        Router().get("/x")(handler)
    for router in (Router(), App()):
        with pytest.raises(ValueError, match="must be `async def`"):
            router.add(Route("/x", ("GET",), handler))  # type: ignore[arg-type]  # a plain function


async def test_a_route_object_can_be_added_to_an_app_and_to_a_router() -> None:
    app, router = App(), Router()
    app.add(Route("/a", ("GET",), teller("a")))
    router.add(Route("/b", ("GET",), teller("b")))
    app.include(router)
    assert await answered_by(app, "/a") == ("a", {})
    assert await answered_by(app, "/b") == ("b", {})
    assert [route.app for route in app.routes] == [app, app]


async def no_parameter() -> Any: ...


async def path_parameter(request: Request, name: str) -> Any: ...


async def named_parameter(request: Request, *, name: str) -> Any: ...


async def shown_parameter(request: Request, *arguments: Any) -> Any: ...


shown_parameter.__signature__ = signature(path_parameter)  # type: ignore[attr-defined]


@pytest.mark.parametrize("handler", [no_parameter, path_parameter, named_parameter, shown_parameter])
def test_a_handler_that_cannot_be_called_with_the_request_alone_is_refused(handler: Any) -> None:
    with pytest.raises(ValueError, match=r"_parameter of /\{name\} must have one parameter.*argument"):
        Router().get("/{name}")(handler)
    with pytest.raises(ValueError, match=r"_parameter of /\{name\} must have one parameter.*argument"):
        Router().websocket("/{name}")(handler)


async def with_defaults(request: Request, name: str = "", *, tail: str = "") -> Any:
    return [name, tail]


async def any_arguments(*arguments: Any, **more: Any) -> Any:
    return [len(arguments), len(more)]


@pytest.mark.parametrize(("handler", "answer"), [(with_defaults, b'["",""]'), (any_arguments, b"[1,0]")])
async def test_a_handler_that_can_be_called_with_the_request_alone_is_called_so(handler: Any, answer: bytes) -> None:
    app = App()
    app.get("/x")(handler)
    assert (await ask(app, "GET", "/x")).content == answer


def test_a_decorator_may_pass_arguments_that_the_handler_shows() -> None:
    @wraps(path_parameter)
    async def wrapped(request: Request) -> Any:
        return await path_parameter(request, "ann")

    Router().get("/{name}")(wrapped)
    Router().get("/{name}")(partial(path_parameter, name="ann"))


async def test_included_routes_answer_below_their_prefixes() -> None:
    inner, outer, app = Router(), Router(), App()
    inner.get("/{n:int}")(teller("inner"))
    inner.get("")(teller("bare"))
    outer.include(inner, "/inner")
    app.include(outer, "/outer")
    assert await answered_by(app, "/outer/inner/5") == ("inner", {"n": 5})
    assert await answered_by(app, "/outer/inner") == ("bare", {})
    assert app.routes[0].path == "/outer/inner/{n:int}"
    assert app.routes[0].app is app


@pytest.mark.parametrize("kind", [App, Router])
def test_a_subclass_that_has_an_add_of_its_own_gets_included_routes_too(kind: type[Router]) -> None:
    class Tagging(kind):  # type: ignore[misc, valid-type]
        def add(self, route: Route) -> None:
            super().add(replace(route, tags=("mine",)))

    inner, outer = Router(), Tagging()
    inner.get("/x")(teller("x"))
    outer.include(inner, "/inner")
    assert [(route.path, route.tags) for route in outer.routes] == [("/inner/x", ("mine",))]


def test_a_conflict_shows_through_include_and_after_it_a_router_takes_no_more() -> None:
    router, app = Router(), app_of("/a/b")
    router.get("/b")(teller("b"))
    with pytest.raises(RouteConflict):
        app.include(router, "/a")
    app.include(router, "/c")
    with pytest.raises(RuntimeError, match="included already"):
        router.get("/late")(teller("late"))


@pytest.mark.parametrize("prefix", ["a", "/a/"])
def test_a_prefix_that_would_glue_or_double_slashes_is_refused(prefix: str) -> None:
    with pytest.raises(ValueError, match="prefix"):
        App().include(Router(), prefix)


async def test_routes_may_come_until_the_first_request_and_no_later() -> None:
    app = app_of("/x")
    app.get("/y")(teller("y"))
    await Exchange().run(app, http_scope(path="/y"))
    with pytest.raises(RuntimeError, match="answered requests already"):
        app.get("/z")(teller("z"))
    with pytest.raises(RuntimeError, match="answered requests already"):
        app.wrap(lambda inner: inner)


# Of the routes that fit and have the method, the one whose segments are the narrowest, from the left.

READ_AS: dict[str, dict[str, Any]] = {
    "uuid": {THE_ID: UUID(THE_ID)},
    "int": {"7": 7},
    "": {"a": "a", "7": "7", THE_ID: THE_ID},
}
"""What each kind of parameter makes of the segments that it takes, the narrowest kind first."""
SEGMENTS = ("a", "7", THE_ID, "")
PATHS = [list(path) for length in (1, 2, 3) for path in product(SEGMENTS, repeat=length)]
BEGINNINGS = ("7", "", "{one:uuid}", "{one:int}", "{one}")
ENDS = ("7", "", "{two:uuid}", "{two:int}", "{two}", "{two:path}")
TEMPLATES = [f"/{part}" for part in (*BEGINNINGS, *ENDS[-1:])] + [
    f"/{part}/{end}" for part, end in product(BEGINNINGS, ENDS)
]


def reading(template: str, segments: list[str]) -> tuple[list[int], dict[str, Any]] | None:
    """How wide a template is, segment by segment, and what its parameters are; None if the segments do not fit."""
    ranks: list[int] = []
    values: dict[str, Any] = {}
    parts = parse_path(template)
    for part, segment in zip(parts, segments, strict=False):
        if isinstance(part, str):
            if part != segment:
                return None
            ranks.append(0)
        elif part.kind == "path":
            return [*ranks, 9], {**values, part.name: "/".join(segments[len(ranks) :])}
        elif segment not in READ_AS[part.kind]:
            return None
        else:
            values[part.name] = READ_AS[part.kind][segment]
            ranks.append(1 + list(READ_AS).index(part.kind))
    return (ranks, values) if len(parts) == len(segments) else None


def test_the_narrowest_of_all_routes_that_fit_answers() -> None:
    drawn = random.Random(6)
    for _ in range(100):
        routes = [(template, drawn.choice(("GET", "GET", "HEAD", "POST"))) for template in drawn.sample(TEMPLATES, 8)]
        router = Router()
        for template, method in routes:
            router.route(template, [method])(teller(template))
        for segments in PATHS:
            fitting = [(found, *route) for route in routes if (found := reading(route[0], segments)) is not None]
            allowed = {method for _, _, method in fitting}
            for asked in ("GET", "HEAD", "PUT"):
                sought = "GET" if asked == "HEAD" and "HEAD" not in allowed else asked
                narrowest = min((fit for fit in fitting if fit[2] == sought), default=None)
                match = router.match(http_scope(asked, "/" + "/".join(segments)))
                if narrowest is None:
                    assert match.route is None
                    assert match.allowed == allowed
                else:
                    (_, values), template, _ = narrowest
                    assert match.route is not None
                    assert (match.route.path, match.path_params) == (template, values), (routes, segments)


def in_capitals(answer: Response) -> Response:
    return Response(bytes(answer.body or b"").upper(), status=answer.status, headers={"x-form": "capitals"})


async def test_errors_below_a_path_that_no_route_matches_have_the_form_that_was_declared() -> None:
    router = Router()
    router.post("/things")(teller("things"))
    router.reword_below("/", in_capitals)
    app = app_of("/v2")
    app.include(router, "/v1")
    async with TestClient(app) as client:
        for method, path, status in (("GET", "/v1/nowhere", 404), ("GET", "/v1/things", 405), ("GET", "/v1/", 404)):
            answer = await client.request(method, path)
            assert (answer.status_code, answer.headers.get("x-form")) == (status, "capitals"), path
        for path in ("/nowhere", "/v10", "/v1"):
            assert "x-form" not in (await client.get(path)).headers
        assert (await client.options("/v1/things")).status_code == 204


def test_a_form_for_a_path_without_a_slash_is_refused() -> None:
    with pytest.raises(ValueError, match="slash"):
        Router().reword_below("v1", in_capitals)

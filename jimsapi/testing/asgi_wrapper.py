"""The contract of a wrapper of the ASGI app, as tests. Requests are answered with it as without it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from jimsapi.asgi.app import App
from jimsapi.asgi.connection import Request
from jimsapi.asgi.errors import HTTPError
from jimsapi.asgi.response import Response
from jimsapi.asgi.streaming import StreamingResponse
from jimsapi.asgi.testing import TestClient
from jimsapi.asgi.types import ASGIApp, Receive, Scope, Send
from jimsapi.asgi.websocket import WebSocket
from jimsapi.testing.contract import BuiltContract, CapturedOutput, nothing_left, outcome, within

BODY = b"0123456789" * 20_000


class AsgiWrapperContract(BuiltContract):
    """Derive a class from this one in a test module, and declare the plugin and its options:

        class TestHsts(AsgiWrapperContract):
            distribution = "jimsapi-hsts"
            settings = {}
            unconfigured = DoesNotApply("it always adds the header")

    pytest then runs every case against the installed plugin: with requests, streams and WebSockets of an app that the
    contract has. What the wrapper adds is for tests of your own.
    """

    hook = "jimsapi_asgi_wrapper"

    @asynccontextmanager
    async def wrapped(self, app: App) -> AsyncIterator[TestClient]:
        """Return a client of an app that is wrapped as the server does it."""
        async with self.opened() as wrapper:
            app.wrap(wrapper)
            async with TestClient(app) as client:
                yield client

    async def test_answers_have_the_status_and_body_of_the_app(self) -> None:
        requests = [("GET", "/"), ("HEAD", "/"), ("POST", "/"), ("GET", "/fails"), ("GET", "/no/such/path")]
        async with TestClient(make_app()) as client:
            expected = [await answer_of(client, *request) for request in requests]
        async with self.wrapped(make_app()) as client:
            for request, wanted in zip(requests, expected, strict=True):
                assert await answer_of(client, *request) == wanted, f"the answer to {' '.join(request)} is another one"

    async def test_a_body_in_parts_arrives_whole(self) -> None:
        async def parts() -> AsyncIterator[bytes]:
            for start in range(0, len(BODY), 50_000):
                yield BODY[start : start + 50_000]

        async with self.wrapped(make_app()) as client:
            assert (await within(client.post("/", content=parts()))).content == BODY

    async def test_a_stream_is_not_held_back(self) -> None:
        gate = asyncio.Event()
        app = make_app()

        @app.get("/stream")
        async def stream(request: Request) -> Response:
            async def parts() -> AsyncIterator[bytes]:
                yield b"first"
                await gate.wait()
                yield b"last"

            return StreamingResponse(parts())

        async def read(client: TestClient) -> list[bytes]:
            async with client.stream("GET", "/stream") as answer:
                received = []
                async for part in answer.aiter_bytes():
                    received.append(part)
                    gate.set()
                return received

        async with self.wrapped(app) as client:
            try:
                received = await within(read(client))
            except TimeoutError:
                raise AssertionError("it holds the parts of a stream back until the stream ends") from None
            finally:
                gate.set()
        assert received == [b"first", b"last"]

    async def test_a_websocket_works(self) -> None:
        async with self.wrapped(make_app()) as client, client.websocket("/ws") as ws:
            for text in ("one", "two"):
                await ws.send_text(text)
                assert await within(ws.receive()) == text

    async def test_concurrent_requests_get_their_own_answers(self) -> None:
        bodies = [f"body {number}".encode() for number in range(20)]
        async with self.wrapped(make_app()) as client:
            answers = await within(asyncio.gather(*(client.post("/", content=body) for body in bodies)))
        assert [answer.content for answer in answers] == bodies

    async def test_what_the_app_raises_is_raised(self) -> None:
        error = ValueError("the answer was cut, as the test wants")

        async def cut(scope: Scope, receive: Receive, send: Send) -> None:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            raise error

        async with self.opened() as wrapper:
            raised = await outcome(call(wrapper(cut)))
        assert raised is error, f"the app raised {error!r} to end the connection; its wrapper raised {raised!r}"

    async def test_neither_bodies_nor_secrets_are_logged(self, shown: CapturedOutput) -> None:
        private = "Ann's cat is called Mephistopheles"
        async with self.wrapped(make_app()) as client:
            await client.post("/", content=private, headers={"authorization": f"Bearer {private}"})
        async with self.opened() as wrapper:
            shown.add(wrapper)
        shown.assert_contains_none_of([private, *self.secrets])

    async def use(self, wrapper: Any) -> None:
        app = make_app()
        app.wrap(wrapper)
        async with nothing_left(), TestClient(app) as client:
            assert (await within(client.get("/"))).status_code == 200


def make_app() -> App:
    """Return an app with the routes that the cases request."""
    app = App()

    @app.get("/")
    async def root(request: Request) -> Response:
        return Response(b"hello")

    @app.post("/")
    async def echo(request: Request) -> Response:
        return Response(await request.body())

    @app.get("/fails")
    async def fails(request: Request) -> Response:
        raise HTTPError(418, "no coffee")

    @app.websocket("/ws")
    async def talk(ws: WebSocket) -> None:
        await ws.accept()
        async for text in ws:
            await ws.send_text(str(text))

    return app


async def answer_of(client: TestClient, method: str, path: str) -> tuple[int, bytes]:
    """Send a request. Returns status and body of the answer."""
    answer = await within(client.request(method, path, content=b"sent" if method == "POST" else None))
    return answer.status_code, answer.content


async def call(app: ASGIApp) -> None:
    """Call an ASGI app with a request without a body. What it sends is dropped."""

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        pass

    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "server": ("testserver", 80),
        "client": ("127.0.0.1", 50000),
        "path": "/",
        "raw_path": b"/",
        "root_path": "",
        "query_string": b"",
        "headers": [(b"host", b"testserver")],
    }
    await app(scope, receive, send)

"""A client for tests: talks to an app in this process, and runs its lifespan."""

from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

import anyio
import httpx
from anyio.abc import TaskGroup

from .types import ASGIApp, Message


class TestClient(httpx.AsyncClient):
    """`httpx.AsyncClient` over an ASGI app, as an async context manager that runs the app's lifespan:

        async with TestClient(app) as client:
            answer = await client.get("/things/1")

    `root_path` is the prefix under which the app believes to be mounted. Other arguments are httpx's. An exception that
    the app raises comes out of the call, unless `raise_app_exceptions=False`. Entering raises `RuntimeError` if the
    app's start fails, leaving raises it if its shutdown does.

    Answers come whole, also streams: to see one as it arrives, serve the app for real.
    """

    __test__ = False  # for pytest, which takes every class named Test… for a test

    def __init__(
        self,
        app: ASGIApp,
        *,
        base_url: str = "http://testserver",
        root_path: str = "",
        raise_app_exceptions: bool = True,
        headers: Mapping[str, str] | None = None,
        **options: Any,
    ) -> None:
        transport = httpx.ASGITransport(
            app=app,
            raise_app_exceptions=raise_app_exceptions,
            root_path=root_path,
        )
        super().__init__(transport=transport, base_url=base_url, headers=headers, **options)
        self._lifespan = _LifespanRunner(app)

    async def __aenter__(self) -> Self:
        await super().__aenter__()
        await self._lifespan.start()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None = None,
        exc_value: BaseException | None = None,
        traceback: TracebackType | None = None,
    ) -> None:
        try:
            await super().__aexit__(exc_type, exc_value, traceback)
        finally:
            await self._lifespan.stop()


class _LifespanRunner:
    """Plays the server's part of the lifespan, with the app's in a task of its own."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._tasks: TaskGroup | None = None
        self._asked = False
        self._answered = anyio.Event()
        self._leaving = anyio.Event()
        self._complaint: str | None = None

    async def start(self) -> None:
        self._tasks = anyio.create_task_group()
        await self._tasks.__aenter__()
        self._tasks.start_soon(self._run)
        await self._answered.wait()
        if self._complaint is not None:
            await self.stop()

    async def stop(self) -> None:
        self._leaving.set()
        if self._tasks is not None:
            tasks, self._tasks = self._tasks, None
            await tasks.__aexit__(None, None, None)
        if self._complaint is not None:
            complaint, self._complaint = self._complaint, None
            raise RuntimeError(complaint)

    async def _run(self) -> None:
        try:
            await self._app({"type": "lifespan", "asgi": {"version": "3.0"}, "state": {}}, self._receive, self._send)
        except Exception as error:
            self._complaint = f"The app's lifespan failed: {error!r}"
        finally:
            self._answered.set()

    async def _receive(self) -> Message:
        if not self._asked:
            self._asked = True
            return {"type": "lifespan.startup"}
        await self._leaving.wait()
        return {"type": "lifespan.shutdown"}

    async def _send(self, message: Message) -> None:
        if message["type"].endswith(".failed"):
            what = "start" if "startup" in message["type"] else "shutdown"
            self._complaint = f"The app's {what} failed: {message.get('message', '')}"
        self._answered.set()

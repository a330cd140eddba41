"""The clients. What they ask and what they make of the answers is in `Api`; they differ in how they wait."""

import time
from collections.abc import AsyncGenerator, Generator
from types import TracebackType
from typing import Self, Unpack
from uuid import UUID

import anyio
import httpx
import msgspec

from .answers import Item, Result, Run, decode
from .call import Call
from .errors import run_of
from .request import MessageFields, Request, message_request, run_path
from .watch import SILENCE, Watch

CONNECT_WITHIN = 10.0
LIMITS = httpx.Limits(max_connections=None, max_keepalive_connections=20)
"""An open stream keeps a connection: as many are made as are asked for."""


class Api:
    """An API at a URL, and who calls it. `attempts` more are made after the first, of whatever it is."""

    def __init__(self, url: str, api_key: str | None, timeout: float, attempts: int) -> None:
        try:
            parsed = httpx.URL(url)
            host = parsed.host
            parsed.raw_host.decode().encode("idna")  # as it is when it is looked up
        except (httpx.InvalidURL, UnicodeError) as error:
            raise ValueError(f"This is no URL: {error}") from None
        if parsed.scheme not in ("http", "https") or not host:
            raise ValueError("The URL of an API begins with http:// or https://, and has a host.")
        if parsed.query or parsed.fragment:
            raise ValueError("The URL of an API ends with its path: leave out what begins with ? or #.")
        self._url = url.rstrip("/")
        self._headers = {"accept-encoding": "identity"}
        if api_key is not None:
            if not api_key or not api_key.isascii() or not api_key.isprintable():
                raise ValueError("The API key has other characters than the visible ones of ASCII, or none.")
            self._headers["authorization"] = f"Bearer {api_key}"
        self._timeout = timeout
        self._attempts = attempts

    def build(self, http: httpx.Client | httpx.AsyncClient, request: Request) -> httpx.Request:
        """The request as it is sent."""
        return http.build_request(
            request.method,
            self._url + request.path,
            headers=self._headers | request.headers,
            content=request.content,
            timeout=httpx.Timeout(request.patience, connect=CONNECT_WITHIN),
        )

    def send(self, path: str, message: str, fields: MessageFields) -> Call:
        """A message, whose answer is awaited."""
        return Call(message_request(path, message, fields, self._timeout), self._attempts)

    def ask(self, method: str, path: str) -> Call:
        """A request without a body."""
        return Call(Request(method, path, {}, None, self._timeout), self._attempts)

    def stream(self, message: str, fields: MessageFields) -> Watch:
        """A message, whose run is watched."""
        return Watch(self._attempts, post=message_request("/api/v1/chat/stream", message, fields, SILENCE))

    def watch(self, run_id: UUID | str, after: str | None) -> Watch:
        """A run that was begun before."""
        return Watch(self._attempts, run_id=run_id if isinstance(run_id, UUID) else UUID(run_id), after=after)


def _result(response: httpx.Response) -> Result:
    result = decode(response.content, Result)
    return msgspec.structs.replace(result, run_id=run_of(response.headers.get("x-run-id")))


def _run(response: httpx.Response) -> Run:
    run = decode(response.content, Run)
    if run.result is not None:
        msgspec.structs.force_setattr(run.result, "run_id", run.run_id)
    return run


class Client:
    """A client of the API at `url` (with the path before `/api`, if there is one), for ordinary code.

    `api_key` is sent as a bearer token. Every message has an idempotency key, so that asking again finds the run that
    was begun. So is asked again whatever takes longer than `timeout` seconds, what a broken connection cut, and what
    was refused for the moment (502, 503, 504 of a proxy, 429 with a `Retry-After`): up to `attempts` times without
    anything new, five cut connections counting as one, with growing pauses. `http` is a client of your own, for
    certificates and proxies; it is not closed.

    Leave it by `with` or `close`. Threads may share one. Raises `ValueError` for a URL or key that cannot be one.
    """

    def __init__(
        self,
        url: str,
        *,
        api_key: str | None = None,
        timeout: float = 60.0,
        attempts: int = 10,
        http: httpx.Client | None = None,
    ) -> None:
        self._api = Api(url, api_key, timeout, attempts)
        self._own = http is None
        self._http = http or httpx.Client(limits=LIMITS)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        if self._own:
            self._http.close()

    def chat(self, message: str, **fields: Unpack[MessageFields]) -> Result:
        """Send a message and wait for the answer. Raises `ClientError`."""
        return _result(self._call(self._api.send("/api/v1/chat", message, fields)))

    def begin(self, message: str, **fields: Unpack[MessageFields]) -> Run:
        """Send a message and do not wait: its run goes on in the background. Raises `ClientError`."""
        return _run(self._call(self._api.send("/api/v1/runs", message, fields)))

    def run(self, run_id: UUID | str) -> Run:
        """A run: where it stands, and how it ended. Raises `ClientError`."""
        return _run(self._call(self._api.ask("GET", run_path(run_id))))

    def cancel(self, run_id: UUID | str) -> Run:
        """Cancel a run. Raises `Conflict` if it has ended in another way, `ClientError`."""
        return _run(self._call(self._api.ask("POST", run_path(run_id, "/cancel"))))

    def stream(self, message: str, **fields: Unpack[MessageFields]) -> Generator[Item, None, None]:
        """Send a message, and see what is done about it as it happens; the last item is the `Result`.

        The message is sent when the first item is asked for. A broken connection is resumed: every item comes once, in
        order, and one that the server keeps no more is told by a `Gap`. Leaving early does not stop the run. Raises
        `ClientError` in place of the result: of the kind that `chat` would have raised.
        """
        return self._watch(self._api.stream(message, fields))

    def watch(self, run_id: UUID | str, after: str | None = None) -> Generator[Item, None, None]:
        """Watch a run, from its beginning or after the item with the id `after`, as `stream` does."""
        return self._watch(self._api.watch(run_id, after))

    def _call(self, call: Call) -> httpx.Response:
        while True:
            try:
                response = self._http.send(self._api.build(self._http, call.request))
            except httpx.RequestError as error:
                call.broke(error)
            else:
                if call.answered(response.status_code, response.headers, response.content):
                    return response
            time.sleep(call.pause)

    def _watch(self, watch: Watch) -> Generator[Item, None, None]:
        while True:
            try:
                response = self._http.send(self._api.build(self._http, watch.request()), stream=True)
                try:
                    if watch.streams(response.status_code, response.headers):
                        for data in response.iter_bytes():
                            if watch.over:  # a server that goes on behind the last item is not listened to
                                break
                            yield from watch.feed(data)
                        watch.ended()
                    else:
                        watch.answered(response.status_code, response.headers, response.read())
                finally:
                    response.close()
            except httpx.RequestError as error:
                watch.broke(error)
            if watch.over:
                return
            time.sleep(watch.pause)


class AsyncClient:
    """The same for async code, on asyncio or Trio: `Client` says what everything means.

    Leave it by `async with` or `aclose`. Who leaves a stream early closes it at once by `contextlib.aclosing`.
    """

    def __init__(
        self,
        url: str,
        *,
        api_key: str | None = None,
        timeout: float = 60.0,
        attempts: int = 10,
        http: httpx.AsyncClient | None = None,
    ) -> None:
        self._api = Api(url, api_key, timeout, attempts)
        self._own = http is None
        self._http = http or httpx.AsyncClient(limits=LIMITS)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the connections."""
        if self._own:
            await self._http.aclose()

    async def chat(self, message: str, **fields: Unpack[MessageFields]) -> Result:
        """Send a message and wait for the answer. Raises `ClientError`."""
        return _result(await self._call(self._api.send("/api/v1/chat", message, fields)))

    async def begin(self, message: str, **fields: Unpack[MessageFields]) -> Run:
        """Send a message and do not wait: its run goes on in the background. Raises `ClientError`."""
        return _run(await self._call(self._api.send("/api/v1/runs", message, fields)))

    async def run(self, run_id: UUID | str) -> Run:
        """A run: where it stands, and how it ended. Raises `ClientError`."""
        return _run(await self._call(self._api.ask("GET", run_path(run_id))))

    async def cancel(self, run_id: UUID | str) -> Run:
        """Cancel a run. Raises `Conflict` if it has ended in another way, `ClientError`."""
        return _run(await self._call(self._api.ask("POST", run_path(run_id, "/cancel"))))

    def stream(self, message: str, **fields: Unpack[MessageFields]) -> AsyncGenerator[Item, None]:
        """Send a message, and see what is done about it as it happens, as `Client.stream` says."""
        return self._watch(self._api.stream(message, fields))

    def watch(self, run_id: UUID | str, after: str | None = None) -> AsyncGenerator[Item, None]:
        """Watch a run, from its beginning or after the item with the id `after`, as `stream` does."""
        return self._watch(self._api.watch(run_id, after))

    async def _call(self, call: Call) -> httpx.Response:
        while True:
            try:
                response = await self._http.send(self._api.build(self._http, call.request))
            except httpx.RequestError as error:
                call.broke(error)
            else:
                if call.answered(response.status_code, response.headers, response.content):
                    return response
            await anyio.sleep(call.pause)

    async def _watch(self, watch: Watch) -> AsyncGenerator[Item, None]:
        while True:
            try:
                response = await self._http.send(self._api.build(self._http, watch.request()), stream=True)
                try:
                    if watch.streams(response.status_code, response.headers):
                        async for data in response.aiter_bytes():
                            if watch.over:  # a server that goes on behind the last item is not listened to
                                break
                            for item in watch.feed(data):
                                yield item
                        watch.ended()
                    else:
                        watch.answered(response.status_code, response.headers, await response.aread())
                finally:
                    await response.aclose()
            except httpx.RequestError as error:
                watch.broke(error)
            if watch.over:
                return
            await anyio.sleep(watch.pause)

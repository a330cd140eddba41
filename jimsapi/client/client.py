"""The clients. `Client` and `AsyncClient` differ only in I/O; `Api` builds the requests of both."""

import time
from collections.abc import AsyncGenerator, Generator
from types import TracebackType
from typing import Self, Unpack
from uuid import UUID

import anyio
import httpx
import msgspec

from .answers import File, Item, Result, Run, decode
from .call import Call
from .errors import run_of
from .request import MessageFields, Request, message_request, run_path, upload_request
from .watch import SILENCE, Watch

CONNECT_WITHIN = 10.0
"""Seconds within which a connection has to be established."""
LIMITS = httpx.Limits(max_connections=None, max_keepalive_connections=20)
"""Each open stream uses a connection, so their number is not limited."""


class Api:
    """The API at a URL, with the caller's key. A failed request is retried up to `attempts` times."""

    def __init__(self, url: str, api_key: str | None, timeout: float, attempts: int) -> None:
        try:
            parsed = httpx.URL(url)
            host = parsed.host
            parsed.raw_host.decode().encode("idna")  # name resolution also encodes it, and would raise only then
        except (httpx.InvalidURL, UnicodeError) as error:
            raise ValueError(f"This is not a URL: {error}") from None
        if parsed.scheme not in ("http", "https") or not host:
            raise ValueError("The URL of an API begins with http:// or https://, and has a host.")
        if parsed.query or parsed.fragment:
            raise ValueError("The URL of an API ends with its path: omit the ? or # and what follows.")
        self._url = url.rstrip("/")
        self._headers = {"accept-encoding": "identity"}
        if api_key is not None:
            if not api_key or not api_key.isascii() or not api_key.isprintable():
                raise ValueError("The API key must have one or more characters, all visible ASCII.")
            self._headers["authorization"] = f"Bearer {api_key}"
        self._timeout = timeout
        self._attempts = attempts

    def build(self, http: httpx.Client | httpx.AsyncClient, request: Request) -> httpx.Request:
        """Return the HTTP request for `request`, with the URL, the key and the timeouts."""
        return http.build_request(
            request.method,
            self._url + request.path,
            headers=self._headers | request.headers,
            content=request.content,
            timeout=httpx.Timeout(request.read_timeout, connect=CONNECT_WITHIN),
        )

    def send(self, path: str, message: str, fields: MessageFields) -> Call:
        """Return the call that sends a message to `path`."""
        return Call(message_request(path, message, fields, self._timeout), self._attempts)

    def upload(self, content: bytes, name: str, kind: str | None, contact_id: str | None) -> Call:
        """Return the call that stores a file."""
        return Call(upload_request(content, name, kind, contact_id, self._timeout), self._attempts)

    def call(self, method: str, path: str) -> Call:
        """Return the call of a request without a body."""
        return Call(Request(method, path, {}, None, self._timeout), self._attempts)

    def stream(self, message: str, fields: MessageFields) -> Watch:
        """Return the stream of the run that a new message begins."""
        return Watch(self._attempts, post=message_request("/api/v1/chat/stream", message, fields, SILENCE))

    def watch(self, run_id: UUID | str, after: str | None) -> Watch:
        """Return the stream of an existing run."""
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
    """A client of the API, for synchronous code.

    Arguments:
        url: the URL of the API, without `/api/v1`, for example `https://example.org/bot`.
        api_key: sent as a bearer token.
        timeout: seconds to wait for an answer before the request is sent again.
        attempts: how often a request is retried until something new is received. Five lost connections count as one.
        http: an httpx client of your own, for certificates and proxies. The client does not close it.

    The client retries, with growing pauses, after a timeout, a lost connection, a 502 or 503, a 504 of a proxy, and a
    429 with `Retry-After`. Every message has an idempotency key, so that a retry finds the run that the first request
    began.

    Close it with `with` or `close`. Several threads may share one client.

    Raises `ValueError` for an invalid URL or key.
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
        self._owns_http = http is None
        self._http = http or httpx.Client(limits=LIMITS)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        if self._owns_http:
            self._http.close()

    def chat(self, message: str = "", **fields: Unpack[MessageFields]) -> Result:
        """Send a message and return the answer. Raises `ClientError`."""
        return _result(self._call(self._api.send("/api/v1/chat", message, fields)))

    def begin(self, message: str = "", **fields: Unpack[MessageFields]) -> Run:
        """Send a message and return its run, which continues in the background. Raises `ClientError`."""
        return _run(self._call(self._api.send("/api/v1/runs", message, fields)))

    def upload(self, content: bytes, name: str, *, type: str | None = None, contact_id: str | None = None) -> File:
        """Store a file for a contact, and return it. The server needs the plugin jimsapi-files.

        `type` is the media type; without it the ending of the name decides. If your key is bound to one contact, omit
        `contact_id`. The same file is stored once, so the client repeats the upload if a connection breaks. Raises
        `ClientError`.
        """
        return decode(self._call(self._api.upload(content, name, type, contact_id)).content, File)

    def run(self, run_id: UUID | str) -> Run:
        """Return the current state of a run. Raises `ClientError`."""
        return _run(self._call(self._api.call("GET", run_path(run_id))))

    def cancel(self, run_id: UUID | str) -> Run:
        """Cancel a run and return it. Raises `Conflict` if the run has ended in another way, or `ClientError`."""
        return _run(self._call(self._api.call("POST", run_path(run_id, "/cancel"))))

    def stream(self, message: str = "", **fields: Unpack[MessageFields]) -> Generator[Item, None, None]:
        """Send a message and yield the items of its run as they arrive. The last item is the `Result`.

        The client sends the message when the first item is requested. If the connection is lost, the client resumes the
        stream: it yields every item once and in order, and a `Gap` for items that are no longer available. Closing the
        generator does not stop the run.

        Raises `ClientError` in place of the result, of the same type as `chat` would.
        """
        return self._watch(self._api.stream(message, fields))

    def watch(self, run_id: UUID | str, after: str | None = None) -> Generator[Item, None, None]:
        """Yield the items of a run, as `stream` does, from its beginning or after the item with the id `after`."""
        return self._watch(self._api.watch(run_id, after))

    def _call(self, call: Call) -> httpx.Response:
        while True:
            try:
                response = self._http.send(self._api.build(self._http, call.request))
            except httpx.RequestError as error:
                call.on_connection_error(error)
            else:
                if call.on_response(response.status_code, response.headers, response.content):
                    return response
            time.sleep(call.pause)

    def _watch(self, watch: Watch) -> Generator[Item, None, None]:
        while True:
            try:
                response = self._http.send(self._api.build(self._http, watch.request()), stream=True)
                try:
                    if watch.is_stream(response.status_code, response.headers):
                        for data in response.iter_bytes():
                            if watch.finished:  # ignore everything after the last item
                                break
                            yield from watch.feed(data)
                        watch.on_stream_end()
                    else:
                        watch.on_response(response.status_code, response.headers, response.read())
                finally:
                    response.close()
            except httpx.RequestError as error:
                watch.on_connection_error(error)
            if watch.finished:
                return
            time.sleep(watch.pause)


class AsyncClient:
    """A client of the API, for async code on asyncio or Trio. `Client` documents the arguments and methods.

    Close it with `async with` or `aclose`. If you stop reading a stream early, use `contextlib.aclosing` to close it at
    once.
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
        self._owns_http = http is None
        self._http = http or httpx.AsyncClient(limits=LIMITS)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the connections."""
        if self._owns_http:
            await self._http.aclose()

    async def chat(self, message: str = "", **fields: Unpack[MessageFields]) -> Result:
        """Send a message and return the answer. Raises `ClientError`."""
        return _result(await self._call(self._api.send("/api/v1/chat", message, fields)))

    async def begin(self, message: str = "", **fields: Unpack[MessageFields]) -> Run:
        """Send a message and return its run, which continues in the background. Raises `ClientError`."""
        return _run(await self._call(self._api.send("/api/v1/runs", message, fields)))

    async def upload(
        self, content: bytes, name: str, *, type: str | None = None, contact_id: str | None = None
    ) -> File:
        """Store a file for a contact, as `Client.upload` does."""
        return decode((await self._call(self._api.upload(content, name, type, contact_id))).content, File)

    async def run(self, run_id: UUID | str) -> Run:
        """Return the current state of a run. Raises `ClientError`."""
        return _run(await self._call(self._api.call("GET", run_path(run_id))))

    async def cancel(self, run_id: UUID | str) -> Run:
        """Cancel a run and return it. Raises `Conflict` if the run has ended in another way, or `ClientError`."""
        return _run(await self._call(self._api.call("POST", run_path(run_id, "/cancel"))))

    def stream(self, message: str = "", **fields: Unpack[MessageFields]) -> AsyncGenerator[Item, None]:
        """Send a message and yield the items of its run as they arrive, as `Client.stream` does."""
        return self._watch(self._api.stream(message, fields))

    def watch(self, run_id: UUID | str, after: str | None = None) -> AsyncGenerator[Item, None]:
        """Yield the items of a run, as `stream` does, from its beginning or after the item with the id `after`."""
        return self._watch(self._api.watch(run_id, after))

    async def _call(self, call: Call) -> httpx.Response:
        while True:
            try:
                response = await self._http.send(self._api.build(self._http, call.request))
            except httpx.RequestError as error:
                call.on_connection_error(error)
            else:
                if call.on_response(response.status_code, response.headers, response.content):
                    return response
            await anyio.sleep(call.pause)

    async def _watch(self, watch: Watch) -> AsyncGenerator[Item, None]:
        while True:
            try:
                response = await self._http.send(self._api.build(self._http, watch.request()), stream=True)
                try:
                    if watch.is_stream(response.status_code, response.headers):
                        async for data in response.aiter_bytes():
                            if watch.finished:  # ignore everything after the last item
                                break
                            for item in watch.feed(data):
                                yield item
                        watch.on_stream_end()
                    else:
                        watch.on_response(response.status_code, response.headers, await response.aread())
                finally:
                    await response.aclose()
            except httpx.RequestError as error:
                watch.on_connection_error(error)
            if watch.finished:
                return
            await anyio.sleep(watch.pause)

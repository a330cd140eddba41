"""`/api/v1/chat/ws`: several chats over one WebSocket, with the same items as `/api/v1/chat/stream`."""

from asyncio import Future
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from typing import Any, cast
from uuid import UUID

import anyio
import orjson

from jimsapi.api.chat import answers_without_message, inbound_model, with_own_contact
from jimsapi.api.stream import item_content
from jimsapi.asgi.errors import HTTPError, WebSocketDisconnected
from jimsapi.asgi.routing import Router
from jimsapi.asgi.validation import convert_body
from jimsapi.asgi.websocket import WebSocket
from jimsapi.runs.admission import Admission
from jimsapi.runs.inbound import Inbound
from jimsapi.runs.live import LiveRun
from jimsapi.runs.lookup import Runs
from jimsapi.runs.result import RunResult
from jimsapi.runs.scopes import CHAT
from jimsapi.runs.service import RunService
from jimsapi.runs.stream import Read
from jimsapi.threads.errors import DomainError
from jimsapi.wire.errors import error_content

SUBPROTOCOL = "jims.chat"
_TRY_AGAIN_LATER = 1013  # IANA's WebSocket Close Code Number Registry
MAX_WAITING = 256
"""Messages on one WebSocket that may wait for their runs to begin."""
MAX_BEGUN = 16
"""Runs that may begin on one WebSocket while an earlier answer is sent. This limits the memory for a client that does
not read: until it is stored, an answer takes several times its size."""
UNREAD_FOR = 15.0
"""Seconds for which the server stops reading frames if `MAX_WAITING` messages wait; then it closes the WebSocket. It is
shorter than the timeout for pongs. Pongs are not read meanwhile, and that timeout would close it without a reason."""


def websocket_routes(service: RunService) -> Router:
    """The route of the chat over a WebSocket."""
    router = Router()

    @router.websocket("/api/v1/chat/ws", scope=CHAT, subprotocols=(SUBPROTOCOL,), first_frame=True, tags=("chat",))
    async def chat_ws(ws: WebSocket) -> None:
        """Send messages, and receive their progress and answers.

        Frames from the client: `{"type": "chat", …}` with the fields of the body of `/api/v1/chat`, and
        `{"type": "cancel", "run_id": …}`. Frames to the client: the events of `/api/v1/chat/stream` as
        `{"type": NAME, …}` with the fields of their data; the `type` of a status is in `status_type`.

        The server sends the answers one after another, in the order of the messages: all frames from a `started` to its
        `result` or `error` belong to one run. While it sends an answer, it begins up to 16 of the next runs. If a frame
        is rejected, the client receives only an `error`; if a run could not be cancelled, the `error` has its `run_id`.
        If 256 messages wait for their runs to begin, the server closes the WebSocket with 1013. Runs that have begun go
        on.
        """
        await ws.accept()
        await _Conversation(ws, service).run()

    return router


Error = dict[str, Any]
"""The content of a frame of type `error`."""
_Message = tuple[Inbound, Admission]
"""A message, and its caller's admission."""


class _BegunRun:
    """A run whose answer is sent after those before it. When it has ended, only its id is kept, and its items are read
    from the store if the process no longer has its stream."""

    __slots__ = ("_live", "_run_id")

    def __init__(self, run: LiveRun) -> None:
        self._live: LiveRun | None = run
        self._run_id = run.known_as
        run.answer.add_done_callback(self._on_ended)

    def _on_ended(self, answer: "Future[RunResult]") -> None:
        if answer.exception() is None:  # the answer is stored
            self._live = None

    async def read(self, runs: Runs, admission: Admission) -> AsyncIterator[Read]:
        """Return the items of the run. Raises `DomainError` if the store cannot read them."""
        if self._live is not None:
            return await runs.of(admission, self._live)
        items = await runs.watch(admission, self._run_id)
        assert items is not None  # it is None only for readers that are at the end of the stream
        return items


class _Conversation:
    """One WebSocket. One task reads frames, one begins runs, and one sends their items."""

    def __init__(self, ws: WebSocket, service: RunService) -> None:
        self._ws = ws
        self._service = service
        self._runs = Runs(service)
        # In both queues, an `Error` answers a message that was rejected.
        self._message_sender, self._message_receiver = anyio.create_memory_object_stream[_Message | Error](MAX_WAITING)
        # One more run has begun while `send` waits for room, so the queue is shorter by one.
        self._answer_sender, self._answer_receiver = anyio.create_memory_object_stream[_BegunRun | Error](MAX_BEGUN - 1)

    async def run(self) -> None:
        async with self._answer_receiver, self._message_receiver, anyio.create_task_group() as tasks:
            tasks.start_soon(_until_cancelled, tasks.cancel_scope, self._begin_runs)
            tasks.start_soon(_until_cancelled, tasks.cancel_scope, partial(self._send_all, tasks.cancel_scope))
            async with self._message_sender:
                try:
                    while True:
                        await self._handle_frame()
                except WebSocketDisconnected:
                    tasks.cancel_scope.cancel()

    async def _handle_frame(self) -> None:
        try:
            frame = await self._ws.receive_json()
            match frame:
                case {"type": "chat", **body}:
                    with self._ws.working():
                        message: _Message | Error = await self._message(cast("dict[str, Any]", body))
                case {"type": "cancel", "run_id": str(run_id)}:
                    return await self._cancel(run_id)
                case {"type": "auth"}:  # from a client that was admitted without it
                    return None
                case _:
                    raise HTTPError(422, 'A frame is {"type": "chat", …} or {"type": "cancel", "run_id": …}')
        except (HTTPError, DomainError) as error:
            message = self._refusal(error)
        with anyio.move_on_after(UNREAD_FOR) as timeout:
            await self._message_sender.send(message)
        if timeout.cancelled_caught:
            await self._ws.close(_TRY_AGAIN_LATER, "Too many messages wait here")

    @property
    def _admission(self) -> Admission:
        return cast(Admission, self._ws.admission)

    async def _message(self, body: dict[str, Any]) -> "_Message":
        await self._ws.readmit()
        admission = self._admission
        inbound = answers_without_message(body, admission) or convert_body(body, inbound_model(admission))
        inbound = with_own_contact(inbound, admission)
        self._ws.person = inbound.contact_id
        return inbound, admission

    async def _begin_runs(self) -> None:
        async with self._answer_sender:
            async for message in self._message_receiver:
                await self._answer_sender.send(message if isinstance(message, dict) else self._begin(*message))

    def _begin(self, inbound: Inbound, admission: Admission) -> _BegunRun | Error:
        try:
            return _BegunRun(self._service.begin(inbound, admission, watched=True))
        except (HTTPError, DomainError) as error:
            return self._refusal(error)

    async def _cancel(self, text: str) -> None:
        try:
            run_id = UUID(text)
        except ValueError:
            return await self._send("error", {"detail": "run_id is not a UUID", "run_id": text})
        try:
            await self._ws.readmit()
            await self._runs.cancel(self._admission, run_id)
        except (HTTPError, DomainError) as error:
            await self._send("error", {**self._refusal(error), "run_id": text})

    async def _send_all(self, all_tasks: anyio.CancelScope) -> None:
        try:
            async for answer in self._answer_receiver:
                if isinstance(answer, dict):
                    await self._send("error", answer)
                else:
                    with self._ws.working():
                        await self._send_run(answer)
        except WebSocketDisconnected:
            all_tasks.cancel()  # the task that reads frames may be waiting for room in the queue

    async def _send_run(self, run: _BegunRun) -> None:
        try:
            items = await run.read(self._runs, self._admission)
        except DomainError as error:  # only the store has the answer now, and it cannot be read
            return await self._send("error", self._refusal(error))
        async for _, item in items:
            name, data = item_content(self._ws, item)
            if name == "status":  # its field `type` would replace the frame's
                data["status_type"] = data.pop("type")
            await self._send(name, data)

    async def _send(self, name: str, data: dict[str, Any]) -> None:
        await self._ws.send_text(orjson.dumps({"type": name, **data}).decode())

    def _refusal(self, error: HTTPError | DomainError) -> Error:
        return error_content(self._ws, error).content


async def _until_cancelled(scope: anyio.CancelScope, work: Callable[[], Awaitable[None]]) -> None:
    """Call `work`, and end quietly if `scope` is cancelled.

    asyncio's backend of anyio keeps the exception of a cancelled task in a reference cycle, and with it everything that
    the frames of the task refer to.
    """
    cancelled = anyio.get_cancelled_exc_class()  # which only a running loop knows
    try:
        await work()
    except cancelled:
        if not scope.cancel_called:
            raise

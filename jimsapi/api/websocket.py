"""`/api/v1/chat/ws`: chats over one WebSocket, each told as `/api/v1/chat/stream` tells it."""

from asyncio import Future
from collections.abc import AsyncIterator
from typing import Any, cast
from uuid import UUID

import anyio
import orjson

from jimsapi.api.chat import inbound_model, own_inbound
from jimsapi.api.stream import told
from jimsapi.asgi.errors import HTTPError, WebSocketDisconnected
from jimsapi.asgi.routing import Router
from jimsapi.asgi.validation import convert_body
from jimsapi.asgi.websocket import WebSocket
from jimsapi.runs.identity import CHAT, Admission
from jimsapi.runs.inbound import Inbound
from jimsapi.runs.live import LiveRun
from jimsapi.runs.lookup import Runs
from jimsapi.runs.result import RunResult
from jimsapi.runs.service import RunService
from jimsapi.runs.stream import Read
from jimsapi.threads.errors import DomainError
from jimsapi.wire.errors import tell

SUBPROTOCOL = "jims.chat"
_TRY_AGAIN_LATER = 1013  # of IANA's registry of close codes
MAX_WAITING = 256
"""Chats that may wait on one WebSocket until their runs begin."""
MAX_BEGUN = 16
"""Runs that may begin on one WebSocket while the answer of one before them is sent. With them a client that reads
nothing bounds what the server does for it: an answer takes several times its size while it is made and stored."""
UNREAD_FOR = 15.0
"""Seconds that frames may stay unread since more chats wait. Shorter than the server waits for a pong, which it does
not see meanwhile: then the client would be cut off without a word."""


def websocket_routes(service: RunService) -> Router:
    """The route of the chat over a WebSocket."""
    router = Router()

    @router.websocket("/api/v1/chat/ws", scope=CHAT, subprotocols=(SUBPROTOCOL,), first_frame=True, tags=("chat",))
    async def chat_ws(ws: WebSocket) -> None:
        """Send messages and see what is done about them.

        Frames from the client: `{"type": "chat", …}` with the fields of the body of `/api/v1/chat`, and
        `{"type": "cancel", "run_id": …}`. Frames to the client: the events of `/api/v1/chat/stream` as
        `{"type": NAME, …}` with the fields of their data; the type of a status is its `status_type`. Messages are taken
        as they come, and told one after another: all frames from a `started` to its `result` or `error` are of one run.
        Up to 16 runs begin while the frames of those before them are sent; the others wait for that.
        A frame that is refused has no `started`, only an `error`. One that could not cancel has the `run_id` too. With
        256 messages that wait to begin the WebSocket is closed with 1013; runs that have begun go on.
        """
        await ws.accept()
        await _Conversation(ws, service).run()

    return router


Error = dict[str, Any]
"""What a frame says of an error."""
_Message = tuple[Inbound, Admission]
"""What is to begin a run, and who sent it."""


class _Waiting:
    """A run that waits until those before it are sent. Once it has ended only its id is kept: the streams of a process
    have a bound, and what they no longer keep is read from the store."""

    __slots__ = ("_live", "_run_id")

    def __init__(self, run: LiveRun) -> None:
        self._live: LiveRun | None = run
        self._run_id = run.known_as
        run.answer.add_done_callback(self._on_ended)

    def _on_ended(self, answer: "Future[RunResult]") -> None:
        if answer.exception() is None:  # it is stored
            self._live = None

    async def read(self, runs: Runs, admission: Admission) -> AsyncIterator[Read]:
        """All that the run says. Raises a `DomainError` if the store does not know it now."""
        if self._live is not None:
            return await runs.of(admission, self._live)
        items = await runs.watch(admission, self._run_id)
        assert items is not None  # that is for readers who have read to the end
        return items


class _Conversation:
    """A WebSocket: one task reads frames, one begins runs, and one sends what they say."""

    def __init__(self, ws: WebSocket, service: RunService) -> None:
        self._ws = ws
        self._service = service
        self._runs = Runs(service)
        # In both, an error is the one frame that answers a message which was refused.
        self._to_begin, self._accepted = anyio.create_memory_object_stream[_Message | Error](MAX_WAITING)
        # The last of those that begin waits for room in it.
        self._to_tell, self._told = anyio.create_memory_object_stream[_Waiting | Error](MAX_BEGUN - 1)

    async def run(self) -> None:
        async with self._told, self._accepted, anyio.create_task_group() as tasks:
            tasks.start_soon(self._begin_runs)
            tasks.start_soon(self._tell, tasks.cancel_scope)
            async with self._to_begin:
                try:
                    while True:
                        await self._read()
                except WebSocketDisconnected:
                    tasks.cancel_scope.cancel()

    async def _read(self) -> None:
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
        with anyio.move_on_after(UNREAD_FOR) as unread:
            await self._to_begin.send(message)
        if unread.cancelled_caught:
            await self._ws.close(_TRY_AGAIN_LATER, "Too many messages wait here")

    @property
    def _admission(self) -> Admission:
        return cast(Admission, self._ws.admission)

    async def _message(self, body: dict[str, Any]) -> "_Message":
        await self._ws.readmit()
        admission = self._admission
        return own_inbound(convert_body(body, inbound_model(admission)), admission), admission

    async def _begin_runs(self) -> None:
        async with self._to_tell:
            async for message in self._accepted:
                await self._to_tell.send(message if isinstance(message, dict) else self._begin(*message))

    def _begin(self, inbound: Inbound, admission: Admission) -> _Waiting | Error:
        try:
            return _Waiting(self._service.begin(inbound, admission, watched=True))
        except (HTTPError, DomainError) as error:
            return self._refusal(error)

    async def _cancel(self, text: str) -> None:
        try:
            run_id = UUID(text)
        except ValueError:
            return await self._send("error", {"detail": "run_id is no UUID", "run_id": text})
        try:
            await self._ws.readmit()
            await self._runs.cancel(self._admission, run_id)
        except (HTTPError, DomainError) as error:
            await self._send("error", {**self._refusal(error), "run_id": text})

    async def _tell(self, all_tasks: anyio.CancelScope) -> None:
        try:
            async for answer in self._told:
                if isinstance(answer, dict):
                    await self._send("error", answer)
                else:
                    with self._ws.working():
                        await self._tell_run(answer)
        except WebSocketDisconnected:
            all_tasks.cancel()  # whoever reads frames may wait until there is room to tell of one more

    async def _tell_run(self, run: _Waiting) -> None:
        try:
            items = await run.read(self._runs, self._admission)
        except DomainError as error:  # of the store, which alone knows the answer by now
            return await self._send("error", self._refusal(error))
        async for _, item in items:
            name, data = told(self._ws, item)
            if name == "status":  # whose own type would hide the frame's
                data["status_type"] = data.pop("type")
            await self._send(name, data)

    async def _send(self, name: str, data: dict[str, Any]) -> None:
        await self._ws.send_text(orjson.dumps({"type": name, **data}).decode())

    def _refusal(self, error: HTTPError | DomainError) -> Error:
        return tell(self._ws, error).content

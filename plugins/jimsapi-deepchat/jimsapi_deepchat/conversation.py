"""Deep Chat over a WebSocket: each frame gets an answer, in order."""

import anyio

from jimsapi.asgi import HTTPError, WebSocket, WebSocketDisconnected
from jimsapi.runs import LiveRun, RunService
from jimsapi.threads import DomainError, uuid7
from jimsapi.wire import ThreadNames, answer_of, begin_turn, error_content, refusal_of
from jimsapi_deepchat.answers import answer_body, error_body
from jimsapi_deepchat.requests import new_turn, read_frame

MAX_PENDING = 16
"""Messages that may wait for their answers. If there are more, the server stops reading."""


class Conversation:
    """One WebSocket. One task reads messages and begins runs, another sends the answers."""

    def __init__(self, ws: WebSocket, service: RunService, names: ThreadNames) -> None:
        self._ws = ws
        self._service = service
        self._names = names
        self._thread = str(uuid7())
        self._to_answer, self._pending = anyio.create_memory_object_stream[LiveRun | Exception](MAX_PENDING)

    async def run(self) -> None:
        async with self._pending, anyio.create_task_group() as tasks:
            tasks.start_soon(self._answer)
            async with self._to_answer:
                try:
                    async for frame in self._ws:
                        with self._ws.working():
                            pending = await self._begin(frame)
                        await self._to_answer.send(pending)
                finally:
                    tasks.cancel_scope.cancel()  # the client has disconnected; the runs go on

    async def _begin(self, frame: str | bytes) -> LiveRun | Exception:
        try:
            turn = new_turn(read_frame(frame), self._thread)
            await self._ws.readmit()
            return await begin_turn(self._ws, self._service, self._names, turn, watched=False)
        except (HTTPError, DomainError) as error:
            return error

    async def _answer(self) -> None:
        try:
            async for pending in self._pending:
                try:
                    if isinstance(pending, Exception):
                        raise pending
                    with self._ws.working():
                        result = await answer_of(self._ws, pending)
                        self._ws.person = pending.inbound.contact_id  # a later frame may be another contact's
                        await self._ws.send_json(answer_body(self._ws, result))
                except (HTTPError, DomainError) as error:
                    content = error_content(self._ws, error)
                    await self._ws.send_json(error_body(refusal_of(content.status, content.content)))
        except WebSocketDisconnected:
            pass  # the task that reads gets the same exception

"""Callers of every kind, who note in a journal what the server told them."""

import asyncio
import json
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any

from websockets.asyncio.client import connect
from websockets.exceptions import InvalidHandshake, WebSocketException

from tests.faults.files import delete_file, has_files, is_deleted, store_file
from tests.faults.journal import Journal
from tests.faults.wire import Answer, CutAnswer, NoAnswer, Wire, post

CHAT, STREAM = "/api/v1/chat", "/api/v1/chat/stream"
PAUSE = 0.01
"""Seconds that a caller waits after a refusal."""
FINISHES_WITHIN = 60.0
"""Seconds within which a caller finishes what it waits for."""


class Callers:
    """The callers of one server, until it dies or `over` is set.

    Some write to threads that outlive servers; the others name contacts by the port, so that they need not wait for a
    thread until a run of a dead server is ended.
    """

    def __init__(self, journal: Journal, port: int) -> None:
        self.over = False
        self._journal = journal
        self._port = port
        kinds = [
            *(lambda number=number: self.keep_alive(f"alone {number}") for number in range(3)),
            *(lambda: self.keep_alive("shared") for _ in range(4)),
            self.fresh,
            self.fresh,
            self.keyed,
            self.keyed,
            self.approving,
            self.in_background,
            self.stream,
            self.websocket,
            *([self.filing] * 2 if has_files() else ()),
        ]
        self._tasks = [asyncio.create_task(self._until_cut(kind)) for kind in kinds]

    async def end(self) -> None:
        """Let the callers finish what they wait for. Raises what a caller did not expect, and `TimeoutError` if one
        does not finish."""
        self.over = True
        done, waiting = await asyncio.wait(self._tasks, timeout=FINISHES_WITHIN)
        if waiting:
            raise TimeoutError(f"{len(waiting)} callers do not finish; what is in hand: {self._journal.in_hand}")
        for task in done:
            task.result()

    async def keep_alive(self, contact: str) -> None:
        """Send one message after another over one connection."""
        wire = Wire(self._port)
        while not self.over:
            message = self._journal.message()
            await self._settle(message, await wire.chat(contact, message))

    async def fresh(self) -> None:
        """Send each message over a connection of its own, as a contact of its own."""
        while not self.over:
            message, wire = self._journal.message(), Wire(self._port)
            await self._settle(message, await wire.chat(f"new {message}", message))
            wire.close()

    async def keyed(self) -> None:
        """Send messages under keys: first those again that got no answer from a server that was killed."""
        wire = Wire(self._port)
        settled = True
        while not (self.over and settled):
            if self._journal.unsettled:
                message = self._journal.unsettled.pop()
                self._journal.repeated += 1
            else:
                message = self._journal.message("wait 0.01")
            settled = False
            self._journal.in_hand[message] = ""
            try:
                body = {"contact_id": "keyed", "message": message}
                answer = await wire.post(CHAT, body, f"idempotency-key: {message}")
                settled = await self._settle(message, answer)
            finally:
                del self._journal.in_hand[message]
                if not settled:
                    self._journal.unsettled.append(message)

    async def approving(self) -> None:
        """Send messages that lead to a question, and answer it: first those that a server that was killed left."""
        wire = Wire(self._port)
        settled = True
        while not (self.over and settled):
            if self._journal.unapproved:
                message = self._journal.unapproved.pop()
                self._journal.repeated += 1
            else:
                message = self._journal.message("ask")
            settled = False
            self._journal.in_hand[message] = ""
            try:
                settled = await self._approve(wire, message)
            finally:
                del self._journal.in_hand[message]
                if not settled:
                    self._journal.unapproved.append(message)

    async def in_background(self) -> None:
        """Have messages answered in the background."""
        wire = Wire(self._port)
        while not self.over:
            message = self._journal.message("wait 0.01")
            answer = await wire.post(
                CHAT, {"contact_id": f"background {self._port}", "message": message}, "prefer: respond-async"
            )
            if answer.status == 202:
                self._journal.background.add(message)
                await asyncio.sleep(PAUSE)
            else:
                await self._settle(message, answer)

    async def stream(self) -> None:
        """Read the answers as streams."""
        while not self.over:
            message, wire = self._journal.message(), Wire(self._port)
            body = {"contact_id": f"streamed {self._port}", "message": message}
            await wire.send(post(STREAM, body, "connection: close"))
            status, text = await wire.read_to_end()
            if status != 200:
                self._journal.note(message, status, text)
                await asyncio.sleep(PAUSE)
            elif f'["{message}"]'.encode() in text.partition(b"event: result")[2]:
                self._journal.streamed += self._journal.note(message, 200, [message])
            elif b"event: error" not in text:
                raise CutAnswer

    async def websocket(self) -> None:
        """Send messages over a WebSocket."""
        async with connect(f"ws://127.0.0.1:{self._port}{CHAT}/ws", compression=None, proxy=None) as socket:
            while not self.over:
                message = self._journal.message()
                chat = {"type": "chat", "contact_id": f"socket {self._port}", "message": message}
                await socket.send(json.dumps(chat))
                frame = {"type": ""}
                while frame["type"] not in ("result", "error"):
                    frame = json.loads(await socket.recv())
                if frame["type"] == "result":
                    self._journal.over_websockets += self._journal.note(message, 200, frame["assistant_messages"])
                else:
                    await asyncio.sleep(PAUSE)

    async def filing(self) -> None:
        """Store files, first those again whose upload got no answer, and delete some."""
        wire = Wire(self._port)
        while not self.over:
            message = self._journal.unfiled.pop() if self._journal.unfiled else self._journal.message("file")
            stored = False
            try:
                answer = await store_file(wire, message)
                stored = self._journal.note_file(message, answer.status, answer.json())
            finally:
                if not stored:
                    self._journal.unfiled.add(message)
            if not stored:
                await asyncio.sleep(PAUSE)
            elif is_deleted(message):
                await self._delete(wire, message)

    async def _delete(self, wire: Wire, message: str) -> None:
        file_id = self._journal.files.pop(message)
        answer = await delete_file(wire, file_id)
        if answer.status == 204:
            self._journal.deleted.add(file_id)
        else:
            self._journal.note(message, answer.status, answer.json())

    async def _approve(self, wire: Wire, message: str) -> bool:
        """Send a message and the answer to its question, each under a key. Returns whether it was answered."""
        contact = f"asked {message}"
        asked = await wire.post(CHAT, {"contact_id": contact, "message": message}, f"idempotency-key: {message}")
        if asked.status != 200:
            return await self._settle(message, asked)
        [question] = asked.json()["questions"]
        self._journal.questions.add(question["question_id"])
        body = {"contact_id": contact, "answers": {question["question_id"]: "yes"}}
        settled = await self._settle(message, await wire.post(CHAT, body, f"idempotency-key: {message} approved"))
        self._journal.approved += settled
        return settled

    async def _settle(self, message: str, answer: Answer) -> bool:
        said = answer.json()
        if self._journal.note(message, answer.status, said.get("assistant_messages", said)):
            return True
        await asyncio.sleep(PAUSE)
        return False

    async def _until_cut(self, kind: Callable[[], Coroutine[Any, Any, None]]) -> None:
        # A server that was killed ends a caller by one of these.
        with suppress(NoAnswer, CutAnswer, OSError, InvalidHandshake, WebSocketException):
            await kind()

"""A link between replicas over core NATS: questions are requests, answers are their replies, notices are messages."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from types import TracebackType
from typing import Any, Self
from uuid import uuid4

import nats.errors
from nats.aio.client import Client
from nats.aio.msg import Msg

from jimsapi_nats.connection import Connection, NotConnected, Servers

NO_LIMIT = 3600.0
"""Seconds. The caller of `ask` cancels it in time."""

Answer = Callable[[bytes], Awaitable[bytes | None]]
Receive = Callable[[bytes], None]


class NotAReplica(Exception):
    """Something else than a replica has answered a question."""


class NatsLink:
    """Answers questions on the subject of all replicas, and on one of its own, which its answers name.

    A question that nobody can receive fails at once. If a replica has no answer, it sends nothing. Notices have a
    subject of their own.
    """

    name = "nats"

    def __init__(self, servers: Servers, subject: str) -> None:
        self._connection = Connection(servers, "jimsapi live streams", self._subscribe)
        self._all = f"{subject}.all"
        self._own = f"{subject}.{uuid4().hex}"
        self._subject = subject
        self._notices = f"{subject}.notices"
        self._answer: Answer | None = None
        self._receive: Receive | None = None
        self._listening: Client | None = None
        self._answering: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        await self._connection.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for task in self._answering:
            task.cancel()
        await self._connection.__aexit__(kind, error, traceback)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._subject!r})"

    async def serve(self, answer: Answer) -> None:
        """Answer questions now, if there is a connection, and whenever there is one."""
        self._answer = answer
        if self._connection.is_open:
            with suppress(NotConnected):  # the next connection subscribes
                await self._connection.call(self._subscribe_questions)

    async def listen(self, receive: Receive) -> None:
        """Receive notices now, if there is a connection, and whenever there is one."""
        self._receive = receive
        if self._connection.is_open:
            with suppress(NotConnected):  # the next connection subscribes
                await self._connection.call(self._subscribe_notices)

    async def publish(self, notice: bytes) -> None:
        """Send a notice to all other replicas. Without a connection, it is dropped."""

        async def publish(client: Client) -> None:
            await client.publish(self._notices, notice)

        if self._connection.is_open:
            with suppress(NotConnected):
                await self._connection.call(publish)

    async def ask(self, question: bytes, replica: str | None) -> tuple[bytes, str] | None:
        """Ask a replica, or all others. Returns None if there is no connection, or no replica.

        Raises `NotAReplica` if something else answers.
        """
        if not self._connection.is_open:
            return None

        async def request(client: Client) -> Msg:
            return await client.request(replica or self._all, question, timeout=NO_LIMIT)

        try:
            found = await self._connection.call(request)
        except (NotConnected, nats.errors.NoRespondersError):
            return None
        if not found.reply.startswith(f"{self._subject}."):
            text = f"what answers on {self._subject}.> is not a replica; perhaps a stream receives that subject"
            raise NotAReplica(text)
        return found.data, found.reply

    async def _subscribe(self, client: Client) -> None:
        if self._answer is not None:
            await self._subscribe_questions(client)
        if self._receive is not None:
            await self._subscribe_notices(client)

    async def _subscribe_notices(self, client: Client) -> None:
        if self._listening is not client:  # twice, each notice would come twice
            self._listening = client
            await client.subscribe(self._notices, cb=self._on_notice)
            await _until_subscribed(client)

    async def _on_notice(self, message: Msg) -> None:
        assert self._receive is not None
        self._receive(message.data)

    async def _subscribe_questions(self, client: Client) -> None:
        for subject in (self._all, self._own):
            await client.subscribe(subject, cb=self._on_question)
        await _until_subscribed(client)

    async def _on_question(self, message: Msg) -> None:
        assert self._answer is not None
        task = asyncio.create_task(self._reply(self._answer, message), name="jimsapi-nats answer")
        self._answering.add(task)
        task.add_done_callback(self._answering.discard)

    async def _reply(self, answer: Answer, message: Msg) -> None:
        found = await answer(message.data)
        if found is None:
            return

        async def publish(client: Client) -> Any:
            await client.publish(message.reply, found, reply=self._own)

        with suppress(OSError, nats.errors.Error):  # the reader asks again
            await self._connection.call(publish)


async def _until_subscribed(client: Client) -> None:
    """Wait until the server knows all subscriptions. The client library may send the ping of a flush before them."""
    await client.flush()
    await client.flush()

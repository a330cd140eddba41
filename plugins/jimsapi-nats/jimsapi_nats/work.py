"""A queue of background runs for workers: a stream of NATS JetStream with a message for each run."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Any
from uuid import UUID

import nats.errors
import orjson
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js import JetStreamContext
from nats.js.api import AckPolicy, ConsumerConfig, DiscardPolicy, RetentionPolicy, StreamConfig, StreamInfo
from nats.js.errors import APIError, NoStreamResponseError, NotFoundError

from jimsapi.plugins import StartError
from jimsapi_nats.connection import NotConnected, Servers
from jimsapi_nats.stream import StreamClient, receives

logger = logging.getLogger("jimsapi_nats")

CONSUMER = "workers"
"""The consumer of the stream that all workers share. They create it."""
REDELIVER_AFTER = 10.0
"""Seconds without a sign of the worker after which JetStream delivers a run to another one."""
PROGRESS_EVERY = 3.0
"""Seconds between two signs that a worker still works on a run."""
STORED_WITHIN = 2.0
"""Seconds for which a server waits until the stream has stored a run."""
PUT_AT_ONCE = 64
FETCH_FOR = 1.0
"""Seconds for which a worker asks for the next run, before it looks whether it must stop."""
FETCH_AGAIN_AFTER = 0.05
FAILED_FOR = 1.0
"""Seconds for which a worker waits after an error of the stream."""
KNOWN_ALREADY = "maximum messages per subject exceeded"
"""The text of JetStream's error for a run that the stream has already. Its code is also that of a full stream."""

DoRun = Callable[[UUID], Awaitable[float | None]]


class NotPut(ConnectionError):
    """The stream did not store a run."""


class WorkStream(StreamClient):
    """Publishes each run to a subject of its own, of which the stream keeps one message until a worker removes it.

    So a run that is put again while the stream has it changes nothing, however long it waits. The stream delivers a
    message again if its worker gives no sign. All answers to messages go by the current connection.
    """

    name = "nats"

    def __init__(self, servers: Servers, subject: str, stream: str) -> None:
        super().__init__(servers, "jimsapi work", subject, stream)
        self._stopping = asyncio.Event()
        self._subscribed: tuple[Client, JetStreamContext.PullSubscription] | None = None
        self._logged: str | None = None

    async def put(self, run_ids: Sequence[UUID]) -> None:
        """Publish runs that the stream does not have yet. Raises an error if it could not store them all."""
        if not self._connection.is_open:
            raise NotConnected("the NATS server cannot be reached")
        places = asyncio.Semaphore(PUT_AT_ONCE)

        async def put(run_id: UUID) -> None:
            async with places:
                await self._connection.call(lambda client: self._publish(client, run_id))

        results = await asyncio.gather(*map(put, run_ids), return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException):
                raise result

    async def receive(self, do: DoRun, at_once: int) -> None:
        """Call `do` for each run that the stream delivers, until `stop_receiving`."""
        places = asyncio.Semaphore(at_once)
        doing: set[asyncio.Task[None]] = set()

        def on_done(task: asyncio.Task[None]) -> None:
            doing.discard(task)
            places.release()

        try:
            while not self._stopping.is_set():
                await places.acquire()
                message = None if self._stopping.is_set() else await self._next()
                if message is None:
                    places.release()
                elif self._stopping.is_set():
                    await self._answer(message, Msg.Ack.Nak)
                else:
                    task = asyncio.create_task(self._work_on(message, do), name="jimsapi-nats work")
                    doing.add(task)
                    task.add_done_callback(on_done)
            if doing:
                await asyncio.wait(doing)
        finally:
            for task in doing:
                task.cancel()

    def stop_receiving(self) -> None:
        """Ask for no other run. One that comes meanwhile is given to another worker at once."""
        self._stopping.set()

    async def _next(self) -> Msg | None:
        """Return the next message; None if there is none now, or if the stream cannot be asked."""
        try:
            messages = await self._connection.call(self._fetch)
        except (OSError, nats.errors.Error) as error:
            text = str(error) if isinstance(error, NotConnected) else type(error).__name__
            if text != self._logged:
                logger.warning("work queue %s: the worker gets no runs now: %s", self.name, text)
            self._logged = text
            self._subscribed = None
            await asyncio.sleep(FAILED_FOR)
            return None
        self._logged = None
        if not messages:
            await asyncio.sleep(FETCH_AGAIN_AFTER)
            return None
        return messages[0]

    async def _fetch(self, client: Client) -> list[Msg]:
        if self._subscribed is None or self._subscribed[0] is not client:
            stream = client.jetstream()
            config = ConsumerConfig(
                name=CONSUMER,
                durable_name=CONSUMER,
                ack_policy=AckPolicy.EXPLICIT,
                ack_wait=REDELIVER_AFTER,
                max_deliver=-1,
                max_ack_pending=-1,
                filter_subject=f"{self._subject}.*",
            )
            await stream.add_consumer(self._stream, config)
            self._subscribed = client, await stream.pull_subscribe_bind(CONSUMER, self._stream)
        try:
            return await self._subscribed[1].fetch(1, timeout=FETCH_FOR)
        except TimeoutError:  # the stream has no run now
            return []
        except nats.errors.ConnectionClosedError:  # the library raises it in place of a cancellation, too
            return []

    async def _work_on(self, message: Msg, do: DoRun) -> None:
        """Let the run of a message be done. Then remove the message, or let it be delivered again."""
        try:
            run_id = UUID(message.data.decode())
        except ValueError:
            logger.error("work queue %s: a message on %s is not a run; it is removed", self.name, message.subject)
            await self._answer(message, Msg.Ack.Term)
            return
        doing = asyncio.ensure_future(do(run_id))
        try:
            while not (await asyncio.wait({doing}, timeout=PROGRESS_EVERY))[0]:
                await self._answer(message, Msg.Ack.Progress)
            seconds = doing.result()
        finally:
            doing.cancel()
        if seconds is None:
            await self._answer(message, Msg.Ack.Ack)
        else:
            delay = orjson.dumps({"delay": int(seconds * 1e9)}) if seconds else b""
            await self._answer(message, Msg.Ack.Nak + b" " + delay)

    async def _answer(self, message: Msg, answer: bytes) -> None:
        """Answer a message, if there is a connection. If the answer is lost, JetStream delivers the message again."""
        if not self._connection.is_open:
            return

        async def publish(client: Client) -> Any:
            await client.publish(message.reply, answer)

        with suppress(OSError, nats.errors.Error):
            await self._connection.call(publish)

    async def _publish(self, client: Client, run_id: UUID) -> None:
        try:
            await client.jetstream().publish(
                f"{self._subject}.{run_id.hex}", str(run_id).encode(), timeout=STORED_WITHIN, stream=self._stream
            )
        except APIError as error:
            if error.description != KNOWN_ALREADY:
                raise
        except NoStreamResponseError:
            raise NotPut(f"no stream of the NATS server receives the subject {self._subject}.*") from None
        except nats.errors.TimeoutError:
            raise NotPut(f"the NATS server did not store a run within {STORED_WITHIN:g} s") from None

    async def _check_stream(self) -> None:
        """Raise `StartError` if the server lacks the stream, or if the stream is not a queue of these runs."""
        if not self._connection.is_open:
            text = (
                "work queue %s: the NATS server cannot be reached, and background runs wait in the store until it can"
            )
            logger.warning(text, self.name)
            return
        create = (
            f"nats stream add {self._stream} --subjects '{self._subject}.*' --retention work --max-msgs-per-subject 1 "
            "--discard new --discard-per-subject"
        )

        async def look(client: Client) -> StreamInfo:
            return await client.jetstream().stream_info(self._stream)

        try:
            config = (await self._connection.call(look)).config
        except NotFoundError:
            raise StartError(
                f"--nats-work: the NATS server has no stream {self._stream}; create it, for example with: {create}"
            ) from None
        except (NotConnected, nats.errors.Error) as error:
            text = "work queue %s cannot look at the stream %s now, and background runs wait in the store: %s"
            logger.warning(text, self.name, self._stream, type(error).__name__)
            return
        if not _is_queue_of(config, self._subject):
            raise StartError(
                f"--nats-work: the stream {self._stream} is not a queue that keeps one message for each run on "
                f"{self._subject}.*; delete it and create it with: {create}"
            )


def _is_queue_of(config: StreamConfig, subject: str) -> bool:
    """Whether a stream keeps a message until it is removed, and rejects a second one for the same run."""
    return (
        config.retention == RetentionPolicy.WORK_QUEUE
        and config.discard == DiscardPolicy.NEW
        and config.discard_new_per_subject
        and config.max_msgs_per_subject == 1
        and any(receives(pattern, f"{subject}.run") for pattern in config.subjects or ())
    )

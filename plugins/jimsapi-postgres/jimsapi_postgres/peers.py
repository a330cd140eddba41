"""What other processes on the same database do to the runs of this one: it hears of turns, and buries the dead."""

import asyncio
import logging
import time
from collections.abc import Callable, Set
from contextlib import suppress
from datetime import timedelta
from uuid import UUID

from jimsapi.threads.errors import DomainError
from jimsapi_postgres.connections import Connection, Connector
from jimsapi_postgres.errors import reason

logger = logging.getLogger("jimsapi.postgres")

CHANNEL = "jimsapi_turn"
POLL_EVERY = 2.0
"""Seconds between looks for turns of which no notice came."""
RECONNECT_AFTER = 0.5
SILENCE = timedelta(seconds=20)
"""How old a process's last heartbeat is when the process counts as dead; it beats every 5 seconds."""
RECOVERED_AT_ONCE = 1000

RECOVER = "SELECT jimsapi_recover_1($1, $2, $3)"

_MAY_START = """
    SELECT r.run_id FROM jimsapi_runs r
    WHERE r.owner = ANY ($1) AND r.finished_at IS NULL AND r.status = 'queued' AND NOT EXISTS (
        SELECT FROM jimsapi_runs o WHERE o.thread_id = r.thread_id AND o.finished_at IS NULL AND o.seq < r.seq
    )
"""


class Peers:
    """Listens on a connection of its own, for `owners`, the owners that this process's calls came from.

    `on_turn` is called, in the event loop's thread, with a run that may start, or has been ended, since another process
    did something. It may be called too often, and for runs that are known no more.
    """

    def __init__(self, connector: Connector, owners: Set[UUID], on_turn: Callable[[UUID], None]) -> None:
        self._connector = connector
        self._owners = owners
        self._on_turn = on_turn
        self._task = asyncio.get_running_loop().create_task(self._listen(), name="jimsapi-postgres-peers")

    async def close(self) -> None:
        """Stop listening."""
        self._task.cancel()
        await asyncio.wait([self._task])

    async def _listen(self) -> None:
        while True:
            connection = None
            try:
                connection = await self._connector.connect()
                await self._serve(connection)
            except Exception as error:
                if not isinstance(error, DomainError):  # who asks for something hears of those
                    logger.warning("no notice of other processes' runs: %s; connecting anew", reason(error))
                await asyncio.sleep(RECONNECT_AFTER)
            finally:
                if connection is not None:
                    connection.terminate()

    async def _serve(self, connection: Connection) -> None:
        closed = asyncio.Event()
        connection.add_termination_listener(lambda _: closed.set())
        await connection.add_listener(CHANNEL, self._hear)
        # Whoever is silent may have been cut off from the database as we were. It gets as long to be heard again.
        connected_at = time.monotonic()
        while not closed.is_set():
            if self._owners:
                for (run_id,) in await connection.fetch(_MAY_START, list(self._owners)):
                    self._on_turn(UUID(int=run_id.int))
                if time.monotonic() - connected_at > SILENCE.total_seconds():
                    await self._bury(connection)
            with suppress(TimeoutError):
                async with asyncio.timeout(POLL_EVERY):
                    await closed.wait()

    async def _bury(self, connection: Connection) -> None:
        me = next(iter(self._owners))
        if ended := await connection.fetchval(RECOVER, me, SILENCE, RECOVERED_AT_ONCE):
            logger.warning("%d runs of a process that is heard no more are marked interrupted", ended)

    def _hear(self, connection: Connection, pid: int, channel: str, payload: str) -> None:
        owner, _, run = payload.partition(" ")
        with suppress(ValueError):  # anybody may notify
            if UUID(owner) in self._owners:
                self._on_turn(UUID(run))

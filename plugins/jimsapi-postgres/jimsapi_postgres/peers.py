"""What other processes on the same database do to the runs of this one: it hears of turns, and buries the dead."""

import asyncio
import logging
from collections.abc import Callable, Set
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from uuid import UUID

from jimsapi.runs.tasks import ServiceTask
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
LONG_AGO = datetime.min.replace(tzinfo=UTC)

RECOVER = "SELECT jimsapi_recover_2($1, $2, $3, false)"

# Each looked up alone: an index of all open runs may hold far more that have ended, until it is vacuumed.
_WAIT_NO_MORE = """
    SELECT w.run_id
    FROM unnest($1::uuid[]) w (run_id)
    LEFT JOIN LATERAL (
        SELECT r.thread_id, r.seq FROM jimsapi_runs r WHERE r.run_id = w.run_id AND r.finished_at IS NULL LIMIT 1
    ) r ON true
    WHERE r.seq IS NULL OR r.seq = (
        SELECT o.seq FROM jimsapi_runs o WHERE o.thread_id = r.thread_id AND o.finished_at IS NULL
        ORDER BY o.seq
        LIMIT 1
    )
"""


class Peers:
    """Listens on a connection of its own, for `owners`, the owners that this process's calls came from.

    `waiting` are its runs that wait for their turn: they are looked at now and then, since notices get lost. `on_turn`
    is called, in the event loop's thread, with a run that may start, or has been ended, since another process did
    something. It may be called too often, and for runs that are known no more.
    """

    def __init__(
        self, connector: Connector, owners: Set[UUID], waiting: Set[UUID], on_turn: Callable[[UUID], None]
    ) -> None:
        self._connector = connector
        self._owners = owners
        self._waiting = waiting
        self._on_turn = on_turn
        self._looked_at: datetime | None = None
        self._back_since = LONG_AGO
        self._logged = ""
        self._task = ServiceTask.begin(self._listen(), loop=asyncio.get_running_loop(), name="jimsapi-postgres-peers")

    def has_been_away(self, now: datetime) -> bool:
        """Whether this process was cut off from the database of late, or stopped with the whole machine.

        Whoever is silent `now`, by the database's clock, may have been so as well.
        """
        if self._looked_at is None:  # it starts
            return False
        return now - self._looked_at > SILENCE / 2 or now - self._back_since < SILENCE

    async def close(self) -> None:
        """Stop listening."""
        self._task.end()
        await asyncio.wait([self._task])

    async def _listen(self) -> None:
        while True:
            connection = None
            try:
                connection = await self._connector.connect()
                await self._serve(connection)
            except Exception as error:
                # Whoever asks the store for something gets the domain errors.
                if not isinstance(error, DomainError) and self._logged != (cause := reason(error)):
                    self._logged = cause
                    logger.warning("no notice of other processes' runs: %s; connecting anew until it works", cause)
                await asyncio.sleep(RECONNECT_AFTER)
            finally:
                if connection is not None:
                    connection.terminate()

    async def _serve(self, connection: Connection) -> None:
        closed = asyncio.Event()
        connection.add_termination_listener(lambda _: closed.set())
        await connection.add_listener(CHANNEL, self._hear)
        listens_since = await connection.fetchval("SELECT clock_timestamp()")
        while not closed.is_set():
            now = await connection.fetchval("SELECT clock_timestamp()")
            if self._looked_at is not None and now - self._looked_at > SILENCE / 2:
                self._back_since = now
            self._looked_at = now
            if self._waiting:
                for (run_id,) in await connection.fetch(_WAIT_NO_MORE, list(self._waiting)):
                    self._on_turn(UUID(int=run_id.int))
            # Whoever is silent gets as long to be heard again as we listen.
            if self._owners and now - max(listens_since, self._back_since) > SILENCE:
                await self._bury(connection)
            self._logged = ""
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

"""Receives notices of other processes on the same database about runs of this process that may start, and detects
processes that have died."""

import asyncio
import logging
from collections.abc import Callable, Set
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from uuid import UUID

from jimsapi.runs import ServiceTask
from jimsapi.threads import DomainError
from jimsapi_postgres.connections import Connection, Connector
from jimsapi_postgres.errors import reason

logger = logging.getLogger("jimsapi.postgres")

CHANNEL = "jimsapi_turn"
POLL_EVERY = 2.0
"""Seconds between two queries for runs that may start, in case a notice was lost."""
RECONNECT_AFTER = 0.5
SILENCE = timedelta(seconds=20)
"""The age of the last heartbeat at which a process counts as dead. A process sends one every 5 seconds."""
RECOVERED_AT_ONCE = 1000
LONG_AGO = datetime.min.replace(tzinfo=UTC)

RECOVER = "SELECT jimsapi_recover($1, $2, $3, false, $4)"

# Each run is looked up separately. Until a vacuum, an index of all open runs may contain many more that have ended.
_NO_LONGER_WAITING = """
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
    """Listens for notices on a separate connection.

    - `owners`: the owners in this process. Notices for other owners are ignored.
    - `waiting`: the runs of this process that wait for their turn. They are queried regularly: notices may get lost.
    - `on_turn`: called, in the event loop's thread, with a run that may start, or that another process ended or took
      over. It may be called more than once for a run, and for runs that this process no longer knows.
    - `max_restarts`: returns `ThreadStore.max_restarts`.
    """

    def __init__(
        self,
        connector: Connector,
        owners: Set[UUID],
        waiting: Set[UUID],
        on_turn: Callable[[UUID], None],
        max_restarts: Callable[[], int],
    ) -> None:
        self._connector = connector
        self._owners = owners
        self._waiting = waiting
        self._on_turn = on_turn
        self._max_restarts = max_restarts
        self._checked_at: datetime | None = None
        self._reconnected_at = LONG_AGO
        self._logged_cause = ""
        self._task = ServiceTask.begin(self._listen(), loop=asyncio.get_running_loop(), name="jimsapi-postgres-peers")

    def was_disconnected(self, now: datetime) -> bool:
        """Return whether this process was recently disconnected from the database, or suspended with the whole machine.

        Then other processes may have been disconnected too, and must not count as dead. `now` is the database's time.
        """
        if self._checked_at is None:  # the process is starting
            return False
        return now - self._checked_at > SILENCE / 2 or now - self._reconnected_at < SILENCE

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
                # Callers of the store get the domain errors, so these are not logged here.
                if not isinstance(error, DomainError) and self._logged_cause != (cause := reason(error)):
                    self._logged_cause = cause
                    logger.warning("cannot listen for the notices of other processes: %s; reconnecting", cause)
                await asyncio.sleep(RECONNECT_AFTER)
            finally:
                if connection is not None:
                    connection.terminate()

    async def _serve(self, connection: Connection) -> None:
        closed = asyncio.Event()
        connection.add_termination_listener(lambda _: closed.set())
        await connection.add_listener(CHANNEL, self._on_notice)
        listening_since = await connection.fetchval("SELECT clock_timestamp()")
        while not closed.is_set():
            now = await connection.fetchval("SELECT clock_timestamp()")
            if self._checked_at is not None and now - self._checked_at > SILENCE / 2:
                self._reconnected_at = now
            self._checked_at = now
            if self._waiting:
                for (run_id,) in await connection.fetch(_NO_LONGER_WAITING, list(self._waiting)):
                    self._on_turn(UUID(int=run_id.int))
            # After a disconnect, other processes have `SILENCE` to send a heartbeat again.
            if self._owners and now - max(listening_since, self._reconnected_at) > SILENCE:
                await self._end_runs_of_dead(connection)
            self._logged_cause = ""
            with suppress(TimeoutError):
                async with asyncio.timeout(POLL_EVERY):
                    await closed.wait()

    async def _end_runs_of_dead(self, connection: Connection) -> None:
        owner = next(iter(self._owners))
        if ended := await connection.fetchval(RECOVER, owner, SILENCE, RECOVERED_AT_ONCE, self._max_restarts()):
            logger.warning("marked %d runs of a dead process as interrupted", ended)

    def _on_notice(self, connection: Connection, pid: int, channel: str, payload: str) -> None:
        owner, _, run = payload.partition(" ")
        with suppress(ValueError):  # other programs may notify with any text
            if UUID(owner) in self._owners:
                self._on_turn(UUID(run))

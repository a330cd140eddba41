"""The outbox beside transactions that commit in another order than they took their positions."""

import asyncio
from collections.abc import AsyncIterator
from uuid import UUID, uuid4

import asyncpg
import pytest
from jimsapi_postgres.store import PostgresStore

from jimsapi.testing.store import fill, make_event
from jimsapi.threads import row_id

pytestmark = pytest.mark.anyio

OWNER = uuid4()
SINK = "audit"
STORE = """
    INSERT INTO thread_events (thread_id, event_id, created_at, event_type, event_data)
    VALUES ($1, $2, now(), 't', '{}')
"""
ADD = "INSERT INTO jimsapi_outbox (thread_id, event_id) VALUES ($1, $2) RETURNING position"
LETTERS = """
    INSERT INTO jimsapi_dead_letters (sink, thread_id, event_id, reason, failed_at)
    SELECT 'audit', e.thread_id, e.event_id, 'no', now() FROM thread_events e
"""


class Writer:
    """Another connection, which stores events in steps, as the functions of the schema do."""

    def __init__(self, connection: asyncpg.Connection, thread_id: UUID) -> None:
        self._connection = connection
        self._thread_id = thread_id
        self.event_id = uuid4()

    async def begin(self) -> None:
        """Begin a transaction and store the event: the transaction has an identifier then."""
        self._transaction = self._connection.transaction()
        await self._transaction.start()
        await self._connection.execute(STORE, self._thread_id, self.event_id)

    async def add(self) -> int:
        """Add the event to the outbox. Returns its position."""
        return int(await self._connection.fetchval(ADD, self._thread_id, self.event_id))

    async def commit(self) -> None:
        await self._transaction.commit()

    async def undo(self) -> None:
        await self._transaction.rollback()


@pytest.fixture
async def store(url: str) -> AsyncIterator[PostgresStore]:
    async with PostgresStore(url) as opened:
        await opened.outbox.register(SINK)
        assert await opened.outbox.hold(SINK, OWNER, 600.0)
        yield opened


async def received(store: PostgresStore, times: int = 4) -> list[UUID]:
    """What a sink receives if it looks a few times."""
    events: list[UUID] = []
    for _ in range(times):
        batch = await store.outbox.read(SINK, 100)
        events += [row_id(event.row) for event in batch.events]
        if batch.after is not None:
            assert await store.outbox.advance(SINK, OWNER, batch.after)
    return events


@pytest.fixture
async def writers(store: PostgresStore, url: str) -> AsyncIterator[tuple[Writer, Writer]]:
    threads = [await fill(store, [], contact) for contact in ("ann", "ben")]
    await received(store)
    connections = [await asyncpg.connect(url) for _ in threads]
    first, second = (Writer(connection, thread) for connection, thread in zip(connections, threads, strict=True))
    yield first, second
    for connection in connections:
        connection.terminate()


@pytest.mark.parametrize("later", [True, False])
async def test_an_event_whose_transaction_commits_after_later_ones_is_received(
    store: PostgresStore, writers: tuple[Writer, Writer], later: bool
) -> None:
    """`later`: the transaction that commits last has the higher identifier, so nothing shows that it is open."""
    slow, quick = writers
    for writer in (quick, slow) if later else (slow, quick):
        await writer.begin()
    assert await slow.add() < await quick.add()
    await quick.commit()
    assert await received(store) == []
    await slow.commit()
    assert await received(store) == [slow.event_id, quick.event_id]


async def test_a_position_of_a_transaction_that_is_undone_is_passed(
    store: PostgresStore, writers: tuple[Writer, Writer]
) -> None:
    slow, quick = writers
    for writer in (quick, slow):
        await writer.begin()
    await slow.add()
    await quick.add()
    await quick.commit()
    assert await received(store) == []
    await slow.undo()
    assert await received(store) == [quick.event_id]


async def test_a_gap_of_a_server_that_had_higher_identifiers_is_seen_anew(
    store: PostgresStore, writers: tuple[Writer, Writer]
) -> None:
    slow, quick = writers
    for writer in (quick, slow):
        await writer.begin()
    await slow.add()
    await quick.add()
    await quick.commit()
    await received(store)
    store.outbox._gaps[SINK].identifier += 1_000_000  # as before a restore from a backup
    await slow.undo()
    assert await received(store) == [quick.event_id]


async def test_a_sink_is_registered_beside_a_backup_and_no_chat_waits(store: PostgresStore, url: str) -> None:
    backup = await asyncpg.connect(url)
    async with backup.transaction():
        await backup.execute("LOCK TABLE jimsapi_sinks IN ACCESS SHARE MODE")
        await store.outbox.register("later")
        await fill(store, [make_event()])
        assert await store.outbox.remove("later")
    backup.terminate()


async def test_dead_letters_are_replayed_and_dropped_while_their_threads_are_deleted(store: PostgresStore) -> None:
    for _ in range(5):
        for contact in ("ann", "ben", "cora"):
            await fill(store, [make_event() for _ in range(20)], contact)
        await store._do(lambda connection: connection.execute(LETTERS))
        await asyncio.gather(
            *(store.outbox.replay(SINK) for _ in range(3)),
            *(store.delete_contact(contact) for contact in ("ann", "ben", "cora")),
            store.outbox.drop(SINK),
        )

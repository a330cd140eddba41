"""Other JIMS programs' rows, and their clock: the session's time zone, one event at a time."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import orjson
import pytest
from database import Postgres
from jimsapi_postgres.store import PostgresStore

from jimsapi.testing.store import OWNER, all_events, all_threads, completed, contents, fill, make_event, make_plan
from jimsapi.threads.errors import IdentifierTaken, ThreadNotFound
from jimsapi.threads.event import NewEvent, decode_row
from jimsapi.threads.run import ByExternalId, ById, ContextLimits, Latest, New, RunPlan

pytestmark = pytest.mark.anyio

JIMS = Path(__file__).with_name("jims_schema.sql").read_text()
THREAD = 'INSERT INTO threads VALUES ($1, $2, $3, $4, \'{"lang": "\\u00e9"}\')'
EVENT = "INSERT INTO thread_events (thread_id, event_id, event_type, event_data) VALUES ($1, $2, $3, $4)"
SAID = orjson.dumps({"role": "user", "content": "of JIMS"}).decode()
ONE_MOMENT = datetime(2025, 3, 1, 12)


@pytest.fixture(params=["UTC", "America/New_York", "Asia/Kolkata"])
def database(postgres: Postgres, request: pytest.FixtureRequest) -> Any:
    with postgres.database() as name:
        postgres.psql(f"ALTER DATABASE {name} SET timezone = '{request.param}'")
        postgres.psql(JIMS, name)
        yield name


@pytest.fixture
async def jims(url: str) -> AsyncIterator[Any]:
    """Another JIMS program's connection."""
    connection = await asyncpg.connect(url)
    yield connection
    await connection.close()


async def test_events_of_both_stand_in_the_order_in_which_they_came(store: PostgresStore, jims: Any) -> None:
    thread_id = await fill(store, [])
    expected = [event.event_id for event in await all_events(store, thread_id)]
    for _ in range(20):
        theirs = uuid4()
        await jims.execute(EVENT, thread_id, theirs, "comm.user_message", SAID)
        plan, answer = make_plan(selectors=(ById(thread_id),)), make_event()
        accepted = await store.accept(plan)
        assert accepted.snapshot is not None
        seen = [decode_row(thread_id, row).event_id for row in accepted.snapshot.rows[-2:]]
        assert seen == [theirs, plan.message.event_id]
        await store.finish(plan.run_id, OWNER, completed(answer))
        expected += [theirs, plan.message.event_id, answer.event_id]
    # As jims-core reads them: by time alone.
    by_time = await jims.fetch(
        "SELECT event_id, created_at FROM thread_events WHERE thread_id = $1 ORDER BY created_at", thread_id
    )
    assert [row[0] for row in by_time] == expected
    assert all(earlier[1] < later[1] for earlier, later in pairwise(by_time))
    assert [event.event_id for event in await all_events(store, thread_id, 7)] == expected


async def test_times_are_the_sessions_inside_and_utc_outside(store: PostgresStore, jims: Any) -> None:
    plan = make_plan()
    accepted = await store.accept(plan)
    now, theirs = datetime.now(UTC), await jims.fetchval("SELECT now()::timestamp")
    assert accepted.snapshot is not None
    inside = decode_row(accepted.thread.thread_id, accepted.snapshot.rows[-1]).created_at
    assert abs(inside - theirs) < timedelta(minutes=1)
    outside = (await all_events(store, accepted.thread.thread_id))[-1].created_at
    assert outside.utcoffset() == timedelta(0)
    assert abs(outside - now) < timedelta(minutes=1)
    assert abs(accepted.thread.created_at - now) < timedelta(minutes=1)
    stored = await jims.fetchval("SELECT created_at FROM threads")
    assert abs(stored - datetime.now()) < timedelta(minutes=1)


async def test_a_clock_that_went_back_does_not_reorder(store: PostgresStore, jims: Any) -> None:
    thread_id = await fill(store, [])
    last, ahead = uuid4(), timedelta(hours=1)  # as before the clock was set back in autumn
    await jims.execute(EVENT, thread_id, last, "comm.user_message", SAID)
    await jims.execute("UPDATE thread_events SET created_at = created_at + $2 WHERE event_id = $1", last, ahead)
    sent = [make_event() for _ in range(3)]
    plan = make_plan(conversation_start=True, selectors=(ById(thread_id),))
    await store.accept(plan)
    await store.finish(plan.run_id, OWNER, completed(*sent))
    events = await all_events(store, thread_id)
    assert [event.event_id for event in events[-5:]] == [last, plan.message.event_id, *[one.event_id for one in sent]]
    assert events[-1].created_at - events[-5].created_at == timedelta(microseconds=4)
    await jims.execute("UPDATE threads SET created_at = created_at + $1", ahead * 24)
    await fill(store, [])
    assert [thread.thread_id for thread in await all_threads(store, "ann")][-1] == thread_id


@pytest.mark.parametrize("limit", [1, 3, 100])
async def test_events_of_one_moment_are_paged_and_loaded_without_loss(
    store: PostgresStore, jims: Any, limit: int
) -> None:
    thread_id, ids = uuid4(), {uuid4() for _ in range(14)}
    await jims.execute(THREAD, thread_id, "ann", None, ONE_MOMENT)
    for event_id in ids:
        await jims.execute(EVENT, thread_id, event_id, "comm.user_message", SAID)
    await jims.execute("UPDATE thread_events SET created_at = $1", ONE_MOMENT)
    events = await all_events(store, thread_id, limit)
    assert len(events) == 14
    assert {event.event_id for event in events} == ids
    loaded: list[UUID] = []
    before = None
    while rows := await store.load_events(thread_id, before, limit):
        decoded = [decode_row(thread_id, row) for row in rows]
        loaded = [event.event_id for event in decoded] + loaded
        before = decoded[0]
    assert loaded == [event.event_id for event in events]
    small = ContextLimits(events=3)
    accepted = await store.accept(make_plan(selectors=(ById(thread_id),), context=small))
    assert accepted.snapshot is not None
    assert len(accepted.snapshot.rows) == 6
    assert accepted.snapshot.truncated


async def test_threads_as_jims_makes_them_are_found(store: PostgresStore, jims: Any) -> None:
    old, new, nobodys = uuid4(), uuid4(), uuid4()
    await jims.execute(THREAD, old, "ann", "tg:1", datetime.now() - timedelta(days=1))
    await jims.execute(THREAD, new, "ann", "tg:1", datetime.now())
    await jims.execute(THREAD, nobodys, None, None, datetime.now())
    assert (await store.accept(make_plan(selectors=(ByExternalId("tg:1"),)))).thread.thread_id == new
    assert [thread.thread_id for thread in await all_threads(store, "ann")] == [new, old]
    record = await store.thread(nobodys, None)
    assert record.contact_id is None
    assert orjson.loads(record.thread_config) == {"lang": "é"}
    for contact in ("", "ann"):
        with pytest.raises(ThreadNotFound):
            await store.accept(make_plan(contact, selectors=(ById(nobodys),), acting_for=contact))


async def test_a_thread_without_events_is_as_old_as_itself(store: PostgresStore, jims: Any) -> None:
    thread_id = uuid4()
    await jims.execute(THREAD, thread_id, "ann", None, datetime.now() - timedelta(minutes=10))
    quiet = await store.accept(make_plan(selectors=(Latest(timedelta(minutes=5)), New())))
    assert quiet.created_new_thread
    await store.delete_thread(quiet.thread.thread_id, None)
    active = await store.accept(make_plan(selectors=(Latest(timedelta(minutes=15)), New())))
    assert active.thread.thread_id == thread_id
    assert active.snapshot is not None
    assert len(active.snapshot.rows) == 1


async def test_an_event_that_another_program_stored_first_is_refused(store: PostgresStore, jims: Any) -> None:
    plan = make_plan()
    thread_id = (await store.accept(plan)).thread.thread_id
    theirs = uuid4()
    await jims.execute(EVENT, thread_id, theirs, "comm.user_message", SAID)
    with pytest.raises(IdentifierTaken) as refused:
        await store.finish(plan.run_id, OWNER, completed(make_event(), NewEvent(theirs, "x", b"{}")))
    assert refused.value.event_ids == {theirs}
    message = make_plan().message
    await jims.execute(EVENT, thread_id, message.event_id, "comm.user_message", SAID)
    again = RunPlan(
        run_id=uuid4(), owner=OWNER, contact_id="ann", acting_for=None, selectors=(ById(thread_id),), message=message,
        thread_config=b"{}",
    )  # fmt: skip
    with pytest.raises(IdentifierTaken):
        await store.accept(again)


async def test_null_data_and_json_as_others_wrote_it_come_back(store: PostgresStore, jims: Any) -> None:
    thread_id = await fill(store, [])
    await jims.execute(EVENT, thread_id, uuid4(), "rag.step", None)
    await jims.execute(EVENT, thread_id, uuid4(), "rag.step", '{"a":  1.0, "b": "\\u00e9", "a": 2}')
    nothing, something = (await all_events(store, thread_id))[-2:]
    assert nothing.event_data is None
    assert something.event_data == b'{"a":  1.0, "b": "\\u00e9", "a": 2}'
    rows = await store.load_events(thread_id, None, 2)
    assert [decode_row(thread_id, row).event_data for row in rows] == [None, {"a": 2, "b": "é"}]


async def test_messages_through_both_at_once_stay_in_order(store: PostgresStore, jims: Any) -> None:
    thread_id = await fill(store, [])

    async def theirs() -> None:
        for _ in range(50):
            await jims.execute(EVENT, thread_id, uuid4(), "comm.user_message", SAID)

    async def ours() -> None:
        for number in range(50):
            plan = make_plan(text=str(number), selectors=(ById(thread_id),))
            await store.accept(plan)
            await store.finish(plan.run_id, OWNER, completed())

    await asyncio.gather(theirs(), ours())
    said = await contents(store, thread_id)
    assert [text for text in said if text.isdigit()] == [str(number) for number in range(50)]
    assert said.count("of JIMS") == 50

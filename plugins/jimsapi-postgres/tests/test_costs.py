"""What a turn costs in PostgreSQL grows neither with the thread nor with the contact; counted in pages, not time."""

import json
from collections.abc import AsyncIterator
from datetime import date
from functools import partial
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest
from database import Postgres
from jimsapi_postgres import rows
from jimsapi_postgres.connections import Connector, Link
from jimsapi_postgres.schema import prepare
from jimsapi_postgres.store import (
    _BETWEEN,
    _CALLER_USAGE,
    _CONTACT_USAGE,
    _EVENTS,
    _FIRST_ID,
    _FIRST_TIME,
    _LAST_ID,
    _LAST_TIME,
    _RUN,
    _THREADS,
)
from jimsapi_postgres.url import parse_url

from jimsapi.testing.store import OWNER, completed, make_event, make_key, make_plan
from jimsapi.threads.event import TICK
from jimsapi.threads.run import ById, Latest, New, RunPlan, Selector
from jimsapi.threads.store import KEEP_KEYS

pytestmark = pytest.mark.anyio

SHORT, LONG = 400, 50_000
SHAPES = {
    "talk": ["comm.assistant_message"],
    "own types": ["rag.query_processed"],
    "one state": ["state.set.mood"],
    "ten states": [f"state.set.{number}" for number in range(10)],
    "usual": ["comm.user_message", "rag.query_processed", "state.set.mood", "comm.assistant_message"],
}
MANY_THREADS = 20_000
FILL = """
    INSERT INTO thread_events (thread_id, event_id, created_at, event_type, event_data)
    SELECT $1, gen_random_uuid(), timestamp '2025-01-01' + n * interval '1 millisecond',
        ($2::text[])[1 + n % cardinality($2::text[])], '{"content":"Hello"}'
    FROM generate_series(1, $3::int) n
"""
THREAD = "INSERT INTO threads SELECT $1, $2, NULL, timestamp '2025-01-01', '{}'"
THREADS = """
    INSERT INTO threads
    SELECT gen_random_uuid(), $1, NULL, timestamp '2025-01-01' + n * interval '1 second', '{}'
    FROM generate_series(1, $2::int) n
"""
ENDED_RUNS = """
    INSERT INTO jimsapi_runs (
        run_id, thread_id, seq, owner, status, created_new_thread, message_id, message_type, accepted_at, finished_at
    )
    SELECT gen_random_uuid(), $1, 1, $2, 'completed', false, gen_random_uuid(), 'x', now(), now()
    FROM generate_series(1, $3::int)
"""
OPEN_RUNS = """
    INSERT INTO jimsapi_runs (
        run_id, thread_id, seq, owner, status, created_new_thread, message_id, message_type, accepted_at
    )
    SELECT gen_random_uuid(), gen_random_uuid(), 1, $1, 'running', false, gen_random_uuid(), 'x', now()
    FROM generate_series(1, $2::int)
"""
KEYS = """
    INSERT INTO jimsapi_idempotency SELECT gen_random_uuid(), gen_random_uuid(), run_id, now() FROM jimsapi_runs
"""
DAY = date(2025, 1, 1)
CONTACT_USAGE = """
    INSERT INTO jimsapi_contact_usage
    SELECT 'c' || n, $1, 'm', $2, 1, 1, 1, 1, 1 FROM generate_series(1, 20000) n
"""
CALLER_USAGE = """
    INSERT INTO jimsapi_caller_usage SELECT $2, $1::date - n, 'm', 1, 1, 1, 1, 1 FROM generate_series(1, 20000) n
"""
INTERRUPTED = "UPDATE jimsapi_runs SET status = 'interrupted', finished_at = now() WHERE run_id = $1"


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


Place = tuple[Link, dict[tuple[str, int], UUID]]
"""A connection to a database with threads, by shape and length."""


@pytest.fixture(scope="module", params=["planned when empty", "without statistics", "analysed"])
async def place(postgres: Postgres, request: pytest.FixtureRequest) -> AsyncIterator[Place]:
    with postgres.database() as name:
        url = postgres.url(name)
        await prepare(parse_url(url), wait=0)
        connection = await asyncpg.connect(url)
        # Statistics come when the test says so.
        for table in ("threads", "thread_events", "jimsapi_runs", "jimsapi_idempotency"):
            await connection.execute(f"ALTER TABLE {table} SET (autovacuum_enabled = off)")
        link = Link(Connector(parse_url(url)))
        if request.param == "planned when empty":
            await link.run(_make_plans)
        made: dict[tuple[str, int], UUID] = {}
        for shape, types in SHAPES.items():
            for length in (SHORT, LONG):
                made[shape, length] = thread_id = uuid4()
                await connection.execute(THREAD, thread_id, shape)
                await connection.execute(FILL, thread_id, types, length)
                await connection.execute(ENDED_RUNS, thread_id, OWNER, length // 10)
        await connection.execute(KEYS)
        await connection.execute(THREADS, "few", 1)
        await connection.execute(THREADS, "many", MANY_THREADS)
        if request.param == "analysed":
            await connection.execute("VACUUM ANALYZE")
        await connection.close()
        yield link, made
        await link.close()


async def _make_plans(connection: Any) -> None:
    """Have every statement planned as the first messages of all do it: the second finds a thread."""
    for _ in range(3):
        plan = make_plan("first")
        await connection.fetch(rows.ACCEPT, *rows.accept_arguments([plan]))
        finishing = [(plan.run_id, OWNER, completed(make_event()))]
        await connection.fetch(rows.FINISH, *rows.finish_arguments(finishing))
        for contact_id in ("first", str(uuid4())):
            await connection.fetch(rows.ACCEPT_ALIKE, *rows.alike_arguments([make_plan(contact_id)], only_new=False))
        await connection.fetch(rows.ACCEPT_WITH_KEYS, *_with_key(make_plan("first", idempotency=make_key())))
    await connection.fetch(_RUN, uuid4())
    await connection.fetch(_BETWEEN, uuid4(), _FIRST_TIME, _LAST_TIME)
    await connection.fetch(_EVENTS, uuid4(), _FIRST_TIME, _FIRST_ID, 11)
    await connection.fetch(_THREADS, "first", _LAST_TIME, _LAST_ID, 11, None)
    await connection.fetch(_CONTACT_USAGE, "first", DAY, DAY, OWNER)
    await connection.fetch(_CALLER_USAGE, OWNER, DAY, DAY)


@pytest.mark.parametrize("shape", SHAPES)
async def test_a_turn_in_a_long_thread_costs_as_one_in_a_short_thread(place: Place, shape: str) -> None:
    link, threads = place
    short, long = [await _turn(link, ById(threads[shape, length])) for length in (SHORT, LONG)]
    print(f"{shape}: {short} pages at {SHORT} events, {long} at {LONG}: {long / short:.2f}")
    assert long <= 1.3 * short


async def test_a_message_with_a_key_costs_the_same_in_a_long_thread_and_beside_many_keys(place: Place) -> None:
    link, threads = place
    costs = []
    for length in (SHORT, LONG):
        turns = partial(_turns_with_a_key, thread_id=threads["usual", length])
        await link.run(turns)
        costs.append(await link.run(turns))
    print(f"{costs} pages for a free, a used and an interrupted key")
    assert all(long <= 1.3 * short for short, long in zip(*costs, strict=True))


async def _turns_with_a_key(connection: Any, thread_id: UUID) -> list[int]:
    """Pages that messages touch whose key is free, used, and that of an interrupted run."""
    key = make_key()
    first, used, again = [make_plan(selectors=(ById(thread_id),), idempotency=key) for _ in range(3)]
    transaction = connection.transaction()
    await transaction.start()
    try:
        pages = [await _count(connection, rows.ACCEPT_WITH_KEYS, *_with_key(plan)) for plan in (first, used)]
        await connection.execute(INTERRUPTED, first.run_id)
        pages.append(await _count(connection, rows.ACCEPT_WITH_KEYS, *_with_key(again)))
        assert (await connection.fetchrow(_RUN, again.run_id))["status"] == "running"
        return pages
    finally:
        await transaction.rollback()


async def test_a_run_is_shown_at_the_cost_of_what_it_sent(place: Place) -> None:
    link, threads = place
    plan = make_plan(selectors=(ById(threads["usual", LONG]),))

    async def look(connection: Any) -> int:
        transaction = connection.transaction()
        await transaction.start()
        try:
            await connection.fetch(rows.ACCEPT, *rows.accept_arguments([plan]))
            finishing = [(plan.run_id, OWNER, completed(*[make_event() for _ in range(3)]))]
            await connection.fetch(rows.FINISH, *rows.finish_arguments(finishing))
            found = await connection.fetchrow(_RUN, plan.run_id)
            until = found["sent_at"] + 2 * TICK
            sent = (found["thread_id"], found["sent_at"], until)
            assert len(await connection.fetch(_BETWEEN, *sent)) == 3
            return await _count(connection, _RUN, plan.run_id) + await _count(connection, _BETWEEN, *sent)
        finally:
            await transaction.rollback()

    await link.run(look)
    assert await link.run(look) < 30


async def test_a_contact_with_many_threads_costs_as_one_with_few(place: Place) -> None:
    link, _ = place
    few, many = [await _turn(link, Latest(), contact) for contact in ("few", "many")]
    print(f"{few} pages with one thread, {many} with {MANY_THREADS}")
    assert many <= 1.3 * few
    few, many = [await _new(link, contact) for contact in ("few", "many")]
    assert many <= 1.3 * few
    few, many = [await _alike(link, contact) for contact in ("few", "many")]
    assert many <= 1.3 * few


async def test_a_budget_reads_its_contact_at_a_cost_that_other_contacts_and_days_do_not_raise(place: Place) -> None:
    async def read(connection: Any) -> int:
        of_contact = await _count(connection, _CONTACT_USAGE, "many", DAY, DAY, OWNER)
        return of_contact + await _count(connection, _CALLER_USAGE, OWNER, DAY, DAY)

    async def spend(connection: Any) -> int:
        """Count the pages of a turn that uses two models."""
        plan = make_plan("many", caller=OWNER)
        await connection.fetch(rows.ACCEPT, *rows.accept_arguments([plan]))
        used = [make_event("model.usage", {"model": model, "input_tokens": 1}) for model in "mn"]
        return await _count(connection, rows.FINISH, *rows.finish_arguments([(plan.run_id, OWNER, completed(*used))]))

    link, _ = place
    few, few_of_turn = await link.run(read), await link.run(spend)
    await link.run(lambda connection: connection.execute(CONTACT_USAGE, DAY, OWNER))
    await link.run(lambda connection: connection.execute(CALLER_USAGE, DAY, OWNER))
    many, many_of_turn = await link.run(read), await link.run(spend)
    print(f"{few} pages, {many} beside 20,000 contacts and 20,000 days; {few_of_turn} and {many_of_turn} for a turn")
    assert many <= few + 10
    assert many_of_turn <= few_of_turn + 30


async def test_a_turn_costs_the_same_beside_many_open_runs(place: Place) -> None:
    link, threads = place
    selectors: list[Selector] = [ById(threads["usual", SHORT]), New()]
    before = [await _turn(link, selector) for selector in selectors]
    await link.run(lambda connection: connection.execute(OPEN_RUNS, OWNER, 5000))
    after = [await _turn(link, selector) for selector in selectors]
    print(f"{before} pages, {after} beside 5,000 open runs")
    assert all(many <= 1.3 * few for few, many in zip(before, after, strict=True))


async def test_a_page_costs_what_it_holds(place: Place) -> None:
    link, threads = place
    thread_id = threads["talk", LONG]
    middle = await link.run(
        lambda connection: connection.fetchrow(
            "SELECT created_at, event_id FROM thread_events WHERE thread_id = $1 ORDER BY created_at OFFSET $2 LIMIT 1",
            thread_id, LONG // 2,
        )
    )  # fmt: skip
    assert await _pages(link, _EVENTS, thread_id, *middle, 11) < 50
    for archived, pages in ((None, 50), (False, 100)):
        assert await _pages(link, _THREADS, "many", _LAST_TIME, _LAST_ID, 11, archived) < pages


async def _turn(link: Link, selector: Selector, contact_id: str = "ann") -> int:
    """Pages that an accept and a finish touch, undone afterwards."""
    plan = make_plan(contact_id, selectors=(selector,))

    async def turn(connection: Any) -> int:
        transaction = connection.transaction()
        await transaction.start()
        try:
            touched = await _count(connection, rows.ACCEPT, *rows.accept_arguments([plan]))
            finishing = [(plan.run_id, OWNER, completed(make_event()))]
            touched += await _count(connection, rows.FINISH, *rows.finish_arguments(finishing))
            status = await connection.fetchval("SELECT status FROM jimsapi_runs WHERE run_id = $1", plan.run_id)
            assert status == "completed"
            return touched
        finally:
            await transaction.rollback()

    await link.run(turn)  # plans and caches are warm from here on
    return await link.run(turn)


def _with_key(plan: RunPlan) -> list[Any]:
    return [*rows.key_arguments([plan], KEEP_KEYS), *rows.accept_arguments([plan])]


async def _alike(link: Link, contact_id: str) -> int:
    """Pages that a message touches that takes the shorter way, undone afterwards."""

    async def accept(connection: Any) -> int:
        transaction = connection.transaction()
        await transaction.start()
        try:
            arguments = rows.alike_arguments([make_plan(contact_id)], only_new=False)
            return await _count(connection, rows.ACCEPT_ALIKE, *arguments)
        finally:
            await transaction.rollback()

    await link.run(accept)
    return await link.run(accept)


async def _new(link: Link, contact_id: str) -> int:
    return await _turn(link, New(), contact_id)


async def _pages(link: Link, query: str, *arguments: Any) -> int:
    await link.run(lambda connection: _count(connection, query, *arguments))
    return await link.run(lambda connection: _count(connection, query, *arguments))


async def _count(connection: Any, query: str, *arguments: Any) -> int:
    explained = await connection.fetchval(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {query}", *arguments)
    plan = json.loads(explained)[0]["Plan"]
    return int(plan["Shared Hit Blocks"] + plan["Shared Read Blocks"])

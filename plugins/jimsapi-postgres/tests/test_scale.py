"""What docs/scale.md says of PostgreSQL: what a chat costs, its partitions, and its settings of autovacuum."""

import re
from collections.abc import Iterator
from uuid import UUID

import pytest
from database import Postgres
from jimsapi_postgres.store import PostgresStore

from benchmarks.costs import SETTINGS, Case, counted
from jimsapi.testing.store import OWNER, completed, make_event, make_plan
from tests.serving import ROOT

pytestmark = pytest.mark.anyio

PAGE = ROOT.joinpath("docs/scale.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def counting() -> Iterator[Postgres]:
    """A server whose log has every statement."""
    with Postgres(**SETTINGS) as server:
        yield server


@pytest.mark.parametrize(("case", "inserted"), [(Case("first"), 5), (Case("later", turns=1), 3)])
def test_a_chat_alone_is_two_statements_and_transactions_and_the_rows_of_the_page(
    counting: Postgres, case: Case, inserted: int
) -> None:
    found = counted(counting, case, chats=100).of_chat
    assert found["statements"] == pytest.approx(2, abs=0.3)  # heartbeats come, too
    assert found["transactions"] == pytest.approx(2, abs=0.3)
    assert found["rows inserted"] == pytest.approx(inserted, abs=0.05)
    assert found["rows updated"] == pytest.approx(1, abs=0.1)
    assert found["rows deleted"] == 0


def test_chats_of_many_clients_share_transactions(counting: Postgres) -> None:
    found = counted(counting, Case("shared", clients=32), chats=200).of_chat
    assert found["transactions"] < 1
    assert found["rows inserted"] == pytest.approx(5, abs=0.05)


@pytest.fixture
def with_partitions(postgres: Postgres, database: str) -> str:
    """A database with the partitions of the page, and nothing else yet."""
    [statements] = re.findall(r"^```sql\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
    postgres.psql(statements, database)
    return database


async def test_a_store_starts_on_the_partitions_of_the_page_and_keeps_a_thread_in_one_of_them(
    postgres: Postgres, with_partitions: str
) -> None:
    threads: set[UUID] = set()
    async with PostgresStore(postgres.url(with_partitions)) as store:
        for number in range(20):
            for _ in range(2):
                plan = make_plan(f"contact {number}")
                accepted = await store.accept(plan)
                await store.finish(plan.run_id, OWNER, completed(make_event()))
                threads.add(accepted.thread.thread_id)
    assert len(threads) == 20
    of_thread = "SELECT thread_id, count(DISTINCT tableoid), count(*) FROM thread_events GROUP BY 1"
    lines = [line.split("|") for line in postgres.psql(of_thread, with_partitions).splitlines()]
    assert {UUID(thread): (tables, events) for thread, tables, events in lines} == dict.fromkeys(threads, ("1", "5"))
    used = postgres.psql("SELECT count(DISTINCT tableoid) FROM thread_events", with_partitions)
    assert int(used) > 1


def test_postgresql_accepts_the_settings_of_autovacuum_of_the_page(postgres: Postgres, shared_url: str) -> None:
    settings = re.findall(r"^ +(ALTER TABLE .*;)$", PAGE, re.MULTILINE)
    assert len(settings) == 2
    postgres.psql("BEGIN;" + "".join(settings) + "ROLLBACK;", shared_url.rpartition("/")[2])

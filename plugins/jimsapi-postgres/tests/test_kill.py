"""A process that is killed: what it acknowledged stays, what it worked on is marked, and its threads go on."""

import subprocess
import sys
from pathlib import Path
from random import Random
from uuid import UUID

import pytest
from database import Postgres
from jimsapi_postgres.store import PostgresStore

from jimsapi.testing.store import all_events, make_plan
from jimsapi.threads.ids import uuid7
from jimsapi.threads.run import ById, RunStatus
from tests.faults.doubt import put_in_doubt
from tests.faults.kill import PROMISED_NONE, kill_postgresql, kill_servers
from tests.faults.places import PostgresPlace
from tests.faults.questions import PROMISED_NONE as QUESTIONS_PROMISED_NONE
from tests.faults.questions import tell_histories
from tests.faults.replicas import PROMISED_NONE as REPLICAS_PROMISED_NONE
from tests.faults.replicas import Replicas, Workers, kill_replicas
from tests.faults.report import broken
from tests.waiting import eventually

pytestmark = pytest.mark.anyio

LOAD = str(Path(__file__).with_name("load.py"))
AS_OF_LONG_AGO = "UPDATE jimsapi_owners SET beat_at = '-infinity'"
OPEN = "SELECT count(*) FROM jimsapi_runs WHERE finished_at IS NULL"
CONNECTIONS = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
INTERRUPTED = "SELECT DISTINCT thread_id, message_id FROM jimsapi_runs WHERE status = 'interrupted'"


async def test_a_process_that_is_killed_under_load_loses_nothing_it_acknowledged(
    postgres: Postgres, database: str, url: str
) -> None:
    with subprocess.Popen([sys.executable, LOAD, url], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(500)]
        process.kill()
        lines += process.stdout.readlines()
    assert lines[0] == "open\n"
    acknowledged = [[UUID(part) for part in line.split()] for line in lines[1:]]
    # PostgreSQL may still commit what the process had sent.
    eventually(lambda: postgres.psql(CONNECTIONS, database) == "0")
    left_open = int(postgres.psql(OPEN, database))
    assert left_open >= 2
    postgres.psql(AS_OF_LONG_AGO, database)
    async with PostgresStore(url) as store:
        assert await store.recover(uuid7()) == left_open
        marked = [[UUID(part) for part in line.split("|")] for line in postgres.psql(INTERRUPTED, database).split()]
        assert len(marked) == left_open
        stored: dict[UUID, list[UUID]] = {}
        for thread_id in {row[0] for row in acknowledged + marked}:
            stored[thread_id] = [event.event_id for event in await all_events(store, thread_id)]
        for thread_id, *events in acknowledged + marked:
            assert [stored[thread_id].count(event) for event in events] == [1] * len(events)
        for thread_id in stored:
            accepted = await store.accept(make_plan(selectors=(ById(thread_id),)))
            assert accepted.status is RunStatus.RUNNING


async def test_two_servers_of_which_one_is_killed_at_a_time_lose_and_double_nothing(
    postgres: Postgres, database: str
) -> None:
    figures = await kill_servers(PostgresPlace(postgres, database), 2, Random(3), servers=2)
    assert broken(figures, PROMISED_NONE) == {}
    for name in ("acknowledged", "accepted in the background", "retries under a key"):
        assert figures[name] > 0, name


async def test_servers_whose_postgresql_is_killed_lose_and_double_nothing(own_postgres: Postgres) -> None:
    figures = await kill_postgresql(PostgresPlace(own_postgres), 1, Random(3))
    assert broken(figures, PROMISED_NONE) == {}
    assert figures["acknowledged"] > 0
    assert figures["refusals"] > 0


async def test_commits_whose_answer_is_lost_double_nothing_over_http(own_postgres: Postgres) -> None:
    figures = await put_in_doubt(own_postgres, 7, Random(3))
    assert broken(figures, PROMISED_NONE) == {}
    for name in ("commits in doubt", "cuts of all connections", "times read-only", "restarts"):
        assert figures[name] > 0, name


async def test_answers_and_effects_of_two_servers_that_are_killed_count_once(own_postgres: Postgres) -> None:
    figures = await tell_histories(PostgresPlace(own_postgres), 6, seed=5)
    assert broken(figures, QUESTIONS_PROMISED_NONE) == {}
    for name in ("answers acknowledged", "effects"):
        assert figures[name] > 0, name


# A supervisor starts a worker later each time if workers die soon after their start.
@pytest.mark.parametrize(("kind", "every"), [(Replicas, 1.0), (Workers, 5.0)])
async def test_three_processes_that_are_killed_while_postgresql_restarts_lose_and_double_nothing(
    own_postgres: Postgres, kind: type[Replicas] | type[Workers], every: float
) -> None:
    place, random = PostgresPlace(own_postgres), Random(3)
    figures = await kill_replicas(place, kind(place, random, 3), random, messages=100, contacts=8, every=every)
    assert broken(figures, REPLICAS_PROMISED_NONE) == {}
    for name in ("kills", "acknowledged", "accepted in the background", "repeats under a key"):
        assert figures[name] > 0, name
    assert figures["restarts of PostgreSQL"] == 2

"""Faults of PostgreSQL that its server reports: what callers and readiness get, and that it is over by itself."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import pytest
from database import Postgres
from jimsapi_postgres import peers
from jimsapi_postgres import store as store_module
from jimsapi_postgres.connections import ANSWER_TIMEOUT
from jimsapi_postgres.errors import public_reason
from jimsapi_postgres.peers import SILENCE
from jimsapi_postgres.store import PostgresStore
from proxy import Proxy

from jimsapi.testing.store import OWNER, completed, make_event, make_plan
from jimsapi.threads.errors import StoreUnavailable
from jimsapi.threads.ids import uuid7
from tests.serving import Served
from tests.waiting import insist

pytestmark = pytest.mark.anyio

FAIL_WITH = """
    CREATE OR REPLACE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN RAISE EXCEPTION 'could not extend file: No space left on device' USING ERRCODE = '53100'; END $$;
    CREATE TRIGGER full_disk BEFORE INSERT ON thread_events EXECUTE FUNCTION fail()
"""
KILL_OTHERS = """
    SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
    WHERE backend_type = 'client backend' AND pid <> pg_backend_pid() AND application_name <> 'crowd'
"""


async def test_a_full_disk_fails_readiness_though_a_small_write_succeeds(
    store: PostgresStore, postgres: Postgres, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = make_plan()
    await store.accept(plan)
    postgres.psql(FAIL_WITH, database)
    await unavailable("disk full", lambda: store.finish(plan.run_id, OWNER, completed(make_event())))
    await unavailable("disk full", store.ping)
    postgres.psql("DROP TRIGGER full_disk ON thread_events", database)
    await unavailable("disk full", store.ping)
    monkeypatch.setattr(store_module, "FAULT_SHOWN_FOR", 0.0)
    postgres.psql(FAIL_WITH, database)
    await unavailable("disk full", lambda: store.accept(make_plan("bob")))
    postgres.psql("DROP TRIGGER full_disk ON thread_events", database)
    await store.ping()
    assert (await store.finish(plan.run_id, OWNER, completed(make_event()))).counted


async def test_a_damaged_table_fails_readiness_and_what_reads_it_alone(own_postgres: Postgres) -> None:
    own_postgres.psql("CREATE DATABASE damaged")
    url = own_postgres.url("damaged")
    async with PostgresStore(url) as store:
        thread_id = (await store.accept(make_plan())).thread.thread_id
    place = own_postgres.psql("CHECKPOINT; SELECT pg_relation_filepath('thread_events')", "damaged")
    own_postgres.stop()
    with (Path(own_postgres.data) / place).open("r+b") as file:
        file.write(b"\xff" * 8192)
    own_postgres.start()
    async with PostgresStore(url) as store:
        await store.ping()
        await unavailable("database damaged", lambda: store.events(thread_id, None, 10, None))
        await unavailable("database damaged", store.ping)


async def test_dropped_tables_fail_readiness_until_they_are_back(
    store: PostgresStore, postgres: Postgres, database: str
) -> None:
    await store.accept(make_plan())
    postgres.psql("ALTER TABLE thread_events RENAME TO gone", database)
    await unavailable("tables or functions missing", lambda: store.accept(make_plan("bob")))
    await unavailable("tables or functions missing", store.ping)
    postgres.psql("ALTER TABLE gone RENAME TO thread_events", database)
    await insist(store.ping)
    assert (await store.accept(make_plan("bob"))).created_new_thread


@pytest.mark.parametrize("tables", ["thread_events", "ALL TABLES IN SCHEMA public"])
async def test_rights_that_were_revoked_fail_readiness_until_they_are_granted_again(
    own_postgres: Postgres, monkeypatch: pytest.MonkeyPatch, tables: str
) -> None:
    async with PostgresStore(own_postgres.url()):
        pass  # it has made the tables
    own_postgres.psql("CREATE ROLE serving LOGIN")
    own_postgres.psql("GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO serving")
    async with PostgresStore(own_postgres.url(user="serving")) as store:
        await store.accept(make_plan())
        own_postgres.psql(f"REVOKE INSERT ON {tables} FROM serving")
        await unavailable("access denied", lambda: store.accept(make_plan("bob")))
        await unavailable("access denied", store.ping)
        monkeypatch.setattr(store_module, "FAULT_SHOWN_FOR", 0.0)
        await unavailable("access denied", lambda: store.accept(make_plan("bob")))
        if tables != "thread_events":  # the small write of a ping fails, too
            await unavailable("access denied", store.ping)
        own_postgres.psql(f"GRANT INSERT ON {tables} TO serving")
        await store.ping()
        assert (await store.accept(make_plan("bob"))).created_new_thread


@pytest.mark.parametrize("options", ["", "?target_session_attrs=any"])
async def test_a_server_that_follows_another_one_fails_readiness_until_it_is_promoted(
    own_postgres: Postgres, options: str
) -> None:
    async with PostgresStore(own_postgres.url() + options) as store:
        await store.accept(make_plan())
        own_postgres.stop()
        (Path(own_postgres.data) / "standby.signal").touch()
        own_postgres.start()
        await unavailable("read-only", store.ping)
        own_postgres.psql("SELECT pg_promote()")
        await insist(store.ping)
        await insist(lambda: store.accept(make_plan("bob")))


async def test_a_server_that_goes_silent_fails_readiness_before_a_probe_gives_up(
    postgres: Postgres, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with Proxy(postgres.port) as proxy, PostgresStore(url.replace(str(postgres.port), str(proxy.port))) as store:
        await store.ping()
        monkeypatch.setattr(store_module, "PING_TIMEOUT", 0.3)
        proxy.silent = True
        async with asyncio.timeout(ANSWER_TIMEOUT / 2):
            await unavailable("no answer", store.ping)
        proxy.cut_all()


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (asyncpg.AdminShutdownError, "no connection"),
        (asyncpg.CannotConnectNowError, "starting or stopping"),
        (asyncpg.ConnectionDoesNotExistError, "no connection"),
        (asyncpg.IndexCorruptedError, "database damaged"),
        (asyncpg.InsufficientPrivilegeError, "access denied"),
        (asyncpg.InvalidCatalogNameError, "database missing"),
        (asyncpg.OutOfMemoryError, "out of memory"),
        (asyncpg.ReadOnlySQLTransactionError, "read-only"),
    ],
)
def test_each_state_of_postgresql_has_its_reason(error: type[asyncpg.PostgresError], reason: str) -> None:
    assert public_reason(error("…")) == reason


async def test_a_server_without_a_connection_to_spare_is_unavailable_until_it_has_one() -> None:
    with Postgres(fsync="off", max_connections="10") as server:
        async with PostgresStore(server.url()) as store:
            await store.accept(make_plan())
            crowd = [await connect(server)]
            async with asyncio.timeout(20):
                # A connection that is killed is not listed any more for a moment before its place is free.
                while await crowd[0].fetchval(KILL_OTHERS) or len(crowd) < 10:
                    try:
                        while True:
                            crowd.append(await connect(server))
                    except asyncpg.TooManyConnectionsError:
                        pass
            await unavailable("too many connections", lambda: store.accept(make_plan("bob")))
            await unavailable("too many connections", store.ping)
            for connection in crowd:
                connection.terminate()
            await insist(store.ping)
            await insist(lambda: store.accept(make_plan("bob")))


async def test_a_changed_password_is_noticed_with_the_next_connection(own_postgres: Postgres) -> None:
    own_postgres.psql("CREATE ROLE serving LOGIN SUPERUSER PASSWORD 'old'")
    rules = Path(own_postgres.data) / "pg_hba.conf"
    rules.write_text("host all serving 127.0.0.1/32 scram-sha-256\n" + rules.read_text())
    own_postgres.psql("SELECT pg_reload_conf()")
    url = own_postgres.url().replace("//postgres@", "//serving:old@")
    async with PostgresStore(url) as store:
        await store.accept(make_plan())
        own_postgres.psql("ALTER ROLE serving PASSWORD 'new'")
        own_postgres.psql(KILL_OTHERS)
        refused = await unavailable("access denied", lambda: store.accept(make_plan("bob")))
        assert "old" not in str(refused)
        await unavailable("access denied", store.ping)
        own_postgres.psql("ALTER ROLE serving PASSWORD 'old'")
        await insist(store.ping)


async def test_a_server_that_stops_says_so_by_its_reason(own_postgres: Postgres) -> None:
    async with PostgresStore(own_postgres.url()) as store:
        await store.accept(make_plan())
        own_postgres.stop()
        await unavailable("no connection", store.ping)
        await unavailable("no connection", lambda: store.accept(make_plan("bob")))
        own_postgres.start()
        await insist(store.ping)


async def test_the_service_logs_an_outage_once_and_its_end_once(
    own_postgres: Postgres, server: Callable[..., Served]
) -> None:
    with server(own_postgres.url()) as served:
        async with served.async_client() as client:
            own_postgres.stop()
            for _ in range(3):
                await asyncio.sleep(0.3)
                ready = await client.get("/readyz")
                assert (ready.status_code, ready.json()["reason"]) == (503, "no connection")
                assert (await chat(client)).status_code == 503
            own_postgres.start()
            async with asyncio.timeout(20):
                while "the store works again" not in served.stderr or (await client.get("/readyz")).status_code != 200:
                    await asyncio.sleep(0.1)
            assert (await chat(client)).status_code == 200
        served.stop()  # it writes all lines that it has
        log = served.stderr.splitlines()
        outages = [line for line in log if "the store is unavailable" in line]
        # A server that starts slowly refuses a connection with 57P03, which is a cause of its own, and is logged once.
        starts = [line for line in outages if "(57P03)" in line]
        assert (len(outages) - len(starts), len(starts) <= 1) == (1, True), outages
        assert len([line for line in log if "the store works again" in line]) == 1


async def test_a_listener_that_fails_again_and_again_logs_it_once(
    postgres: Postgres, database: str, url: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    attempts = 0
    serve = peers.Peers._serve

    async def count(self: peers.Peers, connection: Any) -> None:
        nonlocal attempts
        attempts += 1
        await serve(self, connection)

    monkeypatch.setattr(peers.Peers, "_serve", count)
    monkeypatch.setattr(peers, "RECONNECT_AFTER", 0.01)
    monkeypatch.setattr(peers, "POLL_EVERY", 0.01)
    async with PostgresStore(url) as store:
        await store.accept(make_plan())
        await store.accept(make_plan())  # it waits, so that the listener looks for its turn
        with caplog.at_level(logging.WARNING):
            postgres.psql("ALTER TABLE jimsapi_runs RENAME TO gone", database)
            async with asyncio.timeout(30):
                while attempts < 5:
                    await asyncio.sleep(0.01)
        postgres.psql("ALTER TABLE gone RENAME TO jimsapi_runs", database)
    assert len([record for record in caplog.records if "cannot listen" in record.getMessage()]) == 1


async def test_dead_processes_without_open_runs_are_forgotten(
    store: PostgresStore, postgres: Postgres, database: str
) -> None:
    mine, idle, busy = uuid7(), uuid7(), uuid7()
    for owner in (mine, idle, busy):
        await store.heartbeat(owner, [])
    plan = make_plan(owner=busy)
    await store.accept(plan)
    postgres.psql(f"UPDATE jimsapi_owners SET beat_at = beat_at - interval '2 hours' WHERE owner <> '{mine}'", database)
    await store.purge(10 * SILENCE)
    left = postgres.psql("SELECT owner FROM jimsapi_owners", database).split()
    assert set(left) == {str(mine), str(busy)}


async def unavailable(reason: str, call: Callable[[], Awaitable[object]]) -> StoreUnavailable:
    """Ask for something, which must fail for this reason."""
    with pytest.raises(StoreUnavailable) as refused:
        await call()
    assert (refused.value.reason, type(refused.value)) == (reason, StoreUnavailable)
    return refused.value


async def connect(server: Postgres) -> Any:
    return await asyncpg.connect(server.url(), server_settings={"application_name": "crowd"})


async def chat(client: httpx.AsyncClient) -> httpx.Response:
    return await client.post("/api/v1/chat", json={"contact_id": "ann", "message": "Hello"})

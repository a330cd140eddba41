"""The runbooks of PostgreSQL: servers are brought into each state, and show what the page quotes."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from database import BIN, Postgres

from tests.docs.runbooks import Operator, Runbook, logs, quotes, shown
from tests.monitoring.observed import CHAT, RUNS, Observed
from tests.monitoring.prometheus import Prometheus
from tests.waiting import eventually

SCRIPTED = ("--app", "tests.apps.scripted:app")
HELLO = {"contact_id": "ann", "message": "hi"}
PATH = f"{BIN}{os.pathsep}{os.environ['PATH']}"


def test_store_down(own_postgres: Postgres, tmp_path: Path) -> None:
    runbook = Runbook("store-down")
    with (
        Observed(*SCRIPTED, "--store", own_postgres.url()) as served,
        Prometheus(served.metrics_port) as prometheus,
        served.client() as client,
    ):
        assert client.post(CHAT, json=HELLO).status_code == 200
        own_postgres.stop()
        refused = client.post(CHAT, json=HELLO)
        assert quotes(runbook.quoted("client"), shown(refused))
        assert refused.headers["retry-after"] == "5"
        assert quotes(runbook.quoted("`/readyz`"), shown(client.get("/readyz")))
        assert quotes(runbook.quoted("`/healthz`"), shown(client.get("/healthz")))
        eventually(lambda: logs(runbook.quoted("log"), served.stderr))
        eventually(lambda: prometheus.query(runbook.quoted("metric")))
        client.post(CHAT, json=HELLO)
        alert = eventually(lambda: prometheus.firing().get(runbook.quoted("alert")))
        assert alert["annotations"]["runbook_url"].endswith(f"#{runbook.anchor}")
        own_postgres.start()
        look = Operator.of(served, tmp_path, PATH=PATH, STORE=own_postgres.url()).run(runbook.blocks("sh")[0])
        assert "accepting connections" in look
        eventually(lambda: quotes(runbook.quoted("client at the end"), shown(client.post(CHAT, json=HELLO))))
        eventually(lambda: quotes(runbook.quoted("`/readyz` at the end"), shown(client.get("/readyz"))))
        eventually(lambda: logs(runbook.quoted("log at the end"), served.stderr))


def test_the_run_that_is_stuck_is_found_in_the_store(url: str, tmp_path: Path) -> None:
    [find] = [block for block in Runbook("stuck-run").blocks("sh") if "--store" in block]
    with Observed(*SCRIPTED, "--store", url) as served, served.client() as client:
        run = client.post(RUNS, json={"contact_id": "ann", "message": "hold door"}).json()["run_id"]
        client.post(CHAT, json={"contact_id": "bob", "message": "reached door"})
        assert run in Operator.of(served, tmp_path, PATH=PATH, STORE=url).run(find)
        client.post(f"{RUNS}/{run}/cancel")


@pytest.fixture
def standby(own_postgres: Postgres) -> Iterator[Postgres]:
    """A server that follows `own_postgres`."""
    standby = Postgres(fsync="off")
    standby.copy_of(own_postgres)
    yield standby
    standby.crash()
    shutil.rmtree(standby.folder, ignore_errors=True)


def test_failover(own_postgres: Postgres, standby: Postgres, tmp_path: Path) -> None:
    runbook = Runbook("failover")
    both = f"postgresql://postgres@127.0.0.1:{own_postgres.port},127.0.0.1:{standby.port}/postgres"
    with (
        Observed(*SCRIPTED, "--store", both) as served,
        Prometheus(served.metrics_port) as prometheus,
        served.client() as client,
    ):
        thread = client.post(CHAT, json=HELLO).raise_for_status().json()["thread_id"]
        stored = "SELECT count(*) FROM thread_events WHERE event_type = 'comm.assistant_message'"
        eventually(lambda: standby.psql(stored) == "1")
        own_postgres.stop()
        refused = client.post(CHAT, json=HELLO)
        assert quotes(runbook.quoted("client"), shown(refused))
        assert refused.headers["retry-after"] == "5"
        ready = client.get("/readyz")
        assert quotes(runbook.quoted("`/readyz`"), shown(ready))
        assert ready.json()["reason"] in ("no connection", "read-only")
        eventually(lambda: logs(runbook.quoted("log"), served.stderr))
        client.post(CHAT, json=HELLO)
        eventually(lambda: runbook.quoted("alert") in prometheus.firing())
        Operator.of(served, tmp_path, PATH=PATH, STANDBY=standby.url()).run(runbook.blocks("sh")[0])
        eventually(lambda: quotes(runbook.quoted("client at the end"), shown(client.post(CHAT, json=HELLO))))
        eventually(lambda: quotes(runbook.quoted("`/readyz` at the end"), shown(client.get("/readyz"))))
        eventually(lambda: logs(runbook.quoted("log at the end"), served.stderr))
        assert client.post(CHAT, json=HELLO).json()["thread_id"] == thread


def test_restore_from_a_backup(postgres: Postgres, database: str, url: str, tmp_path: Path) -> None:
    section, runbook = Runbook("restore-from-a-backup"), Runbook("restore-postgresql")
    restored = postgres.url("restored")
    [backup] = [block for block in section.blocks("sh") if "pg_dump" in block]
    with Observed(*SCRIPTED, "--store", url) as served, served.client() as client:
        operator = Operator.of(
            served, tmp_path, PATH=PATH, STORE=url, RESTORED=restored, BACKUP=tmp_path / "backup.dump"
        )
        thread = client.post(CHAT, json=HELLO).raise_for_status().json()["thread_id"]
        operator.run(backup)
        later = client.post(CHAT, json={"contact_id": "bob", "message": "hi"}).json()["thread_id"]
    try:
        operator.run(runbook.blocks("sh")[0])
        with Observed(*SCRIPTED, "--store", restored) as served, served.client() as client:
            assert quotes(section.quoted("`/readyz` at the end"), shown(client.get("/readyz")))
            assert client.get(f"/api/v1/threads/{thread}/events").status_code == 200
            assert client.get(f"/api/v1/threads/{later}/events").status_code == 404
            assert quotes(section.quoted("client at the end"), shown(client.post(CHAT, json=HELLO)))
    finally:
        postgres.psql("DROP DATABASE IF EXISTS restored WITH (FORCE)")


def test_upgrade_and_rollback(postgres: Postgres, database: str, url: str, tmp_path: Path) -> None:
    upgrade, rollback = Runbook("upgrade"), Runbook("rollback")
    [command] = [block for block in upgrade.blocks("sh") if "db upgrade" in block]
    [printed] = upgrade.blocks("log")
    with Observed(*SCRIPTED, "--store", url) as served:
        operator = Operator.of(served, tmp_path, STORE=url)
    postgres.psql("DELETE FROM jimsapi_schema", database)  # as an upgrade that was cut off leaves it
    assert quotes(printed.strip(), operator.run(command).strip())
    # Servers of the version before find newer tables, which support it.
    postgres.psql("UPDATE jimsapi_schema SET version = version + 1", database)
    with Observed(*SCRIPTED, "--store", url) as served, served.client() as client:
        assert quotes(rollback.quoted("`/readyz` at the end"), shown(client.get("/readyz")))
        assert client.post(CHAT, json=HELLO).status_code == 200
    postgres.psql("UPDATE jimsapi_schema SET serves_from = version", database)
    with pytest.raises(RuntimeError) as refused:
        Observed(*SCRIPTED, "--store", url).start()
    [quoted, _] = rollback.blocks("log")
    assert logs(quoted.strip(), str(refused.value))

"""A database as Vedana's migrations leave it, with rows: our server takes it over, and changes none of them."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from database import Postgres
from jims_process import Jims

from tests.serving import Served

VEDANA = Path(__file__).with_name("vedana.sql").read_text()
TABLES = ("alembic_version", "nodes", "nodes_meta", "thread_events", "threads")
EACH_ROW = "SELECT '{table}', r.ctid, r.xmin, replace(r::text, chr(10), '⏎') FROM {table} r;"
"""Where it stands, the transaction that wrote it, and all it holds."""
OF_NOBODY, OF_EVERYTHING, OF_ONE_MOMENT, OF_ANN, EMPTY, OF_NO_NAME = (
    f"06800000-0000-7000-8000-{number:012}" for number in range(1, 7)
)
OLD = [OF_NOBODY, OF_EVERYTHING, OF_ONE_MOMENT, OF_ANN, EMPTY, OF_NO_NAME]


@pytest.fixture
def database(postgres: Postgres) -> Iterator[str]:
    with postgres.database() as name:
        postgres.psql(f"ALTER DATABASE {name} SET timezone = 'America/New_York'")
        postgres.psql(VEDANA, name)
        yield name


def test_a_database_of_vedana_is_taken_over_with_no_row_changed(
    postgres: Postgres, database: str, jims: Jims, url: str, server: Callable[..., Served]
) -> None:
    rows, tables = _rows(postgres, database), _tables(postgres, database)
    by_jims = {thread_id: jims.ask("read", thread_id) for thread_id in OLD}
    for _ in range(2):
        with server(url) as served:
            with served.client() as client:
                seen = [json.loads(_chat(client, "see", thread_id=thread_id)) for thread_id in OLD[:3]]
                _chat(client, "count", contact_id="Ännchen 😀")
                _chat(client, "see", contact_id="new")
            assert served.stop() == 0
        assert _tables(postgres, database) == tables
        assert rows < _rows(postgres, database)
    assert seen[0]["asked"] == [*map(str, range(0, 300, 3)), "see", "see"]
    assert seen[1] == {"asked": ["first", "second — ё 😀", "third", "see", "see"], "answered": 3}
    assert seen[2]["asked"] == [*map(str, range(1, 10)), "see", "count", "see"]
    added = {"threads": 1, "thread_events": 2 * (2 + 2 + 2 + 3 + 2) + 1}
    for table in TABLES:
        count = sum(row.startswith(f"{table}|") for row in rows)
        assert postgres.psql(f"SELECT count(*) FROM {table}", database) == str(count + added.get(table, 0))
    for thread_id, before in by_jims.items():
        after = jims.ask("read", thread_id)
        assert after[: len(before)] == before
        assert len(after) - len(before) == {OF_NOBODY: 4, OF_EVERYTHING: 4, OF_ONE_MOMENT: 10}.get(thread_id, 0)
        assert jims.ask("say", thread_id, "of JIMS")
        assert jims.ask("read", thread_id)[:-1] == after


def test_all_that_vedana_stored_is_shown_as_it_is(
    postgres: Postgres, database: str, url: str, server: Callable[..., Served]
) -> None:
    with server(url) as served, served.client() as client:
        for thread_id in OLD:
            shown = client.get(f"/api/v1/threads/{thread_id}/events", params={"limit": 1000})
            assert shown.status_code == 200
            stored = postgres.psql(
                "SELECT json_agg(json_build_array(event_id, event_type, event_data) ORDER BY created_at, event_id) "
                f"FROM thread_events WHERE thread_id = '{thread_id}'",
                database,
            )
            ours = [[event["event_id"], event["event_type"], event["event_data"]] for event in shown.json()["events"]]
            assert ours == json.loads(stored or "[]")
        of_ann = client.get("/api/v1/threads", params={"contact_id": "ann"}).json()["threads"]
        assert [(thread["thread_id"], thread["thread_config"]) for thread in of_ann] == [
            (OF_ANN, {"lang": "ж"}),
            (OF_EVERYTHING, {"interface": "telegram", "n": 1.0}),
        ]


def test_upgrading_a_database_of_vedana_again_changes_nothing(postgres: Postgres, database: str, url: str) -> None:
    rows, tables = _rows(postgres, database), _tables(postgres, database)
    _upgrade(url)
    first = postgres.dump(database)
    assert (_rows(postgres, database), _tables(postgres, database)) == (rows, tables)
    _upgrade(url)
    assert postgres.dump(database) == first
    assert _rows(postgres, database) == rows


def _chat(client: httpx.Client, message: str, **to: Any) -> str:
    answer = client.post("/api/v1/chat", json={"contact_id": "somebody", "message": message, **to})
    assert answer.status_code == 200, answer.text
    said: str = answer.json()["assistant_messages"][0]
    return said


def _rows(postgres: Postgres, database: str) -> set[str]:
    """Every row of the tables that were there, with its place."""
    return set(postgres.psql("".join(EACH_ROW.format(table=table) for table in TABLES), database).split("\n"))


def _tables(postgres: Postgres, database: str) -> list[str]:
    """The definitions of all that is not ours."""
    named = [part for table in TABLES for part in ("--table", table)]
    return [line for line in postgres.dump(database, "--schema-only", *named) if "jimsapi_" not in line]


def _upgrade(url: str) -> None:
    subprocess.run([sys.executable, "-m", "jimsapi", "db", "upgrade", "--store", url], check=True, capture_output=True)

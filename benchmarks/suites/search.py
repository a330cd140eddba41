"""What a search costs among 1,000,000 messages of one contact: its first search, which fills the index, and later ones.

The messages are plain rows in 1,000 threads, written past the service. The times are those of answers over HTTP.
"""

import http.client
import json
import sqlite3
import tempfile
import time
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any
from urllib.parse import quote

from benchmarks.answers import WITH_KEY
from benchmarks.environments import of_tests
from benchmarks.plan import Plan
from benchmarks.sheet import MILLISECONDS, Sheet
from benchmarks.suites.growth import PostgreSQL, SQLite, Store, made

THREADS = 1000
CONTACT = "ann"
PATIENCE = 900.0
"""Seconds that the first search may take."""
SEARCHES = 10
"""Searches of each kind in each round."""
QUERIES = {
    "a word of no message": "nothing",
    "a word of one message": "unique77",
    "a word of every tenth message": "w7",
    "a word of every message": "what",
    "two words": "w7 w777",
    "a phrase": '"w7 and w777"',
}
TEXT = "What do w%d and w%d say of unique%d? And then comes more text, so that the message has a usual length."
SQLITE_NUMBERS = "WITH RECURSIVE numbers(n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM numbers WHERE n + 1 < :many)"
SQLITE_ROWS = (
    f"""
    {SQLITE_NUMBERS} INSERT INTO threads (thread_id, contact_id, created_at, thread_config)
    SELECT printf('%032x', n), :contact, datetime('2025-01-01', n || ' seconds') || '.000000', '{{}}'
    FROM numbers WHERE n < :threads
    """,
    f"""
    {SQLITE_NUMBERS} INSERT INTO thread_events (thread_id, event_id, created_at, event_type, event_data)
    SELECT printf('%032x', n % :threads), printf('%032x', n), datetime('2025-01-01', n || ' seconds') || '.000000',
        'comm.user_message', json_object('role', 'user', 'content', printf(:text, n % 10, n % 1000, n))
    FROM numbers
    """,
)
POSTGRES_ROWS = """
    INSERT INTO threads (thread_id, contact_id, created_at, thread_config)
    SELECT lpad(to_hex(n), 32, '0')::uuid, '{contact}', timestamp '2025-01-01' + n * interval '1 second', '{{}}'
    FROM generate_series(0, {threads} - 1) n;
    INSERT INTO thread_events (thread_id, event_id, created_at, event_type, event_data)
    SELECT lpad(to_hex(n % {threads}), 32, '0')::uuid, lpad(to_hex(n), 32, '0')::uuid,
        timestamp '2025-01-01' + n * interval '1 second', 'comm.user_message',
        json_build_object('role', 'user', 'content', format('{text}', n % 10, n % 1000, n))
    FROM generate_series(0, {many} - 1) n;
    CHECKPOINT
"""


def run(plan: Plan) -> Sheet:
    """Measure."""
    many = plan.either(1_000_000, 10_000)
    sheet = Sheet("search", f"the time of a search among {many:,} messages of one contact", ())
    with ExitStack() as standing:
        folder = standing.enter_context(tempfile.TemporaryDirectory())
        server = standing.enter_context(of_tests("jimsapi-postgres", "database").Postgres())
        for store in (SQLite(folder), PostgreSQL(server, standing)):
            place = made(store)
            fill(store, server, place, many)
            measure(plan, sheet, store, place)
    return sheet


def fill(store: Store, server: Any, place: str, many: int) -> None:
    """Write so many messages into a store."""
    if isinstance(store, SQLite):
        with closing(sqlite3.connect(Path(place))) as connection:
            for sql in SQLITE_ROWS:
                connection.execute(sql, {"many": many, "threads": THREADS, "contact": CONTACT, "text": TEXT})
            connection.commit()
    else:
        text = TEXT.replace("%d", "%s")
        server.psql(POSTGRES_ROWS.format(many=many, threads=THREADS, contact=CONTACT, text=text), place)


def measure(plan: Plan, sheet: Sheet, store: Store, place: str) -> None:
    """Search once, which fills the index, and then for each of the queries in turn."""
    with store.serve(place, plan.server_core) as server, plan.as_load():
        sheet.add(f"{store.name}, the first search", "jimsapi", {MILLISECONDS: searched(server.port, "nothing")})
        for _ in range(plan.either(5, 2)):
            for name, text in QUERIES.items():
                spent = sorted(searched(server.port, text) for _ in range(SEARCHES))
                sheet.add(f"{store.name}, {name}", "jimsapi", {MILLISECONDS: spent[len(spent) // 2]})
    print(f"search: {store.name}", flush=True)


def searched(port: int, text: str) -> float:
    """Return the milliseconds until a search was answered. Raises `RuntimeError` for another answer than a page."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    with closing(connection):
        began = time.perf_counter()
        connection.request("GET", f"/api/v1/threads?contact_id={CONTACT}&q={quote(text)}", headers=WITH_KEY)
        answer = connection.getresponse()
        body = answer.read()
        spent = 1e3 * (time.perf_counter() - began)
    if answer.status != 200 or bool(json.loads(body)["threads"]) is (text == "nothing"):
        raise RuntimeError(f"the search for {text!r} was answered {body[:1000]!r}")
    return spent

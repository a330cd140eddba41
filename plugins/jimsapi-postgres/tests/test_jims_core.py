"""The real jims-core and this store on one database, turn by turn.

jims-core needs Python 3.12. The interpreter that has it (and asyncpg) is named by `JIMSAPI_JIMS_PYTHON`; without that
an environment with it is made once, in pytest's cache, of the first newer Python that is found.
"""

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any
from uuid import UUID

import orjson
import pytest
from database import Postgres
from jimsapi_postgres.store import PostgresStore

from jimsapi.testing.store import OWNER, all_events, completed, make_event, make_plan
from jimsapi.threads.event import decode_row
from jimsapi.threads.run import ByExternalId, ById, Latest, New

pytestmark = pytest.mark.anyio

NEEDED = ["jims-core==0.6.2", "asyncpg"]
TURNS = 200


@pytest.fixture(scope="session")
def jims_python(request: pytest.FixtureRequest) -> str:
    if named := os.environ.get("JIMSAPI_JIMS_PYTHON"):
        return named
    folder = Path(request.config.cache.mkdir("jims-core-0.6.2"))
    python = folder / "bin" / "python"
    if not (folder / "complete").exists():
        found = next(filter(None, map(shutil.which, ("python3.13", "python3.12", "python3.14"))), None)
        if found is None:
            pytest.fail("jims-core needs Python 3.12 or newer: install one, or name it in JIMSAPI_JIMS_PYTHON")
        subprocess.run([found, "-m", "venv", "--clear", str(folder)], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", *NEEDED], check=True)
        (folder / "complete").touch()
    return str(python)


class Jims:
    """A program on jims-core."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process

    def hear(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, "the program on jims-core died"
        return json.loads(line)

    def ask(self, *command: str) -> Any:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(command) + "\n")
        self._process.stdin.flush()
        return self.hear()


@pytest.fixture(params=["America/New_York"])
def database(postgres: Postgres, request: pytest.FixtureRequest) -> Iterator[str]:
    with postgres.database() as name:
        postgres.psql(f"ALTER DATABASE {name} SET timezone = '{request.param}'")
        yield name


@pytest.fixture
def jims(jims_python: str, url: str) -> Iterator[Jims]:
    """It has made its tables."""
    program = Path(__file__).with_name("jims_program.py")
    sqlalchemy_url = url.replace("postgresql://", "postgresql+asyncpg://")
    with subprocess.Popen(
        [jims_python, str(program), sqlalchemy_url], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        jims = Jims(process)
        try:
            assert jims.hear() == "ready"
            yield jims
        finally:
            process.kill()


async def test_jims_core_and_the_store_alternate_in_one_thread(jims: Jims, url: str) -> None:
    async with PostgresStore(url) as store:
        thread_id = UUID(jims.ask("new", "ann", "tg:7"))
        expected = [jims.ask("read", thread_id.hex)[0][0]]
        for turn in range(TURNS):
            expected.append(jims.ask("say", thread_id.hex, f"of JIMS {turn}"))
            plan, answer = make_plan(text=str(turn), selectors=(Latest(), New())), make_event()
            accepted = await store.accept(plan)
            assert accepted.thread.thread_id == thread_id
            assert accepted.snapshot is not None
            newest = [decode_row(thread_id, row).event_id.hex for row in accepted.snapshot.rows[-2:]]
            assert newest == [expected[-1], plan.message.event_id.hex]
            await store.finish(plan.run_id, OWNER, completed(answer))
            expected += [plan.message.event_id.hex, answer.event_id.hex]
        by_jims = jims.ask("read", thread_id.hex)
        ours = await all_events(store, thread_id)
        assert [event[0] for event in by_jims] == expected
        assert [event.event_id.hex for event in ours] == expected
        assert [event[1:3] for event in by_jims] == [
            [event.event_type, orjson.loads(event.event_data or b"null")] for event in ours
        ]
        times = [datetime.fromisoformat(event[3]) for event in by_jims]
        assert all(earlier < later for earlier, later in pairwise(times))


async def test_a_thread_of_each_is_found_by_the_other(jims: Jims, url: str) -> None:
    async with PostgresStore(url) as store:
        theirs = UUID(jims.ask("new", "ann", "tg:8"))
        found = await store.accept(make_plan(selectors=(ByExternalId("tg:8"),)))
        assert found.thread.thread_id == theirs
        assert orjson.loads(found.thread.thread_config) == {"lang": "é"}
        ours = (await store.accept(make_plan(selectors=(New(external_id="web:1"),)))).thread.thread_id
        assert jims.ask("new", "ann", "web:1") == ours.hex
        assert jims.ask("latest", "ann") == ours.hex
        assert [event[1] for event in jims.ask("read", ours.hex)] == [
            "jims.lifecycle.thread_created",
            "comm.user_message",
        ]
        await store.delete_thread(theirs, None)
        assert jims.ask("read", theirs.hex) is None
        assert (await store.accept(make_plan(selectors=(ById(ours),)))).thread.thread_id == ours


async def test_jims_core_starts_on_tables_that_the_store_made(jims_python: str, postgres: Postgres) -> None:
    with postgres.database() as name:
        async with PostgresStore(postgres.url(name)) as store:
            plan = make_plan()
            thread_id = (await store.accept(plan)).thread.thread_id
            program = Path(__file__).with_name("jims_program.py")
            with subprocess.Popen(
                [jims_python, str(program), postgres.url(name).replace("postgresql:", "postgresql+asyncpg:")],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            ) as process:  # fmt: skip
                jims = Jims(process)
                assert jims.hear() == "ready"
                jims.ask("say", thread_id.hex, "of JIMS")
                assert len(jims.ask("read", thread_id.hex)) == 3
                process.kill()
            assert (await store.finish(plan.run_id, OWNER, completed())).counted

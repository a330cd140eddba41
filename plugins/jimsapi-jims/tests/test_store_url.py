"""The store of an app is its own database, spelt as `--store` is, unless `--store` names another."""

import logging
import ssl
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy.ext.asyncio as sa_aio
from jims import echo_app, sessions_in, sessions_of
from jims_core.db import ThreadDB, ThreadEventDB
from jimsapi_jims.store_url import store_url, translated
from sqlalchemy import event, make_url

from jimsapi import create_api
from jimsapi.asgi.testing import TestClient
from jimsapi.plugins.errors import StartError

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("sqlite+aiosqlite:///jims.db", "sqlite:///jims.db"),
        ("sqlite+aiosqlite:///./data/jims.db", "sqlite:///./data/jims.db"),
        ("sqlite+aiosqlite:////srv/jims.db", "sqlite:////srv/jims.db"),
        ("sqlite+aiosqlite:////srv/my jims.db", "sqlite:////srv/my jims.db"),
        ("sqlite+aiosqlite:////srv/jims.db?timeout=10", "sqlite:////srv/jims.db"),
        ("postgresql+asyncpg://postgres:postgres@localhost:5432", "postgresql://postgres:postgres@localhost:5432"),
        ("postgresql+asyncpg://u:p@db:5433/jims", "postgresql://u:p@db:5433/jims"),
        ("postgresql+psycopg://u:p@db/jims", "postgresql://u:p@db/jims"),
        ("postgresql+psycopg_async://u@db/jims", "postgresql://u@db/jims"),
        ("postgresql+asyncpg://db/jims", "postgresql://db/jims"),
        ("postgresql+asyncpg://a%40b:p%40s%2Fs%3Aw%25@db/jims", "postgresql://a%40b:p%40s%2Fs%3Aw%25@db/jims"),
        ("postgresql+asyncpg://u:p+q%20r@db/jims", "postgresql://u:p%2Bq%20r@db/jims"),
        ("postgresql+asyncpg://u:p@[::1]:5432/jims", "postgresql://u:p@[::1]:5432/jims"),
        ("postgresql+asyncpg://u:p@db/jims?ssl=require", "postgresql://u:p@db/jims?sslmode=require"),
        ("postgresql+psycopg://u@db/jims?sslmode=verify-full", "postgresql://u@db/jims?sslmode=verify-full"),
        (
            "postgresql+asyncpg://u@db/jims?prepared_statement_cache_size=0&statement_cache_size=0&timeout=3",
            "postgresql://u@db/jims",
        ),
        ("postgresql+psycopg://u@/jims?host=/run/pg", "postgresql://u@/jims?host=%2Frun%2Fpg"),
        ("postgresql+asyncpg://u:p@/jims?host=a:1&host=b:2", "postgresql://u:p@a:1,b:2/jims"),
        (
            "postgresql+psycopg://u@db/jims?options=-csearch_path%3Dmy%20jims",
            "postgresql://u@db/jims?options=-csearch_path%3Dmy%20jims",
        ),
    ],
)
def test_an_engines_url_is_spelt_as_ours(theirs: str, ours: str) -> None:
    assert translated(make_url(theirs)) == ours


@pytest.mark.parametrize(
    "url",
    [
        "sqlite+aiosqlite://",
        "sqlite+aiosqlite:///:memory:",
        "sqlite+aiosqlite:///file::memory:?cache=shared&uri=true",
        "sqlite+aiosqlite:///file:jims?mode=memory&uri=true",
    ],
)
def test_a_database_in_memory_becomes_a_memory_of_ours_with_a_warning(
    url: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, logger="jimsapi.jims"):
        assert translated(make_url(url)) == "memory:"
    [record] = caplog.records
    assert "give --store to keep them" in record.getMessage()


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("mysql+aiomysql://root:hunter2@db/jims", "mysql+aiomysql"),
        ("sqlite+libsql://db.example.org/?authToken=hunter2", "sqlite+libsql"),
        ("sqlite+aiosqlite:///file:jims.db?mode=ro&uri=true&key=hunter2", "file: URI"),
    ],
)
def test_a_database_that_we_cannot_open_is_refused_without_its_password(url: str, told: str) -> None:
    with pytest.raises(StartError) as refused:
        translated(make_url(url))
    assert told in str(refused.value)
    assert "give --store" in str(refused.value)
    assert "hunter2" not in str(refused.value)


BASE = "postgresql+asyncpg://u:p@db/jims"


@pytest.mark.parametrize(
    ("url", "arguments", "options", "ours"),
    [
        (BASE, {}, {}, "postgresql://u:p@db/jims"),
        (BASE, {"statement_cache_size": 0, "timeout": 3, "command_timeout": 9.5}, {}, "postgresql://u:p@db/jims"),
        (
            BASE,
            {"password": "s/cret", "port": 6000, "ssl": "require"},
            {},
            "postgresql://u:s%2Fcret@db:6000/jims?sslmode=require",
        ),
        (
            BASE,
            {"server_settings": {"search_path": "vedana, public", "jit": "off"}},
            {},
            "postgresql://u:p@db/jims?options=-c%20search_path%3Dvedana%2C%5C%20public%20-c%20jit%3Doff",
        ),
        (BASE, {}, {None: "acme"}, "postgresql://u:p@db/jims?options=-c%20search_path%3D%22acme%22"),
        (
            BASE + "?options=-cjit%3Doff",
            {},
            {None: 'a "b'},
            "postgresql://u:p@db/jims?options=-cjit%3Doff%20-c%20search_path%3D%22a%5C%20%22%22b%22",
        ),
        (BASE, {}, {"other": "acme"}, "postgresql://u:p@db/jims"),
    ],
)
async def test_what_a_program_tells_its_engine_beside_the_url_leads_to_the_same_tables(
    url: str, arguments: dict[str, Any], options: dict[str | None, str], ours: str
) -> None:
    engine = sa_aio.create_async_engine(url, connect_args=arguments).execution_options(schema_translate_map=options)
    assert store_url(echo_app(sa_aio.async_sessionmaker(engine))) == ours


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"ssl": ssl.create_default_context()}, "its ssl, a SSLContext"),
        ({"password": lambda: "x"}, "its password, a function"),
    ],
)
async def test_what_no_url_can_say_stops_the_start(arguments: dict[str, Any], told: str) -> None:
    engine = sa_aio.create_async_engine(BASE, connect_args=arguments)
    with pytest.raises(StartError, match=rf"{told}; give --store"):
        store_url(echo_app(sa_aio.async_sessionmaker(engine)))


async def test_a_schema_is_for_postgresql_only() -> None:
    engine = sa_aio.create_async_engine("sqlite+aiosqlite:///jims.db")
    bound = engine.execution_options(schema_translate_map={None: "acme"})
    with pytest.raises(StartError, match=r"in the schema acme, .*; give --store"):
        store_url(echo_app(sa_aio.async_sessionmaker(bound)))


async def test_looking_at_an_engine_asks_nobody_and_leaves_it_as_it_is() -> None:
    asked = []
    engine = sa_aio.create_async_engine(BASE)
    event.listen(engine.sync_engine, "do_connect", lambda *_: asked.append("a password"))
    before = engine.pool
    store_url(echo_app(sa_aio.async_sessionmaker(engine)))
    assert (asked, engine.pool) == ([], before)
    assert len(engine.dialect.dispatch.do_connect) == 1


def bound_otherwise() -> dict[str, Any]:
    engine = sa_aio.create_async_engine("sqlite+aiosqlite:///jims.db")
    other = sa_aio.create_async_engine("sqlite+aiosqlite:///other.db")
    return {
        "by its sessionmaker": sa_aio.async_sessionmaker(engine),
        "by its tables": sa_aio.async_sessionmaker(other, binds={ThreadDB: engine, ThreadEventDB: engine}),
        "scoped": sa_aio.async_scoped_session(sa_aio.async_sessionmaker(engine), scopefunc=lambda: 1),
        "by hand": lambda: sa_aio.AsyncSession(engine),
    }


@pytest.mark.parametrize("how", bound_otherwise())
async def test_the_engine_is_the_one_in_which_a_session_finds_threads(how: str) -> None:
    assert store_url(echo_app(bound_otherwise()[how])) == "sqlite:///jims.db"


@asynccontextmanager
async def opened() -> Any:
    yield


@pytest.mark.parametrize("sessions", [sa_aio.async_sessionmaker(), opened, None])
async def test_a_sessionmaker_that_names_no_database_stops_the_start_unless_a_store_is_given(sessions: Any) -> None:
    with pytest.raises(RuntimeError, match=r"sessionmaker does not name a database .*; give --store"):
        async with TestClient(create_api(echo_app(sessions))):
            pass
    async with TestClient(create_api(echo_app(sessions), store="memory:")) as client:
        answer = await client.post("/api/v1/chat", json={"contact_id": "ann", "message": "hi"})
    assert answer.json()["assistant_messages"] == ["Echo: hi"]


async def test_a_given_store_comes_before_the_apps_own(tmp_path: Path) -> None:
    api = create_api(echo_app(sessions_in(tmp_path)), store=f"sqlite:///{tmp_path / 'given.db'}")
    async with TestClient(api) as client:
        await client.post("/api/v1/chat", json={"contact_id": "ann", "message": "hi"})
    assert (tmp_path / "given.db").exists()
    assert not (tmp_path / "jims.sqlite").exists()


async def test_a_relative_file_is_the_one_that_the_app_means(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    async with TestClient(create_api(echo_app(sessions_of("sqlite+aiosqlite:///here.db")))):
        pass
    assert (tmp_path / "here.db").exists()

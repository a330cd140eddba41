"""The same as `echo.py`, written for jims-core: for jims-api, and for ours to adapt.

`BENCHMARK_DATABASE` is its database, as SQLAlchemy names it. `BENCHMARK_TUNED` has the app do what its author can for
speed: SQLite's journal is a write-ahead log, and every client of PostgreSQL finds a connection.
"""
# It runs where jims-core is installed, which the type checker has not.
# mypy: ignore-errors

import asyncio
import os

import sqlalchemy.ext.asyncio as sa_aio
from jims_core.app import JimsApp
from jims_core.db import Base
from jims_core.thread.thread_context import ThreadContext

from benchmarks.apps.peers import PAUSE

CLIENTS = 64
"""The most that chat on PostgreSQL at a time."""


async def echo(ctx: ThreadContext) -> None:
    """Answer with the person's last message."""
    if PAUSE:
        await asyncio.sleep(PAUSE)
    ctx.send_message(ctx.get_last_user_message())


async def make_app() -> JimsApp:
    """Make JIMS's tables, as its programs do, and the app."""
    database, tuned = os.environ["BENCHMARK_DATABASE"], "BENCHMARK_TUNED" in os.environ
    on_postgres = database.startswith("postgresql")
    engine = sa_aio.create_async_engine(database, **({"pool_size": CLIENTS} if tuned and on_postgres else {}))
    if tuned and not on_postgres:
        async with engine.connect() as connection:
            await connection.exec_driver_sql("PRAGMA journal_mode = WAL")  # which a file then keeps
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    return JimsApp(sessionmaker=sa_aio.async_sessionmaker(engine, expire_on_commit=False), pipeline=echo)


app = make_app()

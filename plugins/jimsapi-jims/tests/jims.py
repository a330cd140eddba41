"""JIMS apps as their authors write them, and the threads of their databases as jims-core sees them."""

import uuid
from pathlib import Path
from typing import Any

import sqlalchemy.ext.asyncio as sa_aio
from jims_core.app import JimsApp
from jims_core.db import Base
from jims_core.thread.thread_context import ThreadContext
from jims_core.thread.thread_controller import ThreadController
from sqlalchemy.pool import NullPool

Sessions = sa_aio.async_sessionmaker[sa_aio.AsyncSession]


def sessions_of(url: str) -> Sessions:
    """The sessionmaker of an app whose database is at `url`; it keeps no connection open."""
    return sa_aio.async_sessionmaker(sa_aio.create_async_engine(url, poolclass=NullPool), expire_on_commit=False)


def sessions_in(folder: Path) -> Sessions:
    """The sessionmaker of an app that keeps its threads in `jims.sqlite` of a folder."""
    return sessions_of(f"sqlite+aiosqlite:///{folder / 'jims.sqlite'}")


async def create_tables(sessions: Sessions) -> None:
    """Make the tables as jims-core declares them."""
    async with sessions.kw["bind"].begin() as connection:
        await connection.run_sync(Base.metadata.create_all)


async def echo(ctx: ThreadContext) -> None:
    """The pipeline of most tests."""
    ctx.send_message(f"Echo: {ctx.get_last_user_message()}")


def echo_app(sessions: Any) -> JimsApp:
    """An app that repeats each message."""
    return JimsApp(sessionmaker=sessions, pipeline=echo)


async def thread_of(sessions: Sessions, thread_id: str) -> ThreadController:
    """A thread as jims-core finds it."""
    found = await ThreadController.from_thread_id(sessions, uuid.UUID(thread_id))
    assert found is not None
    return found


async def stored(sessions: Sessions, thread_id: str) -> list[tuple[str, Any]]:
    """Types and data of a thread's events, as jims-core reads them."""
    context = await (await thread_of(sessions, thread_id)).make_context()
    return [(event.event_type, event.event_data) for event in context.events]

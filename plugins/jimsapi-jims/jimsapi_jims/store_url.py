"""Where a JIMS app keeps its threads: the URL of its SQLAlchemy engine, spelt as `--store` is."""

import logging
from urllib.parse import quote, urlencode

import jims_core.app
from jims_core.db import ThreadDB
from sqlalchemy import URL

from jimsapi.plugins.errors import StartError

logger = logging.getLogger("jimsapi.jims")

_SQLITE_DRIVERS = ("sqlite", "sqlite+aiosqlite", "sqlite+pysqlite")

_OF_THE_DRIVER = frozenset(
    {
        "async_creator_fn", "async_fallback", "command_timeout", "max_cacheable_statement_size",
        "max_cached_statement_lifetime", "prepared_statement_cache_size", "prepared_statement_name_func",
        "statement_cache_size", "timeout",
    }
)  # fmt: skip
"""Parameters in PostgreSQL URLs that tune SQLAlchemy's use of asyncpg, and say nothing of the server."""


def store_url(app: jims_core.app.JimsApp) -> str:
    """The store's URL for the database in which sessions of the app find the threads; it may hold a password.

    A database in memory, which nobody else can open, becomes a memory of our own, with a warning.

    Raises:
        StartError: the app's sessions name no database, or one that jimsapi cannot open; no password is in it.
    """
    return translated(_url_of_threads(app))


def translated(url: URL) -> str:
    """An SQLAlchemy URL as jimsapi spells it. Raises as `store_url` does."""
    backend = url.drivername.partition("+")[0]
    if url.drivername in _SQLITE_DRIVERS:
        return _sqlite(url)
    if backend == "postgresql":
        return _postgresql(url)
    raise _refusal(f"in a database of {url.drivername}, and jimsapi opens SQLite and PostgreSQL")


def _url_of_threads(app: jims_core.app.JimsApp) -> URL:
    try:
        # A session opens nothing before it is used. It knows its database even if tables have one each.
        bind = app.sessionmaker().sync_session.get_bind(ThreadDB)
    except Exception as error:
        raise _refusal(f"where its sessionmaker does not tell ({type(error).__name__})") from error
    url: URL = bind.engine.url
    return url


def _sqlite(url: URL) -> str:
    path = url.database or ":memory:"
    if ":memory:" in path or url.query.get("mode") == "memory":
        logger.warning(
            "the JIMS app's database is in memory, which only its own engine can open: its threads are kept in another "
            "memory, where the app's own sessions find none, and are lost at the end; give --store to keep them"
        )
        return "memory:"
    if path.startswith("file:"):
        raise _refusal("in a SQLite database that a file: URI names")
    return f"sqlite:///{path}"


def _postgresql(url: URL) -> str:
    user = quote(url.username or "", safe="")
    password = "" if url.password is None else ":" + quote(str(url.password), safe="")
    credentials = f"{user}{password}@" if user or password else ""
    parameters = {name: _text(value) for name, value in url.query.items() if name not in _OF_THE_DRIVER}
    if "ssl" in parameters:  # asyncpg's name for what is `sslmode` elsewhere
        parameters["sslmode"] = parameters.pop("ssl")
    hosts = _host(url)
    if ":" in parameters.get("host", ""):
        hosts = parameters.pop("host")  # each with its port, which PostgreSQL's clients look for in this place alone
    database = f"/{quote(url.database, safe='')}" if url.database else ""
    query = urlencode(parameters, quote_via=quote)
    return f"postgresql://{credentials}{hosts}{database}" + (f"?{query}" if query else "")


def _host(url: URL) -> str:
    host = url.host or ""
    bracketed = f"[{host}]" if ":" in host else host
    return bracketed if url.port is None else f"{bracketed}:{url.port}"


def _text(value: str | tuple[str, ...]) -> str:
    return value if isinstance(value, str) else ",".join(value)


def _refusal(where: str) -> StartError:
    return StartError(f"the JIMS app keeps its threads {where}; give --store to name the database")

"""Converts the URL of a JIMS app's SQLAlchemy engine to a URL for `--store`."""

import logging
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, NoReturn
from urllib.parse import quote, urlencode

import jims_core.app
from jims_core.db import ThreadDB
from sqlalchemy import URL, Engine, event

from jimsapi.plugins import StartError

logger = logging.getLogger("jimsapi.jims")

_SQLITE_DRIVERS = ("sqlite", "sqlite+aiosqlite", "sqlite+pysqlite")

_DRIVER_SETTINGS = frozenset(
    {
        "async_creator_fn", "async_fallback", "autocommit", "command_timeout", "connection_class", "context",
        "cursor_factory", "loop", "max_cacheable_statement_size", "max_cached_statement_lifetime", "prepare_threshold",
        "prepared_statement_cache_size", "prepared_statement_name_func", "record_class", "row_factory",
        "statement_cache_size", "timeout",
    }
)  # fmt: skip
"""Settings of asyncpg, psycopg and SQLAlchemy that do not concern the server. They are ignored."""

_PARTS = {"user": "username", "password": "password", "host": "host", "port": "port", "database": "database"} | {
    "dbname": "database"
}
"""The drivers' names of the parts of a URL, and SQLAlchemy's names."""


class _ArgumentsCaptured(Exception):
    """Raised to stop SQLAlchemy before it connects."""


def store_url(app: jims_core.app.JimsApp) -> str:
    """Return the `--store` URL of the database with the app's threads. It may contain a password.

    For a database in memory, which only the app's engine can open, it returns `memory:` and logs a warning.

    Raises:
        StartError: the app's sessions have no database, or one that jimsapi cannot open. The message contains no
            password.
    """
    return translated(_url_of_threads(app))


def translated(url: URL) -> str:
    """Convert an SQLAlchemy URL to a `--store` URL. Raises as `store_url` does."""
    backend = url.drivername.partition("+")[0]
    if url.drivername in _SQLITE_DRIVERS:
        return _sqlite(url)
    if backend == "postgresql":
        return _postgresql(url)
    raise _unusable(f"the JIMS app has a {url.drivername} database, but jimsapi supports only SQLite and PostgreSQL")


def _url_of_threads(app: jims_core.app.JimsApp) -> URL:
    try:
        # Creating a session opens no connection. `get_bind` works even if each table has a database of its own.
        bind = app.sessionmaker().sync_session.get_bind(ThreadDB)
        engine: Engine = bind.engine
        schemas = bind.get_execution_options().get("schema_translate_map") or {}
    except Exception as error:
        raise _unusable(f"the JIMS app's sessionmaker does not name a database ({type(error).__name__})") from error
    schema = schemas.get(ThreadDB.__table__.schema)
    if engine.url.drivername.partition("+")[0] == "postgresql":
        return _with_arguments(engine.url, _connect_args(engine), schema)
    if schema is not None:
        raise _unusable(f"the JIMS app's threads are in the schema {schema}, which jimsapi supports only in PostgreSQL")
    return engine.url


def _connect_args(engine: Engine) -> dict[str, Any]:
    """The arguments that an engine passes to the driver in addition to the URL (`connect_args`).

    SQLAlchemy passes them only to listeners, just before it connects. The listener here stops it then. If the program
    has a listener of its own, which may for example fetch a password, the result is empty.
    """
    if list(engine.dialect.dispatch.do_connect):
        return {}
    captured: dict[str, Any] = {}

    def capture(dialect: object, record: object, arguments: object, parameters: Mapping[str, Any]) -> NoReturn:
        captured.update(parameters)
        raise _ArgumentsCaptured

    event.listen(engine, "do_connect", capture)
    try:
        with suppress(Exception):  # `_ArgumentsCaptured`, or an error of the program's own connect function
            engine.pool.recreate().connect()
    finally:
        event.remove(engine, "do_connect", capture)
    from_url = engine.dialect.create_connect_args(engine.url)[1]
    return {name: value for name, value in captured.items() if name not in from_url or from_url[name] != value}


def _with_arguments(url: URL, arguments: Mapping[str, Any], schema: str | None) -> URL:
    """Add driver arguments and the schema of the tables to a URL. Raises `StartError` if a URL cannot express one."""
    settings: dict[str, str] = {}
    parts: dict[str, Any] = {}
    for name, value in arguments.items():
        if name in _DRIVER_SETTINGS or value is None:
            continue
        if name == "server_settings":
            settings.update({setting: str(text) for setting, text in value.items()})
        elif isinstance(value, bool) or not isinstance(value, str | int):
            # Without the argument, the connection might be to another server, or not verified.
            raise _unusable(
                f"the JIMS app's engine has connect_args, and a URL cannot contain its {name}, a {type(value).__name__}"
            )
        elif name in _PARTS:
            parts[_PARTS[name]] = value
        else:
            url = url.update_query_dict({name: str(value)})
    url = url.set(**parts)
    if schema is not None:
        settings["search_path"] = '"' + schema.replace('"', '""') + '"'
    if not settings:
        return url
    options = [
        *_texts(url.query.get("options", ())),
        *(f"-c {name}={_escaped(value)}" for name, value in settings.items()),
    ]
    return url.update_query_dict({"options": " ".join(options)})


def _texts(value: str | tuple[str, ...]) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else value


def _escaped(setting: str) -> str:
    """A setting, escaped for the connection parameter `options`, where spaces separate the options."""
    return "".join(f"\\{character}" if character.isspace() or character == "\\" else character for character in setting)


def _sqlite(url: URL) -> str:
    path = url.database or ":memory:"
    if ":memory:" in path or url.query.get("mode") == "memory":
        logger.warning(
            "the JIMS app's database is in memory, and only the app's engine can open it: jimsapi stores the "
            "threads in its own memory, where the app's sessions cannot read them, and they are lost when the server "
            "stops; give --store to keep them"
        )
        return "memory:"
    if path.startswith("file:"):
        raise _unusable("the JIMS app's SQLite database is named by a file: URI")
    return f"sqlite:///{path}"


def _postgresql(url: URL) -> str:
    user = quote(url.username or "", safe="")
    password = "" if url.password is None else ":" + quote(str(url.password), safe="")
    credentials = f"{user}{password}@" if user or password else ""
    parameters = {name: _text(value) for name, value in url.query.items() if name not in _DRIVER_SETTINGS}
    if "ssl" in parameters:  # asyncpg's name of `sslmode`
        parameters["sslmode"] = parameters.pop("ssl")
    hosts = _host(url)
    if ":" in parameters.get("host", ""):
        hosts = parameters.pop("host")  # PostgreSQL's clients accept hosts with ports only in this part of a URL
    database = f"/{quote(url.database, safe='')}" if url.database else ""
    query = urlencode(parameters, quote_via=quote)
    return f"postgresql://{credentials}{hosts}{database}" + (f"?{query}" if query else "")


def _host(url: URL) -> str:
    host = url.host or ""
    bracketed = f"[{host}]" if ":" in host else host
    return bracketed if url.port is None else f"{bracketed}:{url.port}"


def _text(value: str | tuple[str, ...]) -> str:
    return ",".join(_texts(value))


def _unusable(problem: str) -> StartError:
    return StartError(f"{problem}; give --store to name the database")

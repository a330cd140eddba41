"""Parses the URL of `--store postgresql://…`, also in SQLAlchemy's forms."""

import re
from typing import Any
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit

import msgspec

SCHEMES = ("postgresql", "postgres", "postgresql+asyncpg", "postgresql+psycopg", "postgresql+psycopg2")
"""The last three are SQLAlchemy's, which apps of jims-core have."""

CONNECT_TIMEOUT = 5.0

_SUPPORTED = {
    "host", "port", "user", "password", "dbname", "database", "passfile", "service", "sslmode", "sslcert", "sslkey",
    "sslrootcert", "sslcrl", "sslpassword", "sslnegotiation", "ssl_min_protocol_version", "ssl_max_protocol_version",
    "target_session_attrs", "krbsrvname", "gsslib", "application_name", "options", "search_path",
}  # fmt: skip
"""Parameters that asyncpg supports. The last three become settings of the session."""

_IGNORED = {
    "keepalives", "keepalives_idle", "keepalives_interval", "keepalives_count", "tcp_user_timeout", "client_encoding",
    "prepared_statement_cache_size", "prepared_statement_name_func", "async_fallback", "command_timeout",
    "fallback_application_name", "load_balance_hosts",
}  # fmt: skip
"""Parameters of libpq and SQLAlchemy for performance and keepalives, which this store ignores."""


class Target(msgspec.Struct, frozen=True):
    """The address of the database.

    `dsn` may contain a password and is never shown; `name` is shown instead. `connect_timeout` is in seconds.
    """

    dsn: str
    name: str
    connect_timeout: float

    def __repr__(self) -> str:
        return f"Target({self.name!r})"


def parse_url(url: str) -> Target:
    """Parse a URL, and return it in the form that asyncpg expects.

    Raises:
        ValueError: the URL is invalid or has an unknown parameter. The message does not contain a password.
    """
    try:
        parts = urlsplit(url)
        pairs = parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query))
    except ValueError:
        raise ValueError("this is not a URL; give postgresql://user:password@host:5432/database") from None
    if parts.scheme not in SCHEMES or not url.startswith(f"{parts.scheme}://"):
        raise ValueError(f"give one of {', '.join(f'{scheme}://' for scheme in SCHEMES)}")
    if parts.fragment:
        raise ValueError("write a # in a password or a name as %23")
    parameters = dict(pairs)
    timeout = _connect_timeout(parameters.pop("connect_timeout", None))
    if "ssl" in parameters:  # SQLAlchemy's name of `sslmode` with asyncpg
        parameters["sslmode"] = _ssl_mode(parameters.pop("ssl"))
    for name in ("channel_binding", "gssencmode"):  # not supported; ignoring a required one would be unsafe
        if parameters.pop(name, "disable") not in ("disable", "prefer", "allow"):
            raise ValueError(f"{name} is not supported; omit it, and set sslmode=verify-full")
    parameters = {name: value for name, value in parameters.items() if name not in _IGNORED}
    if unknown := sorted(parameters.keys() - _SUPPORTED):
        raise ValueError(f"unknown parameters: {', '.join(unknown)}; supported: {', '.join(sorted(_SUPPORTED))}")
    # The store writes, so it must not connect to a read-only standby.
    parameters.setdefault("target_session_attrs", "read-write")
    login, at, hosts = parts.netloc.rpartition("@")
    _check_ports(
        [*hosts.split(","), *parameters.get("host", "").split(",")],
        parameters.get("port", ""),
        shown=bool(at) or "@" not in url,
    )
    user, colon, password = login.partition(":")
    netloc = f"{_quoted(user)}{colon}{_quoted(password)}{at}{hosts}"
    dsn = f"postgresql://{netloc}{parts.path}?{urlencode(parameters, quote_via=quote, safe='/,')}"
    return Target(dsn, f"postgresql://{hosts or parameters.get('host', '')}{parts.path}", timeout)


def connect_arguments(target: Target) -> dict[str, Any]:
    """Return the arguments for `asyncpg.connect`."""
    return {"dsn": target.dsn, "timeout": target.connect_timeout}


def _check_ports(hosts: list[str], ports: str, *, shown: bool) -> None:
    """Raise `ValueError` for an invalid port. Each host may have one. `shown`: the message may contain the port."""
    of_hosts = [re.sub(r"^\[.*\]", "", host).partition(":")[2] for host in hosts if not host.startswith("/")]
    for port in (*of_hosts, *ports.split(",")):
        if port and not (port.isascii() and port.isdigit() and 0 < int(port) <= 65535):
            if not shown:
                raise ValueError("the port is not a number; write a / in a password or a name as %2F, and a ? as %3F")
            raise ValueError(f"the port {port!r} is not a whole number from 1 to 65535")


def _quoted(text: str) -> str:
    return quote(unquote(text), safe="")


def _ssl_mode(value: str) -> str:
    return {"true": "require", "false": "disable"}.get(value.lower(), value)


def _connect_timeout(value: str | None) -> float:
    if value is None:
        return CONNECT_TIMEOUT
    try:
        seconds = float(value)
    except ValueError:
        seconds = -1
    if not 0 < seconds <= 3600:
        raise ValueError("connect_timeout: give seconds, for example 5")
    return seconds

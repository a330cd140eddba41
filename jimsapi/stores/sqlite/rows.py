"""The formats of identifiers, times and JSON in an SQLite database, of jimsapi and of other JIMS programs."""

from datetime import UTC, datetime, timedelta
from uuid import UUID

import orjson

from jimsapi.threads.event import EPOCH
from jimsapi.threads.run import ThreadRecord

ThreadRow = tuple[str | int | float, str | None, str, bytes]
"""The columns of a thread: `thread_id, contact_id, created_at, thread_config`."""

_NUMBER_BEGINS = frozenset(b"%c" % digit for digit in b"-0123456789")
"""The first bytes of a number in JSON. To look into a set takes a quarter of the time of a search in bytes, or less."""


def id_text(stored: str | int | float) -> str:
    """Return the 32 hex digits of a stored identifier.

    Other JIMS programs declare id columns with NUMERIC affinity. In such a column, an identifier that has only digits
    became an integer. If it was too long, or had an `e` among its digits, it became a float and lost its last digits.
    For a float, the function returns 32 hex digits that SQLite converts to the same float, so a query finds the row.
    """
    if isinstance(stored, str):
        return stored
    if isinstance(stored, int):
        return f"{stored:032d}"
    if stored == float("inf"):
        return "9e999".zfill(32)
    digits, _, exponent = f"{stored:.16e}".replace(".", "").partition("e")
    return f"{digits}e{int(exponent) - 16}".zfill(32)


def id_hex(identifier: UUID) -> str:
    """Return the 32 hex digits of an identifier, at half the cost of `UUID.hex`."""
    return identifier.int.to_bytes(16, "big").hex()


def first_id_after(time: datetime) -> str:
    """Return text that sorts after all identifiers of `uuid7` up to `time` (UTC), and before those of a later ms."""
    return f"{(time - EPOCH) // timedelta(milliseconds=1) + 1:012x}"


def time_text(time: datetime) -> str:
    """Return a time in SQLAlchemy's format. Such texts sort by time."""
    if time.microsecond == 0:  # orjson would leave the fraction out
        return time.isoformat(" ", "microseconds")
    return orjson.dumps(time)[1:27].replace(b"T", b" ").decode()  # a third of what `isoformat` costs


def json_value(data: bytes) -> str | bytes:
    """Return JSON as a parameter for SQLite: text, or a BLOB for a single number, which affinity does not convert."""
    return data if data[:1] in _NUMBER_BEGINS else data.decode()


def contact_of(row: ThreadRow) -> str | None:
    """Return the contact of a thread."""
    return row[1]


def thread_record(row: ThreadRow) -> ThreadRecord:
    """Return the record of a thread row, whose `created_at` is in the local time of the process."""
    thread_id, contact_id, created_at, thread_config = row
    local = datetime.fromisoformat(created_at)
    return ThreadRecord(UUID(id_text(thread_id)), contact_id, local.astimezone(UTC), thread_config)

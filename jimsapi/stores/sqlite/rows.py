"""How identifiers, times and JSON stand in an SQLite database, ours and other JIMS programs'."""

from datetime import UTC, datetime, timedelta
from uuid import UUID

import orjson

from jimsapi.threads.event import EPOCH
from jimsapi.threads.run import ThreadRecord

ThreadRow = tuple[str | int | float, str | None, str, bytes]
"""A thread as read: `thread_id, contact_id, created_at, thread_config`."""


def id_text(stored: str | int | float) -> str:
    """The 32 hex digits of a stored identifier.

    Other JIMS programs declare id columns with NUMERIC affinity. There an identifier of digits alone became an integer,
    and one too long for that (or with an `e` among its digits) a float, whose last digits are lost. For a float this
    makes 32 hex digits that SQLite reads as the same float, so that the row can be found by them.
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
    """The 32 hex digits of an identifier, at half of what its `hex` costs."""
    return identifier.int.to_bytes(16, "big").hex()


def first_id_after(time: datetime) -> str:
    """Text that sorts after all identifiers of `uuid7` up to `time` (UTC), and before those of later milliseconds."""
    return f"{(time - EPOCH) // timedelta(milliseconds=1) + 1:012x}"


def time_text(time: datetime) -> str:
    """A time as SQLAlchemy writes it; text order is the order of time."""
    if time.microsecond == 0:  # orjson would leave the fraction out
        return time.isoformat(" ", "microseconds")
    text = orjson.dumps(time).decode()  # a third of what `isoformat` costs
    return f"{text[1:11]} {text[12:27]}"


def json_value(data: bytes) -> str | bytes:
    """JSON as it is bound: text, but a bare number as a BLOB, which no column's affinity rewrites."""
    return data if data[:1] in b"-0123456789" else data.decode()


def contact_of(row: ThreadRow) -> str | None:
    """The contact that a thread belongs to."""
    return row[1]


def thread_record(row: ThreadRow) -> ThreadRecord:
    """A thread's `created_at` stands in the process's local time."""
    thread_id, contact_id, created_at, thread_config = row
    local = datetime.fromisoformat(created_at)
    return ThreadRecord(UUID(id_text(thread_id)), contact_id, local.astimezone(UTC), thread_config)

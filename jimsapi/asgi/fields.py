"""Header fields, and the fields of a query string."""

from collections.abc import Iterator
from urllib.parse import parse_qsl

from .errors import HTTPError

MAX_QUERY_FIELDS = 1000
"""Maximum number of fields of a query string, and of cookies that are read from a request."""


class Headers:
    """Request headers. Names are case-insensitive. Values are decoded as Latin-1 (RFC 9110, 5.5)."""

    __slots__ = ("raw",)

    def __init__(self, raw: list[tuple[bytes, bytes]]) -> None:
        self.raw = raw

    def get(self, name: str) -> str | None:
        """Return the first header with this name, or None."""
        key = name.lower().encode("latin-1", "replace")
        for found, value in self.raw:
            if found == key:
                return value.decode("latin-1")
        return None

    def getlist(self, name: str) -> list[str]:
        """Return all headers with this name, in order."""
        key = name.lower().encode("latin-1", "replace")
        values = []
        for found, value in self.raw:  # a comprehension takes 1.5 times as long
            if found == key:
                values.append(value.decode("latin-1"))
        return values

    def __contains__(self, name: str) -> bool:
        key = name.lower().encode("latin-1", "replace")
        return any(found == key for found, _ in self.raw)

    def __iter__(self) -> Iterator[tuple[str, str]]:
        for name, value in self.raw:
            yield name.decode("latin-1"), value.decode("latin-1")

    def __len__(self) -> int:
        return len(self.raw)

    def __repr__(self) -> str:  # names only: values contain tokens and cookies
        return f"Headers({[name.decode('latin-1') for name, _ in self.raw]})"


class Fields:
    """Text fields, of which several may have the same name."""

    __slots__ = ("_fields",)

    def __init__(self, fields: list[tuple[str, str]]) -> None:
        self._fields = fields

    def get(self, name: str) -> str | None:
        """Return the last field with this name, as FastAPI does, or None."""
        for found, value in reversed(self._fields):
            if found == name:
                return value
        return None

    def getlist(self, name: str) -> list[str]:
        """Return all fields with this name, in order."""
        return [value for found, value in self._fields if found == name]

    def __contains__(self, name: str) -> bool:
        return any(found == name for found, _ in self._fields)

    def __iter__(self) -> Iterator[tuple[str, str]]:
        return iter(self._fields)

    def __len__(self) -> int:
        return len(self._fields)

    def __repr__(self) -> str:  # names only: values may be tokens
        return f"{type(self).__name__}({[name for name, _ in self._fields]})"


class QueryParams(Fields):
    """The decoded fields of a query string. Invalid UTF-8 becomes U+FFFD.

    Raises `HTTPError` 400 for more than `MAX_QUERY_FIELDS` fields.
    """

    __slots__ = ()

    def __init__(self, query_string: bytes) -> None:
        try:
            self._fields = parse_fields(query_string, MAX_QUERY_FIELDS)
        except ValueError:
            raise HTTPError(400, f"A query string may hold at most {MAX_QUERY_FIELDS} fields") from None


def parse_fields(encoded: bytes, max_fields: int) -> list[tuple[str, str]]:
    """Return the fields of a query string or of a form that is encoded like one.

    Raises `ValueError` for more than `max_fields`.
    """
    text = encoded.decode("utf-8", "replace")
    return parse_qsl(text, keep_blank_values=True, errors="replace", max_num_fields=max_fields)

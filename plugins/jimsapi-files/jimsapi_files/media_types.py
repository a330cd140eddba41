"""Media types (RFC 6838): which ones a server accepts, and as which one it sends a file."""

import re
from collections.abc import Iterable

OCTETS = "application/octet-stream"
"""The type of a file about which nothing is known."""

INLINE = frozenset({"image/gif", "image/jpeg", "image/png", "image/webp", "text/plain"})
"""Types that a browser may show. It downloads files of all other types."""

_NAME = r"[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]{0,126}"
_TYPE = re.compile(f"{_NAME}/{_NAME}")
_PATTERN = re.compile(rf"\*/\*|{_NAME}/(?:\*|{_NAME})")
_PASSIVE = frozenset({"application/json", "application/pdf", "application/zip", "text/csv", "text/plain"})
_PASSIVE_KINDS = ("audio/", "image/", "video/")


def essence(content_type: str) -> str | None:
    """Return a media type in lower case and without its parameters; None if the text is not a media type."""
    kind = content_type.partition(";")[0].strip()
    return kind.lower() if _TYPE.fullmatch(kind) else None


def is_pattern(text: str) -> bool:
    """Return whether a text is a media type, `image/*` and the like, or `*/*`."""
    return _PATTERN.fullmatch(text) is not None


def matches(kind: str, patterns: Iterable[str]) -> bool:
    """Return whether a media type in lower case matches one of the patterns."""
    main = kind.partition("/")[0]
    return not {kind, f"{main}/*", "*/*"}.isdisjoint(pattern.lower() for pattern in patterns)


def sent_type(kind: str) -> str:
    """Return the `Content-Type` with which a file of this media type is sent.

    Only types in which browsers find nothing to execute are sent as they are. A page could load a script or a style
    sheet from this server even if the file is sent as a download. A script in an SVG image runs when it is opened.
    """
    is_passive = kind in _PASSIVE or (kind.startswith(_PASSIVE_KINDS) and not kind.endswith("xml"))
    if not is_passive:
        return OCTETS
    return f"{kind}; charset=utf-8" if kind.startswith("text/") else kind
